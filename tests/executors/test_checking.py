"""The executor's own view of a grant: one thing wrong, and nobody acts."""

from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors import checking
from executors.checking import Check, Judgement, Known, Limits, Own, Refused, Verified
from schemas.record import Statement, state
from schemas.records import (
    Assurance,
    Channel,
    Context,
    Evidence,
    Fact,
    Grant,
    Refusal,
    Requirement,
    Seat,
    Verdict,
    Versions,
)
from schemas.snapshots import Agent, Group, Roster, Rota, Shift
from schemas.world import World
from tests.executors.builders import (
    ASKED,
    CLAIM,
    DIRECTORY,
    GRANTED,
    INSTANCE,
    ISSUER,
    KEYS,
    ONE_SRE,
    OWN,
    REALM,
    ROSTER,
    TWO_SRE,
    VERSIONS,
    Life,
    account,
    key,
    next_directory,
    person,
    signer,
    wish,
    world,
)

LIFE = Life()
GRACE = LIFE.yes("grace")
WORLD = world()
CLAIMED = Known((CLAIM,))


def judged(
    grant: Grant | Statement,
    *,
    seen: World = WORLD,
    now: int = GRANTED + 500,
    known: Known = CLAIMED,
    own: Own = OWN,
    log_time: int = GRANTED + 20,
) -> Judgement:
    statement = grant if isinstance(grant, Statement) else state(grant, signer("core"), REALM)
    return checking.judge(statement, log_time, own, seen, now, known)


def why(judgement: Judgement) -> Check:
    assert isinstance(judgement, Refused), "the grant was accepted"
    return judgement.check


def test_a_true_grant_is_verified_with_who_approved_it_and_until_when() -> None:
    grant = LIFE.grant(GRACE)
    verified = judged(grant)
    assert isinstance(verified, Verified), verified
    assert verified.approvers == ("grace",)
    assert verified.intent == LIFE.intent
    assert verified.plan == LIFE.plan
    assert verified.digest == grant.digest
    assert verified.note is None
    assert verified.deadline.lease_until == grant.lease_until


def test_a_credential_dies_before_its_lease_by_more_than_twice_our_skew_and_the_leaders() -> None:
    deadline = checking.deadline_of(LIFE.grant(GRACE), Limits(skew_ms=1_500))
    assert deadline.lease_until - deadline.credential_dies_at > 2 * 1_500 + checking.LEADER_SKEW_MS


def test_a_grant_without_people_is_accepted_and_says_so() -> None:
    life = LIFE.but(requirement=None)
    verified = judged(life.grant())
    assert isinstance(verified, Verified)
    assert verified.note == checking.PERMITTED
    assert verified.approvers == ()


# ---------------------------------------------------------------- who signed


@pytest.mark.parametrize("name", ["intake", "lamp", "api", "bot", "stranger"])
def test_only_the_core_grants(name: str) -> None:
    assert why(judged(state(LIFE.grant(GRACE), signer(name), REALM))) is Check.SIGNATURE


def test_a_grant_of_a_core_key_that_was_retired_is_refused() -> None:
    keys = tuple(one.model_copy(update={"valid_until": GRANTED}) if one.role == "core" else one for one in KEYS)
    assert why(judged(LIFE.grant(GRACE), seen=world(next_directory(keys=keys)))) is Check.SIGNATURE


def test_another_realms_grant_is_nothing_here() -> None:
    staging = LIFE.but(realm="staging")
    grant = staging.grant(staging.yes("grace"))
    assert why(judged(state(grant, signer("core"), "staging"))) is Check.SIGNATURE
    assert why(judged(grant)) in {Check.INTENT, Check.REALM}


def test_another_realms_question_is_refused_even_when_the_core_grants_it() -> None:
    question = LIFE.question.model_copy(update={"realm": "staging"})
    assert why(judged(LIFE.grant(GRACE, question=question))) is Check.REALM


def test_without_a_directory_nothing_is_granted() -> None:
    root = signer("root")
    assert why(judged(LIFE.grant(GRACE), seen=World(REALM, ((root.keyid, root.public),)))) is Check.SIGNATURE


