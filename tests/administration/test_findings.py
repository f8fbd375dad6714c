from dataclasses import replace

import pytest

from schemas.authority import MAY_SIGN
from schemas.records import Decision, Intent
from schemas.topics import TOPICS, Names, Principal
from streams import access, findings
from streams.access import Cast, Pattern, Resource, Right
from streams.findings import (
    AddUser,
    Begin,
    CommitFirst,
    CreateTopic,
    First,
    Found,
    Grant,
    SetTopic,
    Verdict,
)

CAST = Cast(("s3", "iam"), ("api",), ("bot",))
WANTED = findings.Wanted(Names("keyturn."), CAST, partitions=3, replicas=3, min_insync_replicas=2)
NOTHING = Found({}, frozenset(), frozenset(), {}, frozenset())
RIGHTS = access.rights(WANTED.names, CAST)
AS_IT_MUST_BE = Found(
    WANTED.topics(),
    RIGHTS,
    frozenset(CAST.roles()),
    dict.fromkeys(WANTED.beginnings(), First.GENESIS),
    frozenset(range(3)),
)
AUDIT = "keyturn.audit"


def wrong(found: Found) -> list[findings.Finding]:
    return [finding for finding in findings.compare(WANTED, found) if not finding.is_ok]


def with_topic(name: str, **settings: str) -> Found:
    topic = AS_IT_MUST_BE.topics[name]
    changed = replace(topic, settings={**topic.settings, **{key.replace("_", "."): it for key, it in settings.items()}})
    return replace(AS_IT_MUST_BE, topics={**AS_IT_MUST_BE.topics, name: changed})


def test_as_it_must_be_there_is_nothing_to_do() -> None:
    assert wrong(AS_IT_MUST_BE) == []


def test_on_an_empty_cluster_everything_is_missing_and_can_be_mended() -> None:
    missing = wrong(NOTHING)
    assert {finding.verdict for finding in missing} == {Verdict.MISSING}
    kinds = [type(finding.remedy) for finding in missing]
    assert kinds.count(CreateTopic) == len(list(WANTED.names.all(CAST.executors)))
    assert kinds.count(AddUser) == len(CAST.roles())
    assert frozenset().union(*(it.remedy.rights for it in missing if isinstance(it.remedy, Grant))) == RIGHTS


def test_nobody_may_write_before_the_first_records_are_there() -> None:
    kinds = [type(finding.remedy) for finding in wrong(NOTHING)]
    order = [CreateTopic, Begin, CommitFirst, AddUser, Grant]
    assert [order.index(kind) for kind in kinds] == sorted(order.index(kind) for kind in kinds)


def test_a_setting_that_differs_is_set_and_no_other() -> None:
    (finding,) = wrong(with_topic(AUDIT, cleanup_policy="delete"))
    assert finding.verdict is Verdict.DIFFERS
    assert finding.remedy == SetTopic(AUDIT, {"cleanup.policy": "compact"})


@pytest.mark.parametrize(
    ("topic", "settings", "is_fine"),
    [
        ("keyturn.intents", {"retention_ms": "-1"}, True),
        ("keyturn.intents", {"retention_ms": str(40 * 24 * 3600 * 1000)}, True),
        ("keyturn.intents", {"retention_ms": "1000"}, False),
        ("keyturn.intents", {"retention_bytes": "1000000"}, False),
        ("keyturn.audit", {"retention_ms": str(10**15)}, False),
        ("keyturn.audit", {"min_compaction_lag_ms": "0"}, False),
        ("keyturn.audit", {"min_insync_replicas": "3"}, True),
        ("keyturn.audit", {"min_insync_replicas": "1"}, False),
        ("keyturn.audit", {"unclean_leader_election_enable": "true"}, False),
        ("keyturn.audit", {"message_timestamp_type": "CreateTime"}, False),
        ("keyturn.audit", {"segment_ms": "1"}, True),
    ],
)
def test_more_than_the_map_asks_for_is_kept_and_less_is_raised(
    topic: str, settings: dict[str, str], is_fine: bool
) -> None:
    assert (wrong(with_topic(topic, **settings)) == []) is is_fine


def test_another_number_of_partitions_is_refused() -> None:
    topic = replace(AS_IT_MUST_BE.topics["keyturn.intents"], partitions=4)
    (finding,) = wrong(replace(AS_IT_MUST_BE, topics={**AS_IT_MUST_BE.topics, "keyturn.intents": topic}))
    assert (finding.verdict, finding.remedy) == (Verdict.REFUSED, None)


def test_too_few_replicas_are_for_a_person_to_mend() -> None:
    topic = replace(AS_IT_MUST_BE.topics[AUDIT], replicas=1)
    (finding,) = wrong(replace(AS_IT_MUST_BE, topics={**AS_IT_MUST_BE.topics, AUDIT: topic}))
    assert (finding.verdict, finding.remedy) == (Verdict.DIFFERS, None)


@pytest.mark.parametrize(
    ("first", "verdict"),
    [(First.EMPTY, Verdict.MISSING), (First.FOREIGN, Verdict.REFUSED), (First.EXPIRED, None), (First.GENESIS, None)],
)
def test_a_partition_begins_with_genesis_or_did(first: First, verdict: Verdict | None) -> None:
    place = ("keyturn.reports", 1)
    found = wrong(replace(AS_IT_MUST_BE, firsts={**AS_IT_MUST_BE.firsts, place: first}))
    assert [finding.verdict for finding in found] == ([verdict] if verdict else [])
    if verdict is Verdict.MISSING:
        assert found[0].remedy == Begin((place,))


