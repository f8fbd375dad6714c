"""What an agent's author holds: a client, and an intent of it. Asynchronous; `keyturn.blocking` is the same without
await.

An intent is said once, pinned by its id, and lives on Keyturn's log: a process that waits for it may die, and another
one waits on. Nothing that happens here takes it back, but `withdraw()` and `wait(withdraw_on_cancel=True)`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Protocol, Self

from keyturn import ids, intents, tracing
from keyturn.canonical import Json, encode
from keyturn.errors import (
    ClosedError,
    ConfigurationError,
    FieldError,
    KeyturnError,
    NoConnectionError,
    ParametersError,
    StillOpenError,
    UnknownIntentError,
)
from keyturn.intents import Draft, Property, Sealed, Unsigned
from keyturn.outcomes import Outcome, Phase, Refused, Status, Unknown
from keyturn.signing import Signer
from keyturn.transport import ActionOffer, Check, Transport

_log = logging.getLogger("keyturn")

HOUR: Final = timedelta(hours=1)
FIRST_WORD_SECONDS: Final = 30.0
"""Within this something is usually heard of an intent; when not, a warning says what to check."""
OVERDUE_SECONDS: Final = 120.0
"""An intent of which nothing was heard for its whole ttl and this long will not be heard of."""
WITHDRAW_SECONDS: Final = 10.0


class Author(Protocol):
    """Who asks: makes what is sent out of what is wanted."""

    def ask(self, draft: Draft, idempotency_key: str | None, since: datetime | None) -> Sealed | Unsigned:
        """The intent, signed if we can."""
        ...

    def take_back(self, intent_id: str, reason: str | None) -> Sealed | None:
        """The withdrawal, if we can sign one."""
        ...


@dataclass(frozen=True)
class SigningAuthor:
    """An agent with a key of its own."""

    agent: str
    realm: str
    signer: Signer
    ids: ids.IdMaker
    #: Unix milliseconds.
    clock: Callable[[], int]

    def ask(self, draft: Draft, idempotency_key: str | None, since: datetime | None) -> Sealed:
        """The intent with a fresh id, or with the one that this key, moment and body always give."""
        if idempotency_key is None or since is None:
            members, intent_id = draft.members(), self.ids.next()
        else:
            # The trace of this try is another than that of the last: it would be another body.
            members = intents.without_trace(draft.members())
            intent_id = self._derived(idempotency_key, since, members)
        value = intents.intent_bytes(intent_id, self.agent, members)
        return intents.seal("intent", intent_id, value, self.signer, self.realm)

    def take_back(self, intent_id: str, reason: str | None) -> Sealed:
        """The signed withdrawal."""
        value = intents.withdrawal_bytes(intent_id, self.agent, reason)
        return intents.seal("withdrawal", intent_id, value, self.signer, self.realm)

    def _derived(self, key: str, since: datetime, members: Mapping[str, Json]) -> str:
        try:
            age = timedelta(milliseconds=self.clock() - ids.milliseconds(since))
        except ids.IntentIdError as exc:
            raise ParametersError([FieldError("/since", str(exc))]) from None
        made = ids.derived(self.agent, key, since, encode(members))
        if not -ids.NEWEST <= age <= ids.OLDEST:
            raise ParametersError(
                [
                    FieldError(
                        "/since",
                        f"{since.isoformat()} is outside the window in which Keyturn accepts an id (24 h back, 5 "
                        "min ahead); the "
                        f"intent it gave would be {made}: client.intent({made!r}) says what became of it",
                    )
                ]
            )
        return made


@dataclass(frozen=True)
class BearerAuthor:
    """Whoever the token is about; the gateway makes the intent, and its id, and signs."""

    keys: Callable[[], str]

    def ask(self, draft: Draft, idempotency_key: str | None, since: datetime | None) -> Unsigned:
        """The wish, with a key that makes a repeat safe."""
        del since
        if draft.on_behalf_of is not None:
            text = "only an agent with a key says for whom it acts; the gateway believes the token alone: leave it out"
            raise ParametersError([FieldError("/context/on_behalf_of", text)])
        return Unsigned(draft.members(), idempotency_key or self.keys())

    def take_back(self, intent_id: str, reason: str | None) -> None:
        """The gateway signs."""


@dataclass
class AsyncIntent:
    """One intent, wherever it was submitted. Made by `AsyncClient.submit` and `AsyncClient.intent`."""

    id: str
    _client: "AsyncClient" = field(repr=False)
    #: What was sent, if it was sent from here.
    _asked: Sealed | Unsigned | None = field(default=None, repr=False)
    _refused: Refused | None = field(default=None, repr=False)
    _ttl: int | None = field(default=None, repr=False)

    async def wait(
        self,
        timeout: timedelta | float | None = None,  # noqa: ASYNC109 - ends the waiting, not the intent
        *,
        until_known: bool = False,
        withdraw_on_cancel: bool = False,
    ) -> Outcome:
        """Wait for what becomes of it, through lost connections and restarts of Keyturn.

        `timeout` (seconds) ends the waiting with StillOpenError, and not the intent: its `ttl` does that. Cancelling
        the waiting task takes nothing back either, unless `withdraw_on_cancel`. `until_known` waits on through
        Unknown, until people have found out.
        """
        try:
            return await self._wait(_seconds(timeout), until_known=until_known)
        except asyncio.CancelledError:
            if withdraw_on_cancel:
                await _finish(self.withdraw("whoever asked for it stopped waiting"))
            raise

    async def _wait(self, seconds: float | None, *, until_known: bool) -> Outcome:
        last: Status | None = None
        limit = asyncio.timeout(seconds)
        try:
            async with limit, aclosing(self._statuses()) as statuses:
                async for last in statuses:
                    outcome = last.outcome
                    if outcome is not None and not (until_known and isinstance(outcome, Unknown)):
                        return outcome
        except TimeoutError:
            if not limit.expired():
                raise
            raise StillOpenError(self.id, last) from None
        raise AssertionError("a watch does not end by itself")

    async def events(self) -> AsyncGenerator[Status, None]:
        """Where it stands, now and at every change; ends with its end.

        Phases that pass too quickly to be seen may be left out.
        """
        async with aclosing(self._statuses()) as statuses:
            async for status in statuses:
                yield status
                if status.phase.is_final:
                    return

    async def status(self) -> Status:
        """Where it stands. UnknownIntentError when Keyturn has not heard of it."""
        if self._refused is not None:
            return self._client.refusal_status(self._refused)
        with self._client.open(self.id):
            found = await self._client.transport.status(self.id)
            if found is None:
                raise self._unheard()
            return found

    async def withdraw(self, reason: str | None = None) -> None:
        """Take it back. It counts unless the executor has begun: wait() says what became of it."""
        if self._refused is not None:
            return
        with self._client.open(self.id):
            await self._client.transport.withdraw(self.id, self._client.author.take_back(self.id, reason), reason)

    async def resend(self, traceparent: str | None = None) -> None:
        """Send the same bytes again, after a NoConnectionError: its id pins its body, so it can't be done twice."""
        if self._asked is None:
            raise ConfigurationError(
                f"{self.id} was not submitted from here: submit it again with the same idempotency_key"
            )
        with self._client.open(self.id or None):
            submitted = await self._client.transport.submit(self._asked, traceparent)
        self.id, self._refused = submitted.intent, submitted.refused

    async def _statuses(self) -> AsyncGenerator[Status, None]:
        """The transport's, with an end to silence."""
        if self._refused is not None:
            yield self._client.refusal_status(self._refused)
            return
        async with aclosing(self._client.transport.watch(self.id)) as watch:
            with self._client.open(self.id):
                status: Status | None = await self._first(watch)
            while status is not None:
                yield status
                # Not around the yield: closing ends a wait, and not what the caller does between two.
                with self._client.open(self.id):
                    status = await anext(watch, None)

    async def _first(self, watch: AsyncIterator[Status]) -> Status:
        """The first word, if it comes in time."""
        patience = FIRST_WORD_SECONDS if self._ttl is None else self._ttl + OVERDUE_SECONDS
        text = "%s: nothing was heard of it for %.0f s; %s"
        warning = asyncio.get_running_loop().call_later(
            FIRST_WORD_SECONDS, _log.warning, text, self.id, FIRST_WORD_SECONDS, _WHY_SILENT
        )
        limit = asyncio.timeout(patience)
        try:
            async with limit:
                return await anext(watch)
        except TimeoutError:
            if not limit.expired():
                raise
            # Silence is not ignorance: when nobody can be reached, this says so.
            found = await self._client.transport.status(self.id)
            if found is None:
                raise self._unheard() from None
            return found
        finally:
            warning.cancel()

    def _unheard(self) -> UnknownIntentError:
        return UnknownIntentError(f"nothing was heard of {self.id}: {_WHY_SILENT}")


