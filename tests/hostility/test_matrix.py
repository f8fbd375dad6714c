"""Every principal, every resource, every operation, asked of a real Kafka: allowed exactly where the map says so.

What the map does not list is attempted, not looked up; what would destroy is attempted too, in a realm of its own.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from sandbox.kafka import KafkaAddress
from streams import access
from streams.access import Cast, Resource
from streams.administration import Admin, provision
from streams.cluster import _configuration
from streams.realm import Realm, RealmFolder, lay_out
from streams.settings import Settings
from tests.administration.test_rights import readable, writable

CAST = Cast(("s3", "iam"), ("api", "slack"), ("bot", "other"))
ROLES = sorted(CAST.roles())
SECONDS = 30
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    # Whoever may not even describe a topic is told that it is not there.
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
Cells = dict[tuple[str, str], bool]
"""(operation, resource): whether Kafka did it."""


@dataclass(frozen=True)
class Ground:
    """A realm that may be broken."""

    home: RealmFolder

    @property
    def realm(self) -> Realm:
        return self.home.realm()

    @property
    def topics(self) -> list[str]:
        return sorted(name for name, _, _ in self.realm.names.all(self.realm.executors))

    def mapped(self, role: str, resource: Resource, operation: str) -> set[str]:
        rights = access.rights_of(role, self.realm.names, self.realm.cast)
        return {right.name for right in rights if right.resource is resource and right.operation == operation}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ground(kafka: KafkaAddress, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    folder: Path = tmp_path_factory.mktemp("matrix")
    realm = Realm(
        realm="matrix",
        prefix="matrix.",
        user_prefix="matrix.",
        kafka=kafka.bootstrap,
        kafka_security="SASL_PLAINTEXT",
        partitions=1,
        replication_factor=1,
        min_insync_replicas=1,
        executors=CAST.executors,
        notifiers=CAST.notifiers,  # type: ignore[arg-type] # names of channels
        agents=CAST.agents,
    )
    lay_out(folder, realm, ["ada"], secrets.token_bytes)
    await provision(folder, Admin(kafka.admin.username, kafka.admin.password))
    yield Ground(RealmFolder(folder))


def outcome(future: "Future[Any]") -> bool:
    """Whether it was done; a refusal is no failure, anything else is."""
    try:
        future.result(SECONDS)
    except KafkaException as exc:
        # Any other error: it got past the authorizer, and something else was in the way.
        return exc.args[0].code() not in DENIED
    return True


def transactional(settings: Settings, name: str) -> bool:
    producer = Producer(_configuration(settings) | {"transactional.id": name, "transaction.timeout.ms": 60_000})
    try:
        producer.init_transactions(SECONDS)
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            raise
        return False
    return True


def per_topic(client: Any, names: list[str]) -> Cells:
    """What nobody but the cluster's administrator may do to a topic."""
    attempts: dict[str, Callable[[], Mapping[Any, Future[Any]]]] = {
        "describe configs": lambda: client.describe_configs([_resource(name) for name in names]),
        "alter configs": lambda: client.incremental_alter_configs([_resource(name, "retention.ms") for name in names]),
        "add partitions": lambda: client.create_partitions([NewPartitions(name, 9) for name in names]),
        "delete records": lambda: client.delete_records([TopicPartition(name, 0, 1) for name in names]),
        "delete": lambda: client.delete_topics(names, operation_timeout=SECONDS),
    }
    cells: Cells = {}
    for operation, attempt in attempts.items():
        futures = attempt()
        assert len(futures) == len(names)
        for place, future in futures.items():
            name = str(getattr(place, "topic", getattr(place, "name", place)))
            cells[operation, name] = outcome(future)
    return cells


def _resource(name: str, entry: str | None = None) -> ConfigResource:
    entries = [ConfigEntry(entry, "1", incremental_operation=AlterConfigOpType.SET)] if entry else None
    return ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)


def per_group(client: Any, groups: list[str], topic: str) -> Cells:
    cells: Cells = {}
    for group, future in client.describe_consumer_groups(groups, request_timeout=SECONDS).items():
        cells["describe group", group] = outcome(future)
    for group in groups:
        asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=SECONDS)
        cells["read offsets", group] = outcome(asked[group])
        place = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 1)])
        cells["set offsets", group] = _is_set(client.alter_consumer_group_offsets([place])[group])
    for group, future in client.delete_consumer_groups(groups, request_timeout=SECONDS).items():
        cells["delete group", group] = outcome(future)
    return cells


