"""The same Idempotency-Key gives the same answer; with another request it is an error, never a second act.

Kept in this process's memory. After a restart a repeat reaches the core, which answers it by its own rules: a second
yes of one person counts once however it came in.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

MOST: Final = 10_000
T = TypeVar("T")


class ReusedError(Exception):
    """The key was used for another request."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    fingerprint: str
    answer: "asyncio.Task[T]"
    since: float


class Repeats(Generic[T]):
    """Answers by (caller, key), for a while. What failed is not kept: it may be tried again."""

    def __init__(self, keep_seconds: float, monotonic: Callable[[], float]) -> None:
        self._keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._entries: OrderedDict[tuple[str, ...], _Entry[T]] = OrderedDict()

    async def once(self, key: tuple[str, ...], fingerprint: str, make: Callable[[], Awaitable[T]]) -> T:
        """The answer to this key: made now, or the one made before. ReusedError when the request was another."""
        self._forget()
        entry = self._entries.get(key)
        if entry is None:
            # A caller that goes away must not undo what is under way: the task is nobody's child.
            entry = _Entry(fingerprint, asyncio.ensure_future(_awaited(make)), self._monotonic())
            self._entries[key] = entry
        elif entry.fingerprint != fingerprint:
            raise ReusedError
        try:
            return await asyncio.shield(entry.answer)
        except asyncio.CancelledError:
            raise
        except BaseException:
            if self._entries.get(key) is entry:
                del self._entries[key]
            raise

    def _forget(self) -> None:
        horizon = self._monotonic() - self._keep_seconds
        while self._entries:
            key, oldest = next(iter(self._entries.items()))
            is_over = oldest.since < horizon or len(self._entries) > MOST
            if not is_over or not oldest.answer.done():
                return
            del self._entries[key]


async def _awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
