"""One way to reach Kafka: authenticated, `acks=all`, read-committed, and clear about what is wrong.

aiokafka shows a topic that a principal may not describe as *empty*, without an exception: so every reader asks for
its partitions by name first (`require_partitions`).
"""

import asyncio
import logging
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer import sender as _sender

from streams import reaching, wire
from streams.errors import ConnectionRefusedByKafkaError, KafkaAbsentError, TopicMissingError
from streams.settings import Settings, SettingsError

# Whoever reads Kafka comes by here first.
wire.install()

BACK_TO_BACK_SECONDS: Final = 0.001
MAX_BATCH_BYTES: Final = 512 * 1024
MAX_REQUEST_BYTES: Final = 1024 * 1024
SCRAM: Final = "SCRAM-SHA-512"


def client_arguments(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client is given."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka.split(","),
        "security_protocol": settings.kafka_security,
        "retry_backoff_ms": 5,
    }
    if settings.kafka_security.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": SCRAM,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.password,
        }
    if settings.kafka_security.endswith("SSL"):
        arguments["ssl_context"] = _tls(settings.kafka_ca_file, settings.kafka_certificate_file)
    return arguments


def _tls(authority: Path | None, certificate: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as exc:
        raise SettingsError(f"KEYTURN_KAFKA_CA_FILE: {authority}: {exc}") from exc
    if certificate is not None:
        try:
            context.load_cert_chain(certificate)
        except OSError as exc:
            raise SettingsError(f"KEYTURN_KAFKA_CERTIFICATE_FILE: {certificate}: {exc}") from exc
    return context


def producer(settings: Settings, *, transactional_id: str | None = None) -> AIOKafkaProducer:
    """An idempotent producer, or a transactional one. Not started."""
    # After a commit the next AddPartitions is told CONCURRENT_TRANSACTIONS; aiokafka's hard-coded 20 ms wait would be
    # most of a small transaction (docs/adr/0001).
    _sender.BACKOFF_OVERRIDE = BACK_TO_BACK_SECONDS
    arguments = client_arguments(settings) | {
        "acks": "all",
        "max_batch_size": MAX_BATCH_BYTES,
        "max_request_size": MAX_REQUEST_BYTES,
        "linger_ms": 0,
        "request_timeout_ms": 30_000,
    }
    if transactional_id is None:
        return AIOKafkaProducer(enable_idempotence=True, **arguments)
    return AIOKafkaProducer(transactional_id=transactional_id, transaction_timeout_ms=10_000, **arguments)


def reader(settings: Settings, *, group: str | None = None, **more: Any) -> AIOKafkaConsumer:
    """A read-committed consumer that never commits by itself. Not started."""
    arguments = client_arguments(settings) | {
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none" if group is None else "earliest",
        "fetch_max_wait_ms": 250,
        "max_partition_fetch_bytes": 4 * 1024 * 1024,
    }
    return AIOKafkaConsumer(group_id=group, **(arguments | more))


async def start(client: AIOKafkaConsumer | AIOKafkaProducer, settings: Settings) -> None:
    """Start a client. KafkaAbsentError when nobody listens; ConnectionRefusedByKafkaError says what to check."""
    try:
        await client.start()
    except KafkaConnectionError as exc:
        await client.stop()
        came = KafkaAbsentError(f"Kafka at {settings.kafka} was not there a moment ago: {exc}")
        raise await why_not(settings) or came from exc
    except BaseException:
        await client.stop()
        raise


async def why_not(settings: Settings) -> KafkaAbsentError | ConnectionRefusedByKafkaError | None:
    """Why Kafka does not let us in; None when it does."""
    return await reaching.why_not(settings, client_arguments(settings))


async def stop(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop a client, also one that was given its partitions only now.

    A consumer cancels its tasks and waits for them; one that had not taken its first step yet would raise a
    cancellation that nobody asked for.
    """
    await asyncio.sleep(0)
    await client.stop()


async def require_partitions(client: AIOKafkaConsumer, topics: Iterable[str]) -> dict[str, int]:
    """The number of partitions of each topic. TopicMissingError when one can't be seen."""
    found: dict[str, int] = {}
    wanted = tuple(topics)
    cluster = client._client  # noqa: SLF001 - the consumer has no public way to ask for a topic it isn't subscribed to
    for topic in wanted:
        cluster.add_topic(topic)
    for _ in range(2):  # an update that was under way when we asked may not have asked for them
        await cluster.force_metadata_update()
        if all(client.partitions_for_topic(topic) for topic in wanted):
            break
    for topic in wanted:
        partitions = client.partitions_for_topic(topic)
        if not partitions:
            raise TopicMissingError(
                f"{topic}: not there, or this principal may not describe it; run `keyturn topics check`"
            )
        found[topic] = len(partitions)
    return found


async def committed(client: AIOKafkaConsumer, place: TopicPartition) -> tuple[int, str] | None:
    """The offset that the client's group committed last, and the metadata beside it; None when there is none."""
    # `committed` of the consumer asks the same, and forgets the metadata.
    coordinator: Any = client._coordinator  # noqa: SLF001
    found = (await coordinator.fetch_committed_offsets([place])).get(place)
    return (found.offset, found.metadata or "") if found is not None and found.offset >= 0 else None


def places(topic: str, partitions: int) -> list[TopicPartition]:
    """Every partition of a topic."""
    return [TopicPartition(topic, partition) for partition in range(partitions)]


def quiet_client_logs() -> None:
    """The client logs two errors per 100 ms per dead broker; what matters reaches us as exceptions."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
