"""In which order one partition decides its inputs. Pure: no I/O, no clock.

Law 11: a record is taken only if its offset is the position its reader owns; lower was decided, higher is a gap.
Law 4, the barrier: a claim, once fetched, waits until everything below the end offsets of `classified`, `decisions`
and the world topics, read *after* it was fetched, is decided; a tick waits for `reports` too. A claim never waits for
a tick, so the two can't block each other.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from schemas import topics

WORLD: Final = tuple(topic.name for topic in topics.WORLD)
CLASSIFIED: Final = topics.CLASSIFIED.name
DECISIONS: Final = topics.DECISIONS.name
REPORTS: Final = topics.REPORTS.name
TICKS: Final = topics.TICKS.name
OPERATIONS: Final = topics.OPERATIONS.name
INPUTS: Final = (OPERATIONS, *WORLD, CLASSIFIED, DECISIONS, REPORTS, TICKS)
"""Names of the topics of the map, in the order in which ready records are decided."""

BEFORE_CLAIM: Final = (*WORLD, CLASSIFIED, DECISIONS)
BEFORE_TICK: Final = (*BEFORE_CLAIM, REPORTS)

T = TypeVar("T")


class OffsetGapError(Exception):
    """An offset above the owned position."""


@dataclass(frozen=True, slots=True)
class Input(Generic[T]):
    """One record at its place: which input topic, which offset, whether it is a claim."""

    topic: str
    offset: int
    body: T
    is_claim: bool = False


@dataclass(frozen=True, slots=True)
class Ready(Generic[T]):
    """Decide this now."""

    input: Input[T]


@dataclass(frozen=True, slots=True)
class ReadEnds:
    """Ask Kafka for the end offsets of these topics, then call `ends_are`. Never answer from a cache."""

    topics: tuple[str, ...]
    #: The waiting topic, and which of its records (offsets below) were fetched before the question.
    behind: str
    upto: int


@dataclass(frozen=True, slots=True)
class Starved:
    """Nothing can be decided before more is fetched; `waits` says whether a barrier waits for it."""

    waits: bool


@dataclass(slots=True)
class _Barrier:
    """Who is behind it (offsets below `upto`), and what must be decided first."""

    upto: int
    needs: Mapping[str, int]


class Order(Generic[T]):
    """The inputs of one partition, in the order in which they are decided."""

    def __init__(self, positions: Mapping[str, int]) -> None:
        """`positions`: for each input topic the next offset to decide."""
        self._positions = {topic: positions.get(topic, 0) for topic in INPUTS}
        self._waiting: dict[str, deque[Input[T]]] = {topic: deque() for topic in INPUTS}
        self._barriers: dict[str, _Barrier] = {}

    @property
    def positions(self) -> Mapping[str, int]:
        """The next offset to decide, by topic."""
        return self._positions

    def fetched_to(self, topic: str) -> int:
        """The offset the next record of this topic must have."""
        return self._positions[topic] + len(self._waiting[topic])

    def offer(self, item: Input[T]) -> bool:
        """Take a fetched record. False: it was taken before, drop it. OffsetGapError: seek back to `fetched_to`."""
        expected = self.fetched_to(item.topic)
        if item.offset < expected:
            return False
        if item.offset > expected:
            raise OffsetGapError(f"{item.topic}: offset {item.offset} where {expected} was due")
        self._waiting[item.topic].append(item)
        return True

    def jump(self, topic: str, position: int) -> None:
        """Go on here: what lies between is gone, and a person with a root key said so (law 11)."""
        if self._waiting[topic]:
            raise AssertionError(f"{topic}: records wait, so none is missing before them")
        self._positions[topic] = position

    def next(self) -> Ready[T] | ReadEnds | Starved:
        """What to do next."""
        for topic in (OPERATIONS, *BEFORE_CLAIM):
            if self._waiting[topic]:
                return self._take(topic)
        reports = self._waiting[REPORTS]
        if reports:
            if not reports[0].is_claim or self._is_passed(REPORTS):
                return self._take(REPORTS)
            if not self._is_behind(REPORTS):
                return ReadEnds(BEFORE_CLAIM, REPORTS, self.fetched_to(REPORTS))
            return Starved(waits=True)
        if self._waiting[TICKS]:
            if self._is_passed(TICKS):
                return self._take(TICKS)
            if not self._is_behind(TICKS):
                return ReadEnds(BEFORE_TICK, TICKS, self.fetched_to(TICKS))
            return Starved(waits=True)
        return Starved(waits=False)

    def awaited(self) -> Mapping[str, int]:
        """What the first claim, or else the first tick, still waits for: by topic, the offset that is due there."""
        behind = REPORTS if self._waiting[REPORTS] else TICKS
        if not self._waiting[behind] or not self._is_behind(behind):
            return {}
        needs = self._barriers[behind].needs
        return {name: self.fetched_to(name) for name, end in needs.items() if self.fetched_to(name) < end}

    def ends_are(self, asked: ReadEnds, ends: Mapping[str, int]) -> None:
        """The answer to `ReadEnds`: what had been fetched when it was asked waits behind these ends."""
        self._barriers[asked.behind] = _Barrier(asked.upto, {name: ends[name] for name in asked.topics})

    def _take(self, topic: str) -> Ready[T]:
        item = self._waiting[topic].popleft()
        self._positions[topic] = item.offset + 1
        return Ready(item)

    def _is_behind(self, topic: str) -> bool:
        """Whether the first waiting record was fetched before the barrier's ends were read."""
        barrier = self._barriers.get(topic)
        return barrier is not None and self._waiting[topic][0].offset < barrier.upto

    def _is_passed(self, topic: str) -> bool:
        if not self._is_behind(topic):
            return False
        needs = self._barriers[topic].needs
        return all(self._positions[name] >= end for name, end in needs.items())
