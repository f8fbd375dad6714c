"""A simulated Kafka behind the client's own interface: what `streams.connection` hands out while a history runs.

It keeps what Kafka promises (order in a partition, fencing by transactional id, atomic transactions with holes in the
offsets, read-committed ends, one owner a partition in a group) and uses every freedom Kafka leaves: topics are seen
at different times, fetches are cut anywhere, answers get lost after the write, leaders' clocks differ, whoever is
frozen misses its session.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaTimeoutError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from tests.simulation.clockwork import Host, Loop, here

SESSION_SECONDS = 10.0
GUARDED = frozenset({"classified", "decisions", "reports", "ticks", "approved.s3"})
"""Topics whose readers hold every record against the place or number that is due (law 11), so that they survive a
client that skips or repeats in a rebalance. Each begins with a record, so nothing is before 0."""
COUNTED = frozenset({"approved.s3"})
"""Of these, the ones held against a number that follows the last one read. What a process reads first follows nothing,
so a skip there goes unnoticed; its reader has no group, and in no rebalance a cause to skip."""


class Fetched(NamedTuple):
    """A record as a client gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    #: When it was durable, by true time, and how many were before it anywhere: nobody in the history can see these.
    at: int
    seq: int


class Stands(NamedTuple):
    """Where a record stands, as the client tells its producer."""

    topic: str
    partition: int
    offset: int
    timestamp: int


@dataclass(slots=True)
class Chances:
    """How likely each fault of the network and the processes is. All zero after the faults stop."""

    #: At a write: the process dies before it, or after it; only the answer is lost; or nothing was written.
    dies_before: float = 0.0
    dies_after: float = 0.0
    loses_answer: float = 0.0
    is_not_written: float = 0.0
    #: It dies at one of the named places of the shipped code.
    dies_at: float = 0.0
    #: A topic is seen late by one reader.
    is_seen_late: float = 0.0
    #: A fetch ends early.
    is_cut: float = 0.0
    #: A fetch skips what it should have returned, or returns again what it returned before.
    skips: float = 0.0
    repeats: float = 0.0

    def stop(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0.0)


@dataclass(slots=True)
class Partition:
    """One log."""

    records: list[Fetched | None] = field(default_factory=list)
    #: How far its leader's clock is ahead of true time.
    skew_ms: int = 0
    readers: "list[asyncio.Future[None]]" = field(default_factory=list)


class Kafka:
    """All logs of one history."""

    def __init__(self, loop: Loop, random: Random, topics: Mapping[str, int]) -> None:
        """`topics`: how many partitions each has."""
        self.loop = loop
        self.random = random
        self.topics = dict(topics)
        self.chances = Chances()
        #: How long an idle poll lasts: longer than asked for, as on a slow machine, so that quiet hours cost little.
        self.idle_seconds = 5.0
        self.faults: Counter[str] = Counter()
        self.logs = {TopicPartition(name, number): Partition() for name in topics for number in range(topics[name])}
        self.epochs: Counter[str] = Counter()
        self.groups: dict[str, Group] = {}
        self.heard: list[Callable[[Fetched], None]] = []
        self.seq = 0

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> Fetched:
        """Durable when this returns."""
        place = TopicPartition(topic, partition)
        log = self.logs[place]
        self.seq += 1
        now = self.loop.now_ms
        record = Fetched(
            topic, partition, len(log.records), now + log.skew_ms, key, value, tuple(headers), now, self.seq
        )
        log.records.append(record)
        self._tell(log)
        for call in self.heard:
            call(record)
        return record

    def leave_hole(self, place: TopicPartition, offsets: int) -> None:
        """What a transaction leaves: a marker, or the records of one that was aborted."""
        log = self.logs[place]
        log.records.extend([None] * offsets)
        self._tell(log)

    def end(self, place: TopicPartition) -> int:
        return len(self.logs[place].records)

    def _tell(self, log: Partition) -> None:
        readers, log.readers = log.readers, []
        for waiting in readers:
            if not waiting.done():
                waiting.set_result(None)

    def chance(self, of: float, name: str) -> bool:
        if of and self.random.random() < of:
            self.faults[name] += 1
            return True
        return False

    async def latency(self) -> None:
        """Most answers come in a few milliseconds; some questions need not wait at all."""
        draw = self.random.random()
        if draw > 0.4:
            await asyncio.sleep(0.001 + 0.05 * (draw - 0.4) ** 4)


