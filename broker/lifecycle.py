"""The life of an intent. No I/O, no clock, no randomness: everything that moves an intent is here and in the table.

`decide(row, event, world, local) -> Step`. The transition table is data: what it does not list is refused. The same
inputs give the same bytes. Log times are the only time there is (law 5), an exception in here is the refusal
`internal` and never a stopped partition (law 9).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, TypeVar

from schemas import assurance, canonical, circle, classification, ids, policy, question, seats
from schemas.record import Record, RecordError, Statement, prose
from schemas.records import (
    FINAL,
    AccountRef,
    Answer,
    ApprovalEnded,
    ApprovedIntent,
    Assurance,
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
    Pinned,
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
from schemas.snapshots import Agent, ManifestAction
from schemas.timing import LEADER_SKEW_MS
from schemas.topics import APPROVED, PLANNING, STATUS, Topic
from schemas.world import World

ANSWERS_KEPT: Final = 8

# What grows with what others say is bounded, so that every row can be written and read again (law 9).
MAX_CIRCLE: Final = 1024
MAX_BARRED: Final = 256
MAX_VOTES: Final = 64
MAX_ROUNDS: Final = 1000
MAX_OPEN_OF_A_PERSON: Final = 20
SPARE_VOTES: Final = 32
"""Yeses kept though they fill no further seat: they help when a seat is lost later. Above it, only those that fill."""
MAX_ROW_BYTES: Final = 384 * 1024
"""A row this large takes nothing that makes it grow; the rest of a record's 512 KiB is for its end."""
RESTORED: Final = "asked before the realm was restored, and may have been done since: look there, and ask anew"
REASON_BYTES: Final = 6 * 1024
"""Of a reason as JSON, where a control character takes six: whatever repeats it has a cap of its own."""

PINNED_REASON_BYTES: Final = 256
"""The same, of a row that never waited."""
CUT: Final = "..."

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
    #: How many of them were admitted in the minute before this one was asked.
    in_last_minute: int = 0
    #: When people last denied the same wish of the same requester.
    denied_at: int | None = None


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
    def __init__(self, refusal: Refusal, reason: str | None = None) -> None:
        super().__init__(refusal)
        self.refusal = refusal
        self.reason = reason


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
    name = _NAMES[type(event.record)]
    try:
        step = _judged(_Case(row, event, world, local), name)
    except Exception as exc:  # noqa: BLE001 - law 9: a fault in pure code is an answer, never a stopped partition
        reason = f"{type(exc).__name__}: {exc}"[:500]
        step = Step(row, name, _told_the_claimer(event, Refusal.INTERNAL), Refusal.INTERNAL, reason)
    return replace(step, reason=_bounded(step.reason))


def _judged(case: _Case, name: str) -> Step:
    row, event = case.row, case.event
    # Law 6: every input is signed by a key that may say it; the core's own ticks too.
    refusal = case.world.authority.refuses(event.statement, event.log_time)
    if refusal is not None:
        # Nobody is told: whoever forged it shall not move the row, not even its answers.
        return Step(row, name, (), refusal, case.world.authority.why(event.statement, refusal))
    try:
        _require_this_row(case)
        _require_fresh_id(case)
        _require_since_restore(case)
        step = _transition(case).move(case)
        _require_room(event, step)
    except _Refused as refused:
        outputs = _told_the_claimer(event, refused.refusal)
        return Step(_answered(case, refused.refusal), name, outputs, refused.refusal, refused.reason)
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
        case _:
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
    return _classified(row).intent.read(Intent)


# ---------------------------------------------------------------- before the table


def _require_this_row(case: _Case) -> None:
    """The caller's part: the row is the one this input is about, and the statement says what the record says."""
    row, event = case.row, case.event
    named = intent_id_of(event.record)
    if event.statement.type != event.record.TYPE or (row is not None and named not in {None, row.intent_id}):
        raise AssertionError(f"{event.statement.type} about {named} was given to another row, or as another record")


def _require_fresh_id(case: _Case) -> None:
    """Law 4: an id older than what rows are remembered for opens no second life."""
    intent_id = intent_id_of(case.event.record)
    if case.row is None and intent_id is not None:
        try:
            is_fresh = ids.is_within_window(intent_id, case.event.log_time)
        except ids.IntentIdError as exc:
            raise _Refused(Refusal.MALFORMED, str(exc)) from exc
        if not is_fresh:
            raise _Refused(Refusal.ID_OUT_OF_WINDOW, "the id's time is outside the window at this log time")


