"""The process of the approvers' API: reads `pending` and the live documents, serves HTTP, writes `decisions`.

The composition root of this role: everything is made here and passed down.
"""

import asyncio
import logging
import time
from typing import Final

import httpx

from notifiers.api.app import Approvals, make_app
from notifiers.api.settings import ApiSettings
from notifiers.kafka_desk import KafkaDesk
from schemas.records import Channel
from streams.health import Health
from streams.http import serving
from streams.http.oidc import Keys, Verifier
from streams.settings import Settings

log = logging.getLogger("keyturn.api")

ISSUER_TIMEOUT: Final = 5.0


async def run_role(settings: Settings, health: Health, stop: asyncio.Event) -> None:
    """The role as `keyturn run api` starts it."""
    await run(settings, ApiSettings(), health, stop)  # pyright: ignore[reportCallIssue] - read from KEYTURN_API_…


async def run(settings: Settings, api: ApiSettings, health: Health, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Raises whatever ends the following of Kafka: then this process must end."""
    health.waits_for("kafka", "reading pending and the live documents")
    async with (
        httpx.AsyncClient(timeout=ISSUER_TIMEOUT) as http,
        KafkaDesk(settings, Channel.API) as desk,
    ):
        health.has("kafka")
        keys = Keys(api.issuer, http, time.monotonic)
        approvals = Approvals(
            desk,
            Verifier(api.issuer, api.audience, keys, time.time),
            now=lambda: time.time_ns() // 1_000_000,
            monotonic=time.monotonic,
            keep_seconds=api.idempotency_hours * 3600,
        )

        def listening(port: int) -> None:
            log.info("listening", extra={"host": api.host, "port": port})
            health.has("http")

        health.waits_for("http", "not listening yet")
        await serving.serve(serving.server(make_app(approvals), api, listening), stop, desk.ended(), desk.close)
