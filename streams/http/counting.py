"""How many requests a door answers, how, and how long each takes. Routes are counted, never what was asked for."""

import time
from typing import Final

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.metrics import SECONDS

REQUESTS: Final = Histogram(
    "keyturn_http_request_seconds",
    "From a request's head to its answer's.",
    ["method", "route", "status"],
    buckets=(*SECONDS, 30, 60),
)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


class Counted:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, and look when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The router has put the route there by now; a path that is none is not a label.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in METHODS else "other"
                REQUESTS.labels(method, route, str(message["status"])).observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, counted)