def _require_since_restore(case: _Case) -> None:
    """Law 4: what was asked before a restore may have been done since; it opens no life, and what waits only ends."""
    row, record = case.row, case.event.record
    intent_id = intent_id_of(record)
    if intent_id is None or not case.world.is_from_before(intent_id):
        return
    only_ends = isinstance(record, ClassifiedIntent | ForwardedWithdrawal)
    if row is None or (row.phase in _WAITING and not only_ends):
        raise _Refused(Refusal.ID_OUT_OF_WINDOW, RESTORED)


def _transition(case: _Case) -> Transition:
    """The line of the table. What it does not list is refused."""
    before = case.row.phase if case.row is not None else None
    transition = TABLE.get((before, type(case.event.record)))
    if transition is not None:
        return transition
    if before is None:
        raise _Refused(Refusal.UNKNOWN_INTENT)
    raise _Refused(Refusal.FINAL if before in FINAL else Refusal.WRONG_PHASE)


def _require_room(event: Event, step: Step) -> None:
    """What makes a row grow leaves room for its end: nothing that is about to end an intent is ever refused here."""
    row = step.row
    if row is not None and (row.phase in _WAITING or isinstance(event.record, Claim)):
        size = len(canonical.encode(row.to_json()))
        if size > MAX_ROW_BYTES:
            raise _Refused(Refusal.OVERLOADED, f"the row would be {size} bytes; at most {MAX_ROW_BYTES} are kept")


def _told_the_claimer(event: Event, refusal: Refusal) -> tuple[Output, ...]:
    """Whoever claimed waits for an answer."""
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
    if (capped := _capped(case, intent)) is not None:
        return _pinned(case, classified, Phase.REFUSED, *capped)
    own = classification.classify(intent, classified.facts, None, world, classified.asked_at)
    proposal = classified.classification or policy.deny("no_proposal", "intake said nothing")
    found = policy.stricter(proposal, own)
    try:
        base = _widened(_new_row(case, classified, Phase.DENIED, found), intent, world)
    except _Refused as refused:
        return _pinned(case, classified, Phase.REFUSED, refused.refusal, refused.reason)
    if found.effect is Effect.DENY:
        return _ended(base, event, Phase.DENIED, "intent.denied", found.reason or "denied by policy")
    round_ = Round(intent=intent.id, number=1, opened=event.source)
    seconds = min(intent.ttl, found.requirement.within if found.requirement else intent.ttl)
    expires_at = base.asked_at + 1000 * seconds
    row = base.model_copy(update={"phase": Phase.PLANNING, "round": round_, "expires_at": expires_at})
    return Step(row, "intent.classified", (_ask_for_plan(row, event), _status(row, event)), until=expires_at)


def _capped(case: _Case, intent: Intent) -> tuple[Refusal, str] | None:
    """T14: nobody wears people down, by many requests, by fast ones, or by asking again what was denied."""
    local, agent = case.local, _agent(intent, case.world)
    if local.open_intents >= (agent.max_open if agent is not None else MAX_OPEN_OF_A_PERSON):
        return Refusal.OVERLOADED, "too many of this requester's intents wait already; withdraw some or wait"
    if agent is None:
        return None
    if agent.max_per_minute is not None and local.in_last_minute >= agent.max_per_minute:
        return (
            Refusal.OVERLOADED,
            f"more than {agent.max_per_minute} intents within a minute; wait",
        )
    if local.denied_at is not None and (left := local.denied_at + 1000 * agent.cool_down - case.event.log_time) > 0:
        return Refusal.COOL_DOWN, f"people denied the same wish; it may be asked again in {-(-left // 1000)} s"
    return None


def _agent(intent: Intent, world: World) -> Agent | None:
    if intent.subject.type != "agent" or world.directory is None:
        return None
    return next((agent for agent in world.directory.agents if agent.id == intent.subject.id), None)


def wish_of(event: Event) -> str | None:
    """What a new intent asks for, whatever its id: None when it is none, or cannot be read."""
    if not isinstance(event.record, ClassifiedIntent):
        return None
    try:
        return event.record.intent.read(Intent).content_digest
    except RecordError:
        return None


