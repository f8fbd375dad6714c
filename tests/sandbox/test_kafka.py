"""The embedded Kafka is ours, closed, and keeps what it was given."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from confluent_kafka.cimpl import NewTopic

from sandbox import jars
from sandbox.errors import AlreadyRunningError, ChildDiedError, PortTakenError, StaleDirectoryError, WrongClusterError
from sandbox.kafka import Credentials, EmbeddedKafka, KafkaAddress, KafkaCluster
from sandbox.kafka_address import serves
from sandbox.kafka_directory import Identity, KafkaDirectory, server_properties
from sandbox.pidfile import PidFile

pytestmark = pytest.mark.asyncio(loop_scope="module")

Until = Callable[[Callable[[], bool]], Awaitable[None]]
TOPIC = "sandbox-test"
STRANGER = Credentials("stranger", "stranger-password")

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from typing import Any
from sandbox.kafka import EmbeddedKafka

async def main():
    async with EmbeddedKafka(Path(sys.argv[1])):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def login(address: KafkaAddress, who: Credentials) -> dict[str, Any]:
    return {
        "bootstrap_servers": address.bootstrap,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": who.username,
        "sasl_plain_password": who.password,
    }


def add_topic_and_stranger(address: KafkaAddress) -> None:
    """As production's administration does it."""
    admin = AdminClient(
        {
            "bootstrap.servers": address.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": address.admin.username,
            "sasl.password": address.admin.password,
            "log_level": 0,
        }
    )
    secret = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    user = UserScramCredentialUpsertion(STRANGER.username, secret, STRANGER.password.encode())
    futures = admin.create_topics([NewTopic(TOPIC, 1, 1)]) | admin.alter_user_scram_credentials([user])
    for future in futures.values():
        future.result(10)


async def produce(address: KafkaAddress, who: Credentials, value: bytes) -> None:
    async with AIOKafkaProducer(**login(address, who), acks="all", request_timeout_ms=10_000) as producer:
        await producer.send_and_wait(TOPIC, value)


async def everything_in_the_topic(address: KafkaAddress) -> list[bytes]:
    consumer = AIOKafkaConsumer(TOPIC, **login(address, address.admin), auto_offset_reset="earliest")
    async with consumer:
        (partition,) = consumer.assignment()
        end = (await consumer.end_offsets([partition]))[partition]
        values = []
        while await consumer.position(partition) < end:
            values.append((await consumer.getone()).value)
        return values


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedKafka]:
    kafka = EmbeddedKafka(tmp_path_factory.mktemp("kafka"))
    address = await kafka.start()
    await asyncio.to_thread(add_topic_and_stranger, address)
    yield kafka
    await kafka.stop()


@pytest.fixture(scope="module")
def address(kafka: EmbeddedKafka) -> KafkaAddress:
    assert kafka.address is not None
    return kafka.address


async def test_the_admin_sees_the_cluster_that_the_directory_names(kafka: EmbeddedKafka, address: KafkaAddress) -> None:
    identity = json.loads((kafka.directory / "identity.json").read_text())
    assert address.cluster_id == identity["cluster_id"]
    assert await serves(address)


async def test_another_cluster_on_our_port_is_named_and_not_taken_for_ours(address: KafkaAddress) -> None:
    ours = KafkaAddress(address.bootstrap, "the-cluster-we-expect", address.admin)
    with pytest.raises(WrongClusterError, match=f"{address.cluster_id}, not ours"):
        await serves(ours)


async def test_a_client_without_a_password_is_refused(address: KafkaAddress) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address.bootstrap, request_timeout_ms=2_000)
    with pytest.raises(KafkaConnectionError):
        await producer.start()
    await producer.stop()


async def test_a_client_with_a_wrong_password_is_refused(address: KafkaAddress) -> None:
    impostor = Credentials(address.admin.username, "wrong")
    producer = AIOKafkaProducer(**login(address, impostor), request_timeout_ms=2_000)
    with pytest.raises(KafkaConnectionError):
        await producer.start()
    await producer.stop()
    assert not await serves(KafkaAddress(address.bootstrap, address.cluster_id, impostor))


async def test_who_has_no_acl_may_not_write(address: KafkaAddress) -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        await produce(address, STRANGER, b"let me in")
    assert b"let me in" not in await everything_in_the_topic(address)


async def test_a_second_kafka_in_the_directory_is_told_who_runs_it(kafka: EmbeddedKafka) -> None:
    assert kafka.child is not None
    with pytest.raises(AlreadyRunningError, match=f"pid {kafka.child.pid}"):
        await EmbeddedKafka(kafka.directory).start()


async def test_what_was_acknowledged_survives_a_kill(kafka: EmbeddedKafka, address: KafkaAddress) -> None:
    await produce(address, address.admin, b"before the kill")
    await kafka.kill()
    assert await kafka.start() == address
    assert await everything_in_the_topic(address) == [b"before the kill"]


