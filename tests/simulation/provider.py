"""What executors act upon: a provider with its own clock, a plugin over it, and a ledger of every effect it had."""

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from executors.contract import (
    Act,
    ActFailedError,
    Finding,
    Observation,
    OutcomeUnknownError,
    StaleError,
    TargetMissingError,
)
from schemas.records import Change, Fingerprint, Intent, JournalEntry, Plan, Receipt, Reversibility, Round
from tests.simulation.clockwork import Host, Loop

if TYPE_CHECKING:
    from tests.simulation.kafka import Kafka


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that really happened."""

    intent: str
    digest: str
    grant: str
    instance: str
    at: int
    #: How many records were durable before it.
    seq: int


@dataclass(slots=True)
class Manner:
    """How the provider and its plugin behave in this history; chances of each."""

    plan_seconds: float = 0.2
    missing: float = 0.0
    #: Somebody else changes the target between plan and act.
    drifts: float = 0.0
    look_seconds: float = 0.2
    mint_seconds: float = 0.1
    #: The session is asked for by duration, and the answer may come late.
    by_duration: float = 0.0
    call_seconds: float = 0.3
    call_is_slow: float = 0.0
    loses_answer: float = 0.0
    refuses: float = 0.0
    cannot_tell: float = 0.0


@dataclass
class Provider:
    """The one thing outside that everybody can look at."""

    loop: Loop
    random: Random
    kafka: "Kafka"
    manner: Manner
    #: How far its clock is ahead of true time.
    skew_ms: int = 0
    version: int = 1
    effects: list[Effect] = field(default_factory=list)
    #: Calls that came with a credential that was dead.
    too_late: int = 0
    discarded: int = 0
    #: How often somebody looked.
    looks: int = 0

    def now(self) -> int:
        return self.loop.now_ms + self.skew_ms

    def within(self, seconds: float) -> float:
        """Mostly fast."""
        return seconds * (0.1 + self.random.random() ** 2)

    def was_done(self, grant: str) -> bool:
        return any(effect.grant == grant for effect in self.effects)

    def call(self, act: Act, expires_at: int, host: Host, instance: str) -> "asyncio.Future[bool]":
        """One request on the wire: it lands whatever becomes of whoever sent it. The answer: whether it was done."""
        host.require_alive()
        answer: asyncio.Future[bool] = self.loop.create_future()
        delay = self.within(self.manner.call_seconds)
        if self.random.random() < self.manner.call_is_slow:
            delay += self.random.uniform(2, 25)
        self.loop.later(delay, self._land, act, expires_at, instance, answer)
        return answer

    def _land(self, act: Act, expires_at: int, instance: str, answer: "asyncio.Future[bool]") -> None:
        is_alive = self.now() < expires_at
        if is_alive:
            self.effects.append(
                Effect(
                    act.intent.id,
                    act.plan.intent,
                    act.grant_digest,
                    instance,
                    self.loop.now_ms,
                    self.kafka.seq,
                )
            )
        else:
            self.too_late += 1
        if self.random.random() >= self.manner.loses_answer and not answer.done():
            answer.set_result(is_alive)


@dataclass
class Plugin:
    """An `executors.contract.Executor` over the provider, for one process."""

    provider: Provider
    host: Host
    #: Whose plugin it is, whatever a grant says.
    instance: str

    async def validate(self, intent: Intent) -> None:
        if self.provider.random.random() < self.provider.manner.missing:
            raise TargetMissingError("there is no such bucket")

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        provider = self.provider
        await asyncio.sleep(provider.within(provider.manner.plan_seconds))
        properties = intent.action.properties
        made = Plan.model_validate(
            {
                "round": round_,
                "intent": intent.digest,
                "executor": "s3",
                "manifest": 0,
                "summary": "copies",
                "changes": (Change(verb="copy", target="reports"),),
                "fingerprints": (Fingerprint(target="reports", value=f"v{provider.version}"),),
                "measures": {
                    "objects": properties.get("count", 1),
                    "public": properties.get("force", False),
                },
                "reversibility": Reversibility.EXACT,
                "undo": "delete the copy",
                "planned_at": now,
            }
        )
        if provider.random.random() < provider.manner.drifts:
            provider.loop.later(provider.random.uniform(0, 8), self._drift)
        return made

    def _drift(self) -> None:
        self.provider.version += 1

    async def execute(self, act: Act) -> Receipt:
        provider, manner = self.provider, self.provider.manner
        await asyncio.sleep(provider.within(manner.look_seconds))
        if act.plan.fingerprints[0].value != f"v{provider.version}":
            raise StaleError("the target changed")
        expires_at = await self._mint(act)
        await act.journal.started(1, "copy", {"key": act.grant_digest})
        if provider.random.random() < manner.refuses:
            raise ActFailedError("access denied")
        call = provider.call(act, expires_at, self.host, self.instance)
        try:
            async with asyncio.timeout(15):
                was_done = await call
        except TimeoutError:
            raise OutcomeUnknownError("no answer") from None
        if not was_done:
            raise ActFailedError("the credential had expired")
        await act.journal.done(1, "copy")
        return Receipt(summary="copied")

    async def _mint(self, act: Act) -> int:
        """When the credential dies, by the provider's clock: an instant that it was told, or one that it made of a
        duration, for some providers know no other.
        """
        provider, manner = self.provider, self.provider.manner
        dies_at = act.deadline.credential_dies_at
        seconds = max(0, dies_at - self.host.clock()) // 1000
        delay = provider.within(manner.mint_seconds)
        if provider.random.random() >= manner.by_duration:
            await asyncio.sleep(delay)
            return dies_at
        await asyncio.sleep(delay + provider.random.uniform(0, 12))
        expires_at = provider.now() + 1000 * seconds
        if expires_at > dies_at:
            # Law 5: one that would live longer is thrown away unused.
            provider.discarded += 1
            raise ActFailedError("the session outlives its deadline; thrown away, nothing was done")
        return expires_at

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        provider = self.provider
        provider.looks += 1
        await asyncio.sleep(provider.within(provider.manner.look_seconds))
        # What policy permitted by itself has nobody who could resolve it: there somebody can always tell.
        is_resolvable = intent.action.name != "s3.list"
        if is_resolvable and provider.random.random() < provider.manner.cannot_tell:
            return Observation(Finding.UNKNOWN, "could not tell")
        if provider.was_done(grant_digest):
            return Observation(Finding.APPLIED, "it is there", Receipt(summary="copied"))
        return Observation(Finding.NOT_APPLIED, "it is not there")

    async def tidy(self, now: int) -> None:
        """Planning leaves nothing."""

    async def aclose(self) -> None:
        """There is nothing to close."""
