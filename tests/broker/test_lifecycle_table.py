"""The table of DESIGN §5, line by line: what moves an intent, and every guard's refusal."""

from collections.abc import Callable
from typing import Any

import pytest

from broker import lifecycle
from broker.lifecycle import EventRecord, Local, Step
from schemas.record import Record, state
from schemas.records import (
    FINAL,
    AccountRef,
    ApprovalEnded,
    ApprovedIntent,
    Channel,
    Claim,
    ClaimRefused,
    ClassifiedIntent,
    Context,
    Decision,
    ForwardedWithdrawal,
    Grant,
    IntentStatus,
    Outcome,
    OutcomeUnknown,
    Phase,
    Plan,
    PlanFailed,
    PlanRequest,
    Refusal,
    Resolution,
    Result,
    Source,
    Subject,
    Tick,
    Verdict,
    Withdrawal,
)
from schemas.snapshots import Directory, Group, Manifests, Policies
from schemas.timing import LEADER_SKEW_MS
from tests.broker.builders import (
    CEDAR,
    DAY,
    DIGEST,
    GROUPS,
    HOUR,
    KEYS,
    LEASE,
    MINUTE,
    REALM,
    SECOND,
    SETTLE,
    T0,
    Story,
    account,
    agents_with,
    an_intent,
    approved,
    classified_of,
    empty_world,
    ended,
    executing,
    facts,
    groups_with,
    in_phase,
    is_same_but_for_answers,
    key,
    keys_with,
    pending,
    persons_with,
    planning,
    signer,
    unknown,
    with_documents,
)

KINDS: tuple[type[Record], ...] = (
    ClassifiedIntent,
    ForwardedWithdrawal,
    Plan,
    PlanFailed,
    Decision,
    Resolution,
    Claim,
    Outcome,
    Tick,
)
PHASES: tuple[Phase | None, ...] = (None, *Phase)


def a_record(story: Story, kind: type[Record]) -> EventRecord:
    """A record of this kind that would count, were the phase right."""
    row = story.row
    planned = planning() if row is None or row.round is None else story
    makers: dict[type[Record], Callable[[], EventRecord]] = {
        ClassifiedIntent: lambda: classified_of(story.world, state(story.intent, signer("bot"), REALM), at=story.at),
        ForwardedWithdrawal: story.a_withdrawal,
        Plan: planned.a_plan,
        PlanFailed: lambda: PlanFailed(round=planned.a_plan().round, executor="s3", reason="no"),
        Decision: lambda: story.a_decision(Verdict.DENY, "dan"),
        Resolution: lambda: story.a_resolution("dan"),
        Claim: story.a_claim,
        Outcome: story.an_outcome,
        Tick: lambda: Tick(partition=0, number=1),
    }
    return makers[kind]()


# ---------------------------------------------------------------- the whole matrix


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.TYPE)
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: str(phase and phase.value))
def test_what_the_table_does_not_list_is_refused_and_changes_nothing(phase: Phase | None, kind: type[Record]) -> None:
    story = in_phase(phase)
    before = story.row
    step = story.hear(a_record(story, kind))
    if (phase, kind) in lifecycle.TABLE and kind is not ClassifiedIntent:
        # A tick of now is listed, but nothing is due.
        assert step.refusal is None or kind is Tick
        return
    if phase is None and kind is ClassifiedIntent:
        assert story.phase is Phase.PLANNING
        return
    expected = {None: Refusal.UNKNOWN_INTENT} | dict.fromkeys(FINAL, Refusal.FINAL)
    if kind is ClassifiedIntent:
        assert step.refusal is Refusal.DUPLICATE
    else:
        assert step.refusal is expected.get(phase, Refusal.WRONG_PHASE)
    if before is None:
        assert story.row is None
    else:
        assert is_same_but_for_answers(before, story.here)
    told = story.said(ClaimRefused)
    assert [each.refusal for each in told] == ([step.refusal] if kind is Claim else [])
    assert len(step.outputs) == len(told)


def test_the_table_is_what_the_design_lists() -> None:
    listed = {(before, kind) for before, kind in lifecycle.TABLE if kind is not ClassifiedIntent}
    waiting = (Phase.PLANNING, Phase.PENDING, Phase.APPROVED)
    assert listed == {
        (None, ForwardedWithdrawal),
        (Phase.PLANNING, Plan),
        (Phase.PLANNING, PlanFailed),
        (Phase.PENDING, Decision),
        (Phase.APPROVED, Decision),
        (Phase.EXECUTING, Decision),
        (Phase.EXECUTING, ForwardedWithdrawal),
        *((phase, ForwardedWithdrawal) for phase in waiting),
        *((phase, Tick) for phase in (*waiting, Phase.EXECUTING)),
        (Phase.APPROVED, Claim),
        (Phase.EXECUTING, Outcome),
        (Phase.UNKNOWN, Outcome),
        (Phase.UNKNOWN, Resolution),
    }
    assert {before for before, kind in lifecycle.TABLE if kind is ClassifiedIntent} == {None, *Phase}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.TYPE)
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: str(phase and phase.value))
def test_a_key_of_another_role_or_realm_moves_nothing(phase: Phase | None, kind: type[Record]) -> None:
    story = in_phase(phase)
    before = story.row
    record = a_record(story, kind)
    step = story.hear(record, by="gateway")
    assert (step.refusal, step.row, step.outputs) == (Refusal.BAD_SIGNATURE, before, ())
    honest = story.hear(record, realm="staging")
    assert (honest.refusal, honest.row, honest.outputs) == (Refusal.BAD_SIGNATURE, before, ())


@pytest.mark.parametrize(
    ("kind", "holder", "refusal"),
    [
        (Plan, "iam", Refusal.NOT_ENTITLED),
        (PlanFailed, "iam", Refusal.NOT_ENTITLED),
        (Claim, "iam", Refusal.NOT_ENTITLED),
        (Outcome, "iam", Refusal.NOT_ENTITLED),
        (Decision, "slack", Refusal.NOT_ENTITLED),
        (Resolution, "slack", Refusal.NOT_ENTITLED),
    ],
    ids=lambda value: getattr(value, "TYPE", value),
)
def test_a_key_speaks_only_for_its_own_executor_or_channel(kind: type[Record], holder: str, refusal: Refusal) -> None:
    phases = {Plan: Phase.PLANNING, PlanFailed: Phase.PLANNING, Claim: Phase.APPROVED, Outcome: Phase.EXECUTING}
    story = in_phase({**phases, Decision: Phase.PENDING, Resolution: Phase.UNKNOWN}[kind])
    before = story.row
    step = story.hear(a_record(story, kind), by=holder)
    assert (step.refusal, step.row, step.outputs) == (refusal, before, ())


