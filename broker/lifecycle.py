"""The life of an intent. No I/O, no clock, no randomness: everything that moves an intent is here and in the table.

`decide(row, event, world, local) -> Step`. The transition table is data: what it does not list is refused. The same
inputs give the same bytes. Log times are the only time there is (law 5), an exception in here is the refusal
`internal` and never a stopped partition (law 9).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from broker import classification, policy
from schemas import assurance, circle, ids, question, seats
from schemas.record import Record, RecordError, Statement
from schemas.records import (
    FINAL,
    AccountRef,
    Answer,
    ApprovalEnded,
    ApprovedIntent,
    Claim,
    ClaimRefused,
    Classification,
    ClassifiedIntent,
    Decision,
    Effect,
    ForwardedWithdrawal,
    Grant,
    Intent,
    IntentStatus,
    Outcome,
    OutcomeUnknown,
    PendingApproval,
    Phase,
    Plan,
    PlanFailed,
    PlanRequest,
    Question,
    Refusal,
    Requirement,
    Resolution,
    Result,
    Round,
    Source,
    Tick,
    Verdict,
    Vote,
    Withdrawal,
)
from schemas.snapshots import ManifestAction
from schemas.topics import APPROVED, PLANNING, STATUS, Topic
from schemas.world import World

LEADER_SKEW_MS: Final = 2_000
"""How far two partition leaders' clocks may differ: deadlines fire this much later, so no tick beats a timely yes."""
ANSWERS_KEPT: Final = 8

EventRecord: TypeAlias = (
    ClassifiedIntent | ForwardedWithdrawal | Plan | PlanFailed | Claim | Outcome | Decision | Resolution | Tick
)


T = TypeVar("T", bound=Record)


@dataclass(frozen=True, slots=True)
class Event:
    """One input at its place on the log."""

    source: Source
    log_time: int
    record: EventRecord
    #: The signed record; `record` is what it says.
    statement: Statement


@dataclass(frozen=True, slots=True)
class Local:
    """What the partition knows beside the row: all intents of one requester meet here."""

    #: How many of the requester's intents wait or run now.
    open_intents: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """One record to write in the same transaction."""

    topic: Topic
    record: Record
    executor: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The answer to one event: the row after it (the same object when nothing changed), and what is said."""

    row: PendingApproval | None
    event: str
    outputs: tuple[Output, ...] = ()
    refusal: Refusal | None = None
    reason: str | None = None
    #: The deadline this step set, for the trail.
    until: int | None = None
    #: Whether a question was opened, so that the trail shows what people were asked.
    question_opened: bool = False


class _Refused(Exception):  # noqa: N818 - an answer, raised only between the lines of this module
    def __init__(self, refusal: Refusal, reason: str | None = None, outputs: tuple[Output, ...] = ()) -> None:
        super().__init__(refusal)
        self.refusal = refusal
        self.reason = reason
        self.outputs = outputs


@dataclass(frozen=True, slots=True)
class _Case:
    """What a transition judges."""

    row: PendingApproval | None
    event: Event
    world: World
    local: Local

    @property
    def here(self) -> PendingApproval:
        """The row, where the table says there is one."""
        if self.row is None:
            raise AssertionError("the table listed no row")
        return self.row


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the table."""

    before: frozenset[Phase | None]
    on: type[Record]
    guard: str
    judge: Callable[[_Case], Step]
    after: frozenset[Phase | None] = field(default_factory=frozenset)

    def move(self, case: _Case) -> Step:
        """Judge, and hold the judgement against the table."""
        step = self.judge(case)
        after = step.row.phase if step.row is not None else None
        if after not in self.after:
            raise AssertionError(f"{self.on.TYPE} led to {after}, which the table does not list")
        return step


# ---------------------------------------------------------------- deciding


def decide(row: PendingApproval | None, event: Event, world: World, local: Local) -> Step:
    """The answer to one event. Total: whatever comes, one Step."""
    before = row.phase if row is not None else None
    name = _NAMES[type(event.record)]
    try:
        _require_authority(event, world)
        _require_fresh_id(row, event)
        step = _transition(before, event).move(_Case(row, event, world, local))
    except _Refused as refused:
        row = _answered(row, event, refused.refusal, world)
        return Step(row, name, refused.outputs, refused.refusal, refused.reason)
    except Exception as exc:  # noqa: BLE001 - law 9: a fault in pure code is an answer, never a stopped partition
        return Step(row, name, (), Refusal.INTERNAL, f"{type(exc).__name__}: {exc}"[:500])
    return step


def intent_id_of(record: EventRecord) -> str | None:
    """Which intent an event is about; a tick is about whichever is due."""
    match record:
        case ClassifiedIntent():
            return str(record.intent.body.get("id"))
        case ForwardedWithdrawal():
            return str(record.withdrawal.body.get("intent"))
        case Plan() | PlanFailed():
            return record.round.intent
        case Claim() | Outcome() | Decision() | Resolution():
            return record.intent
        case Tick():
            return None


