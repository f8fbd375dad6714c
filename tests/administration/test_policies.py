"""The sample policy says what its comments say."""

from pathlib import Path

import pytest
import yaml

from executors.s3 import plugin
from schemas import examples, policy
from schemas.record import Scalar
from schemas.records import Assurance, Classification, Effect, Fact, Risk, Seat
from streams.facts import Catalog, CatalogEntry

SAMPLES = Path(__file__).parents[2] / "policies"
BOOK = policy.load((SAMPLES / "s3.cedar").read_text(), [plugin.manifest])
SYNTHETIC = {"environment": "staging", "classification": "synthetic", "owner": "platform"}
INTERNAL = {"environment": "production", "classification": "internal", "owner": "data-owners"}


def judged(facts: dict[str, str], **measures: Scalar) -> Classification:
    known = [Fact(name=name, value=value, source="test", observed_at=0) for name, value in facts.items()]
    plan = examples.PLAN.model_copy(update={"measures": measures}) if measures else None
    return policy.evaluate(BOOK, examples.INTENT, known, plan, examples.NOON)


def delete_judged(facts: dict[str, str], **measures: Scalar) -> Classification:
    known = [Fact(name=name, value=value, source="test", observed_at=0) for name, value in facts.items()]
    plan = examples.PLAN.model_copy(update={"measures": measures}) if measures else None
    action = examples.INTENT.action.model_copy(
        update={"name": "s3.delete", "properties": {"bucket": "customers", "prefix": "2019/"}}
    )
    return policy.evaluate(BOOK, examples.INTENT.model_copy(update={"action": action}), known, plan, examples.NOON)


def seats(found: Classification) -> dict[str, int]:
    return {seat.of: seat.count for seat in found.requirement.seats} if found.requirement else {}


def test_made_up_data_in_staging_needs_nobody() -> None:
    assert judged(SYNTHETIC).effect is Effect.PERMIT


def test_everything_else_needs_the_team_and_the_owner_of_the_data() -> None:
    found = judged(INTERNAL)
    assert found.effect is Effect.REQUIRE_APPROVAL
    assert seats(found) == {"group:data-owners": 1, "group:sre": 1}


def test_what_nobody_knows_anything_of_may_be_secret_and_is_denied() -> None:
    found = judged({})
    assert found.effect is Effect.DENY
    assert found.rules == ("never-secrets",)


def test_an_unknown_environment_needs_them_too_and_is_high_risk() -> None:
    found = judged({"classification": "internal", "owner": "data-platform"})
    assert seats(found) == {"group:data-owners": 1, "group:sre": 1}
    assert found.risk is Risk.HIGH


def test_personal_data_need_two_owners_who_logged_in() -> None:
    found = judged(INTERNAL | {"classification": "personal"})
    assert seats(found) == {"group:data-owners": 2, "group:sre": 1}
    assert found.requirement is not None
    assert found.requirement.assurance is Assurance.IDENTITY
    assert found.risk is Risk.CRITICAL


def test_a_large_plan_needs_security_as_well() -> None:
    few, many = (judged(INTERNAL, objects=count, bytes=1) for count in (100, 101))
    assert "group:security" not in seats(few)
    assert Seat(of="group:security", count=1) in (many.requirement.seats if many.requirement else ())
    assert "group:security" in seats(judged(SYNTHETIC, objects=1, bytes=10 * 2**30 + 1)), "made-up data in bulk too"


def test_more_than_anybody_could_see_is_not_put_to_people() -> None:
    for judge in (judged, delete_judged):
        assert judge(SYNTHETIC, objects=500).effect is Effect.PERMIT
        for facts in (SYNTHETIC, INTERNAL):
            assert judge(facts, objects=501).effect is Effect.DENY


@pytest.mark.parametrize("facts", [SYNTHETIC, INTERNAL, {}])
def test_a_public_destination_is_never_approved(facts: dict[str, str]) -> None:
    assert judged(facts, objects=1, destination_public=True).effect is Effect.DENY


def test_secrets_are_never_exported() -> None:
    assert judged(INTERNAL | {"classification": "secret"}).effect is Effect.DENY


@pytest.mark.parametrize(
    ("bucket", "classification"),
    [("logs-staging-synthetic", "synthetic"), ("customers-eu", "personal"), ("logs-prod", "internal"), ("other", None)],
)
async def test_the_catalogue_knows_what_its_patterns_say(bucket: str, classification: str | None) -> None:
    resource = examples.INTENT.resource.model_copy(update={"id": bucket})
    found = await Catalog(SAMPLES / "catalog.yaml").find(examples.INTENT.model_copy(update={"resource": resource}))
    assert found.get("classification") == classification
    entries = [CatalogEntry.model_validate(entry) for entry in yaml.safe_load((SAMPLES / "catalog.yaml").read_text())]
    assert all(entry.environment and entry.classification and entry.owner for entry in entries)


def test_deleting_needs_the_owner_of_the_data_unless_they_are_made_up() -> None:
    assert delete_judged(SYNTHETIC).effect is Effect.PERMIT
    for facts in (INTERNAL, {}):
        assert seats(delete_judged(facts)) == {"group:data-owners": 1}


def test_deleting_much_or_what_is_soon_gone_needs_more_of_them() -> None:
    assert seats(delete_judged(INTERNAL, objects=101)) == {"group:data-owners": 1, "group:sre": 1}
    soon = delete_judged(INTERNAL, objects=1, recoverable_days=6)
    assert seats(soon) == {"group:data-owners": 2}
    assert (soon.risk, soon.requirement and soon.requirement.assurance) == (Risk.CRITICAL, Assurance.IDENTITY)
    assert seats(delete_judged(INTERNAL, objects=1, recoverable_days=7)) == {"group:data-owners": 1}


@pytest.mark.parametrize("facts", [SYNTHETIC, INTERNAL, {}])
def test_nothing_is_deleted_for_good(facts: dict[str, str]) -> None:
    assert delete_judged(facts, objects=1, recoverable_days=0).effect is Effect.DENY
