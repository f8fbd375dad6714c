"""Tells audit records to people: one calm line each, or one intent's whole story. No I/O, no clock.

Whatever comes from outside is shown as literal text: nothing in it can steer a terminal.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from schemas.record import RecordError, Statement
from schemas.records import (
    AuditRecord,
    Claim,
    Classification,
    ClassifiedIntent,
    Decision,
    Evidence,
    ForwardedWithdrawal,
    Intent,
    Outcome,
    Plan,
    PlanFailed,
    Redrive,
    Requirement,
    Resolution,
    Restore,
    Skip,
    Tick,
    Withdrawal,
)

SHORT: Final = 12
PROSE: Final = 200
WORLD: Final = frozenset({"world.changed", "world.deferred"})


def line(record: AuditRecord) -> str:
    """Time, place, event, who, what moved, and why not."""
    parts = [
        instant(record.log_time),
        f"{record.chain}/{record.seq}",
        f"{record.event:<18}",
        record.intent or str(record.source.topic),
    ]
    if who := _who(record):
        parts.append(f"by {who}")
    if moved := _moved(record):
        parts.append(moved)
    if record.refusal is not None:
        parts.append(f"REFUSED {record.refusal.value}")
    if record.reason:
        parts.append(f"({quoted(record.reason)})")
    return "  ".join(parts)


def tell(records: Iterable[AuditRecord]) -> Iterator[str]:
    """The story of one intent, in the order of its chain."""
    for record in records:
        yield line(record)
        yield from (f"    {detail}" for detail in _details(record))


def instant(milliseconds: int) -> str:
    """RFC 3339, UTC, to the millisecond."""
    whole, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def quoted(text: str) -> str:
    """Somebody's words, on one line and bounded; what cannot be printed is spelt out."""
    shown = "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in text[:PROSE])
    return shown + ("…" if len(text) > PROSE else "")


# ---------------------------------------------------------------- one line


def _moved(record: AuditRecord) -> str:
    before = record.before.value if record.before is not None else "none"
    after = record.after.value if record.after is not None else "none"
    return f"{before} -> {after}" if before != after else ""


def _who(record: AuditRecord) -> str:
    statement = record.statement
    if statement is None:
        return "administration" if record.event in WORLD else ""
    try:
        return _speaker(statement)
    except RecordError:
        return f"key {statement.keyid[:SHORT]}"


def _speaker(statement: Statement) -> str:
    match statement.type:
        case ClassifiedIntent.TYPE:
            return _requester(statement.read(ClassifiedIntent).intent)
        case ForwardedWithdrawal.TYPE:
            return statement.read(ForwardedWithdrawal).withdrawal.read(Withdrawal).by.id
        case Plan.TYPE | PlanFailed.TYPE:
            return quoted(str(statement.body.get("executor")))
        case Claim.TYPE:
            return statement.read(Claim).instance
        case Outcome.TYPE:
            return statement.read(Outcome).instance
        case Decision.TYPE:
            decision = statement.read(Decision)
            return f"{decision.person or quoted(decision.account.subject)} ({decision.channel.value})"
        case Resolution.TYPE:
            resolution = statement.read(Resolution)
            return f"{resolution.person or quoted(resolution.account.subject)} ({resolution.channel.value})"
        case Tick.TYPE:
            return "time"
        case _:
            return f"key {statement.keyid[:SHORT]}"


def _requester(statement: Statement) -> str:
    intent = statement.read(Intent)
    stated = intent.context.on_behalf_of
    return intent.subject.id + (f" for {stated}" if stated else "")


# ---------------------------------------------------------------- one intent


