"""The rows of one partition: kept as bytes, decoded when touched. No I/O.

A million rows as objects would be gigabytes and garbage-collector pauses; as bytes they are what Kafka holds. The few
things needed without decoding (phase, when a tick is due, when the row may be forgotten) lie beside the bytes and, on
Kafka, in headers, so that restoring decodes nothing.
"""

import bisect
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

from broker import lifecycle
from schemas import ids
from schemas.envelope import Headers
from schemas.record import RecordError
from schemas.records import FINAL, PendingApproval, Phase

OPEN: Final = frozenset(Phase) - FINAL
TIMED: Final = OPEN - {Phase.UNKNOWN}
"""Phases that a tick ends. An `unknown` waits for people, however long."""


WAITING: Final = TIMED - {Phase.EXECUTING}
"""Phases before anybody may act."""

NOTHING: Final = "-"
MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Stored:
    """One row as it lies on Kafka, with what is known without decoding."""

    value: bytes
    phase: Phase
    due: int | None
    ended: int | None
    asked: int
    #: Digest of what people denied; `NOTHING` of every other row.
    denied: str = NOTHING

    @classmethod
    def of(cls, row: PendingApproval) -> "Stored":
        """A row to be written: what of it is kept."""
        row = lifecycle.kept(row)
        denied = lifecycle.denied_wish_of(row) or NOTHING
        return cls(row.to_bytes(), row.phase, lifecycle.due_at(row), row.ended_at, row.asked_at, denied)

    @classmethod
    def read(cls, headers: Headers, value: bytes) -> "Stored":
        """A row as it was written; the headers are hints, and without ones that can be true the row is decoded.

        Nobody signs headers: a wrong hint costs time, never a row. What they say is due or may be forgotten is
        held against the row itself before anything rests on it.
        """
        known = {name: hint for name, hint in headers if hint is not None}
        try:
            phase = Phase(known["phase"].decode())
            due, ended = (int(known[name]) if name in known else None for name in ("due", "ended"))
        except (KeyError, ValueError):
            return cls.of(PendingApproval.from_bytes(value))
        if (due is not None) != (phase in TIMED) or (ended is not None) != (phase in FINAL):
            return cls.of(PendingApproval.from_bytes(value))
        try:
            asked = int(known["asked"])
            denied = known["denied"].decode() if phase is Phase.DENIED else NOTHING
        except (KeyError, ValueError):
            try:
                return cls.of(PendingApproval.from_bytes(value))
            except RecordError:
                # It stops what is about it, when that is looked at, and nobody else.
                return cls(value, phase, due, ended, 0)
        return cls(value, phase, due, ended, asked, denied)

    def headers(self) -> list[tuple[str, bytes]]:
        """The hints."""
        hints = [("phase", self.phase.value.encode()), ("asked", str(self.asked).encode())]
        if self.phase is Phase.DENIED:
            hints.append(("denied", self.denied.encode()))
        hints += [(name, str(at).encode()) for name, at in (("due", self.due), ("ended", self.ended)) if at is not None]
        return hints

    def row(self) -> PendingApproval:
        """The row."""
        return PendingApproval.from_bytes(self.value)


