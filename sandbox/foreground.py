"""Runs a sandbox, or the roles of a realm, until a signal says to stop; then everything is stopped in order.

One Ctrl-C is enough, also while things are still starting. What is said goes to the caller, line by line; what is
logged goes to a file beside the children's logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox import jars
from sandbox.errors import SandboxError
from sandbox.folder import SandboxFolder
from sandbox.kafka import quicken
from sandbox.roles import RunningRoles
from sandbox.standing import Watch, notes_file
from sandbox.world import Sandbox
from streams import connection
from streams.process import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from sandbox.world import SandboxWorld

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stopwatch:
    """Says what is ready, and how long after the beginning."""

    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)

    def ready(self, name: str) -> None:
        """Say one calm line."""
        self.say(f"{name:<14} ready after {time.monotonic() - self.began:4.1f} s")


async def until_told(main: Coroutine[object, object, None]) -> None:
    """Run `main` until it ends or SIGINT, SIGTERM or SIGHUP comes: then it is cancelled, and ends in order."""
    task = asyncio.ensure_future(main)
    told = asyncio.Event()

    def tell() -> None:
        # Once: a second one would cut the stopping short.
        if not told.is_set():
            told.set()
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, tell)
    try:
        await task
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def run_sandbox(
    directory: Path,
    say: Callable[[str], None],
    *,
    has_roles: bool,
    has_aws: bool,
    cache: Path,
    progress: jars.Progress,
    summary: Callable[[SandboxWorld], None],
) -> None:
    """Run the services, and the roles if wanted, until cancelled. `summary` is called when all are ready."""
    stopwatch = Stopwatch(say)
    sandbox = Sandbox(directory, cache=cache, progress=progress, announce=stopwatch.ready, has_aws=has_aws, say=say)
    folder = SandboxFolder(sandbox.directory)
    folder.open()
    log_to(folder.places.logs / "sandbox.log", "sandbox")
    async with sandbox as world, contextlib.AsyncExitStack() as running:
        watch = Watch(folder.places, say, notes_file(folder), folder.services)
        watch.note()
        running.callback(notes_file(folder).unlink, missing_ok=True)
        if has_roles:
            roles = RunningRoles(world.folder, announce=stopwatch.ready)
            await running.enter_async_context(roles)
            watch.names += roles.names
        summary(world)
        quickening = asyncio.create_task(_quicken(cache), name="quicken")
        try:
            await watch.follow()
        finally:
            say("stopping")
            quickening.cancel()
            await asyncio.wait({quickening})


async def run_roles(folder: Path, only: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Run the roles of a realm until cancelled."""
    roles = RunningRoles(folder, only, announce=Stopwatch(say).ready)
    places = roles.places
    log_to(places.logs / "up.log", "up")
    async with roles:
        say(f"all ready: {', '.join(roles.names)}. Ctrl-C stops them; logs are in {places.logs}.")
        try:
            await Watch(places, say, names=roles.names).follow()
        finally:
            say("stopping")


def log_to(path: Path, who: str) -> None:
    """Log to a file: on the terminal there is only what people want to read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.FileHandler(path)
    handler.setFormatter(JsonLines(who))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    connection.quiet_client_logs()
    for chatty in ("botocore", "aiobotocore", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


async def _quicken(cache: Path) -> None:
    try:
        await quicken(cache)
    except SandboxError as error:
        # The next start is as slow as this one was; nothing else is lost.
        log.warning("no quicker start next time", extra={"error": str(error)})
