"""An executor as a role: finds its plugin, opens it with its own settings, and runs. The composition root."""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final

from executors.contract import ExecutorError, Plugin
from executors.errors import PluginError
from executors.runner import Runner
from executors.settings import ExecutorSettings, of_plugin
from streams.health import Health
from streams.settings import Settings

log = logging.getLogger("keyturn.executor")

GROUP: Final = "keyturn.executors"
LIFE_BYTES: Final = 8


def clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


async def run(
    name: str, settings: Settings, health: Health, stop: asyncio.Event, environ: Mapping[str, str] | None = None
) -> None:
    """Serve as the executor `name` until `stop`.

    `environ` holds the plugin's `KEYTURN_<NAME>_…` and the runner's `KEYTURN_EXECUTOR_…`; by default the process's own.
    """
    await serve(find(name), settings, health, stop, os.environ if environ is None else environ)


async def serve(
    plugin: Plugin, settings: Settings, health: Health, stop: asyncio.Event, environ: Mapping[str, str]
) -> None:
    """Serve with this plugin until `stop`."""
    name = plugin.manifest.executor
    own_settings = ExecutorSettings.of(environ)
    signer = settings.signer()
    try:
        executor = await plugin.open(of_plugin(name, environ))
    except ExecutorError as exc:
        raise PluginError(f"the executor {name} cannot be opened: {exc}") from exc
    # One life, one name: a grant to an earlier life is never acted upon (law 4).
    instance = f"{name}-{settings.instance}-{secrets.token_hex(LIFE_BYTES)}"
    try:
        runner = Runner(settings, own_settings, plugin.manifest, executor, signer, clock, instance)
        await runner.run(health, stop)
    finally:
        await executor.aclose()


def find(name: str) -> Plugin:
    """The plugin that the entry point `name` of the group names. PluginError says what is there instead."""
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if len(found) != 1:
        known = ", ".join(sorted({point.name for point in entry_points(group=GROUP)})) or "none"
        raise PluginError(f"{len(found)} entry points {GROUP}:{name}, one is needed; installed: {known}")
    plugin = found[0].load()
    if not isinstance(plugin, Plugin) or plugin.manifest.executor != name:
        raise PluginError(f"{found[0].value} is not the Plugin of an executor named {name}")
    return plugin
