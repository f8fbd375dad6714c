"""The infrastructure executor: have a change set worked out, show it, execute it once by its ARN, tell what came of it.

Planning leaves a change set with the provider, made with a role that can leave and take away change sets and nothing
else, under a name that nobody could foresee; from then on it is known by the ARN that the call answered, and none that
merely bears its name is taken for it (law 1). No credential that exists while planning can execute one. Executing is
one call with a session cut to that one change set; the provider then works on its own, with the service role that the
change set names, and is watched with the reading role until the lease is over.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import FORBIDDEN
from typing import Final

from executors.aws.client import Account, Aws, Credentials, ProviderError, RefusedError, UnansweredError
from executors.aws.minting import mint
from executors.aws.sessions import MIN_SECONDS, session_name
from executors.contract import (
    Act,
    ActFailedError,
    ExecutorError,
    Observation,
    OutcomeUnknownError,
    StaleError,
    TargetMissingError,
)
from executors.contract import Finding as Found
from executors.infra import client, observing, planning, sessions
from executors.infra.client import ChangeSet, Stack, Stacks, Summary
from executors.infra.observing import Came, Seen
from executors.infra.parameters import Left, Named, Wish, execution_token, own_prefix
from executors.infra.planning import Look
from executors.infra.sessions import Ground
from schemas.records import Intent, JournalEntry, Plan, Receipt, Round

log = logging.getLogger("keyturn.executor.infra")

OWN: Final = {"read_role": True, "plan_role": True, "act_role": True, "service_role": False}
WATCH_SECONDS: Final = 600.0
"""How long one reading session is used; none is shorter than 900 s."""
STEP: Final = 1
SPARE: Final = timedelta(hours=2)
"""Longer than any lease, its settling and every skew together: past an intent's end plus this, nothing can run."""
CLOCKS: Final = timedelta(minutes=10)
"""How far back of our own clock the provider's events are looked for."""

Clock = Callable[[], int]
Chance = Callable[[], bytes]
"""16 random bytes, others each time."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where CloudFormation is, and the roles."""

    account: Account
    #: Reads stacks and change sets; for planning, watching and observing.
    read_role: str
    #: Leaves and takes away change sets. It must not be able to execute one.
    plan_role: str
    #: Executes a change set; only ever assumed for a grant.
    act_role: str
    #: What CloudFormation itself acts with. None: with what the session that made the call may do, for as long as it
    #: lives, which no real stack wants.
    service_role: str | None = None
    #: How often the provider is asked how far it is.
    poll_seconds: float = 2.0

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> "Settings":
        """The settings of `Account`, the three roles, and if given `service_role`."""
        account = Account.parse("infra", given, OWN)
        made = cls(account, given["read_role"], given["plan_role"], given["act_role"], given.get("service_role"))
        for role in (made.read_role, made.plan_role, made.act_role):
            Ground.of(role, account.provider.region)
        return made


