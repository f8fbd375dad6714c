"""Collecting from a real Kafka: records as they lie, committed ones only, with an auditor's rights and no more."""

import base64
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from auditors import collect
from auditors.bundle import BundleError, BundleWriter, values
from auditors.verify.lines import map_name
from sandbox.kafka import KafkaAddress
from streams import connection
from streams.administration import Admin, provision
from streams.realm import Realm, RealmFolder, lay_out
from streams.settings import Settings
from tests.auditors.builders import PARTITIONS, Line, Trail

WRITERS = {
    "directory": "administration",
    "roster": "administration",
    "policies": "administration",
    "manifests": "administration",
    "intents": "gateway",
    "classified": "intake",
    "decisions": "notifier-api",
    "reports": "executor-s3",
    "audit": "core",
    "approved.s3": "core",
}


@pytest.fixture(scope="module")
async def home(kafka: KafkaAddress, tmp_path_factory: pytest.TempPathFactory) -> RealmFolder:
    folder = tmp_path_factory.mktemp("collect") / "keyturn"
    realm = Realm(
        realm="acme-test",
        prefix="collected.",
        user_prefix="collected.",
        kafka=kafka.bootstrap,
        kafka_security="SASL_PLAINTEXT",
        partitions=PARTITIONS,
        replication_factor=1,
        min_insync_replicas=1,
        executors=("s3",),
        notifiers=("api",),
        agents=("builder", "porter"),
    )
    lay_out(folder, realm, ["alice"], secrets.token_bytes)
    await provision(folder, Admin(kafka.admin.username, kafka.admin.password))
    return RealmFolder(folder)


async def send(producer: AIOKafkaProducer, settings: Settings, topic: str, line: Line) -> None:
    await producer.send_and_wait(
        settings.prefix + topic,
        base64.b64decode(line["value"]),
        key=base64.b64decode(line["key"]),
        partition=line["partition"],
        headers=[(name, base64.b64decode(value)) for name, value in line["headers"]],
    )


def is_genesis(line: Line) -> bool:
    return ["ce_type", base64.b64encode(b"keyturn.genesis.v1").decode()] in line["headers"]


async def said(home: RealmFolder, trail: Trail) -> None:
    """Every line of the trail, each with its writer's rights; the core's in transactions, one of them aborted."""
    for topic, writer in WRITERS.items():
        settings = home.settings(writer)
        is_core = writer == "core"
        producer = connection.producer(settings, transactional_id=f"{settings.prefix}core-0" if is_core else None)
        await connection.start(producer, settings)
        try:
            lines = [line for line in trail.topics[topic] if not is_genesis(line)]
            if not is_core:
                for line in lines:
                    await send(producer, settings, topic, line)
                continue
            for line in lines:
                async with producer.transaction():
                    await send(producer, settings, topic, line)
            await producer.begin_transaction()
            await send(producer, settings, topic, lines[0])
            await producer.abort_transaction()
        finally:
            await producer.stop()


def lines_of(folder: Path, topic: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{topic}.jsonl").read_text().splitlines()]


def bare(lines: list[dict[str, Any]]) -> list[Any]:
    """What does not depend on when it was appended."""
    kept = [line for line in lines if not is_genesis(line)]
    return sorted([line["partition"], line["key"], line["headers"], line["value"]] for line in kept)


async def test_a_bundle_holds_what_lies_on_kafka_and_the_trail_follows(home: RealmFolder, tmp_path: Path) -> None:
    trail = Trail().begin()
    trail.outcome(trail.executing())
    await said(home, trail)
    settings = home.settings("auditor")

    with BundleWriter(tmp_path / "bundle") as into:
        await collect.collect(settings, into)
    for topic in WRITERS:
        assert bare(lines_of(tmp_path / "bundle", topic)) == bare(trail.topics[topic]), topic
        assert into.counts[topic] == len(lines_of(tmp_path / "bundle", topic))
    assert {map_name(line["topic"]) for line in lines_of(tmp_path / "bundle", "audit")} == {"audit"}
    assert list(values(tmp_path / "bundle", "audit")) == [
        base64.b64decode(line["value"]) for line in trail.topics["audit"]
    ]

    last = [record async for record in collect.trail(settings, last=3)]
    assert [record.key.decode() for record in last] == [f"core-{1}/{trail.records[-3 + n].seq}" for n in range(3)]
    everything = [record async for record in collect.trail(settings, since=0)]
    assert len(everything) == len(trail.records)
    assert [record async for record in collect.trail(settings, since=4_000_000_000_000)] == []


def test_a_bundle_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text("")
    with pytest.raises(BundleError, match="nothing is overwritten"), BundleWriter(tmp_path):
        pass
