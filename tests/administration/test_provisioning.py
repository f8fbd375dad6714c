import secrets
from collections.abc import Iterable

import pytest
from aiokafka import TopicPartition
from confluent_kafka.admin import AclBinding, AclBindingFilter, AdminClient  # type: ignore[attr-defined]

from schemas import envelope
from schemas.records import Genesis
from schemas.topics import TOPICS
from streams import administration, connection, findings
from streams.access import Pattern, Resource, Right
from streams.administration import Admin, ProvisioningError, settings_of
from streams.cluster import Cluster, GroupIsLiveError, _binding, _configuration
from streams.errors import ConnectionRefusedByKafkaError
from streams.findings import Finding, Verdict
from streams.realm import lay_out
from tests.administration.conftest import PARTITIONS, NewRealm, Place

INPUTS = [topic.name for topic in TOPICS if topic.is_input and topic.is_partitioned]


def wrong(facts: Iterable[Finding]) -> list[Finding]:
    return [fact for fact in facts if not fact.is_ok]


async def examined(place: Place) -> list[Finding]:
    return wrong(await administration.examine(place.folder, place.admin))


def remove_rights(place: Place, right: Right) -> None:
    """What an operator does with kafka-acls --remove."""
    one: AclBinding = _binding(right)
    exactly = AclBindingFilter(
        one.restype, one.name, one.resource_pattern_type, one.principal, one.host, one.operation, one.permission_type
    )
    client = AdminClient(_configuration(settings_of(place.home, place.admin)))
    for future in client.delete_acls([exactly]).values():
        future.result(20)


async def ends(place: Place) -> dict[tuple[str, int], int]:
    settings = settings_of(place.home, place.admin)
    consumer = connection.reader(settings)
    await connection.start(consumer, settings)
    try:
        places = [TopicPartition(place.topic(name), partition) for name in INPUTS for partition in range(PARTITIONS)]
        return {(at.topic, at.partition): end for at, end in (await consumer.end_offsets(places)).items()}
    finally:
        await consumer.stop()


async def test_applying_again_changes_nothing(place: Place) -> None:
    before = await ends(place)
    facts = await administration.apply(place.folder, place.admin)
    assert wrong(facts) == []
    assert await ends(place) == before
    assert set(before.values()) == {1}, "one first record in every partition, however often we apply"


async def test_first_records_say_where_they_stand_and_the_root_key_signed_them(place: Place) -> None:
    settings = settings_of(place.home, place.admin)
    consumer = connection.reader(settings)
    await connection.start(consumer, settings)
    try:
        places = [TopicPartition(place.topic(name), partition) for name in INPUTS for partition in range(PARTITIONS)]
        consumer.assign(places)
        for at in places:
            consumer.seek(at, 0)
        records = [await consumer.getone() for _ in places]
    finally:
        await consumer.stop()
    root = place.home.signer("root")
    told = {}
    for record in records:
        statement = envelope.unseal(record.headers, record.value, (Genesis,))
        told[record.topic, record.partition] = statement.read(Genesis)
        assert statement.keyid == root.keyid
    assert told == {
        (at.topic, at.partition): Genesis(realm="example", topic=at.topic, partition=at.partition) for at in places
    }


async def test_intake_starts_after_the_first_record(place: Place) -> None:
    async with Cluster(settings_of(place.home, place.admin)) as cluster:
        committed = await cluster.committed(place.topic("intake"), place.topic("intents"))
    assert committed == dict.fromkeys(range(PARTITIONS), 1)


async def test_an_offset_that_intake_committed_is_left_alone(place: Place) -> None:
    group, intents = place.topic("intake"), place.topic("intents")
    async with Cluster(settings_of(place.home, place.admin)) as cluster:
        await cluster.commit(group, intents, {0: 7})
        await administration.apply(place.folder, place.admin)
        assert (await cluster.committed(group, intents))[0] == 7
        await cluster.commit(group, intents, {0: 1})


async def test_offsets_of_a_group_with_somebody_in_it_are_not_set(place: Place) -> None:
    settings = place.home.settings("intake")
    consumer = connection.reader(settings, group=place.topic("intake"))
    consumer.subscribe([place.topic("intents")])
    await connection.start(consumer, settings)
    try:
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=50)
        async with Cluster(settings_of(place.home, place.admin)) as cluster:
            with pytest.raises(GroupIsLiveError, match="stop its processes"):
                await cluster.commit(place.topic("intake"), place.topic("intents"), {0: 1})
    finally:
        await consumer.stop()


async def test_a_missing_right_is_found_and_given_back(place: Place) -> None:
    right = Right(
        f"User:{place.realm.user_prefix}notifier-api",
        Resource.TOPIC,
        place.topic("decisions"),
        Pattern.LITERAL,
        "write",
    )
    remove_rights(place, right)
    (finding,) = await examined(place)
    assert finding.verdict is Verdict.MISSING
    assert str(right) in finding.detail
    assert wrong(await administration.apply(place.folder, place.admin)) == []


