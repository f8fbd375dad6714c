"""Children that never outlive us. One asyncio loop starts, watches, restarts and stops them.

The laws:
1. When this process dies, however it dies, its children die. On Linux the kernel sees to it; elsewhere a small watchdog
   beside each child does. The kernel watches the *thread* that started the child: run the loop in the main thread, or
   in one that lives as long as the children should.
2. One child of a name in a folder: its pid file is locked for as long as its supervisor lives.
3. A child is ready when its condition says so, never because time has passed. Not ready in time is an error that shows
   the end of the child's own log.
4. A child that dies by itself is started again, each time a little later; one that was told to stop is not.

Each child writes stdout and stderr to `logs/<name>.log`, appended. A log that has grown past a cap is set aside as
`<name>.log.1` when the child starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Self

import psutil

from sandbox.errors import AlreadyRunningError, ChildDiedError, NotReadyError
from sandbox.pidfile import PidFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

log = logging.getLogger(__name__)

LEASH = Path(__file__).with_name("leash.py")
#: Isolated and without site packages: it needs none, and starts the sooner.
LEASHED = (sys.executable, "-I", "-S", str(LEASH))
TAIL_LINES = 15
TAIL_BYTES = 64 * 1024
POLL_FIRST = 0.02
POLL_LAST = 0.25

Leash = Literal["kernel", "watchdog"]
LEASH_HERE: Leash = "kernel" if sys.platform == "linux" else "watchdog"


@dataclass(frozen=True)
class Places:
    """Where children leave traces: one folder of logs and one of pid files, for all children together."""

    logs: Path
    run: Path

    @classmethod
    def under(cls, folder: Path) -> Places:
        """Use `logs/` and `run/` in `folder`."""
        return cls(folder / "logs", folder / "run")


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a child that died by itself is started again."""

    first: timedelta = timedelta(milliseconds=200)
    last: timedelta = timedelta(seconds=15)
    #: A child that lived for this long begins its count anew.
    forgiven_after: timedelta = timedelta(seconds=60)

    def delay(self, deaths: int) -> timedelta:
        """How long to wait after so many deaths in a row: doubled each time, up to the last."""
        doublings = min(deaths - 1, 30)
        return min(self.first * (1 << doublings), self.last)


class State(StrEnum):
    """What a child is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to be started again"


def utc_now() -> datetime:
    """Read the machine's clock."""
    return datetime.now(UTC)


def _nothing() -> None:
    pass


