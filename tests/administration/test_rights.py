"""The whole matrix, asked of a real Kafka: every role, every topic, both directions."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streams import access, connection
from streams.access import Cast, Resource
from streams.cluster import _configuration
from streams.settings import Settings
from tests.administration.conftest import Place

ROLES = sorted(Cast(("s3",), ("api",), ("bot",)).roles())
OTHERS = [role for role in ROLES if role != "core"]
DENIED = LibrdkafkaError.TOPIC_AUTHORIZATION_FAILED
SECONDS = 90


def topics(place: Place) -> list[str]:
    return [name for name, _, _ in place.realm.names.all(place.realm.executors)]


def mapped(place: Place, role: str, operation: str) -> set[str]:
    rights = access.rights_of(role, place.realm.names, place.realm.cast)
    return {right.name for right in rights if right.resource is Resource.TOPIC and right.operation == operation}


def writable(settings: Settings, names: Iterable[str]) -> set[str]:
    """The topics this user can really write to, with an idempotent producer."""
    allowed: set[str] = set()
    denied: set[str] = set()
    # Kafka gives a producer id to whoever may write anywhere: who may write nowhere gets none.
    is_idempotent = settings.kafka_username is not None and not settings.kafka_username.endswith("auditor")
    producer = Producer(_configuration(settings) | {"enable.idempotence": is_idempotent, "linger.ms": 0})

    def answered(error: LibrdkafkaError | None, message: Any) -> None:
        if error is None:
            allowed.add(message.topic())
        elif error.code() == DENIED:
            denied.add(message.topic())

    for name in names:
        producer.produce(name, b"{}", key=b"test", partition=0, on_delivery=answered)
    assert producer.flush(SECONDS) == 0
    assert allowed | denied == set(names)
    return allowed


def readable(settings: Settings, names: Iterable[str]) -> set[str]:
    """The topics this user can really read."""
    allowed: set[str] = set()
    configuration = {"group.id": "nobody", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0}
    consumer = Consumer(_configuration(settings) | configuration)
    try:
        # Of a topic that may not even be described no fetch ever says anything: it is not listed.
        seen = set(consumer.list_topics(timeout=SECONDS).topics)
        denied = set(names) - seen
        consumer.assign([TopicPartition(name, 0, 0) for name in set(names) & seen])
        until = time.monotonic() + SECONDS
        while allowed | denied != set(names) and time.monotonic() < until:
            message = consumer.poll(0.5)
            if message is None:
                continue
            error, topic = message.error(), str(message.topic())
            if error is None or error.code() == LibrdkafkaError._PARTITION_EOF:
                allowed.add(topic)
            elif error.code() == DENIED:
                denied.add(topic)
    finally:
        consumer.close()
    assert allowed | denied == set(names)
    return allowed


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_writes_where_the_map_says_and_nowhere_else(place: Place, role: str) -> None:
    settings = place.home.settings(role)
    assert await asyncio.to_thread(writable, settings, topics(place)) == mapped(place, role, "write")


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_reads_what_the_map_says_and_nothing_else(place: Place, role: str) -> None:
    settings = place.home.settings(role)
    assert await asyncio.to_thread(readable, settings, topics(place)) == mapped(place, role, "read")


async def failure(settings: Settings, topic: str) -> BaseException | None:
    producer = connection.producer(settings)
    await connection.start(producer, settings)
    try:
        await producer.send_and_wait(topic, b"{}", key=b"test", partition=0)
    except KafkaError as exc:
        error: Exception = exc
        return error
    finally:
        await producer.stop()
    return None


@pytest.mark.parametrize(
    ("role", "topic"),
    [
        ("agent-bot", "decisions"),
        ("agent-bot", "classified"),
        ("gateway", "decisions"),
        ("notifier-api", "pending"),
        ("notifier-api", "intents"),
        ("executor-s3", "intents"),
        ("executor-s3", "approved.s3"),
        ("intake", "decisions"),
        ("core", "decisions"),
        ("core", "reports"),
        ("roster", "directory"),
        ("administration", "audit"),
    ],
)
async def test_with_our_own_client_too_a_forbidden_write_is_refused_by_name(
    place: Place, role: str, topic: str
) -> None:
    error = await failure(place.home.settings(role), place.topic(topic))
    assert isinstance(error, TopicAuthorizationFailedError)


async def test_who_may_write_nothing_gets_no_idempotent_producer(place: Place) -> None:
    settings = place.home.settings("auditor")
    producer = connection.producer(settings)
    with pytest.raises(ClusterAuthorizationFailedError):
        await connection.start(producer, settings)


async def test_our_idempotent_producer_needs_no_more_than_write_on_its_topic(place: Place) -> None:
    assert await failure(place.home.settings("agent-bot"), place.topic("intents")) is None


@pytest.mark.parametrize("role", OTHERS)
async def test_nobody_but_the_core_may_use_its_transactional_ids(place: Place, role: str) -> None:
    settings = place.home.settings(role)
    producer = connection.producer(settings, transactional_id=f"{place.realm.prefix}core-0")
    try:
        with pytest.raises(TransactionalIdAuthorizationFailed):
            await producer.start()
    finally:
        await producer.stop()


async def test_the_core_may_use_its_transactional_ids_and_no_others(place: Place) -> None:
    settings = place.home.settings("core")
    own = connection.producer(settings, transactional_id=f"{place.realm.prefix}core-0")
    await own.start()
    await own.stop()
    other = connection.producer(settings, transactional_id=f"{place.realm.prefix}intake-0")
    try:
        with pytest.raises(TransactionalIdAuthorizationFailed):
            await other.start()
    finally:
        await other.stop()


async def joined(consumer: AIOKafkaConsumer) -> None:
    await consumer.start()
    async with asyncio.timeout(SECONDS):
        await consumer.getone()


@pytest.mark.parametrize(("role", "group"), [("intake", "core"), ("executor-s3", "intake"), ("auditor", "core")])
async def test_nobody_joins_another_roles_group(place: Place, role: str, group: str) -> None:
    settings = place.home.settings(role)
    consumer = connection.reader(settings, group=place.topic(group))
    consumer.subscribe([place.topic("directory")])
    try:
        with pytest.raises(GroupAuthorizationFailedError):
            await joined(consumer)
    finally:
        await consumer.stop()


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_may_make_topics_or_see_rights(place: Place, role: str) -> None:
    client = AdminClient(_configuration(place.home.settings(role)))
    made = client.create_topics([NewTopic(place.topic("mine"), 1, 1)], request_timeout=SECONDS)
    error = await asyncio.to_thread(made[place.topic("mine")].exception, SECONDS)
    del client
    assert error is not None
    assert error.args[0].code() in {
        LibrdkafkaError.TOPIC_AUTHORIZATION_FAILED,
        LibrdkafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