def test_only_partitions_without_an_offset_get_one() -> None:
    (finding,) = wrong(replace(AS_IT_MUST_BE, committed=frozenset({1})))
    assert finding.remedy == CommitFirst((0, 2))


@pytest.mark.parametrize(
    "stranger",
    [
        Right("User:eve", Resource.TOPIC, "keyturn.decisions", Pattern.LITERAL, "write"),
        Right("User:eve", Resource.TOPIC, "key", Pattern.PREFIXED, "read"),
        Right("User:eve", Resource.TOPIC, "keyturn.a", Pattern.PREFIXED, "read"),
        Right("User:*", Resource.TOPIC, "*", Pattern.LITERAL, "all"),
        Right("User:eve", Resource.GROUP, "keyturn.core", Pattern.LITERAL, "read"),
        Right("User:eve", Resource.TRANSACTIONAL_ID, "keyturn.core-", Pattern.PREFIXED, "write"),
        Right("User:core", Resource.CLUSTER, "kafka-cluster", Pattern.LITERAL, "idempotent_write"),
        Right("User:agent-bot", Resource.TOPIC, "other", Pattern.LITERAL, "read"),
        Right("User:core", Resource.TOPIC, "keyturn.intents", Pattern.LITERAL, "read", permission="deny"),
    ],
    ids=str,
)
def test_a_right_that_no_role_needs_is_told_and_stays(stranger: Right) -> None:
    (finding,) = wrong(replace(AS_IT_MUST_BE, rights=RIGHTS | {stranger}))
    assert (finding.verdict, finding.remedy) == (Verdict.SUPERFLUOUS, None)
    assert str(stranger) in str(finding)


@pytest.mark.parametrize(
    "neighbour",
    [
        Right("User:eve", Resource.TOPIC, "billing", Pattern.LITERAL, "write"),
        Right("User:eve", Resource.TOPIC, "billing.", Pattern.PREFIXED, "write"),
        Right("User:admin", Resource.CLUSTER, "kafka-cluster", Pattern.LITERAL, "alter"),
    ],
    ids=str,
)
def test_the_rights_of_neighbours_are_theirs(neighbour: Right) -> None:
    assert wrong(replace(AS_IT_MUST_BE, rights=RIGHTS | {neighbour})) == []


def test_every_single_right_is_missed() -> None:
    for right in RIGHTS:
        (finding,) = wrong(replace(AS_IT_MUST_BE, rights=RIGHTS - {right}))
        assert finding.remedy == Grant(frozenset({right}))


def test_two_realms_with_their_own_prefixes_do_not_see_one_another() -> None:
    cast = replace(CAST, user_prefix="other.")
    theirs = access.rights(Names("other."), cast)
    assert wrong(replace(AS_IT_MUST_BE, rights=RIGHTS | theirs)) == []


# ---------------------------------------------------------------- the map itself


def granted(user: str) -> set[tuple[str, str]]:
    return {
        (right.operation, right.name.removeprefix("keyturn."))
        for right in RIGHTS
        if right.principal == f"User:{user}" and right.resource is Resource.TOPIC
    }


def test_nobody_has_a_right_on_the_cluster_and_only_the_core_on_transactional_ids() -> None:
    assert {right.resource for right in RIGHTS} == {Resource.TOPIC, Resource.GROUP, Resource.TRANSACTIONAL_ID}
    holders = {right.principal for right in RIGHTS if right.resource is Resource.TRANSACTIONAL_ID}
    assert holders == {"User:core"}


def test_rights_are_only_to_read_and_to_write() -> None:
    assert {right.operation for right in RIGHTS} == {"read", "write"}
    assert {right.permission for right in RIGHTS} == {"allow"}


def test_an_executor_has_its_own_topics_and_no_other_executors() -> None:
    assert {name for _, name in granted("executor-s3") if name.endswith((".s3", ".iam"))} == {
        "planning.s3",
        "approved.s3",
        "journal.s3",
    }


def test_an_agent_asks_and_hears_of_it_and_no_more() -> None:
    assert granted("agent-bot") == {("write", "intents"), ("read", "status"), ("write", "vault")}


def test_who_asks_cannot_answer() -> None:
    writers = {topic.name: topic.writers for topic in TOPICS}
    # An operator puts bytes back that others signed, and its own key signs neither.
    assert MAY_SIGN[Intent.TYPE].isdisjoint(MAY_SIGN[Decision.TYPE])
    assert "operator" not in MAY_SIGN[Intent.TYPE] | MAY_SIGN[Decision.TYPE]
    assert writers["decisions"] - {Principal.OPERATOR} == {Principal.NOTIFIER}
    assert (writers["intents"] - {Principal.OPERATOR}).isdisjoint(writers["decisions"])


def test_inputs_have_no_writer_that_could_write_transactions() -> None:
    for topic in TOPICS:
        if topic.is_input and topic.name != "ticks":
            assert Principal.CORE not in topic.writers, topic.name


def test_topics_the_core_writes_in_transactions_have_no_other_writer() -> None:
    for topic in TOPICS:
        assert topic.is_transactional is (topic.writers == {Principal.CORE} and topic.name != "ticks"), topic.name