def _details(record: AuditRecord) -> Iterator[str]:
    if record.statement is not None:
        try:
            yield from _said_by(record.statement)
        except RecordError as exc:
            yield f"cannot be read: {quoted(str(exc))}"
        yield f"signed by key {record.statement.keyid}, sha256 {record.statement.digest}"
    if record.classification is not None:
        yield from _judged(record.classification)
    if record.question is not None and record.refusal is None:
        yield f"question {record.question.digest}"
        if record.requirement is not None:
            yield f"asks {_asked(record.requirement)}; never {', '.join(record.circle) or 'nobody'}"
    if record.until is not None:
        yield f"until {instant(record.until)}"
    for said in record.said:
        yield f"said {said.type} on {said.topic}, sha256 {said.digest}"
    versions = record.versions
    yield (
        f"rests on directory {versions.directory}, roster {versions.roster}, policies {versions.policies}, "
        f"manifests {versions.manifests}, {quoted(versions.rules)}; input {record.source.topic}/"
        f"{record.source.partition}/{record.source.offset}"
    )


def _said_by(statement: Statement) -> Iterator[str]:
    match statement.type:
        case ClassifiedIntent.TYPE:
            yield from _intent(statement.read(ClassifiedIntent))
        case Plan.TYPE:
            plan = statement.read(Plan)
            yield f"plan of {plan.executor}: {quoted(plan.summary)}; {len(plan.changes)} changes"
            yield f"undo ({plan.reversibility.value}): {quoted(plan.undo)}"
        case Decision.TYPE:
            decision = statement.read(Decision)
            yield f"{decision.verdict.value} of question {decision.question}; {_evidence(decision.evidence)}"
            if decision.reason:
                yield f"says: {quoted(decision.reason)}"
        case Resolution.TYPE:
            resolution = statement.read(Resolution)
            yield f"found {resolution.found}: {quoted(resolution.reason)}; {_evidence(resolution.evidence)}"
        case Outcome.TYPE:
            outcome = statement.read(Outcome)
            observed = " by observing" if outcome.observed else ""
            yield f"{outcome.result.value}{observed}, under grant {outcome.grant}"
            if outcome.receipt is not None:
                yield f"receipt: {quoted(outcome.receipt.summary)}; {len(outcome.receipt.changes)} changes"
        case Skip.TYPE | Restore.TYPE | Redrive.TYPE:
            yield from _operated(statement)
        case _:
            return


def _operated(statement: Statement) -> Iterator[str]:
    """What an operator said."""
    match statement.type:
        case Skip.TYPE:
            skip = statement.read(Skip)
            yield f"declares {quoted(skip.topic)}/{skip.partition}/{skip.position} lost, goes on at {skip.until}"
        case Restore.TYPE:
            restore = statement.read(Restore)
            yield f"declares the realm restored at {restore.head.seq} of chain core-{restore.partition}"
        case Redrive.TYPE:
            again = statement.read(Redrive)
            place = f"{quoted(again.source.topic)}/{again.source.partition}/{again.source.offset}"
            yield f"puts {place} on the log again, {again.bytes} bytes, sha256 {again.sha256}"
        case _:
            return


def _intent(classified: ClassifiedIntent) -> Iterator[str]:
    intent = classified.intent.read(Intent)
    yield (
        f"{intent.subject.type} {intent.subject.id} asks for {intent.action.name} on {intent.resource.type} "
        f"{quoted(intent.resource.id)}, within {intent.ttl} s"
    )
    yield f"says: {quoted(intent.context.reason)}"
    for name, value in sorted(intent.action.properties.items()):
        yield f"{name} = {quoted(str(value))}"
    yield f"intent sha256 {classified.intent.digest}, signed by key {classified.intent.keyid}"
    for fact in classified.facts:
        value = "unknown" if fact.value is None else quoted(str(fact.value))
        yield f"fact {fact.name} = {value} (from {fact.source})"


def _judged(found: Classification) -> Iterator[str]:
    rules = ", ".join(quoted(rule) for rule in found.rules) or "none"
    yield f"policy: {found.effect.value}, risk {found.risk.value}, rules {rules}"


def _asked(requirement: Requirement) -> str:
    seats = " and ".join(f"{seat.count} of {seat.of}" for seat in requirement.seats)
    return f"{seats}, assurance {requirement.assurance.value}"


def _evidence(evidence: Evidence) -> str:
    login = f", login at {instant(1000 * evidence.auth_time)}" if evidence.auth_time is not None else ""
    return f"evidence {evidence.kind}{login}, sha256 {evidence.digest}"
