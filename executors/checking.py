"""Whether a grant may be acted upon, by the executor's own view of the world. No I/O, no clock: `now` is given.

The core decided; the executor does not take its word for it (laws 1 to 5). It verifies every signature inside the
grant, asks the question again, resolves each person again, widens the circle over every directory version it knows,
and fills the seats again. What policy says it cannot judge: a grant without a requirement is accepted, and said so.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from executors.contract import Deadline
from schemas import assurance, circle, question, seats
from schemas.authority import Authority
from schemas.record import RecordError, Statement
from schemas.records import (
    AccountRef,
    ClassifiedIntent,
    Decision,
    Grant,
    Intent,
    Plan,
    Requirement,
    Source,
    Verdict,
    Vote,
)
from schemas.snapshots import Directory
from schemas.timing import LEADER_SKEW_MS
from schemas.world import World

PERMITTED: Final = "policy permits this without people, says the core; only the core can judge policy"


class Check(StrEnum):
    """Which check a grant did not pass."""

    SIGNATURE = "signature"
    MALFORMED = "malformed"
    EXECUTOR = "executor"
    INSTANCE = "instance"
    CLAIM = "claim"
    WORLD = "world"
    REALM = "realm"
    QUESTION = "question"
    INTENT = "intent"
    PLAN = "plan"
    VOTE = "vote"
    SELF_APPROVAL = "self_approval"
    SEATS = "seats"
    LATE = "late"
    CLOCK = "clock"
    LEASE = "lease"
    USED = "used"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Limits:
    """How wrong clocks may be. Settings can only make these stricter."""

    #: A grant whose log time is further than this from our clock is refused.
    clock_ms: int = 30_000
    #: How far the clocks of executors, and the provider's, may be off.
    skew_ms: int = 1_000


@dataclass(frozen=True, slots=True)
class Own:
    """Who checks: one life of one executor process."""

    executor: str
    instance: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Verified:
    """A grant that may be acted upon, and what it says."""

    grant: Grant
    digest: str
    intent: Intent
    plan: Plan
    deadline: Deadline
    #: Who said yes and counted; empty when nobody was asked.
    approvers: tuple[str, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A grant that nobody may act upon here."""

    check: Check
    reason: str


Judgement: TypeAlias = Verified | Refused


class _No(Exception):  # noqa: N818 - an answer, raised only between the lines of this module
    def __init__(self, check: Check, reason: str) -> None:
        super().__init__(reason)
        self.check = check


@dataclass(frozen=True, slots=True)
class Known:
    """What this process knows by itself of the intent that was granted."""

    #: Where its own claims to this question stand on the log.
    claims: tuple[Source, ...] = ()
    #: Why the ledger does not let this intent be acted upon; None when it does.
    spent: str | None = None


def judge(statement: Statement, log_time: int, own: Own, world: World, now: int, known: Known) -> Judgement:
    """The answer to one grant, signed as it came at `log_time`. Total: law 6, a fault in here is a refusal."""
    try:
        return _judge(statement, log_time, own, world, now, known)
    except _No as no:
        return Refused(no.check, str(no))
    except RecordError as exc:
        return Refused(Check.MALFORMED, str(exc)[:500])
    except Exception as exc:  # noqa: BLE001 - law 6: whatever is wrong in here, it is never a yes
        return Refused(Check.INTERNAL, f"{type(exc).__name__}: {exc}"[:500])


def deadline_of(grant: Grant, limits: Limits) -> Deadline:
    """Law 5: a credential dies before its lease by *more than* 2 x the executors' skew + the leaders'."""
    margin = 2 * limits.skew_ms + LEADER_SKEW_MS
    return Deadline(lease_until=grant.lease_until, credential_dies_at=grant.lease_until - margin - 1)


def _judge(statement: Statement, log_time: int, own: Own, world: World, now: int, known: Known) -> Verified:
    authority, directory = world.authority, world.directory
    if directory is None or authority.refuses(statement, log_time) is not None:
        raise _No(Check.SIGNATURE, "the grant is not signed by the core")
    grant = statement.read(Grant)
    _require_ours(grant, own, known)
    classified = grant.classified.read(ClassifiedIntent)
    _require_new_enough(grant, classified, world)
    intent = _intent(grant, classified, authority)
    plan = _plan(grant, classified, intent, authority)
    _require_same_question(grant, classified, world)
    _require_in_time(grant, classified, intent)
    approvers = _approvers(grant, classified, intent, world, directory)
    deadline = deadline_of(grant, own.limits)
    _require_time_left(grant, deadline, own.limits, now)
    if known.spent is not None:
        # Law 4: done at most once.
        raise _No(Check.USED, known.spent)
    note = PERMITTED if grant.requirement is None else None
    return Verified(grant, statement.digest, intent, plan, deadline, approvers, note)


