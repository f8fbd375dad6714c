"""Every principal of a realm, every lock of it, asked of a real Kafka: what the map says is let, and nothing else."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from confluent_kafka.admin import AclBindingFilter, AdminClient  # type: ignore[attr-defined]

from sandbox.kafka import KafkaAddress
from streams import access, cluster
from streams.access import Pattern, Resource, Right
from streams.administration import Admin, provision, settings_of
from streams.realm import Realm, lay_out
from streams.settings import Settings
from tests.administration import matrix
from tests.administration.conftest import PARTITIONS, Place
from tests.administration.matrix import Attempts, Cell, Locks
from tests.house import until

STRANGER = "stranger.topic"
"""Another installation's."""
WITHIN = 120.0


@pytest.fixture(scope="module")
async def place(kafka: KafkaAddress, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A realm with two of everything of which there can be several."""
    prefix = f"matrix-{secrets.token_hex(3)}."
    folder = tmp_path_factory.mktemp("matrix") / "keyturn"
    realm = Realm(
        realm="example",
        prefix=prefix,
        user_prefix=prefix,
        kafka=kafka.bootstrap,
        kafka_security="SASL_PLAINTEXT",
        partitions=PARTITIONS,
        replication_factor=1,
        min_insync_replicas=1,
        executors=("s3", "iam"),
        notifiers=("api", "slack"),
        agents=("bot", "robot"),
    )
    lay_out(folder, realm, ["ada"], secrets.token_bytes)
    made = Place(folder, Admin(kafka.admin.username, kafka.admin.password))
    await provision(folder, made.admin)
    return made


@pytest.fixture(scope="module")
async def locks(place: Place) -> Locks:
    """Every topic, one of another installation's, every group and transactional id that a role could think of."""
    names, roles = place.realm.names, place.realm.cast.roles()
    async with cluster.Cluster(master(place)) as there:
        if not await there.topics([STRANGER]):
            await there.create_topics({STRANGER: cluster.TopicState(1, 1, {})})
    topics = [name for name, _, _ in names.all(place.realm.executors)] + [STRANGER]
    found: dict[str, tuple[int, bytes]] = {}

    async def are_there() -> bool:
        found.update(await matrix.topic_ids(master(place), topics))
        return all(found[name][0] for name in topics)

    await until(are_there, WITHIN)
    groups = [access.group_of(names, role) for role in roles] + ["stranger.group"]
    ids = [f"{names.prefix}{role}-{partition}" for role in roles for partition in range(PARTITIONS)]
    return Locks(found, tuple(groups), (*ids, f"{names.prefix}core", "core-0"))


def master(place: Place) -> Settings:
    return settings_of(place.home, place.admin)


def mapped(place: Place, role: str) -> list[Right]:
    return list(access.rights_of(role, place.realm.names, place.realm.cast))


def complaints(place: Place, role: str, found: Attempts) -> set[str]:
    """Where the broker is of another mind than the map."""
    rights = mapped(place, role)
    return {
        f"{role}: {'may' if is_let else 'may not'} {cell}"
        for cell, is_let in found.items()
        if is_let != matrix.holds(rights, cell)
    }


async def asked(place: Place, locks: Locks, roles: Iterable[str]) -> dict[str, Attempts]:
    roles = sorted(roles)
    found = await asyncio.gather(*(matrix.attempts(place.home.settings(role), locks) for role in roles))
    return dict(zip(roles, found, strict=True))


async def complained(place: Place, locks: Locks, roles: Iterable[str]) -> set[str]:
    found = await asked(place, locks, roles)
    return set().union(*(complaints(place, role, answers) for role, answers in found.items()))


async def test_the_broker_lets_everybody_do_what_the_map_says_and_refuses_all_else(
    place: Place, locks: Locks, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await asked(place, locks, place.realm.cast.roles())
    wrong = set().union(*(complaints(place, role, answers) for role, answers in found.items()))
    assert not wrong, "\n".join(sorted(wrong))
    # Two executors, notifiers and agents, and each of the eight of which there is one.
    assert len(found) == 14
    assert len(locks.topics) == 24
    assert len(locks.groups) == 15
    assert len(locks.transactional_ids) == 30
    cells = 24 * 9 + 15 * 3 + 30 * 2 + 7
    assert {len(answers) for answers in found.values()} == {cells}
    attempts = sum(answers.count for answers in found.values())
    # Three cells of the cluster are asked for in two ways.
    assert attempts == 14 * (cells + 3) == 4634
    let = sum(is_let for answers in found.values() for is_let in answers.values())
    with capsys.disabled():
        print(f"\n{attempts} attempts of 14 principals: {let} cells open, {14 * cells - let} refused")  # noqa: T201


async def test_the_super_user_opens_every_lock_so_no_refusal_is_a_malformed_request(place: Place, locks: Locks) -> None:
    async with cluster.Cluster(master(place)) as there:
        before = await there.topics(locks.topics), await there.rights(), await there.users()
        found = await matrix.attempts(master(place), locks)
        assert [str(cell) for cell, is_let in found.items() if not is_let] == []
        # And nothing came of it.
        assert (await there.topics(locks.topics), await there.rights(), await there.users()) == before


def test_the_expectation_itself_refuses_nearly_everything(place: Place, locks: Locks) -> None:
    cells = {cell for cell, _ in locks.questions()}
    bot = {cell for cell in cells if matrix.holds(mapped(place, "agent-bot"), cell)}
    topic = place.topic
    assert bot == {
        Cell(Resource.TOPIC, topic("intents"), "write"),
        Cell(Resource.TOPIC, topic("intents"), "describe"),
        Cell(Resource.TOPIC, topic("vault"), "write"),
        Cell(Resource.TOPIC, topic("vault"), "describe"),
        Cell(Resource.TOPIC, topic("status"), "read"),
        Cell(Resource.TOPIC, topic("status"), "describe"),
        Cell(Resource.CLUSTER, matrix.CLUSTER, "idempotent_write"),
    }


@asynccontextmanager
async def changed(place: Place, right: Right, *, is_there: bool) -> AsyncIterator[None]:
    """With a right that the map does not have, or without one that it has."""
    async with cluster.Cluster(master(place)) as there:
        try:
            await (there.grant([right]) if is_there else withdrawn(place, right))
            yield
        finally:
            await (withdrawn(place, right) if is_there else there.grant([right]))


async def withdrawn(place: Place, right: Right) -> None:
    client = AdminClient(cluster._configuration(master(place)))
    one = cluster._binding(right)
    exactly = AclBindingFilter(
        one.restype, one.name, one.resource_pattern_type, one.principal, one.host, one.operation, one.permission_type
    )
    for future in client.delete_acls([exactly]).values():
        await asyncio.wrap_future(future)
    del client


async def settled(place: Place, locks: Locks, roles: Iterable[str], wanted: set[str]) -> None:
    """A right that was changed reaches the broker a moment later."""
    found: set[str] = set()

    async def is_so() -> bool:
        found.clear()
        found.update(await complained(place, locks, roles))
        return found == wanted

    try:
        await until(is_so, WITHIN)
    except TimeoutError:
        assert found == wanted


def right_of(place: Place, role: str, resource: Resource, name: str, operation: str, **more: str) -> Right:
    user = "*" if role == "*" else place.realm.cast.user(role)
    pattern = Pattern(more.get("pattern", "literal"))
    return Right(f"User:{user}", resource, name, pattern, operation, more.get("permission", "allow"))


@pytest.mark.parametrize(
    ("role", "resource", "name", "operation", "wanted"),
    [
        ("agent-bot", "topic", "decisions", "write", {"write topic decisions", "describe topic decisions"}),
        ("gateway", "topic", "classified", "write", {"write topic classified", "describe topic classified"}),
        ("roster", "topic", "audit", "describe", {"describe topic audit"}),
        ("executor-s3", "topic", "approved.iam", "read", {"read topic approved.iam", "describe topic approved.iam"}),
        (
            "auditor",
            "topic",
            "audit",
            "delete",
            {"delete topic audit", "delete_records topic audit"},
        ),
        (
            "core",
            "topic",
            "audit",
            "alter_configs",
            {"alter_configs topic audit", "describe_configs topic audit"},
        ),
        ("notifier-slack", "group", "core", "read", {"read group core", "describe group core"}),
        (
            "intake",
            "transactional_id",
            "core-0",
            "write",
            {"write transactional_id core-0", "describe transactional_id core-0"},
        ),
    ],
)
async def test_one_right_too_many_is_noticed_and_named(
    place: Place, locks: Locks, role: str, resource: str, name: str, operation: str, wanted: set[str]
) -> None:
    right = right_of(place, role, Resource(resource), place.topic(name), operation)
    expected = {f"{role}: may {' '.join(each.split()[:2])} {place.topic(each.split()[2])}" for each in wanted}
    async with changed(place, right, is_there=True):
        await settled(place, locks, [role], expected)
    await settled(place, locks, [role], set())


@pytest.mark.parametrize("operation", ["alter", "alter_configs", "cluster_action", "create", "idempotent_write"])
async def test_a_right_on_the_cluster_is_noticed(place: Place, locks: Locks, operation: str) -> None:
    right = right_of(place, "auditor", Resource.CLUSTER, matrix.CLUSTER, operation)
    async with changed(place, right, is_there=True):
        await settled_with(place, locks, "auditor", f"auditor: may {operation} cluster {matrix.CLUSTER}")
    await settled(place, locks, ["auditor"], set())


async def settled_with(place: Place, locks: Locks, role: str, one: str) -> None:
    async def is_so() -> bool:
        return one in await complained(place, locks, [role])

    await until(is_so, WITHIN)


async def test_a_right_of_everybody_on_everything_that_begins_alike_is_noticed_of_each(
    place: Place, locks: Locks
) -> None:
    right = right_of(place, "*", Resource.TOPIC, place.topic("c"), "read", pattern="prefixed")
    begins = [place.topic(name) for name in ("cards", "checkpoints", "classified")]
    expected = {
        f"{role}: may {operation} topic {name}"
        for role in place.realm.cast.roles()
        for name in begins
        for operation in ("read", "describe")
        if not matrix.holds(mapped(place, role), Cell(Resource.TOPIC, name, operation))
    }
    assert len(expected) > 2 * len(place.realm.cast.roles())
    async with changed(place, right, is_there=True):
        await settled(place, locks, place.realm.cast.roles(), expected)
    await settled(place, locks, place.realm.cast.roles(), set())


@pytest.mark.parametrize(
    ("role", "name", "operation"),
    [
        ("core", "audit", "write"),
        ("notifier-api", "decisions", "write"),
        ("executor-iam", "approved.iam", "read"),
        ("core", "core-", "write"),
        ("intake", "intake", "read"),
    ],
)
async def test_one_right_too_few_is_noticed(place: Place, locks: Locks, role: str, name: str, operation: str) -> None:
    [right] = (
        right for right in mapped(place, role) if right.name == place.topic(name) and right.operation == operation
    )
    left = [each for each in mapped(place, role) if each != right]
    expected = {
        f"{role}: may not {cell}"
        for cell, _ in locks.questions()
        if matrix.holds([right], cell) and not matrix.holds(left, cell)
    }
    assert expected
    async with changed(place, right, is_there=False):
        await settled(place, locks, [role], expected)
    await settled(place, locks, [role], set())


async def test_a_denial_that_nobody_wrote_down_is_noticed(place: Place, locks: Locks) -> None:
    right = right_of(place, "core", Resource.TOPIC, place.topic("ticks"), "read", permission="deny")
    async with changed(place, right, is_there=True):
        await settled(place, locks, ["core"], {f"core: may not read topic {place.topic('ticks')}"})
    await settled(place, locks, ["core"], set())


async def test_an_answer_that_is_neither_yes_nor_no_is_an_error(place: Place) -> None:
    missing = Locks({place.topic("nothing"): (1, bytes(16))}, (), ())
    with pytest.raises(matrix.ThirdAnswerError):
        await matrix.attempts(master(place), missing)
