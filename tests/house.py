"""A provisioned realm on a real Kafka, with its documents in force, and everybody's voice in it.

The people, keys and policies are those of `tests.broker.builders`; what the roles write is planted with a super user's
rights, so that a test can also say what no role may.
"""

import asyncio
import hashlib
import itertools
import json
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, Self

import pytest
import pytest_asyncio
from aiokafka import ConsumerRecord, TopicPartition
from confluent_kafka.admin import AclBindingFilter, AdminClient  # type: ignore[attr-defined]

from sandbox import asking
from sandbox.kafka import KafkaAddress
from sandbox.roles import environment, keyturn
from schemas import envelope, topics
from schemas.envelope import Sealed
from schemas.partition import partition_of
from schemas.record import Record, Statement, state
from schemas.records import (
    AuditRecord,
    ClassifiedIntent,
    Intent,
    PendingApproval,
    Progress,
    Quarantined,
    Source,
    Subject,
    Withdrawal,
)
from schemas.snapshots import Agent, Directory, Policies, Snapshot
from schemas.topics import PROGRESS_KEY, Topic
from schemas.world import World
from streams import access, cluster, connection, reading
from streams.administration import Admin, provision, settings_of
from streams.producing import Speaker
from streams.realm import Realm, RealmFolder, lay_out
from streams.settings import Settings
from tests.broker import builders
from tests.broker.builders import an_intent, classified_of, key, signer

PARTITIONS: Final = 2
BOTS: Final = tuple(f"bot{number}" for number in range(4))
OPEN_AT_MOST: Final = 5000
SECONDS: Final = 120.0
CEDAR: Final = (
    builders.CEDAR
    + """
@id("grant") @approvers("group:sre") @within("1h")
permit (principal, action == Action::"iam.grant", resource);
"""
)
DIRECTORY: Final = Directory(
    version=1,
    persons=builders.PERSONS,
    agents=tuple(
        Agent(id=bot, owners=("ada",), users=("ada", "ben"), max_open=OPEN_AT_MOST, cool_down=0) for bot in BOTS
    ),
    groups=builders.GROUPS,
    rotas=("night",),
    keys=(
        *builders.KEYS,
        *(key(bot, "agent", bot) for bot in BOTS),
        key("roster", "roster", "roster"),
        key("operator", "operator", "operator"),
    ),
)
POLICIES: Final = Policies(version=1, cedar=CEDAR)
# `iam` stands in the manifests, and none of its topics is there.
DOCUMENTS: Final[tuple[Snapshot, ...]] = (DIRECTORY, builders.ROSTER, POLICIES, builders.MANIFESTS)
SEEDS: Final = {
    "root": "root",
    "gateway": "gateway",
    "intake": "intake",
    "core": "core",
    "roster": "roster",
    "operator": "operator",
    "executor-s3": "s3",
    "notifier-api": "api",
    **{f"agent-{bot}": bot for bot in BOTS},
}
"""Whose key of the builders each role holds."""

_prefixes: Final = itertools.count(1)
_RUN: Final = secrets.token_hex(3)
"""Two runs, or two workers, may share a Kafka."""
_numbers: Final = itertools.count(1)


def now() -> int:
    """This machine's clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000


def bot_of(partition: int) -> str:
    """An agent whose intents all lie on this partition."""
    return next(bot for bot in BOTS if partition_of(bot, PARTITIONS) == partition)


async def until(holds: Callable[[], Awaitable[bool]], within: float = SECONDS) -> None:
    """Look again until it is so."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - what other processes do sets no event
            await asyncio.sleep(0.05)


