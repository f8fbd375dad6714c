"""One partition's judgement: an input in, everything that is to be said of it out. Pure: no Kafka, no clock, no log.

The loop and the replay both run exactly this, so that the same inputs in the same order give the same bytes whoever
runs it. Law 9: every input ends as exactly one thing, and what pure code cannot do is an answer too.
"""

from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from broker import lifecycle
from broker.core import order, trail
from broker.core.rows import Rows, Stored
from broker.core.trail import Chain
from broker.lifecycle import Event, Local, Output
from schemas import envelope, ids, partition, quarantine, topics
from schemas.envelope import EnvelopeError
from schemas.raw import RawRecord
from schemas.record import RecordError, Statement, prose
from schemas.records import (
    AuditRecord,
    ChainHead,
    Genesis,
    PendingApproval,
    Redrive,
    Refusal,
    Restore,
    Skip,
    Source,
    Tick,
)
from schemas.topics import Names
from schemas.world import SnapshotError, World

AT_A_TICK: Final = 500
"""How many rows one tick ends, and how many it forgets: a transaction must be over in 10 s, however many are due."""

TOPICS: Final = {topic.name: topic for topic in topics.TOPICS}


@dataclass(frozen=True, slots=True)
class Word:
    """One record to be said, encoded when it was decided: what cannot be said is found before anything is."""

    #: The full name.
    topic: str
    partition: int
    key: str
    #: The record type; empty for a tombstone.
    type: str
    value: bytes | None
    hints: tuple[tuple[str, bytes], ...] = ()
    #: Whether its topic counts (law 11).
    is_numbered: bool = True


@dataclass(frozen=True, slots=True)
class Failure:
    """Pure code failed where it must not: answered `internal`, and people must hear of it."""

    source: Source
    reason: str
    intent_id: str | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """One input and what became of it, for whoever counts."""

    audit: AuditRecord
    #: The row after it, or what was there; none of what is about no intent.
    row: PendingApproval | None = None
    verdict: str = ""


@dataclass(slots=True)
class Batch:
    """What one transaction will say."""

    words: list[Word] = field(default_factory=list)
    #: Only the last row of an intent is said: `pending` is compacted. None: forgotten.
    rows: dict[str, Stored | None] = field(default_factory=dict)
    inputs: int = 0
    decided: list[Decided] = field(default_factory=list)

    @property
    def is_worth_a_commit(self) -> bool:
        """Whether anything came of the inputs."""
        return bool(self.rows or self.words)


