"""A real Kafka with one executor's topics, and a core that says what the test tells it to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from executors import process
from executors.contract import Executor, Plugin
from schemas import envelope, topics
from schemas.partition import partition_of
from schemas.record import Record, Statement
from schemas.records import (
    ApprovedIntent,
    Claim,
    Grant,
    JournalEntry,
    Outcome,
    OutcomeUnknown,
    PlanRequest,
    Quarantined,
    Source,
    Versions,
)
from schemas.signing import PrivateKeySigner
from streams import access, connection, reading
from streams.cluster import Cluster, GroupIsLiveError
from streams.health import Health
from streams.producing import Speaker
from streams.realm import RealmFolder
from streams.settings import Settings
from tests.executors.builders import EXECUTOR, Life, wish
from tests.executors.lamp import LAMP, Lamp

PARTITIONS = 2
SECONDS = 90
R = TypeVar("R", bound=Record)


def now() -> int:
    """This machine's clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Heard:
    """One record as it lies on Kafka."""

    record: ConsumerRecord
    statement: Statement


@dataclass
class Claimed:
    """A claim: whose, and where it stands."""

    instance: str
    source: Source


@dataclass
class Core:
    """Writes what the core would, in transactions; hears what the executor reports."""

    folder: RealmFolder
    settings: Settings
    #: The super user's.
    master: Settings
    producer: AIOKafkaProducer
    ears: AIOKafkaConsumer
    versions: Versions
    numbers: dict[str, int] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    wishes: int = 0

    @property
    def partition(self) -> int:
        """Where everything about the bot is."""
        return partition_of("bot", PARTITIONS)

    def key(self, role: str) -> PrivateKeySigner:
        """The key of a role."""
        return self.folder.signer(role)

    def life(self, to: str = "on", **changed: object) -> Life:
        """A new intent of the bot, asked now."""
        self.wishes += 1
        at = now()
        life = Life(
            intent=wish(at, self.wishes, to=to),
            at=at,
            realm=self.settings.realm,
            cited=self.versions,
            intent_by=self.key("agent-bot"),
            intake=self.key("intake"),
            executor=self.key("executor-lamp"),
            core=self.key("core"),
            notifier=self.key("notifier-api"),
        )
        return life.but(**changed)

    async def say(
        self,
        topic: topics.Topic,
        intent_id: str,
        record: Record,
        *,
        by: PrivateKeySigner | None = None,
        number: int | None = None,
        partition: int | None = None,
    ) -> Statement:
        """One record of the core, in a transaction of its own; `by` and `number` only to forge one."""
        name = self.settings.names.of(topic, EXECUTOR)
        if number is None:
            number = self.numbers.get(name, 0)
            if by is None:
                self.numbers[name] = number + 1
        at = self.partition if partition is None else partition
        sealed = envelope.seal(
            record, intent_id, by or self.key("core"), self.settings.realm, source="core", number=number
        )
        async with self.producer.transaction():
            await self.producer.send_and_wait(
                name, sealed.value, key=sealed.key, partition=at, headers=list(sealed.headers)
            )
        return envelope.unseal(sealed.headers, sealed.value, (type(record),))

    def lose_a_word(self) -> None:
        """One that the executor should have heard is not there."""
        name = self.settings.names.of(topics.APPROVED, EXECUTOR)
        self.numbers[name] += 1

    async def ask_for_plan(self, life: Life, expires_in_ms: int = 60_000) -> None:
        """Please plan."""
        asked = PlanRequest(round=life.round, classified=life.classified, expires_at=now() + expires_in_ms)
        await self.say(topics.PLANNING, life.intent.id, asked)

    async def say_approved(self, life: Life) -> None:
        """It may be claimed."""
        approved = ApprovedIntent(
            intent=life.intent.id,
            question=life.question.digest,
            executor=EXECUTOR,
            approved_until=now() + 60_000,
        )
        await self.say(topics.APPROVED, life.intent.id, approved)

    async def approve(self, life: Life) -> Claimed:
        """It may be claimed; the claim that comes."""
        before = len(self.heard)
        await self.say_approved(life)
        return await self.hears_claim(life, after=before)

    async def hears_claim(self, life: Life, after: int = 0) -> Claimed:
        """The next claim to this intent."""
        heard = await self.hears_signed(Claim, life, after)
        source = Source(topic="reports", partition=heard.record.partition, offset=heard.record.offset)
        return Claimed(heard.statement.read(Claim).instance, source)

    def granting(self, life: Life, claim: Claimed, **changed: object) -> Grant:
        """A true grant to whoever claimed."""
        made = life.grant(
            life.yes("grace", at=now()),
            at=now(),
            instance=claim.instance,
            claim=claim.source,
            versions=self.versions,
        )
        return made.model_copy(update=changed)

    async def grant(self, life: Life, claim: Claimed, **changed: object) -> Grant:
        """Grant the claim."""
        made = self.granting(life, claim, **changed)
        await self.say(topics.APPROVED, life.intent.id, made)
        return made

    async def say_unknown(self, grant: Grant) -> Statement:
        """Lease and settle time are over."""
        said = OutcomeUnknown(intent=grant.question.intent_id, grant=grant, since=now())
        return await self.say(topics.APPROVED, grant.question.intent_id, said)

    async def hears(self, kind: type[R], life: Life, after: int = 0) -> R:
        """The next report of this type about this intent."""
        return (await self.hears_signed(kind, life, after)).statement.read(kind)

    async def hears_signed(self, kind: type[Record], life: Life, after: int = 0) -> Heard:
        """The same, as it was signed."""
        async with asyncio.timeout(SECONDS):
            while True:
                for heard in self.heard[after:]:
                    if heard.statement.type == kind.TYPE and heard.record.key == life.intent.id.encode():
                        return heard
                await self._listen()

    async def _listen(self) -> None:
        for records in (await self.ears.getmany(timeout_ms=200)).values():
            for record in records:
                statement = envelope.unseal(record.headers, record.value, topics.REPORTS.types)
                self.heard.append(Heard(record, statement))

    def outcomes(self, life: Life) -> list[bytes]:
        """Every outcome said so far, byte for byte with its signature."""
        return [
            heard.statement.value + heard.statement.sig.encode()
            for heard in self.heard
            if heard.statement.type == Outcome.TYPE and heard.record.key == life.intent.id.encode()
        ]

    async def journal(self, life: Life) -> list[JournalEntry]:
        """What the executor wrote about this intent."""
        name = self.settings.names.of(topics.JOURNAL, EXECUTOR)
        found = [record for record in await self._read("executor-lamp", name) if record.key == life.intent.id.encode()]
        return [JournalEntry.from_bytes(record.value) for record in found]

    async def write_in_journal(self, entry: JournalEntry, by: PrivateKeySigner) -> None:
        """As an earlier process, or a forger, would have done."""
        settings = self.folder.settings("executor-lamp")
        sealed = envelope.seal(entry, entry.intent, by, settings.realm, source="executor-lamp")
        async with Speaker(settings) as speaker:
            await speaker.say(settings.names.of(topics.JOURNAL, EXECUTOR), self.partition, sealed)

    async def quarantined(self) -> list[Quarantined]:
        """Everything the executor put aside."""
        name = self.settings.names.of(topics.QUARANTINE)
        return [Quarantined.from_bytes(record.value) for record in await self._read("intake", name)]

    async def set_back(self, offset: int) -> None:
        """As an administrator does: the executors of this group go on there, once nobody is in it any more."""
        group = access.group_of(self.settings.names, f"executor-{EXECUTOR}")
        approved = self.settings.names.of(topics.APPROVED, EXECUTOR)
        async with Cluster(self.master) as cluster, asyncio.timeout(SECONDS):
            while True:
                try:
                    return await cluster.commit(group, approved, {self.partition: offset})
                except GroupIsLiveError:
                    await asyncio.sleep(0.2)

    async def _read(self, role: str, topic: str) -> list[Any]:
        settings = self.folder.settings(role)
        consumer = connection.reader(settings)
        await connection.start(consumer, settings)
        try:
            ends = await reading.assign_from_start(consumer, connection.places(topic, PARTITIONS))
            return [record async for _, record in reading.read_to_end(consumer, ends)]
        finally:
            await consumer.stop()


