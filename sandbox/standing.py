"""How a sandbox stands, seen from outside: by pid files and answers on ports, so that it holds whoever started it.

Only what nobody else can see is noted by the process that runs it (`Watch`): whether it is ready, and how often each
child was started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import psutil

from sandbox import asking
from sandbox.errors import AlreadyRunningError, SandboxError
from sandbox.folder import ISSUER_PAGE, SandboxFolder, write
from sandbox.pidfile import PidFile, Running
from sandbox.roles import health_file, is_ready, roles_of, waits_for
from sandbox.supervise import Places

WATCH_SECONDS = 0.25
TAIL_BYTES = 256 * 1024
STOP_WITHIN = timedelta(seconds=60)


class Condition(StrEnum):
    """What a process of a sandbox is doing."""

    READY = "ready"
    #: It runs and does not serve yet.
    STARTING = "starting"
    #: It died; its supervisor starts it again in a moment.
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Standing:
    """One service or role."""

    name: str
    is_role: bool
    condition: Condition
    pid: int | None = None
    #: Where it is met; of a role that is not met anywhere, where it shows its health.
    port: int | None = None
    uptime_seconds: int | None = None
    restarts: int = 0
    waits_for: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.condition is Condition.READY


# ---------------------------------------------------------------- inside the process that runs it


@dataclass
class Watch:
    """Notes what children do, and says it in calm lines."""

    places: Places
    say: Callable[[str], None]
    #: Where the notes are kept, if anybody reads them.
    file: Path | None = None
    names: tuple[str, ...] = ()
    is_ready: bool = False
    restarts: dict[str, int] = field(default_factory=dict)
    _pids: dict[str, int] = field(default_factory=dict)

    def note(self) -> None:
        """Write the notes down."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            noted = Notes(os.getpid(), self.is_ready, self.names, self.restarts)
            write(self.file, json.dumps(asdict(noted)) + "\n")

    async def follow(self) -> None:
        """Look at the children until cancelled: all of them are ready when this is called."""
        self.is_ready = True
        self.note()
        files = {name: PidFile(self.places.run / f"{name}.pid") for name in self.names}
        while True:
            for name, file in files.items():
                if (found := file.running()) is not None:
                    self._saw(name, found.pid)
            await asyncio.sleep(WATCH_SECONDS)

    def _saw(self, name: str, pid: int) -> None:
        before = self._pids.setdefault(name, pid)
        if pid != before:
            self._pids[name] = pid
            self.restarts[name] = self.restarts.get(name, 0) + 1
            self.say(f"{name} died and was started again (pid {pid}); see {self.places.logs / name}.log")
            self.note()


@dataclass(frozen=True)
class Notes:
    """What a `Watch` writes down."""

    pid: int
    #: Whether everything that was asked for has become ready.
    is_ready: bool
    names: Collection[str]
    restarts: Mapping[str, int]


def notes_file(folder: SandboxFolder) -> Path:
    """Say where the notes of a sandbox are."""
    return folder.places.run / "sandbox.json"


# ---------------------------------------------------------------- from outside


