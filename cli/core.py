"""`keyturn core`: what nobody but the holder of a root key may say to the core, as a signed record on the log.

`skip`: inputs are gone, the core has stopped by name, and it goes on; only if it stands exactly there and the records
are really gone (ADR 0013). `restored`: Kafka is in an earlier state, and nothing from before it leads to an act; only
if its chain stands exactly there (ADR 0015). Who said so and why is on the trail.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.declaring import RootKey, reason_of, root_signer

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from schemas.records import AuditRecord, ChainHead
    from schemas.signing import Signer
    from schemas.topics import Topic
    from streams.operations import Hole
    from streams.settings import Settings

app = typer.Typer(
    no_args_is_help=True, help="What a root key says to the core: inputs are lost, or the log was put back."
)

TRY_AGAIN = 75
CLOCK_MS = 60_000
"""How far this machine's clock may be ahead of the brokers'."""
Folder = Annotated[
    Path | None,
    typer.Option("--dir", envvar="KEYTURN_DIR", help="The realm's folder; without it the KEYTURN_… variables count."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


class SkipError(Exception):
    """Nothing was declared; the text says why and what to do."""


class UnheardError(Exception):
    """Nothing was declared: other words come first, and the chain would have moved when this one is heard."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What one core partition made of it."""

    core: int
    topic: str
    partition: int
    position: int
    until: int
    #: None: no answer yet.
    refusal: str | None
    reason: str | None
    is_answered: bool


@dataclass(frozen=True, slots=True)
class RestoreAnswered:
    """What one core partition made of it."""

    core: int
    #: Where its chain stood.
    seq: int
    #: None: no answer yet.
    refusal: str | None
    reason: str | None
    is_answered: bool


A = TypeVar("A", Answered, RestoreAnswered)


@app.callback()
def _noun() -> None:
    """What a root key says to the core: inputs are lost, the log was put back."""


@app.command()
def skip(
    place: Annotated[str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="Where the core stopped, as it says.")],
    reason: Annotated[str, typer.Option("--reason", help="Why they are gone, for the trail.")],
    directory: Folder = None,
    *,
    root_key: RootKey = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the core's answer.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Declare inputs lost, signed with the root key, and let the core go on beyond them. Never if they are there."""
    from streams.realm import settings_for

    why, where, signer = reason_of(reason), _parsed(place), root_signer(root_key, directory)
    done = asyncio.run(_declare(settings_for(directory, "operator"), signer, where, why, wait))
    _tell(done, _told, as_json=as_json)


def _parsed(place: str) -> "tuple[Topic, int, int]":
    from streams.operations import SKIPPABLE

    name, _, rest = place.rpartition("/")
    name, _, partition = name.rpartition("/")
    # The core names topics as they are on the cluster, with the installation's prefix.
    topic = next((topic for topic in SKIPPABLE if name == topic.name or name.endswith(f".{topic.name}")), None)
    if topic is None or not partition.isdecimal() or not rest.isdecimal():
        known = ", ".join(topic.name for topic in SKIPPABLE)
        raise typer.BadParameter(f"TOPIC/PARTITION/OFFSET, with a topic of {known}", param_hint="place")
    return topic, int(partition), int(rest)


