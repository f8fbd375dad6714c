"""What operators do when something went wrong: look at what was set aside, put it back, declare inputs lost.

Nothing here decides: a redrive and a skip are signed records on `operations`, which the core answers on the trail
(laws 9 and 11).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas import envelope, topics
from schemas.record import RecordError
from schemas.records import AuditRecord, Progress, Quarantined, Redrive, Restore, Skip, Source
from schemas.signing import Signer
from schemas.topics import PROGRESS_KEY, Topic
from streams import connection, holes, reading
from streams.errors import StreamError
from streams.producing import Speaker
from streams.settings import Settings

KEY: Final = "{topic}/{partition}/{offset}"
SOURCE: Final = "operator"
REDRIVABLE: Final = (topics.INTENTS, topics.CLASSIFIED, topics.DECISIONS, topics.REPORTS)
"""Topics that operators may write. What the core says is counted, and only the core can say it (law 11)."""
SKIPPABLE: Final = tuple(topic for topic in (*topics.WORLD, *topics.CORE_INPUTS) if topic is not topics.OPERATIONS)
ANSWER_POLL_MS: Final = 250


def heard_upto(progress: Progress | None) -> int:
    """The offset on `operations` up to which a core partition has heard. What creates the topic is no word."""
    return max(progress.positions.get(topics.OPERATIONS.name, 0) if progress is not None else 0, 1)


class OperationError(StreamError):
    """It cannot be done; the text says why and what to do instead."""


@dataclass(frozen=True, slots=True)
class Aside:
    """One record of `quarantine`."""

    record: Quarantined
    at: int

    @property
    def name(self) -> str:
        """Where the record lay: its name for people."""
        return KEY.format(**self.record.source.model_dump())


@dataclass(frozen=True, slots=True)
class Hole:
    """Where a core partition waits in vain, and where the log goes on."""

    topic: Topic
    partition: int
    position: int
    until: int


class Operator:
    """One operator at work, with an operator's rights on Kafka. `async with`."""

    def __init__(self, settings: Settings) -> None:
        """`settings` of the role `operator`."""
        self._settings = settings
        self._names = settings.names
        self._surveyor = reading.Surveyor(settings)

    async def __aenter__(self) -> Self:
        await self._surveyor.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._surveyor.__aexit__()

    # ------------------------------------------------------------ looking

    async def set_aside(self) -> list[Aside]:
        """What is in quarantine, oldest first."""
        found = []
        for record in await self._read(topics.QUARANTINE):
            try:
                found.append(Aside(Quarantined.from_bytes(record.value or b""), record.timestamp))
            except RecordError:
                continue  # whatever it is, no stage wrote it
        return sorted(found, key=lambda each: (each.at, each.name, each.record.stage))

    async def progress(self, partition: int) -> Progress | None:
        """How far a core partition is."""
        latest = None
        for record in await self._read(topics.PENDING, partition):
            if record.key == PROGRESS_KEY.encode():
                latest = record
        return Progress.from_bytes(latest.value) if latest is not None and latest.value is not None else None

    async def row(self, intent_id: str, partition: int) -> ConsumerRecord | None:
        """The newest record of this intent's row."""
        latest = None
        for record in await self._read(topics.PENDING, partition):
            if record.key == intent_id.encode():
                latest = record
        return latest

    async def unheard(self, partition: int, progress: Progress | None) -> list[ConsumerRecord]:
        """Words of operators that a core partition with this progress has yet to answer."""
        return [word for word in await self._read(topics.OPERATIONS, partition) if word.offset >= heard_upto(progress)]

    async def partitions(self) -> int:
        """The realm's P."""
        name = self._names.of(topics.OPERATIONS)
        return (await self._surveyor.partitions([name]))[name]

    async def hole(self, topic: Topic, partition: int, core: int) -> Hole:
        """What lies before a core partition on one of its inputs. `position == until`: there is no hole."""
        progress = await self.progress(core)
        position = progress.positions.get(topic.name, 0) if progress is not None else 0
        place = TopicPartition(self._names.of(topic), partition)
        await self._surveyor.partitions([place.topic])
        return Hole(topic, partition, position, await holes.end_of(self._settings, self._surveyor, place, position))

    async def _read(self, topic: Topic, partition: int | None = None) -> list[ConsumerRecord]:
        name = self._names.of(topic)
        count = (await self._surveyor.partitions([name]))[name]
        places = connection.places(name, count) if partition is None else [TopicPartition(name, partition)]
        async with self._reader() as consumer:
            ends = await reading.assign_from_start(consumer, places)
            return [record async for _, record in reading.read_to_end(consumer, ends)]

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        """One for each reading: a client is assigned once in its life (`reading.assign_at`)."""
        consumer = connection.reader(self._settings, fetch_max_wait_ms=ANSWER_POLL_MS)
        await connection.start(consumer, self._settings)
        try:
            yield consumer
        finally:
            await consumer.stop()

    # ------------------------------------------------------------ doing

    async def say(self, record: Skip | Redrive | Restore, core: int, signer: Signer) -> Source:
        """Put it on `operations`, for one core partition; where it stands."""
        match record:
            case Skip():
                key = KEY.format(topic=record.topic, partition=record.partition, offset=record.position)
            case Redrive(source=source):
                key = KEY.format(topic=source.topic, partition=source.partition, offset=source.offset)
            case Restore():
                key = f"core-{record.partition}/{record.head.seq}"
        sealed = envelope.seal(record, key, signer, self._settings.realm, source=SOURCE)
        async with Speaker(self._settings) as speaker:
            return await speaker.say(self._names.of(topics.OPERATIONS), core, sealed)

    async def put(self, aside: Quarantined, key: bytes | None, value: bytes, headers: envelope.Headers) -> Source:
        """The very bytes again, where they lay."""
        topic = next(topic for topic in REDRIVABLE if topic.name == aside.source.topic)
        async with Speaker(self._settings) as speaker:
            sealed = envelope.Sealed(key, value, tuple(headers))  # type: ignore[arg-type] # as they came
            return await speaker.say(self._names.of(topic), aside.source.partition, sealed)

    async def answer(self, said: Source, since: int, seconds: float) -> AuditRecord | None:
        """What the core made of it, once it is on the trail; None when it is not there in time.

        `since`: a log time before it was said (Unix milliseconds).
        """
        place = TopicPartition(self._names.of(topics.AUDIT), 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._reader() as consumer:
                reading.assign_at(consumer, await self._surveyor.starts([place]))
                # The answer is younger than what it answers, which was said just now.
                found = (await consumer.offsets_for_times({place: since}))[place]
                if found is not None:
                    consumer.seek(place, found.offset)
                while True:
                    for record in (await consumer.getmany(place, timeout_ms=ANSWER_POLL_MS)).get(place, ()):
                        audit = AuditRecord.from_bytes(record.value or b"")
                        if audit.source == said:
                            return audit
        return None