_WHY_SILENT: Final = (
    "check the realm, that this agent's key is in the directory (`keyturn directory show`), that the id is less "
    "than a day old, and that intake and core run"
)


class AsyncClient:
    """Asks Keyturn, in the name of one agent. `async with`; made by `keyturn.connect_async`."""

    def __init__(self, transport: Transport, author: Author) -> None:
        self.transport = transport
        self.author = author
        self._is_closed = False
        self._waiting: set[asyncio.Task[object]] = set()

    @contextmanager
    def open(self, intent_id: str | None) -> Iterator[None]:
        """While something is waited for: closing ends it with ClosedError, and every error carries the intent's id."""
        task = asyncio.current_task()
        try:
            if self._is_closed or task is None:
                raise _closed(intent_id)
            self._waiting.add(task)
            try:
                yield
            except asyncio.CancelledError:
                if task in self._waiting:
                    raise
                # Ours, by aclose(): not a cancellation of whoever waits, so nothing is withdrawn.
                task.uncancel()
                raise _closed(intent_id) from None
            finally:
                self._waiting.discard(task)
        except KeyturnError as exc:
            exc.intent_id = exc.intent_id or intent_id
            raise

    async def __aenter__(self) -> Self:
        await self.transport.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connections. Nothing is withdrawn; whoever still waits gets ClosedError."""
        self._is_closed = True
        waiting, self._waiting = self._waiting - {asyncio.current_task()}, set()
        for task in waiting:
            task.cancel()
        await self.transport.aclose()

    async def submit(
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
    ) -> AsyncIntent:
        """Sign an intent and submit it; when this returns it is durable. ParametersError names what can never be one.

        `action` is what is to be done (`s3.export`), `resource` on what (`("bucket", "acme-customers")`),
        `properties` how, `reason` why, for the people who decide. Who hasn't decided within `ttl` decides no more.

        With `idempotency_key` and `since` (when your work began) the same call gives the same intent again, in this
        process or in one that was started anew: up to 24 hours after `since`, as Keyturn accepts no older id. Another
        body gives another intent.
        """
        trace = tracing.traceparent()
        draft = Draft(action, resource, properties or {}, reason, ttl, on_behalf_of, run, ticket, trace)
        if (idempotency_key is None) != (since is None):
            raise ParametersError(
                [FieldError("/since", "idempotency_key and since (when your work began) go together")]
            )
        asked = self.author.ask(draft, idempotency_key, since)
        known = asked.intent if isinstance(asked, Sealed) else ""
        intent = AsyncIntent(known, self, asked, None, draft.seconds)
        try:
            await intent.resend(trace)
        except NoConnectionError as exc:
            exc.intent = intent
            raise
        return intent

    async def ask(
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
        timeout: timedelta | float | None = None,  # noqa: ASYNC109 - ends the waiting, not the intent
        withdraw_on_cancel: bool = False,
    ) -> Outcome:
        """Submit and wait: `submit(…)`, then `wait(…)`."""
        intent = await self.submit(
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
        return await intent.wait(timeout, withdraw_on_cancel=withdraw_on_cancel)

    def intent(self, intent_id: str) -> AsyncIntent:
        """An intent that was submitted before, by whichever process: wait for it, look at it, take it back."""
        try:
            ids.split(intent_id)
        except ids.IntentIdError as exc:
            raise ParametersError([FieldError("/id", str(exc))]) from None
        return AsyncIntent(intent_id, self)

    async def check(
        self,
        action: str,
        resource: tuple[str, str],
        properties: Mapping[str, Property] | None = None,
        *,
        reason: str = "checking",
        ttl: timedelta | int = HOUR,
    ) -> Check:
        """What policy would say. Nothing is submitted. Only the gateway can tell."""
        draft = Draft(action, resource, properties or {}, reason, ttl)
        asked = self.author.ask(draft, None, None)
        with self.open(None):
            return await self.transport.check(draft.members(), asked if isinstance(asked, Sealed) else None)

    async def actions(self) -> tuple[ActionOffer, ...]:
        """What executors offer, with the JSON Schema of each action's properties. Only the gateway can tell."""
        with self.open(None):
            return await self.transport.actions()

    @staticmethod
    def refusal_status(refused: Refused) -> Status:
        """The status of what was refused at the door, and is on no log."""
        return Status(refused.intent, Phase.REFUSED, refused.reason, refused.refusal, refused.at, errors=refused.errors)


def _closed(intent_id: str | None) -> ClosedError:
    about = f" {intent_id} goes on without it: client.intent({intent_id!r}) of a new one waits on." if intent_id else ""
    return ClosedError(f"this client is closed, nothing was withdrawn: connect() anew.{about}")


async def _finish(last: Awaitable[None]) -> None:
    """A last word that a second cancellation does not cut short; when it can't be said in time, that is said."""
    task = asyncio.ensure_future(last)
    try:
        async with asyncio.timeout(WITHDRAW_SECONDS):
            await asyncio.shield(task)
    except (KeyturnError, TimeoutError) as exc:
        _log.warning("the intent could not be withdrawn: %r", exc)
    finally:
        task.cancel()


def _seconds(timeout: timedelta | float | None) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