def test_an_intent_that_its_requester_did_not_sign_is_refused() -> None:
    life = LIFE.but(intent_by=signer("stranger"))
    assert why(judged(life.grant(life.yes("grace")))) is Check.INTENT


def test_an_intent_signed_by_another_agent_is_refused() -> None:
    life = LIFE.but(intent=wish(requester="other"))
    assert why(judged(life.grant(life.yes("grace")))) is Check.INTENT


def test_a_classification_that_intake_did_not_sign_is_refused() -> None:
    life = LIFE.but(intake=signer("core"))
    assert why(judged(life.grant(life.yes("grace")))) is Check.INTENT


def test_an_intent_that_intake_refused_is_refused() -> None:
    refused = LIFE.classification.model_copy(update={"refusal": Refusal.SECRET_FOUND})
    grant = LIFE.grant(GRACE, classified=state(refused, signer("intake"), REALM))
    assert why(judged(grant)) is Check.INTENT


@pytest.mark.parametrize("name", ["core", "other", "stranger"])
def test_a_plan_that_this_executor_did_not_sign_is_refused(name: str) -> None:
    life = LIFE.but(executor=signer(name))
    assert why(judged(life.grant(life.yes("grace")))) is Check.PLAN


def test_another_executors_own_plan_is_refused() -> None:
    theirs = LIFE.plan.model_copy(update={"executor": "other"})
    grant = LIFE.grant(GRACE, plan=state(theirs, signer("other"), REALM))
    judgement = judged(grant)
    assert judgement == Refused(Check.PLAN, "the plan is the executor other's")


def test_intakes_key_may_be_younger_than_the_intent_and_older_than_the_grant() -> None:
    young = key("young", "intake", "intake", valid_from=ASKED + 5_000)
    life = LIFE.but(intake=signer("young"))
    seen = world(next_directory(keys=(*KEYS, young)))
    assert isinstance(judged(life.grant(life.yes("grace")), seen=seen), Verified)
    late = young.model_copy(update={"valid_from": GRANTED + checking.LEADER_SKEW_MS + 1})
    assert why(judged(life.grant(life.yes("grace")), seen=world(next_directory(keys=(*KEYS, late))))) is Check.INTENT


# ---------------------------------------------------------------- law 1: bytes


def test_a_changed_plan_is_refused() -> None:
    changed = LIFE.plan.model_copy(update={"summary": "Switch everything on."})
    grant = LIFE.grant(GRACE, plan=state(changed, signer("lamp"), REALM))
    assert why(judged(grant)) is Check.QUESTION


def test_a_changed_intent_is_refused() -> None:
    other = LIFE.but(intent=wish(to="off"))
    grant = LIFE.grant(GRACE, classified=other.classified, plan=other.signed_plan)
    assert why(judged(grant)) is Check.QUESTION


def test_a_plan_for_another_intent_is_refused() -> None:
    other = LIFE.but(intent=wish(number=5))
    assert why(judged(LIFE.grant(GRACE, plan=other.signed_plan))) is Check.PLAN


def test_a_weakened_requirement_is_refused() -> None:
    life = LIFE.but(requirement=TWO_SRE)
    assert why(judged(life.grant(life.yes("grace"), requirement=ONE_SRE))) is Check.QUESTION
    assert why(judged(life.grant(life.yes("grace"), requirement=None))) is Check.QUESTION


def test_changed_facts_are_refused() -> None:
    fact = Fact(name="owner", value="ada", source="cmdb", observed_at=ASKED)
    changed = LIFE.classification.model_copy(update={"facts": (fact,)})
    grant = LIFE.grant(GRACE, classified=state(changed, signer("intake"), REALM))
    assert why(judged(grant)) is Check.QUESTION


def test_the_question_names_the_intent_it_is_about() -> None:
    question = LIFE.question.model_copy(update={"intent_id": wish(number=9).id})
    assert why(judged(LIFE.grant(GRACE, question=question))) is Check.QUESTION