def notes(folder: SandboxFolder) -> Notes | None:
    """Read what the process that runs this sandbox now has noted."""
    running = folder.running()
    try:
        found = Notes(**json.loads(notes_file(folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if running is not None and found.pid == running.pid else None


async def look(folder: SandboxFolder) -> tuple[Standing, ...]:
    """Look at every service and role, all at once."""
    folder.require()
    noted = notes(folder)
    roles = roles_of(folder.realm.realm()) if folder.realm.realm_file.exists() else ()
    looking = [_service(folder, name, noted) for name in folder.services]
    looking += [_role(folder, role.name, noted) for role in roles]
    return tuple(await asyncio.gather(*looking))


async def _service(folder: SandboxFolder, name: str, noted: Notes | None) -> Standing:
    process = PidFile(folder.places.run / f"{name}.pid").running()
    standing = _standing(name, process, noted, port=_port_of(folder, name), is_role=False)
    if process is None or standing.port is None:
        return standing
    is_issuer = name == "issuer"
    serves = await (asking.get(standing.port, ISSUER_PAGE) if is_issuer else asking.listens(standing.port))
    return replace(standing, condition=Condition.READY if serves else Condition.STARTING)


async def _role(folder: SandboxFolder, name: str, noted: Notes | None) -> Standing:
    process = PidFile(folder.places.run / f"{name}.pid").running()
    health = _health(folder, name)
    standing = _standing(name, process, noted, port=_met(folder, name) or health, is_role=True)
    if process is None or health is None:
        return standing
    if await is_ready(health):
        return replace(standing, condition=Condition.READY)
    return replace(standing, waits_for=await waits_for(health))


def _met(folder: SandboxFolder, name: str) -> int | None:
    """The port of a role that is met by others."""
    ports = folder.ports()
    return {"api": ports.api, "gateway": ports.gateway}.get(name)


def _standing(name: str, process: Running | None, noted: Notes | None, *, port: int | None, is_role: bool) -> Standing:
    """Say what can be said without asking it."""
    restarts = noted.restarts.get(name, 0) if noted else 0
    if process is None:
        condition = Condition.WAITING if noted and name in noted.names else Condition.STOPPED
        return Standing(name, is_role, condition, port=port, restarts=restarts)
    uptime = max(0, int(time.time() - process.started))
    return Standing(name, is_role, Condition.STARTING, process.pid, port, uptime, restarts)


def _port_of(folder: SandboxFolder, name: str) -> int | None:
    try:
        match name:
            case "kafka":
                identity = json.loads((folder.path / "kafka" / "identity.json").read_text(encoding="utf-8"))
                return int(identity["broker_port"])
            case "s3-store":
                return int(json.loads((folder.path / "s3" / "ports.json").read_text(encoding="utf-8"))["s3"])
            case "aws":
                return folder.aws_port
            case "s3-proxy":
                return folder.ports().s3
            case _:
                return folder.ports().issuer
    except (OSError, ValueError, KeyError, SandboxError):
        return None


def _health(folder: SandboxFolder, name: str) -> int | None:
    try:
        return int(health_file(folder.places, name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


class Tail:
    """The end of a log, and what is added to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def last(self, count: int) -> list[str]:
        """Read the last lines; `more` goes on behind them."""
        lines = self.more()
        return lines[-count:] if count else []

    def more(self) -> list[str]:
        """Read the whole lines that were added since."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                # Set aside, and begun anew.
                self._read = self._read if self._read <= size else 0
                begin = file.seek(max(self._read, size - TAIL_BYTES))
                added = file.read()
        except FileNotFoundError:
            return []
        whole = added[: added.rfind(b"\n") + 1]
        self._read = begin + len(whole)
        return whole.decode(errors="replace").splitlines()


# ---------------------------------------------------------------- ending


async def end(folder: SandboxFolder, within: timedelta = STOP_WITHIN) -> int | None:
    """End the process that runs this sandbox, and all its children with it. Returns the pid, if there was one.

    When this returns nothing of it is left, however it had to be done.
    """
    if not folder.is_ours:
        folder.require()
    running = folder.running()
    if running is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(running.pid).terminate()
        if not await _is_gone(running, within):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(running.pid).kill()
            await _is_gone(running, timedelta(seconds=5))
    await _end_orphans(folder)
    return running.pid if running is not None else None


async def _end_orphans(folder: SandboxFolder) -> None:
    """End what a supervisor that died left behind: where the kernel keeps children on a leash, nothing."""
    for path in sorted(folder.places.run.glob("*.pid")):
        orphan = PidFile(path).running()
        if orphan is None or path == folder.pid_file.path:
            continue
        if not _is_free(path):
            raise AlreadyRunningError(
                path.stem,
                f"{path.stem} (pid {orphan.pid}) is run by pid {orphan.supervisor}, not by the sandbox: end that one.",
                orphan.pid,
            )
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(orphan.pid).kill()
        await _is_gone(orphan, timedelta(seconds=5))


def _is_free(path: Path) -> bool:
    """Whether no supervisor holds this pid file now."""
    if not path.exists():
        return True
    file = PidFile(path)
    is_free = file.claim()
    file.release()
    return is_free


async def _is_gone(process: Running, within: timedelta) -> bool:
    try:
        async with asyncio.timeout(within.total_seconds()):
            while process.is_alive:  # noqa: ASYNC110 (not our child: there is nothing to wait for but the look)
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


def remove(folder: SandboxFolder) -> None:
    """Remove a sandbox's directory, if it is one's and nothing runs in it."""
    if not folder.is_ours:
        folder.require()
    if (running := folder.running()) is not None:
        raise AlreadyRunningError(
            "sandbox",
            f"the sandbox in {folder.path} runs (pid {running.pid}): `keyturn sandbox down` first.",
            running.pid,
        )
    for entry in folder.path.iterdir():
        # The marker last: a removal that was interrupted can be taken up again.
        if entry == folder.marker:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    folder.marker.unlink()
    folder.path.rmdir()


def as_json(standings: Iterable[Standing]) -> list[dict[str, object]]:
    """Put standings in plain values."""
    return [asdict(standing) for standing in standings]
