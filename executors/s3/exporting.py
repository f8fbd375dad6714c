"""The S3 export: look, plan; look again, copy each pinned version once; look at what stands there.

Nothing is copied before three things hold: the world is as planned, the session lives long enough, and the provider
was seen to refuse the session's twin whose instant has passed. Copies are taken one after another, each written to
the journal before it is sent, so that at most one is ever in doubt.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.client import FORBIDDEN, NOT_FOUND
from typing import Final

from executors.aws.client import Aws, Credentials, ProviderError, RefusedError, UnansweredError
from executors.aws.minting import mint
from executors.aws.sessions import MIN_SECONDS, session_name
from executors.contract import (
    Act,
    ActFailedError,
    ExecutorError,
    Finding,
    Observation,
    OutcomeUnknownError,
    StaleError,
    TargetMissingError,
)
from executors.s3 import client, observing, planning, sessions
from executors.s3.client import Bucket, Copied, Head
from executors.s3.observing import Target
from executors.s3.parameters import Export
from executors.s3.planning import Look
from schemas.records import Intent, JournalEntry, Plan, Receipt, Round

MAX_TAKEN: Final = 20_000
"""More keys than this below the destination prefix, and it is no place for an export."""

Clock = Callable[[], int]


class Exports:
    """Performs `s3.export`."""

    def __init__(self, aws: Aws, read_role: str, export_role: str, clock: Clock) -> None:
        self._aws = aws
        #: Lists and reads metadata; for planning and observing.
        self._read_role = read_role
        #: Reads and puts; only ever assumed for a grant.
        self._export_role = export_role
        #: Unix milliseconds.
        self._clock = clock

    async def validate(self, intent: Intent) -> None:
        """Raise TargetMissingError when the parameters cannot be meant."""
        Export.of(intent)

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        """The pinned versions below the source prefix, and what copying them means. Lists, and reads nothing else."""
        export = Export.of(intent)
        return planning.plan(export, await self._look(export, intent.id), intent, round_, now)

    async def execute(self, act: Act) -> Receipt:
        """Copy exactly the planned versions. When this returns, every one is stored."""
        export = Export.of(act.intent)
        look = await self._look(export, act.intent.id)
        if differs := planning.difference(export, look, act.plan):
            raise StaleError(differs)
        steps = observing.targets(export, look.objects)
        copied: dict[Target, Copied] = {}
        async with self._acting(act, export, look) as s3:
            for target in steps:
                await self._copy(act, export, s3, target, copied)
        return observing.receipt(export, copied, f"Copied {len(copied)} objects.")

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        """What stands on the keys of the destination. Reads metadata only."""
        export = Export.of(intent)
        planned = planning.planned_objects(export, plan)
        if planned is None:
            steps = observing.started(export, journal, grant_digest)
        else:
            steps = observing.targets(export, planned)
        made = observing.made_versions(journal, grant_digest)
        ours: dict[Target, Head] = {}
        foreign: list[Target] = []
        try:
            session = await self._read_session(intent.id, sessions.observing_policy(export))
            async with client.s3(self._aws, session) as s3:
                present = await s3.keys(export.destination_bucket, export.destination_prefix, MAX_TAKEN)
                if len(present) > MAX_TAKEN:
                    return Observation(Finding.UNKNOWN, f"more than {MAX_TAKEN} keys below the destination prefix")
                for target in steps:
                    # The version our copy made counts even when somebody has written or deleted the key since.
                    versions = [None] if target.key in present else []
                    for version in (*versions, *([made[target.step]] if target.step in made else [])):
                        head = await _head_if_there(s3, export.destination_bucket, target.key, version)
                        if head is not None and observing.is_ours(head, target, intent.id, grant_digest):
                            ours[target] = head
                            break
                    else:
                        if target.key in present:
                            foreign.append(target)
        except ProviderError as exc:
            return Observation(Finding.UNKNOWN, f"the destination cannot be read: {exc}")
        return observing.conclude(export, int(plan.measures["objects"]), ours, foreign, grant_digest)

    async def _look(self, export: Export, intent_id: str) -> Look:
        """Read everything a plan rests on, with a session that can do nothing else."""
        try:
            session = await self._read_session(intent_id, sessions.planning_policy(export))
            async with client.s3(self._aws, session) as s3:
                return Look(
                    source_versioned=await s3.is_versioned(export.source_bucket),
                    destination_versioned=await s3.is_versioned(export.destination_bucket),
                    destination_public=await s3.is_public(export.destination_bucket),
                    objects=tuple(
                        await s3.current_versions(export.source_bucket, export.source_prefix, export.max_objects)
                    ),
                    taken=await self._taken(s3, export),
                )
        except RefusedError as exc:
            if exc.code == "NoSuchBucket":
                raise TargetMissingError(
                    f"a bucket is missing: {export.source_bucket} or {export.destination_bucket}"
                ) from exc
            raise ExecutorError(f"S3 cannot be read with the role {self._read_role}: {exc}") from exc
        except UnansweredError as exc:
            raise ExecutorError(f"S3 cannot be read: {exc}") from exc

    async def _taken(self, s3: Bucket, export: Export) -> frozenset[str]:
        taken = await s3.keys(export.destination_bucket, export.destination_prefix, MAX_TAKEN)
        if len(taken) > MAX_TAKEN:
            raise TargetMissingError(
                f"more than {MAX_TAKEN} keys below s3://{export.destination_bucket}/{export.destination_prefix}; "
                "choose a destination prefix of its own"
            )
        return frozenset(taken)

    async def _read_session(self, intent_id: str, policy: str) -> Credentials:
        return await self._aws.assume_role(self._read_role, session_name(intent_id), policy, MIN_SECONDS)

    @asynccontextmanager
    async def _acting(self, act: Act, export: Export, look: Look) -> AsyncIterator[Bucket]:
        """S3 with a session minted for this grant."""

        async def is_refused(twin: Credentials) -> bool:
            return await self._is_refused(twin, export, look)

        minted = await mint(
            self._aws,
            self._export_role,
            act,
            self._clock(),
            lambda dies_at: sessions.acting_policy(export, look.objects, dies_at),
            is_refused,
        )
        async with client.s3(self._aws, minted.credentials, minted.seconds_left) as s3:
            yield s3

    async def _is_refused(self, twin: Credentials, export: Export, look: Look) -> bool:
        first = look.objects[0]
        async with client.s3(self._aws, twin) as s3:
            try:
                await s3.head(export.source_bucket, first.key, first.version)
            except RefusedError as no:
                if no.status == FORBIDDEN:
                    return True
                raise
        return False

    async def _copy(self, act: Act, export: Export, s3: Bucket, target: Target, copied: dict[Target, Copied]) -> None:
        """Take one step. ActFailedError: it certainly was not taken. OutcomeUnknownError: that is open."""
        item, what = target.object, f"copy s3://{export.source_bucket}/{target.object.key}"

        def stopped(why: str) -> ActFailedError:
            done = observing.receipt(export, copied, f"Copied {len(copied)} objects, then stopped.") if copied else None
            return ActFailedError(f"stopped at step {target.step}, after {len(copied)} copies: {why}", done)

        if self._clock() >= act.deadline.credential_dies_at:
            raise stopped("the deadline has passed")
        try:
            head = await s3.head(export.source_bucket, item.key, item.version)
        except ProviderError as exc:
            raise stopped(str(exc)) from exc
        await act.journal.started(target.step, what, observing.step_detail(item))
        try:
            made = await s3.copy(
                (export.source_bucket, item),
                (export.destination_bucket, target.key),
                {**head.metadata, **observing.mark(act.intent.id, act.grant_digest, target.step)},
                head.carried,
            )
        except RefusedError as exc:
            raise stopped(str(exc)) from exc
        except UnansweredError as exc:
            raise OutcomeUnknownError(
                f"step {target.step}, after {len(copied)} copies: {exc}; whether it was copied is not known"
            ) from exc
        copied[target] = made
        detail = {"made": made.version or "", "etag": made.etag, "request": made.request}
        await act.journal.done(target.step, what, detail)


async def _head_if_there(s3: Bucket, bucket: str, key: str, version: str | None) -> Head | None:
    try:
        return await s3.head(bucket, key, version)
    except RefusedError as no:
        if no.status == NOT_FOUND:
            return None
        raise
