"""Kafka's administrative calls, in our words: what a cluster holds of an installation, and the few things we change.

Nothing here deletes or shrinks anything, but for the fillers of a restore. Settings are changed one by one
(`incremental_alter_configs`): the older call resets whatever it is not told.
"""

# pyright: reportPrivateImportUsage=false
# The client's package does not say what it exports.

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from streams import connection
from streams.access import Pattern, Resource, Right
from streams.errors import StreamError
from streams.findings import TopicState
from streams.settings import Settings

REQUEST_SECONDS: Final = 20.0
SCRAM_ITERATIONS: Final = 8192
T = TypeVar("T")
Offsets: TypeAlias = "concurrent.futures.Future[ConsumerGroupTopicPartitions]"

# Passing states of a coordinator that has just been made or moved, and of a topic that not every broker knows yet.
_NOT_YET: Final = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        # The client's own word for having found no coordinator in time: the first one that asks has the topic made.
        KafkaError._TIMED_OUT,  # noqa: SLF001
    }
)
RETRY_SECONDS: Final = 0.1
ATTEMPT_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 60.0
"""How long a group's offsets are asked for, again and again."""
_HELD: Final = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.REBALANCE_IN_PROGRESS})


class ClusterError(StreamError):
    """Kafka refused an administrative call, or did not answer it; the text says which."""


class GroupIsLiveError(ClusterError):
    """Offsets of a group can be set only while nobody is in it."""


def _configuration(settings: Settings) -> dict[str, str | int | float | bool]:
    configuration: dict[str, str | int | float | bool] = {
        "bootstrap.servers": settings.kafka,
        "security.protocol": settings.kafka_security,
        "socket.timeout.ms": int(REQUEST_SECONDS * 1000),
        # What matters comes back as an answer; the client would write to stderr by itself.
        "log_level": 0,
    }
    if settings.kafka_security.startswith("SASL"):
        configuration |= {
            "sasl.mechanism": connection.SCRAM,
            "sasl.username": settings.kafka_username or "",
            "sasl.password": settings.password or "",
        }
    if settings.kafka_ca_file is not None:
        configuration["ssl.ca.location"] = str(settings.kafka_ca_file)
    if settings.kafka_certificate_file is not None:
        configuration |= {
            "ssl.certificate.location": str(settings.kafka_certificate_file),
            "ssl.key.location": str(settings.kafka_certificate_file),
        }
    return configuration