def due_at(row: PendingApproval) -> int | None:
    """The log time a tick must lie beyond to move this row, or None when no tick will."""
    match row.phase:
        case Phase.PLANNING | Phase.PENDING | Phase.APPROVED:
            return row.expires_at + LEADER_SKEW_MS if row.expires_at is not None else None
        case Phase.EXECUTING:
            return row.settled_at + LEADER_SKEW_MS if row.settled_at is not None else None
        case _:
            return None


def intent_of(row: PendingApproval) -> Intent:
    """The signed intent of a row."""
    if row.classified is None:
        raise AssertionError("only a withdrawal came")
    return row.classified.read(ClassifiedIntent).intent.read(Intent)


# ---------------------------------------------------------------- before the table


def _require_authority(event: Event, world: World) -> None:
    """Every input is signed by a key that may say it (law 6); the core's own ticks too."""
    refusal = world.authority.refuses(event.statement, event.log_time)
    if refusal is not None:
        raise _Refused(refusal, "the signature does not fit, or its key may not say this")


def _require_fresh_id(row: PendingApproval | None, event: Event) -> None:
    """Law 4: an id older than what rows are remembered for opens no second life."""
    intent_id = intent_id_of(event.record)
    if row is None and intent_id is not None:
        try:
            is_fresh = ids.is_within_window(intent_id, event.log_time)
        except ids.IntentIdError as exc:
            raise _Refused(Refusal.MALFORMED, str(exc)) from exc
        if not is_fresh:
            raise _Refused(Refusal.ID_OUT_OF_WINDOW, "the id's time is outside the window at this log time")


def _transition(before: Phase | None, event: Event) -> Transition:
    """The line of the table. What it does not list is refused, and a claimer is told so."""
    transition = TABLE.get((before, type(event.record)))
    if transition is not None:
        return transition
    if before is None:
        refusal = Refusal.UNKNOWN_INTENT
    elif before in FINAL:
        refusal = Refusal.FINAL
    else:
        refusal = Refusal.WRONG_PHASE
    raise _Refused(refusal, None, _told_the_claimer(event, refusal))


def _told_the_claimer(event: Event, refusal: Refusal) -> tuple[Output, ...]:
    claim = event.record
    if not isinstance(claim, Claim):
        return ()
    record = ClaimRefused(intent=claim.intent, question=claim.question, instance=claim.instance, refusal=refusal)
    return (Output(APPROVED, record, claim.executor),)


# ---------------------------------------------------------------- admission


def _admit(case: _Case) -> Step:
    """None, classified. Intake's answer is a proposal: the core computes it again and takes the stricter (law 6)."""
    event, world = case.event, case.world
    classified = _record(event, ClassifiedIntent)
    if classified.refusal is not None:
        return _pinned(case, classified, Phase.REFUSED, classified.refusal, classified.reason)
    try:
        intent = classification.admit(classified.intent, world, classified.asked_at, event.log_time)
    except classification.Refused as refused:
        return _pinned(case, classified, Phase.REFUSED, refused.refusal, refused.reason)
    if case.local.open_intents >= _max_open(intent, world):
        reason = "too many of this requester's intents wait already; withdraw some or wait"
        return _pinned(case, classified, Phase.REFUSED, Refusal.OVERLOADED, reason)
    own = classification.classify(intent, classified.facts, None, world, classified.asked_at)
    proposal = classified.classification or policy.deny("no_proposal", "intake said nothing")
    found = policy.stricter(proposal, own)
    base = _new_row(case, classified, Phase.DENIED, found)
    base = _widened(base, intent, world)
    if found.effect is Effect.DENY:
        return _ended(base, event, Phase.DENIED, "intent.denied", found.reason or "denied by policy")
    round_ = Round(intent=intent.id, number=1, opened=event.source)
    expires_at = classified.asked_at + 1000 * min(
        intent.ttl, found.requirement.within if found.requirement else intent.ttl
    )
    row = base.model_copy(update={"phase": Phase.PLANNING, "round": round_, "expires_at": expires_at})
    return Step(row, "intent.classified", (_ask_for_plan(row, event), _status(row, event)), until=expires_at)


def _max_open(intent: Intent, world: World) -> int:
    for agent in world.directory.agents if world.directory else ():
        if intent.subject.type == "agent" and agent.id == intent.subject.id:
            return agent.max_open
    return 20


def _pinned(case: _Case, classified: ClassifiedIntent, phase: Phase, refusal: Refusal, reason: str | None) -> Step:
    """A final row that pins the id: the requester hears of it, and no other body can come under the id."""
    row = _new_row(case, classified, phase, None)
    step = _ended(row, case.event, phase, "intent.refused", reason, refusal)
    return Step(step.row, step.event, step.outputs, refusal, reason)


def _new_row(case: _Case, classified: ClassifiedIntent, phase: Phase, found: Classification | None) -> PendingApproval:
    event = case.event
    cited = min(classified.versions.directory, len(case.world.directories))
    return PendingApproval(
        intent_id=str(classified.intent.body["id"]),
        phase=phase,
        classified=event.statement,
        classification=found,
        # Law 2: the union starts at the version intake cites.
        circle_from=max(cited, 1),
        circle_to=max(cited, 1) - 1,
        asked_at=classified.asked_at,
        changed=event.source,
        changed_at=event.log_time,
    )