@dataclass
class House:
    """One realm."""

    folder: Path
    admin: Admin
    world: World
    speaker: Speaker
    #: The role processes that were started, by a name for each life.
    lives: Counter[str] = field(default_factory=Counter)

    @property
    def home(self) -> RealmFolder:
        return RealmFolder(self.folder)

    @property
    def master(self) -> Settings:
        """May do anything on this Kafka."""
        return settings_of(self.home, self.admin)

    def settings(self, role: str, **changed: object) -> Settings:
        return self.home.settings(role).model_copy(update=changed)

    def name(self, topic: Topic, executor: str | None = None) -> str:
        return self.master.names.of(topic, executor)

    # ------------------------------------------------------------ saying

    def sealed(self, record: Record, key: str, by: str, **more: Any) -> Sealed:
        return envelope.seal(record, key, signer(by), more.pop("realm", builders.REALM), source="test", **more)

    async def say(
        self, topic: Topic, record: Record, *, by: str, key: str | None = None, partition: int | None = None
    ) -> Source:
        """A signed record, where it belongs unless told otherwise."""
        about = _about(record) if key is None else key
        at = partition_of(about.split(".", 1)[0], PARTITIONS) if partition is None else partition
        return await self.speaker.say(self.name(topic), at, self.sealed(record, about, by))

    async def say_raw(self, topic: Topic, partition: int, sealed: Sealed) -> Source:
        return await self.speaker.say(self.name(topic), partition, sealed)

    async def ask(self, intents: Iterable[Intent]) -> list[Source]:
        """Intents, as their agents send them."""
        return [await self.say(topics.INTENTS, intent, by=intent.subject.id) for intent in intents]

    def intents(self, count: int, bot: str = BOTS[0], action: str = "s3.copy", **more: Any) -> list[Intent]:
        """New ones."""
        at = now()
        return [an_intent(action, requester=bot, number=next(_numbers), at=at, **more) for _ in range(count)]

    def classified(self, intent: Intent, **more: Any) -> ClassifiedIntent:
        """What an honest intake says of it."""
        return classified_of(self.world, state(intent, signer(intent.subject.id), builders.REALM), at=now(), **more)

    async def classify(self, intents: Sequence[Intent], **more: Any) -> None:
        """Intake's answers, all at once."""
        name = self.name(topics.CLASSIFIED)
        await self.speaker.say_all(
            [
                (
                    name,
                    partition_of(intent.subject.id, PARTITIONS),
                    self.sealed(self.classified(intent, **more), intent.id, "intake"),
                )
                for intent in intents
            ]
        )

    def withdrawal(self, intent: Intent) -> Withdrawal:
        return Withdrawal(intent=intent.id, by=Subject(type="agent", id=intent.subject.id))

    # ------------------------------------------------------------ looking

    async def read(self, topic: Topic, executor: str | None = None, *, isolation: str = "read_committed") -> list[Any]:
        """Every record of a topic."""
        consumer = connection.reader(self.master, isolation_level=isolation, fetch_max_wait_ms=20)
        await connection.start(consumer, self.master)
        try:
            name = self.name(topic, executor)
            count = (await connection.require_partitions(consumer, [name]))[name]
            ends = await reading.assign_from_start(consumer, connection.places(name, count))
            return [record async for _, record in reading.read_to_end(consumer, ends)]
        finally:
            await consumer.stop()

    async def ends(self, topic: Topic) -> dict[int, int]:
        consumer = connection.reader(self.master)
        await connection.start(consumer, self.master)
        try:
            name = self.name(topic)
            count = (await connection.require_partitions(consumer, [name]))[name]
            found = await consumer.end_offsets([TopicPartition(name, number) for number in range(count)])
            return {place.partition: end for place, end in found.items()}
        finally:
            await consumer.stop()

    async def trail(self) -> list[AuditRecord]:
        return [AuditRecord.from_bytes(record.value) for record in await self.read(topics.AUDIT)]

    async def rows(self) -> dict[str, PendingApproval]:
        latest = {record.key.decode(): record for record in await self.read(topics.PENDING)}
        return {
            name: PendingApproval.from_bytes(record.value)
            for name, record in latest.items()
            if name != PROGRESS_KEY and record.value is not None
        }

    async def row(self, intent: Intent) -> PendingApproval | None:
        return (await self.rows()).get(intent.id)

    async def progress(self) -> dict[int, Progress]:
        found = [record for record in await self.read(topics.PENDING) if record.key.decode() == PROGRESS_KEY]
        return {record.partition: Progress.from_bytes(record.value) for record in found}

    async def quarantined(self) -> list[Quarantined]:
        return [Quarantined.from_bytes(record.value) for record in await self.read(topics.QUARANTINE)]

    async def committed(self, role: str, topic: Topic) -> dict[int, int]:
        async with cluster.Cluster(self.master) as there:
            return await there.committed(access.group_of(self.master.names, role), self.name(topic))

    async def decided(self, topic: Topic, *sources: Source) -> None:
        """Wait until the core is past these records."""
        wanted = {source.partition: source.offset + 1 for source in sources}

        async def is_past() -> bool:
            there = await self.progress()
            return all(at in there and there[at].positions.get(topic.name, 0) >= end for at, end in wanted.items())

        await until(is_past)

    async def until_row(self, intent: Intent, holds: Callable[[PendingApproval], bool]) -> PendingApproval:
        found: list[PendingApproval] = []

        async def is_so() -> bool:
            row = await self.row(intent)
            found[:] = [row] if row is not None and holds(row) else []
            return bool(found)

        await until(is_so)
        return found[0]

    # ------------------------------------------------------------ running

    def run(
        self, role: str, *, instance: str = "0", words: tuple[str, ...] | None = None, **variables: str
    ) -> "Process":
        """A process of a role, by its own name or by these words. `async with`: started inside, gone outside."""
        self.lives[role] += 1
        log = self.folder / f"{role}-{instance}-{self.lives[role]}.log"
        return Process(self, role, words or (role,), instance, variables, log)


def _about(record: Record) -> str:
    match record:
        case ClassifiedIntent():
            return str(record.intent.body["id"])
        case Intent():
            return record.id
        case _:
            found = getattr(record, "intent", None) or getattr(record, "round").intent  # noqa: B009
            return str(found.body["id"] if isinstance(found, Statement) else found)


class EndedError(Exception):
    """The process is gone, and should not be."""


