"""Server-sent events (WHATWG HTML, 9.2): what changed of one requester's intents, resumable on any gateway process.

The id of an event is a place on the log: the partition of the requester and how far each topic was read. So it means
the same after a restart and on another replica. What is sent is the newest state, not a history: whoever comes back
gets everything that changed since, once, and may have missed phases in between. Of several changes at one moment only
the last event carries the id, so that a broken connection repeats and never skips.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.book import Watcher
from gateway.contract import IntentView
from gateway.flood import Crowd
from gateway.ledger import Marks

HEARTBEAT_SECONDS: Final = 15.0
RETRY_MS: Final = 2000
MEDIA_TYPE: Final = "text/event-stream"
_ID: Final = re.compile(r"([0-9]{1,6})-([0-9]{1,16})-([0-9]{1,16})-([0-9]{1,16})")


def event_id(partition: int, marks: Marks) -> str:
    """A place on the log as an id."""
    return "-".join(map(str, (partition, *marks)))


def marks_of(text: str | None, partition: int) -> Marks | None:
    """The place an id names, if it is one of this partition; everything is news to anybody else."""
    match = _ID.fullmatch(text or "")
    if match is None or int(match[1]) != partition:
        return None
    return Marks(*(int(part) for part in match.groups()[1:]))


class Source(Protocol):
    """Whose events these are, and what they show."""

    @property
    def partition(self) -> int:
        """Where they lie."""
        ...

    def watch(self) -> AbstractContextManager[Watcher]:
        """What changes."""
        ...

    def read_to(self) -> Marks:
        """How far the log was read there."""
        ...

    def begun(self, since: Marks | None) -> list[IntentView]:
        """What to begin with: what changed since, or, since nothing, what is open now."""
        ...

    def shown(self, changed: tuple[str, ...], since: Marks) -> list[IntentView]:
        """The states of these, as far as they are this requester's business and news."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        ...

    @property
    def is_allowed(self) -> bool:
        """Whether this requester may still read."""
        ...


async def stream(source: Source, since: Marks | None, heartbeat: float = HEARTBEAT_SECONDS) -> AsyncIterator[str]:
    """The stream, from where the reader left off."""
    with source.watch() as watcher:
        # Watching begins before looking: what changes in between is told.
        at = source.read_to().joined(since or Marks())
        # An id without data is no event; it only says from where to go on.
        yield f"retry: {RETRY_MS}\nid: {event_id(source.partition, at)}\n\n"
        for text in _events(source.begun(since), source.partition, at):
            yield text
        while not source.is_over and source.is_allowed:
            changed = await _next(watcher, heartbeat)
            if changed is None:
                yield ": still here\n\n"
            elif not changed:
                return  # this process ends; another one goes on
            elif source.is_allowed:
                # No await between what changed and how far was read: the id covers exactly what was told.
                before, at = at, source.read_to().joined(at)
                for text in _events(source.shown(changed, before), source.partition, at):
                    yield text


async def _next(watcher: Watcher, seconds: float) -> tuple[str, ...] | None:
    try:
        async with asyncio.timeout(seconds):
            return await watcher.taken()
    except TimeoutError:
        return None


def _events(views: list[IntentView], partition: int, at: Marks) -> list[str]:
    last = len(views) - 1
    return [
        "event: phase\n"
        f"data: {view.model_dump_json(exclude_none=True)}\n"
        + (f"id: {event_id(partition, at)}\n" if index == last else "")
        + "\n"
        for index, view in enumerate(views)
    ]


class Held(StreamingResponse):
    """A stream that counts as one of its requester's until it ends, however it ends."""

    def __init__(self, content: AsyncIterator[str], crowd: Crowd, requester: str) -> None:
        super().__init__(content, media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
        self._crowd = crowd
        self._requester = requester
        crowd.enter(requester)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the reader goes, or has to."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._crowd.leave(self._requester)
