"""What makes a plan of a change set, and what its events say: without any CloudFormation."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points

import jsonschema_rs
import pytest

from executors.contract import ExecutorError, Finding, TargetMissingError
from executors.infra import changes, observing, planning, plugin
from executors.infra.client import ChangeSet, Event, ResourceChange, Stack
from executors.infra.executor import Settings
from executors.infra.observing import Came
from executors.infra.parameters import Left, Named, Wish
from executors.infra.planning import Look
from schemas.records import Plan, Property, Reversibility
from tests.executors_infra.acts import change_intent, planning_round, queue, template

AT = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = template(Q=queue("q")), template(Q=queue("q", VisibilityTimeout=60))
STACK_ID = "arn:aws:cloudformation:us-east-1:1:stack/s/1"
ARN = "arn:aws:cloudformation:us-east-1:1:changeSet/keyturn-1/1"


def change(kind: str = "AWS::SQS::Queue", **more: object) -> ResourceChange:
    """One changed resource."""
    made = ResourceChange("Modify", "Q", "q", kind, "False", "", ("VisibilityTimeout",), "", "")
    return replace(made, **more)


def look(*made: ResourceChange, **more: object) -> Look:
    """A stack and a change set with these changes."""
    stack = Stack(STACK_ID, "s", "CREATE_COMPLETE", AT, False, "NOT_CHECKED", None, {})
    change_set = ChangeSet(ARN, "keyturn-1", STACK_ID, "", "CREATE_COMPLETE", "", "AVAILABLE", {}, (), made)
    return replace(Look(stack, change_set, OLD, NEW), **more)


def plan_of(seen: Look) -> Plan:
    """The plan for that world."""
    intent = change_intent("s", NEW)
    return planning.plan(Wish.of(intent), seen, intent, planning_round(intent), 0)


@pytest.mark.parametrize(
    ("more", "verb", "is_lost"),
    [
        ({"action": "Add"}, "create", False),
        ({"action": "Import"}, "attach", False),
        ({"action": "Remove", "policy_action": "Delete"}, "delete", True),
        ({"action": "Remove", "policy_action": "Retain"}, "delete", False),
        ({"action": "Remove"}, "delete", True),
        ({"action": "Remove", "kind": "AWS::SNS::Topic"}, "delete", False),
        ({"action": "Remove", "kind": "Custom::Thing"}, "delete", True),
        ({}, "update", False),
        ({"replacement": "True"}, "replace", True),
        ({"replacement": "Conditional"}, "replace", True),
        ({"replacement": ""}, "replace", True),
        ({"replacement": "True", "policy_action": "ReplaceAndSnapshot"}, "replace", False),
    ],
)
def test_what_may_be_lost_is_said_and_what_is_not_known_counts_as_lost(
    more: dict[str, str], verb: str, *, is_lost: bool
) -> None:
    plan = plan_of(look(change(**more)))
    assert (plan.changes[0].verb, plan.measures["stateful_losses"]) == (verb, int(is_lost))
    assert (plan.reversibility is Reversibility.NONE) is is_lost
    assert plan.undo.startswith("None") is is_lost


def test_before_and_after_are_the_providers_own_words_where_it_gives_them() -> None:
    (given,) = plan_of(look(change(before='{"Properties":{"T":"é"}}', after='{"Properties":{"T":"2"}}'))).changes
    assert (given.detail["before"], given.detail["after"]) == (
        '{"Properties":{"T":"\\u00e9"}}',
        '{"Properties":{"T":"2"}}',
    )
    (read,) = plan_of(look(change())).changes
    assert (read.detail["before"], read.detail["after"]) == ("{}", '{"VisibilityTimeout":60}')
    (yaml,) = plan_of(look(change(), previous="Resources: {}", template="Resources: {}")).changes
    assert "before" not in yaml.detail
    (added,) = plan_of(look(change(action="Add", scope=()))).changes
    assert '"VisibilityTimeout":60' in str(added.detail["after"])


@pytest.mark.parametrize("length", [301, 5_000, 20_000])
def test_a_long_value_is_shown_to_its_last_character(length: int) -> None:
    document = json.dumps({"Statement": "x" * length + "the dangerous end"})
    (given,) = plan_of(look(change(after=document))).changes
    assert "the dangerous end" in str(given.detail["after"])


def test_a_plan_tells_every_change_or_there_is_none() -> None:
    plan = plan_of(look(*(change(logical_id=f"Q{number}") for number in range(128))))
    assert (len(plan.changes), plan.lists[0].count) == (128, 128)
    assert Plan.from_bytes(plan.to_bytes()) == plan
    with pytest.raises(TargetMissingError, match="257 changes are more than one plan can show"):
        plan_of(look(*(change(logical_id=f"Q{number}") for number in range(257))))
    with pytest.raises(TargetMissingError, match=r"ask in parts|cannot be shown whole"):
        plan_of(look(*(change(logical_id=f"Q{number}", after='"' + "x" * 600 + '"') for number in range(64))))
    with pytest.raises(TargetMissingError, match=r"ask in parts|cannot be shown whole"):
        plan_of(look(change(after='"' + "x" * 33_000 + '"')))


def test_what_is_lost_stands_before_whatever_pads_it() -> None:
    padding = [change(logical_id=f"A{number:03}") for number in range(60)]
    role = change("AWS::IAM::Role", action="Add", logical_id="Y")
    lost = change("AWS::RDS::DBInstance", action="Remove", logical_id="Z")
    assert [each.target for each in plan_of(look(*padding, role, lost)).changes[:3]] == ["s/Z", "s/Y", "s/A000"]


@pytest.mark.parametrize(
    "made",
    [
        {"arn": ARN[:-1] + "2"},
        {"name": "keyturn-2"},
        {"description": "somebody's"},
    ],
)
def test_a_change_set_other_than_the_one_our_call_made_is_not_ours(made: dict[str, str]) -> None:
    ours = replace(look(change()).change_set, description="Keyturn: x")
    named = Named("token", ours.name, ours.description)
    planning.require_ours(ours, ARN, named)
    with pytest.raises(TargetMissingError, match="is not the change set that was made here"):
        planning.require_ours(replace(ours, **made), ARN, named)


@pytest.mark.parametrize("kind", sorted(planning.NESTED))
def test_what_changes_elsewhere_or_is_no_resource_is_refused(kind: str) -> None:
    with pytest.raises(TargetMissingError, match="can't be shown here"):
        planning.require_made(look(change(kind)).change_set)
    with pytest.raises(TargetMissingError, match="2 entries of the change set are no changes"):
        planning.require_made(replace(look(change()).change_set, strange=2))


def test_a_template_in_a_bucket_must_be_told_by_the_provider_or_be_readable() -> None:
    intent = change_intent("s", None, template_url="https://b/t", template_sha256="0" * 64)

    def planned(template_: str, **more: object) -> Plan:
        seen = look(change(action="Add", scope=(), **more), template=template_)
        return planning.plan(Wish.of(intent), seen, intent, planning_round(intent), 0)

    assert planned(NEW).changes[0].detail["after"]
    assert planned("Resources: {}", after="{}").changes
    with pytest.raises(TargetMissingError, match="what Q will be can't be shown"):
        planned("Resources: {}")
    with pytest.raises(TargetMissingError, match="what Q will be can't be shown"):
        planned(template(Q=queue("q", VisibilityTimeout={"Fn::FindInMap": ["A", "B", "C"]})))


@pytest.mark.parametrize(
    "seen",
    [
        {"template": template(Q=queue("{{resolve:ssm:/x:1}}"))},
        {"template": template(Q=queue("q", A={"Fn::ImportValue": "other-stack"}))},
        {"template": '{"Parameters":{"P":{"Type":"AWS::SSM::Parameter::Value<String>"}}}'},
        {"template": "Resources:\n  Q:\n    Properties:\n      A: !ImportValue other\n"},
        {"template": '{"Resources":{"Q":{"Type":"x","A":"\\u007b\\u007bresolve:ssm:x}}"}}}'},
        {"change_set": replace(look(change()).change_set, parameters={"P": "{{resolve:secretsmanager:s}}"})},
        {"change_set": look(change(after='{"A":"{{resolve:ssm-secure:joined}}"}')).change_set},
    ],
)
def test_what_is_looked_up_only_when_it_is_done_is_counted_and_said(seen: dict[str, object]) -> None:
    plan = plan_of(look(change(), **seen))
    assert plan.measures["late_values"] == 1
    assert "LOOKED UP WHEN IT IS DONE" in plan.summary


@pytest.mark.parametrize(
    "value",
    [
        r'"\x7b\x7bresolve:ssm:/admin:1}}"',
        r'"\u007b{resolve:ssm:/admin:1}}"',
        r'"\U0000007b{resolve:ssm:/admin:1}}"',
        '"{{res\\\n      olve:ssm:/admin:1}}"',
        r'{"Fn::Import\x56alue": other}',
        "{{resolve:ssm:/admin:1}}",
    ],
)
def test_an_escape_of_yaml_hides_no_late_value(value: str) -> None:
    assert changes.late_values(f"Resources:\n  A:\n    Type: {value}\n")


@pytest.mark.parametrize("value", [r'"\x00\UFFFFFFFF"', r'"C:\x7bin"', '"{ { resolve:x } }"'])
def test_what_only_looks_like_an_escape_is_read_too(value: str) -> None:
    assert not changes.late_values(f"Resources: {value}\n")


def test_a_member_that_a_template_has_twice_hides_nothing() -> None:
    twice = '{"Resources":{"Q":{"Type":"A","P":"{{resolve:ssm:/admin:1}}"},"Q":{"Type":"A"}}}'
    assert changes.late_values(twice)
    # Which of the two CloudFormation takes is its own to know: neither is shown as what will be.
    assert changes.read_template(twice) == {}


def test_nothing_looked_up_late_is_no_late_value() -> None:
    plan = plan_of(look(change("AWS::SSM::Parameter")))
    assert plan.measures["late_values"] == 0
    assert "LOOKED UP" not in plan.summary


def test_any_changed_leaf_of_the_look_is_a_difference() -> None:
    seen = look(change())
    plan = plan_of(seen)
    assert planning.difference(seen, plan) is None
    made, stack = seen.change_set, seen.stack
    for other in (
        replace(seen, template=OLD),
        replace(seen, previous=NEW),
        replace(seen, stack=replace(stack, status="UPDATE_COMPLETE")),
        replace(seen, stack=replace(stack, updated=AT + timedelta(seconds=1))),
        replace(seen, change_set=replace(made, execution="OBSOLETE")),
        replace(seen, change_set=replace(made, parameters={"A": "1"})),
        replace(seen, change_set=replace(made, capabilities=("CAPABILITY_IAM",))),
        *(
            replace(seen, change_set=replace(made, changes=(change(**{leaf: "other"}),)))
            for leaf in ("action", "logical_id", "physical_id", "replacement", "policy_action", "before", "after")
        ),
    ):
        assert planning.difference(other, plan)


def test_drift_and_a_previous_template_too_long_to_keep_are_told() -> None:
    stack = look().stack
    assert "Nobody has looked" in plan_of(look(change())).summary
    drifted = look(change(), stack=replace(stack, drift="DRIFTED", drift_checked=AT))
    assert "Resources were changed by hand (drift seen 2026-01-01 00:00 UTC)" in plan_of(drifted).summary
    assert "the journal keeps it" in plan_of(look(change())).undo
    assert "have it ready" in plan_of(look(change(), previous="x" * 300_000)).undo
    assert "have it ready" in plan_of(look(change(), previous="e\u0301")).undo


@pytest.mark.parametrize(
    "changed",
    [
        {"stack": "1s"},
        {"template_url": "https://b/t"},
        {"parameters": ("A=1", "A=2")},
        {"parameters": ("A",)},
        {"parameters": ("A=1",), "keep_parameters": ("A",)},
        {"parameters": (1,)},
        {"capabilities": "CAPABILITY_IAM"},
        {"template_body": ""},
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(changed: dict[str, Property]) -> None:
    intent = change_intent("s", NEW)
    action = intent.action.model_copy(update={"properties": intent.action.properties | changed})
    with pytest.raises(TargetMissingError):
        Wish.of(intent.model_copy(update={"action": action}))
    with pytest.raises(TargetMissingError, match="resource"):
        Wish.of(intent.model_copy(update={"resource": intent.resource.model_copy(update={"id": "other"})}))


def test_the_names_of_a_round_say_whose_it_is_and_cannot_be_foreseen() -> None:
    intent = change_intent("s", NEW)
    one, again, two = (
        Named.of(intent, planning_round(intent, number), chance)
        for number, chance in ((1, b"a" * 16), (1, b"b" * 16), (2, b"a" * 16))
    )
    other = Named.of(change_intent("s", OLD), planning_round(intent), b"a" * 16)
    made = (one, again, two, other)
    assert len({each.name for each in made}) == len({each.token for each in made}) == 4
    assert Left.of(one.name, one.description) == Left(intent.id, 1, 3600)
    assert Left.of("keyturn-elsewhere", one.description) is None
    assert Left.of(one.name, "somebody's") is None
    assert len(one.name) <= 128


def event(status: str, logical_id: str = "s", **more: object) -> Event:
    """Something that happened."""
    is_of_stack = logical_id == "s"
    made = Event(AT, logical_id, STACK_ID if is_of_stack else "q", "AWS::SQS::Queue", status, "", "token", is_of_stack)
    return replace(made, **more)


@pytest.mark.parametrize(
    ("events", "came", "finding"),
    [
        ([], Came.NOTHING, Finding.NOT_APPLIED),
        (["UPDATE_IN_PROGRESS"], Came.RUNS, Finding.UNKNOWN),
        (["UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"], Came.RUNS, Finding.UNKNOWN),
        (["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"], Came.SUCCEEDED, Finding.APPLIED),
        (["CREATE_IN_PROGRESS", "CREATE_COMPLETE"], Came.SUCCEEDED, Finding.APPLIED),
        (["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS"], Came.RUNS, Finding.UNKNOWN),
        (["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"], Came.ROLLED_BACK, Finding.NOT_APPLIED),
        (["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED"], Came.STUCK, Finding.PARTIAL),
    ],
)
def test_events_of_our_token_say_what_came_of_it(events: list[str], came: Came, finding: Finding) -> None:
    found = observing.seen([event(status) for status in events])
    assert found.came is came
    assert observing.observation(plan_of(look(change())), found, "AVAILABLE").finding is finding


@pytest.mark.parametrize(
    ("execution", "finding"),
    [
        (None, Finding.NOT_APPLIED),
        ("AVAILABLE", Finding.NOT_APPLIED),
        ("OBSOLETE", Finding.NOT_APPLIED),
        ("EXECUTE_COMPLETE", Finding.CONFLICT),
        ("EXECUTE_IN_PROGRESS", Finding.CONFLICT),
    ],
)
def test_without_an_event_of_ours_nothing_of_ours_was_done(execution: str | None, finding: Finding) -> None:
    assert observing.observation(plan_of(look(change())), observing.seen([]), execution).finding is finding


def test_the_first_failures_are_the_reason() -> None:
    failed = [event("CREATE_FAILED", name, reason=f"no {name}") for name in "abcdef"]
    found = observing.seen([event("CREATE_IN_PROGRESS"), *failed, event("ROLLBACK_COMPLETE")])
    assert found.why == "ROLLBACK_COMPLETE: a: no a; b: no b; c: no c; d: no d"


def test_the_manifest_says_what_the_code_does() -> None:
    (found,) = entry_points(group="keyturn.executors", name="infra")
    assert found.load() is plugin
    (action,) = plugin.manifest.actions
    schema = jsonschema_rs.validator_for(action.parameters)
    by_url = {"stack": "s", "template_url": "https://b/t", "template_sha256": "0" * 64}
    for right in ({"stack": "s", "template_body": NEW}, by_url, by_url | {"parameters": ["A=1"]}):
        assert schema.is_valid(right)
    for wrong in (
        {"stack": "s"},
        by_url | {"template_body": NEW},
        {"stack": "s", "template_url": "https://b/t"},
        {"stack": "s", "template_body": NEW, "template_sha256": "0" * 64},
        by_url | {"capabilities": ["CAPABILITY_ALL"]},
        by_url | {"parameters": ["A"]},
        by_url | {"extra": 1},
        by_url | {"stack": "a/b"},
    ):
        assert not schema.is_valid(wrong)
    kinds = {int: "integer", bool: "boolean", str: "string"}
    measured = plan_of(look(change())).measures
    assert {name: kinds[type(value)] for name, value in measured.items()} == dict(action.measures)
    assert action.timeout < action.lease


def test_reading_the_manifest_needs_no_sdk() -> None:
    code = "import sys, executors.infra; sys.exit(any(name.startswith('aiobotocore') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"region": "r", "read_role": "arn:aws:iam::1:role/r", "plan_role": "p", "act_role": "arn:aws:iam::1:role/a"},
        {"region": "r", "read_role": "arn:aws:iam::1:role/r", "act_role": "arn:aws:iam::1:role/a"},
    ],
)
def test_settings_that_are_not_whole_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ExecutorError):
        Settings.parse(given)
