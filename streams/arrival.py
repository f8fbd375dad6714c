"""A role may start before its Kafka: it waits, alive and not ready, until it is there. A refusal ends it at once.

What is told once is told calmly: one line when the waiting begins, one when it ends.
"""

import asyncio
import contextlib
import logging
from typing import Final

from streams import connection, process
from streams.errors import KafkaAbsentError, KafkaHangsUpError
from streams.health import Health
from streams.settings import Settings

log = logging.getLogger("keyturn.kafka")

EVERY_SECONDS: Final = 1.0
HANG_UPS: Final = 5
"""How often an address may hang up in a row: a server that is starting does, and so does one that speaks TLS."""


def once_there(main: process.Main) -> process.Main:
    """The same role, begun when Kafka is there."""

    async def waits_and_serves(settings: Settings, health: Health, stop: asyncio.Event) -> None:
        if await until_there(settings, health, stop):
            await main(settings, health, stop)

    return waits_and_serves


async def until_there(settings: Settings, health: Health, stop: asyncio.Event) -> bool:
    """Wait until Kafka lets us in; False when told to stop before. ConnectionRefusedByKafkaError when it does not."""
    hang_ups, is_told = 0, False
    while not stop.is_set() and (why := await connection.why_not(settings)) is not None:
        hang_ups = hang_ups + 1 if isinstance(why, KafkaHangsUpError) else 0
        if hang_ups >= HANG_UPS or not isinstance(why, KafkaAbsentError | KafkaHangsUpError):
            raise why
        health.waits_for("kafka", str(why))
        if not is_told:
            log.info("waiting for Kafka", extra={"why": str(why)})
            is_told = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), EVERY_SECONDS)
    if stop.is_set():
        return False
    if is_told:
        log.info("Kafka is there", extra={"kafka": settings.kafka})
    health.starts()
    return True