class Rows:
    """All rows of a partition."""

    def __init__(self, kept: MutableMapping[str, Stored] | None = None) -> None:
        """Empty. `kept`: where the rows themselves lie, if not in memory."""
        self._rows: MutableMapping[str, Stored] = kept if kept is not None else {}
        self._open: Counter[str] = Counter()
        self._phases: Counter[Phase] = Counter()
        #: When each requester's admitted intents were asked, in order.
        self._asked: defaultdict[str, list[int]] = defaultdict(list)
        #: By what people denied: whose rows say so.
        self._denied: defaultdict[str, set[str]] = defaultdict(set)
        self._restored_to = 0
        self._due = _Agenda()
        self._old = _Agenda()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, intent_id: str) -> PendingApproval | None:
        """The row of an intent."""
        stored = self._rows.get(intent_id)
        return stored.row() if stored is not None else None

    def put(self, intent_id: str, stored: Stored) -> None:
        """Remember a row."""
        self._forget(intent_id)
        self._rows[intent_id] = stored
        self._remember(intent_id, stored)
        self._due.put(intent_id, self._due_at(intent_id, stored))
        # Both the row's end and the id's time must be old enough (`ids.is_forgettable`).
        ended = stored.ended
        self._old.put(intent_id, max(ended, ids.split(intent_id)[1]) if ended is not None else None)

    def restored(self, until: int) -> None:
        """The log was restored: what waits under an id of this time or before is due at once."""
        self._restored_to = max(self._restored_to, until)
        for intent_id, stored in self._rows.items():
            if stored.phase in WAITING:
                self._due.put(intent_id, self._due_at(intent_id, stored))

    def _due_at(self, intent_id: str, stored: Stored) -> int | None:
        # A function of the rows and of the restore alone, so that a restart changes no answer.
        if stored.phase in WAITING and ids.split(intent_id)[1] <= self._restored_to:
            return 0
        return stored.due

    def drop(self, intent_id: str) -> None:
        """Forget a row."""
        self._forget(intent_id)
        self._rows.pop(intent_id, None)
        self._due.put(intent_id, None)
        self._old.put(intent_id, None)

    def all(self) -> Iterator[tuple[str, Stored]]:
        """Every row, by intent."""
        yield from self._rows.items()

    @property
    def phases(self) -> Mapping[Phase, int]:
        """How many rows are in each phase."""
        return self._phases

    def oldest(self, phase: Phase) -> int | None:
        """When the oldest row of this phase was asked; looks at every row, if there is one at all."""
        if not self._phases[phase]:
            return None
        return min(stored.asked for stored in self._rows.values() if stored.phase is phase)

    def open_of(self, requester: str) -> int:
        """How many of a requester's intents have not ended."""
        return self._open[requester]

    def asked_before(self, requester: str, at: int) -> int:
        """How many of a requester's admitted intents were asked in the minute up to this time."""
        times = self._asked.get(requester, [])
        return bisect.bisect_right(times, at) - bisect.bisect_right(times, at - MINUTE_MS)

    def denied_at(self, wish: str) -> int | None:
        """When people last denied exactly this."""
        ends = []
        for intent_id in sorted(self._denied.get(wish, ())):
            ended = self._rows[intent_id].ended
            if self._is_as_hinted(intent_id) and ended is not None:
                ends.append(ended)
        return max(ends, default=None)

    def first_due(self) -> int | None:
        """When the next tick is needed."""
        return self._due.first()

    def due_before(self, log_time: int) -> Iterator[str]:
        """Which rows a tick of this log time moves, earliest first, each once. Each is taken off the list."""
        for intent_id in self._due.before(log_time):
            if self._is_as_hinted(intent_id):
                yield intent_id

    def forgettable(self, now: int) -> Iterator[str]:
        """Final rows that may be dropped: an id that old is refused at the door. An `unknown` never (DESIGN §3)."""
        for intent_id in self._old.before(now - ids.WINDOW_BEFORE_MS - ids.FORGET_MARGIN_MS):
            ended = self._rows[intent_id].ended
            if self._is_as_hinted(intent_id) and ended is not None and ids.is_forgettable(intent_id, ended, now):
                yield intent_id

    def _is_as_hinted(self, intent_id: str) -> bool:
        """Whether the row says what its headers said; if not, it is put again by its own word."""
        stored = self._rows[intent_id]
        true = Stored.of(stored.row())
        if true != stored:
            self.put(intent_id, true)
        return true == stored

    def _remember(self, intent_id: str, stored: Stored) -> None:
        """Count a row in, where it counts: a function of the rows alone, so that a restart changes no answer."""
        requester = ids.requester_of(intent_id)
        self._phases[stored.phase] += 1
        if stored.phase in OPEN:
            self._open[requester] += 1
        if stored.phase is not Phase.REFUSED:
            bisect.insort(self._asked[requester], stored.asked)
        if stored.denied != NOTHING:
            self._denied[stored.denied].add(intent_id)

    def _forget(self, intent_id: str) -> None:
        """Count it out again."""
        stored = self._rows.get(intent_id)
        if stored is None:
            return
        requester = ids.requester_of(intent_id)
        self._phases[stored.phase] -= 1
        if stored.phase in OPEN:
            self._open[requester] -= 1
            if not self._open[requester]:
                del self._open[requester]
        if stored.phase is not Phase.REFUSED:
            times = self._asked[requester]
            del times[bisect.bisect_left(times, stored.asked)]
            if not times:
                del self._asked[requester]
        if stored.denied != NOTHING:
            alike = self._denied[stored.denied]
            alike.discard(intent_id)
            if not alike:
                del self._denied[stored.denied]


class _Agenda:
    """At what time each row wants to be looked at: a heap, where entries that were put again are passed over."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._when: dict[str, int] = {}

    def put(self, intent_id: str, at: int | None) -> None:
        """From now on at this time, or never."""
        if at is None:
            self._when.pop(intent_id, None)
        elif self._when.get(intent_id) != at:
            self._when[intent_id] = at
            heapq.heappush(self._heap, (at, intent_id))

    def first(self) -> int | None:
        """The earliest time."""
        while self._heap:
            at, intent_id = self._heap[0]
            if self._when.get(intent_id) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def before(self, limit: int) -> Iterator[str]:
        """What is due before this time, earliest first. Each is taken off."""
        while (first := self.first()) is not None and first < limit:
            intent_id = heapq.heappop(self._heap)[1]
            del self._when[intent_id]
            yield intent_id