@pytest.mark.parametrize("name", ["decisions", "*", ""], ids=["a topic", "a wildcard", "a prefix"])
async def test_a_superfluous_right_is_found_told_and_left(place: Place, name: str) -> None:
    stranger = Right(
        "User:eve",
        Resource.TOPIC,
        name if name == "*" else place.realm.prefix + name,
        Pattern.LITERAL if name else Pattern.PREFIXED,
        "write",
    )
    async with Cluster(settings_of(place.home, place.admin)) as cluster:
        await cluster.grant([stranger])
    try:
        for facts in (await examined(place), wrong(await administration.apply(place.folder, place.admin))):
            assert [fact.verdict for fact in facts] == [Verdict.SUPERFLUOUS]
            assert "User:eve may write" in str(facts[0])
        with pytest.raises(ProvisioningError, match="User:eve"):
            await administration.provision(place.folder, place.admin)
    finally:
        remove_rights(place, stranger)


async def test_a_changed_setting_is_found_and_set_back_without_touching_others(place: Place) -> None:
    audit = place.topic("audit")
    async with Cluster(settings_of(place.home, place.admin)) as cluster:
        await cluster.set_topic(audit, {"cleanup.policy": "delete", "segment.ms": "86400000"})
        (finding,) = await examined(place)
        assert finding.verdict is Verdict.DIFFERS
        assert finding.what == f"topic {audit}"
        assert wrong(await administration.apply(place.folder, place.admin)) == []
        settings = (await cluster.topics([audit]))[audit].settings
    assert settings["cleanup.policy"] == "compact"
    assert settings["segment.ms"] == "86400000"
    assert settings["min.compaction.lag.ms"] == "9223372036854775807"


async def test_a_longer_retention_is_not_shortened(place: Place) -> None:
    intents = place.topic("intents")
    async with Cluster(settings_of(place.home, place.admin)) as cluster:
        await cluster.set_topic(intents, {"retention.ms": "-1"})
        assert wrong(await administration.apply(place.folder, place.admin)) == []
        assert (await cluster.topics([intents]))[intents].settings["retention.ms"] == "-1"


async def test_a_realm_with_another_number_of_partitions_is_refused_and_nothing_done(new_realm: NewRealm) -> None:
    place = new_realm()
    await administration.provision(place.folder, place.admin)
    text = place.home.realm_file.read_text()
    place.home.realm_file.write_text(text.replace(f"partitions: {PARTITIONS}", "partitions: 3"))
    async with Cluster(settings_of(place.home, place.admin)) as cluster:
        await cluster.set_topic(place.topic("audit"), {"cleanup.policy": "delete"})
        with pytest.raises(ProvisioningError, match="has 2 partitions, the realm says 3"):
            await administration.apply(place.folder, place.admin)
        audit = place.topic("audit")
        assert (await cluster.topics([audit]))[audit].settings["cleanup.policy"] == "delete"


async def test_a_partition_that_begins_with_another_realms_record_is_refused(new_realm: NewRealm) -> None:
    place = new_realm()
    await administration.provision(place.folder, place.admin)
    for name in ("root.key", "root.pub"):
        (place.folder / "keys" / name).unlink()
    (place.folder / "env" / "administration.env").unlink()
    lay_out(place.folder, place.realm, [], secrets.token_bytes)
    with pytest.raises(ProvisioningError, match="another record than our root key's"):
        await administration.apply(place.folder, place.admin)


async def test_a_realm_that_has_grown_by_an_executor_gets_its_topics(new_realm: NewRealm) -> None:
    place = new_realm()
    await administration.provision(place.folder, place.admin)
    grown = place.realm.model_copy(update={"executors": ("iam",)})
    lay_out(place.folder, grown, [], secrets.token_bytes)
    missing = await examined(place)
    assert {fact.verdict for fact in missing} == {Verdict.MISSING}
    await administration.provision(place.folder, place.admin)
    wanted = findings.Wanted(place.realm.names, place.realm.cast, PARTITIONS, 1, 1)
    assert place.topic("approved.iam") in wanted.topics()


async def test_passwords_can_be_given_anew(new_realm: NewRealm) -> None:
    place = new_realm()
    await administration.provision(place.folder, place.admin)
    (place.folder / "passwords" / "core").write_text("another-password\n")
    await administration.apply(place.folder, place.admin, resets_passwords=True)
    settings = place.home.settings("core")
    consumer = connection.reader(settings)
    await connection.start(consumer, settings)
    await consumer.topics()
    await consumer.stop()


async def test_a_wrong_password_of_the_administrator_is_said_at_once(place: Place) -> None:
    with pytest.raises(ConnectionRefusedByKafkaError, match="password"):
        await administration.examine(place.folder, Admin(place.admin.username, "wrong"))
