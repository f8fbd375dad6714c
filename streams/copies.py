"""A realm's topics as raw records, out of one Kafka, as one cut. Nothing is decoded but what the cut rests on."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from schemas import envelope, topics
from schemas.records import Progress
from schemas.topics import PROGRESS_KEY, Topic
from streams import connection, reading
from streams.settings import Settings

FIRST: Final[tuple[Topic, ...]] = (topics.PENDING,)
SAID: Final = (topics.AUDIT, topics.STATUS, topics.PLANNING, topics.APPROVED)
"""What the core says in transactions: it goes no further than the rows do."""


@dataclass(slots=True)
class Cut:
    """How far each partition's last transaction went: what lies beyond it in other topics was said later."""

    prefix: str
    progress: dict[int, Progress] = field(default_factory=dict)
    #: By topic (name without prefix) and partition: where the log began and ended.
    spans: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    #: Records left out because they were said after the cut.
    later: int = 0

    def take(self, record: ConsumerRecord) -> None:
        """A record of `pending`, in its order."""
        if record.key == PROGRESS_KEY.encode() and record.value is not None:
            self.progress[record.partition] = Progress.from_bytes(record.value)

    def holds(self, topic: Topic, record: ConsumerRecord) -> bool:
        """Whether a record that the core said belongs to what the rows know."""
        if topic is topics.AUDIT:
            chain, _, seq = (record.key or b"").decode(errors="replace").partition("/")
            known = {f"core-{number}": progress.head.seq for number, progress in self.progress.items()}
            is_known = seq.isascii() and seq.isdigit() and int(seq) <= known.get(chain, 0)
        else:
            number = envelope.number_of(record.headers)
            said = self.progress.get(record.partition)
            is_known = said is not None and number is not None and number < said.numbers.get(record.topic, 0)
        self.later += not is_known
        return is_known


async def read_all(
    settings: Settings, executors: Iterable[str], cut: Cut
) -> AsyncGenerator[tuple[str, ConsumerRecord], None]:
    """(name without prefix, record) of every topic of the realm, `pending` first; each to the end there was then.

    The core may run meanwhile: what it says after its rows were read is left out, so that rows, trail and words fit.
    """
    named = {name: topic for name, topic, _ in settings.names.all(tuple(executors))}
    said = [name for name, topic in named.items() if topic in SAID]
    rows = [name for name, topic in named.items() if topic in FIRST]
    rest = [name for name in named if name not in {*said, *rows}]
    for group in (rows, said, rest):
        consumer = connection.reader(settings)
        await connection.start(consumer, settings)
        try:
            async for name, record in _read(consumer, group, cut):
                if name in rows:
                    cut.take(record)
                if name not in said or cut.holds(named[name], record):
                    yield name.removeprefix(settings.prefix), record
        finally:
            await consumer.stop()


async def _read(
    consumer: AIOKafkaConsumer, names: Iterable[str], cut: Cut
) -> AsyncIterator[tuple[str, ConsumerRecord]]:
    found = await connection.require_partitions(consumer, names)
    places = [place for name, count in found.items() for place in connection.places(name, count)]
    starts = await consumer.beginning_offsets(places)
    ends = await reading.assign_from_start(consumer, places)
    for place in places:
        spans = cut.spans.setdefault(place.topic.removeprefix(cut.prefix), {})
        spans[place.partition] = (starts[place], ends[place])
    async for place, record in reading.read_to_end(consumer, ends):
        yield place.topic, record
