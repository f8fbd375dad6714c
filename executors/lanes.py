"""How far one topic partition was handled, and that nothing is missing in it. No I/O.

Records are handled out of order (an act takes minutes, its neighbour nothing); what may be committed is the offset
below which everything is handled. A crash repeats the rest: handling is idempotent.
"""

from streams.errors import NumberGapError


class Lane:
    """One topic partition."""

    def __init__(self, topic: str, partition: int) -> None:
        """Nothing was taken yet."""
        self.topic = topic
        self.partition = partition
        self._open: dict[int, None] = {}
        self._next: int | None = None
        self._committed: int | None = None
        self._number: int | None = None

    def take(self, offset: int) -> bool:
        """Begin with a record; False when it was taken before."""
        if self._next is not None and offset < self._next:
            return False
        self._open[offset] = None
        self._next = offset + 1
        return True

    def finish(self, offset: int) -> None:
        """What the record asked for is done, and durable."""
        self._open.pop(offset, None)

    def count(self, number: int) -> None:
        """Law 11: the gap-free number of a transactional topic. The first one seen is taken as it is."""
        if self._number is not None and number != self._number + 1:
            raise NumberGapError(
                f"{self.topic}/{self.partition}: number {number} after {self._number}: records are missing or foreign"
            )
        self._number = number

    @property
    def committable(self) -> int | None:
        """The offset to commit, or None when it is committed already."""
        upto = next(iter(self._open), self._next)
        return upto if upto != self._committed else None

    def committed(self, upto: int) -> None:
        """`upto` was committed."""
        self._committed = upto
