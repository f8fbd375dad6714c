"""The gateway's process: follows the log, serves HTTP, writes `intents`. The composition root of this role."""

import asyncio
import logging
import secrets
import time
from contextlib import AsyncExitStack
from typing import Final

import httpx

from gateway.app import Gateway, make_app
from gateway.book import KafkaBook
from gateway.checking import Checker
from gateway.settings import GatewaySettings
from streams.facts import Catalog
from streams.health import Health
from streams.http import serving
from streams.http.oidc import Keys, Verifier
from streams.settings import Settings, of_environment

log = logging.getLogger("keyturn.gateway")

ISSUER_TIMEOUT: Final = 5.0


def clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


async def run(settings: Settings, health: Health, stop: asyncio.Event, own: GatewaySettings | None = None) -> None:
    """Serve until `stop` is set. Raises whatever ends the following of Kafka: then this process must end."""
    door = own or of_environment(GatewaySettings)
    health.waits_for("kafka", "reading rows, intents and the live documents")
    async with AsyncExitStack() as stack:
        book = await stack.enter_async_context(KafkaBook(settings, clock))
        health.has("kafka")
        verifier: Verifier | None = None
        if door.issuer is not None:
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=ISSUER_TIMEOUT))
            verifier = Verifier(door.issuer, door.audience, Keys(door.issuer, http, time.monotonic), time.time)
        sources = [Catalog(door.catalog)] if door.catalog else []
        gateway = Gateway(
            book, verifier, Checker(sources), door, now=clock, monotonic=time.monotonic, entropy=secrets.token_bytes
        )

        def listening(port: int) -> None:
            log.info("listening", extra={"host": door.host, "port": port})
            health.has("http")

        health.waits_for("http", "not listening yet")
        await serving.serve(serving.server(make_app(gateway), door, listening), stop, book.ended(), book.close)