async def test_its_files_are_for_its_owner_alone_and_its_log_tells_no_password(
    kafka: EmbeddedKafka, address: KafkaAddress
) -> None:
    assert kafka.directory.stat().st_mode & 0o077 == 0
    for name in ("identity.json", "server.properties"):
        assert (kafka.directory / name).stat().st_mode & 0o077 == 0
    assert kafka.child is not None
    text = kafka.child.log_path.read_text()
    assert "Kafka Server started" in text
    assert address.admin.password not in text
    assert address.admin.password not in repr(kafka)


async def test_no_process_is_left_when_the_supervisor_is_killed(tmp_path: Path, until: Until) -> None:
    argv = (sys.executable, "-c", SUPERVISOR, str(tmp_path))
    supervisor = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    assert await supervisor.stdout.readline() == b"ready\n"
    jvm = PidFile(tmp_path / "run" / "kafka.pid").running()
    assert jvm is not None
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: not jvm.is_alive)


async def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    identity = KafkaDirectory(tmp_path).identity("4.3.1", os.urandom)
    named = rf"port {identity.broker_port} .* \(pid {os.getpid()}\)"
    with (
        socket.create_server(("127.0.0.1", identity.broker_port)),
        pytest.raises(PortTakenError, match=named),
    ):
        await EmbeddedKafka(tmp_path).start()
    assert PidFile(tmp_path / "run" / "kafka.pid").claim()


async def test_a_directory_of_another_version_or_cluster_or_of_nobody_is_refused(tmp_path: Path) -> None:
    directory = KafkaDirectory(tmp_path)
    identity = directory.identity("4.3.1", os.urandom)
    assert directory.identity("4.3.1", os.urandom) == identity
    with pytest.raises(StaleDirectoryError, match=r"made by Kafka 4\.3\.1, and this is 4\.4\.0"):
        directory.identity("4.4.0", os.urandom)
    directory.data.mkdir()
    (directory.data / "meta.properties").write_text("cluster.id=somebody-elses\n")
    with pytest.raises(StaleDirectoryError, match="somebody-elses"):
        directory.identity("4.3.1", os.urandom)
    (tmp_path / "identity.json").write_text("{}")
    with pytest.raises(StaleDirectoryError, match="unreadable"):
        directory.identity("4.3.1", os.urandom)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(StaleDirectoryError, match="to say whose"):
        directory.identity("4.3.1", os.urandom)


async def test_a_kafka_that_cannot_start_shows_its_own_reason(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path)
    directory = KafkaDirectory(tmp_path)
    identity = directory.identity("4.3.1", os.urandom)
    await directory.prepare(identity, await jars.ensure(kafka.cache / "jars"))
    properties = directory.data / "meta.properties"
    properties.write_text(properties.read_text().replace("node.id=1", "node.id=2"))
    with pytest.raises(ChildDiedError, match="Stored node id 2 doesn't match"):
        await kafka.start()


async def test_a_half_formatted_directory_is_formatted_again(tmp_path: Path) -> None:
    directory = KafkaDirectory(tmp_path)
    identity = directory.identity("4.3.1", os.urandom)
    # As a formatter that was killed leaves it.
    (directory.scratch / "aside" / "data").mkdir(parents=True)
    async with EmbeddedKafka(tmp_path) as address:
        assert address == identity.address
    assert not (directory.scratch / "aside").exists()


async def test_a_path_that_is_not_ascii_reaches_java_whole() -> None:
    identity = Identity("4.3.1", "id", 1, 2, "a", "b")
    lines = server_properties(identity, Path("/é/\U0001f511/a\\b")).splitlines()
    assert r"log.dirs=/\u00e9/\ud83d\udd11/a\\b" in lines


async def test_three_nodes_vote_together_and_keep_three_copies_of_which_two_must_answer(tmp_path: Path) -> None:
    cluster = KafkaCluster(tmp_path, count=3)
    kept = cluster.ports()
    assert len(kept) == 6
    assert cluster.ports() == kept
    version = jars.kafka_version(jars.locked())
    nodes = [KafkaDirectory(tmp_path / f"node-{number}").identity(version, os.urandom) for number in (1, 2, 3)]
    assert [node.node_id for node in nodes] == [1, 2, 3]
    assert len({(node.cluster_id, node.admin_password, node.controller_password) for node in nodes}) == 1
    told = dict(line.split("=", 1) for line in server_properties(nodes[1], tmp_path, nodes).splitlines())
    assert told["node.id"] == "2"
    assert told["controller.quorum.voters"] == ",".join(
        f"{node.node_id}@127.0.0.1:{node.controller_port}" for node in nodes
    )
    for setting in ("default", "offsets.topic", "transaction.state.log"):
        assert told[f"{setting}.replication.factor"] == "3"
    assert (told["min.insync.replicas"], told["transaction.state.log.min.isr"]) == ("2", "2")
    alone = dict(line.split("=", 1) for line in server_properties(nodes[0], tmp_path).splitlines())
    assert alone["controller.quorum.voters"] == f"1@127.0.0.1:{nodes[0].controller_port}"
    assert (alone["default.replication.factor"], alone["min.insync.replicas"]) == ("1", "1")