def _require_ours(grant: Grant, own: Own, known: Known) -> None:
    if grant.executor != own.executor:
        raise _No(Check.EXECUTOR, f"granted to the executor {grant.executor}")
    if grant.instance != own.instance:
        raise _No(Check.INSTANCE, f"granted to the instance {grant.instance}")
    # Law 4: a grant is the answer to a claim. The topic is named with or without the installation's prefix.
    if (grant.claim.partition, grant.claim.offset) not in {(own.partition, own.offset) for own in known.claims}:
        raise _No(Check.CLAIM, "it answers no claim of this process")


def _require_new_enough(grant: Grant, classified: ClassifiedIntent, world: World) -> None:
    """An older directory may not know yet who stands behind whom, nor whose key was taken away."""
    for name, wanted, known in (
        ("directory", max(grant.versions.directory, classified.versions.directory), world.versions.directory),
        ("roster", grant.versions.roster, world.versions.roster),
    ):
        if known < wanted:
            raise _No(Check.WORLD, f"decided with {name} version {wanted}; only version {known} is known here")


def _intent(grant: Grant, classified: ClassifiedIntent, authority: Authority) -> Intent:
    if _refused_throughout(authority, grant.classified, grant, classified):
        raise _No(Check.INTENT, "intake did not sign the classification")
    if classified.refusal is not None:
        raise _No(Check.INTENT, f"intake refused this intent: {classified.refusal.value}")
    if authority.refuses(classified.intent, classified.asked_at) is not None:
        raise _No(Check.INTENT, "the requester did not sign the intent")
    intent = classified.intent.read(Intent)
    if intent.executor != grant.executor:
        raise _No(Check.INTENT, f"{intent.action.name} is not an action of {grant.executor}")
    return intent


def _plan(grant: Grant, classified: ClassifiedIntent, intent: Intent, authority: Authority) -> Plan:
    if _refused_throughout(authority, grant.plan, grant, classified):
        raise _No(Check.PLAN, "no executor signed the plan")
    plan = grant.plan.read(Plan)
    # That the key's holder is `plan.executor` is part of the signature's authority.
    if plan.executor != grant.executor:
        raise _No(Check.PLAN, f"the plan is the executor {plan.executor}'s")
    if plan.intent != classified.intent.digest or plan.round.intent != intent.id:
        raise _No(Check.PLAN, "the plan is for another intent")
    return plan


def _time_of_the_life(grant: Grant, classified: ClassifiedIntent) -> tuple[int, int]:
    """Law 5: when anything said between asking and granting can have been appended, by whichever leader's clock.

    The three logs have three leaders: what is granted at once may by its log times be granted before it was asked.
    """
    return classified.asked_at - LEADER_SKEW_MS, grant.granted_at + LEADER_SKEW_MS


def _refused_throughout(authority: Authority, statement: Statement, grant: Grant, classified: ClassifiedIntent) -> bool:
    """Whether the signature counts at no instant of that time: the record's own log time is not in the grant."""
    first, last = _time_of_the_life(grant, classified)
    key = authority.key(statement.keyid)
    at = first if key is None else max(first, key.valid_from)
    return at > last or authority.refuses(statement, at) is not None


def _require_same_question(grant: Grant, classified: ClassifiedIntent, world: World) -> None:
    """Law 1: consent binds to bytes. Asked again from what is to be done, it must be what people answered."""
    asked = grant.question
    if asked.realm != world.realm:
        raise _No(Check.REALM, f"asked in the realm {asked.realm}")
    again = question.ask(
        world.realm,
        str(classified.intent.body.get("id")),
        classified,
        grant.plan,
        grant.requirement,
        asked.opened,
    )
    if again != asked:
        ours, theirs = again.to_json(), asked.to_json()
        leaf = next(name for name in ours if ours[name] != theirs.get(name))
        raise _No(Check.QUESTION, f"the question that was answered differs in: {leaf}")


def _deadline_for_people(grant: Grant, classified: ClassifiedIntent, intent: Intent) -> int:
    """No answer and no claim counts from here on: the requester's ttl, or what policy allows if that is less."""
    seconds = min(intent.ttl, grant.requirement.within if grant.requirement is not None else intent.ttl)
    return classified.asked_at + 1000 * seconds


def _require_in_time(grant: Grant, classified: ClassifiedIntent, intent: Intent) -> None:
    if grant.granted_at >= _deadline_for_people(grant, classified, intent):
        raise _No(Check.LATE, "granted after the approval had expired")


