"""What an executor is. A plugin imports this module and `schemas`, and nothing else of ours (those on AWS share
`executors.aws`).

An executor touches the world; the runner (`executors.runner`) owns Kafka, the grant and the clock. So a plugin never
sees a topic, and the runner never sees an SDK. It is found by the entry point group `keyturn.executors`, whose object
is a `Plugin`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from schemas.record import Scalar
from schemas.records import Grant, Intent, JournalEntry, Plan, Receipt, Round
from schemas.snapshots import Manifest


class ExecutorError(Exception):
    """Why an executor could not plan, act or observe; the text is shown to people and holds no secret."""


class TargetMissingError(ExecutorError):
    """The thing to act on is not there, or the parameters make no sense in the world: there is no plan."""


class StaleError(ExecutorError):
    """A fingerprint differs from the plan's and nothing was done: the approval is void."""


class ActFailedError(ExecutorError):
    """The provider refused for certain. What was done before is in `receipt`."""

    def __init__(self, reason: str, receipt: Receipt | None = None) -> None:
        super().__init__(reason)
        self.receipt = receipt


class OutcomeUnknownError(ExecutorError):
    """A call may or may not have had its effect (time-out, lost answer). Never retried; a later observation tells."""


class Finding(StrEnum):
    """What observing can conclude."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    #: Some of the plan's changes are there and no more will come.
    PARTIAL = "partial"
    #: Somebody else's change stands where the plan's should.
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Observation:
    """What the world looks like after a lease ended without an outcome."""

    finding: Finding
    reason: str
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the right to act ends. `credential_dies_at` is what minted credentials must die by (law 5).

    Both are Unix milliseconds. A credential that would live longer than `credential_dies_at`, as an absolute instant
    in what the provider returned or was made to promise, is thrown away unused.
    """

    lease_until: int
    credential_dies_at: int


class Journal(Protocol):
    """What was done, written before it is done. When a call returns the entry is durable (acks=all)."""

    async def started(self, step: int, what: str, detail: Mapping[str, Scalar] | None = None) -> None:
        """Step `step` is about to be taken."""
        ...

    async def done(self, step: int, what: str, detail: Mapping[str, Scalar] | None = None) -> None:
        """Step `step` had its effect."""
        ...


@dataclass(frozen=True, slots=True)
class Act:
    """Everything an executor may act on: the approved intent and plan, the grant they rest on, and until when."""

    intent: Intent
    plan: Plan
    grant: Grant
    #: Digest of the grant: the idempotency key of this act is derived from it and the step.
    grant_digest: str
    deadline: Deadline
    journal: Journal


class Executor(Protocol):
    """Six methods. Each is total: it returns, or raises one of the errors above."""

    async def validate(self, intent: Intent) -> None:
        """Raise TargetMissingError when the parameters cannot be meant, beyond what their JSON Schema says."""
        ...

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        """What would be done, read from the real system with rights that can change nothing in it.

        Some providers tell only once they were handed a proposal (a change set): it is no change, the credential that
        leaves it there can do nothing with it, and planning the same round again leaves no second one. `tidy` takes it
        away. The runner fills in `manifest`, the version of the manifests in force.
        """
        ...

    async def execute(self, act: Act) -> Receipt:
        """Do exactly the plan, once, with credentials minted for this grant and cut to the plan.

        Re-reads every fingerprint first: StaleError, nothing done, when one differs. Journals each step before it.
        No library retries for calls without an idempotency token.
        """
        ...

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        """What became of an act whose outcome nobody reported. Read-only; called only after the core said `unknown`."""
        ...

    async def tidy(self, now: int) -> None:
        """Take away what planning left with the provider and no intent can need any more.

        Called at the start of each life and now and then, while others plan and act. An executor whose planning
        leaves nothing returns at once.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


Open = Callable[[Mapping[str, str]], Awaitable[Executor]]
"""Opens an executor from its own settings: the `KEYTURN_<EXECUTOR>_…` environment, prefix taken off, lower case."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """What the entry point names: static facts, and how to open the executor."""

    manifest: Manifest
    open: Open
