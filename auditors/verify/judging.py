"""What speaks against an input counting here: own rules, held against what the core did. No I/O, no clock.

`TRANSITIONS` lists every step that may count. `objections` lists everything that forbids this very input, each with
the refusal it deserves. An input that counted has none; one that was refused has the one it was refused for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from . import life as lives
from . import people
from .canonical import Members
from .life import LEADER_SKEW_MS, Life, Vote
from .shapes import (
    FINAL,
    Audit,
    ShapeError,
    Statement,
    flag,
    maybe_text,
    part,
    requester_of,
    require_form,
    text,
    time_of,
    whole,
)
from .world import ChainWorld

CLASSIFIED: Final = "keyturn.classified-intent.v1"
WITHDRAWAL: Final = "keyturn.forwarded-withdrawal.v1"
PLAN: Final = "keyturn.plan.v1"
PLAN_FAILED: Final = "keyturn.plan-failed.v1"
DECISION: Final = "keyturn.decision.v1"
RESOLUTION: Final = "keyturn.resolution.v1"
CLAIM: Final = "keyturn.claim.v1"
OUTCOME: Final = "keyturn.outcome.v1"
TICK: Final = "keyturn.tick.v1"

TOPIC_OF: Final = {
    CLASSIFIED: "classified",
    WITHDRAWAL: "classified",
    PLAN: "reports",
    PLAN_FAILED: "reports",
    CLAIM: "reports",
    OUTCOME: "reports",
    DECISION: "decisions",
    RESOLUTION: "decisions",
    TICK: "ticks",
}
NAME_WHEN_REFUSED: Final = {
    CLASSIFIED: "intent.classified",
    WITHDRAWAL: "intent.withdrawn",
    PLAN: "plan.reported",
    PLAN_FAILED: "plan.failed",
    DECISION: "decision.recorded",
    RESOLUTION: "outcome.resolved",
    CLAIM: "claim.made",
    OUTCOME: "outcome.reported",
    TICK: "tick.passed",
}
_EXPIRES: Final = frozenset({("intent.expired", "expired")})
_WITHDRAWN: Final = frozenset({("intent.withdrawn", "withdrawn")})
_REPORTED: Final = frozenset({("outcome.reported", "succeeded"), ("outcome.reported", "failed")})

TRANSITIONS: Final[dict[tuple[str | None, str], frozenset[tuple[str, str]]]] = {
    (None, CLASSIFIED): frozenset(
        {("intent.classified", "planning"), ("intent.denied", "denied"), ("intent.refused", "refused")}
    ),
    (None, WITHDRAWAL): _WITHDRAWN,
    ("planning", WITHDRAWAL): _WITHDRAWN,
    ("pending", WITHDRAWAL): _WITHDRAWN,
    ("approved", WITHDRAWAL): _WITHDRAWN,
    ("executing", WITHDRAWAL): frozenset({("intent.remembered", "executing")}),
    ("planning", PLAN): frozenset(
        {("plan.reported", "pending"), ("plan.reported", "approved"), ("plan.denied", "denied")}
    ),
    ("planning", PLAN_FAILED): frozenset({("plan.failed", "refused")}),
    ("pending", DECISION): frozenset(
        {
            ("decision.recorded", "pending"),
            ("decision.recorded", "approved"),
            ("decision.recorded", "denied"),
            ("decision.recorded", "revoked"),
            ("decision.barred", "pending"),
        }
    ),
    ("approved", DECISION): frozenset({("decision.recorded", "denied"), ("decision.recorded", "revoked")}),
    ("executing", DECISION): frozenset({("decision.remembered", "executing")}),
    ("planning", TICK): _EXPIRES,
    ("pending", TICK): _EXPIRES,
    ("approved", TICK): _EXPIRES,
    ("executing", TICK): frozenset({("outcome.unknown", "unknown")}),
    ("approved", CLAIM): frozenset(
        {
            ("claim.granted", "executing"),
            ("claim.reopened", "pending"),
            ("claim.denied", "denied"),
        }
    ),
    ("executing", OUTCOME): _REPORTED
    | {
        ("outcome.stale", "planning"),
        ("outcome.stale", "denied"),
        ("outcome.stale", "withdrawn"),
        ("outcome.stale", "revoked"),
        ("outcome.unclear", "executing"),
    },
    ("unknown", OUTCOME): _REPORTED | {("outcome.unclear", "unknown")},
    ("unknown", RESOLUTION): frozenset({("outcome.resolved", "succeeded"), ("outcome.resolved", "failed")}),
}
"""(phase, type of input) -> the events and phases it may lead to. What is not here moves nothing."""

EVENTS: Final[dict[str, frozenset[str]]] = {
    kind: frozenset(event for (_, of), steps in TRANSITIONS.items() if of == kind for event, _ in steps)
    for kind in TOPIC_OF
}
"""Type of input -> the events it can be when it counts."""

WAITING: Final = frozenset({"planning", "pending", "approved"})

UNCHECKABLE: Final = frozenset({"bad_parameters", "overloaded", "cool_down", "malformed"})
"""Refusals of an admission that rest on JSON Schema, on counting, or on the checked program's own reading."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Why an input may not count: the refusal it deserves, and the fault if it counted all the same."""

    refusal: str
    code: str
    what: str