def _require_time_left(grant: Grant, deadline: Deadline, limits: Limits, now: int) -> None:
    """Law 5, T24: a clock that differs this much from the log's cannot tell when a lease ends."""
    apart = abs(now - grant.granted_at)
    if apart > limits.clock_ms:
        raise _No(Check.CLOCK, f"{apart} ms between this machine's clock and the log's; {limits.clock_ms} are allowed")
    if now >= deadline.credential_dies_at:
        raise _No(Check.LEASE, "the lease is over, or too short to do anything in")


# ---------------------------------------------------------------- people


def _approvers(
    grant: Grant, classified: ClassifiedIntent, intent: Intent, world: World, directory: Directory
) -> tuple[str, ...]:
    """Laws 2 and 3, once more. Who came into the circle since, or lost the seat, does not count: as in the core."""
    requirement = grant.requirement
    if requirement is None:
        return ()
    behind = _circle(grant, classified, intent, world)
    deadline = _deadline_for_people(grant, classified, intent)
    seen: set[str] = set()
    sits: dict[str, list[str]] = {}
    reasons: dict[Check, str] = {}
    for vote in grant.votes:
        decision = _decision(vote, grant, classified, world.authority, deadline)
        if vote.person in seen:
            raise _No(Check.VOTE, f"{vote.person} is counted twice")
        seen.add(vote.person)
        check, reason = _objection(vote, decision, requirement, behind, world)
        if check is None:
            sits[vote.person] = _seats_of(vote, requirement, directory, world)
        else:
            reasons.setdefault(check, reason)
    if not seats.is_filled(requirement, sits):
        check = Check.SELF_APPROVAL if Check.SELF_APPROVAL in reasons else Check.SEATS
        wanted = ", ".join(f"{seat.count} of {seat.of}" for seat in requirement.seats)
        raise _No(check, "; ".join([f"{wanted}: not filled by {sorted(sits) or 'anybody'}", *reasons.values()]))
    return tuple(sorted(sits))


def _circle(grant: Grant, classified: ClassifiedIntent, intent: Intent, world: World) -> frozenset[str]:
    """Law 2: the union over every directory version from the asking to the newest known, and the core's."""
    begins = world.circle_begins(min(classified.asked_at, grant.granted_at), classified.versions.directory)
    directories = world.directories_between(begins, world.versions.directory)
    is_verified = world.authority.is_behalf_verified(classified.intent)
    return circle.circle_over(intent, directories, is_verified=is_verified) | frozenset(grant.circle)


def _decision(vote: Vote, grant: Grant, classified: ClassifiedIntent, authority: Authority, deadline: int) -> Decision:
    """The signed yes of a vote. What is wrong here no core would have counted: the grant is refused whole."""
    if authority.refuses(vote.decision, vote.log_time) is not None:
        raise _No(Check.VOTE, f"no notifier signed the yes of {vote.person}")
    decision = vote.decision.read(Decision)
    if decision.intent != grant.question.intent_id or decision.question != grant.question.digest:
        raise _No(Check.VOTE, f"{vote.person} answered another question")
    if decision.verdict is not Verdict.APPROVE:
        raise _No(Check.VOTE, f"{vote.person} said {decision.verdict.value}")
    first, last = _time_of_the_life(grant, classified)
    if not first <= vote.log_time <= last or vote.log_time >= deadline:
        raise _No(Check.LATE, f"{vote.person} answered outside the time for it")
    return decision


def _objection(
    vote: Vote, decision: Decision, requirement: Requirement, behind: frozenset[str], world: World
) -> tuple[Check | None, str]:
    """Why a genuine yes does not count by now."""
    person = _person(decision.account, world)
    if person is None or person != vote.person or decision.person not in {None, person}:
        return Check.VOTE, f"the account of {vote.person}'s yes is not {vote.person}'s"
    if person in behind:
        return Check.SELF_APPROVAL, f"{person} stands behind the requester"
    key = world.authority.key(vote.decision.keyid)
    reached = assurance.vouched(decision, key, vote.log_time) if key is not None else assurance.ORDER[0]
    if assurance.rank(reached) < assurance.rank(requirement.assurance):
        return Check.VOTE, f"{person}'s yes is worth {reached.value}, not {requirement.assurance.value}"
    return None, ""


def _person(account: AccountRef, world: World) -> str | None:
    """Persons are compared, never accounts."""
    for person in world.directory.persons if world.directory is not None else ():
        if account in person.accounts:
            return person.id if person.is_active else None
    return None


def _seats_of(vote: Vote, requirement: Requirement, directory: Directory, world: World) -> list[str]:
    wanted = sorted(set(seats.places(requirement)))
    # On call as of the yes's own log time (law 3).
    return [of for of in wanted if seats.may_sit(vote.person, of, directory, world.rosters, vote.log_time)]
