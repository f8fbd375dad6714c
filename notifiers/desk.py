"""The port between channels and Kafka: what a channel can read, and the one thing it can say.

A channel asks the desk for rows and hands it a person's word. The desk signs with the notifier's key and returns once
the word is on the log; what the core makes of it shows in the row, never in the return value (law 8).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeAlias

from schemas.record import KeyId
from schemas.records import Decision, Phase, Resolution, Source
from schemas.world import World
from streams.rows import Held, Listed

Word: TypeAlias = Decision | Resolution
"""What a person says."""


class Desk(Protocol):
    """What a channel needs. Everything but `say` answers from memory."""

    @property
    def world(self) -> World:
        """Directory, roster, policies and manifests in force, as far as this process has read."""
        ...

    @property
    def keyid(self) -> KeyId:
        """The notifier's own key, by which the directory caps what it can vouch for."""
        ...

    def row(self, intent_id: str) -> Held | None:
        """The newest row of this intent; None when none is known here. UnreadableError when its bytes are no row."""
        ...

    def listed(self, phases: frozenset[Phase]) -> Iterable[Listed]:
        """The rows in these phases, in no order. The phase is a hint of Kafka's headers; the row itself says it."""
        ...

    async def say(self, word: Word) -> Source:
        """Sign a person's word and put it on `decisions`. When this returns it is durable, at this position.

        Raises NotRecordedError when it may not be there.
        """
        ...

    def watch(self) -> AbstractContextManager[AsyncIterator[str]]:
        """The ids of rows that change from here on. An id is told once however often it changed: read the row.

        Ends when this process ends.
        """
        ...


class Changes:
    """Tells every watcher which rows changed. Level-triggered: a slow watcher holds ids, not a history."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._is_closed = False

    def tell(self, intent_id: str) -> None:
        """This row changed."""
        for watcher in self._watchers:
            watcher.tell(intent_id)

    def close(self) -> None:
        """Nothing will change any more here: every watcher ends."""
        self._is_closed = True
        for watcher in self._watchers:
            watcher.close()

    @contextmanager
    def watch(self) -> Iterator[AsyncIterator[str]]:
        """What changes from the moment of entering."""
        watcher = _Watcher(is_closed=self._is_closed)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)


class _Watcher(AsyncIterator[str]):
    def __init__(self, *, is_closed: bool) -> None:
        # A dictionary keeps the order of telling and each id once.
        self._changed: dict[str, None] = {}
        self._is_told = asyncio.Event()
        self._is_closed = is_closed

    def tell(self, intent_id: str) -> None:
        self._changed[intent_id] = None
        self._is_told.set()

    def close(self) -> None:
        self._is_closed = True
        self._is_told.set()

    async def __anext__(self) -> str:
        while not self._changed:
            if self._is_closed:
                raise StopAsyncIteration
            self._is_told.clear()
            await self._is_told.wait()
        intent_id = next(iter(self._changed))
        del self._changed[intent_id]
        return intent_id
