"""The client without await. Every call runs in the asynchronous one, on an event loop in a thread of its own.

So it works anywhere: in a script, in a thread, and inside a running event loop's thread too (which it blocks, as any
call without await does). There is no second implementation.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from keyturn.client import HOUR, AsyncClient, AsyncIntent
from keyturn.errors import ClosedError, NoConnectionError
from keyturn.intents import Property
from keyturn.outcomes import Outcome, Status
from keyturn.transport import ActionOffer, Check

T = TypeVar("T")
_ENDED: Final = object()
ENDING_SECONDS: Final = 5.0


class _Loop:
    """An event loop in a daemon thread, so that a forgotten client keeps no process alive."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._is_ending = False
        #: Between looking whether it ends and handing work over, it must not end.
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="keyturn", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self.is_gone:
            work.close()
            raise _gone()
        with self._turn:
            if self._is_ending:
                work.close()
                raise _gone()
            future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # KeyboardInterrupt: the work is told, and has its last word (`withdraw_on_cancel`) before we go.
            if future.cancel():
                self._drain()
            raise

    def _drain(self) -> None:
        """Wait until what was cancelled has ended."""

        async def others() -> None:
            mine = asyncio.current_task()
            cancelled = [task for task in asyncio.all_tasks() if task is not mine and task.cancelling()]
            if cancelled:
                await asyncio.wait(cancelled)

        # `cancel` reaches the task by a callback on the loop, which ours comes after.
        asyncio.run_coroutine_threadsafe(others(), self._loop).result()

    @property
    def is_gone(self) -> bool:
        """Ended, or left behind by a fork."""
        return self._is_ending or self._pid != os.getpid()

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        with self._turn:
            if self._is_ending:
                return
            self._is_ending = True
        # Every thread that waits has its answer before the loop stops: nobody would give it one afterwards.
        asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Intent:
    """One intent, wherever it was submitted. Made by `Client.submit` and `Client.intent`."""

    def __init__(self, intent: AsyncIntent, loop: _Loop) -> None:
        self._intent = intent
        self._loop = loop

    @property
    def id(self) -> str:
        """Its id: keep it, and any process can wait for it."""
        return self._intent.id

    def wait(
        self,
        timeout: timedelta | float | None = None,
        *,
        until_known: bool = False,
        withdraw_on_cancel: bool = False,
    ) -> Outcome:
        """As `AsyncIntent.wait`. Here Ctrl-C is what cancels."""
        return self._loop.run(
            self._intent.wait(timeout, until_known=until_known, withdraw_on_cancel=withdraw_on_cancel)
        )

    def events(self) -> Iterator[Status]:
        """Where it stands, now and at every change; ends with its end."""
        events = self._intent.events()
        try:
            while isinstance(status := self._loop.run(_next(events)), Status):
                yield status
        finally:
            with suppress(ClosedError):
                self._loop.run(_close(events))

    def status(self) -> Status:
        """Where it stands. UnknownIntentError when Keyturn has not heard of it."""
        return self._loop.run(self._intent.status())

    def withdraw(self, reason: str | None = None) -> None:
        """Take it back. It counts unless the executor has begun: wait() says what became of it."""
        self._loop.run(self._intent.withdraw(reason))

    def resend(self) -> None:
        """Send the same bytes again, after a NoConnectionError."""
        self._loop.run(self._intent.resend())

    def __repr__(self) -> str:
        return f"Intent({self.id!r})"


class Client:
    """Asks Keyturn, in the name of one agent. `with`; made by `keyturn.connect`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._loop = _Loop()
        try:
            self._loop.run(client.__aenter__())
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections. Nothing is withdrawn; threads that still wait get ClosedError."""
        if self._loop.is_gone:
            return
        try:
            self._loop.run(self._client.aclose())
        finally:
            self._loop.close()

    def submit(
        self,
        action: str,
        resource: tuple[str, str],
        properties: Mapping[str, Property] | None = None,
        *,
        reason: str,
        ttl: timedelta | int = HOUR,
        on_behalf_of: str | None = None,
        run: str | None = None,
        ticket: str | None = None,
        idempotency_key: str | None = None,
        since: datetime | None = None,
    ) -> Intent:
        """As `AsyncClient.submit`."""
        work = self._client.submit(
            action,
            resource,
            properties,
            reason=reason,
            ttl=ttl,
            on_behalf_of=on_behalf_of,
            run=run,
            ticket=ticket,
            idempotency_key=idempotency_key,
            since=since,
        )
        with self._own():
            return Intent(self._loop.run(work), self._loop)

    def ask(
        self,
        action: str,
        resource: tuple[str, str],
        properties: Mapping[str, Property] | None = None,
        *,
        reason: str,
        ttl: timedelta | int = HOUR,
        on_behalf_of: str | None = None,
        run: str | None = None,
        ticket: str | None = None,
        idempotency_key: str | None = None,
        since: datetime | None = None,
        timeout: timedelta | float | None = None,
        withdraw_on_cancel: bool = False,
    ) -> Outcome:
        """Submit and wait: `submit(…)`, then `wait(…)`."""
        work = self._client.ask(
            action,
            resource,
            properties,
            reason=reason,
            ttl=ttl,
            on_behalf_of=on_behalf_of,
            run=run,
            ticket=ticket,
            idempotency_key=idempotency_key,
            since=since,
            timeout=timeout,
            withdraw_on_cancel=withdraw_on_cancel,
        )
        with self._own():
            return self._loop.run(work)

    @contextmanager
    def _own(self) -> Iterator[None]:
        """An error's intent is one to be used without await, too."""
        try:
            yield
        except NoConnectionError as exc:
            if isinstance(exc.intent, AsyncIntent):
                exc.intent = Intent(exc.intent, self._loop)
            raise

    def intent(self, intent_id: str) -> Intent:
        """An intent that was submitted before, by whichever process: wait for it, look at it, take it back."""
        return Intent(self._client.intent(intent_id), self._loop)

    def check(
        self,
        action: str,
        resource: tuple[str, str],
        properties: Mapping[str, Property] | None = None,
        *,
        reason: str = "checking",
        ttl: timedelta | int = HOUR,
    ) -> Check:
        """What policy would say. Nothing is submitted. Only the gateway can tell."""
        return self._loop.run(self._client.check(action, resource, properties, reason=reason, ttl=ttl))

    def actions(self) -> tuple[ActionOffer, ...]:
        """What executors offer, with the JSON Schema of each action's properties. Only the gateway can tell."""
        return self._loop.run(self._client.actions())


def _gone() -> ClosedError:
    return ClosedError("this client is closed, or was made before a fork: connect() anew in this process")


async def _end_others() -> None:
    """Let what was told to end do so; what doesn't in time is cancelled."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, late = await asyncio.wait(others, timeout=ENDING_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=ENDING_SECONDS)


async def _next(events: AsyncGenerator[Status, None]) -> Status | object:
    return await anext(events, _ENDED)


async def _close(events: AsyncGenerator[Status, None]) -> None:
    await events.aclose()
