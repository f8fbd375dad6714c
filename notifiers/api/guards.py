"""What stands between the socket and the routes: a cap on bodies, headers that say no, a log without secrets."""

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifiers import visible
from notifiers.api.problems import Kind, ProblemError

log = logging.getLogger("keyturn.api.access")

MAX_BODY: Final = 16 * 1024
"""No request needs more: a decision is a verdict, a digest and a reason."""
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


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
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

        async def receive_capped() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                raise too_large()
            return message

        declared = Headers(scope=scope).get("content-length", "0")
        try:
            if not declared.isascii() or not declared.isdigit() or int(declared[:12]) > MAX_BODY:
                await too_large().response()(scope, receive, send_guarded)
            else:
                await self._app(scope, receive_capped, send_guarded)
        finally:
            # No query, no headers, no body: tokens and reasons stay out of logs.
            log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": visible.identifier(scope["path"], _MAX_PATH),
                    "status": status,
                    "milliseconds": round(1000 * (self._monotonic() - began)),
                },
            )


def too_large() -> ProblemError:
    """The body is longer than anything this API takes."""
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Kind.TOO_LARGE, f"a request body has at most {MAX_BODY} bytes"
    )
