"""A realm's records onto an empty Kafka: each input at its own offset, each record with its log time (ADR 0015).

The law: rows come last, after the word. A core that finds a trail and no rows does not start, so what broke off in the
middle serves nobody; and where the rows are, the restore is declared.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas import topics
from schemas.raw import RawRecord
from schemas.records import ChainHead, Progress, Restore
from schemas.signing import Signer
from schemas.topics import MAX_LONG, Topic
from streams import access, connection
from streams.cluster import Cluster
from streams.errors import StreamError
from streams.findings import TopicState
from streams.operations import Operator, heard_upto
from streams.realm import Realm
from streams.settings import Settings

TIMESTAMPS: Final = "message.timestamp.type"
LIMITS: Final = ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms")
WRITING: Final[Mapping[str, str]] = {
    # Each record keeps its log time, however old, and nothing is cleaned away while the rest is on its way.
    TIMESTAMPS: "CreateTime",
    **dict.fromkeys(LIMITS, MAX_LONG),
    "cleanup.policy": "delete",
    "retention.ms": topics.FOREVER,
    "retention.bytes": topics.FOREVER,
}
OUTSTANDING: Final = 2_000
"""How many records may be on their way."""
FILLER: Final = b"filler"
FILLERS: Final = 20_000
"""How many fillers a batch holds."""
AGAIN: Final = "delete the realm's topics, all of them, and start again"

Span = tuple[int, int]
"""Where a log began and ended."""


class RestoringError(StreamError):
    """The realm is not restored; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What is written back. Topics by their names without prefix."""

    spans: Mapping[str, Mapping[int, Span]]
    #: Intake's committed offsets.
    intake: Mapping[int, int]
    #: How far the rows of each core partition go; none where it never decided anything.
    progress: Mapping[int, Progress]
    #: The records of a topic, in the order of each partition.
    records: Callable[[str], Iterable[RawRecord]]

    def head(self, core: int) -> ChainHead:
        """Where a core partition's chain stands."""
        return self.progress[core].head if core in self.progress else ChainHead()


@dataclass(slots=True)
class Written:
    """What was done."""

    counts: dict[str, int] = field(default_factory=dict)
    #: Words of operators that no core had heard: the restore must be the next that it hears.
    unheard: int = 0


async def require_empty(cluster: Cluster, wanted: Iterable[str]) -> None:
    """RestoringError when a topic of the realm is there."""
    found = await cluster.topics(wanted)
    if any(state.settings.get(TIMESTAMPS) == WRITING[TIMESTAMPS] for state in found.values()):
        raise RestoringError(f"a restore into this Kafka was not finished, and cannot be resumed: {AGAIN}")
    if found:
        raise RestoringError(
            f"{min(found)} and {len(found) - 1} other topics of the realm are there: a backup is written into a Kafka "
            "that has none of them; nothing was done"
        )