@pytest.mark.parametrize("kind", KINDS[2:8], ids=lambda kind: kind.TYPE)
def test_a_retired_key_says_nothing_more(kind: type[Record]) -> None:
    phases = {Plan: Phase.PLANNING, PlanFailed: Phase.PLANNING, Claim: Phase.APPROVED, Outcome: Phase.EXECUTING}
    story = in_phase({**phases, Decision: Phase.PENDING, Resolution: Phase.UNKNOWN}[kind])
    record = a_record(story, kind)
    name = "api" if kind in {Decision, Resolution} else "s3"
    story.becomes(Directory, keys=keys_with(name, valid_until=story.at))
    assert story.hear(record).refusal is Refusal.BAD_SIGNATURE
    assert story.hear(record, at=story.at - 1).refusal is None


# ---------------------------------------------------------------- none, classified


def test_a_permitted_intent_is_planned_under_its_deadline() -> None:
    story = planning("s3.copy", ttl=600)
    request = story.said(PlanRequest)[0]
    assert request.expires_at == story.here.expires_at == story.steps[-1].until == T0 + 600 * SECOND
    assert [each.phase for each in story.said(IntentStatus)] == [Phase.PLANNING]
    assert story.here.circle == ("ada", "ben", "cat")


def test_policy_may_only_shorten_the_deadline() -> None:
    assert planning("s3.export").here.expires_at == T0 + 30 * MINUTE
    assert planning("s3.export", ttl=60).here.expires_at == T0 + MINUTE
    assert planning("s3.list").here.expires_at == T0 + HOUR


def test_intake_cannot_move_the_deadline_into_the_future() -> None:
    story = Story()
    story.ask(said={"asked_at": T0 + 4 * MINUTE})
    assert story.here.asked_at == T0
    assert story.here.expires_at == T0 + HOUR


def test_what_no_rule_permits_is_denied_by_name() -> None:
    story = Story()
    step = story.ask("iam.grant")
    assert (story.phase, step.refusal) == (Phase.DENIED, None)
    assert story.here.classification is not None
    assert story.here.classification.rules == ("no_rule",)


def test_a_forbid_wins_over_every_permit() -> None:
    story = Story()
    story.ask("s3.copy", properties={"bucket": "locked"})
    assert story.phase is Phase.DENIED
    assert story.here.classification is not None
    assert story.here.classification.rules == ("locked",)


@pytest.mark.parametrize("proposal", [None, "permit"])
def test_the_stricter_of_intakes_proposal_and_the_cores_own_counts(proposal: str | None) -> None:
    story = Story()
    honest = classified_of(story.world, state(an_intent("s3.list"), signer("bot"), REALM)).classification
    step = story.ask("s3.copy", said={"classification": honest if proposal else None})
    if proposal is None:
        # No proposal is no yes.
        assert (story.phase, step.refusal) == (Phase.DENIED, None)
    else:
        assert story.phase is Phase.PLANNING
        assert story.here.classification is not None
        assert story.here.classification.requirement is not None


def test_a_proposal_to_ask_people_without_saying_whom_is_a_denial() -> None:
    story = Story()
    found = classified_of(story.world, state(an_intent("s3.copy"), signer("bot"), REALM)).classification
    assert found is not None
    story.ask("s3.list", said={"classification": found.model_copy(update={"requirement": None})})
    assert story.phase is Phase.DENIED


def test_what_intake_refused_pins_the_id_and_the_requester_hears_of_it() -> None:
    story = Story()
    step = story.ask(said={"refusal": Refusal.BAD_PARAMETERS, "reason": "no bucket", "classification": None})
    assert (story.phase, step.refusal, step.reason) == (Phase.REFUSED, Refusal.BAD_PARAMETERS, "no bucket")
    assert [(each.refusal, each.reason) for each in story.said(IntentStatus)] == [(Refusal.BAD_PARAMETERS, "no bucket")]
    story.ask()
    assert story.steps[-1].refusal is Refusal.DUPLICATE


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"properties": {"bucket": "b", "extra": 1}}, Refusal.BAD_PARAMETERS),
        ({"properties": {"count": 1}}, Refusal.BAD_PARAMETERS),
        ({"action": "s3.nothing"}, Refusal.UNKNOWN_ACTION),
    ],
    ids=["undeclared parameter", "missing parameter", "unknown action"],
)
def test_the_core_refuses_what_intake_should_have_refused(change: dict[str, Any], refusal: Refusal) -> None:
    story = Story()
    found = classified_of(story.world, state(an_intent(), signer("bot"), REALM)).classification
    step = story.ask(said={"classification": found}, **change)
    assert (story.phase, step.refusal) == (Phase.REFUSED, refusal)


def test_an_intent_signed_by_another_agent_is_not_admitted() -> None:
    story = Story()
    step = story.ask(signed_by="old")
    assert (story.phase, step.refusal) == (Phase.REFUSED, Refusal.NOT_ENTITLED)
    story = Story()
    step = story.ask(subject=Subject(type="agent", id="old"), signed_by="gateway")
    assert (story.phase, step.refusal) == (Phase.REFUSED, Refusal.NOT_ENTITLED)


def test_an_inactive_agent_and_an_inactive_person_are_unknown() -> None:
    story = Story()
    story.becomes(Directory, agents=agents_with("bot", is_active=False))
    assert story.ask().refusal is Refusal.UNKNOWN_AGENT
    story = Story()
    assert story.ask(requester="jon", subject=Subject(type="person", id="jon"), signed_by="gateway").refusal is (
        Refusal.UNKNOWN_PERSON
    )


def test_a_person_may_ask_through_the_gateway_and_stands_in_the_circle() -> None:
    story = Story()
    story.ask(requester="ada", subject=Subject(type="person", id="ada"), signed_by="gateway")
    assert story.phase is Phase.PLANNING
    assert story.here.circle == ("ada", "cat")


def test_an_agent_may_have_only_so_many_open_intents() -> None:
    story = Story(open_intents=3)
    assert (story.ask().refusal, story.phase) == (Refusal.OVERLOADED, Phase.REFUSED)
    story = Story(open_intents=20)
    person = Subject(type="person", id="eve")
    assert story.ask(requester="eve", subject=person, signed_by="gateway").refusal is Refusal.OVERLOADED
    story = Story(open_intents=19)
    assert story.ask(requester="eve", subject=person, signed_by="gateway").refusal is None


@pytest.mark.parametrize("late", [DAY + 1, -5 * MINUTE - 1])
def test_an_id_outside_the_window_opens_no_life(late: int) -> None:
    story = Story(at=T0 + late)
    step = story.ask(at=T0 + late)
    assert (step.refusal, story.row) == (Refusal.ID_OUT_OF_WINDOW, None)


def test_an_id_inside_the_window_when_asked_but_not_when_heard_opens_no_life() -> None:
    story = Story()
    signed = state(an_intent(), signer("bot"), REALM)
    classified = classified_of(story.world, signed, at=T0)
    assert story.hear(classified, at=T0 + DAY).refusal is None
    story = Story()
    assert story.hear(classified, at=T0 + DAY + 1).refusal is Refusal.ID_OUT_OF_WINDOW
    story = Story()
    story.hear(classified.model_copy(update={"asked_at": T0 + DAY + 1}), at=T0)
    assert (story.phase, story.steps[-1].refusal) == (Phase.REFUSED, Refusal.ID_OUT_OF_WINDOW)


