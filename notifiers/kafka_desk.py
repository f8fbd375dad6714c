"""The desk over Kafka: follows `pending` and the live documents, writes signed words to `decisions`.

Rows are kept as the bytes that Kafka holds; they are verified and decoded when touched. Whatever ends the following
ends the process: a desk that no longer hears of changes must not answer.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Final, Self

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from notifiers.desk import Changes, Held, Listed, NotRecordedError, UnreadableError, Word
from schemas import envelope, ids
from schemas.envelope import EnvelopeError, Headers
from schemas.partition import partition_of
from schemas.record import RecordError
from schemas.records import PendingApproval, Phase, Source
from schemas.topics import DECISIONS, PENDING, PROGRESS_KEY
from schemas.world import World
from streams import connection, crashpoints, reading
from streams.errors import NumberGapError
from streams.producing import Speaker
from streams.settings import Settings
from streams.worlds import WorldView

log = logging.getLogger("keyturn.desk")

SAY_SECONDS: Final = 10.0
"""How long a person waits for Kafka before hearing "not recorded"."""
DECODED: Final = 2048
"""How many verified rows are kept decoded."""
SOURCE: Final = "notifier-{channel}"


@dataclass(frozen=True, slots=True)
class _Stored:
    """A row as it lies on Kafka."""

    value: bytes
    headers: Headers
    log_time: int
    version: str
    phase: Phase | None


class Rows:
    """The newest row of every intent, as bytes. No I/O."""

    def __init__(self) -> None:
        self._rows: dict[str, _Stored] = {}
        self._decoded: OrderedDict[str, Held] = OrderedDict()
        self._numbers: dict[int, int] = {}

    def take(self, record: ConsumerRecord) -> str | None:
        """Remember one record of `pending`; returns the intent whose row changed, if it is a row."""
        self._require_forward(record)
        if record.key is None or record.key == PROGRESS_KEY.encode():
            return None
        intent_id = str(record.key, "ascii", "replace")
        try:
            ids.split(intent_id)
        except ids.IntentIdError:
            log.error("a key of no intent", extra={"partition": record.partition, "offset": record.offset})  # noqa: TRY400
            return None
        if record.value is None:
            self._rows.pop(intent_id, None)
        else:
            version = f"{record.partition}-{record.offset}"
            hint = _phase(record.headers)
            self._rows[intent_id] = _Stored(record.value, record.headers, record.timestamp, version, hint)
        self._decoded.pop(intent_id, None)
        return intent_id

    def _require_forward(self, record: ConsumerRecord) -> None:
        """Law 11, as far as compaction leaves it: superseded rows may be gone, but nothing is ever said twice."""
        number = envelope.number_of(record.headers)
        last = self._numbers.get(record.partition, -1)
        if number is None or number <= last:
            raise NumberGapError(
                f"{record.topic}/{record.partition}: number {number} after {last} at offset {record.offset}: "
                "somebody else wrote there, or the log was replaced"
            )
        self._numbers[record.partition] = number

    def row(self, intent_id: str, world: World) -> Held | None:
        """The row, verified against the keys of the directory in force."""
        if (decoded := self._decoded.get(intent_id)) is not None:
            self._decoded.move_to_end(intent_id)
            return decoded
        stored = self._rows.get(intent_id)
        if stored is None:
            return None
        held = _read(intent_id, stored, world)
        if held.is_verified:
            self._decoded[intent_id] = held
            if len(self._decoded) > DECODED:
                self._decoded.popitem(last=False)
        return held

    def listed(self, phases: frozenset[Phase]) -> Iterator[Listed]:
        """The rows whose hint is one of these phases, or that have none."""
        for intent_id, stored in self._rows.items():
            if stored.phase is None or stored.phase in phases:
                yield Listed(intent_id, stored.version)


def _phase(headers: Headers) -> Phase | None:
    hint = dict(headers).get("phase")
    try:
        return Phase(str(hint, "ascii")) if hint is not None else None
    except ValueError:
        return None


def _read(intent_id: str, stored: _Stored, world: World) -> Held:
    try:
        statement = envelope.unseal(stored.headers, stored.value, (PendingApproval,))
        row = statement.read(PendingApproval)
    except (EnvelopeError, RecordError) as exc:
        raise UnreadableError(f"the row of {intent_id} cannot be read: {exc}") from exc
    if row.intent_id != intent_id:
        raise UnreadableError(f"the row of {intent_id} is another intent's")
    is_verified = world.authority.refuses(statement, stored.log_time) is None
    return Held(row, is_verified, stored.version)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, KafkaTimeoutError) or (isinstance(error, KafkaError) and bool(error.retriable))


class KafkaDesk:
    """The desk of one notifier. `async with`: when entered, everything committed before is known."""

    def __init__(self, settings: Settings, channel: str) -> None:
        """`channel`: whose desk it is, for the records' source."""
        self._settings = settings
        self._signer = settings.signer()
        self._source = SOURCE.format(channel=channel)
        self._decisions = settings.names.of(DECISIONS)
        self._pending = settings.names.of(PENDING)
        self._speaker = Speaker(settings)
        self._worlds = WorldView(settings)
        self._consumer = connection.reader(settings)
        self._rows = Rows()
        self._changes = Changes()
        self._partitions = 0
        self._following: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[None] | None = None
        self._under_way: dict[str, asyncio.Future[Source]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._worlds)
            await stack.enter_async_context(self._speaker)
            await connection.start(self._consumer, self._settings)
            stack.push_async_callback(self._consumer.stop)
            found = await connection.require_partitions(self._consumer, [self._pending])
            self._partitions = found[self._pending]
            places = [TopicPartition(self._pending, number) for number in range(self._partitions)]
            ends = await reading.assign_from_start(self._consumer, places)
            async for _, record in reading.read_to_end(self._consumer, ends):
                self._rows.take(record)
            self._failure = asyncio.get_running_loop().create_future()
            self._following = asyncio.create_task(self._follow(), name="pending")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        if self._failure is not None:
            self._failure.cancel()
        await self._stack.aclose()

    @property
    def world(self) -> World:
        """What is in force."""
        return self._worlds.world

    @property
    def keyid(self) -> str:
        """This notifier's key."""
        return self._signer.keyid

    def row(self, intent_id: str) -> Held | None:
        """The newest row of this intent."""
        return self._rows.row(intent_id, self.world)

    def listed(self, phases: frozenset[Phase]) -> Iterator[Listed]:
        """The rows in these phases."""
        return self._rows.listed(phases)

    def watch(self) -> AbstractContextManager[AsyncIterator[str]]:
        """What changes from here on."""
        return self._changes.watch()

    async def say(self, word: Word) -> Source:
        """Put a signed word on `decisions`, `acks=all`.

        What was handed to the producer is not taken back: it is sent until Kafka has it. So a word that is said again
        while it is still under way is the same one, not a second.
        """
        name = word.digest
        saying = self._under_way.get(name)
        if saying is None:
            saying = asyncio.ensure_future(self._send(word))
            self._under_way[name] = saying
            saying.add_done_callback(lambda done: self._sent(name, done))
        try:
            async with asyncio.timeout(SAY_SECONDS):
                return await asyncio.shield(saying)
        except (TimeoutError, KafkaError) as exc:
            log.warning("word not recorded", extra={"intent_id": word.intent, "error": repr(exc)})
            raise NotRecordedError("Kafka did not acknowledge it") from exc

    async def _send(self, word: Word) -> Source:
        partition = partition_of(ids.requester_of(word.intent), self._partitions)
        sealed = envelope.seal(word, word.intent, self._signer, self._settings.realm, source=self._source)
        crashpoints.reached("notifier.word.1-signed")
        said = await self._speaker.say(self._decisions, partition, sealed)
        crashpoints.reached("notifier.word.2-said")
        # As the core names its inputs: without the installation's prefix.
        return Source(topic=DECISIONS.name, partition=said.partition, offset=said.offset)

    def _sent(self, name: str, saying: "asyncio.Future[Source]") -> None:
        """An idempotent producer that met an error which does not pass never sends again: the process must end."""
        del self._under_way[name]
        error = None if saying.cancelled() else saying.exception()
        if error is None or _is_passing(error) or self._failure is None or self._failure.done():
            return
        self._failure.set_exception(error)

    def close(self) -> None:
        """End every watcher."""
        self._changes.close()

    async def ended(self) -> None:
        """Waits until the desk cannot go on; raises why."""
        if self._following is None or self._failure is None:
            raise RuntimeError("not entered")
        await asyncio.wait({self._following, self._failure}, return_when=asyncio.FIRST_COMPLETED)
        for one in (self._following, self._failure):
            if one.done() and not one.cancelled():
                one.result()

    async def _follow(self) -> None:
        while True:
            batch = await self._consumer.getmany(timeout_ms=reading.POLL_MS)
            self._worlds.require_alive()
            for records in batch.values():
                for record in records:
                    if (intent_id := self._rows.take(record)) is not None:
                        crashpoints.reached("notifier.rows.1-heard")
                        self._changes.tell(intent_id)