class InfraExecutor:
    """Performs `infra.change_set`."""

    def __init__(self, settings: Settings, clock: Clock, chance: Chance) -> None:
        """`clock` tells Unix milliseconds."""
        self._settings = settings
        self._aws = Aws(settings.account)
        self._ground = Ground.of(settings.read_role, settings.account.provider.region)
        self._clock = clock
        self._chance = chance

    async def validate(self, intent: Intent) -> None:
        """Raise TargetMissingError when the parameters cannot be meant."""
        Wish.of(intent)

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        """Have the provider work out what it would do, and tell it. Planned again, another change set is made.

        One whose answer was lost is never looked for: `tidy` takes it away once its intent is over.
        """
        wish, named = Wish.of(intent), Named.of(intent, round_, self._chance())
        try:
            async with self._reading(wish.stack, intent.id) as reading:
                stack = await reading.stack(wish.stack)
                is_new = stack is None or stack.is_empty
                if stack is not None:
                    _require_changeable(stack)
                    await self._tidy_stack(reading, wish.stack, now, intent.id, round_.number)
                arn = await self._propose(wish, named, intent.id, is_new=is_new)
                made = await self._worked_out(reading, arn, wish.stack)
                try:
                    planning.require_ours(made, arn, named)
                    look = await self._look(reading, made)
                    planning.require_template(wish, look.template)
                    planning.require_made(made)
                    return planning.plan(wish, look, intent, round_, now)
                except TargetMissingError:
                    # Nobody will be asked about it: it is of no use any more.
                    await self._take_away(wish.stack, [made])
                    raise
        except RefusedError as exc:
            raise TargetMissingError(f"CloudFormation refuses: {exc}") from exc
        except UnansweredError as exc:
            raise ExecutorError(f"CloudFormation cannot be asked: {exc}") from exc

    async def execute(self, act: Act) -> Receipt:
        """Execute exactly the planned change set. When this returns, the stack is as it says."""
        wish, arn = Wish.of(act.intent), planning.change_set_of(act.plan)
        token = execution_token(act.grant_digest)
        try:
            async with self._reading(wish.stack, act.intent.id) as reading:
                change_set = await reading.change_set(arn, planning.stack_of(act.plan))
                if change_set is None:
                    raise StaleError(
                        "the change set is gone: another one was executed on this stack, or it was deleted"
                    )
                look = await self._look(reading, change_set)
        except ProviderError as exc:
            raise ActFailedError(f"CloudFormation cannot be read: {exc}; nothing was done") from exc
        except TargetMissingError as exc:
            raise StaleError(str(exc)) from exc
        if differs := planning.difference(look, act.plan):
            raise StaleError(differs)
        request = await self._execute(act, look, token)
        seen = await self._watched(wish.stack, act, look.stack.id, token)
        match seen.came:
            case Came.SUCCEEDED:
                return observing.receipt(act.plan, seen, f"The stack {wish.stack} is {seen.status}.", request)
            case Came.ROLLED_BACK:
                raise ActFailedError(f"rolled back, {seen.why}")
            case _:
                proof = observing.receipt(act.plan, seen, f"The stack {wish.stack} is stuck in {seen.status}.", request)
                raise ActFailedError(f"stuck, {seen.why}", proof)

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        """What the stack's events say of this grant. Waits while the provider works on it."""
        wish, token = Wish.of(intent), execution_token(grant_digest)
        since = _ago(plan.planned_at, CLOCKS)
        try:
            while True:
                async with self._reading(wish.stack, intent.id) as reading:
                    for _ in range(self._polls()):
                        found = observing.seen(await reading.events(planning.stack_of(plan), token, since))
                        if found.came is not Came.RUNS:
                            change_set = await reading.change_set(planning.change_set_of(plan), planning.stack_of(plan))
                            execution = change_set.execution if change_set is not None else None
                            return observing.observation(plan, found, execution, _request(journal, grant_digest))
                        await asyncio.sleep(self._settings.poll_seconds)
        except ProviderError as exc:
            return Observation(Found.UNKNOWN, f"the stack cannot be read: {exc}")

    async def tidy(self, now: int) -> None:
        """Take away our change sets whose intents are over, whatever became of them, on every stack there is."""
        name = "keyturn-tidy"
        policy = sessions.listing_policy(self._ground)
        session = await self._aws.assume_role(self._settings.read_role, name, policy, MIN_SECONDS)
        async with client.stacks(self._aws, session) as listing:
            for stack in await listing.names():
                await self._tidy_stack(listing, stack, now)

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    # ------------------------------------------------------------ planning

    async def _propose(self, wish: Wish, named: Named, intent_id: str, *, is_new: bool) -> str:
        """The ARN of a change set that this very call made."""
        role = self._settings.service_role
        policy = sessions.proposing_policy(self._ground, wish.stack, named, role, wish.url)
        session = await self._aws.assume_role(self._settings.plan_role, session_name(intent_id), policy, MIN_SECONDS)
        async with client.stacks(self._aws, session) as proposing:
            # Law 1: whatever bears this name already is somebody else's, and AlreadyExists refuses the plan.
            return await proposing.create_change_set(wish, named, is_new=is_new, service_role=role)

    async def _worked_out(self, reading: Stacks, arn: str, stack: str) -> ChangeSet:
        while True:
            made = await reading.change_set(arn, stack)
            if made is None:
                raise TargetMissingError("the change set was deleted while it was worked out")
            if made.is_made:
                return made
            await asyncio.sleep(self._settings.poll_seconds)

    async def _look(self, reading: Stacks, made: ChangeSet) -> Look:
        stack = await reading.stack(made.stack_id)
        if stack is None:
            raise TargetMissingError(f"the stack {made.stack_id} is gone")
        previous = None if stack.is_empty else await reading.template(stack.id)
        return Look(stack, made, previous, await reading.template(stack.id, made.arn))

    # ------------------------------------------------------------ acting

    async def _execute(self, act: Act, look: Look, token: str) -> str:
        """Take the one step. ActFailedError: it certainly was not taken. OutcomeUnknownError: that is open."""

        async def is_refused(twin: Credentials) -> bool:
            async with client.stacks(self._aws, twin) as stacks:
                try:
                    await stacks.change_set(look.change_set.arn, look.stack.id)
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
            lambda dies_at: sessions.acting_policy(look.change_set, dies_at),
            is_refused,
        )
        what = f"execute {look.change_set.arn}"
        kept = planning.keepable(look) or {}
        await act.journal.started(STEP, what, {"stack": look.stack.id, "token": token, **kept})
        async with client.stacks(self._aws, minted.credentials, minted.seconds_left) as stacks:
            try:
                request = await stacks.execute(look.change_set, token)
            except RefusedError as exc:
                raise ActFailedError(f"CloudFormation refuses: {exc}; nothing was done") from exc
            except UnansweredError as exc:
                raise OutcomeUnknownError(f"{exc}; whether the change set is being executed is not known") from exc
        await act.journal.done(STEP, what, {"request": request})
        return request

    async def _watched(self, stack: str, act: Act, stack_id: str, token: str) -> Seen:
        """Wait until the provider is done; the runner ends the wait with the lease."""
        since = _ago(act.plan.planned_at, CLOCKS)
        while True:
            try:
                async with self._reading(stack, act.intent.id) as reading:
                    for _ in range(self._polls()):
                        seen = observing.seen(await reading.events(stack_id, token, since))
                        # Its first event may be written a moment after the call was answered.
                        if seen.came not in {Came.NOTHING, Came.RUNS}:
                            return seen
                        await asyncio.sleep(self._settings.poll_seconds)
            except ProviderError as exc:
                # It works on, whether we see it or not.
                log.warning("cannot watch", extra={"intent_id": act.intent.id, "reason": str(exc)})
                await asyncio.sleep(self._settings.poll_seconds)
            if self._clock() >= act.deadline.lease_until:
                raise OutcomeUnknownError("the lease is over, and the provider is still at it")

    # ------------------------------------------------------------ tidying

    async def _tidy_stack(self, listing: Stacks, stack: str, now: int, intent_id: str = "", round_: int = 0) -> None:
        """Of one stack: what is over, and what earlier rounds of this intent left."""
        over = [
            each for each in await listing.change_sets(stack) if _is_over(each, _ago(now, SPARE), intent_id, round_)
        ]
        await self._take_away(stack, over)

    async def _take_away(self, stack: str, sets: list[Summary] | list[ChangeSet]) -> None:
        if not sets:
            return
        policy = sessions.tidying_policy(self._ground, stack)
        session = await self._aws.assume_role(self._settings.plan_role, "keyturn-tidy", policy, MIN_SECONDS)
        async with client.stacks(self._aws, session) as stacks:
            for each in sets:
                await stacks.delete_change_set(each)
                log.info("change set taken away", extra={"change_set": each.arn, "was": each.description})

    @asynccontextmanager
    async def _reading(self, stack: str, intent_id: str) -> AsyncIterator[Stacks]:
        """One stack, to read."""
        policy = sessions.reading_policy(self._ground, stack)
        session = await self._aws.assume_role(self._settings.read_role, session_name(intent_id), policy, MIN_SECONDS)
        async with client.stacks(self._aws, session) as stacks:
            yield stacks

    def _polls(self) -> int:
        return max(1, int(WATCH_SECONDS / self._settings.poll_seconds))


