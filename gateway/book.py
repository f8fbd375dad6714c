"""The gateway's book: follows what the log says of every intent, and writes what its callers say. The port to Kafka.

Whatever ends the following ends the process: a gateway that no longer hears of changes must not answer.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from gateway.ledger import KEPT_MS, Asked, Known, Ledger, Marks
from schemas import envelope, ids
from schemas.partition import partition_of
from schemas.record import Statement
from schemas.records import Intent, Source
from schemas.signing import Signer
from schemas.topics import INTENTS, PENDING, QUARANTINE
from schemas.world import World
from streams import connection, crashpoints, reading
from streams.producing import Speaker
from streams.rows import Held
from streams.sayings import Sayings
from streams.settings import Settings
from streams.worlds import WorldView

log = logging.getLogger("keyturn.gateway")

SOURCE: Final = "gateway"
FORGET_EVERY_MS: Final = 60_000


class Changes:
    """Tells whoever watches a requester which of its intents changed. A slow watcher holds ids, not a history."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[Watcher]] = {}
        self._is_closed = False

    def tell(self, intent_id: str) -> None:
        """This one changed."""
        for watcher in self._watchers.get(ids.requester_of(intent_id), ()):
            watcher.tell(intent_id)

    def close(self) -> None:
        """Nothing will change any more here: every watcher ends."""
        self._is_closed = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.close()

    @contextmanager
    def watch(self, requester: str) -> Iterator["Watcher"]:
        """What changes from the moment of entering."""
        watcher = Watcher()
        if self._is_closed:
            watcher.close()
        self._watchers.setdefault(requester, set()).add(watcher)
        try:
            yield watcher
        finally:
            self._watchers[requester].discard(watcher)
            if not self._watchers[requester]:
                del self._watchers[requester]


class Watcher:
    """Collects the ids that changed since they were last taken."""

    def __init__(self) -> None:
        self._changed: dict[str, None] = {}
        self._is_told = asyncio.Event()
        self.is_closed = False

    def tell(self, intent_id: str) -> None:
        """This one changed."""
        self._changed[intent_id] = None
        self._is_told.set()

    def close(self) -> None:
        """Nothing more will come."""
        self.is_closed = True
        self._is_told.set()

    async def taken(self) -> tuple[str, ...]:
        """What changed; waits until something did. Nothing: it is closed."""
        await self._is_told.wait()
        if not self.is_closed:
            self._is_told.clear()
        changed, self._changed = tuple(self._changed), {}
        return changed

    async def until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Returns when it holds, when the time is over, or when nothing more will come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not holds() and not self.is_closed:
                    await self.taken()


@dataclass(frozen=True, slots=True)
class Entry:
    """One intent as the book has it."""

    known: Known
    held: Held | None


class Book(Protocol):
    """What the doors need. Everything but `say` answers from memory."""

    @property
    def world(self) -> World:
        """Directory, roster, policies and manifests in force, as far as this process has read."""
        ...

    @property
    def signer(self) -> Signer:
        """The gateway's own key."""
        ...

    def entry(self, intent_id: str) -> Entry:
        """What is known of an intent. UnreadableError when it has a row whose bytes are no row."""
        ...

    def known(self, intent_id: str) -> Known:
        """The same without reading its row."""
        ...

    def ids_of(self, requester: str) -> Iterator[str]:
        """Every intent of this requester, in no order."""
        ...

    def read_to(self, requester: str) -> Marks:
        """How far the log was read where this requester's intents lie."""
        ...

    def place_of(self, requester: str) -> int:
        """The partition where they lie."""
        ...

    async def say(self, statement: Statement, intent_id: str) -> Source:
        """Put a signed record on `intents`, byte for byte. When this returns it is durable, at this place.

        Raises NotRecordedError when it may not be there.
        """
        ...

    def watch(self, requester: str) -> AbstractContextManager[Watcher]:
        """What changes from here on."""
        ...


