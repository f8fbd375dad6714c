"""The live documents as a role sees them: read to the end at start, then followed. In force without a restart.

Every role applies the same pure rule (`schemas.world`) to the same topics, so all have the same world. A snapshot
that does not come into force is ignored by all of them, loudly; the core also puts it on the trail.
"""

import asyncio
import logging
from typing import Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from schemas import envelope
from schemas.envelope import EnvelopeError
from schemas.topics import WORLD, Topic
from schemas.world import SnapshotError, World
from streams import connection, reading
from streams.settings import Settings

log = logging.getLogger("keyturn.world")


def after(world: World, record: ConsumerRecord, topic: Topic) -> World:
    """The world after one record of a world topic. A document counts on its own topic alone: another is read at
    another time by every role.
    """
    try:
        statement = envelope.unseal(record.headers, record.value, topic.types)
        return world.with_snapshot(statement, record.timestamp)
    except (EnvelopeError, SnapshotError) as exc:
        log.error(  # noqa: TRY400 - the reason is the message, a traceback adds nothing
            "snapshot ignored", extra={"topic": record.topic, "offset": record.offset, "reason": str(exc)}
        )
        return world


class WorldView:
    """Follows the world topics. `world` is what is in force as far as this process has read."""

    def __init__(self, settings: Settings, topics: tuple[Topic, ...] = WORLD) -> None:
        """Not started: `async with`."""
        self._settings = settings
        self._topics = {settings.names.of(topic): topic for topic in topics}
        self._places = [TopicPartition(topic, 0) for topic in self._topics]
        self._consumer: AIOKafkaConsumer = connection.reader(settings)
        self._surveyor = reading.Surveyor(settings)
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._positions: dict[TopicPartition, int] = {}
        self._is_over = False
        self.world = settings.empty_world()

    async def __aenter__(self) -> Self:
        await connection.start(self._consumer, self._settings)
        try:
            await connection.require_partitions(self._consumer, self._topics)
            ends = await reading.assign_from_start(self._consumer, self._places)
            async for place, record in reading.read_to_end(self._consumer, ends):
                self._take(place, record)
            await self._surveyor.__aenter__()
        except BaseException:
            await self._surveyor.__aexit__()
            await self._consumer.stop()
            raise
        self._task = asyncio.create_task(self._follow(), name="world")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._surveyor.__aexit__()
        await self._consumer.stop()

    def require_alive(self) -> None:
        """Raise what ended the following, if anything did: a role that no longer hears of changes must stop."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    async def caught_up(self) -> World:
        """The world with everything that was acknowledged before this call."""
        self.require_alive()
        ends = await self._surveyor.ends(self._places)
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._is_over or all(self._positions.get(place, 0) >= end for place, end in ends.items())
            )
        if self._is_over and self._task is not None:
            await self._task
        return self.world

    async def _follow(self) -> None:
        try:
            while True:
                batch = await self._consumer.getmany(timeout_ms=reading.POLL_MS)
                for place, records in batch.items():
                    for record in records:
                        self._take(place, record)
                if batch:
                    await self._tell()
        finally:
            # Whoever waits must hear that there is nothing to wait for.
            self._is_over = True
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _take(self, place: TopicPartition, record: ConsumerRecord) -> None:
        self.world = after(self.world, record, self._topics[record.topic])
        self._positions[place] = record.offset + 1
