"""`keyturn backup`: a realm's topics as raw records in a folder (docs/operations.md).

The law of a backup: what it holds fits together, although the core runs on while it is made.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from streams.realm import RealmFolder

MANIFEST: Final = "backup.json"
Folder = Annotated[Path, typer.Option("--dir", envvar="KEYTURN_DIR", help="The folder that `keyturn init` made.")]


def register(root: typer.Typer) -> None:
    """Mount the word."""
    root.command("backup")(backup)


def backup(
    target: Annotated[Path, typer.Argument(help="A new folder for the backup. It holds no secret of ours.")],
    directory: Folder,
) -> None:
    """Copy every topic of the realm into a folder, which is a bundle too: `keyturn audit verify --bundle` checks it."""
    from streams.realm import RealmFolder

    told = asyncio.run(_backup(RealmFolder(directory), target))
    for topic, count in told["topics"].items():
        typer.echo(f"{topic}: {count} records")
    if told["later"]:
        typer.echo(f"the core went on meanwhile: {told['later']} later records are left out", err=True)
    tell_open(target)


# ---------------------------------------------------------------- backup


async def _backup(home: "RealmFolder", target: Path) -> dict[str, Any]:
    from auditors.bundle import BundleWriter
    from streams import access, copies
    from streams.administration import admin_of, settings_of
    from streams.cluster import Cluster

    realm = home.realm()
    settings = settings_of(home, admin_of(home.path))
    cut = copies.Cut(realm.prefix)
    with BundleWriter(target) as into:
        async with Cluster(settings) as cluster:
            group = access.group_of(realm.names, "intake")
            intake = await cluster.committed(group, realm.names.of(_topic("intents")))
        for name, _, _ in realm.names.all(realm.executors):
            into.expect(name.removeprefix(realm.prefix))
        async with aclosing(copies.read_all(settings, realm.executors, cut)) as records:
            async for name, record in records:
                into.take(name, record)
    told = {
        "realm": realm.realm,
        "partitions": realm.partitions,
        "executors": list(realm.executors),
        "at": time.time_ns() // 1_000_000,
        "topics": into.counts,
        "later": cut.later,
        "heads": {f"core-{number}": said.head.to_json() for number, said in sorted(cut.progress.items())},
        "intake": {str(number): offset for number, offset in intake.items()},
        "spans": {
            name: {str(number): list(span) for number, span in spans.items()} for name, spans in cut.spans.items()
        },
    }
    (target / MANIFEST).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return told


def _topic(name: str) -> Any:
    from schemas import topics

    return next(topic for topic in topics.TOPICS if topic.name == name)


# ---------------------------------------------------------------- what people must look at


def tell_open(source: Path) -> None:
    """What was not ended at the backup: nobody will act on it, and people must know."""
    waiting = list(_open_rows(source))
    for phase, count in sorted(Counter(phase for phase, _ in waiting).items()):
        typer.echo(f"open at the backup: {count} {phase}")
    for phase, intent in waiting:
        if phase in {"approved", "executing", "unknown"}:
            typer.echo(f"  {phase}: {intent}")


def _open_rows(source: Path) -> Iterator[tuple[str, str]]:
    from auditors import bundle
    from schemas.records import FINAL, PendingApproval
    from schemas.topics import PROGRESS_KEY

    rows: dict[str, str] = {}
    for record in bundle.records(source, "pending"):
        key = (record.key or b"").decode()
        if record.value is None:
            rows.pop(key, None)
        elif key != PROGRESS_KEY:
            row = PendingApproval.from_bytes(record.value)
            rows[key] = row.phase.value
    final = {phase.value for phase in FINAL}
    yield from sorted((phase, intent) for intent, phase in rows.items() if phase not in final)