@given(st.sampled_from(["intent", "plan", "facts", "requirement"]), st.integers(0, 63))
def test_one_digit_of_the_question_changed_and_it_is_refused(leaf: str, place: int) -> None:
    old = getattr(LIFE.question, leaf)
    new = old[:place] + ("0" if old[place] != "0" else "1") + old[place + 1 :]
    question = LIFE.question.model_copy(update={leaf: new})
    assert why(judged(LIFE.grant(GRACE, question=question))) is Check.QUESTION


# ---------------------------------------------------------------- the votes


def test_a_forged_yes_is_refused() -> None:
    assert why(judged(LIFE.grant(LIFE.yes("grace", by=signer("stranger"))))) is Check.VOTE


def test_a_yes_signed_by_the_core_or_an_executor_is_forged() -> None:
    for name in ("core", "lamp", "gateway"):
        assert why(judged(LIFE.grant(LIFE.yes("grace", by=signer(name))))) is Check.VOTE


def test_a_yes_changed_after_it_was_signed_is_refused() -> None:
    statement = GRACE.decision
    changed = statement.model_copy(update={"body": statement.body | {"reason": "changed"}})
    assert why(judged(LIFE.grant(GRACE.model_copy(update={"decision": changed})))) is Check.VOTE


def test_a_yes_to_another_question_is_refused() -> None:
    assert why(judged(LIFE.grant(LIFE.yes("grace", question="2" * 64)))) is Check.VOTE
    assert why(judged(LIFE.grant(LIFE.yes("grace", intent=wish(number=3).id)))) is Check.VOTE


@pytest.mark.parametrize("verdict", [Verdict.DENY, Verdict.REVOKE])
def test_what_is_no_yes_is_refused(verdict: Verdict) -> None:
    assert why(judged(LIFE.grant(LIFE.yes("grace", verdict=verdict)))) is Check.VOTE


def test_the_requesters_owner_does_not_count() -> None:
    assert why(judged(LIFE.grant(LIFE.yes("ada")))) is Check.SELF_APPROVAL


def test_the_owners_delegate_does_not_count() -> None:
    assert why(judged(LIFE.grant(LIFE.yes("dora"), circle=()))) is Check.SELF_APPROVAL


def test_an_owner_who_left_the_agent_since_intake_does_not_count() -> None:
    agents = (DIRECTORY.agents[0].model_copy(update={"owners": ("ken",)}),)
    grant = LIFE.grant(LIFE.yes("ada"), circle=(), versions=VERSIONS.model_copy(update={"directory": 2}))
    assert why(judged(grant, seen=world(next_directory(agents=agents)))) is Check.SELF_APPROVAL


def test_who_became_an_owner_in_between_and_left_again_does_not_count() -> None:
    joined = next_directory(agents=(DIRECTORY.agents[0].model_copy(update={"owners": ("ada", "grace")}),))
    left = next_directory(joined, agents=DIRECTORY.agents)
    assert why(judged(LIFE.grant(GRACE, circle=()), seen=world(joined, left))) is Check.SELF_APPROVAL


@pytest.mark.parametrize(("since", "is_inside"), [(ASKED - 2_000, True), (ASKED + 1, True), (ASKED - 2_001, False)])
def test_who_stood_behind_the_requester_when_it_asked_is_inside_whatever_intake_cites(
    since: int, is_inside: bool
) -> None:
    left = next_directory(DIRECTORY, agents=(Agent(id="bot", owners=("linus",)),))
    life = LIFE.but(cited=VERSIONS.model_copy(update={"directory": 2}))
    grant = life.grant(life.yes("ada"), circle=(), versions=VERSIONS.model_copy(update={"directory": 2}))
    judgement = judged(grant, seen=world(left, since=since))
    assert (isinstance(judgement, Refused) and judgement.check is Check.SELF_APPROVAL) is is_inside


def test_whom_the_core_put_into_the_circle_does_not_count() -> None:
    assert why(judged(LIFE.grant(GRACE, circle=("grace",)))) is Check.SELF_APPROVAL


