"""Whatever went in without an answer is found and driven again (law 11), so that nothing rests on Faust alone.

Reads `intents` only below intake's committed offset, so that it never races the live stream: whatever is there was
acked, hence answered, unless it was lost. Answers are durable before their record's offset is committed, so reading
them to the end *after* the committed offset was read finds every answer there is.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from broker.intake import metrics
from broker.intake.answering import Raw
from schemas import canonical, ids, topics
from schemas.records import Source
from streams import connection, crashpoints, reading
from streams.errors import LostPositionError
from streams.settings import Settings

log = logging.getLogger("keyturn.sweep")
EVERY_SECONDS: Final = 10.0
BATCH: Final = 200
FETCH_WAIT_MS: Final = 20

Place = tuple[int, int]
"""(partition, offset) of a record of `intents`."""


class Sweep:
    """One pass after another over everything younger than the id window."""

    def __init__(
        self, settings: Settings, answer: Callable[[Sequence[Raw]], Awaitable[int]], clock: Callable[[], int]
    ) -> None:
        """Not started: `run`, or `async with` for single passes. `answer` is what serves the live stream, too."""
        self._settings = settings
        self._answer = answer
        self._clock = clock
        self._answered: set[Place] = set()
        #: By partition of `intents`: what was committed and where the log ended at the last pass.
        self._stood: dict[TopicPartition, tuple[int, int]] = {}
        #: How far the last pass read, by partition of any topic.
        self._read: dict[TopicPartition, int] = {}
        # The group's id only lets it read the committed offsets; it never joins.
        self._consumer: AIOKafkaConsumer = connection.reader(
            settings, group=f"{settings.prefix}intake", fetch_max_wait_ms=FETCH_WAIT_MS
        )

    async def __aenter__(self) -> Self:
        await connection.start(self._consumer, self._settings)
        names = self._settings.names
        wanted = [names.of(topic) for topic in (topics.INTENTS, topics.CLASSIFIED, topics.QUARANTINE)]
        counts = await connection.require_partitions(self._consumer, wanted)
        self._intents_at, *answers = (connection.places(name, counts[name]) for name in wanted)
        self._answers_at = [*itertools.chain(*answers)]
        reading.assign_at(self._consumer, dict.fromkeys([*self._intents_at, *self._answers_at], 0))
        self._consumer.pause(*self._intents_at, *self._answers_at)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def run(self, stop: asyncio.Event, every: float = EVERY_SECONDS) -> None:
        """Sweep until `stop`."""
        async with self:
            while not stop.is_set():
                await self.once()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), every)

    async def once(self) -> int:
        """One pass; returns how many records had no answer and were driven again."""
        crashpoints.reached("intake.sweep.1-begun")
        committed = {place: await self._consumer.committed(place) or 0 for place in self._intents_at}
        await self._require_there(committed)
        await self._read_answers()
        crashpoints.reached("intake.sweep.2-answers-read")
        missing = await self._unanswered(committed)
        for first in range(0, len(missing), BATCH):
            await self._answer(missing[first : first + BATCH])
        if missing:
            log.error("driven again", extra={"count": len(missing), "first": str(missing[0].source)})
        self._read |= committed
        crashpoints.reached("intake.sweep.3-ended")
        swept = {place.partition: offset for place, offset in committed.items()}
        self._answered = {(partition, offset) for partition, offset in self._answered if offset >= swept[partition]}
        return len(missing)

    async def _require_there(self, committed: Mapping[TopicPartition, int]) -> None:
        starts = await self._consumer.beginning_offsets(self._intents_at)
        ends = await self._consumer.end_offsets(self._intents_at)
        for place, offset in committed.items():
            if offset < starts[place]:
                lost = {"partition": place.partition, "first": offset, "kept_from": starts[place]}
                log.error("intents expired before they were read", extra=lost)
            if offset > ends[place]:
                raise LostPositionError(
                    f"{place.topic}/{place.partition}: intake committed {offset}, the log ends at {ends[place]}: it "
                    "was cut or replaced; stop intake and set its group's offsets to what is there"
                )
            self._notice_standing(place, offset, ends[place])

    def _notice_standing(self, place: TopicPartition, committed: int, end: int) -> None:
        """Law 11: nobody stands before a hole in silence, also when no record comes after it and none is lost."""
        metrics.LAG.labels(place.partition).set(end - committed)
        before, there = self._stood.get(place, (committed, committed))
        if before == committed < there:
            extra = {"partition": place.partition, "committed": committed, "end": end}
            log.warning("intake stands still: nothing comes, or nothing is answered", extra=extra)
        self._stood[place] = (committed, end)

    async def _read_answers(self) -> None:
        ends = await self._consumer.end_offsets(self._answers_at)
        async for place, record in self._between(ends):
            found = _source_of(record)
            if found is not None:
                self._answered.add(found)
            self._read[place] = record.offset + 1

    async def _unanswered(self, committed: Mapping[TopicPartition, int]) -> list[Raw]:
        missing: list[Raw] = []
        async for place, record in self._between(committed):
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

    async def _between(
        self, upto: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[TopicPartition, ConsumerRecord]]:
        """From where the last pass ended up to here. Outside of this everything is paused."""
        for place in upto:
            read = self._read.get(place)
            self._consumer.seek(place, read if read is not None else await self._first(place))
        self._consumer.resume(*upto)
        async for found in reading.read_to_end(self._consumer, upto):
            yield found
        self._consumer.pause(*upto)

    async def _first(self, place: TopicPartition) -> int:
        """Where the id window begins: an older id is refused anyway."""
        since = self._clock() - ids.WINDOW_BEFORE_MS - ids.FORGET_MARGIN_MS
        found = (await self._consumer.offsets_for_times({place: since}))[place]
        if found is not None:
            return int(found.offset)
        return int((await self._consumer.end_offsets([place]))[place])


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
