"""A stage for stories: a whole Keyturn runs; people click through the API, an agent asks, S3 is looked at from outside.

What a story asserts is read from Kafka with an auditor's rights, from S3 with its administrator's, or from the API.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiokafka import ConsumerRecord, TopicPartition
from pydantic import SecretStr

from notifiers.api import contract
from notifiers.api.client import Client, ClientSettings
from sandbox import story
from sandbox.agent import SandboxAgent
from sandbox.roles import RunningRoles, is_ready
from sandbox.world import Sandbox, SandboxWorld
from schemas import envelope, topics
from schemas.partition import partition_of
from schemas.record import Record
from schemas.records import (
    AuditRecord,
    Intent,
    JournalEntry,
    PendingApproval,
    Phase,
    Refusal,
    Source,
    Verdict,
)
from schemas.signing import Signer
from streams import connection, reading
from streams.producing import Speaker
from streams.realm import RealmFolder

BODY = b"id,name\n" + b"000001,somebody\n" * 20
WITHIN = 150.0


def clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Shelf:
    """Objects of one story: a source prefix of its own, and where they go."""

    prefix: str
    keys: tuple[str, ...]
    bucket: str = story.CUSTOMERS

    @property
    def properties(self) -> dict[str, str]:
        return {
            "source_bucket": self.bucket,
            "source_prefix": f"{self.prefix}/",
            "destination_bucket": story.EXPORTS,
            "destination_prefix": f"{self.prefix}/",
        }


@dataclass
class Stage:
    world: SandboxWorld
    roles: RunningRoles
    agent: SandboxAgent
    s3: Any
    sandbox: Sandbox
    _tokens: dict[str, str] = field(default_factory=dict)

    # ---------------------------------------------------------------- the agent

    async def shelf(self, objects: int = 3, bucket: str = story.CUSTOMERS) -> Shelf:
        """Fresh objects to export."""
        prefix = f"flow/{secrets.token_hex(4)}"
        keys = tuple(f"{prefix}/{number:03}.csv" for number in range(objects))
        for key in keys:
            await self.s3.put_object(Bucket=bucket, Key=key, Body=BODY + key.encode())
        return Shelf(prefix, keys, bucket)

    def intent(self, shelf: Shelf, ttl: int = 600) -> Intent:
        return self.agent.intent(
            "s3.export", ("bucket", shelf.bucket), shelf.properties, "the partner asked for it", ttl
        )

    async def asked(self, shelf: Shelf, ttl: int = 600) -> str:
        """Submit an export and wait for its question."""
        intent = self.intent(shelf, ttl)
        await self.agent.submit(intent)
        await self.agent.until(intent.id, Phase.PENDING)
        return intent.id

    # ---------------------------------------------------------------- people

    async def client(self, person: str) -> Client:
        if person not in self._tokens:
            self._tokens[person] = await self.world.token(person)
        return Client(ClientSettings(api_url=self.world.api, token=SecretStr(self._tokens[person])))

    async def view(self, person: str, intent_id: str, phase: Phase | None = None) -> contract.ApprovalView:
        """What a person sees, once the API has caught up with this phase."""
        with await self.client(person) as client:
            deadline = time.monotonic() + WITHIN
            after: str | None = None
            while True:
                view = await asyncio.to_thread(client.approval, intent_id, wait=2 if after else 0, after=after)
                if phase is None or view.phase is phase or time.monotonic() > deadline:
                    return view
                after = view.version

    async def says(
        self,
        person: str,
        intent_id: str,
        verdict: Verdict,
        reason: str | None = None,
        seen: contract.ApprovalView | None = None,
    ) -> Refusal | None:
        """A click, through the API; returns the core's refusal, if it was one."""
        view = seen or await self.view(person, intent_id)
        with await self.client(person) as client:
            recorded = await asyncio.to_thread(client.decide, view, verdict, reason)
            answer = await asyncio.to_thread(client.answer, recorded, WITHIN)
        assert answer.state != "deciding", f"no answer to {person}'s {verdict.value} within {WITHIN} s"
        return answer.refusal

    # ---------------------------------------------------------------- Kafka, from outside

    async def read(self, topic: topics.Topic, executor: str | None = None) -> list[ConsumerRecord]:
        """Every committed record of a topic, with an auditor's rights."""
        settings = self.world.settings("auditor")
        consumer = connection.reader(settings)
        await connection.start(consumer, settings)
        try:
            name = settings.names.of(topic, executor)
            count = (await connection.require_partitions(consumer, [name]))[name]
            ends = await reading.assign_from_start(consumer, [TopicPartition(name, number) for number in range(count)])
            return [record async for _, record in reading.read_to_end(consumer, ends)]
        finally:
            await consumer.stop()

    async def trail(self, intent_id: str) -> list[AuditRecord]:
        records = [AuditRecord.from_bytes(record.value) for record in await self.read(topics.AUDIT)]
        return [record for record in records if record.intent == intent_id]

    async def events(self, intent_id: str) -> list[tuple[str, Refusal | None]]:
        return [(record.event, record.refusal) for record in await self.trail(intent_id)]

    async def row(self, intent_id: str) -> PendingApproval:
        rows = [record for record in await self.read(topics.PENDING) if record.key == intent_id.encode()]
        return PendingApproval.from_bytes(rows[-1].value)

    async def journal(self, intent_id: str) -> list[JournalEntry]:
        records = [JournalEntry.from_bytes(record.value) for record in await self.read(topics.JOURNAL, "s3")]
        return [record for record in records if record.intent == intent_id]

    async def until_trail(
        self, intent_id: str, holds: Callable[[list[AuditRecord]], bool], within: float = WITHIN
    ) -> list[AuditRecord]:
        """Wait for something to be on the trail of an intent."""
        async with asyncio.timeout(within):
            while not holds(trail := await self.trail(intent_id)):
                pass  # each round reads Kafka to its end
        return trail

    async def say_as(
        self, role: str, topic: topics.Topic, record: Record, key: str, signer: Signer | None = None
    ) -> Source:
        """Write a record with a role's rights on Kafka, signed by its key or by another."""
        settings = self.world.settings(role)
        sealed = envelope.seal(record, key, signer or settings.signer(), settings.realm, source=role)
        partition = partition_of(self.agent.name, story.PARTITIONS)
        async with Speaker(settings) as speaker:
            return await speaker.say(settings.names.of(topic), partition, sealed)

    async def up(self, role: str) -> None:
        """Start a role unless it runs."""
        if self.roles.child(role).pid is None:
            await self.roles.start(role)

    async def served(self, within: float = 90.0) -> None:
        """Wait until every role is ready."""
        async with asyncio.timeout(within):
            while not all([await is_ready(self.roles.health(name)) for name in self.roles.names]):
                await asyncio.to_thread(time.sleep, 0.1)

    @property
    def realm(self) -> RealmFolder:
        return RealmFolder(self.world.folder)

    # ---------------------------------------------------------------- S3, from outside

    async def exported(self, shelf: Shelf) -> dict[str, list[bytes]]:
        """Every version of every object below the destination: key -> bodies."""
        found: dict[str, list[bytes]] = {}
        listed = await self.s3.list_object_versions(Bucket=story.EXPORTS, Prefix=f"{shelf.prefix}/")
        for version in listed.get("Versions", ()):
            body = await self.s3.get_object(Bucket=story.EXPORTS, Key=version["Key"], VersionId=version["VersionId"])
            found.setdefault(version["Key"], []).append(await body["Body"].read())
        assert not listed.get("DeleteMarkers")
        return found

    async def assert_exported_once(self, shelf: Shelf) -> None:
        found = await self.exported(shelf)
        assert {key: len(bodies) for key, bodies in found.items()} == dict.fromkeys(shelf.keys, 1)
        for key, (body,) in found.items():
            source = await self.s3.get_object(Bucket=shelf.bucket, Key=key)
            assert body == await source["Body"].read()

    async def assert_nothing_exported(self, shelf: Shelf) -> None:
        assert await self.exported(shelf) == {}


@asynccontextmanager
async def set_up(sandbox: Sandbox, world: SandboxWorld, roles: RunningRoles) -> AsyncIterator[Stage]:
    client = get_session().create_client(
        "s3",
        region_name=world.s3.region,
        endpoint_url=world.s3.endpoint,
        aws_access_key_id=world.s3.admin.access_key,
        aws_secret_access_key=world.s3.admin.secret_key,
        config=AioConfig(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    settings = world.settings(f"agent-{story.AGENT}")
    async with client as s3, SandboxAgent(settings, story.AGENT, clock, secrets.token_bytes) as agent:
        yield Stage(world, roles, agent, s3, sandbox)


def names(events: Iterable[tuple[str, Refusal | None]]) -> list[str]:
    """Events that moved the intent, by name."""
    return [name for name, refusal in events if refusal is None]


def refusals(events: Iterable[tuple[str, Refusal | None]]) -> list[Refusal]:
    return [refusal for _, refusal in events if refusal is not None]