async def restore(
    realm: Realm, settings: Settings, wanted: Mapping[str, TopicState], saved: Saved, word: "Word"
) -> Written:
    """Write everything, and declare it restored. When this returns only users and rights are missing.

    `wanted`: every topic of the realm as it must be in the end.
    """
    for name, topic, _ in realm.names.all(()):
        if topic.is_input:
            plain = realm.names.plain(name)
            require_whole(plain, saved.records(plain), saved.spans[plain])
    async with Cluster(settings) as cluster:
        await require_empty(cluster, wanted)
        try:
            return await _write_all(realm, settings, cluster, wanted, saved, word)
        except (KafkaError, StreamError) as exc:
            raise RestoringError(f"broke off in the middle, and cannot be resumed: {AGAIN}. Why: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Word:
    """What is declared, by whom, and when: Unix milliseconds."""

    signer: Signer
    at: int
    reason: str


async def _write_all(
    realm: Realm,
    settings: Settings,
    cluster: Cluster,
    wanted: Mapping[str, TopicState],
    saved: Saved,
    word: Word,
) -> Written:
    await cluster.create_topics(
        {
            name: TopicState(state.partitions, state.replicas, {**state.settings, **WRITING})
            for name, state in wanted.items()
        }
    )
    written = Written()
    rows = realm.names.of(topics.PENDING)
    async with _Writer(settings, cluster, realm, saved, written) as writer:
        for name, topic, _ in realm.names.all(realm.executors):
            if name != rows:
                if realm.names.plain(name) in saved.spans:  # an executor may be new
                    await writer.write(name, topic)
                await _as_mapped(cluster, name, wanted[name])
        intents = realm.names.of(topics.INTENTS)
        await cluster.commit(access.group_of(realm.names, "intake"), intents, saved.intake)
        # By the log's own clock from here on: the log time of the word is when it was said.
        await _declare(settings, saved, realm.partitions, word)
        await writer.write(rows, topics.PENDING)
    await _as_mapped(cluster, rows, wanted[rows])
    return written


async def _declare(settings: Settings, saved: Saved, partitions: int, word: Word) -> None:
    async with Operator(settings) as operator:
        for core in range(partitions):
            said = Restore(partition=core, head=saved.head(core), at=word.at, reason=word.reason)
            await operator.say(said, core, word.signer)


async def _as_mapped(cluster: Cluster, name: str, state: TopicState) -> None:
    await cluster.set_topic(name, state.settings, unset=WRITING.keys() - state.settings.keys())


# ---------------------------------------------------------------- what lands where


def require_whole(name: str, records: Iterable[RawRecord], spans: Mapping[int, Span]) -> None:
    """RestoringError when a record of this input would not land at its own offset."""
    due = {partition: start for partition, (start, _) in spans.items()}
    for record in records:
        if record.offset != due.get(record.partition):
            raise _hole(name, record.partition, due.get(record.partition, 0))
        due[record.partition] = record.offset + 1
    for partition, (_, end) in spans.items():
        if due[partition] != end:
            raise _hole(name, partition, due[partition])


def _hole(name: str, partition: int, offset: int) -> RestoringError:
    return RestoringError(
        f"{name}/{partition}/{offset} is not in the backup, so that what comes after it would get another offset, and "
        "what is signed names offsets"
    )


def heard(records: Iterable[RawRecord], progress: Mapping[int, Progress], written: Written) -> Iterator[RawRecord]:
    """The words of operators that the core had decided when the rows were read, and the genesis records.

    The restore names the chain's head, so it must be the next word that is heard.
    """
    for record in records:
        if record.offset < heard_upto(progress.get(record.partition)):
            yield record
        else:
            written.unheard += 1


# ---------------------------------------------------------------- writing


class _Writer:
    """Writes topic after topic, and holds each record against the offset it must get."""

    def __init__(self, settings: Settings, cluster: Cluster, realm: Realm, saved: Saved, written: Written) -> None:
        self._settings = settings
        self._cluster = cluster
        self._realm = realm
        self._saved = saved
        self._written = written
        self._producer: AIOKafkaProducer = connection.producer(settings)

    async def __aenter__(self) -> Self:
        await connection.start(self._producer, self._settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def write(self, name: str, topic: Topic) -> None:
        """A whole topic. Only what is an input is referred to by offset; elsewhere holes close."""
        plain = self._realm.names.plain(name)
        self._written.counts[plain] = 0
        records = self._saved.records(plain)
        if topic.is_input:
            starts = {partition: start for partition, (start, _) in self._saved.spans[plain].items()}
            await self._begin(name, starts)
        if topic is topics.OPERATIONS:
            records = heard(records, self._saved.progress, self._written)
        waiting: deque[tuple[RawRecord, asyncio.Future[Any]]] = deque()
        for record in records:
            sent = await self._producer.send(
                name,
                record.value,
                key=record.key,
                partition=record.partition,
                timestamp_ms=record.timestamp,
                headers=list(record.headers),
            )
            waiting.append((record, sent))
            self._written.counts[plain] += 1
            if len(waiting) >= OUTSTANDING:
                await _landed(name, topic, *waiting.popleft())
        for record, sent in waiting:
            await _landed(name, topic, record, sent)

    async def _begin(self, name: str, starts: Mapping[int, int]) -> None:
        """Let logs begin where they began: fillers, which are deleted before anybody may read."""
        for partition, start in starts.items():
            end = 0
            while end < start:
                batch = self._producer.create_batch()
                for _ in range(min(FILLERS, start - end)):
                    batch.append(key=FILLER, value=b"", timestamp=0)
                batch.close()
                sent = await (await self._producer.send_batch(batch, name, partition=partition))
                if sent.offset != end:
                    raise RestoringError(f"{name}/{partition}: {end} came to lie at {sent.offset}: somebody writes")
                end += batch.record_count()
        if begun := {partition: start for partition, start in starts.items() if start > 0}:
            await self._cluster.delete_records(name, begun)


async def _landed(name: str, topic: Topic, record: RawRecord, sent: "asyncio.Future[Any]") -> None:
    at = await sent
    if topic.is_input and at.offset != record.offset:
        raise RestoringError(f"{name}/{record.partition}: {record.offset} came to lie at {at.offset}: somebody writes")
