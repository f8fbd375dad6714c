"""What the core said to this executor: verified, in its place, with nothing missing. Anything else is put aside."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from executors.lanes import Lane
from executors.saying import Voice
from schemas import envelope, ids
from schemas.envelope import EnvelopeError
from schemas.partition import partition_of
from schemas.record import Record, RecordError, Statement
from schemas.records import Grant, PlanRequest, Refusal, Versions
from schemas.topics import Topic
from schemas.world import World
from streams.worlds import WorldView

log = logging.getLogger("keyturn.executor")


@dataclass(slots=True, eq=False)
class Said:
    """One verified record of the core."""

    lane: Lane
    offset: int
    log_time: int
    statement: Statement
    record: Record

    @property
    def partition(self) -> int:
        """Where everything about its requester's intents is."""
        return self.lane.partition

    def handled(self) -> None:
        """What it asked for is done, and durable."""
        self.lane.finish(self.offset)


class Hearing:
    """Listens to the core, and to nobody else."""

    def __init__(self, view: WorldView, voice: Voice, partitions: int, world_seconds: float) -> None:
        """`partitions` is the realm's P."""
        self._view = view
        self._voice = voice
        self._partitions = partitions
        self._world_seconds = world_seconds

    async def hear(self, lane: Lane, record: ConsumerRecord, topic: Topic) -> Said | None:
        """The record, if the core said it, here. None: it was put aside (laws 6 and 9). Raises NumberGapError."""
        try:
            with _every_fault_an_answer():
                statement = envelope.unseal(record.headers, record.value, topic.types)
            await self._require_core(statement, record.timestamp)
            with _every_fault_an_answer():
                self._require_place(record, statement)
                number = _number_of(record)
            # Counted only when the core signed it: a stranger's record must not look like a hole (law 11).
            lane.count(record.offset, number)
            with _every_fault_an_answer():
                kind = next(kind for kind in topic.types if statement.type == kind.TYPE)
                return Said(lane, record.offset, record.timestamp, statement, statement.read(kind))
        except EnvelopeError as exc:
            await self._voice.put_aside(record, exc.refusal, str(exc))
        lane.finish(record.offset)
        return None

    async def world_of(self, versions: Versions) -> World:
        """A world not older than the one the core decided with; or what is known, when Kafka takes too long."""
        known = self._view.world.versions
        if known.directory >= versions.directory and known.roster >= versions.roster:
            return self._view.world
        return await self._newest_world()

    async def _whole_world(self) -> World:
        while True:
            try:
                async with asyncio.timeout(self._world_seconds):
                    return await self._view.caught_up()
            except TimeoutError:
                log.warning("a word that no known key fits waits for the live documents")

    async def _newest_world(self) -> World:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._world_seconds):
                return await self._view.caught_up()
        return self._view.world

    async def _require_core(self, statement: Statement, log_time: int) -> None:
        if self._view.world.authority.refuses(statement, log_time) is None:
            return
        # The core's key may be newer than what was read of the directory. Never judged by what may be old: a true word
        # that is put aside is a hole to whoever counts.
        refusal = (await self._whole_world()).authority.refuses(statement, log_time)
        if refusal is not None:
            raise EnvelopeError(refusal, "not signed by the core of this realm")

    def _require_place(self, record: ConsumerRecord, statement: Statement) -> None:
        """A genuine record said again elsewhere would meet another ledger: key and partition are the intent's."""
        intent_id = _intent_id_of(statement)
        try:
            due = partition_of(ids.requester_of(intent_id), self._partitions)
        except ids.IntentIdError as exc:
            raise EnvelopeError(Refusal.MALFORMED, str(exc)) from exc
        if record.key != intent_id.encode() or record.partition != due:
            raise EnvelopeError(Refusal.WRONG_PARTITION, f"key must be {intent_id} and partition {due}")


@contextlib.contextmanager
def _every_fault_an_answer() -> Iterator[None]:
    """Law 9: inside is pure code, and what it cannot do with a record it cannot do at the next start either."""
    try:
        yield
    except EnvelopeError:
        raise
    except RecordError as exc:
        raise EnvelopeError(Refusal.MALFORMED, str(exc)) from exc
    except Exception as exc:
        raise EnvelopeError(Refusal.INTERNAL, f"{type(exc).__name__}: {exc}") from exc


def _number_of(record: ConsumerRecord) -> int:
    number = envelope.number_of(record.headers)
    if number is None:
        raise EnvelopeError(Refusal.MALFORMED, "no number `n`, which the core gives to each record")
    return number


def _intent_id_of(statement: Statement) -> str:
    body = statement.body
    match statement.type:
        case PlanRequest.TYPE:
            return _member(body.get("round"), "intent")
        case Grant.TYPE:
            return _member(body.get("question"), "intent_id")
        case _:
            return _member(body, "intent")


def _member(part: object, name: str) -> str:
    return str(part.get(name)) if isinstance(part, dict) else ""