@dataclass(frozen=True, slots=True)
class Case:
    """One audited input, and all it is judged by."""

    audit: Audit
    statement: Statement
    #: None before the first body, and after the core may have forgotten it.
    life: Life | None
    world: ChainWorld
    realm: str

    @property
    def phase(self) -> str | None:
        """Where the intent is."""
        return self.life.phase if self.life is not None else None

    @property
    def here(self) -> Life:
        """The life, where a rule is only asked with one."""
        if self.life is None:
            raise ShapeError("there is no such intent")
        return self.life


def intent_named(statement: Statement) -> str | None:
    """Which intent an input is about; None for a tick, which is about whichever is due."""
    body = statement.body
    match statement.type:
        case "keyturn.classified-intent.v1":
            return text(part(part(body, "intent"), "body"), "id")
        case "keyturn.forwarded-withdrawal.v1":
            return text(part(part(body, "withdrawal"), "body"), "intent")
        case "keyturn.plan.v1" | "keyturn.plan-failed.v1":
            return text(part(body, "round"), "intent")
        case "keyturn.tick.v1":
            return None
        case _:
            return text(body, "intent")


def objections(case: Case) -> list[Objection]:
    """Everything that speaks against this input."""
    found = outright(case)
    if case.life is not None and len(case.life.circle) > lives.MAX_CIRCLE:
        found.append(Objection("overloaded", "circle.differs", f"more than {lives.MAX_CIRCLE} persons in it"))
    if (case.phase, case.statement.type) not in TRANSITIONS:
        return [*found, *_unlisted(case)]
    return [*found, *RULES[case.statement.type](case)]


def outright(case: Case) -> list[Objection]:
    """What speaks against hearing it at all: its key, its signature, an id from another time."""
    return [*_authority(case), *_restored(case)]


def _authority(case: Case) -> Iterator[Objection]:
    refusal = case.world.directory.refuses(case.statement, case.audit.log_time, case.realm)
    if refusal is not None:
        yield Objection(
            refusal,
            "statement.signature",
            f"{case.statement.type} by key {case.statement.keyid} is {refusal} at {case.audit.log_time}",
        )
    intent = case.audit.intent
    if case.life is None and intent is not None and not lives.is_fresh(time_of(intent), case.audit.log_time):
        yield Objection("id_out_of_window", "life.window", f"{intent} at {case.audit.log_time}")


