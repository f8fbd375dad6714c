"""Who runs what, on one machine. A pid is believed only together with the time its process started.

So a reused pid is never taken for ours. The lock, not the text, says whether a supervisor lives: the kernel drops it
when the process that holds it dies, however it dies.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

#: Coarser than a clock tick, finer than any machine reuses a pid in.
TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True)
class Running:
    """A process that a pid file speaks of, found alive."""

    pid: int
    #: When it started, in seconds since 1970, as the system says.
    started: float
    supervisor: int

    @property
    def is_alive(self) -> bool:
        """Whether this very process, and not another with its number, still runs."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) < TOLERANCE_SECONDS
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class PidFile:
    """Locked as long as its owner lives; names the process once there is one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def claim(self) -> bool:
        """Take the lock, and say whether it was to be had."""
        if self._descriptor is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def write(self, pid: int) -> None:
        """Name the process that runs now. One that is gone already is not named."""
        try:
            started = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return
        self._put(json.dumps(asdict(Running(pid, started, os.getpid()))))

    def clear(self) -> None:
        """Say that no process runs now."""
        self._put("")

    def release(self) -> None:
        """Give the lock back. The file stays: a lock on a removed file would guard nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def running(self) -> Running | None:
        """Find the process that the file names, if it is alive. Anybody may ask, without the lock."""
        try:
            found = Running(**json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.is_alive else None

    def _put(self, text: str) -> None:
        if self._descriptor is None:
            raise RuntimeError(f"{self.path}: claim it before writing")
        data = text.encode()
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))
