"""What was done under which grant: written before it is done, read again before anything else is done (law 4).

`Ledger` is what the entries of one partition say; it is filled by reading `journal.<executor>` and by nothing else,
so that one process and the next have the same. An entry that cannot be trusted bars its intent: never a second act.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from executors.errors import PartitionsError
from schemas import envelope, ids, topics
from schemas.authority import Authority
from schemas.envelope import EnvelopeError
from schemas.ids import IntentIdError
from schemas.partition import partition_of
from schemas.record import RecordError, Statement
from schemas.records import JournalEntry, Outcome, Result
from schemas.signing import Signer
from streams import connection, reading
from streams.errors import LostPositionError
from streams.producing import Speaker
from streams.settings import Settings

log = logging.getLogger("keyturn.executor")

FETCH_WAIT_MS: Final = 20
LONGEST_LIFE_MS: Final = 30 * 24 * 60 * 60 * 1000
"""No intent's `ttl` is longer (`schemas.record.Seconds`)."""
REMEMBERED_MS: Final = ids.WINDOW_BEFORE_MS + LONGEST_LIFE_MS + ids.FORGET_MARGIN_MS
"""An id whose time is this long ago was taken in within the window or never, and has outlived its `ttl` since."""


# ---------------------------------------------------------------- the ledger (pure)


@dataclass(slots=True)
class Use:
    """What the journal says of one grant."""

    grant: str
    question: str | None = None
    #: How the act ended, as it was signed. None: it runs, or nobody knows.
    outcome: Statement | None = None
    result: Result | None = None
    #: What observers said, by the `unknown` they answered.
    observed: dict[str, Statement] = field(default_factory=dict)
    #: Kept while somebody may still have to observe.
    entries: list[JournalEntry] = field(default_factory=list)
    is_settled: bool = False


class Ledger:
    """Which intents were used, under which question and grant, and how it ended."""

    def __init__(self) -> None:
        """Empty."""
        self._uses: dict[str, dict[str, Use]] = {}
        self._barred: set[str] = set()
        #: The latest log time that was read: the ledger's only clock.
        self._now = 0
        #: (id's time, id) of every intent here that may be forgotten one day, oldest first.
        self._old: list[tuple[int, str]] = []

    def note(self, entry: JournalEntry, log_time: int) -> None:
        """Take one entry, in the journal's order. RecordError, nothing taken, when its outcome cannot be read.

        Forgets what `log_time` shows to be too old.
        """
        try:
            at = ids.split(entry.intent)[1]
        except IntentIdError as exc:
            raise RecordError(str(exc)) from exc
        outcome = entry.outcome.read(Outcome) if entry.outcome is not None else None
        if (entry.entry == "ended") != (outcome is not None):
            raise RecordError("`ended`, and only that, carries an outcome")
        if outcome is not None and (outcome.intent != entry.intent or outcome.grant != entry.grant):
            raise RecordError("the outcome of another grant")
        if self._is_too_old(at) or (entry.intent not in self._uses and entry.intent not in self._barred):
            # What was open when its time came is looked at again.
            heapq.heappush(self._old, (at, entry.intent))
        use = self._uses.setdefault(entry.intent, {}).setdefault(entry.grant, Use(entry.grant))
        self._take(use, entry, outcome)
        self._forget(log_time)

    def _take(self, use: Use, entry: JournalEntry, outcome: Outcome | None) -> None:
        if entry.entry == "used":
            use.question = str(entry.detail.get("question"))
        if outcome is None:
            if not use.is_settled:
                use.entries.append(entry)
            return
        if entry.outcome is not None and outcome.observed:
            use.observed.setdefault(outcome.unknown or "", entry.outcome)
        elif use.outcome is None:
            # The first word is the one that was said, or will be: the same bytes each time.
            use.outcome, use.result = entry.outcome, outcome.result
        if outcome.result is not Result.UNKNOWN:
            use.is_settled = True
            use.entries.clear()

    def bar(self, intent: str, log_time: int) -> None:
        """An entry about this intent cannot be trusted: it may never be acted upon (law 6)."""
        self._forget(log_time)
        try:
            at = ids.split(intent)[1]
        except IntentIdError:
            return  # No intent has this name: there is nothing to bar.
        if intent not in self._uses and intent not in self._barred:
            heapq.heappush(self._old, (at, intent))
        self._barred.add(intent)

    @property
    def remembered(self) -> int:
        """How many intents it holds."""
        return len(self._uses.keys() | self._barred)

    def _forget(self, log_time: int) -> None:
        """Drop what is older than any intent that can still be acted upon. An `unknown`, or an open use, never."""
        self._now = max(self._now, log_time)
        while self._old and self._is_too_old(self._old[0][0]):
            _, intent = heapq.heappop(self._old)
            self._barred.discard(intent)
            if all(use.is_settled for use in self._uses.get(intent, {}).values()):
                self._uses.pop(intent, None)

    def _is_too_old(self, at: int) -> bool:
        return at < self._now - REMEMBERED_MS

    def use(self, intent: str, grant: str) -> Use | None:
        """What is known of a grant."""
        return self._uses.get(intent, {}).get(grant)

    def spent(self, intent: str, question: str) -> str | None:
        """Why this intent may not be acted upon under a new grant of this question; None when it may.

        Only an act that ended `stale`, nothing done, leaves room for another, and only under another question.
        """
        # Forgotten or never heard of: nothing that old may be acted upon (law 4).
        if self._is_too_old(ids.split(intent)[1]):
            newest = f"the journal's newest entry is of {self._now} ms"
            return f"its id is older than the ledger remembers; {newest}: if that is not now, compare the clocks"
        if intent in self._barred:
            return "the journal holds an entry about this intent that cannot be trusted"
        for use in self._uses.get(intent, {}).values():
            if use.question == question:
                return f"used before under this question, by grant {use.grant[:12]}"
            if use.result is not Result.STALE:
                how = use.result.value if use.result is not None else "open"
                return f"used before, by grant {use.grant[:12]}, which is {how}"
        return None