def denied_wish_of(row: PendingApproval) -> str | None:
    """What people were asked for and denied; None of every other row."""
    if row.phase is not Phase.DENIED or row.question is None:
        return None
    return intent_of(row).content_digest


def _pinned(case: _Case, classified: ClassifiedIntent, phase: Phase, refusal: Refusal, reason: str | None) -> Step:
    """A final row that pins the id: the requester hears of it, and no other body can come under the id."""
    row = _new_row(case, classified, phase, None)
    step = _ended(row, case.event, phase, "intent.refused", reason, refusal)
    return Step(step.row, step.event, step.outputs, refusal, reason)


def _new_row(case: _Case, classified: ClassifiedIntent, phase: Phase, found: Classification | None) -> PendingApproval:
    event = case.event
    # Intake's word moves no deadline into the future, and no beginning of a circle.
    asked_at = min(classified.asked_at, event.log_time)
    cited = min(classified.versions.directory, len(case.world.directories))
    begins = case.world.circle_begins(asked_at, cited)
    return PendingApproval(
        intent_id=str(classified.intent.body["id"]),
        phase=phase,
        classified=event.statement,
        classification=found,
        # Law 2: intake may be behind, and an owner leave before it reads.
        circle_from=begins,
        circle_to=begins - 1,
        asked_at=asked_at,
        changed=event.source,
        changed_at=event.log_time,
    )


def kept(row: PendingApproval) -> PendingApproval:
    """What of a row is remembered. Of what was refused or denied at the door: which body pins the id, and why (T14).

    Whoever may ask may be refused as often as it likes, and each row stays for a day: it costs the core nothing that
    grows with what was asked. The trail has the whole of it, and `status` the whole reason.
    """
    if row.phase not in _AT_THE_DOOR or row.round is not None or (pinned := _pin(row)) is None:
        return row
    return row.model_copy(
        update={
            "classified": None,
            "classification": None,
            "pinned": pinned,
            "circle": (),
            "circle_from": 0,
            "circle_to": 0,
            "reason": _shortened(row.reason),
        }
    )


_AT_THE_DOOR: Final = frozenset({Phase.REFUSED, Phase.DENIED})


def _pin(row: PendingApproval) -> Pinned | None:
    """Which body pins this row's id."""
    if row.classified is None:
        return None
    classified = row.classified.read(ClassifiedIntent)
    signed = classified.intent
    try:
        intent: Intent | None = signed.read(Intent)
    except RecordError:
        intent = None
    return Pinned(
        digest=signed.digest,
        source=classified.source,
        subject=intent.subject if intent else None,
        action=intent.action.name if intent else None,
    )


def _shortened(reason: str | None) -> str | None:
    if reason is None or len(canonical.encode(reason)) <= PINNED_REASON_BYTES:
        return reason
    cut = reason[:PINNED_REASON_BYTES]
    while len(canonical.encode(cut)) > PINNED_REASON_BYTES - len(CUT):
        cut = cut[:-1]
    return cut + CUT


def _withdraw_first(case: _Case) -> Step:
    """None, withdrawal: it overtook its intent, which may still come by the sweep. Requester and owners pin the id.

    Law 4: whoever could withdraw it when it waits can before it comes, or it would run though they had said no.
    """
    event = case.event
    forwarded = _record(event, ForwardedWithdrawal)
    withdrawal = _withdrawal(forwarded, case.world)
    if not _may_withdraw(withdrawal, case.world):
        raise _Refused(Refusal.UNKNOWN_INTENT, "only its requester or an owner can withdraw what has not come yet")
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
    first = row.pinned if row.pinned is not None else _pin(row)
    if first is None:
        raise _Refused(Refusal.FINAL, "withdrawn before it came")
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
    asked = question.ask(world.realm, row.intent_id, classified, _plan(row), requirement, event.source)
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
    if decision.verdict is Verdict.APPROVE:
        return _yes(row, event, world, decision, person)
    if decision.verdict is Verdict.DENY:
        return _no(row, event, world, person, decision)
    return _taken_back(row, event, person)


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
    voted = row.model_copy(update={"votes": (*row.votes, vote)})
    before, now = (seats.fill(seats.places(requirement), _sitting(each, requirement, world)) for each in (row, voted))
    # Law 3: whoever clicks first cannot use up the room of those who fill the other seats.
    if len(voted.votes) > MAX_VOTES or (len(voted.votes) > SPARE_VOTES and len(now) == len(before)):
        raise _Refused(Refusal.OVERLOADED, "many yeses wait already, and this one fills no further seat")
    row = _with_answer(voted, event, person, None)
    if len(now) == len(seats.places(requirement)):
        return _approved(row, event, "decision.recorded")
    return Step(row, "decision.recorded", (_status(row, event),))


