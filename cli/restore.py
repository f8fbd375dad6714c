"""`keyturn restore`: a backup back onto an empty Kafka, so that the realm goes on and nothing is done twice (ADR 0015).

It refuses whatever it is not sure of before it writes anything.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.backup import MANIFEST, Folder, tell_open
from cli.declaring import RootKey, reason_of, root_signer

if TYPE_CHECKING:
    from schemas.records import Progress
    from streams.findings import Finding
    from streams.realm import RealmFolder
    from streams.restoring import Saved, Word, Written


class RestoreError(Exception):
    """Nothing was written; the text says why and what to do."""


def register(root: typer.Typer) -> None:
    """Mount the word."""
    root.command("restore")(restore)


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder that `keyturn backup` wrote.")],
    directory: Folder,
    *,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the trail.")] = None,
    root_key: RootKey = None,
) -> None:
    """Write a backup onto a Kafka that has none of the realm's topics, and declare it restored. No role may run."""
    from streams.realm import RealmFolder
    from streams.restoring import Word

    kept = kept_in(source)
    why = reason_of(reason or f"the backup of {kept.told_at} was written onto an empty Kafka")
    signer = root_signer(root_key, directory)
    home = RealmFolder(directory)
    require_fit(home, source, kept, signer.keyid)
    word = Word(signer, time.time_ns() // 1_000_000, why)
    written, findings = asyncio.run(_write(home, kept.saved(source), word))
    for topic, count in written.counts.items():
        typer.echo(f"{topic}: {count} records")
    if written.unheard:
        typer.echo(f"left out: {written.unheard} words of operators that the core had not heard; say them again")
    typer.echo("declared restored: nothing that was asked before leads to an act")
    tell_open(source)
    typer.echo(
        "look at the provider what became of everything that was approved, executing or unknown, and of what was asked "
        "later; apply the live documents of after the backup; then start the roles"
    )
    for finding in findings:
        if not finding.is_ok:
            typer.echo(str(finding), err=True)
    if not all(finding.is_ok for finding in findings):
        raise typer.Exit(1)


async def _write(home: "RealmFolder", saved: "Saved", word: "Word") -> "tuple[Written, tuple[Finding, ...]]":
    from streams import administration, restoring

    realm, admin = home.realm(), administration.admin_of(home.path)
    settings = administration.settings_of(home, admin)
    written = await restoring.restore(realm, settings, administration.wanted_of(realm).topics(), saved, word)
    # Users and rights: from here on roles can come in.
    return written, await administration.apply(home.path, admin)


# ---------------------------------------------------------------- what a backup says of itself


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands in `backup.json`."""

    realm: str
    partitions: int
    executors: tuple[str, ...]
    at: int
    heads: dict[str, Any]
    intake: dict[int, int]
    spans: dict[str, dict[int, tuple[int, int]]]

    @property
    def told_at(self) -> str:
        """When it was made, for people."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.at / 1000))

    def saved(self, source: Path) -> "Saved":
        """With the records."""
        from auditors import bundle
        from streams.restoring import Saved

        return Saved(self.spans, self.intake, _progress(source), lambda topic: bundle.records(source, topic))


def kept_in(source: Path) -> Kept:
    """What a backup says of itself. RestoreError when it is none."""
    file = source / MANIFEST
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return Kept(
            str(told["realm"]),
            int(told["partitions"]),
            tuple(map(str, told["executors"])),
            int(told["at"]),
            dict(told["heads"]),
            {int(number): int(offset) for number, offset in told["intake"].items()},
            {
                str(name): {int(number): (int(start), int(end)) for number, (start, end) in spans.items()}
                for name, spans in told["spans"].items()
            },
        )
    except OSError as exc:
        raise RestoreError(f"{file}: {exc.strerror}: only what `keyturn backup` wrote can be written back") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RestoreError(f"{file}: not as `keyturn backup` writes it: {exc!r}") from exc


def _progress(source: Path) -> "dict[int, Progress]":
    from auditors import bundle
    from schemas.records import Progress
    from schemas.topics import PROGRESS_KEY

    return {
        record.partition: Progress.from_bytes(record.value)
        for record in bundle.records(source, "pending")
        if record.key == PROGRESS_KEY.encode() and record.value is not None
    }


# ---------------------------------------------------------------- what is refused


def require_fit(home: "RealmFolder", source: Path, kept: Kept, keyid: str) -> None:
    """RestoreError unless the backup is this realm's, whole and sound, and the key is one that its roles pin."""
    from auditors import bundle
    from auditors.verify import files
    from auditors.verify.command import shown

    realm = home.realm()
    settings = home.settings("administration")
    roots = dict(settings.roots)
    if keyid not in roots:
        raise RestoreError("the root key is none that this realm pins: its word would count nowhere")
    if kept.realm != realm.realm:
        raise RestoreError(f"the backup is of the realm {kept.realm}, the folder of {realm.realm}")
    if kept.partitions != realm.partitions:
        raise RestoreError(f"the backup has {kept.partitions} partitions, realm.yaml says {realm.partitions}")
    if unknown := sorted(set(kept.executors) - set(realm.executors)):
        raise RestoreError(f"realm.yaml lacks the executors {', '.join(unknown)}, and the backup has their topics")
    for name, topic, _ in realm.names.all(kept.executors):
        plain = realm.names.plain(name)
        numbers = set(range(realm.partitions if topic.is_partitioned else 1))
        if not bundle.holds(source, plain) or kept.spans.get(plain, {}).keys() != numbers:
            raise RestoreError(f"the backup does not hold {plain} whole")
    report = files.verify(files.Bundle(source), roots.values(), realm=realm.realm)
    if not report.is_clean:
        raise RestoreError(f"the backup does not verify:\n{shown(report)}")
    if {f"core-{core}": said.head.to_json() for core, said in _progress(source).items()} != kept.heads:
        raise RestoreError("the rows of the backup end elsewhere than it says")