def _restored(case: Case) -> Iterator[Objection]:
    """Law 4: what was asked before a restore may have been done since; it opens no life, and what waits only ends."""
    intent = case.audit.intent
    if intent is None or time_of(intent) > case.world.restored_to:
        return
    is_waiting = case.phase in WAITING and case.statement.type not in {CLASSIFIED, WITHDRAWAL, TICK}
    if case.phase is None or is_waiting:
        yield Objection("id_out_of_window", "life.restored", f"{intent} is from before the restore")


def _unlisted(case: Case) -> Iterator[Objection]:
    phase = case.phase
    if case.statement.type == CLASSIFIED and case.life is not None:
        yield from _again(case, case.life)
    elif phase is None:
        yield Objection("unknown_intent", "life.transition", "there is no such intent yet")
    else:
        # Law 4 before law 6: a second right to act is the worse of the two.
        is_second = case.statement.type == CLAIM and case.life is not None and case.life.is_granted
        refusal, code = ("final", "life.final") if phase in FINAL else ("wrong_phase", "life.transition")
        yield Objection(refusal, "grant.second" if is_second else code, f"{case.statement.type} while {phase}")


def _again(case: Case, life: Life) -> Iterator[Objection]:
    """Law 1: the first body pins the id."""
    if life.body_digest is None:
        yield Objection("final", "life.body", "it was withdrawn before it came")
    elif Statement.read(part(case.statement.body, "intent")).digest == life.body_digest:
        yield Objection("duplicate", "life.body", "the same body again")
    else:
        yield Objection("conflict", "life.body", "another body than the first")


# ---------------------------------------------------------------- admission


def _admission(case: Case) -> Iterator[Objection]:
    body = case.statement.body
    refusal = maybe_text(body, "refusal")
    if refusal is not None:
        yield Objection(refusal, "policy.denied", f"intake refused it: {refusal}")
        return
    inner = Statement.read(part(body, "intent"))
    asked_at = whole(body, "asked_at")
    if (refusal := case.world.directory.refuses(inner, asked_at, case.realm)) is not None:
        yield Objection(refusal, "statement.signature", f"the intent by key {inner.keyid} is {refusal}")
    try:
        require_form(inner)
    except ShapeError as exc:
        yield Objection("malformed", "statement.malformed", str(exc))
        return
    intent = inner.body
    subject, intent_id = part(intent, "subject"), text(intent, "id")
    if requester_of(intent_id) != text(subject, "id"):
        yield Objection("not_entitled", "statement.signature", "the id is another requester's")
    if not all(lives.is_fresh(time_of(intent_id), at) for at in (asked_at, case.audit.log_time)):
        yield Objection("id_out_of_window", "life.window", f"{intent_id} asked at {asked_at}")
    yield from _requester(case, text(subject, "type"), text(subject, "id"))
    action = text(part(intent, "action"), "name")
    if case.world.action(action) is None:
        yield Objection("unknown_action", "requester.unknown", f"no executor offers {action[:120]}")


def _requester(case: Case, kind: str, name: str) -> Iterator[Objection]:
    directory = case.world.directory
    if not case.world.directories:
        yield Objection("unknown_agent", "requester.unknown", "no directory is in force")
    elif kind == "agent":
        if name not in directory.agents or not directory.agents[name].is_active:
            yield Objection("unknown_agent", "requester.unknown", f"{name} is no active agent")
    elif name not in directory.persons or not directory.persons[name].is_active:
        yield Objection("unknown_person", "requester.unknown", f"{name} is no active person")


def _withdrawal(case: Case) -> Iterator[Objection]:
    body = case.statement.body
    refusal = maybe_text(body, "refusal")
    if refusal is not None:
        yield Objection(refusal, "policy.denied", f"intake refused it: {refusal}")
        return
    inner = Statement.read(part(body, "withdrawal"))
    if (refusal := case.world.directory.refuses(inner, whole(body, "asked_at"), case.realm)) is not None:
        yield Objection(refusal, "statement.signature", f"the withdrawal by key {inner.keyid} is {refusal}")
    try:
        require_form(inner)
    except ShapeError as exc:
        yield Objection("malformed", "statement.malformed", str(exc))
        return
    intent_id, by = text(inner.body, "intent"), part(inner.body, "by")
    if not lives.may_withdraw(by, intent_id, case.world):
        refusal = "unknown_intent" if case.life is None else "not_entitled"
        yield Objection(refusal, "withdrawal.stranger", f"{text(by, 'id')} withdrew")