def _withdraw_first(case: _Case) -> Step:
    """None, withdrawal: it overtook its intent, which may still come by the sweep. Only the id's requester pins it."""
    event = case.event
    forwarded = _record(event, ForwardedWithdrawal)
    withdrawal = _withdrawal(forwarded, case.world)
    if withdrawal.by.id != ids.requester_of(withdrawal.intent):
        raise _Refused(Refusal.UNKNOWN_INTENT, "only the requester can withdraw what has not come yet")
    row = PendingApproval(
        intent_id=withdrawal.intent,
        phase=Phase.WITHDRAWN,
        asked_at=forwarded.asked_at,
        changed=event.source,
        changed_at=event.log_time,
    )
    return _ended(row, event, Phase.WITHDRAWN, "intent.withdrawn", withdrawal.reason or "withdrawn by its requester")


def _again(case: _Case) -> Step:
    """Any, classified again. The first body seen under an id pins it for ever (law 1, T1)."""
    row, classified = case.here, _record(case.event, ClassifiedIntent)
    if row.classified is None:
        raise _Refused(Refusal.FINAL, "withdrawn before it came")
    first = row.classified.read(ClassifiedIntent).intent
    if first.digest == classified.intent.digest:
        raise _Refused(Refusal.DUPLICATE)
    raise _Refused(Refusal.CONFLICT, "another body was seen first under this id; take a new id")


# ---------------------------------------------------------------- planning


def _planned(case: _Case) -> Step:
    """Planning, plan: policy judges again with the plan's facts, only tightening; opens the question (law 1)."""
    row, event, world = case.here, case.event, case.world
    plan = _record(event, Plan)
    classified = _classified(row)
    intent = intent_of(row)
    _require_round(row, plan.round, plan.executor, intent)
    if plan.intent != classified.intent.digest:
        raise _Refused(Refusal.CONFLICT, "the plan is for another body")
    row = _widened(row, intent, world)
    own = classification.classify(intent, classified.facts, plan, world, event.log_time)
    found = policy.stricter(_in_force(row), own)
    row = row.model_copy(update={"plan": event.statement, "classification": found})
    if found.effect is Effect.DENY:
        return _ended(row, event, Phase.DENIED, "plan.denied", found.reason or "denied by policy")
    return _asked(row, event, world, "plan.reported")


def _asked(row: PendingApproval, event: Event, world: World, name: str, outputs: tuple[Output, ...] = ()) -> Step:
    """Open a question over what is in force now; every earlier yes is void."""
    found = _in_force(row)
    classified = _classified(row)
    requirement = found.requirement
    if row.plan is None:
        raise AssertionError("a question without a plan")
    asked = question.ask(world.realm, row.intent_id, classified, row.plan, requirement, event.source)
    deadline = row.expires_at or event.log_time
    if requirement is not None:
        deadline = min(deadline, row.asked_at + 1000 * requirement.within)
    row = row.model_copy(
        update={
            "phase": Phase.PENDING,
            "question": asked,
            "votes": (),
            "barred": (),
            "expires_at": deadline,
            "approved_until": None,
            "changed": event.source,
            "changed_at": event.log_time,
        }
    )
    if requirement is None:
        return _approved(row, event, name, outputs, question_opened=True)
    return Step(row, name, (*outputs, _status(row, event)), until=deadline, question_opened=True)


def _approved(
    row: PendingApproval,
    event: Event,
    name: str,
    outputs: tuple[Output, ...] = (),
    *,
    question_opened: bool = False,
) -> Step:
    row = row.model_copy(
        update={
            "phase": Phase.APPROVED,
            "approved_until": row.expires_at,
            "changed": event.source,
            "changed_at": event.log_time,
        }
    )
    executor = intent_of(row).executor
    record = ApprovedIntent(
        intent=row.intent_id,
        question=_question(row).digest,
        executor=executor,
        approved_until=row.expires_at or event.log_time,
    )
    said = (*outputs, Output(APPROVED, record, executor), _status(row, event))
    return Step(row, name, said, until=row.expires_at, question_opened=question_opened)


def _unplannable(case: _Case) -> Step:
    """Planning, plan failed: refused with the executor's reason."""
    row, event = case.here, case.event
    failed = _record(event, PlanFailed)
    _require_round(row, failed.round, failed.executor, intent_of(row))
    return _ended(row, event, Phase.REFUSED, "plan.failed", failed.reason)


def _require_round(row: PendingApproval, round_: Round, executor: str, intent: Intent) -> None:
    if executor != intent.executor:
        raise _Refused(Refusal.NOT_ENTITLED, f"{executor} is not the executor of {intent.action.name}")
    if row.round != round_:
        raise _Refused(Refusal.WRONG_ROUND, "a plan of another planning round")


# ---------------------------------------------------------------- deciding by people


def _decided(case: _Case) -> Step:
    """Pending or approved, decision: one person's word on the question in force."""
    row, event, world = case.here, case.event, case.world
    decision = _record(event, Decision)
    intent = intent_of(row)
    if decision.question != _question(row).digest:
        raise _Refused(Refusal.WRONG_QUESTION, "this question is no longer, or was never, asked")
    person = _person(decision.account, decision.person, world)
    row = _widened(row, intent, world)
    match decision.verdict:
        case Verdict.APPROVE:
            return _yes(row, event, world, decision, person)
        case Verdict.DENY:
            return _no(row, event, world, person, decision)
        case Verdict.REVOKE:
            return _taken_back(row, event, world, person)


