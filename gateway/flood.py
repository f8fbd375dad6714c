"""Nobody asks faster than agreed: one token bucket a requester, in this process's memory. The clock is an argument."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

BURST_SECONDS: Final = 5
"""A bucket holds what comes in during this time: short bursts pass."""
REMEMBERED: Final = 10_000


class Flood:
    """Says how long a requester must wait."""

    def __init__(self, per_second: int, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._most = float(per_second * BURST_SECONDS)
        self._monotonic = monotonic
        #: What is left, and when that was so. Who has not asked for long has a full bucket, and needs no entry.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_for(self, requester: str) -> float:
        """0 when this one may ask now, and then it counts; else the seconds after which it may."""
        now = self._monotonic()
        left, since = self._buckets.pop(requester, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_second)
        if left < 1:
            self._buckets[requester] = (left, now)
            return (1 - left) / self._per_second
        self._buckets[requester] = (left - 1, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0


class Crowd:
    """Counts who holds something open, each and together."""

    def __init__(self, each: int, together: int) -> None:
        self._each = each
        self._together = together
        self._held: dict[str, int] = {}
        self._sum = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody more fits."""
        return self._sum >= self._together

    def admits(self, requester: str) -> bool:
        """Whether this one may hold one more."""
        return self._held.get(requester, 0) < self._each

    def enter(self, requester: str) -> None:
        """One more."""
        self._held[requester] = self._held.get(requester, 0) + 1
        self._sum += 1

    def leave(self, requester: str) -> None:
        """One less."""
        self._sum -= 1
        self._held[requester] -= 1
        if not self._held[requester]:
            del self._held[requester]
