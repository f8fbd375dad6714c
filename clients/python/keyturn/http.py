"""To Keyturn's gateway over HTTP.

The laws:
1. A credential goes to the one host that was configured, and nowhere else: no redirect and no link is followed, and
over    plain HTTP to this machine alone, past no proxy.
2. Nothing that comes back is believed beyond its bounds: size, time, the id and digest that are ours.
3. Sending again is safe, because an intent's id pins its body: what may have been lost is sent again.
"""

import asyncio
import copy
import json
import logging
import re
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from random import random
from typing import Final

import httpx

from keyturn import answers, ids
from keyturn.answers import EventStream, Problem
from keyturn.canonical import Json
from keyturn.errors import (
    AnswerError,
    ConfigurationError,
    KeyturnError,
    NoConnectionError,
    NotAllowedError,
    UnknownIntentError,
)
from keyturn.intents import Sealed, Unsigned
from keyturn.outcomes import Status
from keyturn.transport import ActionOffer, Check, Submitted

_log = logging.getLogger("keyturn")

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 60.0
"""A stream without a byte for so long is taken for dead; the gateway says something every half a minute."""
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
PATIENCE_SECONDS: Final = 30.0
"""How long sending is tried."""
SEALED: Final = "application/vnd.{}+json"

_NO_STREAM_NOW: Final = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS}
"""Others wait too: then the status is asked for instead."""

MAX_PORT: Final = 65535
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

Token = Callable[[], Awaitable[str]]
"""Gives the bearer token to use now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body, bounded."""

    status: int
    body: bytes
    retry_after: float | None = None


