"""What makes a plan, and what leaves none: without any S3."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import entry_points

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.aws.sessions import MAX_POLICY, session_name
from executors.contract import ExecutorError, TargetMissingError
from executors.s3 import planning, plugin, sessions
from executors.s3.client import Version, lets_anyone_in
from executors.s3.executor import Settings
from executors.s3.parameters import Export
from executors.s3.planning import Look
from schemas.record import RecordError
from schemas.records import Plan, Property
from tests.executors_s3.acts import export_intent, planning_round


def look(*objects: Version, public: bool | None = False) -> Look:
    """A world with these objects, and nothing in the destination."""
    return Look(
        tuple(objects),
        frozenset(),
        source_versioned=True,
        destination_versioned=True,
        destination_public=public,
    )


def plan_of(seen: Look, **changed: Property) -> Plan:
    """The plan for that world."""
    intent = export_intent("in/", **changed)
    return planning.plan(Export.of(intent), seen, intent, planning_round(intent), 0)


def version(key: str, size: int = 1, etag: str = "e") -> Version:
    """An object of the source."""
    return Version(key, "v1", etag, size)


def test_an_object_of_five_gibibytes_leaves_no_plan_and_one_byte_less_does() -> None:
    assert plan_of(look(version("in/a", 5 * 1024**3 - 1))).measures["largest_bytes"] == 5 * 1024**3 - 1
    with pytest.raises(TargetMissingError, match="less than 5 GiB"):
        plan_of(look(version("in/a", 5 * 1024**3)))


@pytest.mark.parametrize("key", ["in/\u202egnp.exe", "in/\u0000", "in/e\u0301", "in/" + "x" * 1022])
@pytest.mark.parametrize("others", [0, 100])
def test_a_key_that_no_record_can_show_leaves_no_plan(key: str, others: int) -> None:
    objects = [version(f"in/{number:03}") for number in range(others)]
    with pytest.raises(TargetMissingError, match="cannot be shown"):
        plan_of(look(*objects, version(key)))


def test_a_plan_holds_its_list_as_long_as_it_is_short_and_binds_it_always() -> None:
    few, many = (plan_of(look(*(version(f"in/{number:03}") for number in range(count)))) for count in (120, 257))
    wide = plan_of(look(*(version(f"in/{number:03}" + "x" * 800) for number in range(20))))
    assert (len(few.changes), len(many.changes), len(wide.changes)) == (120, 0, 0)
    assert [plan.lists[0].count for plan in (few, many, wide)] == [120, 257, 20]
    assert [planning.UNSEEN in plan.summary for plan in (few, many, wide)] == [False, True, True]
    for plan in (few, many, wide):
        assert Plan.from_bytes(plan.to_bytes()) == plan


def test_every_object_is_told_as_long_as_the_record_holds_it_with_whatever_the_runner_writes_into_it() -> None:
    counts = [
        (count, plan)
        for count in range(1, 257)
        if (plan := plan_of(look(*(version(f"in/{number:03}") for number in range(count))))).changes
    ]
    last, plan = counts[-1]
    assert [count for count, _ in counts] == list(range(1, last + 1))
    assert last > 100
    assert len(plan.model_copy(update={"manifest": 2**53 - 1}).to_bytes()) <= Plan.MAX_BYTES
    one_more = plan.model_copy(update={"changes": (*plan.changes, plan.changes[-1])})
    with pytest.raises(RecordError):
        one_more.model_copy(update={"manifest": 2**53 - 1}).to_bytes()


@given(st.integers(0, 3), st.sampled_from(["key", "version", "etag", "size"]))
def test_any_changed_leaf_of_any_object_is_a_difference(index: int, leaf: str) -> None:
    objects = [version(f"in/{number}") for number in range(4)]
    export, plan = Export.of(export_intent("in/")), plan_of(look(*objects))
    assert planning.difference(export, look(*objects), plan) is None
    old = objects[index]
    changed = {"key": old.key, "version": old.version, "etag": old.etag, "size": old.size}
    changed[leaf] = 99 if leaf == "size" else f"{changed[leaf]}x"
    objects[index] = Version(**changed)  # type: ignore[arg-type]
    assert planning.difference(export, look(*objects), plan)


def test_a_destination_that_cannot_be_read_counts_as_public() -> None:
    for public, counted in ((True, True), (None, True), (False, False)):
        assert plan_of(look(version("in/a"), public=public)).measures["destination_public"] is counted


@pytest.mark.parametrize(
    ("statement", "anyone"),
    [
        ({"Effect": "Allow", "Principal": "*"}, True),
        ({"Effect": "Allow", "Principal": {"AWS": "*"}}, True),
        ({"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::1:root", "*"]}}, True),
        ({"Effect": "Allow", "Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}}, True),
        ({"Effect": "Allow", "NotPrincipal": {"AWS": "arn:aws:iam::1:root"}}, True),
        ({"Effect": "Deny", "Principal": "*"}, False),
        ({"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::1:root"}}, False),
    ],
)
def test_a_bucket_policy_that_names_anyone_makes_the_bucket_public(statement: dict[str, object], anyone: bool) -> None:
    other = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}}
    assert lets_anyone_in(json.dumps({"Statement": statement})) is anyone
    assert lets_anyone_in(json.dumps({"Statement": [other, statement]})) is anyone


@pytest.mark.parametrize(
    "changed",
    [
        {"destination_bucket": "finance", "destination_prefix": "in/copy/"},
        {"destination_bucket": "finance", "destination_prefix": "in/"},
        {"source_prefix": "in"},
        {"source_prefix": "in*/"},
        {"destination_prefix": "${aws:username}/"},
        {"max_objects": True},
        {"source_prefix": ""},
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(changed: dict[str, Property]) -> None:
    with pytest.raises(TargetMissingError):
        Export.of(export_intent("in/", **changed))


def test_an_intent_whose_resource_is_not_what_is_read_is_refused() -> None:
    intent = export_intent("in/")
    for other in ({"id": "harmless"}, {"type": "queue"}):
        resource = intent.resource.model_copy(update=other)
        with pytest.raises(TargetMissingError, match="resource"):
            Export.of(intent.model_copy(update={"resource": resource}))


def test_a_session_policy_names_the_keys_or_the_prefixes_and_always_fits() -> None:
    export = Export.of(export_intent("in/"))
    dies_at = datetime(2026, 1, 1, tzinfo=UTC)
    for objects, resources in (
        ([version("in/a")], ["arn:aws:s3:::finance/in/a"]),
        ([version("in/*")], ["arn:aws:s3:::finance/in/*"]),
        ([version(f"in/{number}") for number in range(200)], ["arn:aws:s3:::finance/in/*"]),
    ):
        text = sessions.acting_policy(export, objects, dies_at)
        assert len(text) <= MAX_POLICY
        document = json.loads(text)
        assert document["Statement"][0]["Resource"] == resources
        for statement in document["Statement"]:
            assert statement["Condition"] == {"DateLessThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}
    for text in (sessions.planning_policy(export), sessions.observing_policy(export)):
        assert len(text) <= MAX_POLICY


def test_a_session_name_is_short_enough_and_keeps_the_ulid() -> None:
    long = f"{'r' * 63}.01HZZZZZZZZZZZZZZZZZZZZZZZ"
    assert len(session_name(long)) == 64
    assert session_name(long).endswith(".01HZZZZZZZZZZZZZZZZZZZZZZZ")


def test_the_manifest_says_what_the_code_does() -> None:
    (found,) = entry_points(group="keyturn.executors", name="s3")
    assert found.load() is plugin
    action = plugin.manifest.actions[0]
    schema = jsonschema_rs.validator_for(action.parameters)
    properties = export_intent("in/").action.properties
    assert schema.is_valid(properties | {"max_objects": 5})
    for wrong in ({"extra": 1}, {"source_prefix": "in"}, {"source_prefix": "a*/"}, {"max_objects": 0}):
        assert not schema.is_valid(properties | wrong)
    kinds = {int: "integer", bool: "boolean", str: "string"}
    assert {name: kinds[type(value)] for name, value in plan_of(look(version("in/a"))).measures.items()} == dict(
        action.measures
    )
    assert action.timeout < action.lease


def test_reading_the_manifest_needs_no_sdk() -> None:
    code = (
        "import sys, executors.s3; sys.exit(any(name.startswith(('aiobotocore', 'botocore')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"region": "r", "read_role": "a", "export_role": "b", "endpiont": "x"},
        {"region": "r", "read_role": "a", "export_role": "b", "access_key": "x"},
    ],
)
def test_settings_that_are_not_whole_are_refused(given_: dict[str, str]) -> None:
    with pytest.raises(ExecutorError):
        Settings.parse(given_)
