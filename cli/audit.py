"""`keyturn audit`: follow the trail, tell one intent's story, export it, verify it, and decide it again."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from auditors.verify import Head, Report
    from schemas.records import AuditRecord
    from streams.settings import Settings

FAULTY: Final = 6
"""Exit code of a trail with a fault."""

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Option("--dir", envvar="KEYTURN_DIR", help="The folder that `keyturn init` made.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BundleFolder = Annotated[Path | None, typer.Option("--bundle", help="A folder that `export` wrote, instead of Kafka.")]


class AuditError(Exception):
    """The trail cannot be shown; the text says what to do."""


@app.command("tail")
def tail(
    directory: Folder = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    count: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last records.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The last records of the trail, one line each."""
    settings = _settings(directory)

    async def run() -> None:
        from auditors import collect

        async with aclosing(collect.trail(settings, last=count, follows=follow)) as records:
            async for record in records:
                _print(record.value, as_json=as_json)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command("show")
def show(
    intent: Annotated[str, typer.Argument(help="The intent's id.")],
    directory: Folder = None,
    *,
    bundle: BundleFolder = None,
    as_json: AsJson = False,
) -> None:
    """The whole story of one intent: who, what, which question, digests, verdicts."""
    from auditors import story

    found = [record for record in _trail_of(intent, directory, bundle) if record.intent == intent]
    if as_json:
        typer.echo(json.dumps([record.to_json() for record in found]))
    else:
        for text in story.tell(found):
            typer.echo(text)
    if not found:
        typer.echo(f"{intent} is not on the trail", err=True)
        raise typer.Exit(1)


@app.command("export")
def export(
    target: Annotated[Path, typer.Argument(help="A new folder for the bundle.")], directory: Folder = None
) -> None:
    """Write everything an auditor needs into a folder; `verify --bundle` checks it anywhere."""
    settings = _settings(directory)
    for topic, count in asyncio.run(_collect(settings, target)).items():
        typer.echo(f"{topic}: {count} records")


