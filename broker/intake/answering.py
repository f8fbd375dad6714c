"""Intake's answer to one record of `intents`. Total and pure: whatever comes in, exactly one signed-to-be answer.

What can be attributed to a requester goes on to the core, refused or not, so that it is on the trail and the
requester hears of it. What nobody can be held to, and what holds a secret, goes to quarantine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas import classification, envelope, ids, partition, quarantine, secrets
from schemas.envelope import EnvelopeError, Headers
from schemas.record import RecordError, Statement
from schemas.records import (
    ClassifiedIntent,
    Fact,
    ForwardedWithdrawal,
    Genesis,
    Intent,
    Quarantined,
    Refusal,
    Source,
    Withdrawal,
)
from schemas.world import World


@dataclass(frozen=True, slots=True)
class Raw:
    """A record of `intents` as it lies on Kafka."""

    source: Source
    log_time: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def is_genesis(self) -> bool:
        """Whether this is the partition's first record, which everybody skips."""
        return self.source.offset == 0 and envelope.type_of(self.headers) == Genesis.TYPE


Answer = ClassifiedIntent | ForwardedWithdrawal | Quarantined


@dataclass(frozen=True, slots=True)
class Admitted:
    """An intent in order, which waits for its facts."""

    raw: Raw
    statement: Statement
    intent: Intent


def receive(raw: Raw, world: World, partitions: int) -> Admitted | Answer:
    """The intent in this record, or the final answer to it. Never raises."""
    try:
        received = _receive(raw, world, partitions)
        return received if isinstance(received, Admitted) else _sayable(received)
    except EnvelopeError as exc:
        return quarantined(raw, exc.refusal, str(exc))
    except Exception as exc:  # noqa: BLE001 - law 9: a bad record never stops a partition
        return quarantined(raw, Refusal.INTERNAL, f"{type(exc).__name__}: {exc}")


def classify(admitted: Admitted, facts: Sequence[Fact], world: World) -> Answer:
    """The answer to an intent in order, with these facts. Never raises."""
    raw = admitted.raw
    try:
        found = classification.classify(admitted.intent, tuple(facts), None, world, raw.log_time)
        return _sayable(
            ClassifiedIntent(
                intent=admitted.statement,
                source=raw.source,
                asked_at=raw.log_time,
                facts=tuple(facts),
                classification=found,
                versions=world.versions,
            )
        )
    except Exception as exc:  # noqa: BLE001 - law 9
        return quarantined(raw, Refusal.INTERNAL, f"{type(exc).__name__}: {exc}")


def quarantined(raw: Raw, refusal: Refusal, reason: str) -> Quarantined:
    """What can be kept of a record that nobody could read."""
    return quarantine.put_aside(
        raw.source, "intake", refusal, reason, key=raw.key, value=raw.value, headers=raw.headers
    )


def key_of(answer: Answer) -> str:
    """The Kafka key of an answer."""
    match answer:
        case ClassifiedIntent():
            return str(answer.intent.body["id"])
        case ForwardedWithdrawal():
            return str(answer.withdrawal.body["intent"])
        case Quarantined():  # pragma: no branch - there is no fourth answer
            return quarantine.key_of(answer.source)


def _sayable(answer: Answer) -> Answer:
    """What cannot be encoded is found here, where it becomes quarantine, and not where it would end the process."""
    answer.to_bytes()
    return answer


def _receive(raw: Raw, world: World, partitions: int) -> Admitted | Answer:
    statement = envelope.unseal(raw.headers, raw.value, (Intent, Withdrawal))
    secret = secrets.found_in(statement.value.decode())
    if secret is not None:
        return quarantined(raw, Refusal.SECRET_FOUND, f"it holds a {secret}; send a reference, rotate the secret")
    refusal = world.authority.refuses(statement, raw.log_time)
    if refusal is not None:
        raise EnvelopeError(refusal, world.authority.why(statement, refusal))
    _require_place(raw, statement, partitions)
    if statement.type == Withdrawal.TYPE:
        return _forward(raw, statement, world)
    try:
        return Admitted(raw, statement, classification.admit(statement, world, raw.log_time, raw.log_time))
    except classification.Refused as refused:
        return ClassifiedIntent(
            intent=statement,
            source=raw.source,
            asked_at=raw.log_time,
            refusal=refused.refusal,
            reason=refused.reason[:2000],
            versions=world.versions,
        )


def _forward(raw: Raw, statement: Statement, world: World) -> Answer:
    try:
        statement.read(Withdrawal)
    except RecordError as exc:
        raise EnvelopeError(Refusal.MALFORMED, str(exc)) from exc
    return ForwardedWithdrawal(withdrawal=statement, source=raw.source, asked_at=raw.log_time, versions=world.versions)


def _require_place(raw: Raw, statement: Statement, partitions: int) -> None:
    intent_id = str(statement.body.get("id" if statement.type == Intent.TYPE else "intent"))
    try:
        due = partition.partition_of(ids.requester_of(intent_id), partitions)
    except ids.IntentIdError as exc:
        raise EnvelopeError(Refusal.MALFORMED, str(exc)) from exc
    if raw.key != intent_id.encode() or raw.source.partition != due:
        raise EnvelopeError(Refusal.WRONG_PARTITION, f"key must be {intent_id} and partition {due}")
