"""The sample policy for IAM says what its comments say, and so does the sandbox's."""

from __future__ import annotations

from pathlib import Path

import pytest

from executors.iam import plugin
from executors.s3 import plugin as s3_plugin
from sandbox import story
from schemas import examples, policy
from schemas.record import Scalar
from schemas.records import Assurance, Classification, Effect, Fact, Risk
from streams.facts import Catalog
from tests.executors_iam.world import ADMINISTRATOR, wish

SAMPLES = Path(__file__).parents[2] / "policies"
BOOK = policy.load((SAMPLES / "iam.cedar").read_text(), [plugin.manifest])
STAGING = {"environment": "staging", "classification": "internal", "owner": "platform"}
PRODUCTION = STAGING | {"environment": "production"}
ROLE = "arn:aws:iam::111122223333:role/reports-staging"
POLICY = "arn:aws:iam::111122223333:policy/read-reports"


def judged(
    facts: dict[str, str], verb: str = "attach", identity: str = ROLE, policy_arn: str = POLICY, **measures: Scalar
) -> Classification:
    known = [Fact(name=name, value=value, source="test", observed_at=0) for name, value in facts.items()]
    plan = examples.PLAN.model_copy(update={"measures": measures}) if measures else None
    return policy.evaluate(BOOK, wish(verb, identity, policy_arn), known, plan, examples.NOON)


def seats(found: Classification) -> dict[str, int]:
    return {seat.of: seat.count for seat in found.requirement.seats} if found.requirement else {}


def test_rights_in_staging_need_an_engineer_and_elsewhere_security_too() -> None:
    assert seats(judged(STAGING, actions=3, escalations=0)) == {"group:sre": 1}
    for facts in (PRODUCTION, {}):
        assert seats(judged(facts)) == {"group:sre": 1, "group:security": 1}


@pytest.mark.parametrize("measure", ["escalations", "permissions_actions", "unclassified_actions"])
def test_ways_to_more_rights_need_two_of_security_who_logged_in(measure: str) -> None:
    found = judged(STAGING, **{measure: 1})
    assert seats(found) == {"group:sre": 1, "group:security": 2}
    assert found.requirement is not None
    assert (found.requirement.assurance, found.risk) == (Assurance.IDENTITY, Risk.CRITICAL)


def test_a_denial_that_goes_needs_security_and_one_that_comes_does_not() -> None:
    assert seats(judged(STAGING, "detach", denies=1)) == {"group:sre": 1, "group:security": 1}
    assert seats(judged(STAGING, "attach", denies=1)) == {"group:sre": 1}


@pytest.mark.parametrize(("name", "value"), [("trusts_other_accounts", True), ("holders", 21)])
def test_strangers_and_crowds_need_security(name: str, value: Scalar) -> None:
    assert seats(judged(STAGING, **{name: value})) == {"group:sre": 1, "group:security": 1}


@pytest.mark.parametrize("verb", ["attach", "detach"])
def test_keyturns_own_identities_are_not_for_agents(verb: str) -> None:
    for identity in ("role/keyturn-iam-act", "user/keyturn-iam", "role/team/keyturn-s3-export"):
        found = judged(STAGING, verb, f"arn:aws:iam::111122223333:{identity}")
        assert found.effect is Effect.DENY


def test_some_things_are_never_approved() -> None:
    assert judged(STAGING, trusts_anyone=True).effect is Effect.DENY
    assert judged(STAGING, policy_arn=ADMINISTRATOR).effect is Effect.DENY
    assert judged(STAGING, "detach", policy_arn=ADMINISTRATOR).effect is Effect.REQUIRE_APPROVAL


@pytest.mark.parametrize(("role", "environment"), [(ROLE, "staging"), (ROLE.replace("staging", "prod"), "production")])
async def test_the_catalogue_knows_roles(role: str, environment: str) -> None:
    found = await Catalog(SAMPLES / "catalog.yaml").find(wish("attach", role, POLICY))
    assert found.get("environment") == environment


def test_the_samples_fit_together_and_the_sandboxs_do_too() -> None:
    manifests = [plugin.manifest, s3_plugin.manifest]
    policy.load("\n".join((SAMPLES / name).read_text() for name in ("s3.cedar", "iam.cedar")), manifests)
    book = policy.load(f"{story.POLICY}\n{story.IAM_POLICY}", manifests)
    properties = story.attachment("000000000000", "acme-run-anything")
    asked = wish("attach", str(properties["identity"]), str(properties["policy"]))
    plain = policy.evaluate(book, asked, [], examples.PLAN.model_copy(update={"measures": {"escalations": 0}}), 0)
    grave = policy.evaluate(book, asked, [], examples.PLAN.model_copy(update={"measures": {"escalations": 1}}), 0)
    assert (seats(plain), seats(grave)) == ({"group:sre": 1}, {"group:sre": 1, "group:data-owners": 1})
    own = wish("attach", "arn:aws:iam::000000000000:role/keyturn-iam-act", str(properties["policy"]))
    assert policy.evaluate(book, own, [], None, 0).effect is Effect.DENY