def _no(row: PendingApproval, event: Event, world: World, person: str, decision: Decision) -> Step:
    """Somebody entitled says no. One's own intent included: that is a withdrawal in other words."""
    _require_say(row, event, world, person)
    row = _with_answer(row, event, person, None)
    return _ended(row, event, Phase.DENIED, "decision.recorded", decision.reason or f"denied by {person}")


def _require_say(row: PendingApproval, event: Event, world: World, person: str) -> None:
    """A no is open to more people than a yes: whoever has a seat, and whoever stands behind the requester."""
    requirement = _in_force(row).requirement
    has_seat = requirement is not None and _sits(person, requirement, world, event.log_time)
    if person not in row.circle and not has_seat:
        raise _Refused(Refusal.NO_SEAT, f"{person} has no say in this")


def _taken_back(row: PendingApproval, event: Event, person: str) -> Step:
    """A revoke of one's own yes ends the intent; one that overtook its yes bars that yes on this question."""
    if person in {vote.person for vote in row.votes}:
        row = _with_answer(row, event, person, None)
        return _ended(row, event, Phase.REVOKED, "decision.recorded", f"{person} took the yes back")
    if row.phase is not Phase.PENDING:
        raise _Refused(Refusal.NOTHING_TO_REVOKE, f"{person} said no yes on this question")
    # Whether or not a seat is known: the roster that gives it may be read before the yes that is on its way.
    barred = tuple(sorted({*row.barred, person}))
    row = _with_answer(row, event, person, None)
    if len(barred) > MAX_BARRED:
        return _ended(row, event, Phase.REVOKED, "decision.recorded", f"more than {MAX_BARRED} persons revoked")
    row = row.model_copy(update={"barred": barred})
    return Step(row, "decision.barred", (), reason=f"{person} is barred on this question")


def _too_late_to_stop(case: _Case) -> Step:
    """Executing, deny or revoke: remembered, so that a `stale` ends there instead of asking again."""
    row, event, world = case.here, case.event, case.world
    decision = _record(event, Decision)
    if decision.question != _question(row).digest:
        raise _Refused(Refusal.WRONG_QUESTION, "this question is no longer, or was never, asked")
    person = _person(decision.account, decision.person, world)
    if decision.verdict is Verdict.APPROVE:
        raise _Refused(Refusal.ALREADY_DECIDED, "it runs already")
    if decision.verdict is Verdict.DENY:
        _require_say(row, event, world, person)
    elif person not in {vote.person for vote in row.votes}:
        raise _Refused(Refusal.NOTHING_TO_REVOKE, f"{person} said no yes on this question")
    row = _with_answer(row, event, person, None)
    word = "denied" if decision.verdict is Verdict.DENY else "revoked"
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
    return bool(_seats_of(person, requirement, world, log_time))


def _seats_of(person: str, requirement: Requirement, world: World, log_time: int) -> list[str]:
    directory = world.directory
    wanted = sorted(set(seats.places(requirement)))
    return [of for of in wanted if directory and seats.may_sit(person, of, directory, world.rosters, log_time)]


def _sitting(row: PendingApproval, requirement: Requirement, world: World) -> Mapping[str, list[str]]:
    """For each yes that still counts: the seats its person may take, on call as of the yes's own log time (law 3)."""
    return {
        vote.person: _seats_of(vote.person, requirement, world, vote.log_time)
        for vote in row.votes
        if _counts(vote, row, requirement, world)
    }


def _counts(vote: Vote, row: PendingApproval, requirement: Requirement, world: World) -> bool:
    """Whether a yes still counts with the world of now: by its own log time, but with today's keys and persons."""
    # Law 2, again: who came into the circle since does not count.
    if vote.person in row.circle or world.authority.refuses(vote.decision, vote.log_time) is not None:
        return False
    decision = vote.decision.read(Decision)
    try:
        person = _person(decision.account, decision.person, world)
    except _Refused:
        return False
    return person == vote.person and _reaches(decision, vote.decision, vote.log_time, world, requirement)


