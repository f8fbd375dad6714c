"""Reading without a group: from a known position, to the end that was there when we asked, and on."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from streams import connection
from streams.errors import LostPositionError
from streams.settings import Settings

POLL_MS: Final = 200


class Surveyor:
    """Says what the log holds now. It never fetches: on a reader's connection a question waits for its long poll."""

    def __init__(self, settings: Settings) -> None:
        """Not started: `async with`."""
        self._settings = settings
        self._client: AIOKafkaConsumer = connection.reader(settings)

    async def __aenter__(self) -> Self:
        await connection.start(self._client, self._settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.stop()

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        """How many partitions each topic has. TopicMissingError when one can't be seen."""
        return await connection.require_partitions(self._client, topics)

    async def starts(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offsets of the first records that are kept."""
        return dict(await self._client.beginning_offsets(list(places)))

    async def ends(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offsets after the last committed records."""
        return dict(await self._client.end_offsets(list(places)))

    async def require_held(self, positions: Mapping[TopicPartition, int]) -> None:
        """LostPositionError when the log does not hold one of these owned positions any more, or not yet."""
        starts, ends = await self.starts(positions), await self.ends(positions)
        for place, position in positions.items():
            if not starts[place] <= position <= ends[place]:
                raise LostPositionError(
                    f"{place.topic}/{place.partition}: owned position {position} is outside [{starts[place]}, "
                    f"{ends[place]}]: the log was cut or replaced; `keyturn core skip` goes on, audited"
                )


async def read_to_end(
    consumer: AIOKafkaConsumer, upto: Mapping[TopicPartition, int]
) -> AsyncIterator[tuple[TopicPartition, ConsumerRecord]]:
    """Every committed record below `upto`, from where the consumer stands. Partitions must be assigned and positioned.

    Ends when each partition's position has reached its end: holes that transactions leave are skipped by position,
    not by counting records. An end beyond the log's is waited for. What lies beyond an end stays to be read.
    """
    remaining = {place for place, end in upto.items() if await consumer.position(place) < end}
    while remaining:
        batch = await consumer.getmany(*remaining, timeout_ms=POLL_MS)
        for place, records in batch.items():
            for record in records:
                if record.offset >= upto[place]:
                    consumer.seek(place, upto[place])
                    break
                yield place, record
        for place in tuple(remaining):
            if await consumer.position(place) >= upto[place]:
                remaining.discard(place)


def assign_at(consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
    """Assign these partitions, each at its position.

    Once in a consumer's life: what is read later is paused until then. The client waits for its fetches of the old
    assignment before it asks for the new one, and can hang for ever when it is stopped in between.
    """
    consumer.assign(list(positions))
    for place, position in positions.items():
        consumer.seek(place, position)


async def assign_from_start(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Assign these partitions at their log starts; returns the ends as of now."""
    wanted = list(places)
    starts = await consumer.beginning_offsets(wanted)
    ends = await consumer.end_offsets(wanted)
    assign_at(consumer, starts)
    return dict(ends)
