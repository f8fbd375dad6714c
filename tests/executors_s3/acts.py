"""Intents, grants and journals for the S3 executor, and the world it acts on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from executors.aws.client import Account, Credentials, Provider
from executors.contract import Act, Deadline
from executors.s3.executor import S3Executor, Settings
from schemas import canonical, ids
from schemas.record import Scalar, state
from schemas.records import (
    Action,
    ClassifiedIntent,
    Context,
    Grant,
    Intent,
    JournalEntry,
    Plan,
    Property,
    Question,
    Resource,
    Round,
    Source,
    Subject,
    Versions,
)
from schemas.signing import PrivateKeySigner
from tests.sandbox_s3.clients import DESTINATION, SOURCE, client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sandbox.s3 import S3Address

REALM = "test"
SIGNER = PrivateKeySigner.from_seed(bytes(32))
VERSIONS = Versions(directory=1, roster=1, policies=1, manifests=1, rules="test")
PLACE = Source(topic="keyturn.classified", partition=0, offset=1)


def now() -> int:
    """This machine's clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000


async def until(instant: int) -> None:
    """Return once the clock has passed `instant`, which is at most some seconds away."""
    async with asyncio.timeout(15):
        while now() <= instant:  # noqa: ASYNC110  time raises no event
            await asyncio.sleep(0.01)


@cache
def executor(address: S3Address, *, endpoint: str | None = None, clock: Callable[[], int] = now) -> S3Executor:
    """The executor over a local S3, as its base identity."""
    base = Credentials(address.executor.access_key, address.executor.secret_key)
    provider = Provider(address.region, endpoint or address.endpoint)
    account = Account(provider, base)
    return S3Executor(Settings(account, address.read_role, address.export_role, address.delete_role), clock)


def export_intent(prefix: str, **changed: Property) -> Intent:
    """The wish to export what lies below `prefix`, to below `prefix` in the partner's bucket."""
    properties: dict[str, Property] = {
        "source_bucket": SOURCE,
        "source_prefix": prefix,
        "destination_bucket": DESTINATION,
        "destination_prefix": f"from-finance/{prefix}",
    }
    return Intent(
        id=ids.intent_id("reporter", 1_790_000_000_000, bytes(10)),
        subject=Subject(type="agent", id="reporter"),
        action=Action(name="s3.export", properties=properties | changed),
        resource=Resource(type="bucket", id=str((properties | changed)["source_bucket"])),
        context=Context(reason="The partner asked for it."),
        ttl=3600,
    )


def delete_intent(below: str, **changed: Property) -> Intent:
    """The wish to delete what lies below a prefix."""
    properties: dict[str, Property] = {"bucket": SOURCE, "prefix": below, **changed}
    return Intent(
        id=ids.intent_id("reporter", 1_790_000_000_000, bytes(10)),
        subject=Subject(type="agent", id="reporter"),
        action=Action(name="s3.delete", properties=properties),
        resource=Resource(type="bucket", id=str(properties["bucket"]) or SOURCE),
        context=Context(reason="They asked to be forgotten."),
        ttl=3600,
    )


def planning_round(intent: Intent) -> Round:
    """The first round of planning."""
    return Round(intent=intent.id, number=1, opened=PLACE)


@dataclass
class MemoryJournal:
    """A journal that keeps its entries, and lets a test step in after each."""

    intent: Intent
    grant: str
    after: Callable[[JournalEntry], Awaitable[None]] | None = None
    entries: list[JournalEntry] = field(default_factory=list)

    async def started(self, step: int, what: str, detail: Mapping[str, Scalar] | None = None) -> None:
        """Keep it."""
        await self._keep("started", step, what, detail)

    async def done(self, step: int, what: str, detail: Mapping[str, Scalar] | None = None) -> None:
        """Keep it."""
        await self._keep("done", step, what, detail)

    async def _keep(self, entry: Any, step: int, what: str, detail: Mapping[str, Scalar] | None) -> None:
        kept = JournalEntry(
            intent=self.intent.id,
            grant=self.grant,
            instance="instance-1",
            step=step,
            entry=entry,
            what=what,
            detail=dict(detail or {}),
        )
        # What cannot be written to Kafka is no entry.
        self.entries.append(JournalEntry.from_bytes(kept.to_bytes()))
        if self.after is not None:
            await self.after(kept)