class Cluster:
    """One cluster, as an administrator sees it. Every call is answered in `REQUEST_SECONDS` or raises ClusterError.

    Only the offsets of a group, which may have to wait for its coordinator, take `PATIENCE_SECONDS` if need be.
    """

    def __init__(self, settings: Settings) -> None:
        """`settings` are an administrator's. Not connected: `async with`."""
        self._settings = settings

    async def __aenter__(self) -> Self:
        # Asked first, because this client says why it gets no connection; the administrative one only that it waited.
        probe = connection.reader(self._settings)
        await connection.start(probe, self._settings)
        await probe.topics()
        await probe.stop()
        self._client = AdminClient(_configuration(self._settings))
        return self

    async def __aexit__(self, *_: object) -> None:
        # It has no close(). Its threads call into Python, and must be gone before the interpreter is.
        del self._client

    async def topics(self, wanted: Iterable[str]) -> dict[str, TopicState]:
        """Those of the wanted topics that are there."""
        metadata = await _said("topics", asyncio.to_thread(self._client.list_topics, timeout=REQUEST_SECONDS))
        found = {name: metadata.topics[name] for name in wanted if name in metadata.topics}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
        futures = self._client.describe_configs(resources, request_timeout=REQUEST_SECONDS) if resources else {}
        settings = {at.name: await _answer(f"settings of {at.name}", future) for at, future in futures.items()}
        return {
            name: TopicState(
                len(topic.partitions),
                min((len(partition.replicas) for partition in topic.partitions.values()), default=0),
                {key: str(entry.value) for key, entry in settings[name].items()},
            )
            for name, topic in found.items()
        }

    async def create_topics(self, wanted: Mapping[str, TopicState]) -> None:
        """When this returns the controller has made these topics."""
        topics = [
            NewTopic(name, state.partitions, state.replicas, config=dict(state.settings))
            for name, state in wanted.items()
        ]
        futures = self._client.create_topics(topics, request_timeout=REQUEST_SECONDS) if topics else {}
        for name, future in futures.items():
            await _answer(f"create topic {name}", future)

    async def set_topic(self, name: str, settings: Mapping[str, str], unset: Iterable[str] = ()) -> None:
        """Change these settings of a topic, and no other; those in `unset` become the broker's own."""
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in settings.items()
        ]
        # The client wants a value, and Kafka heeds none.
        entries += [ConfigEntry(key, "", incremental_operation=AlterConfigOpType.DELETE) for key in sorted(unset)]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        futures = self._client.incremental_alter_configs([resource], request_timeout=REQUEST_SECONDS)
        await _answer(f"change topic {name}", futures[resource])

    async def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Let each partition of a topic begin at this offset. When this returns nobody reads what lay before."""
        places = [TopicPartition(name, partition, offset) for partition, offset in before.items()]
        for place, future in self._client.delete_records(places, request_timeout=REQUEST_SECONDS).items():
            await _answer(f"begin of {place.topic}/{place.partition}", future)

    async def users(self) -> frozenset[str]:
        """The users who have a SCRAM-SHA-512 password."""
        future = self._client.describe_user_scram_credentials(request_timeout=REQUEST_SECONDS)
        found = await _answer("users", cast("concurrent.futures.Future[Any]", future))
        return frozenset(
            user
            for user, described in found.items()
            if any(info.mechanism is ScramMechanism.SCRAM_SHA_512 for info in described.scram_credential_infos)
        )

    async def set_passwords(self, passwords: Mapping[str, str]) -> None:
        """Give these users these passwords. Connections that are open stay open."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
        changes: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(user, info, text.encode()) for user, text in passwords.items()
        ]
        futures = self._client.alter_user_scram_credentials(changes, request_timeout=REQUEST_SECONDS) if changes else {}
        for user, future in futures.items():
            await _answer(f"password of {user}", future)

    async def rights(self) -> frozenset[Right]:
        """The whole access control list on topics, groups, transactional ids and the cluster."""
        found: set[Right] = set()
        for kind in _RESOURCES.values():
            anything = AclBindingFilter(
                restype=kind,
                name=_ANY,
                resource_pattern_type=ResourcePatternType.ANY,
                principal=_ANY,
                host=_ANY,
                operation=AclOperation.ANY,
                permission_type=AclPermissionType.ANY,
            )
            future = self._client.describe_acls(anything, request_timeout=REQUEST_SECONDS)
            found.update(_right(binding) for binding in await _answer("access control list", future))
        return frozenset(found)

    async def grant(self, rights: Iterable[Right]) -> None:
        """Add these rights."""
        bindings = [_binding(right) for right in sorted(rights)]
        futures = self._client.create_acls(bindings, request_timeout=REQUEST_SECONDS) if bindings else {}
        for binding, future in futures.items():
            await _answer(f"right {_right(binding)}", future)

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """The committed offsets of a group, by partition; absent where there is none."""

        def ask() -> Offsets:
            asked = [ConsumerGroupTopicPartitions(group)]
            return self._client.list_consumer_group_offsets(asked, request_timeout=ATTEMPT_SECONDS)[group]

        found = await _patiently(f"offsets of {group}", ask)
        return {at.partition: at.offset for at in found.topic_partitions or () if at.topic == topic and at.offset >= 0}

    async def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Set offsets of a group in which nobody is. GroupIsLiveError otherwise; then nothing was set."""

        def ask() -> Offsets:
            places = [TopicPartition(topic, partition, offset) for partition, offset in sorted(offsets.items())]
            asked = [ConsumerGroupTopicPartitions(group, places)]
            return self._client.alter_consumer_group_offsets(asked, request_timeout=ATTEMPT_SECONDS)[group]

        try:
            await _patiently(f"offsets of {group}", ask)
        except ClusterError as exc:
            if _code(exc) in _HELD:
                raise GroupIsLiveError(f"{group}: somebody is in the group; stop its processes, then again") from exc
            raise


_RESOURCES: Final = {
    Resource.TOPIC: ResourceType.TOPIC,
    Resource.GROUP: ResourceType.GROUP,
    Resource.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
    # In an access control list the client's "broker" is Kafka's "cluster".
    Resource.CLUSTER: ResourceType.BROKER,
}
#: The client's annotations forbid the None that its documentation asks for.
_ANY: Final[Any] = None
_PATTERNS: Final = {
    Pattern.LITERAL: ResourcePatternType.LITERAL,
    Pattern.PREFIXED: ResourcePatternType.PREFIXED,
}


def _right(binding: AclBinding) -> Right:
    resources = {theirs: ours for ours, theirs in _RESOURCES.items()}
    patterns = {theirs: ours for ours, theirs in _PATTERNS.items()}
    return Right(
        binding.principal,
        resources.get(ResourceType(binding.restype), Resource.OTHER),
        binding.name,
        patterns.get(ResourcePatternType(binding.resource_pattern_type), Pattern.OTHER),
        AclOperation(binding.operation).name.lower(),
        AclPermissionType(binding.permission_type).name.lower(),
        binding.host,
    )


def _binding(right: Right) -> AclBinding:
    return AclBinding(
        _RESOURCES[right.resource],
        right.name,
        _PATTERNS[right.pattern],
        right.principal,
        right.host,
        AclOperation[right.operation.upper()],
        AclPermissionType[right.permission.upper()],
    )


async def _answer(what: str, future: "concurrent.futures.Future[Any]") -> Any:
    return await _said(what, asyncio.wrap_future(future))


async def _patiently(what: str, ask: Callable[[], Offsets]) -> ConsumerGroupTopicPartitions:
    """A group's offsets, asked for again while Kafka says "not yet", of the group or of one partition."""
    until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        try:
            return await _said(what, _whole(ask()))
        except ClusterError as exc:
            if _code(exc) not in _NOT_YET or asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(RETRY_SECONDS)


async def _whole(future: Offsets) -> ConsumerGroupTopicPartitions:
    """The answer, if none of its partitions has an error of its own."""
    answer = await asyncio.wrap_future(future)
    for place in answer.topic_partitions or ():
        if place.error is not None:
            raise KafkaException(place.error)
    return answer


def _code(error: ClusterError) -> int | None:
    return error.__cause__.args[0].code() if isinstance(error.__cause__, KafkaException) else None


async def _said(what: str, answer: Awaitable[T]) -> T:
    try:
        return await answer
    except KafkaException as exc:
        error = exc.args[0]
        if error.code() == KafkaError.SECURITY_DISABLED:
            raise ClusterError(f"{what}: the brokers check no rights; set authorizer.class.name") from exc
        if error.code() in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}:
            raise ClusterError(
                f"{what}: {error.str()}: provisioning needs a Kafka super user; set KEYTURN_ADMIN_USERNAME and "
                "KEYTURN_ADMIN_PASSWORD_FILE"
            ) from exc
        raise ClusterError(f"{what}: {error.str()}") from exc
