"""One partition of the core: fence, restore, then decide for ever. Everything it says goes out in one transaction.

Rows, words, audit records and positions are committed together, so state and progress can't part (DESIGN §5). Any
failure of Kafka ends the process; what was not committed is decided again, with the same answer.
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from broker import lifecycle
from broker.core import order, trail
from broker.core.order import Input, Order, ReadEnds, Ready, Starved
from broker.core.rows import Rows, Stored
from broker.core.trail import Chain
from broker.lifecycle import Event, Local, Output
from schemas import canonical, envelope, ids, partition, topics
from schemas.envelope import EnvelopeError
from schemas.record import Record, RecordError, Statement
from schemas.records import (
    AuditRecord,
    ChainHead,
    Claim,
    Genesis,
    PendingApproval,
    Progress,
    Quarantined,
    Refusal,
    Source,
    Tick,
)
from schemas.signing import Signer
from schemas.topics import PROGRESS_KEY
from schemas.world import SNAPSHOTS, SnapshotError, World
from streams import connection, reading
from streams.errors import GapError, LostPositionError, TopicMissingError
from streams.producing import Speaker
from streams.settings import Settings

log = logging.getLogger("keyturn.core")

BATCH: Final = 500
POLL_MS: Final = 100
TICK_EVERY_MS: Final = 500
AUDIT_LOOK_BACK_MS: Final = 60_000
HEAD_WAIT_SECONDS: Final = 20.0
"""Longer than a transaction may stay open (10 s) and the broker takes to notice."""
KEPT_VALUE_BYTES: Final = 64 * 1024

_TOPICS: Final = {topic.name: topic for topic in topics.TOPICS}
Clock = Callable[[], int]
"""Unix milliseconds of this machine: decides when to send a tick, and nothing else (law 5)."""


@dataclass(frozen=True, slots=True)
class _Word:
    """One record to be said, encoded when it was decided: what cannot be said is found before anything is."""

    topic: str
    partition: int
    key: str
    #: The record type; empty for a tombstone.
    type: str
    value: bytes | None
    hints: tuple[tuple[str, bytes], ...] = ()
    #: Whether its topic counts (law 11).
    is_numbered: bool = True


@dataclass(slots=True)
class _Batch:
    """What one transaction will say."""

    words: list[_Word] = field(default_factory=list)
    #: Only the last row of an intent is said: `pending` is compacted.
    rows: dict[str, Stored | None] = field(default_factory=dict)
    inputs: int = 0

    @property
    def is_worth_a_commit(self) -> bool:
        return bool(self.rows or self.words)


class CorePartition:
    """Owns partition `number` from `run` until `stop` is set."""

    def __init__(self, settings: Settings, number: int, partitions: int, signer: Signer, clock: Clock) -> None:
        """`partitions` is the realm's P."""
        self._settings = settings
        self._names = settings.names
        self._number = number
        self._partitions = partitions
        self._signer = signer
        self._clock = clock
        self._rows = Rows()
        self._world: World = settings.empty_world()
        self._chain = Chain(settings.realm, f"core-{number}", ChainHead())
        self._numbers: dict[str, int] = {}
        self._log_time = 0
        self._order: Order[ConsumerRecord] = Order({})
        self._batch = _Batch()
        self._gaps: dict[str, int] = {}
        self._ticked_at = 0
        self._ticks = 0
        self._unprovisioned: set[str] = set()
        self._executors_known: tuple[str, ...] | None = None

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Fence, restore, serve. Returns after `stop`; raises whatever Kafka says."""
        producer = connection.producer(self._settings, transactional_id=f"{self._settings.prefix}core-{self._number}")
        await connection.start(producer, self._settings)  # fences whoever owned this partition before
        consumer = connection.reader(self._settings)
        speaker = Speaker(self._settings)
        try:
            await connection.start(consumer, self._settings)
            await self._restore(consumer)
            await self._take_up(consumer)
            async with speaker:
                ready()
                log.info("partition served", extra={"partition": self._number, "rows": len(self._rows)})
                while not stop.is_set():
                    await self._fetch(consumer)
                    await self._decide_what_is_there(consumer, producer)
                    await self._tick_if_due(speaker)
        finally:
            await consumer.stop()
            await producer.stop()

    # ------------------------------------------------------------ restoring

    async def _restore(self, consumer: AIOKafkaConsumer) -> None:
        """Rows, positions and chain head, up to the end offset taken after the fence."""
        pending = TopicPartition(self._names.of(topics.PENDING), self._number)
        audit = TopicPartition(self._names.of(topics.AUDIT), 0)
        await connection.require_partitions(
            consumer,
            [pending.topic, audit.topic, *(self._names.of(_TOPICS[name]) for name in order.INPUTS)],
        )
        progress: Progress | None = None
        ends = await reading.assign_from_start(consumer, [pending])
        async for _, record in reading.read_to_end(consumer, ends):
            key = record.key.decode()
            if key == PROGRESS_KEY:
                progress = Progress.from_bytes(record.value)
            elif record.value is None:
                self._rows.drop(key)
            else:
                self._rows.put(key, Stored.read(record.headers, record.value))
        if progress is not None:
            self._chain = Chain(self._settings.realm, self._chain.name, progress.head)
            self._numbers = dict(progress.numbers)
            self._log_time = progress.log_time
            self._order = Order(progress.positions)
        await self._require_head(consumer, audit)
        await self._restore_world(consumer)

    async def _require_head(self, consumer: AIOKafkaConsumer, audit: TopicPartition) -> None:
        """The chain's last record on `audit` must be the head this partition remembers (law 10)."""
        head = self._chain.head
        if head.seq == 0:
            return
        consumer.assign([audit])
        since = await consumer.offsets_for_times({audit: max(self._log_time - AUDIT_LOOK_BACK_MS, 0)})
        found = since[audit]
        consumer.seek(audit, found.offset if found is not None else (await consumer.beginning_offsets([audit]))[audit])
        last: AuditRecord | None = None
        deadline = asyncio.get_running_loop().time() + HEAD_WAIT_SECONDS
        # Another partition's open transaction may still hide our last records from a committed read: look again.
        while (last is None or last.seq < head.seq) and asyncio.get_running_loop().time() < deadline:
            last = await self._last_of_chain(consumer, audit, last)
        if last is None or last.seq != head.seq or last.digest != head.digest:
            shown = f"{last.seq} {last.digest[:12]}" if last is not None else "nothing"
            raise LostPositionError(
                f"{audit.topic}: chain {self._chain.name} ends with {shown}, but its core remembers {head.seq} "
                f"{(head.digest or '')[:12]}: the trail was cut or written by somebody else; stop and investigate"
            )

    async def _last_of_chain(
        self, consumer: AIOKafkaConsumer, audit: TopicPartition, last: AuditRecord | None
    ) -> AuditRecord | None:
        prefix = f"{self._chain.name}/".encode()
        ends = await consumer.end_offsets([audit])
        async for _, record in reading.read_to_end(consumer, ends):
            if record.key is not None and record.key.startswith(prefix):
                last = AuditRecord.from_bytes(record.value)
        return last

    async def _restore_world(self, consumer: AIOKafkaConsumer) -> None:
        """The world as this partition last decided with: what came later is an input like any other."""
        places = [TopicPartition(self._names.of(_TOPICS[name]), 0) for name in order.WORLD]
        await reading.assign_from_start(consumer, places)
        upto = {place: self._order.positions[name] for place, name in zip(places, order.WORLD, strict=True)}
        async for _, record in reading.read_to_end(consumer, upto):
            try:
                statement = envelope.unseal(record.headers, record.value, SNAPSHOTS)
                self._world = self._world.with_snapshot(statement, record.timestamp)
            except (EnvelopeError, SnapshotError):
                continue  # it was refused, and audited, when it was an input

    async def _take_up(self, consumer: AIOKafkaConsumer) -> None:
        """Assign the inputs at the owned positions."""
        positions = {self._place(name): self._order.positions[name] for name in order.INPUTS}
        consumer.assign(list(positions))
        await reading.seek_within(consumer, positions)

    def _place(self, name: str) -> TopicPartition:
        topic = _TOPICS[name]
        return TopicPartition(self._names.of(topic), self._number if topic.is_partitioned else 0)

    # ------------------------------------------------------------ fetching

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH)
        for place, records in fetched.items():
            name = place.topic.removeprefix(self._settings.prefix)
            for record in records:
                is_claim = envelope.type_of(record.headers) == Claim.TYPE
                try:
                    self._order.offer(Input(name, record.offset, record, is_claim))
                except order.OffsetGapError as exc:
                    self._seek_back(consumer, place, name, exc)
                    break
                self._gaps.pop(name, None)

    def _seek_back(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, name: str, exc: order.OffsetGapError
    ) -> None:
        """Law 11: the client skipped, which happens once around a rebalance; twice means records are gone."""
        due = self._order.fetched_to(name)
        if self._gaps.get(name) == due:
            raise GapError(f"{place.topic}/{place.partition}: {exc}, twice; `keyturn core skip` goes on, audited")
        self._gaps[name] = due
        consumer.seek(place, due)

    # ------------------------------------------------------------ deciding

    async def _decide_what_is_there(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        while True:
            match self._order.next():
                case Ready(input=item):
                    self._decide(item)
                    if self._batch.inputs >= BATCH:
                        await self._commit(consumer, producer)
                case ReadEnds() as asked:
                    places = {name: self._place(name) for name in asked.topics}
                    ends = await consumer.end_offsets(list(places.values()))
                    self._order.ends_are(asked, {name: ends[place] for name, place in places.items()})
                case Starved(waits=True):
                    await self._fetch(consumer)
                case Starved(waits=False):
                    break
        if self._batch.is_worth_a_commit:
            await self._commit(consumer, producer)

    def _decide(self, item: Input[ConsumerRecord]) -> None:
        record = item.body
        self._batch.inputs += 1
        self._log_time = record.timestamp
        if envelope.type_of(record.headers) == Genesis.TYPE and record.offset == 0:
            return
        source = Source(topic=item.topic, partition=record.partition, offset=record.offset)
        topic = _TOPICS[item.topic]
        try:
            statement = envelope.unseal(record.headers, record.value, topic.types)
            if item.topic in order.WORLD:
                self._change_world(source, record.timestamp, statement)
            else:
                self._decide_event(source, record, statement, topic.types)
        except (EnvelopeError, SnapshotError) as exc:
            self._quarantine(source, record, exc.refusal, str(exc))
        except RecordError as exc:
            self._quarantine(source, record, Refusal.MALFORMED, str(exc))

    def _decide_event(
        self, source: Source, record: ConsumerRecord, statement: Statement, types: tuple[type[Record], ...]
    ) -> None:
        kind = next(kind for kind in types if statement.type == kind.TYPE)
        said = statement.read(kind)
        event = Event(source, record.timestamp, said, statement)  # type: ignore[arg-type] # the map lists event records
        if isinstance(said, Tick):
            self._tick(event, said)
            return
        intent_id = lifecycle.intent_id_of(event.record) or ""
        self._require_place(record, intent_id)
        before = self._rows.get(intent_id)
        local = Local(open_intents=self._rows.open_of(ids.requester_of(intent_id)))
        self._apply(intent_id, before, event, local)

    def _require_place(self, record: ConsumerRecord, intent_id: str) -> None:
        """DESIGN §3: the key is the intent id, the partition murmur2(requester) mod P."""
        try:
            due = partition.partition_of(ids.requester_of(intent_id), self._partitions)
        except ids.IntentIdError as exc:
            raise EnvelopeError(Refusal.MALFORMED, str(exc)) from exc
        if record.key != intent_id.encode() or due != self._number:
            raise EnvelopeError(Refusal.WRONG_PARTITION, f"key must be {intent_id} and partition {due}")

    def _tick(self, event: Event, tick: Tick) -> None:
        if tick.partition != self._number:
            raise EnvelopeError(Refusal.WRONG_PARTITION, f"a tick of partition {tick.partition}")
        refusal = self._world.authority.refuses(event.statement, event.log_time)
        if refusal is not None:
            raise EnvelopeError(refusal, "a tick not signed by the core")
        for intent_id in list(self._rows.due_before(event.log_time)):
            self._apply(intent_id, self._rows.get(intent_id), event, Local())
        for intent_id in list(self._rows.forgettable(event.log_time)):
            self._rows.drop(intent_id)
            self._batch.rows[intent_id] = None

    def _apply(self, intent_id: str, before: PendingApproval | None, event: Event, local: Local) -> None:
        step = lifecycle.decide(before, event, self._world, local)
        try:
            stored, words, audit = self._encoded(intent_id, before, event, step)
        except (RecordError, canonical.CanonicalError) as exc:
            # Law 9: an answer that is too large to be said is an answer all the same, and stops nothing.
            step = lifecycle.Step(before, step.event, refusal=Refusal.INTERNAL, reason=f"cannot be said: {exc}"[:500])
            stored, words = None, []
            value = canonical.encode(event.statement.body)
            audit = self._chain.of_refused_input(
                event.source, event.log_time, value, Refusal.INTERNAL, step.reason or "", self._world
            )
        if step.refusal is Refusal.INTERNAL:
            log.error("decide failed", extra={"intent_id": intent_id, "reason": step.reason})
        if stored is not None:
            self._rows.put(intent_id, stored)
            self._batch.rows[intent_id] = stored
        self._batch.words.extend(words)
        self._audit(audit)

    def _encoded(
        self, intent_id: str, before: PendingApproval | None, event: Event, step: lifecycle.Step
    ) -> tuple[Stored | None, list[_Word], AuditRecord]:
        stored = Stored.of(step.row) if step.row is not None and step.row is not before else None
        words = [self._word(output, intent_id) for output in step.outputs]
        audit = self._chain.of_step(before, event, step, self._world)
        audit.to_bytes()
        return stored, words, audit

    def _word(self, output: Output, intent_id: str) -> _Word:
        name = self._names.of(output.topic, output.executor)
        return _Word(name, self._number, intent_id, output.record.TYPE, output.record.to_bytes())

    def _change_world(self, source: Source, log_time: int, statement: Statement) -> None:
        deferred = len(self._world.deferred)
        self._world = self._world.with_snapshot(statement, log_time)
        is_deferred = len(self._world.deferred) > deferred
        self._audit(self._chain.of_world(source, log_time, statement, self._world, is_deferred=is_deferred))
        log.info("world changed", extra={"partition": self._number, "type": statement.type})

    def _quarantine(self, source: Source, record: ConsumerRecord, refusal: Refusal, reason: str) -> None:
        """Law 9: unreadable, or not to come here. It never stops the partition."""
        value = record.value or b""
        fits = len(value) <= KEPT_VALUE_BYTES and refusal is not Refusal.SECRET_FOUND
        kept = Quarantined(
            source=source,
            stage="core",
            refusal=refusal,
            reason=reason[:2000],
            sha256=canonical.digest(value),
            bytes=len(value),
            key=base64.b64encode((record.key or b"")[:1024]).decode(),
            value=base64.b64encode(value).decode() if fits else None,
        )
        key = f"{source.topic}/{source.partition}/{source.offset}"
        name = self._names.of(topics.QUARANTINE)
        self._batch.words.append(_Word(name, self._number, key, kept.TYPE, kept.to_bytes(), is_numbered=False))
        self._audit(self._chain.of_refused_input(source, record.timestamp, value, refusal, reason, self._world))

    def _audit(self, record: AuditRecord) -> None:
        self._chain = self._chain.after(record)
        name = self._names.of(topics.AUDIT)
        self._batch.words.append(
            _Word(name, 0, trail.key_of(record), record.TYPE, record.to_bytes(), is_numbered=False)
        )

    # ------------------------------------------------------------ saying

    async def _commit(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        """Everything decided, and how far, in one transaction."""
        batch, self._batch = self._batch, _Batch()
        await self._know_executors(consumer)
        words = list(self._words(batch))
        await producer.begin_transaction()
        sent = [await self._send(producer, word) for word in words]
        progress = self._progress()
        pending = self._names.of(topics.PENDING)
        last = _Word(pending, self._number, PROGRESS_KEY, progress.TYPE, progress.to_bytes())
        sent.append(await self._send(producer, last))
        await asyncio.gather(*sent)
        await producer.commit_transaction()

    def _words(self, batch: _Batch) -> Iterator[_Word]:
        """What the transaction says, in order; the progress last."""
        for word in batch.words:
            if word.topic in self._unprovisioned:
                # The deadline ends what nobody plans; a topic that is not there must not stop the partition.
                log.error("executor topic is not provisioned", extra={"topic": word.topic, "intent_id": word.key})
            else:
                yield word
        pending = self._names.of(topics.PENDING)
        for intent_id, stored in batch.rows.items():
            if stored is None:
                yield _Word(pending, self._number, intent_id, "", None)
            else:
                kind = PendingApproval.TYPE
                yield _Word(pending, self._number, intent_id, kind, stored.value, tuple(stored.headers()))

    async def _send(self, producer: AIOKafkaProducer, word: _Word) -> asyncio.Future[Any]:
        number = self._next_number(word.topic) if word.is_numbered else None
        headers: list[tuple[str, bytes]]
        if word.value is None:
            headers = [("n", str(number).encode())]
        else:
            sealed = envelope.seal_bytes(
                word.type, word.value, word.key, self._signer, self._settings.realm, source="core", number=number
            )
            headers = [*sealed.headers, *word.hints]
        future: asyncio.Future[Any] = await producer.send(
            word.topic, word.value, word.key.encode(), word.partition, headers=headers
        )
        return future

    def _next_number(self, topic: str) -> int:
        """Law 11: gap-free per topic and partition, so that readers see a hole that offsets can't show."""
        number = self._numbers.get(topic, 0)
        self._numbers[topic] = number + 1
        return number

    def _progress(self) -> Progress:
        # The record carries its own number too: it is the last of `pending` in this transaction.
        numbers = dict(self._numbers)
        pending = self._names.of(topics.PENDING)
        numbers[pending] = numbers.get(pending, 0) + 1
        return Progress(
            partition=self._number,
            positions=dict(self._order.positions),
            head=self._chain.head,
            numbers=numbers,
            versions=self._world.versions,
            log_time=self._log_time,
        )

    async def _know_executors(self, consumer: AIOKafkaConsumer) -> None:
        manifests = self._world.manifests
        executors = tuple(manifest.executor for manifest in manifests.executors) if manifests else ()
        if executors == self._executors_known:
            return
        self._unprovisioned.clear()
        for executor in executors:
            for topic in (topics.PLANNING, topics.APPROVED):
                name = self._names.of(topic, executor)
                try:
                    await connection.require_partitions(consumer, [name])
                except TopicMissingError:
                    self._unprovisioned.add(name)
        self._executors_known = executors

    # ------------------------------------------------------------ time

    async def _tick_if_due(self, speaker: Speaker) -> None:
        """Local time only decides when to send a tick; its log time is the truth."""
        due = self._rows.first_due()
        now = self._clock()
        if due is None or now <= due or now - self._ticked_at < TICK_EVERY_MS:
            return
        self._ticked_at = now
        self._ticks += 1
        tick = Tick(partition=self._number, number=self._ticks)
        sealed = envelope.seal(tick, f"tick-{self._number}", self._signer, self._settings.realm, source="core")
        await speaker.say(self._names.of(topics.TICKS), self._number, sealed)