class KafkaBook:
    """The book over Kafka. `async with`: when entered, everything committed before is known."""

    def __init__(self, settings: Settings, clock: Callable[[], int]) -> None:
        """`clock`: Unix milliseconds; decides how far back to read, and what may be forgotten."""
        self._settings = settings
        self._clock = clock
        self._signer = settings.signer()
        names = settings.names
        self._intents, self._pending, self._quarantine = (names.of(t) for t in (INTENTS, PENDING, QUARANTINE))
        self._speaker = Speaker(settings)
        self._worlds = WorldView(settings)
        self._consumer: AIOKafkaConsumer = connection.reader(settings)
        self._ledger = Ledger()
        self._changes = Changes()
        self._sayings = Sayings()
        self._partitions = 0
        self._forgot_at = 0
        self._following: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._worlds)
            await stack.enter_async_context(self._speaker)
            await connection.start(self._consumer, self._settings)
            stack.push_async_callback(self._consumer.stop)
            await self._read()
            self._following = asyncio.create_task(self._follow(), name="book")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self._stack.aclose()

    async def _read(self) -> None:
        """Rows first: what has a row needs no other record."""
        topics = (self._pending, self._intents, self._quarantine)
        counts = await connection.require_partitions(self._consumer, topics)
        self._partitions = counts[self._pending]
        pending, intents, quarantine = (connection.places(topic, counts[topic]) for topic in topics)
        late = [*intents, *quarantine]
        starts = dict(await self._consumer.beginning_offsets(pending)) | await self._since(late)
        ends = dict(await self._consumer.end_offsets([*pending, *late]))
        reading.assign_at(self._consumer, starts)
        self._consumer.pause(*late)
        async for _, record in reading.read_to_end(self._consumer, {place: ends[place] for place in pending}):
            self._take(record)
        self._consumer.resume(*late)
        async for _, record in reading.read_to_end(self._consumer, {place: ends[place] for place in late}):
            self._take(record)

    async def _since(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the id window begins: what is older has an answer, or gets none."""
        since = max(0, self._clock() - KEPT_MS)
        found = await self._consumer.offsets_for_times(dict.fromkeys(places, since))
        ends = await self._consumer.end_offsets(places)
        return {place: at.offset if (at := found[place]) is not None else ends[place] for place in places}

    @property
    def world(self) -> World:
        """What is in force."""
        return self._worlds.world

    @property
    def signer(self) -> Signer:
        """The gateway's key."""
        return self._signer

    def entry(self, intent_id: str) -> Entry:
        """What is known of an intent."""
        return Entry(self._ledger.known(intent_id), self._ledger.row(intent_id, self.world))

    def known(self, intent_id: str) -> Known:
        """The same without reading its row."""
        return self._ledger.known(intent_id)

    def ids_of(self, requester: str) -> Iterator[str]:
        """Every intent of this requester."""
        return self._ledger.ids_of(requester)

    def place_of(self, requester: str) -> int:
        """Its partition."""
        return partition_of(requester, self._partitions)

    def read_to(self, requester: str) -> Marks:
        """How far its partition was read."""
        return self._ledger.read_to(self.place_of(requester))

    def watch(self, requester: str) -> AbstractContextManager[Watcher]:
        """What changes from here on."""
        return self._changes.watch(requester)

    async def say(self, statement: Statement, intent_id: str) -> Source:
        """Put a signed record on `intents`."""
        return await self._sayings.once(statement.digest, lambda: self._send(statement, intent_id))

    async def _send(self, statement: Statement, intent_id: str) -> Source:
        sealed = envelope.reseal(statement, intent_id, self._settings.realm, source=SOURCE)
        crashpoints.reached("gateway.2-sealed")
        said = await self._speaker.say(self._intents, self.place_of(ids.requester_of(intent_id)), sealed)
        crashpoints.reached("gateway.3-said")
        # What we said ourselves is known at once: whoever was told "accepted" may ask for it the next moment.
        if statement.type == Intent.TYPE and self._ledger.ask(intent_id, Asked(statement, said, self._clock())):
            self._changes.tell(intent_id)
        return said

    def close(self) -> None:
        """End every watcher."""
        self._changes.close()

    async def ended(self) -> None:
        """Waits until the book cannot go on; raises why."""
        if self._following is None:
            raise RuntimeError("not entered")
        failing = asyncio.ensure_future(self._sayings.failed())
        done, _ = await asyncio.wait({self._following, failing}, return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        for one in done:
            if not one.cancelled():
                one.result()

    async def _follow(self) -> None:
        while True:
            batch = await self._consumer.getmany(timeout_ms=reading.POLL_MS)
            self._worlds.require_alive()
            for records in batch.values():
                for record in records:
                    if (intent_id := self._take(record)) is not None:
                        self._changes.tell(intent_id)
            self._forget()

    def _take(self, record: ConsumerRecord) -> str | None:
        if record.topic == self._pending:
            return self._ledger.take_row(record)
        if record.topic == self._intents:
            return self._ledger.take_intent(record, self.world)
        return self._ledger.take_quarantined(record, self.world)

    def _forget(self) -> None:
        now = self._clock()
        if now - self._forgot_at >= FORGET_EVERY_MS:
            self._forgot_at = now
            self._ledger.forget_before(now - KEPT_MS)
