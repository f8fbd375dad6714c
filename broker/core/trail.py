"""What the core puts on the audit log. Pure. Law 9: every input ends as exactly one thing, refusals included.

Law 10: unique keys, a gap-free sequence and a hash chain per core partition.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from broker.lifecycle import Event, Output, Step, intent_id_of
from schemas import canonical, ids
from schemas.record import Statement, prose
from schemas.records import AuditRecord, ChainHead, PendingApproval, Refusal, Said, Source
from schemas.world import World


@dataclass(frozen=True, slots=True)
class Chain:
    """One partition's chain and its last record."""

    realm: str
    name: str
    head: ChainHead

    def of_step(self, before: PendingApproval | None, event: Event, step: Step, world: World) -> AuditRecord:
        """The audit record of one decided event."""
        row = step.row
        shows_question = row is not None and row.question is not None and _shows_question(step)
        return AuditRecord(
            realm=self.realm,
            chain=self.name,
            seq=self.head.seq + 1,
            prev=self.head.digest,
            log_time=event.log_time,
            source=event.source,
            event=step.event,
            intent=row.intent_id if row is not None else _safe_id(event),
            before=before.phase if before is not None else None,
            after=row.phase if row is not None else None,
            refusal=step.refusal,
            reason=step.reason,
            statement=event.statement,
            said=tuple(_said(step.outputs)),
            question=row.question if row is not None and shows_question else None,
            requirement=(
                row.classification.requirement
                if row is not None and row.classification is not None and shows_question
                else None
            ),
            circle=row.circle if row is not None and shows_question else (),
            classification=row.classification if row is not None and step.event in JUDGED else None,
            until=step.until,
            versions=world.versions,
        )

    def of_world(
        self, source: Source, log_time: int, statement: Statement, world: World, *, is_deferred: bool
    ) -> AuditRecord:
        """A live document came into force, or waits for another; its text stays in its topic, its digest is here."""
        name = "world.deferred" if is_deferred else "world.changed"
        return self._about(source, log_time, name, canonical.encode(statement.body), None, statement.type, world)

    def of_operation(
        self,
        source: Source,
        log_time: int,
        event: str,
        statement: Statement,
        refusal: Refusal | None,
        reason: str,
        world: World,
    ) -> AuditRecord:
        """What an operator did: laws 9 and 11 hold for the repair too."""
        record = self._about(source, log_time, event, b"", refusal, reason, world)
        return record.model_copy(update={"statement": statement, "sha256": None, "bytes": None})

    def of_refused_input(
        self, source: Source, log_time: int, value: bytes, refusal: Refusal, reason: str, world: World
    ) -> AuditRecord:
        """An input that nobody could read, or that may not come here."""
        return self._about(source, log_time, "input.quarantined", value, refusal, reason, world)

    def _about(
        self,
        source: Source,
        log_time: int,
        event: str,
        value: bytes,
        refusal: Refusal | None,
        reason: str,
        world: World,
    ) -> AuditRecord:
        return AuditRecord(
            realm=self.realm,
            chain=self.name,
            seq=self.head.seq + 1,
            prev=self.head.digest,
            log_time=log_time,
            source=source,
            event=event,
            refusal=refusal,
            reason=prose(reason),
            sha256=canonical.digest(value),
            bytes=len(value),
            versions=world.versions,
        )

    def after(self, record: AuditRecord) -> "Chain":
        """The chain with this record at its head."""
        return Chain(self.realm, self.name, ChainHead(seq=record.seq, digest=record.digest))


JUDGED: Final = frozenset(
    {"intent.classified", "intent.denied", "plan.reported", "plan.denied", "claim.reopened", "claim.denied"}
)
"""Events where policy was asked: the trail shows what the core itself found, not only intake's proposal."""


def key_of(record: AuditRecord) -> str:
    """`<chain>/<seq>`: unique, so that compaction removes nothing."""
    return f"{record.chain}/{record.seq}"


def _shows_question(step: Step) -> bool:
    """Where the trail must show who was asked what, and who stands behind the requester."""
    return step.question_opened or step.event in {"decision.recorded", "decision.barred", "claim.granted"}


def _said(outputs: Iterable[Output]) -> Iterable[Said]:
    for output in outputs:
        name = output.topic.name.replace("{executor}", output.executor or "")
        yield Said(topic=name, type=output.record.TYPE, digest=output.record.digest)


def _safe_id(event: Event) -> str | None:
    """The id an input names, if it is one at all: an id that is none is told by the refusal."""
    named = intent_id_of(event.record)
    try:
        return named if named is not None and ids.split(named) else None
    except ids.IntentIdError:
        return None