def _yes(row: PendingApproval, event: Event, world: World, decision: Decision, person: str) -> Step:
    requirement = _in_force(row).requirement
    if row.phase is not Phase.PENDING or requirement is None:
        raise _Refused(Refusal.ALREADY_DECIDED, "every seat is filled")
    # Law 5: by its own log time alone.
    if row.expires_at is None or event.log_time >= row.expires_at:
        raise _Refused(Refusal.LATE, "after the deadline")
    # Law 2, AC-5: before anything else about entitlement, and without exemption.
    if person in row.circle:
        raise _Refused(Refusal.SELF_APPROVAL, f"{person} stands behind the requester")
    if person in row.barred:
        raise _Refused(Refusal.BARRED, f"{person} revoked on this question")
    if person in {vote.person for vote in row.votes}:
        raise _Refused(Refusal.ALREADY_DECIDED, f"{person} said yes already")
    if not _sits(person, requirement, world, event.log_time):
        raise _Refused(Refusal.NO_SEAT, f"{person} is in none of: {', '.join(sorted(set(seats.places(requirement))))}")
    _require_assurance(decision, event, world, requirement)
    vote = Vote(person=person, decision=event.statement, log_time=event.log_time, source=event.source)
    row = row.model_copy(update={"votes": (*row.votes, vote), "changed": event.source, "changed_at": event.log_time})
    row = _with_answer(row, event, person, None)
    if seats.is_filled(requirement, _candidates(row, requirement, world)):
        return _approved(row, event, "decision.recorded")
    return Step(row, "decision.recorded", (_status(row, event),))


def _no(row: PendingApproval, event: Event, world: World, person: str, decision: Decision) -> Step:
    """Somebody entitled says no. One's own intent included: that is a withdrawal in other words."""
    requirement = _in_force(row).requirement
    is_entitled = person in row.circle or (
        requirement is not None and _sits(person, requirement, world, event.log_time)
    )
    if not is_entitled:
        raise _Refused(Refusal.NO_SEAT, f"{person} has no say in this")
    row = _with_answer(row, event, person, None)
    return _ended(row, event, Phase.DENIED, "decision.recorded", decision.reason or f"denied by {person}")


def _taken_back(row: PendingApproval, event: Event, world: World, person: str) -> Step:
    """A revoke of one's own yes ends the intent; one that overtook its yes bars that yes on this question."""
    if person in {vote.person for vote in row.votes}:
        row = _with_answer(row, event, person, None)
        return _ended(row, event, Phase.REVOKED, "decision.recorded", f"{person} took the yes back")
    requirement = _in_force(row).requirement
    if row.phase is not Phase.PENDING or requirement is None:
        raise _Refused(Refusal.NOTHING_TO_REVOKE, f"{person} said no yes on this question")
    if not _sits(person, requirement, world, event.log_time):
        raise _Refused(Refusal.NO_SEAT, f"{person} has no say in this")
    barred = tuple(sorted({*row.barred, person}))
    row = row.model_copy(update={"barred": barred, "changed": event.source, "changed_at": event.log_time})
    row = _with_answer(row, event, person, None)
    return Step(row, "decision.barred", (), reason=f"{person} is barred on this question")


def _too_late_to_stop(case: _Case) -> Step:
    """Executing, deny or revoke: remembered, so that a `stale` ends there instead of asking again."""
    row, event, world = case.here, case.event, case.world
    decision = _record(event, Decision)
    if decision.question != _question(row).digest:
        raise _Refused(Refusal.WRONG_QUESTION, "this question is no longer, or was never, asked")
    person = _person(decision.account, decision.person, world)
    requirement = _in_force(row).requirement
    match decision.verdict:
        case Verdict.APPROVE:
            raise _Refused(Refusal.ALREADY_DECIDED, "it runs already")
        case Verdict.REVOKE:
            if person not in {vote.person for vote in row.votes}:
                raise _Refused(Refusal.NOTHING_TO_REVOKE, f"{person} said no yes on this question")
            word = "revoked"
        case Verdict.DENY:
            entitled = requirement is not None and _sits(person, requirement, world, event.log_time)
            if not entitled and person not in row.circle:
                raise _Refused(Refusal.NO_SEAT, f"{person} has no say in this")
            word = "denied"
    row = _with_answer(row, event, person, None)
    return _remembered(row, event, "decision.remembered", word)


def _remembered(row: PendingApproval, event: Event, name: str, word: str) -> Step:
    row = row.model_copy(
        update={"remembered": row.remembered or word, "changed": event.source, "changed_at": event.log_time}
    )
    return Step(row, name, (), reason="too late to stop; remembered in case nothing was done")


def _person(account: AccountRef, claimed: str | None, world: World) -> str:
    """Persons, never accounts: the core resolves for itself and compares (law 2)."""
    directory = world.directory
    for person in directory.persons if directory else ():
        if account in person.accounts:
            if not person.is_active:
                raise _Refused(Refusal.UNKNOWN_PERSON, f"{person.id} is not active")
            if claimed is not None and claimed != person.id:
                raise _Refused(Refusal.UNKNOWN_PERSON, "the notifier resolved this account to another person")
            return person.id
    raise _Refused(Refusal.UNKNOWN_PERSON, "no person of the directory has this account")


