"""Simulated time and simulated processes: one event loop that never waits, and hosts that can be killed and frozen.

Everything that happens in a history happens on this loop, in an order that follows from its seed alone. Time passes
only when nobody can go on, and then at once.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

EPOCH_MS = 1_764_000_000_000
"""Where simulated time begins, Unix milliseconds."""
T = TypeVar("T")
HERE: ContextVar["Host | None"] = ContextVar("host", default=None)
NOWHERE: Context = copy_context()
"""For what goes on whatever becomes of the host that asked for it: packets on the wire."""


class KilledError(Exception):
    """Whatever a dead process does has no effect."""


class StalledError(Exception):
    """Nothing will ever happen again."""


class Loop(asyncio.BaseEventLoop):
    """An event loop over simulated time."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.turns = 0
        self.hosts: list[Host] = []
        #: What escaped from tasks nobody looked at.
        self.escaped: list[BaseException] = []
        self.set_task_factory(_made_by_its_host)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._now

    @property
    def now_ms(self) -> int:
        """The true time, which no clock in the simulation shows exactly."""
        return EPOCH_MS + round(self._now * 1000)

    def later(self, seconds: float, call: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        """Belongs to no host: nobody's death keeps it from happening."""
        return self.call_at(self._now + seconds, call, *arguments, context=NOWHERE.copy())

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            while scheduled and scheduled[0]._cancelled:  # type: ignore[attr-defined]
                heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
            if not scheduled:
                raise StalledError
            self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if not timer.cancelled():
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            host = handle._context.get(HERE)  # type: ignore[attr-defined]
            if host is not None and host.is_frozen:
                host.held.append(handle)
                continue
            self.turns += 1
            handle._run()

    def _process_events(self, event_list: object) -> None:
        """There is no I/O."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Dropped when its time comes."""

    def _note(self, _: object, context: dict[str, Any]) -> None:
        if isinstance(error := context.get("exception"), Exception) and not isinstance(error, KilledError):
            self.escaped.append(error)


def _made_by_its_host(loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None) -> Any:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    host = HERE.get() if context is None else context.get(HERE)
    if host is not None:
        host.tasks[task] = None
        task.add_done_callback(host.forget)
    return task


class Host:
    """One life of one process: its tasks, its clock, and what can befall it."""

    def __init__(self, loop: Loop, name: str, skew_ms: int = 0) -> None:
        """`skew_ms`: how far its clock is ahead of true time."""
        self.loop = loop
        self.name = name
        self.skew_ms = skew_ms
        self.is_dead = False
        self.is_frozen = False
        self.held: deque[asyncio.Handle] = deque()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        #: Why it ended by itself.
        self.failure: BaseException | None = None
        self.at_end: list[Callable[[], None]] = []
        loop.hosts.append(self)

    def __repr__(self) -> str:
        return self.name

    def clock(self) -> int:
        """Unix milliseconds, as this machine has them."""
        return self.loop.now_ms + self.skew_ms

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin. When the work ends, for whatever reason, the process is over."""
        context = copy_context()
        context.run(HERE.set, self)
        context.run(self.loop.create_task, self._whole(work))

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - fail-stop: the supervisor starts it again
            self.failure = error
        self.kill()

    def kill(self) -> None:
        """As by SIGKILL: nothing it still does has an effect."""
        if self.is_dead:
            return
        self.is_dead = True
        self.thaw()
        for task in tuple(self.tasks):
            task.cancel()
        for call in self.at_end:
            call()

    def freeze(self) -> None:
        """As by SIGSTOP: it does nothing, and does not know."""
        self.is_frozen = not self.is_dead

    def thaw(self) -> None:
        """It goes on where it was, and believes what it believed."""
        self.is_frozen = False
        while self.held:
            self.loop._ready.append(self.held.popleft())

    def require_alive(self) -> None:
        """Called by everything that would have an effect outside."""
        if self.is_dead:
            raise KilledError(self.name)

    def forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if not task.cancelled():
            task.exception()


def here() -> Host:
    """The host whose code runs now."""
    host = HERE.get()
    if host is None:
        raise AssertionError("only a host may do this")
    return host
