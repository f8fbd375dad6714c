"""One pure function of (intent, facts, plan, world, log time), the same in intake and in the core."""

from typing import Any

import pytest

from schemas import classification
from schemas.classification import Refused
from schemas.record import state
from schemas.records import Effect, Intent, Refusal, Subject
from schemas.snapshots import Directory, Manifest, Manifests
from schemas.world import World
from tests.broker.builders import (
    DAY,
    MINUTE,
    PARAMETERS,
    REALM,
    T0,
    a_world,
    an_intent,
    changed,
    empty_world,
    facts,
    offered,
    signer,
    with_documents,
)


def refused(intent: Intent, world: World | None = None, *, by: str = "bot", at: int = T0, now: int = T0) -> Refusal:
    with pytest.raises(Refused) as caught:
        classification.admit(state(intent, signer(by), REALM), world or a_world(), at, now)
    assert caught.value.reason
    return caught.value.refusal


def test_an_intent_in_order_is_admitted_as_it_was_signed() -> None:
    intent = an_intent()
    assert classification.admit(state(intent, signer("bot"), REALM), a_world(), T0, T0) == intent


def test_each_thing_out_of_order_has_its_own_refusal() -> None:
    assert refused(an_intent(), by="intake") is Refusal.BAD_SIGNATURE
    assert refused(an_intent(), by="old") is Refusal.NOT_ENTITLED
    other = an_intent(requester="old", subject=Subject(type="agent", id="bot"))
    assert refused(other, by="gateway") is Refusal.NOT_ENTITLED
    assert refused(an_intent(at=T0 - DAY - 1)) is Refusal.ID_OUT_OF_WINDOW
    assert refused(an_intent(at=T0 + 5 * MINUTE + 1)) is Refusal.ID_OUT_OF_WINDOW
    assert refused(an_intent(), now=T0 + DAY + 1) is Refusal.ID_OUT_OF_WINDOW
    assert refused(an_intent("s3.nothing")) is Refusal.UNKNOWN_ACTION
    assert refused(an_intent(properties={"bucket": 5})) is Refusal.BAD_PARAMETERS
    ghost = an_intent(requester="ghost", subject=Subject(type="agent", id="ghost"))
    assert refused(ghost, by="gateway") is Refusal.NOT_ENTITLED
    nobody = an_intent(requester="jon", subject=Subject(type="person", id="jon"))
    assert refused(nobody, by="gateway") is Refusal.UNKNOWN_PERSON


@pytest.mark.parametrize("shape", [{"type": "strnig"}, {"$ref": "http://127.0.0.1:9/elsewhere"}, {"pattern": "("}])
def test_a_manifest_whose_schema_is_no_schema_of_its_own_admits_nothing(shape: dict[str, str]) -> None:
    broken = offered("s3.copy", parameters=PARAMETERS | {"properties": {"bucket": shape}})
    world = changed(a_world(), Manifests, executors=(Manifest(executor="s3", version="2", actions=(broken,)),))
    assert refused(an_intent(), world) is Refusal.BAD_PARAMETERS
    found = classification.classify(an_intent(), facts(), None, world, T0)
    assert (found.effect, found.rules) == (Effect.DENY, ("bad_parameters",))


def test_whatever_is_missing_from_the_world_is_a_denial_by_name() -> None:
    directory = a_world().directory
    assert directory is not None
    only_people = with_documents(empty_world(), directory)
    for world, rule in (
        (empty_world(), "unknown_agent"),
        (only_people, "unknown_action"),
        (changed(only_people, Manifests, executors=a_world().manifests.executors), "no_policy"),  # type: ignore[union-attr]
        (changed(a_world(), Directory, agents=()), "unknown_agent"),
    ):
        found = classification.classify(an_intent(), facts(), None, world, T0)
        assert (found.effect, found.rules) == (Effect.DENY, (rule,))


def faults(**properties: Any) -> set[tuple[str, str]]:
    intent = an_intent(properties=properties)
    return {(fault.path, fault.message) for fault in classification.parameter_faults(intent, a_world())}


def test_every_wrong_parameter_is_named_by_its_place() -> None:
    assert faults(bucket="b", count=1) == set()
    assert faults(count=1) == {("/action/properties/bucket", "is missing")}
    assert faults(bucket="b", more=1, other=2) == {
        ("/action/properties/more", "is not a parameter of this action"),
        ("/action/properties/other", "is not a parameter of this action"),
    }
    [(pointer, text)] = faults(bucket=5)
    assert pointer == "/action/properties/bucket"
    assert "string" in text


def test_there_is_nothing_to_hold_the_parameters_of_an_unknown_action_against() -> None:
    with pytest.raises(Refused) as caught:
        classification.parameter_faults(an_intent("s3.nothing"), a_world())
    assert caught.value.refusal is Refusal.UNKNOWN_ACTION
