"""The core as a role: the group shares out partitions, each owned partition runs by itself.

The group's consumer only holds the membership; it is paused and commits nothing. Every owned partition has its own
producer and its own consumer, positioned by its own rows, so a rebalance can neither skip nor repeat a record.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from broker.core.partition import CorePartition
from schemas import topics
from streams import connection
from streams.health import Health
from streams.settings import Settings

log = logging.getLogger("keyturn.core")
SESSION_MS = 10_000
POLL_MS = 500


def clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


async def run(settings: Settings, health: Health, stop: asyncio.Event) -> None:
    """Serve until `stop`."""
    health.waits_for("partitions", "joining the group")
    membership = connection.reader(
        settings,
        group=f"{settings.prefix}core",
        group_instance_id=f"core-{settings.instance}",
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=1_000,
        rebalance_timeout_ms=20_000,
    )
    await connection.start(membership, settings)
    shares = _Shares(settings, membership, health)
    try:
        topic = settings.names.of(topics.TICKS)
        shares.partitions = (await connection.require_partitions(membership, [topic]))[topic]
        membership.subscribe([topic], listener=shares)
        while not stop.is_set():
            # Polling keeps the membership; everything is paused, so nothing is fetched.
            await membership.getmany(timeout_ms=POLL_MS)
            shares.require_all_alive()
    finally:
        await shares.release_all()
        await membership.stop()


class _Shares(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """Starts and stops owned partitions as the group shares them out."""

    def __init__(self, settings: Settings, membership: AIOKafkaConsumer, health: Health) -> None:
        self._settings = settings
        self._membership = membership
        self._health = health
        self._running: dict[int, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._restoring: set[int] = set()
        self.partitions = 0

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._release({place.partition for place in revoked})

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        places = list(assigned)
        self._membership.pause(*places)
        self._health.has("partitions")
        for place in places:
            self._own(place.partition)

    def require_all_alive(self) -> None:
        """Raise what ended a partition: law of the house, fail-stop."""
        for task, _ in self._running.values():
            if task.done():
                task.result()
                raise RuntimeError("a core partition ended by itself")

    async def release_all(self) -> None:
        await self._release(set(self._running))

    def _own(self, number: int) -> None:
        if number in self._running:
            return
        stop = asyncio.Event()
        part = CorePartition(self._settings, number, self.partitions, self._settings.signer(), clock)
        self._restoring.add(number)
        self._health.waits_for(f"partition-{number}", "restoring")
        task = asyncio.create_task(
            part.run(stop, lambda: self._health.has(f"partition-{number}")), name=f"core-{number}"
        )
        self._running[number] = (task, stop)

    async def _release(self, numbers: set[int]) -> None:
        released = {number: self._running.pop(number) for number in numbers if number in self._running}
        for _, stop in released.values():
            stop.set()
        for number, (task, _) in released.items():
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._health.has(f"partition-{number}")
            log.info("partition released", extra={"partition": number})
