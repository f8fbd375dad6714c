"""The S3 deletion: look, plan; look again, put one delete marker over each pinned version; look at what stands there.

No version is ever erased: the session may not. Markers are put one after another, each written to the journal before
it is sent, so that at most one is ever in doubt. Where versioning is suspended a deletion could erase, so the bucket is
looked at again right before the first, and every few after it; between such a look and the call S3 has no condition.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.client import FORBIDDEN
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
from executors.s3 import client, deleting, sessions
from executors.s3.client import Bucket, Deleted, Version
from executors.s3.deleting import Look
from executors.s3.parameters import Delete
from schemas.records import Intent, JournalEntry, Plan, Receipt, Round

Clock = Callable[[], int]
LOOK_EVERY: Final = 10
"""Deletions between two looks at the bucket's versioning."""
UNVERSIONED: Final = "null"
"""The id of a version that the next write or deletion replaces, where versioning is suspended."""
SUSPENDED: Final = "versioning is not on any more: a deletion could erase for good; turn it on and ask again"


class Deletions:
    """Performs `s3.delete`."""

    def __init__(self, aws: Aws, read_role: str, delete_role: str | None, clock: Clock) -> None:
        self._aws = aws
        self._read_role = read_role
        #: Only ever assumed for a grant. None: nothing is deleted here.
        self._delete_role = delete_role
        #: Unix milliseconds.
        self._clock = clock

    async def validate(self, intent: Intent) -> None:
        """Raise TargetMissingError when the parameters cannot be meant, or there is no role to delete with."""
        Delete.of(intent)
        self._role()

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        """The pinned versions below the prefix, and how long their deletion can be undone."""
        delete = Delete.of(intent)
        self._role()
        return deleting.plan(delete, await self._look(delete, intent.id), intent, round_, now)

    async def execute(self, act: Act) -> Receipt:
        """Put a marker over exactly the planned versions. When this returns, every one stands."""
        delete = Delete.of(act.intent)
        look = await self._look(delete, act.intent.id)
        if differs := deleting.difference(delete, look, act.plan):
            raise StaleError(differs)
        deleted: dict[Version, Deleted] = {}
        async with self._acting(act, delete, look) as s3, self._looking(act, delete) as looking:
            for number, item in enumerate(look.objects, start=1):
                # Every object that was there before versioning is looked at for itself: its bytes would be gone.
                if len(deleted) % LOOK_EVERY == 0 or item.version == UNVERSIONED:
                    await self._require_versioned(delete, looking, number, deleted)
                await self._delete(act, delete, s3, number, item, deleted)
        return deleting.receipt(delete, deleted, f"Deleted {len(deleted)} objects; every version is kept.")

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        """What stands on the keys that were begun."""
        delete = Delete.of(intent)
        ours: dict[Version, Deleted] = {}
        foreign: list[Version] = []
        by_time = 0
        try:
            session = await self._read_session(intent.id, sessions.delete_observing_policy(delete))
            async with client.s3(self._aws, session) as s3:
                for step in deleting.begun(journal, grant_digest):
                    history = await s3.history(delete.bucket, step.object.key)
                    if marker := deleting.marker_of(step, history):
                        ours[step.object] = Deleted(marker, "")
                        by_time += step.marker is None
                    elif not deleting.stands(step, history):
                        foreign.append(step.object)
        except ProviderError as exc:
            return Observation(Finding.UNKNOWN, f"the bucket cannot be read: {exc}")
        return deleting.conclude(delete, int(plan.measures["objects"]), ours, by_time, foreign)

    async def _look(self, delete: Delete, intent_id: str) -> Look:
        """Read everything a plan rests on, with a session that can do nothing else."""
        try:
            session = await self._read_session(intent_id, sessions.delete_planning_policy(delete))
            async with client.s3(self._aws, session) as s3:
                return Look(
                    is_versioned=await s3.is_versioned(delete.bucket),
                    needs_mfa=await s3.needs_mfa(delete.bucket),
                    expiries=await s3.expiries(delete.bucket),
                    is_locked=await s3.is_locked(delete.bucket),
                    objects=tuple(await s3.current_versions(delete.bucket, delete.prefix, delete.max_objects)),
                )
        except RefusedError as exc:
            if exc.code == "NoSuchBucket":
                raise TargetMissingError(f"there is no bucket {delete.bucket}") from exc
            raise ExecutorError(f"S3 cannot be read with the role {self._read_role}: {exc}") from exc
        except UnansweredError as exc:
            raise ExecutorError(f"S3 cannot be read: {exc}") from exc

    async def _read_session(self, intent_id: str, policy: str) -> Credentials:
        return await self._aws.assume_role(self._read_role, session_name(intent_id), policy, MIN_SECONDS)

    def _role(self) -> str:
        if self._delete_role is None:
            raise TargetMissingError("this installation deletes nothing: KEYTURN_S3_DELETE_ROLE is not set")
        return self._delete_role

    @asynccontextmanager
    async def _acting(self, act: Act, delete: Delete, look: Look) -> AsyncIterator[Bucket]:
        """S3 with a session minted for this grant."""

        async def is_refused(twin: Credentials) -> bool:
            async with client.s3(self._aws, twin) as s3:
                try:
                    await s3.history(delete.bucket, look.objects[0].key)
                except RefusedError as no:
                    if no.status == FORBIDDEN:
                        return True
                    raise
            return False

        minted = await mint(
            self._aws,
            self._role(),
            act,
            self._clock(),
            lambda dies_at: sessions.delete_acting_policy(delete, look.objects, dies_at),
            is_refused,
        )
        async with client.s3(self._aws, minted.credentials, minted.seconds_left) as s3:
            yield s3

    @asynccontextmanager
    async def _looking(self, act: Act, delete: Delete) -> AsyncIterator[Bucket]:
        """S3 with a session that reads only: the one that deletes need not see how the bucket is set up."""
        session = await self._read_session(act.intent.id, sessions.delete_planning_policy(delete))
        async with client.s3(self._aws, session) as s3:
            yield s3

    async def _require_versioned(
        self, delete: Delete, looking: Bucket, number: int, deleted: dict[Version, Deleted]
    ) -> None:
        """StaleError, or ActFailedError once something is deleted, when the bucket keeps no versions now."""
        try:
            is_versioned = await looking.is_versioned(delete.bucket)
        except ProviderError as exc:
            raise _stopped(delete, number, deleted, str(exc)) from exc
        if not is_versioned:
            raise _stopped(delete, number, deleted, SUSPENDED) if deleted else StaleError(SUSPENDED)

    async def _delete(
        self, act: Act, delete: Delete, s3: Bucket, number: int, item: Version, deleted: dict[Version, Deleted]
    ) -> None:
        """Take one step. ActFailedError: it certainly was not taken. OutcomeUnknownError: that is open."""
        what = f"delete s3://{delete.bucket}/{item.key}"

        def stopped(why: str) -> ActFailedError:
            return _stopped(delete, number, deleted, why)

        now = self._clock()
        if now >= act.deadline.credential_dies_at:
            raise stopped("the deadline has passed")
        try:
            history = await s3.history(delete.bucket, item.key, 1)
        except ProviderError as exc:
            raise stopped(str(exc)) from exc
        # The condition of the call itself knows the ETag only; the same bytes written again are another version.
        if not history or history[0].version != item.version:
            raise stopped(f"{item.key!r} is not the planned version any more")
        await act.journal.started(number, what, deleting.step_detail(item, now, act.deadline.credential_dies_at))
        try:
            made = await s3.delete(delete.bucket, item)
        except RefusedError as exc:
            raise stopped(str(exc)) from exc
        except UnansweredError as exc:
            raise OutcomeUnknownError(
                f"step {number}, after {len(deleted)} deletions: {exc}; whether it was deleted is not known"
            ) from exc
        deleted[item] = made
        await act.journal.done(number, what, {"marker": made.marker, "request": made.request})
        if made.marker == UNVERSIONED:
            # Only a bucket that keeps no versions gives a marker this id.
            raise stopped(SUSPENDED)


def _stopped(delete: Delete, number: int, deleted: dict[Version, Deleted], why: str) -> ActFailedError:
    done = deleting.receipt(delete, deleted, f"Deleted {len(deleted)} objects, then stopped.")
    return ActFailedError(f"stopped at step {number}, after {len(deleted)} deletions: {why}", done if deleted else None)