# ---------------------------------------------------------------- planning


def _plan(case: Case) -> Iterator[Objection]:
    yield from _planner(case)
    named = text(case.statement.body, "intent")
    if named != case.here.body_digest:
        yield Objection("conflict", "plan.body", f"the plan is for {named}")


def _planner(case: Case) -> Iterator[Objection]:
    body, life = case.statement.body, case.here
    yield from _executor(case)
    opened = life.round_opened
    due: Members = {
        "intent": life.intent,
        "number": life.round_number,
        "opened": opened.to_json() if opened is not None else {},
    }
    if part(body, "round") != due:
        yield Objection("wrong_round", "plan.round", f"{part(body, 'round')} where {due} is open"[:400])


def _executor(case: Case) -> Iterator[Objection]:
    name = text(case.statement.body, "executor")
    if name != case.here.executor:
        yield Objection("not_entitled", "executor.foreign", f"{name} is not the executor of {case.here.action}")


# ---------------------------------------------------------------- people


def _decision(case: Case) -> Iterator[Objection]:
    body, life = case.statement.body, case.here
    if text(body, "question") != life.question_digest:
        yield Objection(
            "wrong_question", "decision.question", f"{text(body, 'question')} where {life.question_digest} is asked"
        )
    person = _decider(case)
    if person is None:
        yield Objection("unknown_person", "person.unknown", f"account {part(body, 'account')}"[:300])
        return
    match text(body, "verdict"), life.phase:
        case "approve", "executing":
            yield Objection("already_decided", "life.transition", "it runs already")
        case "approve", _:
            yield from _yes(case, person)
        case "deny", _:
            if person not in life.circle and not _sits(case, person):
                yield Objection("no_seat", "decision.seat", f"{person} has no say")
        case _:
            yield from _revoke(case, person)


def _revoke(case: Case, person: str) -> Iterator[Objection]:
    life = case.here
    # In `pending` it bars its person's yes, which may be on its way, seat or no seat.
    if person not in life.voters and life.phase != "pending":
        yield Objection("nothing_to_revoke", "decision.nothing", f"{person} said no yes")


def _crowded(case: Case, person: str) -> Iterator[Objection]:
    """Nobody who clicks first uses up the room of those who fill the other seats."""
    life = case.here
    vote = Vote(person, case.statement, case.audit.log_time, case.audit.source)
    before, now = life.filled(case.world), life.filled(case.world, vote)
    count = len(life.votes) + 1
    if count > lives.MAX_VOTES or (count > lives.SPARE_VOTES and now == before):
        yield Objection("overloaded", "decision.crowd", f"the {count}th yes fills no further seat")


def _yes(case: Case, person: str) -> Iterator[Objection]:
    life, at = case.here, case.audit.log_time
    if life.phase != "pending" or life.requirement is None:
        yield Objection("already_decided", "life.transition", "every seat is filled")
        return
    if life.expires_at is None or at >= life.expires_at:
        yield Objection("late", "decision.late", f"said at {at}, the deadline is {life.expires_at}")
    if person in life.circle:
        yield Objection("self_approval", "decision.self", f"{person} stands behind the requester")
    if person in life.barred:
        yield Objection("barred", "decision.barred", f"{person} revoked before")
    if person in life.voters:
        yield Objection("already_decided", "decision.twice", f"{person} said yes already")
    if not _sits(case, person):
        yield Objection("no_seat", "decision.seat", f"{person} fits no seat of {people.places(life.requirement)}"[:300])
    yield from _assurance(case, life.requirement)
    yield from _crowded(case, person)