@app.command("verify")
def verify(
    directory: Folder = None,
    *,
    bundle: BundleFolder = None,
    root_key: Annotated[
        list[str] | None, typer.Option("--root-key", help="A public root key, instead of KEYTURN_ROOT_KEYS.")
    ] = None,
    realm: Annotated[str | None, typer.Option(help="The realm, instead of KEYTURN_REALM.")] = None,
    head: Annotated[
        list[str] | None, typer.Option("--head", help="CHAIN/SEQ:DIGEST, remembered from the last check.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the whole trail against the laws. Exits 6 if one is broken."""
    from auditors.verify.command import head as head_of

    heads = [head_of(text) for text in head or []]
    settings = None if bundle is not None and root_key else _settings(directory)
    keys = root_key or ([key for _, key in settings.roots] if settings is not None else [])
    pinned = realm or (settings.realm if settings is not None else None)
    with tempfile.TemporaryDirectory() as scratch:
        if bundle is None and settings is not None:
            bundle = Path(scratch) / "bundle"
            asyncio.run(_collect(settings, bundle))
        if bundle is None:
            raise AuditError("name a bundle, or the settings of an auditor")
        _report(_checked(bundle, keys, pinned, heads), as_json=as_json)


@app.command("replay")
def replay(
    where: Annotated[
        Path | None, typer.Argument(help="A bundle, or a realm's folder to read its Kafka; else --dir.")
    ] = None,
    directory: Folder = None,
    *,
    root_key: Annotated[
        list[str] | None, typer.Option("--root-key", help="A public root key, instead of KEYTURN_ROOT_KEYS.")
    ] = None,
    realm: Annotated[str | None, typer.Option(help="The realm, instead of KEYTURN_REALM.")] = None,
    hash_seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="The replaying process's; else one that is not ours.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decide the whole trail again, in another process. Exits 6, naming the first difference, if it comes out other."""
    bundle = where if where is not None and (where / "audit.jsonl").is_file() else None
    if where is not None and bundle is None:
        directory = where
    settings = None if bundle is not None and root_key else _settings(directory)
    keys = root_key or ([key for _, key in settings.roots] if settings is not None else [])
    pinned = realm or (settings.realm if settings is not None else None)
    seed = hash_seed if hash_seed is not None else _another_seed()
    with tempfile.TemporaryDirectory() as scratch:
        if bundle is None and settings is not None:
            bundle = Path(scratch) / "bundle"
            asyncio.run(_collect(settings, bundle))
        if bundle is None:
            raise AuditError("name a bundle, or the settings of an auditor")
        code, report = _replayed(bundle, keys, pinned, seed)
    if report:
        typer.echo(json.dumps(report) if as_json else _shown(report))
    if code:
        raise typer.Exit(code)


def _replayed(bundle: Path, keys: list[str], realm: str | None, seed: int) -> tuple[int, dict[str, Any]]:
    """In another process, since a hash seed is for a process's life; what it says on stderr is shown as it comes."""
    words = [sys.executable, "-P", "-m", "cli.replaying", str(bundle)]
    words += [f"--root-key={key}" for key in keys]
    words += [f"--realm={realm}"] if realm is not None else []
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own interpreter
    report = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, report | {"hash_seed": seed} if report else {}


def _another_seed() -> int:
    """Not this process's, so that nothing rests on the order of a set."""
    own = os.environ.get("PYTHONHASHSEED", "random")
    return secrets.choice([seed for seed in range(1, 100) if str(seed) != own])


def _shown(report: dict[str, Any]) -> str:
    from auditors.verify.command import printable

    speed, seed = report["records_per_second"], report["hash_seed"]
    lines = [f"realm {report['realm']}: {report['records']} records decided again, {speed}/s, PYTHONHASHSEED={seed}"]
    lines += [f"head {chain}/{head['seq']}:{head['digest']}" for chain, head in report["chains"].items()]
    if report["rows"]:
        lines.append(f"rows of pending: {report['rows']} the same")
    if report["rows_skipped"]:
        lines.append(f"note: {report['rows_skipped']} partitions of pending stand elsewhere than the trail")
    if report["at_its_word"]:
        lines.append(f"note: {report['at_its_word']} unreadable inputs without their bytes, taken at the trail's word")
    if (found := report.get("divergence")) is not None:
        lines += [
            f"DIVERGES at {found['chain']}/{found['seq']}, {printable(found['path'])}",
            f"  on the trail: {printable(found['expected'])}",
            f"  decided now:  {printable(found['got'])}",
        ]
    else:
        lines.append("the same")
    return "\n".join(lines)


def _checked(bundle: Path, keys: list[str], realm: str | None, heads: list["Head"]) -> "Report":
    from auditors.verify import files

    return files.verify(files.Bundle(bundle), keys, realm=realm, heads=heads)


def _report(report: "Report", *, as_json: bool) -> None:
    from auditors.verify.command import shown

    typer.echo(json.dumps(report.to_json()) if as_json else shown(report))
    if not report.is_clean:
        raise typer.Exit(FAULTY)


async def _collect(settings: "Settings", target: Path) -> dict[str, int]:
    from auditors import collect
    from auditors.bundle import BundleWriter

    with BundleWriter(target) as into:
        await collect.collect(settings, into)
    return into.counts


def _trail_of(intent: str, directory: Path | None, bundle: Path | None) -> list["AuditRecord"]:
    """The records that may be about an intent."""
    from auditors import bundle as bundles
    from schemas import ids
    from schemas.records import AuditRecord

    try:
        asked_at = ids.split(intent)[1]
    except ids.IntentIdError as exc:
        raise AuditError(str(exc)) from exc
    if bundle is not None:
        values = list(bundles.values(bundle, "audit"))
    else:
        # No record about an id is older than the id, but for the clocks that made it.
        values = asyncio.run(_values_since(_settings(directory), asked_at - ids.WINDOW_AFTER_MS))
    return [AuditRecord.from_bytes(value) for value in values if intent.encode() in value]


async def _values_since(settings: "Settings", since: int) -> list[bytes]:
    from auditors import collect

    async with aclosing(collect.trail(settings, since=since)) as records:
        return [record.value async for record in records if record.value is not None]


def _print(value: bytes | None, *, as_json: bool) -> None:
    from auditors import story
    from schemas.record import RecordError
    from schemas.records import AuditRecord

    if value is None:
        typer.echo("an erased record: `keyturn audit verify` says which", err=True)
        return
    if as_json:
        typer.echo(value.decode(errors="replace"))
        return
    try:
        typer.echo(story.line(AuditRecord.from_bytes(value)))
    except RecordError as exc:
        typer.echo(f"not an audit record: {story.quoted(str(exc))}", err=True)


def _settings(directory: Path | None) -> "Settings":
    from streams.realm import settings_for

    return settings_for(directory, "auditor")
