"""The core as a role: the group shares out partitions, each owned partition runs by itself.

The group's consumer only holds the membership; it is paused and commits nothing. Every owned partition has its own
producer and its own consumer, positioned by its own rows, so a rebalance can neither skip nor repeat a record.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from broker.core import metrics
from broker.core.partition import CorePartition, Shared
from schemas import topics
from streams import connection, process
from streams.health import Health
from streams.producing import Speaker
from streams.reading import Surveyor
from streams.settings import Settings

log = logging.getLogger("keyturn.core")
SESSION_MS: Final = 10_000
POLL_MS: Final = 500


def clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


async def run(settings: Settings, health: Health, stop: asyncio.Event) -> None:
    """Serve until `stop`. A partition that fails ends the process at once."""
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
    topic = settings.names.of(topics.TICKS)
    async with Speaker(settings) as speaker, Surveyor(settings) as surveyor:
        partitions = (await surveyor.partitions([topic]))[topic]
        shared = Shared(partitions, settings.signer(), speaker, surveyor, clock)
        shares = _Shares(lambda number: CorePartition(settings, number, shared), membership, health)
        membership.subscribe([topic], listener=shares)
        with metrics.Partitions(shares.served, clock):
            remaining = asyncio.create_task(_remain(membership), name="membership")
            await process.until_stopped(stop, remaining)
            await shares.release_all()
            remaining.cancel()
    await membership.stop()


async def _remain(membership: AIOKafkaConsumer) -> NoReturn:
    """Polling keeps the membership; everything is paused, so nothing is fetched."""
    while True:
        await membership.getmany(timeout_ms=POLL_MS)


class _Shares(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """Starts and stops owned partitions as the group shares them out."""

    def __init__(self, made: Callable[[int], CorePartition], membership: AIOKafkaConsumer, health: Health) -> None:
        """`made` gives a partition that does not run yet."""
        self._made = made
        self._membership = membership
        self._health = health
        self._running: dict[int, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._served: dict[int, CorePartition] = {}

    def served(self) -> Iterable[CorePartition]:
        """The partitions that are served now."""
        return tuple(self._served.values())

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Let go, in order: who owns them next finds everything committed."""
        await self._release({place.partition for place in revoked})

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Own these now."""
        places = list(assigned)
        self._membership.pause(*places)
        self._health.has("partitions")
        for place in places:
            self._own(place.partition)

    async def release_all(self) -> None:
        """Let go of everything."""
        await self._release(set(self._running))

    def _own(self, number: int) -> None:
        if number not in self._running:
            stop = asyncio.Event()
            self._health.waits_for(_name(number), "restoring")
            self._running[number] = (asyncio.create_task(self._serve(number, stop), name=_name(number)), stop)

    async def _serve(self, number: int, stop: asyncio.Event) -> None:
        try:
            partition = self._made(number)
            self._served[number] = partition
            await partition.run(stop, lambda: self._health.has(_name(number)))
            del self._served[number]
        except BaseException as error:  # noqa: BLE001 - the client swallows what its listener raises: end here
            process.fail_stop(error)

    async def _release(self, numbers: set[int]) -> None:
        released = {number: self._running.pop(number) for number in numbers & self._running.keys()}
        for _, stop in released.values():
            stop.set()
        for number, (task, _) in released.items():
            await task
            self._health.has(_name(number))
            log.info("partition released", extra={"partition": number})


def _name(number: int) -> str:
    return f"partition-{number}"
