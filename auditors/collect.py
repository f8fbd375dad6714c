"""Reads Kafka into a bundle, and follows the trail. Read-committed, without a group, up to the end there was.

The order matters: what executors were told and the rows first, then the trail, then inputs and world. So whatever the
first part holds must be on the trail, and whatever the trail cites must be in the last part.
"""

from collections.abc import AsyncGenerator, Iterable
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from auditors.bundle import BundleWriter
from schemas import topics
from streams import connection, reading
from streams.settings import Settings

AFTERWARDS: Final = (*topics.WORLD, topics.INTENTS, *topics.CORE_INPUTS, topics.QUARANTINE)
POLL_MS: Final = 500


class CollectError(Exception):
    """The topics cannot be collected; the text says what to do."""


async def collect(settings: Settings, into: BundleWriter) -> None:
    """Every topic that an auditor checks. When this returns the bundle holds all that was there when it began."""
    consumer = connection.reader(settings)
    await connection.start(consumer, settings)
    try:
        said = await _approved_topics(consumer, settings)
        first = [*said, settings.names.of(topics.PENDING)]
        for group in (first, [settings.names.of(topics.AUDIT)], [settings.names.of(topic) for topic in AFTERWARDS]):
            await _collect(consumer, group, settings.prefix, into)
    except OffsetOutOfRangeError as exc:
        raise CollectError(f"{exc}: retention removed records while they were read; run it again") from exc
    finally:
        await consumer.stop()


async def _approved_topics(consumer: AIOKafkaConsumer, settings: Settings) -> list[str]:
    """The topics of all executors that this principal can see."""
    start = settings.names.of(topics.APPROVED, "x").removesuffix("x")
    return sorted(name for name in await consumer.topics() if name.startswith(start))


async def _collect(consumer: AIOKafkaConsumer, names: Iterable[str], prefix: str, into: BundleWriter) -> None:
    partitions = await connection.require_partitions(consumer, names)
    places = [place for name, count in partitions.items() for place in connection.places(name, count)]
    for name in partitions:
        into.expect(name.removeprefix(prefix))
    ends = await reading.assign_from_start(consumer, places)
    async for place, record in reading.read_to_end(consumer, ends):
        into.take(place.topic.removeprefix(prefix), record)


async def trail(
    settings: Settings, *, last: int | None = None, since: int | None = None, follows: bool = False
) -> AsyncGenerator[ConsumerRecord, None]:
    """The records of the audit topic: the `last` ones, or those after the log time `since`; then what comes."""
    place = TopicPartition(settings.names.of(topics.AUDIT), 0)
    consumer = connection.reader(settings)
    await connection.start(consumer, settings)
    try:
        await connection.require_partitions(consumer, [place.topic])
        ends = await reading.assign_from_start(consumer, [place])
        if since is not None:
            found = (await consumer.offsets_for_times({place: max(since, 0)}))[place]
            consumer.seek(place, found.offset if found is not None else ends[place])
        if last is not None:
            there = await _last(consumer, place, ends[place], last)
            for record in there:
                yield record
        else:
            async for _, record in reading.read_to_end(consumer, ends):
                yield record
        while follows:
            for records in (await consumer.getmany(place, timeout_ms=POLL_MS)).values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()


async def _last(consumer: AIOKafkaConsumer, place: TopicPartition, end: int, count: int) -> list[ConsumerRecord]:
    """The last `count` committed records below `end`. Transactions, aborted ones most, take offsets for themselves."""
    start = (await consumer.beginning_offsets([place]))[place]
    span = 2 * count
    while True:
        consumer.seek(place, max(end - span, start))
        found = [record async for _, record in reading.read_to_end(consumer, {place: end})]
        if len(found) >= count or end - span <= start:
            return found[-count:]
        span *= 4