def _assurance(case: Case, requirement: Members) -> Iterator[Objection]:
    if not people.reaches(case.statement, case.audit.log_time, case.world.directory, requirement):
        yield Objection("assurance_too_low", "decision.assurance", f"worth less than {text(requirement, 'assurance')}")


def _decider(case: Case) -> str | None:
    return people.decider(case.statement, case.world.directory)


def _sits(case: Case, person: str, requirement: Members | None = None) -> bool:
    requirement = requirement if requirement is not None else case.here.requirement
    return requirement is not None and people.sits_anywhere(
        person, people.places(requirement), case.world.directory, case.world.roster, case.audit.log_time
    )


def _resolution(case: Case) -> Iterator[Objection]:
    body, life = case.statement.body, case.here
    if text(body, "grant") != life.grant_digest:
        yield Objection("wrong_grant", "outcome.grant", f"{text(body, 'grant')} is another grant")
    person = _decider(case)
    if person is None:
        yield Objection("unknown_person", "person.unknown", f"account {part(body, 'account')}"[:300])
        return
    if person in life.circle:
        yield Objection("self_approval", "decision.self", f"{person} stands behind the requester")
    resolvers = life.requirement if life.requirement is not None else people.OPERATORS
    if not _sits(case, person, resolvers):
        yield Objection("no_seat", "decision.seat", f"{person} has no say")
    yield from _assurance(case, resolvers)


# ---------------------------------------------------------------- acting, time


def _claim(case: Case) -> Iterator[Objection]:
    body, life, at = case.statement.body, case.here, case.audit.log_time
    yield from _executor(case)
    if text(body, "question") != life.question_digest:
        yield Objection(
            "wrong_question", "claim.question", f"{text(body, 'question')} where {life.question_digest} is approved"
        )
    if life.approved_until is None or at >= life.approved_until:
        yield Objection("late", "claim.late", f"claimed at {at}, approved until {life.approved_until}")


def _outcome(case: Case) -> Iterator[Objection]:
    body, life = case.statement.body, case.here
    if life.grant is None or text(body, "grant") != life.grant_digest:
        yield Objection("wrong_grant", "outcome.grant", f"{text(body, 'grant')} where {life.grant_digest} was granted")
    if text(body, "executor") != life.executor:
        yield Objection("not_entitled", "executor.foreign", f"{text(body, 'executor')} reports")
    if not flag(body, "observed", default=False):
        if text(body, "instance") != life.instance:
            yield Objection(
                "wrong_instance", "outcome.instance", f"{text(body, 'instance')} reports, {life.instance} claimed"
            )
    elif life.phase == "executing":
        yield Objection("wrong_phase", "outcome.observed", "observed before the core said unknown")
    elif maybe_text(body, "unknown") is None or maybe_text(body, "unknown") != life.unknown:
        yield Objection("wrong_grant", "outcome.observed", "the observation cites another `unknown`, or none")


def _tick(case: Case) -> Iterator[Objection]:
    life, at = case.here, case.audit.log_time
    if life.phase in WAITING and time_of(life.intent) <= case.world.restored_to:
        return  # whatever waited when the realm was restored ends with the next tick
    due = life.settled_at if life.phase == "executing" else life.expires_at
    if due is None or at <= due + LEADER_SKEW_MS:
        yield Objection("wrong_phase", "tick.early", f"a tick of {at}; due after {due} + {LEADER_SKEW_MS}")


RULES: Final[dict[str, Callable[[Case], Iterator[Objection]]]] = {
    CLASSIFIED: _admission,
    WITHDRAWAL: _withdrawal,
    PLAN: _plan,
    PLAN_FAILED: _planner,
    DECISION: _decision,
    RESOLUTION: _resolution,
    CLAIM: _claim,
    OUTCOME: _outcome,
    TICK: _tick,
}