class HttpTransport:
    """Speaks to one gateway."""

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        authority: ssl.SSLContext | None = None,
        patience: float = PATIENCE_SECONDS,
        quiet: float = QUIET_SECONDS,
    ) -> None:
        """`patience`: seconds for which sending is tried again; `quiet`: after which a silent stream is opened anew."""
        self._base = base_of(url)
        self._token = token
        self._patience = patience
        self._quiet = quiet
        self._watchers: dict[str, set[_Watcher]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._is_live = False
        self._failed: KeyturnError | None = None
        self._client = httpx.AsyncClient(
            base_url=self._base,
            follow_redirects=False,  # law 1
            trust_env=self._base.scheme == "https",  # law 1: a proxy would see what is not encrypted
            verify=authority or True,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            # Undecoded, so that a small answer cannot unpack into a large one.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def start(self) -> None:
        """Nothing to do: connections are made as they are needed."""

    async def aclose(self) -> None:
        """Close every connection."""
        await self._stop_listening()
        await self._client.aclose()

    # ---------------------------------------------------------------- saying

    async def submit(self, asked: Sealed | Unsigned, traceparent: str | None) -> Submitted:
        """POST /v1/intents, again and again while nobody answers."""
        headers, content = _said(asked)
        if traceparent:
            headers["traceparent"] = traceparent
        intent_id = asked.intent if isinstance(asked, Sealed) else None
        answer = await self._persist(
            "POST", "/v1/intents", headers, content, intent_id, is_signed=intent_id is not None
        )
        if answer.status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
            return _refused(answer, intent_id)
        members = answers.members_of(answer.body, "the answer to the intent")
        if isinstance(asked, Sealed):
            if (members.get("id"), members.get("digest")) != (asked.intent, asked.digest):
                raise AnswerError(
                    f"the gateway acknowledged another intent than {asked.intent}: nothing it says is believed"
                )
            return Submitted(asked.intent)
        made = members.get("id")
        if not isinstance(made, str):
            raise AnswerError("the gateway did not say which id the intent got")
        _require_id(made)
        return Submitted(made)

    async def withdraw(self, intent_id: str, said: Sealed | None, reason: str | None) -> None:
        """POST /v1/intents/{id}/withdraw."""
        path = f"{_path(intent_id)}/withdraw"
        if said is not None:
            headers, content = _said(said)
        else:
            headers, content = {"Content-Type": "application/json"}, json.dumps({"reason": reason or ""}).encode()
        answer = await self._persist("POST", path, headers, content, intent_id, is_signed=said is not None)
        # A conflict: it has ended already, and wait() says how.
        if answer.status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT}:
            raise _error(answers.problem_of(answer.status, answer.body), intent_id)

    # ---------------------------------------------------------------- asking

    async def status(self, intent_id: str) -> Status | None:
        """GET /v1/intents/{id}."""
        answer = await self._persist("GET", _path(intent_id), {}, None, intent_id)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK:
            raise _error(answers.problem_of(answer.status, answer.body), intent_id)
        found = answers.status_of(answers.members_of(answer.body, "the status"))
        if found.intent != intent_id:
            raise AnswerError(f"asked about {intent_id}, answered about {found.intent!a}")
        return found

    async def watch(self, intent_id: str) -> AsyncGenerator[Status, None]:
        """What the shared stream says of this intent; whenever that may have missed something, the status is asked
        for.
        """
        watcher = _Watcher()
        self._watchers.setdefault(intent_id, set()).add(watcher)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="keyturn events")
        last: Status | None = None
        pauses = _Pauses()
        try:
            while True:
                for status in await self._news(intent_id, watcher):
                    if _is_news(status, last):
                        pauses = _Pauses()
                        yield (last := status)
                # Looked at now and then, whatever the stream says: a proxy on the way may keep it back.
                await watcher.woken(self._quiet if self._is_live and last is not None else pauses.next())
        finally:
            self._watchers[intent_id].discard(watcher)
            if not self._watchers[intent_id]:
                del self._watchers[intent_id]
            if not self._watchers:
                await self._stop_listening()

    async def _news(self, intent_id: str, watcher: "_Watcher") -> list[Status]:
        if self._failed is not None:
            raise copy.copy(self._failed) from self._failed  # each who waits gets one of their own
        heard = watcher.taken()
        if watcher.must_look:
            watcher.must_look = False
            try:
                now = await self.status(intent_id)
            except NoConnectionError as exc:
                _log.warning("%s: %s; it is tried again", intent_id, exc)
                watcher.must_look = True
            else:
                heard += [now] if now is not None else []
        return heard

    async def _listen(self) -> None:
        """One stream of everything that happens to this requester's intents, opened anew as often as it ends."""
        last_id: str | None = None
        pauses = _Pauses()
        while True:
            stream = EventStream(last_id)
            try:
                async with aclosing(self._events(stream)) as events:
                    async for status in events:
                        pauses = _Pauses()
                        for watcher in self._watchers.get(status.intent, ()):
                            watcher.tell(status)
            except NoConnectionError as exc:
                _log.info("%s; it is opened again", exc)
            except KeyturnError as exc:
                self._failed = exc
            finally:
                # Whatever ended it: who waits looks for itself.
                self._is_live = False
                self._wake()
            if self._failed is not None:
                return
            last_id = stream.last_id
            await asyncio.sleep(pauses.next())

    def _wake(self) -> None:
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.look()

    async def _stop_listening(self) -> None:
        listening, self._listening, self._failed, self._is_live = self._listening, None, None, False
        if listening is not None:
            listening.cancel()
            await asyncio.wait({listening})

    async def _events(self, stream: EventStream) -> AsyncGenerator[Status, None]:
        """One connection's events; ends when it does."""
        headers = await self._authorized({"Accept": "text/event-stream"})
        if stream.last_id is not None:
            headers["Last-Event-ID"] = stream.last_id
        timeout = httpx.Timeout(self._quiet, connect=CONNECT_SECONDS)
        try:
            async with self._client.stream("GET", "/v1/events", headers=headers, timeout=timeout) as answer:
                _require_no_redirect(answer)
                if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status_code in _NO_STREAM_NOW:
                    return
                if answer.status_code != HTTPStatus.OK:
                    raise _error(answers.problem_of(answer.status_code, await _bounded(answer)), None)
                if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                    raise AnswerError("what came back is no event stream; is this the URL of a Keyturn gateway?")
                self._is_live = True
                self._wake()  # for what happened before this stream began
                async for chunk in answer.aiter_raw():
                    for data in stream.feed(chunk):
                        yield answers.status_of(answers.members_of(data, "an event"))
        except httpx.TimeoutException:
            return
        except httpx.TransportError as exc:
            raise NoConnectionError(f"the stream from {self._base} was lost ({_why(exc)})") from exc

    async def check(self, members: Mapping[str, Json], asked: Sealed | None) -> Check:
        """POST /v1/check."""
        if asked is not None:
            headers, content = _said(asked)
        else:
            headers, content = {"Content-Type": "application/json"}, json.dumps(members).encode()
        answer = await self._persist("POST", "/v1/check", headers, content, None)
        if answer.status != HTTPStatus.OK:
            problem = answers.problem_of(answer.status, answer.body)
            if problem.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                return Check("refused", errors=problem.errors, caveats=(problem.detail,))
            raise _error(problem, None)
        return answers.check_of(answers.members_of(answer.body, "the check"))

    async def actions(self) -> tuple[ActionOffer, ...]:
        """GET /v1/actions."""
        answer = await self._persist("GET", "/v1/actions", {}, None, None)
        if answer.status != HTTPStatus.OK:
            raise _error(answers.problem_of(answer.status, answer.body), None)
        return answers.actions_of(answers.members_of(answer.body, "the list of actions"))

    # ---------------------------------------------------------------- one request

    async def _persist(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | None,
        intent_id: str | None,
        *,
        is_signed: bool = False,
    ) -> Answer:
        """One request, sent again while nobody answers and patience lasts (law 3)."""
        deadline = time.monotonic() + self._patience
        pauses = _Pauses()
        while True:
            pause: float
            try:
                # A signature is all that submitting needs: a token would be one more thing to lose.
                sent = dict(headers) if is_signed else await self._authorized(headers)
                answer = await self._once(method, path, sent, content)
            except NoConnectionError as exc:
                failure, pause = exc, pauses.next()
            else:
                is_busy = answer.status == HTTPStatus.TOO_MANY_REQUESTS
                if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and not is_busy:
                    return answer
                said = answers.problem_of(answer.status, answer.body).detail
                failure = NoConnectionError(f"{self._base} answers {answer.status}: {said}")
                pause = max(pauses.next(), answer.retry_after or 0)
            if time.monotonic() + pause > deadline:
                about = f" {intent_id} may have arrived or not: the same again is safe." if intent_id else ""
                raise NoConnectionError(f"{failure}; tried for {self._patience:.0f} s.{about}", intent_id) from failure
            await asyncio.sleep(pause)

    async def _once(self, method: str, path: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        try:
            # Over all of it: a server that sends a byte a second would else hold us for ever.
            async with asyncio.timeout(ANSWER_SECONDS):
                async with self._client.stream(method, path, headers=dict(headers), content=content) as answer:
                    _require_no_redirect(answer)
                    return Answer(answer.status_code, await _bounded(answer), _retry_after(answer))
        except (httpx.TransportError, TimeoutError) as exc:
            raise NoConnectionError(
                f"no answer from {self._base} ({_why(exc)}): check that the gateway runs and the URL is right"
            ) from exc

    async def _authorized(self, headers: Mapping[str, str]) -> dict[str, str]:
        token: object = await self._token()  # what a caller's function gave
        # httpx would quote what it cannot send.
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ConfigurationError(
                "the token is no bearer token: it is empty, or holds a blank, a line's end or what is not ASCII. "
                "If it comes from a file, strip() it"
            )
        return {**headers, "Authorization": f"Bearer {token}"}


@dataclass(eq=False)
class _Watcher:
    """One who waits for news of one intent."""

    must_look: bool = True
    _heard: list[Status] = field(default_factory=list)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, status: Status) -> None:
        self._heard.append(status)
        self._woken.set()

    def look(self) -> None:
        self.must_look = True
        self._woken.set()

    def taken(self) -> list[Status]:
        heard, self._heard = self._heard, []
        self._woken.clear()
        return heard

    async def woken(self, within: float) -> None:
        """Until there is something to hear, or it is time to look."""
        try:
            async with asyncio.timeout(within):
                await self._woken.wait()
        except TimeoutError:
            self.must_look = True


