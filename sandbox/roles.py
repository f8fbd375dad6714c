"""The roles of a realm, run on this machine: one process each, as production runs them, supervised.

A role is told what its environment file says and where to show its health, and nothing else: whatever works here works
from those files alone. A role that dies is started again; one that was told to stop, or was killed, is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sandbox import asking, ports
from sandbox.errors import NotReadyError, SandboxError
from sandbox.supervise import Backoff, Child, Places, State
from streams.realm import Realm, RealmFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from types import TracebackType

HOME = Path(__file__).resolve().parent.parent
"""Where our rooms are."""
OK = 200
POLL_SECONDS = 0.05
HEALTH = "KEYTURN_HEALTH"


class UnknownRoleError(SandboxError):
    """The realm has no such role, or this machine can't run it."""


@dataclass(frozen=True, slots=True)
class Role:
    """Something that `keyturn run` runs."""

    name: str
    #: What follows `keyturn run`.
    words: tuple[str, ...]
    #: Its environment file, without `.env`.
    environment: str


def roles_of(realm: Realm) -> tuple[Role, ...]:
    """Every role of a realm that runs as a process, in the order an intent passes them."""
    single = (Role(name, (name,), name) for name in ("gateway", "intake", "core"))
    executors = (Role(f"executor-{name}", ("executor", name), f"executor-{name}") for name in realm.executors)
    notifiers = (Role(name, (name,), f"notifier-{name}") for name in realm.notifiers)
    return (*single, *executors, *notifiers)


def module(*words: str) -> tuple[str, ...]:
    """Give the command line of one of our modules, run by this Python, the current folder not on its path."""
    return (sys.executable, "-P", "-m", *words)


def keyturn(*words: str) -> tuple[str, ...]:
    """Give the command line of our command from these very files, whether it is installed or not."""
    return (sys.executable, "-P", "-c", "from cli.main import run; run()", *words)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Give a child's whole environment: what Python needs, and `more`."""
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(HOME), **more}


@dataclass
class RunningRoles:
    """Roles of the realm in one folder. As an async context manager: all ready inside, all gone outside."""

    folder: Path
    #: Names of those to run; all when empty.
    only: tuple[str, ...] = ()
    #: Called with the name of each role when it is ready for the first time.
    announce: Callable[[str], None] = lambda _name: None
    token: Callable[[int], bytes] = secrets.token_bytes
    restart_after: Backoff = field(default_factory=Backoff)
    start_within: timedelta = timedelta(seconds=60)
    #: Where their logs and pid files lie: in `logs/` and `run/` of the folder.
    places: Places = field(init=False)
    _children: dict[str, Child] = field(default_factory=dict, init=False)
    _health: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        folder = self.folder.absolute()
        places = self.places = Places.under(folder)
        home = RealmFolder(folder)
        known = {role.name: role for role in roles_of(home.realm())}
        if unknown := [name for name in self.only if name not in known]:
            raise UnknownRoleError(f"no role is called {', '.join(unknown)}; this realm has {', '.join(known)}.")
        chosen = [role for role in known.values() if not self.only or role.name in self.only]
        free = iter(ports.choose(len(chosen), self.token))
        for role in chosen:
            variables = home.environment(role.environment)
            port = self._health[role.name] = int(variables.get(HEALTH, "0")) or next(free)
            self._children[role.name] = Child(
                role.name,
                keyturn("run", *role.words, "--dir", str(folder)),
                environment(variables | {HEALTH: str(port)}),
                ready=partial(is_ready, port),
                places=places,
                preflight=partial(_prepare, places, role.name, port),
                start_within=self.start_within,
                stop_within=timedelta(seconds=15),
                restart=self.restart_after,
            )

    async def __aenter__(self) -> Self:
        try:
            await together(self._start_and_announce(name) for name in self._children)
        except BaseException:
            await self.stop_all()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_all()

    @property
    def names(self) -> tuple[str, ...]:
        """The roles run here."""
        return tuple(self._children)

    def child(self, name: str) -> Child:
        """Find the supervised process of a role: its pid, state, deaths and log."""
        try:
            return self._children[name]
        except KeyError:
            raise UnknownRoleError(f"no role called {name} runs here; there are {', '.join(self.names)}.") from None

    def health(self, name: str) -> int:
        """Find the port that answers `/readyz` for a role."""
        return self._health[self.child(name).name]

    async def start(self, name: str) -> None:
        """Start a role that is not running. When this returns it is ready."""
        await self.child(name).start()

    async def stop(self, name: str) -> None:
        """SIGTERM. When this returns the role has ended in order, and stays down."""
        await self.child(name).stop()

    async def stop_all(self) -> None:
        """Stop every role, all at once."""
        await together(child.stop() for child in self._children.values())

    async def kill(self, name: str) -> None:
        """SIGKILL. When this returns the role is gone, and stays down until `start` or `restart`."""
        await self.child(name).kill()

    async def restart(self, name: str) -> None:
        """Stop a role, if it runs, and start it. When this returns it is ready again."""
        await self.child(name).stop()
        await self.child(name).start()

    async def crash(self, name: str, *, within: timedelta = timedelta(seconds=60)) -> None:
        """SIGKILL, and leave the rest to the supervisor. When this returns the role is ready again."""
        child = self.child(name)
        deaths = child.deaths
        if child.pid is None:
            raise SandboxError(f"{name} does not run, so it can't crash: start it first.")
        os.kill(child.pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(within.total_seconds()):
                # A death sets no event that could be waited for: the keeper of the child sees it first.
                while child.deaths == deaths or child.state is not State.READY:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            message = f"{name} was killed and is not ready again within {within.total_seconds():g} s."
            raise NotReadyError(name, f"{message} The end of {child.log_path}:\n{child.tail()}") from error

    async def _start_and_announce(self, name: str) -> None:
        await self.start(name)
        self.announce(name)


def health_file(places: Places, name: str) -> Path:
    """Say where the port of a role's health is noted, for those who look from outside."""
    return places.run / f"{name}.health"


async def is_ready(port: int) -> bool:
    """Whether the role that shows its health there serves."""
    answer = await asking.get(port, "/readyz")
    return answer is not None and answer.status == OK


async def waits_for(port: int) -> str | None:
    """Say what a role waits for, in its own words; None when it is ready, or says nothing."""
    answer = await asking.get(port, "/readyz")
    if answer is None or answer.status == OK:
        return None
    try:
        waiting = json.loads(answer.body)["waiting_for"]
        return "; ".join(f"{what}: {why}" for what, why in waiting.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


async def together(doing: Iterable[Coroutine[object, object, None]]) -> None:
    """Do several things at once. The first that fails ends the others, and is what went wrong."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in doing:
                group.create_task(each)
    except BaseExceptionGroup as failed:
        raise _first(failed) from None


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = failed.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _prepare(places: Places, name: str, port: int) -> None:
    ports.require_free(port, f"the health of {name}")
    health_file(places, name).write_text(f"{port}\n", encoding="ascii")