def _reaches(
    decision: Decision | Resolution, statement: Statement, log_time: int, world: World, requirement: Requirement
) -> bool:
    return assurance.rank(_vouched(decision, statement, log_time, world)) >= assurance.rank(requirement.assurance)


def _vouched(decision: Decision | Resolution, statement: Statement, log_time: int, world: World) -> Assurance:
    key = world.authority.key(statement.keyid)
    return assurance.vouched(decision, key, log_time) if key is not None else Assurance.CHANNEL


def _require_assurance(decision: Decision | Resolution, event: Event, world: World, requirement: Requirement) -> None:
    if not _reaches(decision, event.statement, event.log_time, world, requirement):
        reached = _vouched(decision, event.statement, event.log_time, world)
        raise _Refused(
            Refusal.ASSURANCE_TOO_LOW, f"this needs {requirement.assurance.value}; the click is worth {reached.value}"
        )


# ---------------------------------------------------------------- withdrawing and time


def _withdrawn(case: _Case) -> Step:
    """Planning, pending, approved: withdrawn by the requester or an owner of the agent."""
    row, event = case.here, case.event
    withdrawal = _withdrawal(_record(event, ForwardedWithdrawal), case.world)
    _require_requester_or_owner(withdrawal, case.world)
    return _ended(row, event, Phase.WITHDRAWN, "intent.withdrawn", withdrawal.reason or f"by {withdrawal.by.id}")


def _withdrawn_too_late(case: _Case) -> Step:
    row, event = case.here, case.event
    withdrawal = _withdrawal(_record(event, ForwardedWithdrawal), case.world)
    _require_requester_or_owner(withdrawal, case.world)
    return _remembered(row, event, "intent.remembered", "withdrawn")


def _withdrawal(forwarded: ForwardedWithdrawal, world: World) -> Withdrawal:
    if forwarded.refusal is not None:
        raise _Refused(forwarded.refusal, forwarded.reason)
    refusal = world.authority.refuses(forwarded.withdrawal, forwarded.asked_at)
    if refusal is not None:
        raise _Refused(refusal, f"the withdrawal itself: {world.authority.why(forwarded.withdrawal, refusal)}")
    try:
        return forwarded.withdrawal.read(Withdrawal)
    except RecordError as exc:
        raise _Refused(Refusal.MALFORMED, str(exc)) from exc


def _require_requester_or_owner(withdrawal: Withdrawal, world: World) -> None:
    if not _may_withdraw(withdrawal, world):
        raise _Refused(Refusal.NOT_ENTITLED, f"{withdrawal.by.id} is neither the requester nor an owner of the agent")


def _may_withdraw(withdrawal: Withdrawal, world: World) -> bool:
    by, requester = withdrawal.by, ids.requester_of(withdrawal.intent)
    if by.id == requester:
        return True
    agents = world.directory.agents if world.directory else ()
    return any(agent.id == requester and by.type == "person" and by.id in agent.owners for agent in agents)


def _expired(case: _Case) -> Step:
    """Planning, pending, approved, tick: the deadline has passed for every leader's clock."""
    row, event = case.here, case.event
    if case.world.is_from_before(row.intent_id):
        return _ended(row, event, Phase.EXPIRED, "intent.expired", RESTORED)
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
        raise _Refused(Refusal.NOT_ENTITLED, f"{claim.executor} is not the executor of {intent.action.name}")
    if claim.question != _question(row).digest:
        raise _Refused(Refusal.WRONG_QUESTION, "this question is no longer, or was never, asked")
    if row.approved_until is None or event.log_time >= row.approved_until:
        raise _Refused(Refusal.LATE, "after the deadline")
    row = _widened(row, intent, world)
    own = _judged_now(row, intent, event, world)
    found = policy.stricter(_in_force(row), own)
    action = world.manifests.action(intent.action.name) if world.manifests else None
    if found.effect is Effect.DENY or action is None:
        row = row.model_copy(update={"classification": found})
        step = _ended(row, event, Phase.DENIED, "claim.denied", found.reason or "policy denies it now")
        return replace(step, outputs=(*_told_the_claimer(event, Refusal.WRONG_PHASE), *step.outputs))
    requirement = _in_force(row).requirement
    sitting = _sitting(row, requirement, world) if requirement is not None else {}
    is_filled = requirement is None or seats.is_filled(requirement, sitting)
    if found.requirement != requirement or not is_filled:
        return _asked_again(row, event, world, found)
    votes = tuple(vote for vote in row.votes if sitting.get(vote.person))
    return _granted(row, event, world, claim, action, votes)