@dataclass(frozen=True)
class Granted:
    """An act, and the journal it writes."""

    act: Act
    journal: MemoryJournal

    @property
    def entries(self) -> tuple[JournalEntry, ...]:
        """What was journalled so far."""
        return tuple(self.journal.entries)


def grant(
    intent: Intent, plan: Plan, *, seconds: float = 60, after: Callable[[JournalEntry], Awaitable[None]] | None = None
) -> Granted:
    """A grant for `plan` whose credentials must die in so many seconds."""
    dies_at = now() + int(seconds * 1000)
    classified = ClassifiedIntent(
        intent=state(intent, SIGNER, REALM), source=PLACE, asked_at=intent.ttl, versions=VERSIONS
    )
    question = Question(
        realm=REALM,
        intent_id=intent.id,
        intent=intent.digest,
        plan=plan.digest,
        facts=canonical.digest_of([]),
        requirement=canonical.digest_of({}),
        opened=PLACE,
    )
    given = Grant(
        question=question,
        classified=state(classified, SIGNER, REALM),
        plan=state(plan, SIGNER, REALM),
        instance="instance-1",
        executor=plan.executor,
        claim=PLACE,
        granted_at=now(),
        lease_until=dies_at + 10_000,
        versions=VERSIONS,
    )
    journal = MemoryJournal(intent, given.digest, after)
    deadline = Deadline(lease_until=given.lease_until, credential_dies_at=dies_at)
    return Granted(Act(intent, plan, given, given.digest, deadline, journal), journal)


@dataclass(frozen=True)
class Buckets:
    """The two buckets, as their administrator sees them."""

    address: S3Address

    async def put(self, keys: Mapping[str, bytes], bucket: str = SOURCE, **more: Any) -> dict[str, str]:
        """Put objects; their versions by key."""
        async with client("s3", self.address, self.address.admin) as s3:
            answers = await asyncio.gather(
                *(s3.put_object(Bucket=bucket, Key=key, Body=body, **more) for key, body in keys.items())
            )
        return {key: answer["VersionId"] for key, answer in zip(keys, answers, strict=True)}

    async def delete(self, key: str, bucket: str = SOURCE) -> None:
        """Put a delete marker."""
        async with client("s3", self.address, self.address.admin) as s3:
            await s3.delete_object(Bucket=bucket, Key=key)

    async def markers(self, prefix: str, bucket: str = SOURCE) -> list[tuple[str, str]]:
        """Every delete marker below `prefix`, as (key, version)."""
        async with client("s3", self.address, self.address.admin) as s3:
            page = await s3.list_object_versions(Bucket=bucket, Prefix=prefix)
        return sorted((item["Key"], item["VersionId"]) for item in page.get("DeleteMarkers", []))

    async def versions(self, prefix: str, bucket: str = DESTINATION) -> list[tuple[str, str]]:
        """Every version below `prefix`, as (key, version), delete markers not counted."""
        async with client("s3", self.address, self.address.admin) as s3:
            page = await s3.list_object_versions(Bucket=bucket, Prefix=prefix)
        return sorted((item["Key"], item["VersionId"]) for item in page.get("Versions", []))

    async def read(self, key: str, bucket: str = DESTINATION) -> tuple[bytes, dict[str, Any]]:
        """The body and the answer's headers."""
        async with client("s3", self.address, self.address.admin) as s3:
            answer = await s3.get_object(Bucket=bucket, Key=key)
            body: bytes = await answer["Body"].read()
        return body, answer