class _Pauses:
    """Longer and longer, and never two clients in step."""

    def __init__(self) -> None:
        self._length = FIRST_PAUSE

    def next(self) -> float:
        length, self._length = self._length, min(self._length * 2, LONGEST_PAUSE)
        return length * (0.5 + random() / 2)  # noqa: S311 - to spread, not to hide


def _is_news(status: Status, last: Status | None) -> bool:
    """What was asked for and what was heard may overtake each other: Kafka's clock says which is newer."""
    if last is None:
        return True
    if last.phase.is_final and not status.phase.is_final:
        return False
    return status != last and (status.at or 0) >= (last.at or 0)


def base_of(url: str) -> httpx.URL:
    """The base URL; ConfigurationError for one that would send a credential in the clear, or hold one."""
    try:
        base = httpx.URL(url.rstrip("/") + "/")
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError(f"{_shown(url)!r} is no URL: a gateway's is https://keyturn.example.com") from None
    if base.scheme not in {"http", "https"} or not base.host:
        raise ConfigurationError(f"{_shown(url)!r} is not the URL of a gateway: https://keyturn.example.com")
    if base.port is not None and not 0 < base.port <= MAX_PORT:
        raise ConfigurationError(f"{_shown(url)!r}: a port is 1 to {MAX_PORT}")
    if base.userinfo or base.query or base.fragment:
        raise ConfigurationError("a gateway's URL holds no password, query or fragment: give key= or token= instead")
    if base.scheme == "http" and not _is_this_machine(base.host):
        raise ConfigurationError(
            f"{url}: plain HTTP is for this machine alone, as tokens would cross the network: use https://"
        )
    return base


