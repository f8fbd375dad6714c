"""The one module that imports Faust (importing it parses `sys.argv`): one agent over `intents`, bytes in, total.

Faust drops records in rare rebalances, and acks whatever a handler raises on. Hence (docs/adr/0001): genesis records
and committed offset 1, a contiguity check that ends the process on a gap, static membership, no table, no timers that
write, every send awaited before the batch is acked, any exception in a batch ends the process, and the sweep.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import faust

from broker.intake.answering import Raw
from schemas.records import Source
from schemas.topics import INTENTS
from streams import crashpoints, process
from streams.connection import SCRAM, client_arguments
from streams.errors import GapError
from streams.settings import Settings

log = logging.getLogger("keyturn.intake")
BATCH: Final = 200
WITHIN_SECONDS: Final = 0.02


def build(
    settings: Settings, answer: Callable[[Sequence[Raw]], Awaitable[int]], joined: Callable[[], None]
) -> faust.App:
    """The app; `answer` makes a batch's answers durable, `joined` hears when partitions are assigned."""
    arguments = client_arguments(settings)
    credentials: faust.SASLCredentials | faust.SSLCredentials | None = None
    if settings.kafka_username is not None and settings.kafka_security != "SSL":
        credentials = faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.password,
            mechanism=SCRAM,
            ssl_context=arguments.get("ssl_context"),
        )
    elif "ssl_context" in arguments:
        credentials = faust.SSLCredentials(arguments["ssl_context"])
    data = settings.state / f"intake-{settings.instance}"
    data.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        f"{settings.prefix}intake",
        broker=[f"kafka://{host}" for host in settings.kafka.split(",")],
        broker_credentials=credentials,
        datadir=data,
        consumer_group_instance_id=f"intake-{settings.instance}",
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=30,
        broker_heartbeat_interval=1,
        broker_rebalance_timeout=10,
        producer_request_timeout=30,
        processing_guarantee="at_least_once",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        # A flood waits in Kafka, not here: records may be a megabyte each.
        stream_buffer_maxsize=BATCH,
        key_serializer="raw",
        value_serializer="raw",
        # Logging is the process's own business.
        loghandlers=[],
    )
    topic = app.topic(settings.names.of(INTENTS), key_type=bytes, value_type=bytes)
    due: dict[int, int] = {}

    @app.on_partitions_assigned.connect
    async def forget_what_left(_: object, /, *given: Any, **__: Any) -> None:
        (assigned,) = given
        # What stays was nobody else's meanwhile: a record that this rebalance drops is still a gap.
        for partition in due.keys() - {place.partition for place in assigned}:
            del due[partition]
        joined()

    @app.agent(topic, name="intake")
    async def intake(stream: faust.StreamT[bytes]) -> None:
        async for events in stream.take_events(BATCH, within=WITHIN_SECONDS):  # type: ignore[attr-defined] # of Stream
            try:
                crashpoints.reached("intake.1-batch-fetched")
                raws = [_raw(event) for event in events]
                _require_contiguous(raws, due)
                await _whole(answer(raws))
                crashpoints.reached("intake.5-batch-answered")
            except asyncio.CancelledError:
                raise  # the batch is answered: _whole saw to it
            except BaseException as error:  # noqa: BLE001 - take_events acks in a `finally`: go before it can
                process.fail_stop(error)

    return app


def _raw(event: Any) -> Raw:
    message = event.message
    return Raw(
        # Without the prefix: the name of the map, the same in every installation.
        source=Source(topic=INTENTS.name, partition=message.partition, offset=message.offset),
        log_time=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(message.headers or ()),
    )


async def _whole(answering: Awaitable[int]) -> None:
    """Finish the batch however often the agent is cancelled: `take_events` acks it either way."""
    task = asyncio.ensure_future(answering)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            cancelled = exc
    if task.cancelled():
        raise RuntimeError("a batch was cancelled before it was answered")
    task.result()
    if cancelled is not None:
        raise cancelled


def _require_contiguous(raws: Sequence[Raw], due: dict[int, int]) -> None:
    """Law 11: an offset above the one that was due means dropped records; end before Faust commits past them."""
    for raw in raws:
        partition, offset = raw.source.partition, raw.source.offset
        if offset > due.get(partition, offset):
            raise GapError(
                f"{INTENTS.name}/{partition}: offset {offset} where {due[partition]} was due. The next process reads "
                "again what was dropped; if the log has lost it, set intake's group beyond it: the sweep does the rest"
            )
        due[partition] = max(due.get(partition, 0), offset + 1)
