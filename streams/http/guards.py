"""What stands between the socket and the routes: a cap on bodies, headers that say no, a log without secrets."""

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.http.problems import Kind, ProblemError

log = logging.getLogger("keyturn.api.access")

MAX_BODY: Final = 16 * 1024
"""No decision needs more: a verdict, a digest and a reason."""
BODY_SECONDS: Final = 10.0
"""How long a body may take to come in."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_MAX_PATH: Final = 200
_MAX_DIGITS: Final = 12
_CLOSE: Final = {"Connection": "close"}
"""What is still to come of this body is not read: the connection cannot go on."""


class Guard:
    """Wraps the application."""

    def __init__(
        self,
        app: ASGIApp,
        monotonic: Callable[[], float] = time.monotonic,
        max_body: int = MAX_BODY,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._body_seconds = body_seconds
        self._monotonic = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request: its headers set, its body capped, its line in the log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._monotonic()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        received = 0
        is_whole = False

        async def receive_capped() -> Message:
            nonlocal received, is_whole
            if is_whole:  # nothing but the end of the connection is still to come
                return await receive()
            try:
                async with asyncio.timeout(began + self._body_seconds - self._monotonic()):
                    message = await receive()
            except TimeoutError:
                raise _too_slow(self._body_seconds) from None
            is_whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._max_body:
                raise too_large(self._max_body)
            return message

        problem = _unacceptable(scope["method"], Headers(scope=scope), self._max_body)
        try:
            if problem is not None:
                await problem.response()(scope, receive, send_guarded)
            else:
                await self._app(scope, receive_capped, send_guarded)
        finally:
            # No query, no headers, no body: tokens and reasons stay out of logs.
            log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": ascii(scope["path"])[1:-1][:_MAX_PATH],
                    "status": status,
                    "milliseconds": round(1000 * (self._monotonic() - began)),
                },
            )


def _unacceptable(method: str, headers: Headers, max_body: int) -> ProblemError | None:
    """What is wrong with a request that can be seen from its head."""
    declared = headers.get("content-length", "0")
    is_chunked = "transfer-encoding" in headers
    if "content-length" in headers and is_chunked:
        # RFC 9112, 6.1: two lengths are how a request is smuggled past whoever reads the other one.
        return _two_lengths()
    # Of this many digits at most, leading zeros included: what is read of it must be all of it.
    if not declared.isascii() or not declared.isdigit() or len(declared) > _MAX_DIGITS or int(declared) > max_body:
        return too_large(max_body)
    if method in {"GET", "HEAD"} and (is_chunked or int(declared)):
        # RFC 9110, 9.3.1: it means nothing. A stream would find out that it never ends after it has begun.
        return _no_body()
    return None


def too_large(most: int) -> ProblemError:
    """The body is longer than anything this door takes."""
    detail = f"a request body has at most {most} bytes"
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Kind.TOO_LARGE, detail, headers=_CLOSE)


def _two_lengths() -> ProblemError:
    detail = "send Content-Length or Transfer-Encoding, not both"
    return ProblemError(HTTPStatus.BAD_REQUEST, Kind.MALFORMED, detail, headers=_CLOSE)


def _no_body() -> ProblemError:
    detail = "a GET has no body: leave it out"
    return ProblemError(HTTPStatus.BAD_REQUEST, Kind.MALFORMED, detail, headers=_CLOSE)


def _too_slow(seconds: float) -> ProblemError:
    detail = f"the body did not come within {seconds:g} s: send it at once"
    return ProblemError(HTTPStatus.REQUEST_TIMEOUT, Kind.TOO_SLOW, detail, headers=_CLOSE)