def test_a_yes_from_the_circle_does_not_spoil_the_others() -> None:
    verified = judged(LIFE.grant(LIFE.yes("ada"), GRACE))
    assert isinstance(verified, Verified)
    assert verified.approvers == ("grace",)


BY_CHAT: dict[str, Any] = {
    "by": signer("slack"),
    "channel": Channel.SLACK,
    "account": account("grace", "slack-T1"),
    "evidence": Evidence(kind="chat", digest="0" * 64),
}
"""Grace, in Slack."""


def test_one_person_cannot_fill_two_seats() -> None:
    life = LIFE.but(requirement=TWO_SRE)
    assert why(judged(life.grant(life.yes("grace")))) is Check.SEATS
    assert why(judged(life.grant(life.yes("grace"), life.yes("grace", at=ASKED + 11_000)))) is Check.VOTE


def test_one_person_cannot_fill_two_seats_by_a_second_account() -> None:
    life = LIFE.but(requirement=TWO_SRE)
    second = life.yes("linus", person="linus", **BY_CHAT | {"account": account("grace", "slack-T1")})
    assert why(judged(life.grant(life.yes("grace"), second))) is Check.SEATS


def test_two_persons_fill_two_seats_in_any_order() -> None:
    life = LIFE.but(requirement=TWO_SRE)
    for votes in ((life.yes("grace"), life.yes("linus")), (life.yes("linus"), life.yes("grace"))):
        assert isinstance(judged(life.grant(*votes)), Verified)


def test_one_person_with_two_hats_takes_one_seat() -> None:
    both = Requirement(
        seats=(Seat(of="group:data", count=1), Seat(of="group:sre", count=1)),
        assurance=Assurance.IDENTITY,
        within=3600,
    )
    life = LIFE.but(requirement=both)
    assert why(judged(life.grant(life.yes("grace")))) is Check.SEATS
    assert isinstance(judged(life.grant(life.yes("grace"), life.yes("ken"))), Verified)


def test_who_holds_no_seat_does_not_count() -> None:
    assert why(judged(LIFE.grant(LIFE.yes("ken")))) is Check.SEATS


def test_who_lost_the_seat_since_does_not_count() -> None:
    groups = (Group(id="sre", members=("linus",)), DIRECTORY.groups[1])
    assert why(judged(LIFE.grant(GRACE), seen=world(next_directory(groups=groups)))) is Check.SEATS


def test_an_inactive_person_does_not_count() -> None:
    assert why(judged(LIFE.grant(LIFE.yes("gone")))) is Check.SEATS


def test_an_account_that_nobody_has_does_not_count() -> None:
    nobody = LIFE.yes("grace", account=account("nobody"))
    assert why(judged(LIFE.grant(nobody))) is Check.SEATS


def test_an_account_that_was_handed_to_somebody_else_does_not_count() -> None:
    persons = tuple(one.model_copy(update={"accounts": ()}) if one.id == "grace" else one for one in DIRECTORY.persons)
    heir = person("heir").model_copy(update={"accounts": (account("grace"),)})
    assert why(judged(LIFE.grant(GRACE), seen=world(next_directory(persons=(*persons, heir))))) is Check.SEATS


def test_on_call_counts_as_of_the_yes() -> None:
    night = Requirement(seats=(Seat(of="oncall:night", count=1),), assurance=Assurance.IDENTITY, within=3600)
    life = LIFE.but(requirement=night)
    assert isinstance(judged(life.grant(life.yes("ken", at=ASKED + 10_000))), Verified)
    assert why(judged(life.grant(life.yes("ken", at=ASKED + 40_000)))) is Check.SEATS


def test_on_call_follows_the_newest_roster_known() -> None:
    night = Requirement(seats=(Seat(of="oncall:night", count=1),), assurance=Assurance.IDENTITY, within=3600)
    life = LIFE.but(requirement=night)
    swapped = Roster(
        version=2,
        previous=ROSTER.digest,
        rotas=(Rota(id="night", shifts=(Shift(person="linus", starts_at=ASKED, ends_at=ASKED + 30_000),)),),
    )
    seen = WORLD.with_snapshot(state(swapped, signer("root"), REALM), ASKED)
    assert why(judged(life.grant(life.yes("ken")), seen=seen)) is Check.SEATS