def test_an_id_that_is_none_is_malformed() -> None:
    story = Story()
    signed = state(an_intent(), signer("bot"), REALM)
    for body in ({**signed.body, "id": "nobody"}, {name: signed.body[name] for name in signed.body if name != "id"}):
        forged = signed.model_copy(update={"body": body})
        classified = classified_of(story.world, signed).model_copy(update={"intent": forged})
        assert story.hear(classified).refusal is Refusal.MALFORMED
        assert story.row is None


def test_a_body_that_is_no_intent_pins_its_id_as_malformed() -> None:
    story = Story()
    signed = state(an_intent(), signer("bot"), REALM)
    value = {**signed.body, "extra": "x"}
    from schemas import canonical, signing

    sig = signing.sign(signer("bot"), REALM, signed.type, canonical.encode(value))
    forged = signed.model_copy(update={"body": value, "sig": sig})
    step = story.hear(classified_of(story.world, signed).model_copy(update={"intent": forged}))
    assert (story.phase, step.refusal) == (Phase.REFUSED, Refusal.MALFORMED)


# ---------------------------------------------------------------- any, classified again


@pytest.mark.parametrize("phase", list(Phase))
def test_the_first_body_pins_its_id_for_ever(phase: Phase) -> None:
    story = in_phase(phase)
    same = state(story.intent, signer("bot"), REALM)
    other = state(story.intent.model_copy(update={"ttl": 1234}), signer("bot"), REALM)
    assert story.hear(classified_of(story.world, same)).refusal is Refusal.DUPLICATE
    assert story.hear(classified_of(story.world, other)).refusal is Refusal.CONFLICT


# ---------------------------------------------------------------- withdrawals


def test_a_withdrawal_before_its_intent_pins_the_id() -> None:
    story = Story()
    step = story.withdraw(reason="never mind")
    assert (story.phase, step.refusal, story.here.reason) == (Phase.WITHDRAWN, None, "never mind")
    assert story.ask().refusal is Refusal.FINAL


def test_only_the_requester_or_an_owner_can_withdraw_what_has_not_come() -> None:
    story = Story()
    assert story.withdraw("ben", "person").refusal is Refusal.UNKNOWN_INTENT
    assert story.withdraw("ada", "agent", signed_by="gateway").refusal is Refusal.NOT_ENTITLED
    assert story.row is None
    story.withdraw("ada", "person")
    assert story.phase is Phase.WITHDRAWN


@pytest.mark.parametrize("phase", [Phase.PLANNING, Phase.PENDING, Phase.APPROVED])
@pytest.mark.parametrize(("by", "kind"), [("bot", "agent"), ("ada", "person")])
def test_the_requester_or_an_owner_may_withdraw(phase: Phase, by: str, kind: str) -> None:
    story = in_phase(phase)
    story.withdraw(by, "agent" if kind == "agent" else "person")
    assert story.phase is Phase.WITHDRAWN
    assert bool(story.said(ApprovalEnded)) == (phase is Phase.APPROVED)
    assert story.said(IntentStatus)


@pytest.mark.parametrize("phase", [Phase.PLANNING, Phase.PENDING, Phase.APPROVED, Phase.EXECUTING])
@pytest.mark.parametrize("by", ["ben", "dan"])
def test_nobody_else_may(phase: Phase, by: str) -> None:
    story = in_phase(phase)
    assert story.withdraw(by, "person").refusal is Refusal.NOT_ENTITLED


def test_an_agent_named_like_an_owner_is_no_owner() -> None:
    story = pending()
    assert story.withdraw("ada", "agent", signed_by="gateway").refusal is Refusal.NOT_ENTITLED


@pytest.mark.parametrize("phase", [None, Phase.PENDING, Phase.EXECUTING])
def test_a_withdrawal_needs_its_own_signature(phase: Phase | None) -> None:
    story = in_phase(phase)
    forged = story.a_withdrawal()
    other = forged.withdrawal.model_copy(update={"sig": state(an_intent(), signer("bot"), REALM).sig})
    assert story.hear(forged.model_copy(update={"withdrawal": other})).refusal is Refusal.BAD_SIGNATURE
    assert story.withdraw("bot", signed_by="old").refusal is Refusal.NOT_ENTITLED


def test_a_withdrawal_that_intake_refused_or_that_is_malformed_moves_nothing() -> None:
    story = pending()
    refused = story.a_withdrawal().model_copy(update={"refusal": Refusal.NOT_ENTITLED, "reason": "no"})
    assert story.hear(refused).refusal is Refusal.NOT_ENTITLED
    from schemas import canonical, signing

    body = {**story.a_withdrawal().withdrawal.body, "extra": "x"}
    sig = signing.sign(signer("bot"), REALM, Withdrawal.TYPE, canonical.encode(body))
    signed = story.a_withdrawal().withdrawal.model_copy(update={"body": body, "sig": sig})
    assert story.hear(story.a_withdrawal().model_copy(update={"withdrawal": signed})).refusal is Refusal.MALFORMED
    assert story.phase is Phase.PENDING


# ---------------------------------------------------------------- planning


def test_a_plan_opens_the_question() -> None:
    story = pending()
    step = story.steps[-1]
    assert (step.event, step.question_opened, step.until) == ("plan.reported", True, T0 + HOUR)
    assert story.here.question is not None
    assert story.here.question.opened == story.events[-1].source


def test_what_policy_permits_without_people_is_approved_by_its_plan() -> None:
    story = approved("s3.list", ())
    assert [each.approved_until for each in story.said(ApprovedIntent)] == [T0 + HOUR]
    assert story.here.votes == ()


def test_the_plan_only_tightens() -> None:
    story = planning("s3.export")
    story.plan(objects=101)
    assert story.here.classification is not None
    requirement = story.here.classification.requirement
    assert requirement is not None
    assert {seat.of for seat in requirement.seats} == {"group:sre", "group:data", "oncall:night"}
    assert story.here.expires_at == T0 + 20 * MINUTE


def test_a_plan_that_policy_forbids_is_denied() -> None:
    story = planning()
    step = story.plan(public=True)
    assert (story.phase, step.event) == (Phase.DENIED, "plan.denied")


@pytest.mark.parametrize(
    "measures",
    [
        {},
        {"objects": "1", "public": False},
        {"objects": True, "public": False},
        {"objects": 1, "public": False, "x": 1},
    ],
    ids=["none", "wrong type", "a boolean for a number", "undeclared"],
)
def test_a_plan_that_does_not_measure_what_its_manifest_declares_is_denied(measures: dict[str, object]) -> None:
    story = planning()
    story.plan(measures=measures)
    assert story.phase is Phase.DENIED


