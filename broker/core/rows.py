"""The rows of one partition: kept as bytes, decoded when touched. No I/O.

A million rows as objects would be gigabytes and garbage-collector pauses; as bytes they are what Kafka holds. The few
things needed without decoding (phase, when a tick is due, when the row may be forgotten) lie beside the bytes and, on
Kafka, in headers, so that restoring decodes nothing.
"""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from broker import lifecycle
from schemas import ids
from schemas.envelope import Headers
from schemas.records import FINAL, PendingApproval, Phase

OPEN: Final = frozenset(Phase) - FINAL
TIMED: Final = OPEN - {Phase.UNKNOWN}
"""Phases that a tick ends. An `unknown` waits for people, however long."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One row as it lies on Kafka, with what is known without decoding."""

    value: bytes
    phase: Phase
    due: int | None
    ended: int | None

    @classmethod
    def of(cls, row: PendingApproval) -> "Stored":
        """A row to be written."""
        return cls(row.to_bytes(), row.phase, lifecycle.due_at(row), row.ended_at)

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
        return cls(value, phase, due, ended)

    def headers(self) -> list[tuple[str, bytes]]:
        """The hints."""
        hints = [("phase", self.phase.value.encode())]
        hints += [(name, str(at).encode()) for name, at in (("due", self.due), ("ended", self.ended)) if at is not None]
        return hints

    def row(self) -> PendingApproval:
        """The row."""
        return PendingApproval.from_bytes(self.value)


class Rows:
    """All rows of a partition."""

    def __init__(self) -> None:
        """Empty."""
        self._rows: dict[str, Stored] = {}
        self._open: Counter[str] = Counter()
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
        self._count(intent_id, -1)
        self._rows[intent_id] = stored
        self._count(intent_id, +1)
        self._due.put(intent_id, stored.due)
        # Both the row's end and the id's time must be old enough (`ids.is_forgettable`).
        ended = stored.ended
        self._old.put(intent_id, max(ended, ids.split(intent_id)[1]) if ended is not None else None)

    def drop(self, intent_id: str) -> None:
        """Forget a row."""
        self._count(intent_id, -1)
        self._rows.pop(intent_id, None)
        self._due.put(intent_id, None)
        self._old.put(intent_id, None)

    def open_of(self, requester: str) -> int:
        """How many of a requester's intents have not ended."""
        return self._open[requester]

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

    def _count(self, intent_id: str, change: int) -> None:
        stored = self._rows.get(intent_id)
        if stored is not None and stored.phase in OPEN:
            requester = ids.requester_of(intent_id)
            self._open[requester] += change
            if not self._open[requester]:
                del self._open[requester]


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
