"""From rows to what the API shows of them. No I/O, no clock: callers pass now."""

import heapq
from dataclasses import dataclass
from typing import Final

from notifiers import answers, card, identity
from notifiers.api import contract
from notifiers.desk import Desk
from schemas import canonical, ids, seats
from schemas.record import RecordError
from schemas.records import (
    AccountRef,
    Channel,
    ClassifiedIntent,
    Decision,
    Evidence,
    Intent,
    PendingApproval,
    Phase,
    Refusal,
    Resolution,
    Source,
    Verdict,
)
from schemas.snapshots import Key, Person
from schemas.world import World
from streams.http import problems
from streams.rows import Held, UnreadableError

_NO_DIGEST: Final = "0" * 64
_WORDS: Final[dict[answers.State, str]] = {
    "deciding": "recorded; the core has not answered yet",
    "taken": "it counts",
    "refused": "it does not count",
    "forgotten": "answered earlier: the audit trail has it",
}


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks, and what this notifier could vouch for if that person decided now."""

    person: Person
    account: AccountRef
    evidence: Evidence
    key: Key | None


def approval(held: Held, world: World, reader: Reader, now: int) -> contract.ApprovalView:
    """All of one row, and what it means for this person."""
    row = held.row
    shown = card.card(row, world, now)
    return contract.ApprovalView(
        id=row.intent_id,
        version=held.version,
        phase=row.phase,
        question=row.question,
        question_digest=shown.question,
        card=shown,
        offers_approve=shown.offers_approve,
        requirement=_requirement(row, world),
        may_not_approve=tuple(
            contract.Disqualified(person=name, why=why)
            for name, why in sorted(identity.disqualified(row, world).items())
        ),
        you=_you(row, world, reader, now),
        grant=row.grant.digest if row.grant else None,
        asked_at=row.asked_at,
        expires_at=row.expires_at,
        reason=row.reason,
    )


def summary(held: Held, world: World) -> contract.Summary:
    """One line."""
    row, intent = held.row, _intent(held.row)
    filled, wanted = _seats(row, world)
    return contract.Summary(
        id=row.intent_id,
        version=held.version,
        phase=row.phase,
        question_digest=row.question.digest if row.question else None,
        action=intent.action.name if intent else row.pinned.action if row.pinned else None,
        resource_type=intent.resource.type if intent else None,
        resource=intent.resource.id if intent else None,
        risk=row.classification.risk if row.classification else None,
        seats_filled=filled,
        seats=wanted,
        asked_at=row.asked_at,
        expires_at=row.expires_at,
    )


def page(desk: Desk, phases: frozenset[Phase], cursor: str | None, limit: int) -> contract.Page:
    """One page, newest first. A cursor is the place of the last line, so that new rows shift nothing.

    Only the rows of the page are read; the others are known by id alone.
    """
    after = (listed for listed in desk.listed(phases) if cursor is None or _place(listed.intent_id) < cursor)
    first = heapq.nlargest(limit + 1, after, key=lambda listed: _place(listed.intent_id))
    shown = first[:limit]
    summaries = [line for listed in shown if (line := _line(desk, listed.intent_id, phases)) is not None]
    return contract.Page(
        approvals=tuple(summaries),
        version=canonical.digest_of([f"{listed.intent_id} {listed.version}" for listed in first])[:32],
        cursor=_place(shown[-1].intent_id) if len(first) > limit else None,
    )


def _line(desk: Desk, intent_id: str, phases: frozenset[Phase]) -> contract.Summary | None:
    """What cannot be read or is not signed by the core is no line; asking for it by id says why."""
    try:
        held = desk.row(intent_id)
    except UnreadableError:
        return None
    return summary(held, desk.world) if held and held.is_verified and held.row.phase in phases else None


def answer(row: PendingApproval | None, said: Source, world: World) -> contract.AnswerView:
    """What the core made of the word at this position."""
    found = answers.find(row, said)
    filled, wanted = _seats(row, world) if row else (0, 0)
    return contract.AnswerView(
        state=found.state,
        refusal=found.refusal,
        type=problems.urn_of(found.refusal) if found.refusal else None,
        detail=answers.MEANING[found.refusal] if found.refusal else _WORDS[found.state],
        phase=row.phase if row else None,
        seats_filled=filled,
        seats=wanted,
    )


def _place(intent_id: str) -> str:
    """Sorts by the time in the id, which nobody had to read a row for."""
    requester, at = ids.split(intent_id)
    return f"{at:016d}-{requester}-{intent_id[-26:]}"


def _intent(row: PendingApproval) -> Intent | None:
    if row.classified is None:
        return None
    try:
        return row.classified.read(ClassifiedIntent).intent.read(Intent)
    except RecordError:
        return None


def _seats(row: PendingApproval, world: World) -> tuple[int, int]:
    requirement = identity.requirement_of(row)
    return len(card.filled(row, world)), len(seats.places(requirement)) if requirement else 0


def _requirement(row: PendingApproval, world: World) -> contract.RequirementView | None:
    requirement = identity.requirement_of(row)
    if requirement is None:
        return None
    seated = card.filled(row, world)
    return contract.RequirementView(
        seats=tuple(
            contract.SeatView(of=of, person=seated.get(index)) for index, of in enumerate(seats.places(requirement))
        ),
        assurance=requirement.assurance,
        within=requirement.within,
    )


def _you(row: PendingApproval, world: World, reader: Reader, now: int) -> contract.You:
    def foreseen(verdict: Verdict) -> Refusal | None:
        word = Decision(
            intent=row.intent_id,
            question=row.question.digest if row.question else _NO_DIGEST,
            verdict=verdict,
            account=reader.account,
            person=reader.person.id,
            channel=Channel.API,
            evidence=reader.evidence,
            card=_NO_DIGEST,
        )
        return identity.expected(row, word, world, reader.key, now)

    def foreseen_to_resolve() -> Refusal | None:
        word = Resolution(
            intent=row.intent_id,
            grant=row.grant.digest if row.grant else _NO_DIGEST,
            found="failed",
            account=reader.account,
            person=reader.person.id,
            channel=Channel.API,
            evidence=reader.evidence,
            reason="-",
            card=_NO_DIGEST,
        )
        return identity.expected(row, word, world, reader.key, now)

    return contract.You(
        person=reader.person.id,
        seats=identity.seats_of(reader.person.id, row, world, now),
        approve=foreseen(Verdict.APPROVE),
        deny=foreseen(Verdict.DENY),
        revoke=foreseen(Verdict.REVOKE),
        resolve=foreseen_to_resolve(),
        resolves_as=identity.resolves_as(reader.person.id, row, world, now) if row.phase is Phase.UNKNOWN else (),
    )