def test_a_plan_of_another_round_executor_or_body_is_refused() -> None:
    story = planning()
    assert story.here.round is not None
    number = story.here.round.model_copy(update={"number": 2})
    opened = story.here.round.model_copy(update={"opened": Source(topic="classified", partition=0, offset=9)})
    assert story.plan(round=number).refusal is Refusal.WRONG_ROUND
    assert story.plan(round=opened).refusal is Refusal.WRONG_ROUND
    assert story.plan(executor="iam", by="iam").refusal is Refusal.NOT_ENTITLED
    assert story.plan(intent=DIGEST).refusal is Refusal.CONFLICT
    assert story.plan_failed(round=number).refusal is Refusal.WRONG_ROUND
    assert story.phase is Phase.PLANNING


def test_without_a_plan_the_intent_is_refused_with_the_executors_reason() -> None:
    story = planning()
    story.plan_failed(reason="bucket gone")
    assert (story.phase, story.here.reason) == (Phase.REFUSED, "bucket gone")
    story = planning()
    failed = PlanFailed(round=story.a_plan().round, executor="iam", reason="x")
    assert story.hear(failed, by="iam").refusal is Refusal.NOT_ENTITLED


# ---------------------------------------------------------------- people


def test_the_last_seat_filled_approves() -> None:
    story = pending("s3.export")
    for who in ("dan", "eve"):
        story.approve(who)
        assert story.phase is Phase.PENDING
    story.approve("gus")
    assert story.phase is Phase.APPROVED
    assert story.voters == {"dan", "eve", "gus"}
    assert [each.refusal for each in story.here.answers] == [None, None, None]


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.APPROVED, Phase.EXECUTING])
def test_an_answer_to_another_question_never_counts(phase: Phase, verdict: Verdict) -> None:
    story = in_phase(phase)
    assert story.says(verdict, "dan", question=DIGEST).refusal is Refusal.WRONG_QUESTION
    assert story.phase is phase


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.APPROVED, Phase.EXECUTING])
def test_an_unknown_inactive_or_misnamed_person_has_no_word(phase: Phase, verdict: Verdict) -> None:
    story = in_phase(phase)
    stranger = AccountRef(provider=account("dan").provider, subject="stranger")
    assert story.says(verdict, "dan", account=stranger).refusal is Refusal.UNKNOWN_PERSON
    assert story.says(verdict, "jon").refusal is Refusal.UNKNOWN_PERSON
    assert story.says(verdict, "dan", person="eve").refusal is Refusal.UNKNOWN_PERSON
    assert story.phase is phase
    assert [each.person for each in story.here.answers][-3:] == [None, None, "dan"]


@pytest.mark.parametrize("who", ["ada", "ben", "cat"])
def test_the_circle_is_refused_and_told_so(who: str) -> None:
    story = pending()
    assert story.approve(who).refusal is Refusal.SELF_APPROVAL
    assert story.approve(who, channel=Channel.SLACK).refusal is Refusal.SELF_APPROVAL
    assert story.voters == set()


def test_one_person_with_two_accounts_is_one_person() -> None:
    story = pending("s3.export")
    story.approve("dan")
    assert story.approve("dan", channel=Channel.SLACK).refusal is Refusal.ALREADY_DECIDED
    second = AccountRef(provider=account("dan").provider, subject="dan.second")
    assert story.approve("dan", account=second).refusal is Refusal.ALREADY_DECIDED
    assert story.voters == {"dan"}


def test_who_has_no_seat_has_no_yes_and_no_deny() -> None:
    story = pending()
    assert story.approve("gus").refusal is Refusal.NO_SEAT
    assert story.deny("gus").refusal is Refusal.NO_SEAT
    assert story.phase is Phase.PENDING


def test_a_yes_is_late_by_its_own_log_time_alone() -> None:
    story = pending()
    deadline = T0 + HOUR
    assert story.approve("dan", at=deadline).refusal is Refusal.LATE
    assert story.approve("dan", at=deadline - 1).refusal is None
    assert story.phase is Phase.APPROVED


def test_a_click_in_a_chat_is_not_worth_a_login() -> None:
    story = pending("s3.erase")
    assert story.approve("gus", channel=Channel.SLACK).refusal is Refusal.ASSURANCE_TOO_LOW
    stale = story.a_decision(Verdict.APPROVE, "gus").evidence.model_copy(update={"auth_time": T0 // 1000 - 3601})
    assert story.approve("gus", evidence=stale).refusal is Refusal.ASSURANCE_TOO_LOW
    # A chat has seen nobody log in, and no account but its own team's.
    login = story.a_decision(Verdict.APPROVE, "gus")
    assert story.approve("gus", channel=Channel.SLACK, evidence=login.evidence).refusal is Refusal.NOT_ENTITLED
    assert story.approve("gus", channel=Channel.SLACK, account=login.account).refusal is Refusal.NOT_ENTITLED
    assert story.approve("gus").refusal is None
    assert story.phase is Phase.APPROVED


def test_a_yes_after_the_last_seat_was_filled_is_told_so() -> None:
    assert approved().approve("eve").refusal is Refusal.ALREADY_DECIDED
    assert executing().approve("eve").refusal is Refusal.ALREADY_DECIDED


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.APPROVED])
@pytest.mark.parametrize("who", ["eve", "ada", "ben"])
def test_somebody_entitled_or_behind_the_requester_may_deny(phase: Phase, who: str) -> None:
    story = in_phase(phase)
    story.deny(who, reason="not today")
    assert (story.phase, story.here.reason) == (Phase.DENIED, "not today")
    assert bool(story.said(ApprovalEnded)) == (phase is Phase.APPROVED)


def test_a_deny_without_a_reason_names_its_person() -> None:
    assert ended(Phase.DENIED).here.reason == "denied by dan"


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.APPROVED])
def test_taking_back_ones_own_yes_ends_the_intent(phase: Phase) -> None:
    story = pending("s3.export") if phase is Phase.PENDING else approved()
    if phase is Phase.PENDING:
        story.approve("dan")
    story.revoke("dan")
    assert story.phase is Phase.REVOKED
    assert bool(story.said(ApprovalEnded)) == (phase is Phase.APPROVED)


def test_a_revoke_before_its_yes_bars_that_person_on_this_question() -> None:
    story = pending()
    step = story.revoke("dan")
    assert (story.phase, step.refusal, story.here.barred) == (Phase.PENDING, None, ("dan",))
    assert story.approve("dan").refusal is Refusal.BARRED
    assert story.approve("eve").refusal is None


def test_a_revoke_of_nothing_is_told_so() -> None:
    assert approved().revoke("eve").refusal is Refusal.NOTHING_TO_REVOKE
    assert executing().revoke("eve").refusal is Refusal.NOTHING_TO_REVOKE
    assert approved("s3.list", ()).revoke("dan").refusal is Refusal.NOTHING_TO_REVOKE


def test_where_policy_asks_nobody_only_the_circle_may_deny() -> None:
    story = approved("s3.list", ())
    assert story.approve("dan").refusal is Refusal.ALREADY_DECIDED
    assert story.deny("dan").refusal is Refusal.NO_SEAT
    story.deny("ben")
    assert story.phase is Phase.DENIED