@contextlib.asynccontextmanager
async def core_of(folder: Path, master: Settings, versions: Versions) -> AsyncIterator[Core]:
    """The scripted core."""
    home = RealmFolder(folder)
    settings = home.settings("core")
    producer = connection.producer(settings, transactional_id=f"{settings.prefix}core-0")
    ears = connection.reader(settings)
    await connection.start(producer, settings)
    await connection.start(ears, settings)
    try:
        reports = settings.names.of(topics.REPORTS)
        await connection.require_partitions(ears, [reports])
        places = connection.places(reports, PARTITIONS)
        ears.assign(places)
        for place, end in (await ears.end_offsets(places)).items():
            ears.seek(place, end)
        yield Core(home, settings, master, producer, ears, versions)
    finally:
        await ears.stop()
        await producer.stop()


@dataclass
class Process:
    """One life of an executor's process."""

    lamp: Lamp
    task: "asyncio.Task[None]"
    stop: asyncio.Event
    health: Health

    async def ready(self) -> None:
        """It serves."""
        async with asyncio.timeout(SECONDS):
            while not self.health.is_ready:
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.02)

    async def stopping(self) -> None:
        """It takes nothing new any more."""
        async with asyncio.timeout(SECONDS):
            while self.health.is_ready:  # noqa: ASYNC110  no event is set for it
                await asyncio.sleep(0.02)

    async def dies(self) -> None:
        """As by a kill: nothing is finished, nothing said."""
        self.task.cancel()
        await asyncio.wait({self.task})

    async def ends(self) -> None:
        """As by SIGTERM."""
        self.stop.set()
        async with asyncio.timeout(SECONDS):
            await self.task


@contextlib.asynccontextmanager
async def running(
    core: Core, lamp: Lamp | None = None, changed: Mapping[str, object] | None = None, **own: str
) -> AsyncIterator[Process]:
    """An executor's process: composed as in production, with a lamp for a plugin."""
    plugin = lamp or Lamp()

    async def opened(_: object) -> Executor:
        return plugin

    settings = core.folder.settings("executor-lamp").model_copy(update=changed)
    environ = {f"KEYTURN_EXECUTOR_{name.upper()}": text for name, text in own.items()}
    health, stop = Health(0), asyncio.Event()
    task = asyncio.create_task(process.serve(Plugin(LAMP, opened), settings, health, stop, environ))
    made = Process(plugin, task, stop, health)
    try:
        yield made
    finally:
        await made.dies()
