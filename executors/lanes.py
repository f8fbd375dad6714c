"""How far one topic partition was handled, and that nothing is missing in it. No I/O.

Records are handled out of order (an act takes minutes, its neighbour nothing); what may be committed ends with the last
record up to which everything is handled. A crash repeats the rest: handling is idempotent. Never the offset of a record
that is still to be counted: there may be a hole before it, and whoever starts after it would not see that.
"""

from streams.errors import NumberGapError


class Lane:
    """One topic partition."""

    def __init__(self, topic: str, partition: int) -> None:
        """Nothing was taken yet."""
        self.topic = topic
        self.partition = partition
        #: What was taken and is not below `_upto`, in order; whether it is handled.
        self._handled: dict[int, bool] = {}
        self._next: int | None = None
        self._upto: int | None = None
        self._committed: int | None = None
        self._number: int | None = None

    def take(self, offset: int) -> bool:
        """Begin with a record; False when it was taken before."""
        if self._next is not None and offset < self._next:
            return False
        self._handled[offset] = False
        self._next = offset + 1
        return True

    def finish(self, offset: int) -> None:
        """What the record asked for is done, and durable."""
        if offset in self._handled:
            self._handled[offset] = True
        self._advance()

    def count(self, number: int) -> None:
        """Law 11: the gap-free number of a transactional topic. The first one seen is taken as it is."""
        if self._number is not None and number != self._number + 1:
            raise NumberGapError(
                f"{self.topic}/{self.partition}: number {number} after {self._number}: records are missing or foreign"
            )
        self._number = number

    def _advance(self) -> None:
        """Law 11: to the end of what is handled, not to the beginning of what is not."""
        while (first := next(iter(self._handled), None)) is not None and self._handled[first]:
            del self._handled[first]
            self._upto = first + 1

    @property
    def committable(self) -> int | None:
        """The offset to commit, or None when there is nothing new to commit."""
        return self._upto if self._upto != self._committed else None

    def committed(self, upto: int) -> None:
        """`upto` was committed."""
        self._committed = upto