def _sits(person: str, requirement: Requirement, world: World, log_time: int) -> bool:
    directory = world.directory
    return directory is not None and any(
        seats.may_sit(person, of, directory, world.rosters, log_time) for of in set(seats.places(requirement))
    )


def _candidates(row: PendingApproval, requirement: Requirement, world: World) -> Mapping[str, list[str]]:
    """For each yes that still counts: the seats its person may take, on call as of the yes's own log time (law 3)."""
    directory = world.directory
    if directory is None:
        return {}
    wanted = sorted(set(seats.places(requirement)))
    return {
        vote.person: [of for of in wanted if seats.may_sit(vote.person, of, directory, world.rosters, vote.log_time)]
        for vote in row.votes
        # Law 2, again: who came into the circle since does not count.
        if vote.person not in row.circle
    }


def _require_assurance(decision: Decision | Resolution, event: Event, world: World, requirement: Requirement) -> None:
    key = world.authority.key(event.statement.keyid)
    if key is None:
        raise _Refused(Refusal.BAD_SIGNATURE)
    reached = assurance.vouched(decision, key, event.log_time)
    if assurance.rank(reached) < assurance.rank(requirement.assurance):
        raise _Refused(
            Refusal.ASSURANCE_TOO_LOW, f"this needs {requirement.assurance.value}; the click is worth {reached.value}"
        )


# ---------------------------------------------------------------- withdrawing and time


def _withdrawn(case: _Case) -> Step:
    """Planning, pending, approved: withdrawn by the requester or an owner of the agent."""
    row, event = case.here, case.event
    withdrawal = _withdrawal(_record(event, ForwardedWithdrawal), case.world)
    _require_requester_or_owner(row, withdrawal, case.world)
    return _ended(row, event, Phase.WITHDRAWN, "intent.withdrawn", withdrawal.reason or f"by {withdrawal.by.id}")


def _withdrawn_too_late(case: _Case) -> Step:
    row, event = case.here, case.event
    withdrawal = _withdrawal(_record(event, ForwardedWithdrawal), case.world)
    _require_requester_or_owner(row, withdrawal, case.world)
    return _remembered(row, event, "intent.remembered", "withdrawn")


def _withdrawal(forwarded: ForwardedWithdrawal, world: World) -> Withdrawal:
    if forwarded.refusal is not None:
        raise _Refused(forwarded.refusal, forwarded.reason)
    refusal = world.authority.refuses(forwarded.withdrawal, forwarded.asked_at)
    if refusal is not None:
        raise _Refused(refusal, "the withdrawal's own signature does not fit")
    try:
        return forwarded.withdrawal.read(Withdrawal)
    except RecordError as exc:
        raise _Refused(Refusal.MALFORMED, str(exc)) from exc


def _require_requester_or_owner(row: PendingApproval, withdrawal: Withdrawal, world: World) -> None:
    by = withdrawal.by
    if by.id == ids.requester_of(row.intent_id):
        return
    directory = world.directory
    for agent in directory.agents if directory else ():
        if agent.id == ids.requester_of(row.intent_id) and by.type == "person" and by.id in agent.owners:
            return
    raise _Refused(Refusal.NOT_ENTITLED, f"{by.id} is neither the requester nor an owner of the agent")


def _expired(case: _Case) -> Step:
    """Planning, pending, approved, tick: the deadline has passed for every leader's clock."""
    row, event = case.here, case.event
    _require_due(row, event)
    return _ended(
        row, event, Phase.EXPIRED, "intent.expired", "nobody decided in time" if row.question else "no plan in time"
    )


def _unknown(case: _Case) -> Step:
    """Executing, tick: lease and settle time are over. From now on others may observe; nobody may act (law 4)."""
    row, event = case.here, case.event
    _require_due(row, event)
    grant = _grant(row)
    record = OutcomeUnknown(intent=row.intent_id, grant=grant, since=event.log_time)
    row = row.model_copy(
        update={
            "phase": Phase.UNKNOWN,
            "unknown": record.digest,
            "reason": "the executor said nothing within its lease",
            "changed": event.source,
            "changed_at": event.log_time,
        }
    )
    return Step(row, "outcome.unknown", (Output(APPROVED, record, grant.executor), _status(row, event)))


def _require_due(row: PendingApproval, event: Event) -> None:
    due = due_at(row)
    if due is None or event.log_time <= due:
        raise _Refused(Refusal.WRONG_PHASE, "nothing is due")


# ---------------------------------------------------------------- acting


