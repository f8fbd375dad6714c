"""Which Kafka the tests run on: the one they are told of, else a container where an engine answers, else our own.

Whichever it is has SCRAM users and checks rights. The tests leave topics behind on a Kafka they were told of: give them
one that may be thrown away. Tests that kill Kafka always kill one of our own.
"""

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import docker
from aiokafka.admin import AIOKafkaAdminClient
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from sandbox import ports
from sandbox.kafka import EmbeddedKafka
from sandbox.kafka_address import Credentials, KafkaAddress, serves
from tests.house import until

IMAGE: Final = "apache/kafka:4.1.1"
START: Final = Path(__file__).resolve().parents[1] / "deploy/kafka"
WITHIN: Final = 120.0
SOCKET: Final = Path("/var/run/docker.sock")


def why_no_engine(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why no container is used, or None when an engine answers."""
    if environ.get("KEYTURN_TEST_CONTAINERS") == "no":
        return "KEYTURN_TEST_CONTAINERS=no"
    if "DOCKER_HOST" not in environ and not SOCKET.exists():
        return f"no container engine: DOCKER_HOST is not set and there is no {SOCKET}"
    try:
        client = docker.from_env(timeout=3, environment=dict(environ))
    except DockerException as exc:
        return f"no container engine answers: {str(exc).splitlines()[0][:120]}"
    try:
        client.ping()
    except DockerException as exc:
        return f"no container engine answers: {str(exc).splitlines()[0][:120]}"
    finally:
        client.close()
    return None


def chosen(environ: Mapping[str, str] = os.environ) -> str:
    """Say which, and why."""
    if told := environ.get("KEYTURN_TEST_KAFKA"):
        return f"Kafka: {told}, as KEYTURN_TEST_KAFKA says"
    reason = why_no_engine(environ)
    return f"Kafka: {IMAGE} in a container" if reason is None else f"Kafka: embedded ({reason})"


@asynccontextmanager
async def running(folder: Path, cache: Path, environ: Mapping[str, str] = os.environ) -> AsyncIterator[KafkaAddress]:
    """A Kafka for as long as the context lasts."""
    if told := environ.get("KEYTURN_TEST_KAFKA"):
        yield await _told(told, environ)
    elif why_no_engine(environ) is None:
        async with _contained(folder) as address:
            yield address
    else:
        async with EmbeddedKafka(folder, cache=cache) as address:
            yield address


async def _told(bootstrap: str, environ: Mapping[str, str]) -> KafkaAddress:
    try:
        password = Path(environ["KEYTURN_TEST_KAFKA_PASSWORD_FILE"]).read_text().strip()
    except KeyError:
        raise RuntimeError(
            "KEYTURN_TEST_KAFKA needs KEYTURN_TEST_KAFKA_PASSWORD_FILE: the password of its super user "
            "(KEYTURN_TEST_KAFKA_USERNAME, by default admin)"
        ) from None
    admin = Credentials(environ.get("KEYTURN_TEST_KAFKA_USERNAME", "admin"), password)
    return KafkaAddress(bootstrap, await _cluster_id(bootstrap, admin), admin)


async def _cluster_id(bootstrap: str, admin: Credentials) -> str:
    client = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_plain_username=admin.username,
        sasl_plain_password=admin.password,
    )
    try:
        await client.start()
        return str((await client.describe_cluster())["cluster_id"])
    finally:
        await client.close()


@asynccontextmanager
async def _contained(folder: Path) -> AsyncIterator[KafkaAddress]:
    """The official image, started as `compose.yaml` starts it."""
    [port] = ports.choose(1, secrets.token_bytes)
    password = folder / "kafka-admin"
    password.write_text(secrets.token_hex(24))
    password.chmod(0o644)
    container = (
        DockerContainer(IMAGE)
        .with_kwargs(entrypoint=["/etc/keyturn/start"])
        .with_bind_ports(port, port)
        .with_volume_mapping(str(START), "/etc/keyturn", "ro")
        .with_volume_mapping(str(password), "/run/secrets/kafka-admin", "ro")
        .with_env("KAFKA_ADVERTISED", f"127.0.0.1:{port}")
        .with_env("KAFKA_DATA", "/tmp/data")  # noqa: S108 - the container's own
        .with_env("KAFKA_MORE_SETTINGS", f"listeners=CLIENT://:{port},CONTROLLER://localhost:9093")
    )
    with container:
        admin = Credentials("admin", password.read_text())
        bootstrap = f"127.0.0.1:{port}"
        found: list[KafkaAddress] = []

        async def answers() -> bool:
            try:
                address = KafkaAddress(bootstrap, await _cluster_id(bootstrap, admin), admin)
            except Exception:  # noqa: BLE001 - whatever a server that is starting says
                return False
            found[:] = [address] if await serves(address) else []
            return bool(found)

        await until(answers, WITHIN)
        yield found[0]