class Process:
    """One life of a role's process, as production runs it."""

    def __init__(
        self, house: House, role: str, words: tuple[str, ...], instance: str, variables: dict[str, str], log: Path
    ) -> None:
        self._house = house
        self._role = role
        self._words = words
        self._variables = variables | {"KEYTURN_INSTANCE": instance}
        self._log = log

    async def __aenter__(self) -> Self:
        variables = self._house.home.environment(self._role) | self._variables
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *keyturn("run", *self._words, "--dir", str(self._house.folder)),
                env=environment(variables),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def is_over(self) -> bool:
        return self._process.returncode is not None

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        whole = self._log.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) if line.startswith(b"{") else {"raw": line} for line in whole.splitlines()]

    def logged(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("message") == message]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        self._process.terminate()
        return await self.ended()

    async def ended(self, within: float = SECONDS) -> int:
        """Wait for its end; its exit code."""
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def failed(self, within: float = SECONDS) -> str:
        """Wait until it fail-stops; why it did."""
        assert await self.ended(within) == os.EX_SOFTWARE, self._log.read_text()
        return str(self.logged("fail-stop")[-1]["error"])

    async def health(self, path: str) -> asking.Answer | None:
        started = self.logged("started")
        return await asking.get(started[-1]["health"], path) if started else None

    async def is_ready(self) -> bool:
        if self.is_over:
            raise EndedError(self._log.read_text())
        answer = await self.health("/readyz")
        return answer is not None and answer.status == 200

    async def ready(self, within: float = SECONDS) -> None:
        await until(self.is_ready, within)


class NewRealm(Protocol):
    def __call__(self, documents: tuple[Snapshot, ...] = DOCUMENTS) -> AbstractAsyncContextManager[House]: ...


@pytest.fixture(scope="session")
def new_realm(kafka: KafkaAddress, tmp_path_factory: pytest.TempPathFactory) -> NewRealm:
    """For tests that leave a realm broken."""

    def make(documents: tuple[Snapshot, ...] = DOCUMENTS) -> AbstractAsyncContextManager[House]:
        return house(tmp_path_factory.mktemp("realm"), kafka, documents)

    return make


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def realm(new_realm: NewRealm) -> AsyncIterator[House]:
    """A module's own: its documents in force, and no role running."""
    async with new_realm() as made:
        yield made


@asynccontextmanager
async def house(folder: Path, kafka: KafkaAddress, documents: Iterable[Snapshot] = DOCUMENTS) -> AsyncIterator[House]:
    """A new realm with these documents in force."""
    connection.quiet_client_logs()
    prefix = f"h{_RUN}-{next(_prefixes)}."
    realm = Realm(
        realm=builders.REALM,
        prefix=prefix,
        user_prefix=prefix,
        kafka=kafka.bootstrap,
        kafka_security="SASL_PLAINTEXT",
        partitions=PARTITIONS,
        replication_factor=1,
        min_insync_replicas=1,
        executors=("s3",),
        notifiers=("api",),
        agents=BOTS,
    )
    # Keys that are there are kept: the realm's are the builders'.
    keys = folder / "keys"
    keys.mkdir(parents=True)
    for role, name in SEEDS.items():
        (keys / f"{role}.key").write_text(_seed(name))
    lay_out(folder, realm, ["ada"], secrets.token_bytes)
    admin = Admin(kafka.admin.username, kafka.admin.password)
    await provision(folder, admin)
    settings = settings_of(RealmFolder(folder), admin)
    async with Speaker(settings) as speaker:
        made = House(folder, admin, builders.empty_world(), speaker)
        for document in documents:
            await enact(made, document)
        yield made


async def enact(made: House, document: Snapshot, by: str = "root") -> Source:
    """Bring the next version of a document into force."""
    topic = next(topic for topic in topics.WORLD if type(document) in topic.types)
    at = now()
    source = await made.say(topic, document, by=by, key=str(document.version), partition=0)
    made.world = made.world.with_snapshot(state(document, signer(by), builders.REALM), at)
    return source


def _seed(name: str) -> str:
    import base64

    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode() + "\n"


@asynccontextmanager
async def forbidden(made: House, role: str, topic: Topic, operation: str) -> AsyncIterator[None]:
    """Without this right of a role inside; with it again outside."""
    settings = made.master
    right = next(
        right
        for right in access.rights_of(role, settings.names, made.home.realm().cast)
        if right.name == settings.names.of(topic) and right.operation == operation
    )
    client = AdminClient(cluster._configuration(settings))
    binding = cluster._binding(right)
    exactly = AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )
    for future in client.delete_acls([exactly]).values():
        await asyncio.wrap_future(future)
    try:
        yield
    finally:
        await provision(made.folder, made.admin)


def counted(records: Iterable[ConsumerRecord]) -> dict[tuple[str, int], list[int]]:
    """The gap-free numbers as a reader meets them, by topic and partition."""
    found: dict[tuple[str, int], list[int]] = {}
    for record in records:
        number = envelope.number_of(record.headers)
        assert number is not None, f"{record.topic}/{record.partition}/{record.offset} has no number"
        found.setdefault((record.topic, record.partition), []).append(number)
    return found
