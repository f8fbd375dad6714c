"""The process of the approvers' API: reads `pending` and the live documents, serves HTTP, writes `decisions`.

The composition root of this role: everything is made here and passed down.
"""

import asyncio
import logging
import time
from typing import Final

import httpx
import uvicorn

from notifiers.api.app import Approvals, make_app
from notifiers.api.oidc import Keys, Verifier
from notifiers.api.serving import Server
from notifiers.api.settings import ApiSettings
from notifiers.kafka_desk import KafkaDesk
from schemas.records import Channel
from streams.health import Health
from streams.settings import Settings

log = logging.getLogger("keyturn.api")

ISSUER_TIMEOUT: Final = 5.0
GRACE_SECONDS: Final = 5
MAX_HEAD: Final = 32 * 1024


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
        await _serve(_server(api, approvals, health), desk, stop)


def _server(api: ApiSettings, approvals: Approvals, health: Health) -> Server:
    def listening(port: int) -> None:
        log.info("listening", extra={"host": api.host, "port": port})
        health.has("http")

    health.waits_for("http", "not listening yet")
    config = uvicorn.Config(
        make_app(approvals),
        api.host,
        api.port,
        ssl_certfile=api.tls_certificate_file,
        ssl_keyfile=api.tls_key_file,
        limit_concurrency=api.max_concurrency,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=GRACE_SECONDS,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return Server(config, listening)


async def _serve(server: Server, desk: KafkaDesk, stop: asyncio.Event) -> None:
    """Until `stop`, or until the desk or the server ends by itself: then that is raised."""
    serving = asyncio.create_task(server.serve(), name="http")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    following = asyncio.create_task(desk.ended(), name="kafka")
    try:
        await asyncio.wait({serving, stopping, following}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        # Long polls end at once; a click that is under way is finished.
        desk.close()
        server.should_exit = True
        await serving
    if following.done():
        following.result()
    following.cancel()
