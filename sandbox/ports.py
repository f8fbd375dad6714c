"""Ports on the loopback interface: choosing some to keep, and naming who took one."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import psutil

from sandbox.errors import PortTakenError, SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = "127.0.0.1"
#: Below the range that systems lend to outgoing connections: a kept port in that range is sooner or later lent out.
KEPT = range(20_000, 32_000)
ATTEMPTS = 1_000


def choose(count: int, token: Callable[[int], bytes]) -> tuple[int, ...]:
    """Choose ports that are free now, to be kept for good."""
    chosen: dict[int, None] = {}
    for _ in range(ATTEMPTS):
        port = KEPT[int.from_bytes(token(4)) % len(KEPT)]
        if is_free(port):
            chosen[port] = None
        if len(chosen) == count:
            return tuple(chosen)
    raise SandboxError(
        f"no {count} free ports on {LOOPBACK} between {KEPT.start} and {KEPT.stop}: what holds them all?"
    )


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do: connections of a server that is gone don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def require_free(port: int, purpose: str) -> None:
    """Raise PortTakenError, naming port and holder, if nobody could listen there now."""
    if not is_free(port):
        raise PortTakenError(
            f"port {port} on {LOOPBACK}, kept for {purpose}, is taken by {holder(port)}. Stop that, then try again.",
            port,
        )


def holder(port: int) -> str:
    """Who has the port, as far as this user may know."""
    try:
        taken = [one for one in psutil.net_connections(kind="tcp") if one.laddr and one.laddr.port == port]
        taken.sort(key=lambda one: one.status != psutil.CONN_LISTEN)
        pid = next(one.pid for one in taken if one.pid is not None)
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except (psutil.Error, StopIteration):
        return "a process of another user, or one that hides"
