"""Intake as a role: the world, a speaker, the Faust app and the sweep, in a process of their own."""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.intake.speaking import Desk
from broker.intake.sweep import Sweep
from schemas import topics
from streams import process
from streams.facts import Catalog, FactSource
from streams.health import Health
from streams.producing import Speaker
from streams.settings import Settings, of_environment
from streams.worlds import WorldView

LOOK_SECONDS: Final = 0.5


class IntakeSettings(BaseSettings):
    """What only intake is told."""

    model_config = SettingsConfigDict(
        env_prefix="KEYTURN_INTAKE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    catalog: Path | None = Field(default=None, description="YAML of resources: environment, classification, owner.")
    sweep_seconds: float = Field(default=10.0, gt=0, description="How often records without an answer are looked for.")


def clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


async def run(settings: Settings, health: Health, stop: asyncio.Event, intake: IntakeSettings | None = None) -> None:
    """Serve until `stop`."""
    from broker.intake import topology  # noqa: PLC0415 - importing Faust parses sys.argv: only in this process

    own = intake or of_environment(IntakeSettings)
    sources: list[FactSource] = [Catalog(own.catalog)] if own.catalog else []
    health.waits_for("world", "reading the live documents")
    async with WorldView(settings) as view, Speaker(settings) as speaker:
        health.has("world")
        partitions = await speaker.partitions(settings.names.of(topics.INTENTS))
        desk = Desk(settings, speaker, view.caught_up, sources, clock, partitions)
        app = topology.build(settings, desk.answer, lambda: health.has("faust"))
        health.waits_for("faust", "joining the group")
        sweeping = asyncio.create_task(Sweep(settings, desk.answer, clock).run(stop, own.sweep_seconds), name="sweep")
        await app.start()
        watching = asyncio.create_task(_watch(app, view), name="faust")
        await process.until_stopped(stop, sweeping, watching)
        await app.stop()
        watching.cancel()
        await sweeping


async def _watch(app: Any, view: WorldView) -> None:
    """Raise what ended Faust, or the following of the live documents: neither tells by itself."""
    while True:
        view.require_alive()
        if app.crashed:
            raise RuntimeError("Faust crashed") from app.crash_reason
        await asyncio.sleep(LOOK_SECONDS)