def test_the_last_few_answers_are_kept() -> None:
    story = pending()
    for _ in range(10):
        story.approve("gus")
    assert len(story.here.answers) == lifecycle.ANSWERS_KEPT
    assert {each.refusal for each in story.here.answers} == {Refusal.NO_SEAT}


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("phase", [Phase.PLANNING, Phase.PENDING, Phase.APPROVED])
def test_only_a_tick_beyond_deadline_and_skew_expires(phase: Phase) -> None:
    story = in_phase(phase)
    due = T0 + HOUR + LEADER_SKEW_MS
    assert lifecycle.due_at(story.here) == due
    assert story.tick(due).refusal is Refusal.WRONG_PHASE
    story.tick(due + 1)
    assert story.phase is Phase.EXPIRED
    assert story.here.reason == ("no plan in time" if phase is Phase.PLANNING else "nobody decided in time")
    assert bool(story.said(ApprovalEnded)) == (phase is Phase.APPROVED)
    assert lifecycle.due_at(story.here) is None


def test_only_a_tick_beyond_lease_settle_time_and_skew_makes_an_unknown() -> None:
    story = executing()
    due = T0 + (LEASE + SETTLE) * SECOND + LEADER_SKEW_MS
    assert story.tick(due).refusal is Refusal.WRONG_PHASE
    story.tick(due + 1)
    assert story.phase is Phase.UNKNOWN
    record = story.said(OutcomeUnknown)[0]
    assert (record.grant, record.digest) == (story.here.grant, story.here.unknown)
    assert lifecycle.due_at(story.here) is None


# ---------------------------------------------------------------- claiming


def test_a_claim_is_granted_with_everything_needed_to_check_it() -> None:
    story = executing("s3.export", ("dan", "eve", "gus"))
    grant = story.said(Grant)[0]
    assert grant == story.here.grant
    assert {vote.person for vote in grant.votes} == {"dan", "eve", "gus"}
    assert (grant.instance, grant.claim, grant.granted_at) == ("one", story.events[-1].source, T0)
    assert grant.lease_until == T0 + LEASE * SECOND == story.steps[-1].until
    assert story.here.settled_at == T0 + (LEASE + SETTLE) * SECOND
    assert grant.circle == ("ada", "ben", "cat")
    assert grant.versions == story.world.versions


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"question": DIGEST}, Refusal.WRONG_QUESTION),
        ({"executor": "iam", "by": "iam"}, Refusal.NOT_ENTITLED),
        ({"at": T0 + HOUR}, Refusal.LATE),
    ],
)
def test_a_claim_that_does_not_fit_is_refused_and_told(change: dict[str, object], refusal: Refusal) -> None:
    story = approved()
    step = story.claim(**change)  # type: ignore[arg-type] # one of the arguments
    assert (story.phase, step.refusal) == (Phase.APPROVED, refusal)
    assert [each.refusal for each in story.said(ClaimRefused)] == [refusal]


def test_a_claim_just_before_the_deadline_is_granted() -> None:
    story = approved()
    story.claim(at=T0 + HOUR - 1)
    assert story.phase is Phase.EXECUTING


def test_a_second_claim_is_refused_whoever_makes_it() -> None:
    story = executing()
    grant = story.grant
    assert story.claim("one").refusal is Refusal.WRONG_PHASE
    assert story.claim("two").refusal is Refusal.WRONG_PHASE
    assert [each.instance for each in story.said(ClaimRefused)] == ["two"]
    assert story.here.grant == grant


def test_a_seat_no_longer_held_at_the_claim_asks_again() -> None:
    story = approved()
    first = story.question
    story.becomes(Directory, groups=groups_with("sre", "eve", "fay"))
    step = story.claim()
    assert (story.phase, step.event, step.question_opened) == (Phase.PENDING, "claim.reopened", True)
    assert story.question != first
    assert story.here.votes == ()
    assert [each.question for each in story.said(ApprovalEnded)] == [first]
    assert [each.refusal for each in story.said(ClaimRefused)] == [Refusal.WRONG_PHASE]
    story.approve("eve")
    story.claim()
    assert story.phase is Phase.EXECUTING


@pytest.mark.parametrize(
    "change",
    [
        {"persons": persons_with("dan", is_active=False)},
        {"persons": persons_with("dan", accounts=())},
        {"persons": persons_with("ben", delegates=("dan",))},
        {"agents": agents_with("bot", users=("ada", "ben", "dan"))},
        {"keys": keys_with("api", valid_until=T0)},
        {"keys": tuple(each for each in KEYS if each.keyid != signer("api").keyid)},
    ],
    ids=["left", "account taken away", "delegate now", "user now", "notifier's key retired", "notifier's key gone"],
)
def test_a_yes_that_would_not_count_today_counts_no_longer_at_the_claim(change: dict[str, object]) -> None:
    story = approved()
    story.becomes(Directory, **change)
    story.claim()
    assert (story.phase, story.steps[-1].event) == (Phase.PENDING, "claim.reopened")


def test_a_channel_that_may_vouch_for_less_now_loses_its_yeses_at_the_claim() -> None:
    from schemas.records import Assurance

    story = approved("s3.erase", ("gus",))
    story.becomes(Directory, keys=keys_with("api", max_assurance=Assurance.CHANNEL))
    story.claim()
    assert story.steps[-1].event == "claim.reopened"


def test_an_account_that_moved_to_another_person_carries_no_yes_with_it() -> None:
    story = approved()
    persons = tuple(
        each.model_copy(update={"accounts": (*each.accounts, account("dan"))})
        if each.id == "eve"
        else each.model_copy(update={"accounts": ()})
        if each.id == "dan"
        else each
        for each in persons_with("dan")
    )
    story.becomes(Directory, persons=persons)
    story.claim()
    assert story.steps[-1].event == "claim.reopened"


def test_the_grant_carries_only_the_yeses_that_count() -> None:
    story = pending("s3.export")
    for who in ("dan", "eve", "fay", "gus"):
        story.approve(who)
    assert story.phase is Phase.APPROVED
    story = pending("s3.export")
    for who in ("dan", "gus", "hal", "eve"):
        story.approve(who)
    story.becomes(Directory, persons=persons_with("ben", delegates=("hal",)))
    story.claim()
    assert {vote.person for vote in story.grant.votes} == {"dan", "gus", "eve"}


def test_policy_that_denies_by_now_denies_at_the_claim() -> None:
    story = approved()
    story.becomes(Policies, cedar=CEDAR.replace('"locked"', '"reports"').replace('@id("reports")', '@id("locked")'))
    step = story.claim()
    assert (story.phase, step.event) == (Phase.DENIED, "claim.denied")
    assert story.said(ApprovalEnded)
    assert story.said(ClaimRefused)