def _require_changeable(stack: Stack) -> None:
    """Raise TargetMissingError when the stack takes no change now."""
    if stack.is_busy:
        raise TargetMissingError(f"{stack.name} is {stack.status}: somebody changes it now; ask again afterwards")
    if stack.status.endswith("_FAILED") or stack.status == "ROLLBACK_COMPLETE":
        raise TargetMissingError(f"{stack.name} is {stack.status}: it can't be changed before somebody mends it")


def _is_over(each: Summary, before: datetime, intent_id: str, round_: int) -> bool:
    """Whether no intent can need it: those that were executed are the provider's own history, and stay."""
    left = Left.of(each.name, each.description)
    if left is None or each.execution not in {"AVAILABLE", "UNAVAILABLE", "OBSOLETE"}:
        return False
    if left.intent_id == intent_id and each.name.startswith(own_prefix(intent_id)) and left.round < round_:
        return True
    return each.created + timedelta(seconds=left.ttl) < before


def _request(journal: tuple[JournalEntry, ...], grant: str) -> str:
    done = [entry for entry in journal if entry.grant == grant and entry.step == STEP and entry.entry == "done"]
    return str(done[-1].detail.get("request", "")) if done else ""


def _ago(unix_ms: int, span: timedelta) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC) - span


async def open_executor(settings: Mapping[str, str]) -> InfraExecutor:
    """The executor with these settings and this machine's clock."""
    clock, chance = (lambda: time.time_ns() // 1_000_000), (lambda: secrets.token_bytes(16))
    return InfraExecutor(Settings.parse(settings), clock, chance)
