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
        """A row as it was written; the headers are hints, and without them the row is decoded."""
        known = {name: hint for name, hint in headers if hint is not None}
        try:
            phase = Phase(known["phase"].decode())
            due, ended = (int(known[name]) if name in known else None for name in ("due", "ended"))
        except (KeyError, ValueError):
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
        self._due: list[tuple[int, str]] = []
        self._ended: list[tuple[int, str]] = []

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
        if stored.due is not None:
            heapq.heappush(self._due, (stored.due, intent_id))
        if stored.ended is not None:
            heapq.heappush(self._ended, (stored.ended, intent_id))

    def drop(self, intent_id: str) -> None:
        """Forget a row."""
        self._count(intent_id, -1)
        self._rows.pop(intent_id, None)

    def open_of(self, requester: str) -> int:
        """How many of a requester's intents have not ended."""
        return self._open[requester]

    def first_due(self) -> int | None:
        """When the next tick is needed."""
        while self._due:
            due, intent_id = self._due[0]
            stored = self._rows.get(intent_id)
            if stored is not None and stored.due == due:
                return due
            heapq.heappop(self._due)
        return None

    def due_before(self, log_time: int) -> Iterator[str]:
        """Which rows a tick of this log time moves, earliest first. Each is taken off the list."""
        while (first := self.first_due()) is not None and first < log_time:
            yield heapq.heappop(self._due)[1]

    def forgettable(self, now: int) -> Iterator[str]:
        """Final rows that may be dropped: an id that old is refused at the door. An `unknown` never (DESIGN §3)."""
        horizon = now - ids.WINDOW_BEFORE_MS - ids.FORGET_MARGIN_MS
        while self._ended and self._ended[0][0] < horizon:
            _, intent_id = heapq.heappop(self._ended)
            stored = self._rows.get(intent_id)
            if stored is None or stored.ended is None:
                continue
            if ids.is_forgettable(intent_id, stored.ended, now):
                yield intent_id

    def _count(self, intent_id: str, change: int) -> None:
        stored = self._rows.get(intent_id)
        if stored is not None and stored.phase in OPEN:
            requester = ids.requester_of(intent_id)
            self._open[requester] += change
            if not self._open[requester]:
                del self._open[requester]