class Deciding:
    """Rows, world and chain of partition `number`, and what was decided since the last `taken`."""

    def __init__(self, world: World, names: Names, number: int, partitions: int) -> None:
        """`world`: the empty one, with its realm and roots. `partitions`: the realm's P."""
        self._names = names
        self._number = number
        self._partitions = partitions
        self.rows = Rows()
        self.world = world
        self.chain = Chain(world.realm, f"core-{number}", ChainHead())
        self.batch = Batch()
        #: Input topics, and where the order of inputs goes on: for whoever owns it, to take away.
        self.jumps: list[tuple[str, int]] = []
        self._failures: list[Failure] = []

    def taken(self) -> Batch:
        """What is to be said now; from here on the next batch."""
        batch, self.batch = self.batch, Batch()
        return batch

    def decide(self, name: str, record: RawRecord, objection: str | None = None) -> tuple[Failure, ...]:
        """Decide a record of the input topic of that name. Returns what failed inside, for the log.

        `objection`: of a skip, why what it says is lost is not.
        """
        self.batch.inputs += 1
        if envelope.type_of(record.headers) == Genesis.TYPE and record.offset == 0:
            return ()
        source = Source(topic=name, partition=record.partition, offset=record.offset)
        types = TOPICS[name].types
        try:
            statement = envelope.unseal(record.headers, record.value, types)
            if name in order.WORLD:
                self.change_world(source, record.timestamp, statement)
            elif name == order.OPERATIONS:
                self.operate(source, record.timestamp, statement, objection)
            else:
                kind = next(kind for kind in types if statement.type == kind.TYPE)
                event = Event(source, record.timestamp, statement.read(kind), statement)  # type: ignore[arg-type] # the map lists event records
                self._require_place(record.key, event)
                self.decide_event(event)
        except (EnvelopeError, SnapshotError) as exc:
            self._quarantine(source, record, exc.refusal, str(exc))
        except RecordError as exc:
            self._quarantine(source, record, Refusal.MALFORMED, str(exc))
        except Exception as exc:  # noqa: BLE001 - law 9: pure code failed, at this record and again at every restart
            self._failures.append(Failure(source, f"{type(exc).__name__}: {exc}", error=exc))
            self._quarantine(source, record, Refusal.INTERNAL, f"{type(exc).__name__}: {exc}")
        failures, self._failures = tuple(self._failures), []
        return failures

    def decide_event(self, event: Event) -> None:
        """Decide an input that lies where it must. EnvelopeError: it is none."""
        if isinstance(event.record, Tick):
            self._tick(event, event.record)
            return
        intent_id = lifecycle.intent_id_of(event.record) or ""
        before = self.rows.get(intent_id)
        self._apply(intent_id, before, event, self._local(intent_id, event) if before is None else Local())

    def _local(self, intent_id: str, event: Event) -> Local:
        """What counts for a new intent: all of its requester's meet here."""
        requester, wish = ids.requester_of(intent_id), lifecycle.wish_of(event)
        if wish is None:
            return Local()
        asked_at = min(getattr(event.record, "asked_at", event.log_time), event.log_time)
        return Local(
            open_intents=self.rows.open_of(requester),
            in_last_minute=self.rows.asked_before(requester, asked_at),
            denied_at=self.rows.denied_at(wish),
        )

    def operate(self, source: Source, log_time: int, statement: Statement, objection: str | None) -> None:
        """A skip, which `jumps` then holds, a restore, or word of a redrive. All are on the trail, refused or not."""
        if statement.type == Skip.TYPE:
            skip = statement.read(Skip)
            event, reason = "input.skipped", skip.reason
            refusal = None if self.world.is_root_signed(statement) else Refusal.BAD_SIGNATURE
            if refusal is None and objection is not None:
                refusal, reason = Refusal.NOT_LOST, objection
            if refusal is None:
                self.jumps.append((skip.topic, skip.until))
        elif statement.type == Restore.TYPE:
            restore = statement.read(Restore)
            event, reason = "realm.restored", restore.reason
            refusal = None if self.world.is_root_signed(statement) else Refusal.BAD_SIGNATURE
            if refusal is None and (why := self._unrestorable(restore, log_time)) is not None:
                refusal, reason = Refusal.NOT_LOST, why
            if refusal is None:
                self.restored(ids.restored_to(log_time, restore.at))
        else:
            event, reason = "input.redriven", statement.read(Redrive).reason
            refusal = self.world.authority.refuses(statement, log_time)
        self._audit(self.chain.of_operation(source, log_time, event, statement, refusal, reason, self.world))

    def restored(self, until: int) -> None:
        """Law 4: ids up to this time lead to no act from here on; what waits under them ends at the next tick."""
        self.world = self.world.restored(until)
        self.rows.restored(until)

    def _unrestorable(self, restore: Restore, log_time: int) -> str | None:
        """Why this is no word on this chain as it stands now."""
        if (restore.partition, restore.head) != (self._number, self.chain.head):
            return f"the chain {self.chain.name} stands at {self.chain.head.seq}; say it again while no role runs"
        if restore.at > log_time + ids.WINDOW_AFTER_MS:
            return "it was said by a clock that is minutes ahead of the log's"
        return None

    def change_world(self, source: Source, log_time: int, statement: Statement) -> None:
        """A live document. SnapshotError: it does not come into force."""
        deferred = len(self.world.deferred)
        self.world = self.world.with_snapshot(statement, log_time)
        is_deferred = len(self.world.deferred) > deferred
        self._audit(self.chain.of_world(source, log_time, statement, self.world, is_deferred=is_deferred))

    def set_aside(self, source: Source, log_time: int, value: bytes, refusal: Refusal, reason: str) -> None:
        """On the trail: an input that nobody could read, or that may not come here."""
        self._audit(self.chain.of_refused_input(source, log_time, value, refusal, reason, self.world))

    def _require_place(self, key: bytes | None, event: Event) -> None:
        """DESIGN §3: the key is the intent id, the partition murmur2(requester) mod P."""
        if isinstance(event.record, Tick):
            return
        intent_id = lifecycle.intent_id_of(event.record) or ""
        try:
            due = partition.partition_of(ids.requester_of(intent_id), self._partitions)
        except ids.IntentIdError as exc:
            raise EnvelopeError(Refusal.MALFORMED, str(exc)) from exc
        if key != intent_id.encode() or due != self._number:
            raise EnvelopeError(Refusal.WRONG_PARTITION, f"key must be {intent_id} and partition {due}")

    def _tick(self, event: Event, tick: Tick) -> None:
        if tick.partition != self._number:
            raise EnvelopeError(Refusal.WRONG_PARTITION, f"a tick of partition {tick.partition}")
        refusal = self.world.authority.refuses(event.statement, event.log_time)
        if refusal is not None:
            raise EnvelopeError(refusal, "a tick not signed by the core")
        for intent_id in islice(self.rows.due_before(event.log_time), AT_A_TICK):
            self._apply(intent_id, self.rows.get(intent_id), event, Local())
        for intent_id in islice(self.rows.forgettable(event.log_time), AT_A_TICK):
            self.rows.drop(intent_id)
            self.batch.rows[intent_id] = None

    def _apply(self, intent_id: str, before: PendingApproval | None, event: Event, local: Local) -> None:
        step = lifecycle.decide(before, event, self.world, local)
        try:
            stored, words, audit = self._encoded(intent_id, before, event, step)
        except Exception as exc:  # noqa: BLE001 - law 9: what cannot be said is an answer all the same, and stops nothing
            reason = prose(f"cannot be said: {exc}")[:500]
            step = lifecycle.Step(before, step.event, refusal=Refusal.INTERNAL, reason=reason)
            stored, words = None, []
            audit = self.chain.of_refused_input(
                event.source, event.log_time, event.statement.value, Refusal.INTERNAL, reason, self.world
            )
        if step.refusal is Refusal.INTERNAL:
            self._failures.append(Failure(event.source, step.reason or "", intent_id))
        if stored is not None:
            self.rows.put(intent_id, stored)
            self.batch.rows[intent_id] = stored
        self.batch.words.extend(words)
        self._audit(audit, step.row or before, str(getattr(event.record, "verdict", "")))

    def _encoded(
        self, intent_id: str, before: PendingApproval | None, event: Event, step: lifecycle.Step
    ) -> tuple[Stored | None, list[Word], AuditRecord]:
        stored = Stored.of(step.row) if step.row is not None and step.row is not before else None
        words = [self._word(output, intent_id) for output in step.outputs]
        audit = self.chain.of_step(before, event, step, self.world)
        audit.to_bytes()
        return stored, words, audit

    def _word(self, output: Output, intent_id: str) -> Word:
        name = self._names.of(output.topic, output.executor)
        return Word(name, self._number, intent_id, output.record.TYPE, output.record.to_bytes())

    def _quarantine(self, source: Source, record: RawRecord, refusal: Refusal, reason: str) -> None:
        """Law 9: unreadable, or not to come here. It never stops the partition."""
        kept = quarantine.put_aside(
            source, "core", refusal, reason, key=record.key, value=record.value, headers=tuple(record.headers)
        )
        key = quarantine.key_of(source)
        name = self._names.of(topics.QUARANTINE)
        self.batch.words.append(Word(name, self._number, key, kept.TYPE, kept.to_bytes(), is_numbered=False))
        self.set_aside(source, record.timestamp, record.value or b"", refusal, kept.reason)

    def _audit(self, record: AuditRecord, row: PendingApproval | None = None, verdict: str = "") -> None:
        self.chain = self.chain.after(record)
        name = self._names.of(topics.AUDIT)
        self.batch.words.append(Word(name, 0, trail.key_of(record), record.TYPE, record.to_bytes(), is_numbered=False))
        self.batch.decided.append(Decided(record, row, verdict))
