"""`keyturn quarantine`: what no stage could read, why, and putting it back once it can be.

A redrive puts the very bytes on the topic they came from, after a dry check by the same pure code that will judge
them; that it is done, by whom and why is on the log before the bytes are (law 9).
"""

import asyncio
import base64
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.declaring import reason_of

if TYPE_CHECKING:
    from schemas.envelope import Headers
    from schemas.records import Quarantined
    from schemas.world import World
    from streams.operations import Aside, Operator
    from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="What could not be read: list it, show it, put it back.")

Folder = Annotated[
    Path | None,
    typer.Option("--dir", envvar="KEYTURN_DIR", help="The realm's folder; without it the KEYTURN_… variables count."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Name = Annotated[str, typer.Argument(metavar="ID", help="TOPIC/PARTITION/OFFSET, as `ls` prints it.")]
SHOWN_BYTES = 4096
ROW = 16
PRINTABLE = range(0x20, 0x7F)

ADVICE = {
    "bad_signature": "the sender's key was not in the directory, or is not what it signed with; list it, then redrive",
    "malformed": "the sender must mend what it writes and send it again under a new id",
    "wrong_partition": "the sender must take the key and partition of its own name: murmur2(requester) mod P",
    "secret_found": "rotate the secret now; the sender must send a reference instead",
    "not_entitled": "the sender signed for somebody else; find out why",
    "internal": "a fault of ours: report it, and redrive it with the release that mends it",
    "stale_world": "a live document that is not the next version: `keyturn directory show` says which is in force",
    "conflict": "a live document that names another predecessor: two administrations wrote at once",
}


class QuarantineError(Exception):
    """There is no such record, or it cannot be put back; the text says why."""


@app.command("ls")
def ls(directory: Folder = None, *, as_json: AsJson = False) -> None:
    """List what was set aside, oldest first."""
    found = asyncio.run(_all(_settings(directory)))
    if as_json:
        typer.echo(json.dumps([_members(aside) for aside in found], indent=2))
        return
    for aside in found:
        record = aside.record
        typer.echo(
            f"{_instant(aside.at)}  {aside.name:<24} {record.stage:<12} {record.refusal.value:<16} "
            f"{record.bytes:>7} B  key {_sender(record)}  {_plain(record.reason)[:80]}"
        )
    if not found:
        typer.echo("nothing was set aside", err=True)


@app.command("show")
def show(name: Name, directory: Folder = None, *, as_json: AsJson = False) -> None:
    """Show one record: why, from whom, its headers and bytes, and what to do."""
    found = _named(asyncio.run(_all(_settings(directory))), name)
    if as_json:
        typer.echo(json.dumps([_members(aside) for aside in found], indent=2))
        return
    for aside in found:
        typer.echo("\n".join(_lines(aside)))


@app.command("redrive")
def redrive(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the trail.")],
    directory: Folder = None,
    *,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the very bytes on their topic again, if they would now pass. Who did it, and why, is on the trail."""
    why = reason_of(reason)
    verdict = asyncio.run(_redrive(_settings(directory), name, why, is_dry=dry))
    if as_json:
        members = {"passes": verdict.passes, "what": verdict.what, "at": verdict.at}
        typer.echo(json.dumps(members, indent=2))
    elif verdict.at is not None:
        typer.echo(f"{name} is on the log again, at {verdict.at}: {verdict.what}")
    else:
        typer.echo(f"{name} would {'pass' if verdict.passes else 'not pass'}: {verdict.what}")
    if not verdict.passes:
        raise typer.Exit(1)


def _settings(directory: Path | None) -> "Settings":
    from streams.realm import settings_for

    return settings_for(directory, "operator")


async def _all(settings: "Settings") -> "list[Aside]":
    from streams.operations import Operator

    async with Operator(settings) as operator:
        return await operator.set_aside()


def _named(found: "Iterable[Aside]", name: str) -> "list[Aside]":
    named = [aside for aside in found if aside.name == name]
    if not named:
        raise QuarantineError(f"{name} is not in quarantine; `keyturn quarantine ls` lists what is")
    return named


# ---------------------------------------------------------------- showing


def _members(aside: "Aside") -> dict[str, Any]:
    return {
        "id": aside.name,
        "at": aside.at,
        "sender": _sender(aside.record),
        "advice": ADVICE.get(aside.record.refusal.value, ""),
        **aside.record.to_json(),
    }


def _lines(aside: "Aside") -> Iterator[str]:
    record = aside.record
    yield f"{aside.name}  set aside by {record.stage} at {_instant(aside.at)}"
    yield f"  why       {record.refusal.value}: {_plain(record.reason)}"
    yield f"  do        {ADVICE.get(record.refusal.value, 'look at the bytes, and at who may write to this topic')}"
    yield f"  sender    key {_sender(record)} (what the record says of itself; nobody vouched for it)"
    yield f"  sha256    {record.sha256}, {record.bytes} bytes"
    yield f"  key       {_bytes_shown(record.key, 'not kept: too long, or it holds a secret')}"
    if record.headers is None:
        yield "  headers   not kept: too many, or they hold a secret"
    for header in record.headers or ():
        value = _bytes_shown(header.value, "null")
        yield f"  header    {_plain(header.name)}: {value}"
    if record.value is None:
        yield "  value     not kept: null, larger than 64 KiB, or it holds a secret"
        return
    yield "  value"
    data = base64.b64decode(record.value)
    for start in range(0, min(len(data), SHOWN_BYTES), ROW):
        row = data[start : start + ROW]
        text = "".join(chr(byte) if byte in PRINTABLE else "." for byte in row)
        yield f"    {start:06x}  {row.hex(' '):<47}  {text}"
    if len(data) > SHOWN_BYTES:
        yield f"    … {len(data) - SHOWN_BYTES} more bytes; --json has them"


def _bytes_shown(encoded: str | None, otherwise: str) -> str:
    return otherwise if encoded is None else _plain(base64.b64decode(encoded).decode("ascii", "backslashreplace"))


def _plain(text: str) -> str:
    """Somebody's text, on one line; nothing in it can steer a terminal."""
    return "".join(char if ord(char) in PRINTABLE else f"\\u{{{ord(char):x}}}" for char in text)


def _sender(record: "Quarantined") -> str:
    found = [header.value for header in record.headers or () if header.name == "keyid" and header.value]
    return _plain(base64.b64decode(found[0]).decode("ascii", "backslashreplace"))[:32] if len(found) == 1 else "?"


def _instant(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))


# ---------------------------------------------------------------- putting back


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the dry check says, and where the record stands when it was put back."""

    passes: bool
    what: str
    at: str | None = None


@dataclass(frozen=True, slots=True)
class _Received:
    """The record as a reader would get it now."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: "Headers"


async def _redrive(settings: "Settings", name: str, reason: str, *, is_dry: bool) -> Verdict:
    from schemas import canonical
    from schemas.records import Redrive
    from streams import documents
    from streams.operations import REDRIVABLE, Operator

    async with Operator(settings) as operator:
        aside = _named(await operator.set_aside(), name)[-1].record
        if aside.source.topic not in {topic.name for topic in REDRIVABLE}:
            raise QuarantineError(
                f"{aside.source.topic} is written by one role alone and cannot be redriven: "
                f"{', '.join(topic.name for topic in REDRIVABLE)} can"
            )
        if aside.value is None or aside.headers is None:
            raise QuarantineError(f"{name} was not kept whole; only its sender can send it again")
        value = base64.b64decode(aside.value)
        if canonical.digest(value) != aside.sha256:
            raise QuarantineError(f"{name}: what is kept is not what its digest says; do not put it back")
        key = base64.b64decode(aside.key) if aside.key is not None else None
        headers = tuple(
            (header.name, base64.b64decode(header.value) if header.value is not None else None)
            for header in aside.headers
        )
        now = time.time_ns() // 1_000_000
        received = _Received(aside.source.partition, 2**52, now, key, value, headers)
        world = await documents.read_world(settings)
        verdict = await _tried(operator, settings, aside, received, world)
        if is_dry or not verdict.passes:
            return verdict
        again = Redrive(source=aside.source, sha256=aside.sha256, bytes=aside.bytes, reason=reason)
        # First that it is done: a redrive that nobody knows of must not exist.
        await operator.say(again, aside.source.partition, settings.signer())
        there = await operator.put(aside, key, value, headers)
        return Verdict(True, verdict.what, f"{there.topic}/{there.partition}/{there.offset}")


async def _tried(
    operator: "Operator", settings: "Settings", aside: "Quarantined", received: _Received, world: "World"
) -> Verdict:
    """What would happen: judged by the code that will judge it."""
    from schemas import topics

    partitions = await operator.partitions()
    if aside.source.topic == topics.INTENTS.name:
        return _tried_by_intake(received, world, partitions)
    return await _tried_by_core(operator, settings, aside.source.topic, received, world, partitions)


def _tried_by_intake(received: _Received, world: "World", partitions: int) -> Verdict:
    from broker.intake import answering
    from schemas import topics
    from schemas.records import ForwardedWithdrawal, Quarantined, Source

    source = Source(topic=topics.INTENTS.name, partition=received.partition, offset=received.offset)
    raw = answering.Raw(source, received.timestamp, received.key, received.value, received.headers)
    said = answering.receive(raw, world, partitions)
    if isinstance(said, answering.Admitted):
        return Verdict(True, f"intake would classify {said.intent.id}")
    if isinstance(said, ForwardedWithdrawal):
        return Verdict(True, "intake would forward the withdrawal")
    what = said.refusal.value if said.refusal is not None else "refused"
    how = "set it aside again" if isinstance(said, Quarantined) else "refuse it"
    return Verdict(False, f"intake would {how}: {what}: {_plain(said.reason or '')}")


async def _tried_by_core(
    operator: "Operator",
    settings: "Settings",
    topic: str,
    received: _Received,
    world: "World",
    partitions: int,
) -> Verdict:
    from broker.core.deciding import Deciding
    from broker.core.rows import Stored
    from schemas.records import AuditRecord

    deciding = Deciding(world, settings.names, received.partition, partitions)
    about = (received.key or b"").decode("ascii", "replace")
    row = await operator.row(about, received.partition)
    if row is not None and row.value is not None:
        deciding.rows.put(about, Stored.read(row.headers, row.value))
    deciding.decide(topic, received)
    audits = [word.value for word in deciding.taken().words if word.type == AuditRecord.TYPE and word.value]
    audit = AuditRecord.from_bytes(audits[-1])
    if audit.refusal is not None:
        return Verdict(False, f"the core would refuse it: {audit.refusal.value}: {_plain(audit.reason or '')}")
    return Verdict(True, f"the core would answer {audit.event}")
