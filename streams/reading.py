"""Reading without a group: from a known position, to the end that was there when we asked, and on."""

from collections.abc import AsyncIterator, Iterable, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from streams.errors import LostPositionError

POLL_MS = 200


async def read_to_end(
    consumer: AIOKafkaConsumer, upto: Mapping[TopicPartition, int]
) -> AsyncIterator[tuple[TopicPartition, ConsumerRecord]]:
    """Every committed record below `upto`, from where the consumer stands. Partitions must be assigned and positioned.

    Ends when each partition's position has reached its end: holes that transactions leave are skipped by position,
    not by counting records.
    """
    remaining = {place for place, end in upto.items() if await consumer.position(place) < end}
    while remaining:
        batch = await consumer.getmany(*remaining, timeout_ms=POLL_MS)
        for place, records in batch.items():
            for record in records:
                if record.offset < upto[place]:
                    yield place, record
        for place in tuple(remaining):
            if await consumer.position(place) >= upto[place]:
                remaining.discard(place)


async def require_held(consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
    """LostPositionError when the log does not hold one of these owned positions any more, or not yet."""
    starts = await consumer.beginning_offsets(list(positions))
    ends = await consumer.end_offsets(list(positions))
    for place, position in positions.items():
        if not starts[place] <= position <= ends[place]:
            raise LostPositionError(
                f"{place.topic}/{place.partition}: owned position {position} is outside [{starts[place]}, "
                f"{ends[place]}]: the log was cut or replaced; `keyturn core skip` goes on, audited"
            )


def assign_at(consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
    """Assign these partitions, each at its position."""
    consumer.assign(list(positions))
    for place, position in positions.items():
        consumer.seek(place, position)


async def assign_from_start(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Assign these partitions at their log starts; returns the ends as of now."""
    wanted = list(places)
    assign_at(consumer, await consumer.beginning_offsets(wanted))
    return dict(await consumer.end_offsets(wanted))