def _claimed(case: _Case) -> Step:
    """Approved, claim. Everything is judged again, in log order, with the world of now (laws 2, 3, 4; T3)."""
    row, event, world = case.here, case.event, case.world
    claim = _record(event, Claim)
    intent = intent_of(row)
    if claim.executor != intent.executor:
        raise _refused_claim(event, Refusal.NOT_ENTITLED)
    if claim.question != _question(row).digest:
        raise _refused_claim(event, Refusal.WRONG_QUESTION)
    if row.approved_until is None or event.log_time >= row.approved_until:
        raise _refused_claim(event, Refusal.LATE)
    row = _widened(row, intent, world)
    classified = _classified(row)
    plan = row.plan.read(Plan) if row.plan else None
    own = classification.classify(intent, classified.facts, plan, world, event.log_time)
    found = policy.stricter(_in_force(row), own)
    action = world.manifests.action(intent.action.name) if world.manifests else None
    if found.effect is Effect.DENY or action is None:
        row = row.model_copy(update={"classification": found})
        step = _ended(row, event, Phase.DENIED, "claim.denied", found.reason or "policy denies it now")
        return Step(step.row, step.event, (*_told_the_claimer(event, Refusal.WRONG_PHASE), *step.outputs))
    requirement = _in_force(row).requirement
    if found.requirement != requirement or (
        requirement is not None and not seats.is_filled(requirement, _candidates(row, requirement, world))
    ):
        return _asked_again(row, event, world, found)
    return _granted(row, event, world, claim, action)


def _asked_again(row: PendingApproval, event: Event, world: World, found: Classification) -> Step:
    """A seat is no longer held, or policy asks for more: a new question, every yes void."""
    ended = Output(
        APPROVED, ApprovalEnded(intent=row.intent_id, question=_question(row).digest), intent_of(row).executor
    )
    row = row.model_copy(update={"classification": found})
    return _asked(row, event, world, "claim.reopened", (*_told_the_claimer(event, Refusal.WRONG_PHASE), ended))


def _granted(row: PendingApproval, event: Event, world: World, claim: Claim, action: ManifestAction) -> Step:
    lease_until = event.log_time + 1000 * action.lease
    if row.classified is None or row.plan is None:
        raise AssertionError("approved without a plan")
    grant = Grant(
        question=_question(row),
        requirement=_in_force(row).requirement,
        classified=row.classified,
        plan=row.plan,
        votes=row.votes,
        circle=row.circle,
        instance=claim.instance,
        executor=claim.executor,
        claim=event.source,
        granted_at=event.log_time,
        lease_until=lease_until,
        versions=world.versions,
    )
    row = row.model_copy(
        update={
            "phase": Phase.EXECUTING,
            "grant": grant,
            "lease_until": lease_until,
            "settled_at": lease_until + 1000 * action.settle,
            "changed": event.source,
            "changed_at": event.log_time,
        }
    )
    return Step(row, "claim.granted", (Output(APPROVED, grant, claim.executor), _status(row, event)), until=lease_until)


def _refused_claim(event: Event, refusal: Refusal) -> _Refused:
    return _Refused(refusal, None, _told_the_claimer(event, refusal))


def _ended_by_outcome(case: _Case) -> Step:
    """Executing, outcome: cites this grant, from its instance (law 4)."""
    row, event = case.here, case.event
    outcome = _record(event, Outcome)
    _require_grant(row, outcome)
    if outcome.observed:
        raise _Refused(Refusal.WRONG_PHASE, "observing starts only after `unknown`")
    if outcome.instance != _grant(row).instance:
        raise _Refused(Refusal.WRONG_INSTANCE, "another instance holds the grant")
    match outcome.result:
        case Result.SUCCEEDED | Result.FAILED:
            return _finished(row, event, outcome, flagged=False)
        case Result.STALE:
            return _stale(row, event, case.world, outcome)
        case Result.UNKNOWN:
            row = row.model_copy(
                update={"reason": outcome.reason, "changed": event.source, "changed_at": event.log_time}
            )
            return Step(row, "outcome.unclear", (), reason=outcome.reason)


def _stale(row: PendingApproval, event: Event, world: World, outcome: Outcome) -> Step:
    """The world moved and nothing was done: every yes is void, planning starts again under the same deadline."""
    if row.remembered is not None:
        return _ended(row, event, Phase(row.remembered), "outcome.stale", "stopped before anything was done")
    last = row.round
    if last is None:
        raise AssertionError("executing without a round")
    round_ = Round(intent=row.intent_id, number=last.number + 1, opened=event.source)
    row = row.model_copy(
        update={
            "phase": Phase.PLANNING,
            "round": round_,
            "plan": None,
            "question": None,
            "votes": (),
            "barred": (),
            "grant": None,
            "lease_until": None,
            "settled_at": None,
            "approved_until": None,
            "reason": outcome.reason or "the target changed after the approval",
            "changed": event.source,
            "changed_at": event.log_time,
        }
    )
    row = _widened(row, intent_of(row), world)
    return Step(row, "outcome.stale", (_ask_for_plan(row, event), _status(row, event)), reason=row.reason)


def _found_out(case: _Case) -> Step:
    """Unknown, outcome: a late word of the grant's instance, or an observation that cites the `unknown`."""
    row, event = case.here, case.event
    outcome = _record(event, Outcome)
    _require_grant(row, outcome)
    if outcome.observed:
        if outcome.unknown is None or outcome.unknown != row.unknown:
            raise _Refused(Refusal.WRONG_GRANT, "an observation must cite the `unknown` it answers")
    elif outcome.instance != _grant(row).instance:
        raise _Refused(Refusal.WRONG_INSTANCE, "another instance held the grant")
    if outcome.result is Result.UNKNOWN:
        row = row.model_copy(update={"reason": outcome.reason, "changed": event.source, "changed_at": event.log_time})
        return Step(row, "outcome.unclear", (_status(row, event),), reason=outcome.reason)
    return _finished(row, event, outcome, flagged=True)


