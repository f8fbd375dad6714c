"""One partition of the core: fence, restore, then decide for ever. Everything it says goes out in one transaction.

Rows, words, audit records and positions are committed together, so state and progress can't part (DESIGN §5). Any
failure of Kafka ends the process, and nothing is tidied up before: what was not committed is decided again, with the
same answer. Any failure of pure code is an answer (law 9).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from broker.core import metrics, order
from broker.core.deciding import TOPICS, Batch, Deciding, Word
from broker.core.order import Input, Order, ReadEnds, Ready, Starved
from broker.core.rows import Stored
from broker.core.trail import Chain
from schemas import canonical, envelope, topics
from schemas.envelope import EnvelopeError
from schemas.record import RecordError
from schemas.records import Claim, PendingApproval, Phase, Progress, Skip, Tick
from schemas.signing import Signer
from schemas.timing import LEADER_SKEW_MS
from schemas.topics import PROGRESS_KEY
from schemas.world import SnapshotError
from streams import connection, crashpoints, holes, reading
from streams.errors import FencedError, GapError, LostPositionError, TopicMissingError
from streams.producing import Speaker
from streams.settings import Settings

log = logging.getLogger("keyturn.core")

BATCH: Final = 500
POLL_MS: Final = 100
RESTORE_WAIT_MS: Final = 20
TICK_EVERY_MS: Final = 500
AUDIT_LOOK_BACK_MS: Final = 60_000
HEAD_WAIT_SECONDS: Final = 20.0
"""Longer than a transaction may stay open (10 s) and the broker takes to notice."""
FENCE_WAIT_SECONDS: Final = 3.0
"""Between the ends of one transaction on two topics."""
STALL_POLLS: Final = 50
STALL_SECONDS: Final = 30.0
"""For so many polls, and so long, nothing comes of what the log says is there: no client needs that."""

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


class CorePartition:
    """Owns partition `number` from `run` until `stop` is set."""

    def __init__(self, settings: Settings, number: int, shared: Shared) -> None:
        """`shared` is started, and outlives this."""
        self._settings = settings
        self._names = settings.names
        self._number = number
        self._shared = shared
        self._own = Deciding(settings.empty_world(), settings.names, number, shared.partitions)
        self._numbers: dict[str, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._log_time = 0
        self._order: Order[ConsumerRecord] = Order({})
        #: By topic: the offset that was due when something later came instead.
        self._gaps: dict[str, int] = {}
        #: Where `pending` ended when it was restored.
        self._restored_to = 0
        #: What is waited for in vain, for how many polls, and since when (of the loop).
        self._stall: tuple[Mapping[str, int], int, float] = ({}, 0, 0.0)
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
        crashpoints.reached("core.start.1-fenced")
        try:
            await self._restore()
        except LostPositionError as exc:
            if await self._is_fenced():
                raise FencedError(
                    f"partition {self._number}: another core took it over while this one restored it: {exc}"
                ) from exc
            raise
        crashpoints.reached("core.start.2-restored")
        consumer = connection.reader(self._settings)
        await connection.start(consumer, self._settings)
        reading.assign_at(consumer, self._positions())
        self._consumer = consumer
        crashpoints.reached("core.start.3-served")
        ready()
        log.info("partition served", extra={"partition": self._number, "rows": len(self._own.rows)})
        while not stop.is_set():
            await self._turn(consumer, producer)
            await self._tick_if_due()
        crashpoints.reached("core.stop.1-told")
        await connection.stop(consumer)
        await connection.stop(producer)

    # ------------------------------------------------------------ being looked at

    @property
    def number(self) -> int:
        """Which partition."""
        return self._number

    def lag(self) -> Mapping[str, int]:
        """By input topic: how many records lie beyond what was decided, as of the last fetch."""
        if self._consumer is None:
            return {}
        ends = {name: self._consumer.highwater(self._place(name)) for name in self._order.positions}
        return {name: max(0, end - self._order.positions[name]) for name, end in ends.items() if end is not None}

    def phases(self) -> Mapping[Phase, int]:
        """How many rows are in each phase."""
        return self._own.rows.phases

    def oldest(self, phase: Phase) -> int | None:
        """When the oldest row of this phase was asked."""
        return self._own.rows.oldest(phase)

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
        operations = self._place(order.OPERATIONS)
        reading.assign_at(consumer, await self._shared.surveyor.starts([pending, audit, operations, *world]))
        consumer.pause(audit, operations, *world)
        progress = await self._restore_rows(consumer, pending)
        if progress is not None:
            self._own.chain = Chain(self._settings.realm, self._own.chain.name, progress.head)
            self._numbers = dict(progress.numbers)
            self._log_time = progress.log_time
            self._order = Order(progress.positions)
            self._own.restored(progress.restored_to or 0)
        consumer.resume(audit)
        await self._require_head(consumer, audit)
        consumer.pause(audit)
        consumer.resume(*world)
        ends = await self._shared.surveyor.ends(world)
        # A position beyond the log's end, which only a skip mends, must not be waited for.
        known = {place: min(self._order.positions[name], ends[place]) for place, name in world.items()}
        await self._restore_world(consumer, known)
        self._compare_world(progress)
        consumer.pause(*world)
        await self._heed_operators(consumer)
        await self._shared.surveyor.require_held(self._positions())
        await consumer.stop()

    async def _heed_operators(self, consumer: AIOKafkaConsumer) -> None:
        """What operators said while nobody served: a skip must be heard before the position it mends is looked at."""
        place = self._place(order.OPERATIONS)
        await self._shared.surveyor.require_held({place: self._order.positions[order.OPERATIONS]})
        end = (await self._shared.surveyor.ends([place]))[place]
        consumer.seek(place, self._order.positions[order.OPERATIONS])
        consumer.resume(place)
        async for _, record in reading.read_to_end(consumer, {place: end}):
            self._order.offer(Input(order.OPERATIONS, record.offset, record))
        while isinstance(step := self._order.next(), Ready):
            await self._decide(step.input)
        consumer.pause(place)

    async def _require_topics(self) -> None:
        """All there, and cut into P partitions: else keys would lie where nobody looks for them."""
        said = (topics.PENDING, topics.STATUS, topics.AUDIT, topics.QUARANTINE)
        wanted = {self._names.of(topic): topic for topic in (*(TOPICS[name] for name in order.INPUTS), *said)}
        for name, count in (await self._shared.surveyor.partitions(wanted)).items():
            due = self._shared.partitions if wanted[name].is_partitioned else 1
            if count != due:
                raise TopicMissingError(f"{name}: {count} partitions where {due} are due; run `keyturn topics check`")

    async def _restore_rows(self, consumer: AIOKafkaConsumer, pending: TopicPartition) -> Progress | None:
        """The rows, and how far they go, up to the end offset taken after the fence."""
        progress: Progress | None = None
        ends = await self._shared.surveyor.ends([pending])
        self._restored_to = ends[pending]
        async for _, record in reading.read_to_end(consumer, ends):
            key = (record.key or b"").decode()
            if key == PROGRESS_KEY:
                progress = Progress.from_bytes(record.value or b"")
            elif record.value is None:
                self._own.rows.drop(key)
            else:
                self._own.rows.put(key, Stored.read(record.headers, record.value))
        return progress

    async def _is_fenced(self) -> bool:
        """Whether another core serves this partition by now, so that what does not fit is its work.

        After the fence nobody but the owner writes these rows: once they grow, that is not us. A transaction's rows may
        be seen a little later than its trail.
        """
        pending = TopicPartition(self._names.of(topics.PENDING), self._number)
        deadline = asyncio.get_running_loop().time() + FENCE_WAIT_SECONDS
        while (await self._shared.surveyor.ends([pending]))[pending] <= self._restored_to:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(POLL_MS / 1000)
        return True

    async def _require_head(self, consumer: AIOKafkaConsumer, audit: TopicPartition) -> None:
        """The chain's last record on `audit` must be the head this partition remembers (law 10).

        A partition that remembers nothing must find nothing: rows that are gone would be a second life for every id.
        """
        head = self._own.chain.head
        if head.seq > 0:
            since = max(self._log_time - AUDIT_LOOK_BACK_MS, 0)
            found = (await consumer.offsets_for_times({audit: since}))[audit]
            if found is not None:
                consumer.seek(audit, found.offset)
        seq, digest = await self._last_of_chain(consumer, audit, head.seq)
        if (seq, digest) != (head.seq, head.digest):
            raise LostPositionError(
                f"{audit.topic}: chain {self._own.chain.name} ends with {seq} {(digest or '')[:12]}, but its core "
                f"remembers {head.seq} {(head.digest or '')[:12]}: the trail or the rows were cut, or written by "
                "somebody else; stop and investigate"
            )

    async def _last_of_chain(
        self, consumer: AIOKafkaConsumer, audit: TopicPartition, due: int
    ) -> tuple[int, str | None]:
        """Sequence and digest of our last record from where the consumer stands; (0, None) when there is none."""
        prefix = f"{self._own.chain.name}/".encode()
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
                self._own.world = self._own.world.with_snapshot(statement, record.timestamp)
            except (EnvelopeError, SnapshotError):
                continue  # it was refused, and audited, when it was an input

    def _compare_world(self, progress: Progress | None) -> None:
        now = self._own.world.versions
        if progress is not None and now != progress.versions.model_copy(update={"rules": now.rules}):
            # A key that was taken away after the fact: what it signed is in force no more, as for whoever reads anew.
            log.error("the world is not the one before the restart", extra={"before": progress.versions, "now": now})

    def _positions(self) -> dict[TopicPartition, int]:
        return {self._place(name): offset for name, offset in self._order.positions.items()}

    def _place(self, name: str) -> TopicPartition:
        topic = TOPICS[name]
        return TopicPartition(self._names.of(topic), self._number if topic.is_partitioned else 0)

    # ------------------------------------------------------------ fetching

    async def _turn(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
        """Fetch what there is, and decide what can be decided."""
        await self._fetch(consumer)
        await self._decide_what_is_there(producer)
        await self._notice_stall(self._order.awaited())

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        """What there is now, and every live document that was acknowledged before it.

        Documents go first in order, so nobody is refused because their directory was still on its way.
        """
        is_more = self._offer(consumer, await self._polled(consumer))
        await self._notice_holes(consumer)
        if not is_more:
            return
        crashpoints.reached("core.1-inputs-fetched")
        world = {self._place(name): name for name in order.WORLD}
        ends = await self._shared.surveyor.ends(world)
        while coming := [name for place, name in world.items() if self._is_coming(name, ends[place])]:
            self._offer(consumer, await self._polled(consumer, *world))
            await self._notice_holes(consumer)
            await self._notice_stall({name: self._order.fetched_to(name) for name in coming})

    def _is_coming(self, name: str, end: int) -> bool:
        """Whether more of it is to be fetched, as far as no hole is before it."""
        due = self._order.fetched_to(name)
        return due < end and self._gaps.get(name) != due

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

    async def _notice_holes(self, consumer: AIOKafkaConsumer) -> None:
        """Law 11, with nothing after the hole: the client went past offsets (a marker, say) and gave no record."""
        for name in self._order.positions:
            place, due = self._place(name), self._order.fetched_to(name)
            position = await consumer.position(place)
            if position > due:
                exc = order.OffsetGapError(f"{name}: no record before offset {position} where {due} was due")
                self._seek_back(consumer, place, name, exc)

    async def _notice_stall(self, awaited: Mapping[str, int]) -> None:
        """Law 11, where the client does not even move: nobody waits in silence for what the log says is there."""
        now = asyncio.get_running_loop().time()
        last, polls, since = self._stall
        if not awaited or awaited != last:
            self._stall = (awaited, 0, now)
            return
        self._stall = (awaited, polls + 1, since)
        if polls < STALL_POLLS or now - since < STALL_SECONDS:
            return
        # Asked again: a log that cannot be reached says so itself.
        places = {self._place(name): due for name, due in awaited.items()}
        ends = await self._shared.surveyor.ends(places)
        stalled = ", ".join(f"{at.topic}/{at.partition}: {due} of {ends[at]}" for at, due in places.items())
        raise GapError(
            f"nothing comes where it is due, in {polls} polls ({stalled}): look at the leader of this partition; if "
            "records are gone for good, `keyturn core skip` goes on, audited"
        )

    def _seek_back(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, name: str, exc: order.OffsetGapError
    ) -> None:
        """Law 11: a client may skip, once; twice at the same place means that records are gone.

        What was fetched before the hole is decided first: whoever declares the hole finds the core standing there.
        """
        due = self._order.fetched_to(name)
        if self._gaps.get(name) == due == self._order.positions[name]:
            raise GapError(f"{place.topic}/{place.partition}: {exc}, twice; `keyturn core skip` goes on, audited")
        self._gaps[name] = due
        consumer.seek(place, due)

    # ------------------------------------------------------------ deciding

    async def _decide_what_is_there(self, producer: AIOKafkaProducer) -> None:
        """Until something must be fetched first."""
        while not isinstance(step := self._order.next(), Starved):
            match step:
                case Ready(input=item):
                    await self._decide(item)
                    if self._own.batch.inputs >= BATCH:
                        await self._commit(producer)
                case ReadEnds() as asked:
                    places = {name: self._place(name) for name in asked.topics}
                    ends = await self._shared.surveyor.ends(places.values())
                    crashpoints.reached("core.2-barrier-read")
                    self._order.ends_are(asked, {name: ends[place] for name, place in places.items()})
        if self._own.batch.is_worth_a_commit or (self._gaps and self._own.batch.inputs):
            await self._commit(producer)

    async def _decide(self, item: Input[ConsumerRecord]) -> None:
        record, before = item.body, self._own.world
        self._hear_time(item.topic, record)
        objection = await self._objection(record) if item.topic == order.OPERATIONS else None
        for failed in self._own.decide(item.topic, record, objection):
            # Law 9: answered `internal`; it stops nothing, and people must look.
            extra = {"source": str(failed.source), "intent_id": failed.intent_id, "reason": failed.reason}
            log.error("an input could not be decided", exc_info=failed.error, extra=extra)
        if self._own.world is not before:
            log.info("world changed", extra={"partition": self._number, "topic": item.topic})
        for name, position in self._own.jumps:
            log.critical("inputs skipped", extra={"topic": name, "partition": self._number, "until": position})
            self._order.jump(name, position)
            self._gaps.pop(name, None)
        self._own.jumps.clear()

    async def _objection(self, record: ConsumerRecord) -> str | None:
        """Of a skip that a root key signed: why what it says is lost is not lost here (law 11: never in silence)."""
        try:
            statement = envelope.unseal(record.headers, record.value, (Skip,))
            skip = statement.read(Skip)
        except (EnvelopeError, RecordError):
            return None  # no skip, or none that can be read: it is answered without
        if not self._own.world.is_root_signed(statement):
            return None
        if skip.topic not in order.INPUTS or skip.topic == order.OPERATIONS:
            return f"{skip.topic} is no input that can be skipped"
        place = self._place(skip.topic)
        position = self._order.positions[skip.topic]
        if (skip.partition, skip.position) != (place.partition, position) or self._order.fetched_to(
            skip.topic
        ) != position:
            return f"the core stands at {skip.topic}/{place.partition}/{position}"
        until = await holes.end_of(self._settings, self._shared.surveyor, place, position)
        if until == position:
            return f"there is no hole: what lies at {skip.topic}/{place.partition}/{position} can be read"
        return None if until == skip.until else f"the hole ends at {until}, not at {skip.until}"

    def _hear_time(self, topic: str, record: ConsumerRecord) -> None:
        """Law 5: leaders' clocks may differ by so much, no more: else something expires early, and people must hear."""
        self._log_time = record.timestamp
        latest = self._latest.get(topic, 0)
        if record.timestamp < latest - LEADER_SKEW_MS:
            back = latest - record.timestamp
            log.error("log time stepped back", extra={"topic": topic, "offset": record.offset, "milliseconds": back})
        self._latest[topic] = max(latest, record.timestamp)

    # ------------------------------------------------------------ saying

    async def _commit(self, producer: AIOKafkaProducer) -> None:
        """Everything decided, and how far, in one transaction."""
        crashpoints.reached("core.3-batch-decided")
        batch = self._own.taken()
        missing = await self._unprovisioned({word.topic for word in batch.words})
        words = list(self._words(batch, missing))
        begun = time.perf_counter()
        await producer.begin_transaction()
        crashpoints.reached("core.4-transaction-begun")
        sent = [await self._send(producer, word) for word in words]
        progress = self._progress()
        pending = self._names.of(topics.PENDING)
        last = Word(pending, self._number, PROGRESS_KEY, progress.TYPE, progress.to_bytes())
        sent.append(await self._send(producer, last))
        await asyncio.gather(*sent)
        crashpoints.reached("core.5-transaction-sent")
        await producer.commit_transaction()
        crashpoints.reached("core.6-transaction-committed")
        metrics.TRANSACTIONS.observe(time.perf_counter() - begun)
        metrics.count(batch.decided, self._shared.clock())

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

    def _words(self, batch: Batch, missing: set[str]) -> Iterator[Word]:
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
                yield Word(pending, self._number, intent_id, "", None)
            else:
                kind = PendingApproval.TYPE
                yield Word(pending, self._number, intent_id, kind, stored.value, tuple(stored.headers()))

    async def _send(self, producer: AIOKafkaProducer, word: Word) -> asyncio.Future[Any]:
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
            head=self._own.chain.head,
            numbers=numbers,
            versions=self._own.world.versions,
            log_time=self._log_time,
            restored_to=self._own.world.restored_to or None,
        )

    # ------------------------------------------------------------ time

    async def _tick_if_due(self) -> None:
        """Local time only decides when to send a tick; its log time is the truth."""
        due = self._own.rows.first_due()
        now = self._shared.clock()
        if due is None or now <= due or now - self._ticked_at < TICK_EVERY_MS:
            return
        self._ticked_at = now
        self._ticks += 1
        tick = Tick(partition=self._number, number=self._ticks)
        sealed = envelope.seal(tick, f"tick-{self._number}", self._shared.signer, self._settings.realm, source="core")
        crashpoints.reached("core.tick.1-due")
        await self._shared.speaker.say(self._names.of(topics.TICKS), self._number, sealed)
        crashpoints.reached("core.tick.2-said")