def test_policy_that_asks_for_more_by_now_asks_again_at_the_claim() -> None:
    story = approved()
    story.becomes(Policies, cedar=CEDAR.replace('@approvers("group:sre") @within', '@approvers("group:data") @within'))
    story.claim()
    assert (story.phase, story.steps[-1].event) == (Phase.PENDING, "claim.reopened")
    # Both the seat that was asked for and the one that is asked for now: a later rule only tightens.
    story.approve("eve")
    assert story.said(ApprovedIntent) == []
    story.approve("gus")
    assert story.phase is Phase.APPROVED


def test_policy_that_asks_for_less_by_now_changes_nothing() -> None:
    story = approved()
    story.becomes(Policies, cedar=CEDAR.replace('@approvers("group:sre") @within("1h")', '@automatic("now open")'))
    story.claim()
    assert story.phase is Phase.EXECUTING
    assert story.grant.requirement is not None


@pytest.mark.parametrize("what", ["agent gone", "action gone", "key taken away"])
def test_a_requester_or_action_that_is_gone_is_denied_at_the_claim(what: str) -> None:
    story = approved()
    if what == "agent gone":
        story.becomes(Directory, agents=agents_with("bot", is_active=False))
    elif what == "key taken away":
        story.becomes(Directory, keys=keys_with("bot", valid_until=T0))
    else:
        story.becomes(Manifests, executors=())
    story.claim()
    assert (story.phase, story.steps[-1].event) == (Phase.DENIED, "claim.denied")


# ---------------------------------------------------------------- outcomes


@pytest.mark.parametrize(("result", "phase"), [(Result.SUCCEEDED, Phase.SUCCEEDED), (Result.FAILED, Phase.FAILED)])
def test_the_grants_instance_reports_the_end(result: Result, phase: Phase) -> None:
    story = executing()
    story.report(result, reason="so it went")
    assert (story.phase, story.here.flagged, story.here.reason) == (phase, False, "so it went")
    assert story.here.outcome == story.events[-1].statement


def test_without_a_reason_the_receipt_tells() -> None:
    assert ended(Phase.SUCCEEDED).here.reason == "copied"


def test_an_outcome_of_another_grant_instance_or_executor_is_refused() -> None:
    story = executing()
    assert story.report(grant=DIGEST).refusal is Refusal.WRONG_GRANT
    assert story.report(instance="two").refusal is Refusal.WRONG_INSTANCE
    foreign = story.an_outcome(executor="iam")
    assert story.hear(foreign, by="iam").refusal is Refusal.NOT_ENTITLED
    assert story.report(observed=True, instance="two").refusal is Refusal.WRONG_PHASE
    assert story.phase is Phase.EXECUTING


def test_an_unclear_outcome_leaves_it_running_until_its_tick() -> None:
    story = executing()
    step = story.report(Result.UNKNOWN, reason="timed out")
    assert (story.phase, step.event, step.outputs, story.here.reason) == (
        Phase.EXECUTING,
        "outcome.unclear",
        (),
        "timed out",
    )
    story.report(Result.SUCCEEDED)
    assert story.phase is Phase.SUCCEEDED


def test_stale_starts_again_with_every_yes_void_under_the_same_deadline() -> None:
    story = executing()
    first, deadline = story.question, story.here.expires_at
    story.report(Result.STALE, reason="the object changed")
    row = story.here
    assert (story.phase, row.votes, row.question, row.grant, row.plan) == (Phase.PLANNING, (), None, None, None)
    assert row.expires_at == deadline
    assert row.round is not None
    assert row.round.number == 2
    assert story.said(PlanRequest)[0].round == row.round
    story.plan()
    assert story.question != first
    assert story.approve("eve", question=first).refusal is Refusal.WRONG_QUESTION
    story.approve("eve")
    story.claim("two")
    assert story.phase is Phase.EXECUTING


def test_a_target_that_never_stands_still_ends_as_failed() -> None:
    story = executing()
    assert story.here.round is not None
    last = story.here.round.model_copy(update={"number": lifecycle.MAX_ROUNDS})
    story.row = story.here.model_copy(update={"round": last})
    story.report(Result.STALE)
    assert story.phase is Phase.FAILED


@pytest.mark.parametrize(
    ("stop", "phase"),
    [("withdraw", Phase.WITHDRAWN), ("revoke", Phase.REVOKED), ("deny", Phase.DENIED), ("owner", Phase.WITHDRAWN)],
)
def test_what_came_too_late_to_stop_is_remembered_for_a_stale(stop: str, phase: Phase) -> None:
    story = executing()
    match stop:
        case "withdraw":
            story.withdraw()
        case "owner":
            story.withdraw("ada", "person")
        case "revoke":
            story.revoke("dan")
        case _:
            story.deny("eve")
    assert (story.phase, story.steps[-1].refusal) == (Phase.EXECUTING, None)
    story.report(Result.STALE)
    assert story.phase is phase


def test_the_first_word_is_the_one_remembered_and_stops_nothing_that_was_done() -> None:
    story = executing()
    story.deny("ben")
    story.withdraw()
    assert story.here.remembered == "denied"
    story.report()
    assert story.phase is Phase.SUCCEEDED


def test_who_has_no_say_is_not_remembered() -> None:
    story = executing()
    assert story.deny("gus").refusal is Refusal.NO_SEAT
    assert story.here.remembered is None


# ---------------------------------------------------------------- unknown


@pytest.mark.parametrize(
    ("result", "phase"),
    [(Result.SUCCEEDED, Phase.SUCCEEDED), (Result.FAILED, Phase.FAILED), (Result.STALE, Phase.FAILED)],
)
@pytest.mark.parametrize("observed", [True, False])
def test_a_late_word_or_an_observation_ends_an_unknown_flagged(result: Result, phase: Phase, observed: bool) -> None:
    story = unknown()
    if observed:
        story.observe(result)
    else:
        story.report(result)
    assert (story.phase, story.here.flagged) == (phase, True)


def test_an_observation_must_cite_the_unknown_it_answers() -> None:
    story = unknown()
    assert story.observe(unknown=None).refusal is Refusal.WRONG_GRANT
    assert story.observe(unknown=DIGEST).refusal is Refusal.WRONG_GRANT
    assert story.observe(grant=DIGEST).refusal is Refusal.WRONG_GRANT
    assert story.report(instance="two").refusal is Refusal.WRONG_INSTANCE
    assert story.phase is Phase.UNKNOWN


def test_an_observer_who_cannot_tell_leaves_it_unknown() -> None:
    story = unknown()
    step = story.observe(Result.UNKNOWN, reason="no access")
    assert (story.phase, step.event, story.here.reason) == (Phase.UNKNOWN, "outcome.unclear", "no access")
    assert story.said(IntentStatus)


@pytest.mark.parametrize(("found", "phase"), [("succeeded", Phase.SUCCEEDED), ("failed", Phase.FAILED)])
def test_people_of_the_requirement_resolve_an_unknown(found: str, phase: Phase) -> None:
    story = unknown()
    story.resolve("eve", found)
    assert (story.phase, story.here.flagged, story.here.reason) == (phase, True, "looked")
    assert [(each.person, each.verdict, each.refusal) for each in story.here.answers][-1] == ("eve", None, None)