@dataclass(eq=False)
class Group:
    """One consumer group: who is in it, who owns what, and what was committed."""

    kafka: Kafka
    topics: list[str] = field(default_factory=list)
    members: "dict[str, Consumer]" = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    generation: int = 0
    committed: dict[TopicPartition, OffsetAndMetadata] = field(default_factory=dict)
    #: The same without going back, as a late commit of who owned it before may.
    furthest: dict[TopicPartition, int] = field(default_factory=dict)

    def join(self, member: "Consumer", topics: list[str]) -> None:
        self.topics = topics
        before = self.members.get(member.instance)
        self.members[member.instance] = member
        member.host.at_end.append(lambda: self._left(member))
        # Static membership: who comes back under its name keeps its share.
        if before is None or member.instance not in self.owners.values():
            self.rebalance()
        else:
            self.generation += 1

    def _left(self, member: "Consumer") -> None:
        self.kafka.loop.later(SESSION_SECONDS, self._expire, member)

    def _expire(self, member: "Consumer") -> None:
        if self.members.get(member.instance) is member and (member.host.is_dead or member.host.is_frozen):
            del self.members[member.instance]
            self.rebalance()

    def suspect(self, host: Host) -> None:
        """A frozen host sends no heartbeats."""
        for member in self.members.values():
            if member.host is host:
                self._left(member)

    def rebalance(self) -> None:
        self.generation += 1
        names = sorted(self.members)
        if not names:
            return
        count = self.kafka.topics[self.topics[0]]
        first = self.kafka.random.randrange(len(names))
        self.owners = {number: names[(first + number) % len(names)] for number in range(count)}
        for member in self.members.values():
            member.wake()

    def owned_by(self, member: "Consumer") -> list[TopicPartition]:
        if self.members.get(member.instance) is not member:
            return []
        return [
            TopicPartition(topic, number)
            for topic in self.topics
            for number, name in sorted(self.owners.items())
            if name == member.instance
        ]


class _Cluster:
    """What `streams.connection.require_partitions` asks of the client."""

    def add_topic(self, topic: str) -> None:
        """Everything is known."""

    async def force_metadata_update(self) -> None:
        """Everything is known."""


