"""How far one topic partition was handled, and that nothing is missing in it. No I/O.

Records are handled out of order (an act takes minutes, its neighbour nothing); what may be committed ends with the last
record up to which everything is handled. A crash repeats the rest: handling is idempotent. Never the offset of a record
that is still to be counted: there may be a hole before it, and whoever starts after it would not see that. With the
offset goes the number that was counted last below it: whoever goes on from there sees a hole right behind it.
"""

from dataclasses import dataclass
from typing import Self

from streams.errors import NumberGapError


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a partition was handled, as the group keeps it."""

    #: The offset of the next record.
    upto: int
    #: The number of the last record below `upto` that was counted; None when it is not known.
    number: int | None = None

    @property
    def metadata(self) -> str:
        """The number, as the group keeps it beside the offset."""
        return "" if self.number is None else str(self.number)

    @classmethod
    def read(cls, upto: int, metadata: str) -> Self:
        """What `metadata` wrote; the number is not known where somebody else wrote it, who reset the offsets, say."""
        return cls(upto, int(metadata) if metadata.isascii() and metadata.isdecimal() else None)


@dataclass(slots=True)
class _Taken:
    number: int | None = None
    is_handled: bool = False


class Lane:
    """One topic partition."""

    def __init__(self, topic: str, partition: int, after: int | None = None) -> None:
        """Nothing was taken yet. `after` is the number of the last one before, if it is known."""
        self.topic = topic
        self.partition = partition
        #: What was taken and is not below `_mark`, in order of offsets.
        self._taken: dict[int, _Taken] = {}
        self._next: int | None = None
        self._mark: Mark | None = None
        self._committed: Mark | None = None
        self._below = after
        self._number = after

    def take(self, offset: int) -> bool:
        """Begin with a record; False when it was taken before."""
        if self._next is not None and offset < self._next:
            return False
        self._taken[offset] = _Taken()
        self._next = offset + 1
        return True

    def finish(self, offset: int) -> None:
        """What the record asked for is done, and durable."""
        if offset in self._taken:
            self._taken[offset].is_handled = True
        self._advance()

    def count(self, offset: int, number: int) -> None:
        """Law 11: the gap-free number of a transactional topic. The first one is taken as it is if none is known."""
        if self._number is not None and number != self._number + 1:
            raise NumberGapError(
                f"{self.topic}/{self.partition}: number {number} at offset {offset} comes after number {self._number}: "
                "words of the core are missing in between, or were put aside (docs/operations.md, "
                '"An executor stopped by name")'
            )
        self._number = self._taken[offset].number = number

    def _advance(self) -> None:
        """Law 11: to the end of what is handled, not to the beginning of what is not."""
        while (first := next(iter(self._taken), None)) is not None and self._taken[first].is_handled:
            number = self._taken.pop(first).number
            self._below = self._below if number is None else number
            self._mark = Mark(first + 1, self._below)

    @property
    def committable(self) -> Mark | None:
        """What to commit, or None when there is nothing new to commit."""
        return self._mark if self._mark != self._committed else None

    def committed(self, mark: Mark) -> None:
        """`mark` was committed."""
        self._committed = mark