def test_who_resolves_is_judged_like_who_approves() -> None:
    story = unknown("s3.erase", ("gus",))
    assert story.resolve("gus", grant=DIGEST).refusal is Refusal.WRONG_GRANT
    assert story.resolve("ada").refusal is Refusal.SELF_APPROVAL
    assert story.resolve("dan").refusal is Refusal.NO_SEAT
    assert story.resolve("jon").refusal is Refusal.UNKNOWN_PERSON
    assert story.resolve("kim", channel=Channel.SLACK).refusal is Refusal.ASSURANCE_TOO_LOW
    assert story.phase is Phase.UNKNOWN
    story.becomes(Directory, agents=agents_with("bot", owners=("ada", "kim")))
    assert story.resolve("kim").refusal is Refusal.SELF_APPROVAL
    assert story.resolve("gus").refusal is None


def with_operators(*members: str) -> Story:
    """An automatic act whose outcome nobody knows, in a directory with these operators."""
    story = unknown("s3.list", ())
    story.becomes(Directory, groups=(*GROUPS, Group(id="operators", members=members)))
    return story


def test_where_policy_asked_nobody_an_operator_resolves() -> None:
    story = with_operators("ada", "eve")
    assert story.resolve("dan").refusal is Refusal.NO_SEAT
    assert story.resolve("ada").refusal is Refusal.SELF_APPROVAL
    assert story.resolve("eve", channel=Channel.SLACK).refusal is Refusal.ASSURANCE_TOO_LOW
    assert story.resolve("eve", "failed").refusal is None
    assert story.phase is Phase.FAILED


def test_where_policy_asked_nobody_and_there_are_no_operators_nobody_resolves() -> None:
    story = unknown("s3.list", ())
    assert story.resolve("dan").refusal is Refusal.NO_SEAT


def test_operators_resolve_nothing_that_people_were_asked_for() -> None:
    story = unknown()
    story.becomes(Directory, groups=(*GROUPS, Group(id="operators", members=("ivy",))))
    assert story.resolve("ivy").refusal is Refusal.NO_SEAT


# ---------------------------------------------------------------- law 6: fail closed


def test_an_empty_world_admits_nothing() -> None:
    story = Story(world=empty_world())
    assert story.ask(said={"classification": None}).refusal is Refusal.BAD_SIGNATURE
    only_keys = Directory(version=1, keys=KEYS)
    story = Story(world=with_documents(empty_world(), only_keys))
    step = story.ask(said={"classification": None})
    assert (story.phase, step.refusal) == (Phase.REFUSED, Refusal.UNKNOWN_AGENT)


def test_without_a_policy_or_with_one_that_does_not_fit_nothing_is_permitted() -> None:
    from tests.broker.builders import DIRECTORY, MANIFESTS

    story = Story(world=with_documents(empty_world(), DIRECTORY, MANIFESTS))
    story.ask()
    assert story.phase is Phase.DENIED
    assert story.here.classification is not None
    assert story.here.classification.rules == ("no_policy",)
    broken = Policies(version=1, cedar="permit (principal, action, resource")
    story = Story(world=with_documents(empty_world(), DIRECTORY, MANIFESTS, broken))
    story.ask()
    assert story.here.classification is not None
    assert (story.phase, story.here.classification.rules) == (Phase.DENIED, ("policy_error",))


def test_a_broken_policy_that_comes_into_force_denies_at_the_plan_and_at_the_claim() -> None:
    for story, name in ((planning(), "plan.denied"), (approved(), "claim.denied")):
        story.becomes(Policies, cedar="nonsense")
        step = story.plan() if story.phase is Phase.PLANNING else story.claim()
        assert (story.phase, step.event) == (Phase.DENIED, name)


def test_an_unknown_fact_denies_what_policy_permits_without_people() -> None:
    story = Story()
    story.ask("s3.list", found=facts(environment=None))
    assert story.phase is Phase.DENIED
    story = Story()
    story.ask("s3.copy", found=facts(environment=None))
    assert story.phase is Phase.PLANNING


# ---------------------------------------------------------------- law 9: total


@pytest.mark.parametrize(
    ("phase", "lost", "act"),
    [
        (Phase.PLANNING, {"classification": None}, lambda story: story.plan()),
        (Phase.PLANNING, {"classified": None}, lambda story: story.plan()),
        (Phase.PENDING, {"question": None}, lambda story: story.says(Verdict.APPROVE, "dan")),
        (Phase.PENDING, {"classification": None}, lambda story: story.approve("dan")),
        (Phase.APPROVED, {"plan": None}, lambda story: story.claim()),
        (Phase.EXECUTING, {"grant": None}, lambda story: story.report()),
        (Phase.EXECUTING, {"round": None}, lambda story: story.report(Result.STALE)),
    ],
)
def test_a_row_that_lacks_what_its_phase_needs_is_a_refusal_and_not_a_fault(
    phase: Phase, lost: dict[str, None], act: Callable[[Story], Step]
) -> None:
    story = in_phase(phase)
    record = story.here.grant
    story.row = story.here.model_copy(update=lost)
    if "round" not in lost and phase is Phase.EXECUTING:
        assert record is not None
        step = story.hear(story.an_outcome(grant=record.digest))
    else:
        step = act(story)
    assert step.refusal is Refusal.INTERNAL
    assert story.phase is phase


def test_a_claim_refused_for_a_fault_is_told_too() -> None:
    story = approved()
    story.row = story.here.model_copy(update={"plan": None})
    assert story.claim().refusal is Refusal.INTERNAL
    assert [each.refusal for each in story.said(ClaimRefused)] == [Refusal.INTERNAL]


def test_a_row_without_its_times_lets_nobody_in() -> None:
    story = pending()
    story.row = story.here.model_copy(update={"expires_at": None})
    assert story.approve("dan").refusal is Refusal.LATE
    assert story.tick(T0 + DAY).refusal is Refusal.WRONG_PHASE
    story = approved()
    story.row = story.here.model_copy(update={"approved_until": None})
    assert story.claim().refusal is Refusal.LATE
    story = executing()
    story.row = story.here.model_copy(update={"settled_at": None})
    assert story.tick(T0 + DAY).refusal is Refusal.WRONG_PHASE


def test_an_input_given_to_another_intents_row_is_a_fault_and_moves_nothing() -> None:
    story, other = pending(), Story()
    other.ask(number=2)
    decision = story.a_decision(Verdict.APPROVE, "dan", intent=other.here.intent_id)
    assert story.hear(decision).refusal is Refusal.INTERNAL
    assert story.phase is Phase.PENDING


