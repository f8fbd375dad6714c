"""From what the log says to what its requester is shown. No I/O, no clock.

The requester sees its own: every phase, every refusal with its reason, what went to quarantine (law 9). It does not see
who may be asked, nor who said what.
"""

from gateway.contract import IntentView, OutcomeView, QuarantineView, SeatsView
from gateway.ledger import Known
from schemas import seats
from schemas.record import RecordError, Statement
from schemas.records import (
    FINAL,
    ClassifiedIntent,
    Intent,
    Outcome,
    PendingApproval,
    Phase,
    Quarantined,
    Subject,
)
from schemas.world import World


def intent_of(row: PendingApproval) -> Statement | None:
    """The signed intent of a row; none when a withdrawal came first, or when only what pins the id was kept."""
    if row.classified is None:
        return None
    return row.classified.read(ClassifiedIntent).intent


def subject_of(known: Known, row: PendingApproval | None) -> Subject | None:
    """Who asked, by the signed intent itself; None where there is none to read."""
    if row is not None and row.pinned is not None:
        return row.pinned.subject
    statement = intent_of(row) if row is not None else known.asked.statement if known.asked else None
    try:
        return statement.read(Intent).subject if statement is not None else None
    except RecordError:
        return None


def view(intent_id: str, known: Known, row: PendingApproval | None, world: World) -> IntentView:
    """All of one intent, for its requester."""
    version = "-".join(map(str, known.marks))
    refused = tuple(_quarantine(each) for each in known.quarantined)
    if row is not None:
        return _of_row(row, world, version, refused)
    asked = known.asked
    stopped = next((each for each in refused if asked is None or _is_of(each, asked.place.offset)), None)
    intent = _read(asked.statement) if asked else None
    return IntentView(
        id=intent_id,
        version=version,
        phase="quarantined" if stopped else "submitted",
        is_final=stopped is not None,
        refusal=stopped.refusal if stopped else None,
        reason=stopped.reason if stopped else None,
        action=intent.action.name if intent else None,
        resource=_resource(intent),
        digest=asked.statement.digest if asked else None,
        quarantined=refused,
        asked_at=asked.log_time if asked else None,
        updated_at=max(asked.log_time if asked else 0, known.quarantined_at),
    )


def _of_row(row: PendingApproval, world: World, version: str, refused: tuple[QuarantineView, ...]) -> IntentView:
    statement = intent_of(row)
    intent = _read(statement) if statement else None
    pinned, found = row.pinned, row.classification
    is_asked = row.phase in {Phase.PENDING, Phase.APPROVED}
    return IntentView(
        id=row.intent_id,
        version=version,
        phase=row.phase,
        is_final=row.phase in FINAL,
        refusal=row.refusal,
        reason=row.reason,
        action=intent.action.name if intent else pinned.action if pinned else None,
        resource=_resource(intent),
        digest=statement.digest if statement else pinned.digest if pinned else None,
        question=row.question.digest if row.question and is_asked else None,
        risk=found.risk if found else None,
        seats=_seats(row, world),
        deadline=row.expires_at if row.phase not in FINAL else None,
        outcome=_outcome(row),
        quarantined=refused,
        asked_at=row.asked_at,
        updated_at=row.changed_at,
    )


def _seats(row: PendingApproval, world: World) -> SeatsView | None:
    requirement = row.classification.requirement if row.classification else None
    if requirement is None or world.directory is None:
        return None
    filled = seats.seated(row, world.directory, world.rosters)
    return SeatsView(filled=len(filled), wanted=len(seats.places(requirement)))


def _outcome(row: PendingApproval) -> OutcomeView | None:
    if row.outcome is None:
        return None
    outcome = row.outcome.read(Outcome)
    return OutcomeView(
        result=outcome.result,
        flagged=row.flagged,
        summary=outcome.receipt.summary if outcome.receipt else outcome.reason,
        undo=outcome.undo,
        receipt=outcome.receipt,
    )


def _quarantine(found: Quarantined) -> QuarantineView:
    return QuarantineView(
        refusal=found.refusal,
        reason=found.reason,
        partition=found.source.partition,
        offset=found.source.offset,
        sha256=found.sha256,
    )


def _is_of(found: QuarantineView, offset: int) -> bool:
    return found.offset == offset


def _read(statement: Statement) -> Intent | None:
    try:
        return statement.read(Intent)
    except RecordError:
        return None


def _resource(intent: Intent | None) -> str | None:
    return f"{intent.resource.type}/{intent.resource.id}" if intent else None