def _finished(row: PendingApproval, event: Event, outcome: Outcome, *, flagged: bool) -> Step:
    # A late `stale` is failed: nothing was done, and nobody may be asked again after an `unknown`.
    phase = Phase.SUCCEEDED if outcome.result is Result.SUCCEEDED else Phase.FAILED
    row = row.model_copy(update={"outcome": event.statement, "flagged": flagged})
    reason = outcome.reason or (outcome.receipt.summary if outcome.receipt else None)
    return _ended(row, event, phase, "outcome.reported", reason)


def _resolved(case: _Case) -> Step:
    """Unknown, resolution: people of the original requirement found out, and say how (law 2 holds here too)."""
    row, event, world = case.here, case.event, case.world
    resolution = _record(event, Resolution)
    if row.grant is None or resolution.grant != row.grant.digest:
        raise _Refused(Refusal.WRONG_GRANT, "another grant's outcome is unknown")
    person = _person(resolution.account, resolution.person, world)
    row = _widened(row, intent_of(row), world)
    if person in row.circle:
        raise _Refused(Refusal.SELF_APPROVAL, f"{person} stands behind the requester")
    requirement = _in_force(row).requirement
    if requirement is None or not _sits(person, requirement, world, event.log_time):
        raise _Refused(Refusal.NO_SEAT, f"{person} has no say in this")
    _require_assurance(resolution, event, world, requirement)
    phase = Phase.SUCCEEDED if resolution.found == "succeeded" else Phase.FAILED
    row = _with_answer(row.model_copy(update={"flagged": True}), event, person, None)
    return _ended(row, event, phase, "outcome.resolved", resolution.reason)


def _require_grant(row: PendingApproval, outcome: Outcome) -> None:
    grant = _grant(row)
    if outcome.grant != grant.digest:
        raise _Refused(Refusal.WRONG_GRANT, "the outcome cites another grant")
    if outcome.executor != grant.executor:
        raise _Refused(Refusal.NOT_ENTITLED, "another executor holds the grant")


# ---------------------------------------------------------------- small pieces


def _record(event: Event, kind: type[T]) -> T:
    if not isinstance(event.record, kind):
        raise TypeError(f"the table gave {type(event.record).__name__} to a judge of {kind.__name__}")
    return event.record


def _classified(row: PendingApproval) -> ClassifiedIntent:
    if row.classified is None:
        raise AssertionError("only a withdrawal came")
    return row.classified.read(ClassifiedIntent)


def _in_force(row: PendingApproval) -> Classification:
    if row.classification is None:
        raise AssertionError("a row that waits has a classification")
    return row.classification


def _question(row: PendingApproval) -> Question:
    if row.question is None:
        raise AssertionError("no question is open")
    return row.question


def _grant(row: PendingApproval) -> Grant:
    if row.grant is None:
        raise AssertionError("no grant was given")
    return row.grant


def _widened(row: PendingApproval, intent: Intent, world: World) -> PendingApproval:
    """Law 2: the circle over every directory version not yet looked at. It only grows."""
    now = len(world.directories)
    if now <= row.circle_to:
        return row
    found = circle.circle_over(
        intent, world.directories_between(row.circle_to + 1, now), is_verified=_is_verified(row, world)
    )
    return row.model_copy(update={"circle": tuple(sorted({*row.circle, *found})), "circle_to": now})


def _is_verified(row: PendingApproval, world: World) -> bool:
    """Whether the gateway signed, which checks the token of whom the agent acts for."""
    key = world.authority.key(_classified(row).intent.keyid)
    return key is not None and key.role == "gateway"


def _ask_for_plan(row: PendingApproval, event: Event) -> Output:
    if row.round is None or row.classified is None:
        raise AssertionError("planning without a round")
    request = PlanRequest(round=row.round, classified=row.classified, expires_at=row.expires_at or event.log_time)
    return Output(PLANNING, request, intent_of(row).executor)


def _status(row: PendingApproval, event: Event, refusal: Refusal | None = None) -> Output:
    record = IntentStatus(intent=row.intent_id, phase=row.phase, refusal=refusal, reason=row.reason, at=event.log_time)
    return Output(STATUS, record)


def _ended(
    row: PendingApproval, event: Event, phase: Phase, name: str, reason: str | None, refusal: Refusal | None = None
) -> Step:
    """A final phase. An approval that could still be claimed is taken back on the executor's topic."""
    outputs: tuple[Output, ...] = ()
    if row.phase is Phase.APPROVED:
        ended = ApprovalEnded(intent=row.intent_id, question=_question(row).digest)
        outputs = (Output(APPROVED, ended, intent_of(row).executor),)
    row = row.model_copy(
        update={
            "phase": phase,
            "reason": reason,
            "ended_at": event.log_time,
            "changed": event.source,
            "changed_at": event.log_time,
        }
    )
    return Step(row, name, (*outputs, _status(row, event, refusal)), reason=reason)