def test_a_table_that_leads_where_it_does_not_list_is_a_fault() -> None:
    story = pending()
    event = story.events[-1]
    stray = lifecycle.Transition(frozenset(), Plan, "", lambda case: Step(case.here, "x"), frozenset())
    with pytest.raises(AssertionError, match="led to pending"):
        stray.move(lifecycle._Case(story.row, event, story.world, Local()))
    with pytest.raises(AssertionError, match="no row"):
        stray.move(lifecycle._Case(None, event, story.world, Local()))
    with pytest.raises(TypeError, match=r"gave Plan to a judge of Claim"):
        lifecycle._record(event, Claim)


# ---------------------------------------------------------------- bounds: no row becomes unreadable


def many(count: int, prefix: str = "p") -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in range(count))


def crowded(count: int) -> Story:
    """A story whose engineers are many."""
    from tests.broker.builders import PERSONS, person

    story = pending("s3.export")
    names = many(count)
    story.becomes(
        Directory,
        persons=(*PERSONS, *(person(name) for name in names)),
        groups=groups_with("sre", "dan", "eve", *names),
    )
    return story


def test_many_yeses_of_one_group_leave_room_for_the_other_seats() -> None:
    story = crowded(36)
    refusals = [story.approve(name).refusal for name in many(36)]
    assert refusals[: lifecycle.SPARE_VOTES] == [None] * lifecycle.SPARE_VOTES
    assert set(refusals[lifecycle.SPARE_VOTES :]) == {Refusal.OVERLOADED}
    story.approve("gus")
    assert story.phase is Phase.APPROVED


def test_a_row_full_of_yeses_takes_no_more() -> None:
    story = crowded(2)
    story.approve("p0")
    row = story.here
    vote = row.votes[0]
    story.row = row.model_copy(update={"votes": tuple(vote for _ in range(lifecycle.MAX_VOTES))})
    assert story.approve("p1").refusal is Refusal.OVERLOADED


def test_many_early_revokes_end_the_intent() -> None:
    story = crowded(lifecycle.MAX_BARRED + 1)
    row = story.here
    story.row = row.model_copy(update={"barred": tuple(sorted(many(lifecycle.MAX_BARRED)))})
    story.revoke(f"p{lifecycle.MAX_BARRED}")
    assert story.phase is Phase.REVOKED


def test_a_circle_that_no_row_can_hold_is_refused_at_the_door_and_at_every_later_step() -> None:
    from tests.broker.builders import PERSONS, person

    names = many(lifecycle.MAX_CIRCLE + 1)
    crowd = {
        "persons": (*PERSONS, *(person(name, accounts=()) for name in names)),
        "agents": agents_with("bot", users=names[:1024], owners=("ada", "ben", "cat")),
    }
    story = Story()
    story.becomes(Directory, **crowd)
    assert (story.ask().refusal, story.phase) == (Refusal.OVERLOADED, Phase.REFUSED)
    story = pending()
    story.becomes(Directory, **crowd)
    assert story.approve("dan").refusal is Refusal.OVERLOADED
    assert story.deny("dan").refusal is Refusal.OVERLOADED
    story = approved()
    story.becomes(Directory, **crowd)
    assert story.claim().refusal is Refusal.OVERLOADED
    assert story.said(ClaimRefused)


@pytest.mark.parametrize("letter", ["\x01", "\U0001f512", "x"])
def test_words_of_any_length_and_kind_can_be_repeated(letter: str) -> None:
    words = letter * 2000
    story = pending()
    story.deny("dan", reason=words)
    assert story.phase is Phase.DENIED
    story = executing()
    story.report(Result.UNKNOWN, reason=words)
    story.report(Result.STALE, reason=words)
    assert story.phase is Phase.PLANNING
    story = unknown()
    story.observe(Result.UNKNOWN, reason=words)
    story.resolve("eve", reason=words)
    assert story.phase is Phase.SUCCEEDED
    story = Story()
    story.ask(said={"refusal": Refusal.MALFORMED, "reason": words, "classification": None})
    assert story.phase is Phase.REFUSED


def test_a_row_that_is_nearly_full_takes_no_yes_but_still_a_deny() -> None:
    story = pending("s3.export")
    lot = tuple("x" * 1000 for _ in range(9))
    for name in ("dan", "eve"):
        heavy = story.a_decision(Verdict.APPROVE, name).evidence.model_copy(update={"amr": lot})
        assert story.approve(name, evidence=heavy).refusal is None
    row = story.here
    vote = row.votes[0]
    heavy_vote = vote.model_copy(update={"person": "dan"})
    story.row = row.model_copy(update={"votes": tuple(heavy_vote for _ in range(30))})
    story.row = story.here.model_copy(update={"answers": ()})
    while len(story.here.to_bytes()) < lifecycle.MAX_ROW_BYTES - 12_000:
        story.row = story.here.model_copy(update={"votes": (*story.here.votes, heavy_vote)})
    gus = story.a_decision(Verdict.APPROVE, "gus").evidence.model_copy(update={"amr": lot, "acr": "y" * 1000})
    refused = story.approve("gus", evidence=gus)
    assert refused.refusal is Refusal.OVERLOADED
    story.deny("eve")
    assert story.phase is Phase.DENIED


def test_what_the_agent_says_of_whom_it_acts_for_only_widens_unless_the_gateway_says_so() -> None:
    context = Context(reason="x", on_behalf_of="eve")
    story = Story()
    story.ask(context=context)
    assert story.here.circle == ("ada", "ben", "cat", "eve")
    story = Story()
    story.ask(context=context, signed_by="gateway")
    assert story.here.circle == ("ada", "cat", "eve")


def test_a_key_that_left_the_directory_vouches_for_nobody() -> None:
    story = Story()
    story.ask(context=Context(reason="x", on_behalf_of="eve"), signed_by="gateway")
    story.becomes(Directory, keys=tuple(each for each in KEYS if each.role != "gateway"))
    story.plan(intent=state(story.intent, signer("gateway"), REALM).digest)
    assert set(story.here.circle) == {"ada", "ben", "cat", "eve"}


def test_a_gateway_that_may_vouch_for_no_login_of_a_person_narrows_no_circle_to_them() -> None:
    story = Story()
    strange = [
        each.model_copy(update={"providers": ("elsewhere",)}) if each.role == "gateway" else each for each in KEYS
    ]
    story.becomes(Directory, keys=tuple(strange))
    story.ask(context=Context(reason="x", on_behalf_of="eve"), signed_by="gateway")
    story.plan(intent=state(story.intent, signer("gateway"), REALM).digest)
    assert set(story.here.circle) == {"ada", "ben", "cat", "eve"}
    # Nor to a name that nobody has.
    story = Story()
    story.ask(context=Context(reason="x", on_behalf_of="nobody"), signed_by="gateway")
    assert set(story.here.circle) == {"ada", "ben", "cat", "nobody"}


def test_a_notifiers_key_may_not_sign_for_an_agent() -> None:
    story = Story()
    story.becomes(Directory, keys=(*KEYS, key("spare", "agent", "spare")))
    assert story.ask(signed_by="api").refusal is Refusal.BAD_SIGNATURE
    assert story.phase is Phase.REFUSED
