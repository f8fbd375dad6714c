"""Attaching and detaching: look, plan; look again, make one call; look at what is attached.

The call is made once, and only after three things hold: IAM says what the plan says, the session lives long enough,
and the provider was seen to refuse the session's twin whose instant has passed. Between the second look and the call
somebody may still change the policy: IAM has no compare-and-set. The session can attach nothing but the one policy,
and the receipt names the version that was planned.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import FORBIDDEN
from typing import Final

from executors.aws.client import Account, Aws, Credentials, ProviderError, RefusedError, UnansweredError
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
from executors.iam import client, levels, observing, planning, sessions
from executors.iam.client import Iam, Look
from executors.iam.levels import Levels
from executors.iam.observing import STEP, Seen, Told
from executors.iam.parameters import Attachment
from schemas.records import Intent, JournalEntry, Plan, Receipt, Round

MISSING: Final = "NoSuchEntity"

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where IAM is, the two roles, and who assumes them."""

    account: Account
    #: Lists and reads; for planning and observing.
    read_role: str
    #: Attaches and detaches; only ever assumed for a grant.
    act_role: str

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> "Settings":
        """The settings `region`, `read_role`, `act_role`, and if given `endpoint`, `access_key`, `secret_key`."""
        account = Account.parse("iam", given, {"read_role": True, "act_role": True})
        return cls(account, given["read_role"], given["act_role"])


class IamExecutor:
    """Performs `iam.attach_policy` and `iam.detach_policy`."""

    def __init__(self, settings: Settings, levels_: Levels, clock: Clock) -> None:
        self._settings = settings
        self._aws = Aws(settings.account)
        self._levels = levels_
        #: Unix milliseconds.
        self._clock = clock

    async def validate(self, intent: Intent) -> None:
        """Raise TargetMissingError when the parameters cannot be meant."""
        self._wanted(intent)

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        """What would be attached or detached, and which rights come or go with it. Reads only."""
        wanted = self._wanted(intent)
        look = await self._look(wanted, intent.id)
        # AdministratorAccess means twenty thousand actions: that takes a while, and others plan and act meanwhile.
        return await asyncio.to_thread(planning.plan, wanted, look, self._levels, intent, round_, now)

    async def execute(self, act: Act) -> Receipt:
        """Attach or detach exactly what was planned. When this returns, the provider has said that it is done."""
        wanted = self._wanted(act.intent)
        try:
            look = await self._look(wanted, act.intent.id)
        except TargetMissingError as exc:
            raise StaleError(str(exc)) from exc
        if differs := planning.difference(wanted, look, act.plan):
            raise StaleError(differs)
        async with self._acting(act, wanted) as iam:
            return await self._change(act, wanted, iam)

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        """What is attached now. Reads only."""
        wanted = self._wanted(intent)
        try:
            async with self._looking(wanted, intent.id) as iam:
                seen = await _seen(iam, wanted)
        except ProviderError as exc:
            return Observation(Finding.UNKNOWN, f"IAM cannot be read: {exc}")
        return observing.conclude(wanted, plan, seen, Told.of(journal, grant_digest))

    async def tidy(self, now: int) -> None:
        """Planning only reads: it leaves nothing."""

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    def _wanted(self, intent: Intent) -> Attachment:
        wanted = Attachment.of(intent)
        # Nobody widens the hand that holds the pen: an executor's own rights are for administrators to change.
        if wanted.identity in {self._settings.read_role, self._settings.act_role}:
            raise TargetMissingError(f"{wanted.identity} is this executor's own role; it never changes its own rights")
        return wanted

    async def _look(self, wanted: Attachment, intent_id: str) -> Look:
        """Read everything a plan rests on, with a session that can do nothing else."""
        try:
            async with self._looking(wanted, intent_id) as iam:
                return await iam.look(wanted)
        except RefusedError as exc:
            if exc.code == MISSING:
                raise TargetMissingError(f"{wanted.identity} or {wanted.policy} is not there: {exc}") from exc
            # The session reads the identity of exactly this ARN: one whose path is left out is not readable either.
            hint = f" (is {wanted.identity} its ARN, path and all?)" if exc.status == FORBIDDEN else ""
            raise ExecutorError(f"IAM cannot be read with the role {self._settings.read_role}{hint}: {exc}") from exc
        except UnansweredError as exc:
            raise ExecutorError(f"IAM cannot be read: {exc}") from exc

    @asynccontextmanager
    async def _looking(self, wanted: Attachment, intent_id: str) -> AsyncIterator[Iam]:
        session = await self._aws.assume_role(
            self._settings.read_role, session_name(intent_id), sessions.looking_policy(wanted), MIN_SECONDS
        )
        async with client.iam(self._aws, session) as iam:
            yield iam

    @asynccontextmanager
    async def _acting(self, act: Act, wanted: Attachment) -> AsyncIterator[Iam]:
        """IAM with a session minted for this grant."""

        async def is_refused(twin: Credentials) -> bool:
            async with client.iam(self._aws, twin) as iam:
                try:
                    await iam.attached(wanted.kind, wanted.name)
                except RefusedError as no:
                    if no.status == FORBIDDEN:
                        return True
                    raise
            return False

        minted = await mint(
            self._aws,
            self._settings.act_role,
            act,
            self._clock(),
            lambda dies_at: sessions.acting_policy(wanted, dies_at),
            is_refused,
        )
        async with client.iam(self._aws, minted.credentials, minted.seconds_left) as iam:
            yield iam

    async def _change(self, act: Act, wanted: Attachment, iam: Iam) -> Receipt:
        """The one call. ActFailedError: it certainly had no effect. OutcomeUnknownError: that is open."""
        what = f"{wanted.verb} {wanted.policy} {'to' if wanted.verb == 'attach' else 'from'} {wanted.identity}"
        if self._clock() >= act.deadline.credential_dies_at:
            raise ActFailedError("the deadline has passed; nothing was done")
        await act.journal.started(STEP, what)
        done = f"{wanted.verb.capitalize()}ed {wanted.policy}."
        try:
            request = await iam.change(wanted)
        except RefusedError as exc:
            if wanted.verb != "detach" or exc.code != MISSING:
                raise ActFailedError(f"{wanted.call} was refused: {exc}; nothing was done") from exc
            # Somebody else detached it, or deleted the identity, since it was looked at a moment ago.
            request, done = "", f"{wanted.policy} was detached already when the call was made."
        except UnansweredError as exc:
            raise OutcomeUnknownError(f"{wanted.call}: {exc}; whether it took effect is not known") from exc
        await act.journal.done(STEP, what, {"request": request})
        return observing.receipt(wanted, act.plan, done, request)


async def _seen(iam: Iam, wanted: Attachment) -> Seen:
    try:
        unique_id = await iam.unique_id(wanted.kind, wanted.name)
        attached = await iam.attached(wanted.kind, wanted.name)
    except RefusedError as no:
        if no.code != MISSING:
            raise
        return Seen(None, (), None)
    try:
        policy = await iam.managed(wanted.policy)
    except RefusedError as no:
        if no.code != MISSING:
            raise
        return Seen(unique_id, attached, None)
    return Seen(unique_id, attached, f"{policy.version} {policy.document.digest}")


async def open_executor(settings: Mapping[str, str]) -> IamExecutor:
    """The executor with these settings and this machine's clock."""
    parsed = Settings.parse(settings)
    return IamExecutor(parsed, await asyncio.to_thread(levels.installed), lambda: time.time_ns() // 1_000_000)