def _shown(url: str) -> str:
    """A URL without the password or query that it should not hold."""
    return re.sub(r"[?#].*", "?…", re.sub(r".*@", "…@", url, flags=re.DOTALL), flags=re.DOTALL)


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(asked: Sealed | Unsigned) -> tuple[dict[str, str], bytes]:
    if isinstance(asked, Unsigned):
        headers = {"Content-Type": "application/json", "Idempotency-Key": asked.idempotency_key}
        return headers, json.dumps(asked.members).encode()
    headers = {"Content-Type": SEALED.format(asked.type), "Keyturn-Keyid": asked.keyid, "Keyturn-Sig": asked.sig}
    return headers, asked.value


def _refused(answer: Answer, intent_id: str | None) -> Submitted:
    problem = answers.problem_of(answer.status, answer.body)
    refusals = {
        HTTPStatus.CONFLICT,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    }
    if problem.status in refusals:
        about = intent_id or ""
        return Submitted(about, problem.refused(about))
    raise _error(problem, intent_id)


def _error(problem: Problem, intent_id: str | None) -> KeyturnError:
    match problem.status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return NotAllowedError(
                f"the gateway does not accept who asks: {problem.detail or problem.status}. Check that this "
                "agent's key is "
                "in the directory (`keyturn directory show`), the realm, and this machine's clock; or the token."
            )
        case HTTPStatus.NOT_FOUND:
            return UnknownIntentError(f"the gateway knows nothing of {intent_id or 'that'}: {problem.detail}")
        case _:
            return AnswerError(f"the gateway answers {problem.status}: {problem.detail}")


def _require_no_redirect(answer: httpx.Response) -> None:
    if 300 <= answer.status_code < 400:  # noqa: PLR2004 - a class of statuses
        where = answer.headers.get("location", "nowhere")[:200]
        raise AnswerError(
            f"the gateway sends us on to {where!a}, and a credential goes to no other host: if that is where it "
            "lives now, "
            "connect() to it"
        )


async def _bounded(answer: httpx.Response) -> bytes:
    """The body; AnswerError as soon as it is larger than any of ours."""
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > answers.MAX_ANSWER:
            raise AnswerError(
                f"an answer of more than {answers.MAX_ANSWER} bytes; is this the URL of a Keyturn gateway?"
            )
    return bytes(body)


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return min(float(text), LONGEST_PAUSE) if text.isascii() and text.isdigit() else None


def _path(intent_id: str) -> str:
    _require_id(intent_id)
    return f"/v1/intents/{intent_id}"


def _require_id(intent_id: str) -> None:
    """Nothing but an id goes into a path."""
    try:
        ids.split(intent_id)
    except ids.IntentIdError as exc:
        raise UnknownIntentError(str(exc)) from None


def _why(exc: BaseException) -> str:
    text = str(exc) or type(exc).__name__
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return f"{text}; no TLS is spoken there: http:// on this machine, or the port that does"
    return text