@app.command()
def restored(
    reason: Annotated[str, typer.Option("--reason", help="What was put back, to when and why, for the trail.")],
    directory: Folder = None,
    *,
    root_key: RootKey = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the core's answer.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Kafka was put back to an earlier state: before any role starts, declare that nothing from before leads to an act.

    Whatever waits then ends as expired, and ids of before are refused (ADR 0015).
    """
    from streams.realm import settings_for

    why, signer = reason_of(reason), root_signer(root_key, directory)
    done = asyncio.run(_restored(settings_for(directory, "operator"), signer, why, wait))
    _tell(done, _told_restored, as_json=as_json)


def _tell(done: Sequence[A], told: Callable[[A], str], *, as_json: bool) -> None:
    """Say what each core partition made of it. Exit 1 where one refused, 75 where one has not answered."""
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in done], indent=2))
    else:
        for each in done:
            typer.echo(told(each))
    if any(each.refusal is not None for each in done):
        raise typer.Exit(1)
    if not all(each.is_answered for each in done):
        raise typer.Exit(TRY_AGAIN)


def _answer(audit: "AuditRecord | None") -> tuple[str | None, str | None, bool]:
    """What the trail says of a word: refusal, reason, and whether it says anything yet."""
    if audit is None:
        return None, None, False
    return audit.refusal.value if audit.refusal is not None else None, audit.reason, True


async def _restored(settings: "Settings", signer: "Signer", reason: str, wait: float) -> list[RestoreAnswered]:
    from schemas import envelope, topics
    from schemas.records import ChainHead, Restore, Source
    from streams.operations import Operator

    at = time.time_ns() // 1_000_000
    async with Operator(settings) as operator:
        said, due = {}, {}
        for core in range(await operator.partitions()):
            progress = await operator.progress(core)
            head = progress.head if progress is not None else ChainHead()
            words = await operator.unheard(core, progress)
            if words and is_declared(words[0], core, head, settings):
                # This very state, and nothing before it: a run before this one broke off, or the core never started.
                said[core] = head.seq, Source(topic=topics.OPERATIONS.name, partition=core, offset=words[0].offset)
                continue
            require_heard(core, [envelope.type_of(word.headers) or "unreadable" for word in words])
            due[core] = head
        for core, head in due.items():
            restore = Restore(partition=core, head=head, at=at, reason=reason)
            said[core] = head.seq, await operator.say(restore, core, signer)
        done = []
        for core, (seq, source) in sorted(said.items()):
            done.append(RestoreAnswered(core, seq, *_answer(await operator.answer(source, at - CLOCK_MS, wait))))
        return done


def is_declared(word: "ConsumerRecord", core: int, head: "ChainHead", settings: "Settings") -> bool:
    """Whether this word is a restore of exactly this state, by a root key: the core will heed it."""
    from schemas import envelope
    from schemas.envelope import EnvelopeError
    from schemas.record import RecordError
    from schemas.records import Restore

    try:
        statement = envelope.unseal(word.headers, word.value, (Restore,))
        restore = statement.read(Restore)
    except (EnvelopeError, RecordError):
        return False
    by_root = settings.empty_world().is_root_signed(statement)
    return by_root and (restore.partition, restore.head) == (core, head)


def require_heard(core: int, types: "list[str]") -> None:
    """UnheardError when words lie there that are decided before the restore: it would be refused as `not_lost`."""
    if types:
        raise UnheardError(
            f"nothing was declared: core-{core} has yet to hear {len(types)} words on `operations` "
            f"({', '.join(sorted(set(types)))}), which move its chain on. Let the core alone hear them, with no "
            "executor, intake or notifier beside it; stop it, and say this again"
        )


def _told_restored(each: RestoreAnswered) -> str:
    if not each.is_answered:
        return f"core-{each.core}: declared restored at {each.seq}; its core heeds it first of all when it starts"
    if each.refusal is not None:
        return f"core-{each.core}: refused, {each.refusal}: {each.reason}"
    return f"core-{each.core}: restored at {each.seq}; what was asked before leads to no act"


async def _declare(
    settings: "Settings", signer: "Signer", place: "tuple[Topic, int, int]", reason: str, wait: float
) -> list[Answered]:
    from schemas.records import Skip
    from streams.operations import Operator

    topic, partition, position = place
    async with Operator(settings) as operator:
        count = await operator.partitions()
        cores = (partition,) if topic.is_partitioned else tuple(range(count))
        if partition >= (count if topic.is_partitioned else 1):
            raise SkipError(f"{topic.name} has no partition {partition}")
        found = {core: await operator.hole(topic, partition, core) for core in cores}
        standing = {core: hole for core, hole in found.items() if hole.position == position}
        for core, hole in (standing or found).items():
            _require_hole(core, hole, position)
        since = time.time_ns() // 1_000_000 - CLOCK_MS
        said = {}
        for core, hole in standing.items():
            skip = Skip(topic=topic.name, partition=partition, position=position, until=hole.until, reason=reason)
            said[core] = await operator.say(skip, core, signer)
        done = []
        for core, source in said.items():
            answer = _answer(await operator.answer(source, since, wait))
            done.append(Answered(core, topic.name, partition, position, standing[core].until, *answer))
        return done


def _require_hole(core: int, hole: "Hole", position: int) -> None:
    name = f"{hole.topic.name}/{hole.partition}"
    if hole.position != position:
        raise SkipError(f"partition {core} of the core stands at {name}/{hole.position}, not at {position}")
    if hole.until == position:
        raise SkipError(f"nothing is lost at {name}/{position}: what lies there can be read. Start the core")


def _told(each: Answered) -> str:
    place = f"{each.topic}/{each.partition}"
    if not each.is_answered:
        return (
            f"core-{each.core}: declared; no core has heard it yet, and goes on at {place}/{each.until} when it starts"
        )
    if each.refusal is not None:
        return f"core-{each.core}: refused, {each.refusal}: {each.reason}"
    return f"core-{each.core}: {place}/{each.position} is declared lost; it goes on at {each.until}"
