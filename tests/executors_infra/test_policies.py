"""The sample policy for stacks says what its comments say."""

from pathlib import Path

import pytest

from executors.infra import plugin
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


def test_staging_needs_nobody_until_something_is_replaced_there() -> None:
    assert judged("staging").effect is Effect.PERMIT
    assert judged("staging", creates=5).effect is Effect.PERMIT
    replaced = judged("staging", replaces=1)
    assert (seats(replaced), replaced.risk) == ({"group:sre": 2}, Risk.HIGH)


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