def _judged_now(row: PendingApproval, intent: Intent, event: Event, world: World) -> Classification:
    """Policy with the plan, and the requester's own signature, by the world of now."""
    classified = _classified(row)
    if world.authority.refuses(classified.intent, classified.asked_at) is not None:
        return policy.deny(Refusal.BAD_SIGNATURE.value, "the requester's key was taken away")
    return classification.classify(intent, classified.facts, _plan(row).read(Plan), world, event.log_time)


def _asked_again(row: PendingApproval, event: Event, world: World, found: Classification) -> Step:
    """A seat is no longer held, or policy asks for more: a new question, every yes void."""
    ended = Output(
        APPROVED, ApprovalEnded(intent=row.intent_id, question=_question(row).digest), intent_of(row).executor
    )
    row = row.model_copy(update={"classification": found})
    return _asked(row, event, world, "claim.reopened", (*_told_the_claimer(event, Refusal.WRONG_PHASE), ended))


def _granted(
    row: PendingApproval,
    event: Event,
    world: World,
    claim: Claim,
    action: ManifestAction,
    votes: tuple[Vote, ...],
) -> Step:
    """The one right to act. It rests on `votes`, the yeses that count with the world of now."""
    lease_until = event.log_time + 1000 * action.lease
    grant = Grant(
        question=_question(row),
        requirement=_in_force(row).requirement,
        classified=_asked_for(row),
        plan=_plan(row),
        votes=votes,
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


def _ended_by_outcome(case: _Case) -> Step:
    """Executing, outcome: cites this grant, from its instance (law 4)."""
    row, event = case.here, case.event
    outcome = _record(event, Outcome)
    _require_grant(row, outcome)
    if outcome.observed:
        raise _Refused(Refusal.WRONG_PHASE, "observing starts only after `unknown`")
    if outcome.instance != _grant(row).instance:
        raise _Refused(Refusal.WRONG_INSTANCE, "another instance holds the grant")
    if outcome.result is Result.STALE:
        return _stale(row, event, case.world, outcome)
    if outcome.result is Result.UNKNOWN:
        return Step(_unclear(row, event, outcome), "outcome.unclear", (), reason=outcome.reason)
    return _finished(row, event, outcome, flagged=False)


def _stale(row: PendingApproval, event: Event, world: World, outcome: Outcome) -> Step:
    """The world moved and nothing was done: every yes is void, planning starts again under the same deadline."""
    if row.remembered is not None:
        return _ended(row, event, Phase(row.remembered), "outcome.stale", "stopped before anything was done")
    number = _round(row).number + 1
    if number > MAX_ROUNDS:
        return _finished(row, event, outcome, flagged=False)
    round_ = Round(intent=row.intent_id, number=number, opened=event.source)
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
            "reason": _bounded(outcome.reason) or "the target changed after the approval",
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
        row = _unclear(row, event, outcome)
        return Step(row, "outcome.unclear", (_status(row, event),), reason=outcome.reason)
    return _finished(row, event, outcome, flagged=True)


def _unclear(row: PendingApproval, event: Event, outcome: Outcome) -> PendingApproval:
    """Whoever looked can't tell: nothing moves but the reason."""
    return row.model_copy(
        update={"reason": _bounded(outcome.reason), "changed": event.source, "changed_at": event.log_time}
    )


def _finished(row: PendingApproval, event: Event, outcome: Outcome, *, flagged: bool) -> Step:
    # A late `stale` is failed: nothing was done, and nobody may be asked again after an `unknown`.
    phase = Phase.SUCCEEDED if outcome.result is Result.SUCCEEDED else Phase.FAILED
    row = row.model_copy(update={"outcome": event.statement, "flagged": flagged})
    reason = outcome.reason or (outcome.receipt.summary if outcome.receipt else None)
    return _ended(row, event, phase, "outcome.reported", reason)


def _resolved(case: _Case) -> Step:
    """Unknown, resolution: people of the original requirement, or operators, found out how it is (law 2 holds here)."""
    row, event, world = case.here, case.event, case.world
    resolution = _record(event, Resolution)
    if row.grant is None or resolution.grant != row.grant.digest:
        raise _Refused(Refusal.WRONG_GRANT, "another grant's outcome is unknown")
    person = _person(resolution.account, resolution.person, world)
    row = _widened(row, intent_of(row), world)
    if person in row.circle:
        raise _Refused(Refusal.SELF_APPROVAL, f"{person} stands behind the requester")
    requirement = seats.of_resolution(_in_force(row).requirement)
    if not _sits(person, requirement, world, event.log_time):
        wanted = ", ".join(sorted(set(seats.places(requirement))))
        raise _Refused(Refusal.NO_SEAT, f"{person} has no say in this; resolved by: {wanted}")
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


def _asked_for(row: PendingApproval) -> Statement:
    """What only a row that a withdrawal opened lacks."""
    if row.classified is None:
        raise AssertionError("only a withdrawal came")
    return row.classified


def _classified(row: PendingApproval) -> ClassifiedIntent:
    return _asked_for(row).read(ClassifiedIntent)


def _plan(row: PendingApproval) -> Statement:
    if row.plan is None:
        raise AssertionError("there is no plan")
    return row.plan


def _round(row: PendingApproval) -> Round:
    if row.round is None:
        raise AssertionError("nothing was planned")
    return row.round


def _bounded(text: str | None) -> str | None:
    """Somebody's words, cut so that whatever repeats them fits its cap."""
    if text is None:
        return None
    kept = prose(text)
    return kept if len(canonical.encode(kept)) <= REASON_BYTES else kept[: REASON_BYTES // 6]


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
        intent,
        world.directories_between(row.circle_to + 1, now),
        is_verified=world.authority.is_behalf_verified(_classified(row).intent),
    )
    everybody = tuple(sorted({*row.circle, *found}))
    if len(everybody) > MAX_CIRCLE:
        raise _Refused(Refusal.OVERLOADED, f"more than {MAX_CIRCLE} persons stand behind this requester")
    return row.model_copy(update={"circle": everybody, "circle_to": now})


def _ask_for_plan(row: PendingApproval, event: Event) -> Output:
    request = PlanRequest(round=_round(row), classified=_asked_for(row), expires_at=row.expires_at or event.log_time)
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
            "refusal": refusal,
            "reason": _bounded(reason),
            "ended_at": event.log_time,
            "changed": event.source,
            "changed_at": event.log_time,
        }
    )
    return Step(row, name, (*outputs, _status(row, event, refusal)), reason=reason)