def _is_set(future: "Future[Any]") -> bool:
    """Each partition has an answer of its own; the group's right comes first."""
    try:
        answered = future.result(SECONDS)
    except KafkaException as exc:
        return exc.args[0].code() not in DENIED
    return all(place.error is None or place.error.code() not in DENIED for place in answered.topic_partitions)


def of_cluster(client: Any, user: str) -> Cells:
    """What only the cluster's administrator may do at all."""
    mine = AclBinding(
        ResourceType.TOPIC,
        "matrix.",
        ResourcePatternType.PREFIXED,
        f"User:{user}",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    password = UserScramCredentialUpsertion(user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"mine now")
    broker = ConfigResource(
        ResourceType.BROKER,
        "1",
        incremental_configs=[
            ConfigEntry("log.retention.ms", "1", incremental_operation=AlterConfigOpType.SET),
        ],
    )
    return {
        ("create topic", "matrix.mine"): outcome(client.create_topics([NewTopic("matrix.mine", 1, 1)])["matrix.mine"]),
        ("create topic", "elsewhere"): outcome(client.create_topics([NewTopic("elsewhere", 1, 1)])["elsewhere"]),
        ("give itself rights", "cluster"): outcome(next(iter(client.create_acls([mine]).values()))),
        ("see rights", "cluster"): outcome(client.describe_acls(every)),
        ("take rights away", "cluster"): outcome(next(iter(client.delete_acls([every]).values()))),
        ("see users", "cluster"): outcome(client.describe_user_scram_credentials(None)),
        ("set a password", "cluster"): outcome(client.alter_user_scram_credentials([password])[user]),
        ("alter the broker", "cluster"): outcome(next(iter(client.incremental_alter_configs([broker]).values()))),
    }


def tried(ground: Ground, role: str) -> Cells:
    """Everything, as this role."""
    settings, names = ground.home.settings(role), ground.topics
    client = AdminClient(_configuration(settings))
    cells: Cells = {}
    seen = set(client.list_topics(timeout=SECONDS).topics)
    may_write, may_read = writable(settings, names), readable(settings, names)
    for name in names:
        cells["describe", name] = name in seen
        cells["write", name] = name in may_write
        cells["read", name] = name in may_read
    groups = [access.group_of(ground.realm.names, each) for each in ROLES]
    cells |= per_group(client, [*groups, "matrix.nobody", "strangers"], ground.topics[0])
    prefix = ground.realm.prefix
    for name in (f"{prefix}core-0", f"{prefix}core-7", f"{prefix}{role}-0", f"{prefix}cor", "strangers-0"):
        cells["transact", name] = transactional(settings, name)
    cells |= of_cluster(client, ground.realm.cast.user(role))
    cells |= per_topic(client, names)
    del client
    return cells


def due(ground: Ground, role: str, operation: str, name: str) -> bool:
    """What the map says."""
    written = ground.mapped(role, Resource.TOPIC, "write")
    read = ground.mapped(role, Resource.TOPIC, "read")
    match operation:
        case "write":
            return name in written
        case "read":
            return name in read
        case "describe":
            return name in written | read
        case "describe group" | "read offsets":
            return name in ground.mapped(role, Resource.GROUP, "read")
        case "set offsets":
            # Its own group, and a topic that it may read.
            return name in ground.mapped(role, Resource.GROUP, "read") and ground.topics[0] in read
        case "transact":
            prefixes = ground.mapped(role, Resource.TRANSACTIONAL_ID, "write")
            return any(name.startswith(prefix) for prefix in prefixes)
        case _:
            return False


async def test_every_principal_may_do_exactly_what_the_map_says(ground: Ground) -> None:
    found = await asyncio.gather(*(asyncio.to_thread(tried, ground, role) for role in ROLES))
    wrong = [
        f"{role} {'may' if is_allowed else 'may not'} {operation} {name}"
        for role, cells in zip(ROLES, found, strict=True)
        for (operation, name), is_allowed in cells.items()
        if is_allowed != due(ground, role, operation, name)
    ]
    assert wrong == []
    cells = sum(map(len, found))
    allowed = sum(is_allowed for each in found for is_allowed in each.values())
    print(f"\n{cells} cells: {len(ROLES)} principals, {allowed} allowed, {cells - allowed} refused")  # noqa: T201
    assert cells > 2500
