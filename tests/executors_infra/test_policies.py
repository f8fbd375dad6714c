"""The sample policy for stacks says what its comments say."""

import re
from pathlib import Path

import pytest

from executors.infra import changes, plugin
from executors.infra.client import ResourceChange
from schemas import examples, policy
from schemas.record import Scalar
from schemas.records import Assurance, Classification, Effect, Fact, Risk
from streams.facts import Catalog
from tests.executors_infra.acts import change_intent

SAMPLES = Path(__file__).parents[2] / "policies"
BOOK = policy.load((SAMPLES / "infra.cedar").read_text(), [plugin.manifest])
HARMLESS: dict[str, Scalar] = {
    "creates": 1,
    "updates": 1,
    "replaces": 0,
    "destroys": 0,
    "stateful_losses": 0,
    "iam_changes": 0,
    "not_ordinary": 0,
    "late_values": 0,
    "is_new_stack": False,
    "termination_protection": False,
    "drift": "not_checked",
}


def judged(environment: str | None, **measures: Scalar) -> Classification:
    known = {"environment": environment, "classification": "internal", "owner": "sre"} if environment else {}
    facts = [Fact(name=name, value=value, source="test", observed_at=0) for name, value in known.items()]
    plan = examples.PLAN.model_copy(update={"measures": HARMLESS | measures}) if measures else None
    return policy.evaluate(BOOK, change_intent("shop", "{}"), facts, plan, examples.NOON)


def seats(found: Classification) -> dict[str, int]:
    return {seat.of: seat.count for seat in found.requirement.seats} if found.requirement else {}


def test_only_ordinary_changes_of_a_staging_stack_that_is_there_need_nobody() -> None:
    assert judged("staging").effect is Effect.PERMIT
    assert judged("staging", creates=5).effect is Effect.PERMIT
    for more in ({"not_ordinary": 1}, {"late_values": 1}, {"is_new_stack": True}):
        assert judged("staging", **more).effect is Effect.REQUIRE_APPROVAL, more
    assert seats(judged("staging", late_values=1)) == {"group:sre": 2}
    replaced = judged("staging", replaces=1)
    assert (seats(replaced), replaced.risk) == ({"group:sre": 2}, Risk.HIGH)


HIGH_STAKES = (
    "AWS::CloudFormation::CustomResource",
    "AWS::CloudFormation::StackSet",
    "AWS::EC2::Instance",
    "AWS::EC2::SecurityGroup",
    "AWS::ECS::TaskDefinition",
    "AWS::Events::Rule",
    "AWS::IAM::AccessKey",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Role",
    "AWS::KMS::Key",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Organizations::Policy",
    "AWS::RAM::ResourceShare",
    "AWS::RDS::DBInstance",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SSO::Assignment",
    "AWS::SecretsManager::ResourcePolicy",
    "Custom::Anything",
    "Somebody::New::Kind",
)


@pytest.mark.parametrize("kind", HIGH_STAKES)
@pytest.mark.parametrize("action", ["Add", "Modify", "Remove", "Import"])
def test_no_kind_that_is_not_on_the_closed_list_is_changed_without_people(kind: str, action: str) -> None:
    made = ResourceChange(action, "X", "", kind, "False", "", (), "", "{}")
    assert judged("staging", **changes.counts([made])).effect is Effect.REQUIRE_APPROVAL


@pytest.mark.parametrize("kind", sorted(changes.ORDINARY))
def test_what_is_ordinary_comes_and_changes_without_people_and_goes_with_them(kind: str) -> None:
    def effect(action: str, replacement: str = "False") -> Effect:
        made = ResourceChange(action, "X", "", kind, replacement, "", (), "", "{}")
        return judged("staging", **changes.counts([made])).effect

    assert effect("Add") is effect("Modify") is Effect.PERMIT
    assert effect("Modify", "Conditional") is effect("Remove") is effect("Import") is Effect.REQUIRE_APPROVAL


def test_what_all_samples_permit_without_people_is_a_closed_list() -> None:
    rules = {
        (sample.name, found)
        for sample in SAMPLES.glob("*.cedar")
        for found in re.findall(r'@id\("([^"]+)"\)\s*@automatic', sample.read_text())
    }
    assert rules == {
        ("infra.cedar", "ordinary-in-staging"),
        ("s3.cedar", "synthetic-staging-data"),
        ("s3.cedar", "delete-made-up-data"),
    }
    assert sum(sample.read_text().count("@automatic") for sample in SAMPLES.glob("*.cedar")) == len(rules)
    assert {"AWS::CloudWatch::Dashboard", "AWS::Logs::MetricFilter", "AWS::SQS::Queue"} == changes.ORDINARY


@pytest.mark.parametrize("environment", ["production", None])
def test_production_and_whatever_nobody_knows_needs_two(environment: str | None) -> None:
    assert seats(judged(environment)) == {"group:sre": 2}


def test_something_in_between_needs_one() -> None:
    assert seats(judged("test")) == {"group:sre": 1}


@pytest.mark.parametrize("environment", ["staging", "test", "production", None])
def test_losing_data_needs_their_owner_and_giving_rights_needs_security(environment: str | None) -> None:
    lost = judged(environment, replaces=1, stateful_losses=1)
    assert seats(lost) == {"group:data-owners": 1, "group:sre": 2}
    assert lost.requirement is not None
    assert (lost.risk, lost.requirement.assurance) == (Risk.CRITICAL, Assurance.IDENTITY)
    assert "group:security" in seats(judged(environment, iam_changes=1))
    assert judged(environment, destroys=1, stateful_losses=1, termination_protection=True).effect is Effect.DENY


@pytest.mark.parametrize(
    ("stack", "environment"), [("shop-staging", "staging"), ("shop-prod", "production"), ("s", None)]
)
async def test_the_catalogue_knows_where_stacks_stand(stack: str, environment: str | None) -> None:
    found = await Catalog(SAMPLES / "catalog.yaml").find(change_intent(stack, "{}"))
    assert found.get("environment") == environment
