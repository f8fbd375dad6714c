"""uvicorn inside a process that has signals of its own, and says when and where it listens."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn


class PortTakenError(Exception):
    """Nobody can listen there; the text says where."""


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
        try:
            await super().serve(sockets)
        except SystemExit as exc:  # uvicorn's way to say that it cannot listen
            raise PortTakenError(
                f"cannot listen on {self.config.host}:{self.config.port}: taken, or not an address of this machine"
            ) from exc