class Consumer:
    """`AIOKafkaConsumer`, as far as Keyturn uses it."""

    kafka: Kafka

    def __init__(self, **arguments: Any) -> None:
        self.host = here()
        self.group_id: str | None = arguments.get("group_id")
        self.instance: str = arguments.get("group_instance_id") or ""
        self._client = _Cluster()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._seen: dict[TopicPartition, float] = {}
        #: Where something was read since the last seek.
        self._going: set[TopicPartition] = set()
        self._waiting: asyncio.Future[None] | None = None
        self._listener: Any = None
        self._generation = 0
        self._assigned: list[TopicPartition] = []

    async def start(self) -> None:
        self.host.require_alive()

    async def stop(self) -> None:
        self._positions.clear()

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        count = self.kafka.topics.get(topic)
        return set(range(count)) if count else None

    # ------------------------------------------------------------ positions

    def assign(self, places: Iterable[TopicPartition]) -> None:
        self._positions = dict.fromkeys(sorted(places), 0)
        self._paused.clear()
        self._seen.clear()
        self._going.clear()

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset
        self._seen.pop(place, None)
        self._going.discard(place)

    async def position(self, place: TopicPartition) -> int:
        self.host.require_alive()
        # Holes are passed when nothing but holes is left below the end.
        log, at = self.kafka.logs[place].records, self._positions[place]
        while at < len(log) and log[at] is None:
            at += 1
        self._positions[place] = at
        return at

    def pause(self, *places: TopicPartition) -> None:
        self._paused.update(places)

    def resume(self, *places: TopicPartition) -> None:
        self._paused.difference_update(places)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    async def end_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """As of some moment between the question and the answer."""
        self.host.require_alive()
        if self.kafka.random.random() < 0.5:
            await self.kafka.latency()
            self.host.require_alive()
            return {place: self.kafka.end(place) for place in places}
        ends = {place: self.kafka.end(place) for place in places}
        await self.kafka.latency()
        return ends

    async def beginning_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        self.host.require_alive()
        return dict.fromkeys(places, 0)

    async def offsets_for_times(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, Stands | None]:
        self.host.require_alive()
        found: dict[TopicPartition, Stands | None] = {}
        for place, at in times.items():
            first = next((each for each in self.kafka.logs[place].records if each and each.timestamp >= at), None)
            found[place] = Stands(place.topic, place.partition, first.offset, first.timestamp) if first else None
        return found

    # ------------------------------------------------------------ fetching

    async def getmany(
        self, *places: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Fetched]]:
        self.host.require_alive()
        if self._listener is not None:
            return await self._keep_membership()
        wanted = sorted((set(places) or self._positions.keys()) - self._paused)
        loop = self.kafka.loop
        until = loop.time() + self.kafka.idle_seconds
        while True:
            now = loop.time()
            batch = {place: records for place in wanted if (records := self._take(place, now, max_records))}
            if batch:
                return batch
            if now >= until:
                return {}
            await self._something(wanted, min([until, *(self._seen[place] for place in wanted if place in self._seen)]))
            self.host.require_alive()

    def _take(self, place: TopicPartition, now: float, most: int | None) -> list[Fetched]:
        kafka, log, at = self.kafka, self.kafka.logs[place].records, self._positions[place]
        if at >= len(log):
            return []
        if place not in self._seen:
            is_late = kafka.chance(kafka.chances.is_seen_late, "topic seen late")
            delay = kafka.random.uniform(0.2, 6.0) if is_late else kafka.random.random() ** 4 * 0.05
            self._seen[place] = now + delay
        if now < self._seen[place]:
            return []
        del self._seen[place]
        found = [record for record in log[at:] if record is not None][: most or None]
        if len(found) > 1 and kafka.chance(kafka.chances.is_cut, "fetch cut"):
            found = found[: kafka.random.randrange(1, len(found))]
        elif plain(place.topic) in GUARDED:
            is_noticed = plain(place.topic) not in COUNTED or place in self._going
            if len(found) > 1 and is_noticed and kafka.chance(kafka.chances.skips, "fetch skipped"):
                found = found[1:]
            elif (last := log[at - 1]) is not None and kafka.chance(kafka.chances.repeats, "fetch repeated"):
                found = [last, *found]
        if found:
            self._positions[place] = found[-1].offset + 1
            self._going.add(place)
        else:
            self._positions[place] = len(log)
        return found

    async def _something(self, places: Iterable[TopicPartition], until: float) -> None:
        """Wait until one of these grows, or the time is over."""
        loop = self.kafka.loop
        waiting = self._waiting = loop.create_future()
        for place in places:
            self.kafka.logs[place].readers.append(waiting)
        timer = loop.call_at(until, _resolve, waiting)
        try:
            await waiting
        finally:
            timer.cancel()

    def wake(self) -> None:
        if self._waiting is not None:
            _resolve(self._waiting)

    # ------------------------------------------------------------ the group

    @property
    def group(self) -> Group:
        return self.kafka.groups.setdefault(str(self.group_id), Group(self.kafka))

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self._listener = listener
        self.group.join(self, topics)

    async def _keep_membership(self) -> dict[TopicPartition, list[Fetched]]:
        if self._generation != self.group.generation:
            if self.group.members.get(self.instance) is not self:
                self.group.join(self, self.group.topics)
            self._generation = self.group.generation
            self._listener.on_partitions_revoked(self._assigned)
            self._assigned = self.group.owned_by(self)
            self._listener.on_partitions_assigned(self._assigned)
        else:
            await self._something((), self.kafka.loop.time() + 20.0)
        return {}

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    @property
    def _coordinator(self) -> "Consumer":
        """Who is asked for the offsets of the group: the same."""
        return self

    async def fetch_committed_offsets(
        self, places: Iterable[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        self.host.require_alive()
        return {place: found for place in places if (found := self.group.committed.get(place)) is not None}

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        generation = self._generation
        await self.kafka.latency()
        self.host.require_alive()
        if generation != self.group.generation:
            raise CommitFailedError
        for place, (offset, metadata) in offsets.items():
            self.group.committed[place] = OffsetAndMetadata(offset, metadata)
            self.group.furthest[place] = max(offset, self.group.furthest.get(place, 0))


class Producer:
    """`AIOKafkaProducer`, as far as Keyturn uses it."""

    kafka: Kafka

    def __init__(self, **arguments: Any) -> None:
        self.host = here()
        self._id: str | None = arguments.get("transactional_id")
        self._epoch = 0
        self._said: list[tuple[str, int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]] = []
        self._landed_at = 0.0

    async def start(self) -> None:
        await self.kafka.latency()
        self.host.require_alive()
        if self._id is not None:
            # Whoever had this id before is fenced, and what it had begun is aborted.
            self.kafka.epochs[self._id] += 1
            self._epoch = self.kafka.epochs[self._id]

    async def stop(self) -> None:
        """Nothing is waited for."""

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(self.kafka.topics[topic]))

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int = 0,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> "asyncio.Future[Stands]":
        self.host.require_alive()
        loop, kafka, chances = self.kafka.loop, self.kafka, self.kafka.chances
        answer: asyncio.Future[Stands] = loop.create_future()
        word = (topic, partition, key, value, tuple(headers))
        if self._id is not None:
            if self._said and kafka.chance(chances.dies_before, f"died inside a transaction of {kind(self.host)}"):
                self._abort()
                self.host.kill()
            self._said.append(word)
            answer.set_result(Stands(topic, partition, -1, -1))
            return answer
        if kafka.chance(chances.dies_before, f"died before writing {plain(topic)}"):
            self.host.kill()
            return answer
        # A producer's records land in the order in which they were sent.
        self._landed_at = max(self._landed_at, loop.time() + kafka.random.random() ** 4 * 0.05)
        loop.later(self._landed_at - loop.time(), self._land, word, answer)
        return answer

    def _land(self, word: Any, answer: "asyncio.Future[Stands]") -> None:
        kafka, chances = self.kafka, self.kafka.chances
        topic = plain(word[0])
        if kafka.chance(chances.is_not_written, f"not written: {topic}"):
            _fail(answer, KafkaTimeoutError())
            return
        record = kafka.append(*word)
        if kafka.chance(chances.dies_after, f"died after writing {topic}"):
            self.host.kill()
        elif kafka.chance(chances.loses_answer, f"answer lost: {topic}"):
            _fail(answer, KafkaTimeoutError())
        elif not answer.done():
            answer.set_result(Stands(record.topic, record.partition, record.offset, record.timestamp))

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int = 0,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> Stands:
        return await (await self.send(topic, value, key, partition, headers))

    # ------------------------------------------------------------ transactions

    async def begin_transaction(self) -> None:
        self.host.require_alive()
        self._said = []

    async def commit_transaction(self) -> None:
        kafka, chances, who = self.kafka, self.kafka.chances, kind(self.host)
        if kafka.chance(chances.dies_before, f"died before a commit of {who}"):
            self._abort()
            self.host.kill()
        self.host.require_alive()
        answer: asyncio.Future[None] = kafka.loop.create_future()
        kafka.loop.later(kafka.random.random() ** 4 * 0.1, self._commit, answer)
        await answer

    def _commit(self, answer: "asyncio.Future[None]") -> None:
        kafka, chances, who = self.kafka, self.kafka.chances, kind(self.host)
        if kafka.epochs[str(self._id)] != self._epoch:
            kafka.faults["zombie fenced"] += 1
            _fail(answer, ProducerFenced())
            return
        if kafka.chance(chances.is_not_written, f"transaction aborted of {who}"):
            self._abort()
            _fail(answer, KafkaTimeoutError())
            return
        for word in self._said:
            kafka.append(*word)
        for place in sorted({TopicPartition(word[0], word[1]) for word in self._said}):
            kafka.leave_hole(place, 1)
        self._said = []
        if kafka.chance(chances.dies_after, f"died after a commit of {who}"):
            self.host.kill()
        elif kafka.chance(chances.loses_answer, f"answer lost: commit of {who}"):
            _fail(answer, KafkaTimeoutError())
        elif not answer.done():
            answer.set_result(None)

    def _abort(self) -> None:
        """What was written of it stays as a hole."""
        said, self._said = self._said, []
        places = Counter(TopicPartition(word[0], word[1]) for word in said)
        for place in sorted(places):
            self.kafka.leave_hole(place, places[place] + 1)


def plain(topic: str) -> str:
    """Without the prefix."""
    return topic.removeprefix("keyturn.")


def kind(host: Host) -> str:
    return host.name.split("-", 1)[0]


def _resolve(answer: "asyncio.Future[None]") -> None:
    if not answer.done():
        answer.set_result(None)


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever asked may be gone


def bind(kafka: Kafka) -> tuple[type[Consumer], type[Producer]]:
    """Clients of this Kafka."""

    class Reader(Consumer):
        pass

    class Writer(Producer):
        pass

    Reader.kafka = Writer.kafka = kafka
    return Reader, Writer
