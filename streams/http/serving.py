"""uvicorn inside a process that has signals of its own, and says when and where it listens.

A connection is nobody's for ever: who sends no whole request in time, or does not read what is sent, is cut off.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from streams.http.settings import DoorSettings

GRACE_SECONDS: Final = 5
MAX_HEAD: Final = 32 * 1024
HEAD_SECONDS: Final = 10.0
"""How long a request's head may take to come in."""
UNREAD_SECONDS: Final = 10.0
"""How long what was sent may lie unread while there is more to send."""
SEND_BUFFER: Final = 64 * 1024
"""What the kernel holds for one reader: a small one, so that a reader who stopped is noticed."""
CALM_SECONDS: Final = 60.0
"""How seldom the log says the same of what callers do wrong."""


class PortTakenError(Exception):
    """Nobody can listen there; the text says where."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that waits for nobody without end."""

    head_seconds = HEAD_SECONDS
    unread_seconds = UNREAD_SECONDS
    _head: "_Patience"
    _unread: "_Patience"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected, and has so long to say what for."""
        super().connection_made(transport)
        self._head = _Patience(self.head_seconds, transport)
        self._unread = _Patience(self.unread_seconds, transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._head.begin()

    def data_received(self, data: bytes) -> None:
        """Some bytes; the clock of a head runs from its first byte to its last."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._head.begin()
        else:
            self._head.end()

    def pause_writing(self) -> None:
        """The reader has not taken what lies there already."""
        super().pause_writing()
        self._unread.begin()

    def resume_writing(self) -> None:
        """It reads again."""
        self._unread.end()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._head.end()
        self._unread.end()
        super().connection_lost(exc)


class _Patience:
    """When it runs out, the connection is cut off, whatever lies in its buffers."""

    def __init__(self, seconds: float, transport: asyncio.Transport) -> None:
        self._seconds = seconds
        self._transport = transport
        self._running: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self._running is None:
            self._running = asyncio.get_running_loop().call_later(self._seconds, self._transport.abort)

    def end(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None


class Seldom(logging.Filter):
    """Passes each warning once a while, with how many were left out: anybody can make uvicorn warn."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._monotonic = monotonic
        #: When each was said last, and how many were left out since; uvicorn's texts are a closed list.
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        if record.levelno != logging.WARNING:
            return True
        text, now = str(record.msg), self._monotonic()
        at, left_out = self._said.get(text, (now - CALM_SECONDS, 0))
        if now - at < CALM_SECONDS:
            self._said[text] = (at, left_out + 1)
            return False
        self._said[text] = (now, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more since this was said last)", ()
        return True


class Server(uvicorn.Server):
    """Serves until `should_exit`. `on_listening` is told the port."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._on_listening(self.servers[0].sockets[0].getsockname()[1])

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to end. PortTakenError when the address is not to be had."""
        said, seldom = logging.getLogger("uvicorn.error"), Seldom(time.monotonic)
        said.addFilter(seldom)
        try:
            await super().serve(sockets)
        except SystemExit as exc:  # uvicorn's way to say that it cannot listen
            raise PortTakenError(
                f"cannot listen on {self.config.host}:{self.config.port}: taken, or not an address of this machine"
            ) from exc
        finally:
            said.removeFilter(seldom)


def server(app: ASGIApp, door: DoorSettings, on_listening: Callable[[int], None]) -> Server:
    """The server of one door. It trusts no header about who connects, and says nothing of itself."""
    config = uvicorn.Config(
        app,
        door.host,
        door.port,
        ssl_certfile=door.tls_certificate_file,
        ssl_keyfile=door.tls_key_file,
        limit_concurrency=door.max_concurrency,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=GRACE_SECONDS,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return Server(config, on_listening)


async def serve(server: Server, stop: asyncio.Event, ended: Awaitable[None], close: Callable[[], None]) -> None:
    """Serve until `stop`, or until what is shown or the server ends by itself: then that is raised.

    `ended` raises when what is shown can no longer be; `close` ends whoever waits for changes.
    """
    serving = asyncio.create_task(server.serve(), name="http")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    following = asyncio.ensure_future(ended)
    try:
        await asyncio.wait({serving, stopping, following}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        # Long polls end at once; what is under way is finished.
        close()
        server.should_exit = True
        await serving
    if following.done():
        following.result()
    following.cancel()
