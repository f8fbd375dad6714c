"""Whatever went in without an answer is found and driven again (law 11), so that nothing rests on Faust alone.

Reads `intents` only below intake's committed offset, so that it never races the live stream: whatever is there was
acked, hence answered, unless it was lost. Answers are durable before their record's offset is committed, so reading
them to the end *after* the committed offset was read finds every answer there is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from broker.intake.answering import Raw
from schemas import canonical, ids, topics
from schemas.records import Source
from streams import connection, reading
from streams.errors import LostPositionError
from streams.settings import Settings

log = logging.getLogger("keyturn.sweep")
EVERY_SECONDS: Final = 10.0
BATCH: Final = 200

Place = tuple[int, int]
"""(partition, offset) of a record of `intents`."""


class Sweep:
    """One pass after another over everything younger than the id window."""

    def __init__(
        self, settings: Settings, answer: Callable[[Sequence[Raw]], Awaitable[int]], clock: Callable[[], int]
    ) -> None:
        """`answer` is the same function that serves the live stream."""
        self._settings = settings
        self._answer = answer
        self._clock = clock
        self._answered: set[Place] = set()
        self._swept: dict[int, int] = {}
        self._read: dict[TopicPartition, int] = {}

    async def run(self, stop: asyncio.Event, every: float = EVERY_SECONDS) -> None:
        """Sweep until `stop`."""
        names = self._settings.names
        # The group's id only lets it read the committed offsets; it never joins.
        consumer = connection.reader(self._settings, group=f"{self._settings.prefix}intake")
        await connection.start(consumer, self._settings)
        try:
            counts = await connection.require_partitions(
                consumer, [names.of(topics.INTENTS), names.of(topics.CLASSIFIED), names.of(topics.QUARANTINE)]
            )
            while not stop.is_set():
                await self.once(consumer, counts)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), every)
        finally:
            await consumer.stop()

    async def once(self, consumer: AIOKafkaConsumer, counts: dict[str, int]) -> int:
        """One pass; returns how many records had no answer and were driven again."""
        names = self._settings.names
        intents = connection.places(names.of(topics.INTENTS), counts[names.of(topics.INTENTS)])
        consumer.assign(intents)
        committed = {place: await consumer.committed(place) or 0 for place in intents}
        await _require_there(consumer, committed)
        await self._read_answers(consumer, counts)
        missing = await self._unanswered(consumer, committed)
        for first in range(0, len(missing), BATCH):
            await self._answer(missing[first : first + BATCH])
        if missing:
            log.error("driven again", extra={"count": len(missing), "first": str(missing[0].source)})
        self._swept = {place.partition: offset for place, offset in committed.items()}
        self._answered = {
            (partition, offset) for partition, offset in self._answered if offset >= self._swept.get(partition, 0)
        }
        return len(missing)

    async def _read_answers(self, consumer: AIOKafkaConsumer, counts: dict[str, int]) -> None:
        names = self._settings.names
        places = [
            place
            for topic in (names.of(topics.CLASSIFIED), names.of(topics.QUARANTINE))
            for place in connection.places(topic, counts[topic])
        ]
        consumer.assign(places)
        for place in places:
            read = self._read.get(place)
            consumer.seek(place, read if read is not None else await self._first(consumer, place))
        ends = await consumer.end_offsets(places)
        async for place, record in reading.read_to_end(consumer, ends):
            found = _source_of(record)
            if found is not None:
                self._answered.add(found)
            self._read[place] = record.offset + 1

    async def _unanswered(self, consumer: AIOKafkaConsumer, committed: dict[TopicPartition, int]) -> list[Raw]:
        places = list(committed)
        consumer.assign(places)
        for place in places:
            swept = self._swept.get(place.partition)
            consumer.seek(place, swept if swept is not None else await self._first(consumer, place))
        missing: list[Raw] = []
        async for place, record in reading.read_to_end(consumer, committed):
            raw = Raw(
                source=Source(topic=topics.INTENTS.name, partition=place.partition, offset=record.offset),
                log_time=record.timestamp,
                key=record.key,
                value=record.value,
                headers=tuple(record.headers),
            )
            if not raw.is_genesis and (place.partition, record.offset) not in self._answered:
                missing.append(raw)
        return missing

    async def _first(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> int:
        """Where the id window begins: an older id is refused anyway."""
        since = self._clock() - ids.WINDOW_BEFORE_MS - ids.FORGET_MARGIN_MS
        found = (await consumer.offsets_for_times({place: since}))[place]
        if found is not None:
            return int(found.offset)
        return int((await consumer.end_offsets([place]))[place])


async def _require_there(consumer: AIOKafkaConsumer, committed: Mapping[TopicPartition, int]) -> None:
    ends = await consumer.end_offsets(list(committed))
    for place, offset in committed.items():
        if offset > ends[place]:
            raise LostPositionError(
                f"{place.topic}/{place.partition}: intake committed {offset}, the log ends at {ends[place]}: it was "
                "cut or replaced; stop intake and set its group's offsets to what is there"
            )


def _source_of(record: ConsumerRecord) -> Place | None:
    """Which record of `intents` an answer is about."""
    try:
        source = canonical.decode(record.value or b"").get("source")
    except canonical.CanonicalError:
        return None
    if not isinstance(source, dict) or source.get("topic") != topics.INTENTS.name:
        return None
    partition, offset = source.get("partition"), source.get("offset")
    return (partition, offset) if isinstance(partition, int) and isinstance(offset, int) else None
