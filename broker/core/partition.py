"""One partition of the core: fence, restore, then decide for ever. Everything it says goes out in one transaction.

Rows, words, audit records and positions are committed together, so state and progress can't part (DESIGN §5). Any
failure of Kafka ends the process, and nothing is tidied up before: what was not committed is decided again, with the
same answer. Any failure of pure code is an answer (law 9).
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from broker import lifecycle
from broker.core import order, trail
from broker.core.order import Input, Order, ReadEnds, Ready, Starved
from broker.core.rows import Rows, Stored
from broker.core.trail import Chain
from broker.lifecycle import Event, Local, Output
from schemas import canonical, envelope, ids, partition, topics
from schemas.envelope import EnvelopeError
from schemas.record import Record, RecordError, Statement, prose
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
from schemas.timing import LEADER_SKEW_MS
from schemas.topics import PROGRESS_KEY
from schemas.world import SnapshotError, World
from streams import connection, reading
from streams.errors import GapError, LostPositionError, TopicMissingError
from streams.producing import Speaker
from streams.settings import Settings

log = logging.getLogger("keyturn.core")

BATCH: Final = 500
AT_A_TICK: Final = 500
"""How many rows one tick ends, and how many it forgets: a transaction must be over in 10 s, however many are due."""
POLL_MS: Final = 100
RESTORE_WAIT_MS: Final = 20
TICK_EVERY_MS: Final = 500
AUDIT_LOOK_BACK_MS: Final = 60_000
HEAD_WAIT_SECONDS: Final = 20.0
"""Longer than a transaction may stay open (10 s) and the broker takes to notice."""
KEPT_VALUE_BYTES: Final = 64 * 1024

_TOPICS: Final = {topic.name: topic for topic in topics.TOPICS}
Clock = Callable[[], int]
"""Unix milliseconds of this machine: decides when to send a tick, and nothing else (law 5)."""
Fetched: TypeAlias = Mapping[TopicPartition, Sequence[ConsumerRecord]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all partitions of a process have in common."""

    #: The realm's P.
    partitions: int
    signer: Signer
    #: Says the ticks.
    speaker: Speaker
    surveyor: reading.Surveyor
    clock: Clock


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

    def __init__(self, settings: Settings, number: int, shared: Shared) -> None:
        """`shared` is started, and outlives this."""
        self._settings = settings
        self._names = settings.names
        self._number = number
        self._shared = shared
        self._rows = Rows()
        self._world: World = settings.empty_world()
        self._chain = Chain(settings.realm, f"core-{number}", ChainHead())
        self._numbers: dict[str, int] = {}
        self._log_time = 0
        self._order: Order[ConsumerRecord] = Order({})
        self._batch = _Batch()
        #: By topic: the offset that was due when something later came instead.
        self._gaps: dict[str, int] = {}
        #: By topic: the latest log time seen.
        self._latest: dict[str, int] = {}
        self._ticked_at = 0
        self._ticks = 0
        #: Topics of executors that were there when they were needed.
        self._provisioned: set[str] = set()

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Fence, restore, serve. Returns after `stop`; raises whatever Kafka says, and then the process must end."""
        producer = connection.producer(self._settings, transactional_id=f"{self._settings.prefix}core-{self._number}")
        await connection.start(producer, self._settings)  # fences whoever owned this partition before
        await self._restore()
        consumer = connection.reader(self._settings)
        await connection.start(consumer, self._settings)
        reading.assign_at(consumer, self._positions())
        ready()
        log.info("partition served", extra={"partition": self._number, "rows": len(self._rows)})
        while not stop.is_set():
            await self._fetch(consumer)
            await self._decide_what_is_there(producer)
            await self._tick_if_due()
        await consumer.stop()
        await producer.stop()

    # ------------------------------------------------------------ restoring

    async def _restore(self) -> None:
        """Everything as the last transaction left it."""
        await self._require_topics()
        pending = TopicPartition(self._names.of(topics.PENDING), self._number)
        audit = TopicPartition(self._names.of(topics.AUDIT), 0)
        world = {self._place(name): name for name in order.WORLD}
        # What is read here is there: no long polls, which the next question would have to wait for.
        consumer = connection.reader(self._settings, fetch_max_wait_ms=RESTORE_WAIT_MS)
        await connection.start(consumer, self._settings)
        reading.assign_at(consumer, await self._shared.surveyor.starts([pending, audit, *world]))
        consumer.pause(audit, *world)
        progress = await self._restore_rows(consumer, pending)
        if progress is not None:
            self._chain = Chain(self._settings.realm, self._chain.name, progress.head)
            self._numbers = dict(progress.numbers)
            self._log_time = progress.log_time
            self._order = Order(progress.positions)
        consumer.resume(audit)
        await self._require_head(consumer, audit)
        await self._shared.surveyor.require_held(self._positions())
        consumer.pause(audit)
        consumer.resume(*world)
        await self._restore_world(consumer, {place: self._order.positions[name] for place, name in world.items()})
        self._compare_world(progress)
        await consumer.stop()

    async def _require_topics(self) -> None:
        """All there, and cut into P partitions: else keys would lie where nobody looks for them."""
        said = (topics.PENDING, topics.STATUS, topics.AUDIT, topics.QUARANTINE)
        wanted = {self._names.of(topic): topic for topic in (*(_TOPICS[name] for name in order.INPUTS), *said)}
        for name, count in (await self._shared.surveyor.partitions(wanted)).items():
            due = self._shared.partitions if wanted[name].is_partitioned else 1
            if count != due:
                raise TopicMissingError(f"{name}: {count} partitions where {due} are due; run `keyturn topics check`")

    async def _restore_rows(self, consumer: AIOKafkaConsumer, pending: TopicPartition) -> Progress | None:
        """The rows, and how far they go, up to the end offset taken after the fence."""
        progress: Progress | None = None
        ends = await self._shared.surveyor.ends([pending])
        async for _, record in reading.read_to_end(consumer, ends):
            key = (record.key or b"").decode()
            if key == PROGRESS_KEY:
                progress = Progress.from_bytes(record.value or b"")
            elif record.value is None:
                self._rows.drop(key)
            else:
                self._rows.put(key, Stored.read(record.headers, record.value))
        return progress

    async def _require_head(self, consumer: AIOKafkaConsumer, audit: TopicPartition) -> None:
        """The chain's last record on `audit` must be the head this partition remembers (law 10).

        A partition that remembers nothing must find nothing: rows that are gone would be a second life for every id.
        """
        head = self._chain.head
        if head.seq > 0:
            since = max(self._log_time - AUDIT_LOOK_BACK_MS, 0)
            found = (await consumer.offsets_for_times({audit: since}))[audit]
            if found is not None:
                consumer.seek(audit, found.offset)
        seq, digest = await self._last_of_chain(consumer, audit, head.seq)
        if (seq, digest) != (head.seq, head.digest):
            raise LostPositionError(
                f"{audit.topic}: chain {self._chain.name} ends with {seq} {(digest or '')[:12]}, but its core "
                f"remembers {head.seq} {(head.digest or '')[:12]}: the trail or the rows were cut, or written by "
                "somebody else; stop and investigate"
            )

    async def _last_of_chain(
        self, consumer: AIOKafkaConsumer, audit: TopicPartition, due: int
    ) -> tuple[int, str | None]:
        """Sequence and digest of our last record from where the consumer stands; (0, None) when there is none."""
        prefix = f"{self._chain.name}/".encode()
        seq, value = 0, b""
        end = (await self._shared.surveyor.ends([audit]))[audit]
        deadline = asyncio.get_running_loop().time() + HEAD_WAIT_SECONDS
        # Another partition's open transaction may still hide our last records from a committed read: wait for them.
        while await consumer.position(audit) < end or (seq < due and asyncio.get_running_loop().time() < deadline):
            for record in (await consumer.getmany(audit, timeout_ms=POLL_MS)).get(audit, ()):
                if record.key is not None and record.key.startswith(prefix):
                    seq, value = int(record.key.removeprefix(prefix)), record.value or b""
        return seq, canonical.digest(value) if seq else None

    async def _restore_world(self, consumer: AIOKafkaConsumer, upto: Mapping[TopicPartition, int]) -> None:
        """The world as this partition last decided with: what came later is an input like any other."""
        kinds = {self._names.of(topic): topic.types for topic in topics.WORLD}
        async for _, record in reading.read_to_end(consumer, upto):
            try:
                statement = envelope.unseal(record.headers, record.value, kinds[record.topic])
                self._world = self._world.with_snapshot(statement, record.timestamp)
            except (EnvelopeError, SnapshotError):
                continue  # it was refused, and audited, when it was an input

    def _compare_world(self, progress: Progress | None) -> None:
        now = self._world.versions
        if progress is not None and now != progress.versions.model_copy(update={"rules": now.rules}):
            # A key that was taken away after the fact: what it signed is in force no more, as for whoever reads anew.
            log.error("the world is not the one before the restart", extra={"before": progress.versions, "now": now})

    def _positions(self) -> dict[TopicPartition, int]:
        return {self._place(name): offset for name, offset in self._order.positions.items()}

    def _place(self, name: str) -> TopicPartition:
        topic = _TOPICS[name]
        return TopicPartition(self._names.of(topic), self._number if topic.is_partitioned else 0)

    # ------------------------------------------------------------ fetching

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        """What there is now, and every live document that was acknowledged before it.

        Documents go first in order, so nobody is refused because their directory was still on its way.
        """
        if not self._offer(consumer, await self._polled(consumer)):
            return
        world = {self._place(name): name for name in order.WORLD}
        ends = await self._shared.surveyor.ends(world)
        while any(self._order.fetched_to(name) < ends[place] for place, name in world.items()):
            self._offer(consumer, await self._polled(consumer, *world))

    async def _polled(self, consumer: AIOKafkaConsumer, *places: TopicPartition) -> Fetched:
        try:
            fetched: Fetched = await consumer.getmany(*places, timeout_ms=POLL_MS, max_records=BATCH)
        except OffsetOutOfRangeError as exc:
            raise LostPositionError(
                f"{exc}: the log no longer holds an owned position; `keyturn core skip` goes on, audited"
            ) from exc
        return fetched

    def _offer(self, consumer: AIOKafkaConsumer, fetched: Fetched) -> bool:
        """Whether there was anything beside the world's documents."""
        names = {place: place.topic.removeprefix(self._settings.prefix) for place in fetched}
        for place, records in fetched.items():
            for record in records:
                is_claim = envelope.type_of(record.headers) == Claim.TYPE
                try:
                    self._order.offer(Input(names[place], record.offset, record, is_claim))
                except order.OffsetGapError as exc:
                    self._seek_back(consumer, place, names[place], exc)
                    break
        return bool(set(names.values()) - set(order.WORLD))

    def _seek_back(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, name: str, exc: order.OffsetGapError
    ) -> None:
        """Law 11: a client may skip, once; twice at the same place means that records are gone."""
        due = self._order.fetched_to(name)
        if self._gaps.get(name) == due:
            raise GapError(f"{place.topic}/{place.partition}: {exc}, twice; `keyturn core skip` goes on, audited")
        self._gaps[name] = due
        consumer.seek(place, due)

    # ------------------------------------------------------------ deciding

    async def _decide_what_is_there(self, producer: AIOKafkaProducer) -> None:
        """Until something must be fetched first."""
        while not isinstance(step := self._order.next(), Starved):
            match step:
                case Ready(input=item):
                    self._decide(item)
                    if self._batch.inputs >= BATCH:
                        await self._commit(producer)
                case ReadEnds() as asked:
                    places = {name: self._place(name) for name in asked.topics}
                    ends = await self._shared.surveyor.ends(places.values())
                    self._order.ends_are(asked, {name: ends[place] for name, place in places.items()})
        if self._batch.is_worth_a_commit:
            await self._commit(producer)

    def _decide(self, item: Input[ConsumerRecord]) -> None:
        record = item.body
        self._batch.inputs += 1
        self._hear_time(item.topic, record)
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
        except Exception as exc:
            # Law 9: pure code failed, at this record and again at every restart.
            log.exception("an input could not be decided", extra={"source": str(source)})
            self._quarantine(source, record, Refusal.INTERNAL, f"{type(exc).__name__}: {exc}")

    def _hear_time(self, topic: str, record: ConsumerRecord) -> None:
        """Law 5: leaders' clocks may differ by so much, no more: else something expires early, and people must hear."""
        self._log_time = record.timestamp
        latest = self._latest.get(topic, 0)
        if record.timestamp < latest - LEADER_SKEW_MS:
            back = latest - record.timestamp
            log.error("log time stepped back", extra={"topic": topic, "offset": record.offset, "milliseconds": back})
        self._latest[topic] = max(latest, record.timestamp)

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
            due = partition.partition_of(ids.requester_of(intent_id), self._shared.partitions)
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
        for intent_id in islice(self._rows.due_before(event.log_time), AT_A_TICK):
            self._apply(intent_id, self._rows.get(intent_id), event, Local())
        for intent_id in islice(self._rows.forgettable(event.log_time), AT_A_TICK):
            self._rows.drop(intent_id)
            self._batch.rows[intent_id] = None

    def _apply(self, intent_id: str, before: PendingApproval | None, event: Event, local: Local) -> None:
        step = lifecycle.decide(before, event, self._world, local)
        try:
            stored, words, audit = self._encoded(intent_id, before, event, step)
        except Exception as exc:  # noqa: BLE001 - law 9: what cannot be said is an answer all the same, and stops nothing
            reason = prose(f"cannot be said: {exc}")[:500]
            step = lifecycle.Step(before, step.event, refusal=Refusal.INTERNAL, reason=reason)
            stored, words = None, []
            audit = self._chain.of_refused_input(
                event.source, event.log_time, event.statement.value, Refusal.INTERNAL, reason, self._world
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
            reason=prose(reason),
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

    async def _commit(self, producer: AIOKafkaProducer) -> None:
        """Everything decided, and how far, in one transaction."""
        batch, self._batch = self._batch, _Batch()
        missing = await self._unprovisioned({word.topic for word in batch.words})
        words = list(self._words(batch, missing))
        await producer.begin_transaction()
        sent = [await self._send(producer, word) for word in words]
        progress = self._progress()
        pending = self._names.of(topics.PENDING)
        last = _Word(pending, self._number, PROGRESS_KEY, progress.TYPE, progress.to_bytes())
        sent.append(await self._send(producer, last))
        await asyncio.gather(*sent)
        await producer.commit_transaction()

    async def _unprovisioned(self, wanted: set[str]) -> set[str]:
        """Those of these topics that are not there. A manifest may come before its executor's topics do."""
        missing = set()
        for name in sorted(wanted - self._provisioned):
            try:
                await self._shared.surveyor.partitions([name])
                self._provisioned.add(name)
            except TopicMissingError:
                missing.add(name)
        return missing

    def _words(self, batch: _Batch, missing: set[str]) -> Iterator[_Word]:
        """What the transaction says, in order, but the progress."""
        for word in batch.words:
            if word.topic in missing:
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
                word.type, word.value, word.key, self._shared.signer, self._settings.realm, source="core", number=number
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

    # ------------------------------------------------------------ time

    async def _tick_if_due(self) -> None:
        """Local time only decides when to send a tick; its log time is the truth."""
        due = self._rows.first_due()
        now = self._shared.clock()
        if due is None or now <= due or now - self._ticked_at < TICK_EVERY_MS:
            return
        self._ticked_at = now
        self._ticks += 1
        tick = Tick(partition=self._number, number=self._ticks)
        sealed = envelope.seal(tick, f"tick-{self._number}", self._shared.signer, self._settings.realm, source="core")
        await self._shared.speaker.say(self._names.of(topics.TICKS), self._number, sealed)
