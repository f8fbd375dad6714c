"""What the core says to one executor, partition by partition, in order and without holes.

The group's consumer only holds the membership and the commits: it is paused, and fetches nothing. The owned
partitions of both topics are read by a consumer without a group, whose positions are ours, so that a rebalance can
neither skip nor repeat a record for a partition that stays.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError

from executors.errors import PartitionsError
from executors.lanes import Mark
from schemas import topics
from streams import connection
from streams.access import group_of
from streams.errors import LostPositionError
from streams.settings import Settings

log = logging.getLogger("keyturn.executor")

SESSION_MS: Final = 10_000
POLL_MS: Final = 100
MEMBERSHIP_POLL_MS: Final = 500
BATCH: Final = 200


class Feed:
    """`planning.<executor>` and `approved.<executor>`, as far as this process owns them."""

    def __init__(self, settings: Settings, executor: str) -> None:
        """Not started: `async with`."""
        self._settings = settings
        self.planning = settings.names.of(topics.PLANNING, executor)
        self.approved = settings.names.of(topics.APPROVED, executor)
        user = f"executor-{executor}"
        self._membership: AIOKafkaConsumer = connection.reader(
            settings,
            group=group_of(settings.names, user),
            group_instance_id=f"{user}-{settings.instance}",
            # The default assignor would not put partition p of both topics on one process.
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=1_000,
            rebalance_timeout_ms=20_000,
        )
        self._reader: AIOKafkaConsumer = connection.reader(settings, fetch_max_wait_ms=POLL_MS)
        self._share = _Share(self._membership)
        self._polling: asyncio.Task[None] | None = None
        self._positions: dict[TopicPartition, int] = {}
        #: The number of the last record before where we began to read, if it is known.
        self.after: dict[TopicPartition, int | None] = {}
        self.owned: frozenset[int] = frozenset()
        self.partitions = 0

    async def __aenter__(self) -> Self:
        try:
            await connection.start(self._membership, self._settings)
            await connection.start(self._reader, self._settings)
            await self._look()
            self._membership.subscribe([self.planning, self.approved], listener=self._share)
        except BaseException:
            await self._stop()
            raise
        self._polling = asyncio.create_task(self._poll(), name="membership")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._polling is not None:
            self._polling.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._polling
        await self._stop()

    async def _look(self) -> None:
        wanted = [self.planning, self.approved]
        found = await connection.require_partitions(self._membership, wanted)
        await connection.require_partitions(self._reader, wanted)
        if len(set(found.values())) != 1:
            raise PartitionsError(f"{found}: not the same number of partitions; run `keyturn topics check`")
        self.partitions = found[self.approved]

    async def fetch(self, paused: Iterable[TopicPartition]) -> Mapping[TopicPartition, list[ConsumerRecord]]:
        """What there is now, or nothing after a short wait. `owned` is up to date when this returns.

        Partitions in `paused` are left where they are.
        """
        if self._polling is not None and self._polling.done():
            self._polling.result()
        if self._share.partitions != self.owned:
            await self._take_up(self._share.partitions)
        if not self._positions:
            await asyncio.sleep(POLL_MS / 1000)
            return {}
        waiting = set(paused) & self._positions.keys()
        self._reader.pause(*waiting)
        self._reader.resume(*(self._reader.paused() - waiting))
        fetched: dict[TopicPartition, list[ConsumerRecord]] = await self._reader.getmany(
            *(self._positions.keys() - waiting), timeout_ms=POLL_MS, max_records=BATCH
        )
        for place, records in fetched.items():
            self._positions[place] = records[-1].offset + 1
        return fetched

    async def commit(self, marks: Mapping[TopicPartition, Mark]) -> Mapping[TopicPartition, Mark]:
        """Commit what is still ours; returns what was committed. The rest can be said again, if it is ours again."""
        ours = {place: mark for place, mark in marks.items() if place in self._membership.assignment()}
        try:
            if ours:
                await self._membership.commit({place: (mark.upto, mark.metadata) for place, mark in ours.items()})
        except (CommitFailedError, IllegalStateError) as exc:
            # What was not committed is handled again, which changes nothing.
            log.info("offsets not committed", extra={"reason": str(exc)})
            return {}
        return ours

    async def _take_up(self, wanted: frozenset[int]) -> None:
        """Read exactly these partitions: from the own position, or from where the group had come to."""
        places = [
            TopicPartition(topic, number) for topic in (self.planning, self.approved) for number in sorted(wanted)
        ]
        positions = {place: self._positions.get(place) for place in places}
        unknown = [place for place, position in positions.items() if position is None]
        starts = await self._reader.beginning_offsets(unknown) if unknown else {}
        ends = await self._reader.end_offsets(unknown) if unknown else {}
        for place in unknown:
            first = await self._first(place, starts[place], ends[place])
            positions[place], self.after[place] = first.upto, first.number
        self._positions = {place: position or 0 for place, position in positions.items()}
        self.owned = wanted
        self._reader.assign(places)
        for place, position in self._positions.items():
            self._reader.seek(place, position)

    async def _first(self, place: TopicPartition, start: int, end: int) -> Mark:
        found = await connection.committed(self._membership, place)
        if found is None:
            return Mark(start)
        committed, metadata = found
        if committed > end:
            raise LostPositionError(
                f"{place.topic}/{place.partition}: committed {committed} is behind the log's end {end}: the log was "
                "cut or replaced; investigate, then delete the group's offsets"
            )
        if committed < start:
            # Kept for 30 days, which no approval outlives: what is gone can no longer be acted upon.
            log.critical(
                "records expired unread",
                extra={"topic": place.topic, "partition": place.partition, "from": committed, "to": start},
            )
            return Mark(start)
        return Mark.read(committed, metadata)

    async def _poll(self) -> None:
        while True:
            await self._membership.getmany(timeout_ms=MEMBERSHIP_POLL_MS)

    async def _stop(self) -> None:
        await self._reader.stop()
        await self._membership.stop()


class _Share(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """Which partitions the group gave us. The client only logs exceptions out of here: so there is no work in it."""

    def __init__(self, membership: AIOKafkaConsumer) -> None:
        self._membership = membership
        self.partitions: frozenset[int] = frozenset()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Go on until the new shares are known: most partitions stay, and handling twice changes nothing."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        places = list(assigned)
        self._membership.pause(*places)
        self.partitions = frozenset(place.partition for place in places)
