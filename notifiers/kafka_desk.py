"""The desk over Kafka: follows `pending` and the live documents, writes signed words to `decisions`.

Rows are kept as the bytes that Kafka holds; they are verified and decoded when touched. Whatever ends the following
ends the process: a desk that no longer hears of changes must not answer.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Final, Self

from aiokafka import TopicPartition

from notifiers.desk import Changes, Word
from schemas import envelope, ids
from schemas.partition import partition_of
from schemas.records import Phase, Source
from schemas.topics import DECISIONS, PENDING
from schemas.world import World
from streams import connection, crashpoints, reading
from streams.producing import Speaker
from streams.rows import Held, Listed, Rows
from streams.sayings import Sayings
from streams.settings import Settings
from streams.worlds import WorldView

log = logging.getLogger("keyturn.desk")

SOURCE: Final = "notifier-{channel}"


class KafkaDesk:
    """The desk of one notifier. `async with`: when entered, everything committed before is known."""

    def __init__(self, settings: Settings, channel: str) -> None:
        """`channel`: whose desk it is, for the records' source."""
        self._settings = settings
        self._signer = settings.signer()
        self._source = SOURCE.format(channel=channel)
        self._decisions = settings.names.of(DECISIONS)
        self._pending = settings.names.of(PENDING)
        self._speaker = Speaker(settings)
        self._worlds = WorldView(settings)
        self._consumer = connection.reader(settings)
        self._rows = Rows()
        self._changes = Changes()
        self._partitions = 0
        self._following: asyncio.Task[None] | None = None
        self._sayings = Sayings()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._worlds)
            await stack.enter_async_context(self._speaker)
            await connection.start(self._consumer, self._settings)
            stack.push_async_callback(self._consumer.stop)
            found = await connection.require_partitions(self._consumer, [self._pending])
            self._partitions = found[self._pending]
            places = [TopicPartition(self._pending, number) for number in range(self._partitions)]
            ends = await reading.assign_from_start(self._consumer, places)
            async for _, record in reading.read_to_end(self._consumer, ends):
                self._rows.take(record)
            self._following = asyncio.create_task(self._follow(), name="pending")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self._stack.aclose()

    @property
    def world(self) -> World:
        """What is in force."""
        return self._worlds.world

    @property
    def keyid(self) -> str:
        """This notifier's key."""
        return self._signer.keyid

    def row(self, intent_id: str) -> Held | None:
        """The newest row of this intent."""
        return self._rows.row(intent_id, self.world)

    def listed(self, phases: frozenset[Phase]) -> Iterator[Listed]:
        """The rows in these phases."""
        return self._rows.listed(phases)

    def watch(self) -> AbstractContextManager[AsyncIterator[str]]:
        """What changes from here on."""
        return self._changes.watch()

    async def say(self, word: Word) -> Source:
        """Put a signed word on `decisions`, `acks=all`."""
        return await self._sayings.once(word.digest, lambda: self._send(word))

    async def _send(self, word: Word) -> Source:
        partition = partition_of(ids.requester_of(word.intent), self._partitions)
        sealed = envelope.seal(word, word.intent, self._signer, self._settings.realm, source=self._source)
        crashpoints.reached("notifier.word.1-signed")
        said = await self._speaker.say(self._decisions, partition, sealed)
        crashpoints.reached("notifier.word.2-said")
        # As the core names its inputs: without the installation's prefix.
        return Source(topic=DECISIONS.name, partition=said.partition, offset=said.offset)

    def close(self) -> None:
        """End every watcher."""
        self._changes.close()

    async def ended(self) -> None:
        """Waits until the desk cannot go on; raises why."""
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
                    if (intent_id := self._rows.take(record)) is not None:
                        crashpoints.reached("notifier.rows.1-heard")
                        self._changes.tell(intent_id)