# ---------------------------------------------------------------- the journal on Kafka


class Journal:
    """Writes entries, and keeps a ledger of each partition it was asked about."""

    def __init__(
        self, settings: Settings, executor: str, signer: Signer, speaker: Speaker, authority: Callable[[], Authority]
    ) -> None:
        """Not started: `async with`. `authority` is asked for each entry that is read."""
        self._settings = settings
        self._executor = executor
        self._signer = signer
        self._speaker = speaker
        self._authority = authority
        self._topic = settings.names.of(topics.JOURNAL, executor)
        self._consumer: AIOKafkaConsumer = connection.reader(settings, fetch_max_wait_ms=FETCH_WAIT_MS)
        self._reading = asyncio.Lock()
        self._readings: dict[int, asyncio.Future[Ledger]] = {}
        self._positions: dict[int, int] = {}
        self._ledgers: dict[int, Ledger] = {}
        self._partitions = 0

    async def __aenter__(self) -> Self:
        await connection.start(self._consumer, self._settings)
        try:
            found = await connection.require_partitions(self._consumer, [self._topic])
        except BaseException:
            await self._consumer.stop()
            raise
        self._partitions = found[self._topic]
        return self

    async def __aexit__(self, *_: object) -> None:
        for reading_up in self._readings.values():
            reading_up.cancel()
        await self._consumer.stop()

    @property
    def partitions(self) -> int:
        """How many partitions the journal has."""
        return self._partitions

    async def write(self, requester: str, entry: JournalEntry) -> None:
        """When this returns the entry is durable (acks=all)."""
        sealed = envelope.seal(
            entry, entry.intent, self._signer, self._settings.realm, source=f"executor-{self._executor}"
        )
        await self._speaker.say(self._topic, partition_of(requester, self._partitions), sealed)

    async def caught_up(self, partition: int) -> Ledger:
        """The ledger with everything that was durable before this call."""
        if not 0 <= partition < self._partitions:
            raise PartitionsError(f"{self._topic} has no partition {partition}")
        reading_up = self._readings.get(partition)
        if reading_up is None:
            reading_up = self._readings[partition] = asyncio.ensure_future(self._read_up(partition))
            # Its failure is each waiting caller's to raise; when all are gone it is nobody's.
            reading_up.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(reading_up)

    async def _read_up(self, partition: int) -> Ledger:
        """One reading for all who called before it began: a ledger read later holds all that was durable at a call."""
        async with self._reading:
            del self._readings[partition]
            if partition not in self._ledgers:
                await self._take_up(partition)
            place = TopicPartition(self._topic, partition)
            end = (await self._consumer.end_offsets([place]))[place]
            if end < self._positions[partition]:
                raise LostPositionError(f"{self._topic}/{partition}: the journal was cut or replaced; investigate")
            if end > self._positions[partition]:
                self._consumer.resume(place)
                async for _, record in reading.read_to_end(self._consumer, {place: end}):
                    self._take(record)
                self._consumer.pause(place)
                self._positions[partition] = end
            return self._ledgers[partition]

    async def keep(self, partitions: Iterable[int]) -> None:
        """Forget every other partition: somebody else writes there now."""
        async with self._reading:
            for lost in self._ledgers.keys() - set(partitions):
                del self._ledgers[lost], self._positions[lost]
            self._assign()

    async def _take_up(self, partition: int) -> None:
        place = TopicPartition(self._topic, partition)
        self._positions[partition] = (await self._consumer.beginning_offsets([place]))[place]
        self._ledgers[partition] = Ledger()
        self._assign()

    def _assign(self) -> None:
        """The client forgets positions with every assignment; ours are the truth."""
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in self._positions])
        for partition, position in self._positions.items():
            place = TopicPartition(self._topic, partition)
            self._consumer.seek(place, position)
            # Read only when asked: the question for the end would wait behind a fetch that waits for nothing.
            self._consumer.pause(place)

    def _take(self, record: ConsumerRecord) -> None:
        ledger = self._ledgers[record.partition]
        try:
            statement = envelope.unseal(record.headers, record.value, (JournalEntry,))
            self._require_own(statement, record.timestamp)
            ledger.note(statement.read(JournalEntry), record.timestamp)
        except (EnvelopeError, RecordError) as exc:
            intent = (record.key or b"").decode("ascii", "replace")
            ledger.bar(intent, record.timestamp)
            log.critical(
                "journal entry not trusted; its intent is barred",
                extra={"intent_id": intent, "partition": record.partition, "offset": record.offset, "reason": str(exc)},
            )

    def _require_own(self, statement: Statement, log_time: int) -> None:
        authority = self._authority()
        refusal = authority.refuses(statement, log_time)
        key = authority.key(statement.keyid)
        if refusal is not None or key is None or key.holder != self._executor:
            raise RecordError(f"not signed by the executor {self._executor}")