def test_a_yes_of_too_little_assurance_does_not_count() -> None:
    stale_login = Evidence(kind="oidc", digest="0" * 64, issuer=ISSUER, auth_time=ASKED // 1000 - 7200)
    assert why(judged(LIFE.grant(LIFE.yes("grace", evidence=stale_login)))) is Check.SEATS


def test_a_chat_channel_cannot_vouch_for_more_than_itself() -> None:
    vote = LIFE.yes("grace", **BY_CHAT)
    assert why(judged(LIFE.grant(vote))) is Check.SEATS


def test_a_chats_key_cannot_vouch_for_an_identity_providers_account() -> None:
    vote = LIFE.yes("grace", **BY_CHAT | {"account": account("grace")})
    assert why(judged(LIFE.grant(vote))) is Check.VOTE


def test_a_gateway_that_the_agent_does_not_list_cannot_have_asked() -> None:
    life = LIFE.but(intent_by=signer("gateway"))
    grant = life.grant(life.yes("grace"))
    assert isinstance(judged(grant), Verified)
    unlisted = tuple(each.model_copy(update={"gateways": ()}) for each in DIRECTORY.agents)
    assert why(judged(grant, seen=world(next_directory(agents=unlisted)))) is Check.INTENT


def test_a_gateway_that_cannot_have_met_a_person_narrows_no_circle_to_them() -> None:
    asked = wish().model_copy(update={"context": Context(reason="x", on_behalf_of="ken")})
    life = LIFE.but(intent=asked, intent_by=signer("gateway"))
    users = tuple(each.model_copy(update={"users": ("grace",)}) for each in DIRECTORY.agents)
    strange = tuple(
        each.model_copy(update={"providers": ("elsewhere",)}) if each.role == "gateway" else each
        for each in DIRECTORY.keys
    )
    grant = life.grant(life.yes("grace"))
    assert isinstance(judged(grant, seen=world(next_directory(agents=users))), Verified)
    assert why(judged(grant, seen=world(next_directory(agents=users, keys=strange)))) is Check.SELF_APPROVAL


def test_a_notifier_cannot_speak_for_another_channel() -> None:
    assert why(judged(LIFE.grant(LIFE.yes("grace", by=signer("slack"))))) is Check.VOTE


# ---------------------------------------------------------------- time


def test_a_yes_after_the_deadline_is_refused() -> None:
    short = LIFE.but(requirement=ONE_SRE.model_copy(update={"within": 30}))
    late = short.yes("grace", at=ASKED + 30_000)
    assert why(judged(short.grant(late, at=ASKED + 29_000), now=ASKED + 29_100)) is Check.LATE


def test_a_yes_after_the_grant_is_refused() -> None:
    late = LIFE.yes("grace", at=GRANTED + checking.LEADER_SKEW_MS + 1)
    assert why(judged(LIFE.grant(late))) is Check.LATE


def test_what_is_granted_within_the_leaders_skew_of_being_asked_is_acted_upon() -> None:
    at = ASKED - checking.LEADER_SKEW_MS
    grant = LIFE.grant(LIFE.yes("grace", at=at), at=at)
    assert isinstance(judged(grant, now=at + 500, log_time=at), Verified)


def test_what_is_granted_long_before_it_was_asked_is_refused() -> None:
    at = ASKED - 2 * checking.LEADER_SKEW_MS - 1
    assert why(judged(LIFE.grant(GRACE, at=at), now=at + 500, log_time=at)) is Check.INTENT


def test_a_grant_after_the_approval_expired_is_refused() -> None:
    at = ASKED + 3600 * 1000
    assert why(judged(LIFE.grant(GRACE, at=at), now=at, log_time=at)) is Check.LATE


def test_a_lease_that_is_over_is_refused() -> None:
    grant = LIFE.grant(GRACE, lease_until=GRANTED + 1_000)
    assert why(judged(grant)) is Check.LEASE


def test_a_lease_shorter_than_its_margins_is_refused() -> None:
    limits = OWN.limits
    deadline = checking.deadline_of(LIFE.grant(GRACE), limits)
    assert isinstance(judged(LIFE.grant(GRACE), now=GRANTED), Verified)
    short = LIFE.grant(GRACE, lease_until=GRANTED + deadline.lease_until - deadline.credential_dies_at)
    assert why(judged(short, now=GRANTED)) is Check.LEASE


@pytest.mark.parametrize("apart", [-30_001, 30_001])
def test_a_clock_that_differs_too_much_from_the_logs_is_refused(apart: int) -> None:
    grant = LIFE.grant(GRACE, lease_until=GRANTED + 600_000)
    assert why(judged(grant, now=GRANTED + apart)) is Check.CLOCK
    assert isinstance(judged(grant, now=GRANTED + apart // 2), Verified)


# ---------------------------------------------------------------- versions, instance, use


@pytest.mark.parametrize("name", ["directory", "roster"])
def test_a_view_older_than_the_cores_is_refused(name: str) -> None:
    newer = VERSIONS.model_copy(update={name: 2})
    assert why(judged(LIFE.grant(GRACE, versions=newer))) is Check.WORLD


def test_a_view_older_than_intakes_is_refused() -> None:
    life = LIFE.but(cited=Versions(directory=3, roster=1, policies=0, manifests=0, rules="rules-1"))
    assert why(judged(life.grant(life.yes("grace")))) is Check.WORLD


def test_another_instances_grant_is_refused() -> None:
    assert why(judged(LIFE.grant(GRACE, instance="lamp-0-bb"))) is Check.INSTANCE


def test_a_grant_that_answers_no_claim_of_this_process_is_refused() -> None:
    assert why(judged(LIFE.grant(GRACE), known=Known())) is Check.CLAIM
    elsewhere = CLAIM.model_copy(update={"offset": CLAIM.offset + 1})
    assert why(judged(LIFE.grant(GRACE), known=Known((elsewhere,)))) is Check.CLAIM


def test_another_executors_grant_is_refused() -> None:
    assert why(judged(LIFE.grant(GRACE, executor="other"))) is Check.EXECUTOR


def test_a_grant_for_another_executors_action_is_refused() -> None:
    action = LIFE.intent.action.model_copy(update={"name": "other.switch"})
    life = LIFE.but(intent=LIFE.intent.model_copy(update={"action": action}))
    assert why(judged(life.grant(life.yes("grace")))) is Check.INTENT


def test_an_intent_that_was_used_is_refused() -> None:
    judgement = judged(LIFE.grant(GRACE), known=Known((CLAIM,), "used before"))
    assert why(judgement) is Check.USED
    assert isinstance(judgement, Refused)
    assert judgement.reason == "used before"


def test_what_is_not_a_grant_is_refused_and_never_raises() -> None:
    assert why(judged(state(LIFE.plan, signer("lamp"), REALM))) is Check.MALFORMED
    broken = state(LIFE.grant(GRACE), signer("core"), REALM)
    assert why(judged(broken.model_copy(update={"body": {}}))) is Check.SIGNATURE


def test_a_fault_in_checking_itself_is_never_a_yes() -> None:
    class Broken:
        @property
        def authority(self) -> Never:
            raise ZeroDivisionError("division by zero")

    seen: Any = Broken()
    assert judged(LIFE.grant(GRACE), seen=seen) == Refused(Check.INTERNAL, "ZeroDivisionError: division by zero")


def test_an_instance_is_one_life_of_one_process() -> None:
    assert judged(LIFE.grant(GRACE), own=Own("lamp", INSTANCE, Limits(clock_ms=400))) == Refused(
        Check.CLOCK, "500 ms between this machine's clock and the log's; 400 are allowed"
    )


def test_a_grant_whose_parts_are_not_what_they_stand_for_is_refused_as_such() -> None:
    grant = LIFE.grant(GRACE)
    assert why(judged(grant.model_copy(update={"classified": LIFE.signed_intent}))) is Check.MALFORMED