def _with_answer(row: PendingApproval, event: Event, person: str | None, refusal: Refusal | None) -> PendingApproval:
    """The core's answer to a decision, kept in the row so that the notifier can tell the person."""
    decision = event.record
    if not isinstance(decision, Decision | Resolution):
        return row
    verdict = decision.verdict if isinstance(decision, Decision) else None
    answer = Answer(source=event.source, person=person, verdict=verdict, refusal=refusal)
    answers = (*row.answers, answer)[-ANSWERS_KEPT:]
    return row.model_copy(update={"answers": answers, "changed": event.source, "changed_at": event.log_time})


def _answered(row: PendingApproval | None, event: Event, refusal: Refusal, world: World) -> PendingApproval | None:
    """A refused decision changes nothing but the answer that its notifier waits for."""
    decision = event.record
    if row is None or not isinstance(decision, Decision | Resolution):
        return row
    if refusal in {Refusal.BAD_SIGNATURE, Refusal.NOT_ENTITLED}:
        # Nobody can be told: whoever forged it shall not move the row, not even its answers.
        return row
    try:
        person: str | None = _person(decision.account, None, world)
    except _Refused:
        person = None
    return _with_answer(row, event, person, refusal)


# ---------------------------------------------------------------- the table

_P = Phase
_WAITING: Final[frozenset[Phase | None]] = frozenset({_P.PLANNING, _P.PENDING, _P.APPROVED})
_DECIDABLE: Final[frozenset[Phase | None]] = frozenset({_P.PENDING, _P.APPROVED})
_NOBODY: Final[frozenset[Phase | None]] = frozenset({None})
_ANY: Final[frozenset[Phase | None]] = frozenset(_P)


def _to(*phases: Phase) -> frozenset[Phase | None]:
    return frozenset(phases)


TRANSITIONS: Final = (
    Transition(_NOBODY, ClassifiedIntent, "classified again by the core; the stricter of both", _admit,
               _to(_P.PLANNING, _P.DENIED, _P.REFUSED)),
    Transition(_NOBODY, ForwardedWithdrawal, "signed by the id's requester", _withdraw_first, _to(_P.WITHDRAWN)),
    Transition(_ANY, ClassifiedIntent, "always refused: duplicate or conflict", _again),
    Transition(_to(_P.PLANNING), Plan, "its executor, its round, its body; policy only tightens", _planned,
               _to(_P.PENDING, _P.APPROVED, _P.DENIED)),
    Transition(_to(_P.PLANNING), PlanFailed, "its executor, its round", _unplannable, _to(_P.REFUSED)),
    Transition(_DECIDABLE, Decision, "laws 1, 2, 3, 5; assurance derived from evidence", _decided,
               _to(_P.PENDING, _P.APPROVED, _P.DENIED, _P.REVOKED)),
    Transition(_to(_P.EXECUTING), Decision, "too late to stop: deny and revoke are remembered", _too_late_to_stop,
               _to(_P.EXECUTING)),
    Transition(_WAITING, ForwardedWithdrawal, "by the requester or an owner of the agent", _withdrawn,
               _to(_P.WITHDRAWN)),
    Transition(_to(_P.EXECUTING), ForwardedWithdrawal, "too late to stop: remembered", _withdrawn_too_late,
               _to(_P.EXECUTING)),
    Transition(_WAITING, Tick, "past the deadline and the leaders' skew", _expired, _to(_P.EXPIRED)),
    Transition(_to(_P.EXECUTING), Tick, "past lease, settle time and the leaders' skew", _unknown, _to(_P.UNKNOWN)),
    Transition(_to(_P.APPROVED), Claim, "its executor, this question, in time; the world judged again", _claimed,
               _to(_P.EXECUTING, _P.PENDING, _P.APPROVED, _P.DENIED)),
    Transition(_to(_P.EXECUTING), Outcome, "cites this grant, from its instance", _ended_by_outcome,
               _to(_P.SUCCEEDED, _P.FAILED, _P.PLANNING, _P.EXECUTING, _P.DENIED, _P.WITHDRAWN, _P.REVOKED)),
    Transition(_to(_P.UNKNOWN), Outcome, "a late word of the grant's instance, or an observation citing the unknown",
               _found_out, _to(_P.SUCCEEDED, _P.FAILED, _P.UNKNOWN)),
    Transition(_to(_P.UNKNOWN), Resolution, "by people of the original requirement, outside the circle", _resolved,
               _to(_P.SUCCEEDED, _P.FAILED)),
)  # fmt: skip
"""Everything that can move an intent. What is not listed is refused."""

TABLE: Final[Mapping[tuple[Phase | None, type[Record]], Transition]] = {
    (before, transition.on): transition for transition in TRANSITIONS for before in transition.before
}

_NAMES: Final[Mapping[type[Record], str]] = {
    ClassifiedIntent: "intent.classified",
    ForwardedWithdrawal: "intent.withdrawn",
    Plan: "plan.reported",
    PlanFailed: "plan.failed",
    Decision: "decision.recorded",
    Resolution: "outcome.resolved",
    Claim: "claim.made",
    Outcome: "outcome.reported",
    Tick: "tick.passed",
}
"""What an input is called on the trail when it is refused."""
