"""What the core must have said with a step, rebuilt byte for byte from the trail. No I/O, no clock.

A grant is the one right to act: its digest can only be right if claim, question, votes, circle and versions are.
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from . import canonical
from .canonical import Members
from .judging import CLAIM, Case
from .life import Life
from .shapes import Audit, Said, Statement, text

STATUS: Final = "keyturn.intent-status.v1"
PLAN_REQUEST: Final = "keyturn.plan-request.v1"
APPROVED: Final = "keyturn.approved-intent.v1"
ENDED: Final = "keyturn.approval-ended.v1"
GRANT: Final = "keyturn.grant.v1"
CLAIM_REFUSED: Final = "keyturn.claim-refused.v1"
UNKNOWN: Final = "keyturn.outcome-unknown.v1"

Expected: TypeAlias = tuple[str, str, str | None]
"""Topic, type, and the digest; None where the text is free (a status' reason)."""


def grant(life: Life, claim: Audit, statement: Statement, lease_until: int, sitting: Mapping[str, set[str]]) -> Members:
    """The right to act that this claim gets. It rests on the yeses that count now, each with a seat it may take."""
    if life.question is None or life.classified is None or life.plan is None:
        return {}
    members: Members = {
        "question": life.question,
        "classified": life.classified.to_json(),
        "plan": life.plan.to_json(),
        "instance": text(statement.body, "instance"),
        "executor": text(statement.body, "executor"),
        "claim": claim.source.to_json(),
        "granted_at": claim.log_time,
        "lease_until": lease_until,
        "versions": claim.versions.to_json(),
    }
    if life.requirement is not None:
        members["requirement"] = life.requirement
    votes = [vote.to_json() for vote in life.votes if sitting.get(vote.person)]
    if votes:
        members["votes"] = [*votes]
    if life.circle:
        members["circle"] = [*sorted(life.circle)]
    return members


def unknown(life: Life, since: int) -> Members:
    """The word that lets others observe."""
    return {"intent": life.intent, "grant": life.grant or {}, "since": since}


def expected(case: Case, before: str | None, ended_question: str | None, is_told: bool) -> list[Expected]:
    """What this step says, in order. `case.life` is as after the step; `ended_question` was approved before it."""
    audit, life = case.audit, case.life
    if life is None or (audit.refusal is not None and audit.event != "intent.refused"):
        return [*_told(case, audit.refusal or "")] if is_told else []
    topic = f"approved.{life.executor}"
    said: list[Expected] = []
    match audit.event:
        case "decision.barred" | "decision.remembered" | "intent.remembered":
            return []
        case "outcome.unclear" if audit.after == "executing":
            return []
        case "claim.granted":
            said.append((topic, GRANT, life.grant_digest))
        case "claim.reopened" | "claim.denied":
            said.extend(_told(case, "wrong_phase"))
        case "outcome.unknown":
            said.append((topic, UNKNOWN, life.unknown))
        case _:
            pass
    if before == "approved" and audit.event != "claim.granted":
        ended: Members = {"intent": life.intent, "question": ended_question or ""}
        said.append((topic, ENDED, canonical.digest_of(ended)))
    if audit.after == "approved":
        said.append((topic, APPROVED, canonical.digest_of(_approved(life))))
    if audit.after == "planning":
        said.append((f"planning.{life.executor}", PLAN_REQUEST, canonical.digest_of(_plan_request(life, audit))))
    return [*said, ("status", STATUS, None)]


def differs(said: tuple[Said, ...], due: list[Expected]) -> str | None:
    """What is wrong with what was said."""
    if len(said) != len(due):
        return f"{[each.type for each in said]} where {[kind for _, kind, _ in due]} was due"[:400]
    for each, (topic, kind, digest) in zip(said, due, strict=True):
        if (each.topic, each.type) != (topic, kind):
            return f"{each.type} on {each.topic} where {kind} on {topic} was due"
        if digest is not None and each.digest != digest:
            return f"the {kind} said is {each.digest}; this step makes {digest}"
    return None


def _told(case: Case, refusal: str) -> Iterator[Expected]:
    """A claimer is told no, and why."""
    body = case.statement.body
    if case.statement.type == CLAIM:
        record: Members = {
            "intent": text(body, "intent"),
            "question": text(body, "question"),
            "instance": text(body, "instance"),
            "refusal": refusal,
        }
        yield f"approved.{text(body, 'executor')}", CLAIM_REFUSED, canonical.digest_of(record)


def _approved(life: Life) -> Members:
    return {
        "intent": life.intent,
        "question": life.question_digest or "",
        "executor": life.executor,
        "approved_until": life.approved_until or 0,
    }


def _plan_request(life: Life, audit: Audit) -> Members:
    opened = life.round_opened.to_json() if life.round_opened is not None else {}
    return {
        "round": {"intent": life.intent, "number": life.round_number, "opened": opened},
        "classified": life.classified.to_json() if life.classified is not None else {},
        "expires_at": life.expires_at if life.expires_at is not None else audit.log_time,
    }
