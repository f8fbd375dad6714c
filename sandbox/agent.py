"""An agent of the sandbox: asks, takes back, and hears what became of it, with an agent's own rights on Kafka.

It is what any agent can do with a Kafka client and a key: sign, write to `intents`, read `status`.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Self

from aiokafka import TopicPartition

from schemas import envelope, ids, topics
from schemas.partition import partition_of
from schemas.record import Record
from schemas.records import (
    Action,
    Context,
    Intent,
    IntentStatus,
    Phase,
    Property,
    Resource,
    Source,
    Subject,
    Withdrawal,
)
from streams import connection, reading
from streams.producing import Speaker
from streams.settings import Settings

PATIENCE_SECONDS: Final = 60.0


class PatienceError(Exception):
    """What was waited for did not happen in time; the text says what happened instead."""


class SandboxAgent:
    """One agent with a key. `async with`."""

    def __init__(
        self, settings: Settings, name: str, clock: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        """`settings`: of the role `agent-<name>`; `clock` gives Unix milliseconds."""
        self.name = name
        self._settings = settings
        self._signer = settings.signer()
        self._clock = clock
        self._entropy = entropy
        self._speaker = Speaker(settings)
        self._reader = connection.reader(settings)
        self._place: TopicPartition | None = None
        self._status: dict[str, IntentStatus] = {}
        self._history: dict[str, list[Phase]] = {}

    async def __aenter__(self) -> Self:
        await self._speaker.__aenter__()
        await connection.start(self._reader, self._settings)
        topic = self._settings.names.of(topics.STATUS)
        partitions = (await connection.require_partitions(self._reader, [topic]))[topic]
        self._place = TopicPartition(topic, partition_of(self.name, partitions))
        await reading.assign_from_start(self._reader, [self._place])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()
        await self._speaker.__aexit__()

    def intent(
        self,
        action: str,
        resource: tuple[str, str],
        properties: Mapping[str, Property],
        reason: str,
        ttl: int,
        on_behalf_of: str | None = None,
    ) -> Intent:
        """An intent of this agent, with a fresh id."""
        return Intent(
            id=ids.intent_id(self.name, self._clock(), self._entropy(ids.ENTROPY_BYTES)),
            subject=Subject(type="agent", id=self.name),
            action=Action(name=action, properties=dict(properties)),
            resource=Resource(type=resource[0], id=resource[1]),
            context=Context(reason=reason, on_behalf_of=on_behalf_of),
            ttl=ttl,
        )

    async def submit(self, intent: Intent) -> Source:
        """Sign the intent and write it to `intents`."""
        return await self._say(intent, intent.id)

    async def withdraw(self, intent_id: str, reason: str | None = None) -> Source:
        """Take an intent back."""
        by = Subject(type="agent", id=self.name)
        return await self._say(Withdrawal(intent=intent_id, by=by, reason=reason), intent_id)

    async def status(self, intent_id: str) -> IntentStatus | None:
        """The newest status of an intent that has reached Kafka."""
        await self._catch_up()
        return self._status.get(intent_id)

    async def until(self, intent_id: str, *phases: Phase, within: float = PATIENCE_SECONDS) -> IntentStatus:
        """Wait until the intent is in one of these phases. PatienceError says where it is instead."""
        wanted = set(phases)
        found: IntentStatus | None = None
        try:
            async with asyncio.timeout(within):
                while (found := await self.status(intent_id)) is None or found.phase not in wanted:
                    pass  # each round waits for Kafka
        except TimeoutError as exc:
            where = f"{found.phase.value} ({found.reason or 'no reason'})" if found else "nowhere"
            names = ", ".join(phase.value for phase in phases)
            raise PatienceError(f"{intent_id}: not {names} within {within:.0f} s but {where}") from exc
        return found

    async def history(self, intent_id: str) -> tuple[Phase, ...]:
        """Every phase this agent has seen the intent in, in order, repeats left out."""
        await self._catch_up()
        return tuple(self._history.get(intent_id, ()))

    async def _say(self, record: Record, key: str) -> Source:
        topic = self._settings.names.of(topics.INTENTS)
        sealed = envelope.seal(record, key, self._signer, self._settings.realm, source=self.name)
        partition = partition_of(self.name, await self._speaker.partitions(topic))
        return await self._speaker.say(topic, partition, sealed)

    async def _catch_up(self) -> None:
        batch = await self._reader.getmany(timeout_ms=100)
        for records in batch.values():
            for record in records:
                if record.value is None:
                    continue
                status = IntentStatus.from_bytes(record.value)
                self._status[status.intent] = status
                seen = self._history.setdefault(status.intent, [])
                if not seen or seen[-1] is not status.phase:
                    seen.append(status.phase)
