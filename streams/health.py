"""`/livez`: the loop turns. `/readyz`: the role serves; if not, it says what it waits for. `/metrics`: its counts."""

import asyncio
import contextlib
import json
from typing import Final, Self

from streams import metrics

MAX_REQUEST: Final = 4096
TIMEOUT_SECONDS: Final = 2
JSON: Final = "application/json"


class Health:
    """A role's state, and the tiny HTTP/1.0 server that shows it. `async with`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """`port` 0 takes a free one; see `port`. It answers whoever reaches `host`: nothing it says is secret."""
        self._host = host
        self._wanted = port
        self._server: asyncio.Server | None = None
        self._waiting: dict[str, str] = {"start": "starting"}
        self.port = port

    def starts(self) -> None:
        """Not ready until the role says what it needs, or has."""
        self._waiting = {"start": "starting"}

    def waits_for(self, what: str, why: str) -> None:
        """Not ready while `what` is on the list."""
        self._waiting[what] = why
        self._waiting.pop("start", None)

    def has(self, what: str) -> None:
        """`what` is there now."""
        self._waiting.pop(what, None)
        self._waiting.pop("start", None)

    @property
    def is_ready(self) -> bool:
        """Whether nothing is waited for."""
        return not self._waiting

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, self._host, self._wanted, limit=MAX_REQUEST)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                request = await reader.readuntil(b"\r\n")
                while (await reader.readuntil(b"\r\n")) != b"\r\n":
                    pass
                status, kind, body = self._page(request)
                head = (
                    f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n"
                )
                writer.write(head.encode() + (b"" if request.startswith(b"HEAD ") else body))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _page(self, request: bytes) -> tuple[str, str, bytes]:
        match request.split(b" ")[:2]:
            case [b"GET" | b"HEAD", b"/livez"]:
                return "200 OK", JSON, b'{"live":true}'
            case [b"GET" | b"HEAD", b"/readyz"]:
                body = json.dumps({"ready": self.is_ready, "waiting_for": self._waiting}).encode()
                return ("200 OK" if self.is_ready else "503 Service Unavailable"), JSON, body
            case [b"GET" | b"HEAD", b"/metrics"]:
                return "200 OK", metrics.TYPE, metrics.page()
            case _:
                return "404 Not Found", JSON, b"{}"