def _with_answer(row: PendingApproval, event: Event, person: str | None, refusal: Refusal | None) -> PendingApproval:
    """The core's answer to a decision, kept in the row so that the notifier can tell the person."""
    decision = event.record
    verdict = decision.verdict if isinstance(decision, Decision) else None
    answer = Answer(source=event.source, person=person, verdict=verdict, refusal=refusal)
    answers = (*row.answers, answer)[-ANSWERS_KEPT:]
    return row.model_copy(update={"answers": answers, "changed": event.source, "changed_at": event.log_time})


def _answered(case: _Case, refusal: Refusal) -> PendingApproval | None:
    """A refused decision changes nothing but the answer that its notifier waits for."""
    row, decision = case.row, case.event.record
    if row is None or not isinstance(decision, Decision | Resolution):
        return row
    try:
        person: str | None = _person(decision.account, None, case.world)
    except _Refused:
        person = None
    return _with_answer(row, case.event, person, refusal)


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
    Transition(_NOBODY, ForwardedWithdrawal, "by the id's requester or an owner of the agent", _withdraw_first,
               _to(_P.WITHDRAWN)),
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
               _to(_P.EXECUTING, _P.PENDING, _P.DENIED)),
    Transition(_to(_P.EXECUTING), Outcome, "cites this grant, from its instance", _ended_by_outcome,
               _to(_P.SUCCEEDED, _P.FAILED, _P.PLANNING, _P.EXECUTING, _P.DENIED, _P.WITHDRAWN, _P.REVOKED)),
    Transition(_to(_P.UNKNOWN), Outcome, "a late word of the grant's instance, or an observation citing the unknown",
               _found_out, _to(_P.SUCCEEDED, _P.FAILED, _P.UNKNOWN)),
    Transition(_to(_P.UNKNOWN), Resolution, "by people of the requirement (operators if none), outside the circle",
               _resolved, _to(_P.SUCCEEDED, _P.FAILED)),
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