@dataclass
class Child:
    """One supervised process. As an async context manager: ready inside, gone outside."""

    name: str
    argv: Sequence[str]
    #: The child's whole environment: nothing is inherited.
    env: Mapping[str, str]
    #: Asked again and again while the child starts; it should answer within a second. An exception from it means
    #: "never", and says why.
    ready: Callable[[], Awaitable[bool]]
    places: Places
    #: Called before each start of the process; it raises if starting makes no sense.
    preflight: Callable[[], None] = _nothing
    cwd: Path | None = None
    start_within: timedelta = timedelta(seconds=60)
    #: From SIGTERM to SIGKILL.
    stop_within: timedelta = timedelta(seconds=10)
    #: None: a death is final.
    restart: Backoff | None = field(default_factory=Backoff)
    #: In bytes. A log that has grown past it is set aside at the next start.
    log_cap: int = 16 * 1024 * 1024
    leash: Leash = LEASH_HERE
    clock: Callable[[], datetime] = utc_now

    state: State = field(default=State.STOPPED, init=False)
    #: How often it died by itself since it was started.
    deaths: int = field(default=0, init=False)
    pid_file: PidFile = field(init=False)
    log_path: Path = field(init=False)
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _watchdog: asyncio.subprocess.Process | None = field(default=None, init=False)
    _keeper: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.pid_file = PidFile(self.places.run / f"{self.name}.pid")
        self.log_path = self.places.logs / f"{self.name}.log"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The process that runs now, if one does."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def claim(self) -> None:
        """Make sure that nobody runs this child here, before it is started. `stop` gives the claim back."""
        if self.state is State.STOPPED and self.pid_file.claim():
            return
        other = self.pid_file.running()
        who = f"pid {other.pid}, supervised by pid {other.supervisor}" if other else "another process is starting it"
        message = f"{self.name} already runs in {self.places.run.parent} ({who}). Use that one, or stop it first."
        raise AlreadyRunningError(self.name, message, other.pid if other else None)

    async def start(self) -> None:
        """Start it. When this returns it is ready; when it raises, nothing of it is left."""
        self.claim()
        self.deaths = 0
        try:
            await self._clear_left_over()
            await self._launch()
        except BaseException:
            await self.kill()
            raise
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after the deadline. When this returns it is gone and the claim is given back."""
        await self._stop_keeping()
        try:
            if self._process is not None and self._process.returncode is None:
                self._process.terminate()
                async with asyncio.timeout(self.stop_within.total_seconds()):
                    await self._process.wait()
        except TimeoutError:
            log.warning("child did not stop in time; it is killed", extra={"child": self.name})
        finally:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL. When this returns it is gone, is not started again, and the claim is given back."""
        await self._stop_keeping()
        await self._kill_process()
        self._process = None
        self.pid_file.release()
        self.state = State.STOPPED

    def tail(self, since: int = 0) -> str:
        """Read the last lines of its log, of those after byte `since`."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(since, self.log_path.stat().st_size - TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-TAIL_LINES:])

    async def _keep(self) -> None:
        """Start it again whenever it dies by itself, until cancelled."""
        loop = asyncio.get_running_loop()
        in_a_row = 0
        started = loop.time()
        while self._process is not None:
            code = await self._process.wait()
            await self._tidy()
            self.deaths += 1
            if self.restart is None:
                self.state = State.STOPPED
                log.error("child died", extra={"child": self.name, "how": _how(code)})
                return
            is_forgiven = loop.time() - started > self.restart.forgiven_after.total_seconds()
            in_a_row = 1 if is_forgiven else in_a_row + 1
            delay = self.restart.delay(in_a_row)
            self.state = State.WAITING
            log.warning(
                "child died; it is started again",
                extra={"child": self.name, "how": _how(code), "after_seconds": delay.total_seconds()},
            )
            await asyncio.sleep(delay.total_seconds())
            started = loop.time()
            try:
                await self._launch()
            except Exception:  # Whatever kept it from starting may pass: it is tried again, each time later.
                log.warning("child did not start", extra={"child": self.name}, exc_info=True)

    async def _stop_keeping(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None

    async def _launch(self) -> None:
        """Start the process and wait until it is ready. When this raises, the process is gone."""
        self.state = State.STARTING
        seconds = self.start_within.total_seconds()
        since = 0
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                self.preflight()
                since = await self._spawn()
                await self._until_ready(since)
        except TimeoutError as error:
            await self._kill_process()
            if not limit.expired():
                raise
            message = f"{self.name} was not ready within {seconds:g} s and was killed."
            raise NotReadyError(self.name, self._with_log(message, since)) from error
        except BaseException:
            await self._kill_process()
            raise
        self.state = State.READY

    async def _until_ready(self, since: int) -> None:
        pause = POLL_FIRST
        while not (self.pid is not None and await self.ready()):
            if self.pid is None:
                code = None if self._process is None else self._process.returncode
                message = f"{self.name} ended before it was ready ({_how(code)})."
                raise ChildDiedError(self.name, self._with_log(message, since))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_LAST)

    async def _spawn(self) -> int:
        """Start the process, and return where its part of the log begins."""
        is_held = self.leash == "watchdog"
        with self._open_log() as output:
            since = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                *LEASHED,
                *(("hold",) if is_held else ("exec", str(os.getpid()))),
                "--",
                *self.argv,
                env=dict(self.env),
                cwd=self.cwd,
                stdin=subprocess.PIPE if is_held else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C is for us alone: we stop the children, in order.
                start_new_session=True,
            )
        if is_held:
            self._watchdog = await asyncio.create_subprocess_exec(
                *LEASHED, "watch", str(self._process.pid), stdin=subprocess.PIPE, start_new_session=True
            )
            _let_go(self._process)
        self.pid_file.write(self._process.pid)
        return since

    def _open_log(self) -> IO[bytes]:
        self.places.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.log_path.exists() and self.log_path.stat().st_size > self.log_cap:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        file = self.log_path.open("ab")
        file.write(f"--- {self.name} starts, {self.clock().isoformat(timespec='seconds')}\n".encode())
        file.flush()
        return file

    async def _clear_left_over(self) -> None:
        """End what a supervisor that died left behind: the lock is ours, so nobody supervises it."""
        if (orphan := self.pid_file.running()) is None:
            return
        log.warning("ending what an earlier run left behind", extra={"child": self.name, "pid": orphan.pid})
        try:
            process = psutil.Process(orphan.pid)
            process.kill()
            await asyncio.to_thread(process.wait, self.stop_within.total_seconds())
        except psutil.NoSuchProcess:
            return
        except psutil.Error as error:
            message = f"{self.name}: an earlier run left pid {orphan.pid} behind, and it can't be ended: {error}"
            raise AlreadyRunningError(self.name, message, orphan.pid) from error

    async def _kill_process(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    # Its whole group, while it still holds the group's number.
                    os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            await self._tidy()

    async def _tidy(self) -> None:
        """After a death: nobody needs watching, and the pid file names nobody."""
        if self._watchdog is not None:
            _let_go(self._watchdog)
            await self._watchdog.wait()
            self._watchdog = None
        self.pid_file.clear()

    def _with_log(self, message: str, since: int) -> str:
        return f"{message} The end of {self.log_path}:\n{self.tail(since)}"


async def run_to_end(argv: Sequence[str], env: Mapping[str, str], *, within: timedelta) -> tuple[int, str]:
    """Run a short program to its end. Returns its exit status and all it printed."""
    # Without the kernel's help it may outlive us by as long as it runs.
    leash = (*LEASHED, "exec", str(os.getpid()), "--") if LEASH_HERE == "kernel" else ()
    process = await asyncio.create_subprocess_exec(
        *leash,
        *argv,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within.total_seconds()):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


def _let_go(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None and process.returncode is None:
        process.stdin.write(b".")
        process.stdin.close()


def _how(code: int | None) -> str:
    """Put an exit status in words."""
    if code is None:
        return "it never ran"
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
