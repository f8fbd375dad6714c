"""What became of an intent: a closed set of values, to be matched. No I/O.

>>> outcome: Outcome = Denied("no contract with them", intent="reporter.01JDX6Y7000000000000000000")
>>> match outcome:
...     case Succeeded(receipt):
...         print(receipt.summary)
...     case Denied(reason) | Revoked(reason):
...         print("a person said no:", reason)
...     case Expired() | Withdrawn():
...         print("nobody decided, or it was taken back")
...     case Refused(refusal, errors):
...         print("Keyturn could not accept it:", refusal, errors)
...     case Failed(reason):
...         print("it was approved, tried, and failed:", reason)
...     case Unknown():
...         print("it may or may not have been done: a person finds out")
...     case _ as never:
...         assert_never(never)
a person said no: no contract with them
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from keyturn.errors import FieldError


class Phase(StrEnum):
    """Where an intent is in its life."""

    #: On the log, and not answered yet; only the gateway tells.
    SUBMITTED = "submitted"
    PLANNING = "planning"
    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    #: It may or may not have been done; people find out.
    UNKNOWN = "unknown"
    REFUSED = "refused"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    EXPIRED = "expired"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow.

        >>> Phase.DENIED.is_final, Phase.APPROVED.is_final, Phase.UNKNOWN.is_final
        (True, False, False)
        """
        return self in FINAL


FINAL: Final = frozenset(
    {
        Phase.REFUSED,
        Phase.DENIED,
        Phase.WITHDRAWN,
        Phase.REVOKED,
        Phase.EXPIRED,
        Phase.SUCCEEDED,
        Phase.FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof from the provider, as far as the requester may see it."""

    #: What was done, in a sentence.
    summary: str
    #: More of it, where the gateway tells more: the executor's measures and changes.
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """Where an intent stands."""

    intent: str
    phase: Phase
    reason: str | None = None
    #: Why it was refused: one word of Keyturn's catalogue.
    refusal: str | None = None
    #: Unix milliseconds on Kafka's clock.
    at: int | None = None
    #: When nobody can decide any more, Unix milliseconds; over Kafka it is not told.
    deadline: int | None = None
    receipt: Receipt | None = None
    errors: tuple[FieldError, ...] = ()

    @property
    def outcome(self) -> "Outcome | None":
        """What became of it, if anything has.

        >>> Status("reporter.01JDX6Y7000000000000000000", Phase.PENDING).outcome is None
        True
        """
        match self.phase:
            case Phase.SUCCEEDED:
                return Succeeded(self.receipt or Receipt(self.reason or ""), intent=self.intent, at=self.at)
            case Phase.FAILED:
                return Failed(self.reason, intent=self.intent, at=self.at)
            case Phase.DENIED:
                return Denied(self.reason, intent=self.intent, at=self.at)
            case Phase.REVOKED:
                return Revoked(self.reason, intent=self.intent, at=self.at)
            case Phase.EXPIRED:
                return Expired(intent=self.intent, at=self.at)
            case Phase.WITHDRAWN:
                return Withdrawn(self.reason, intent=self.intent, at=self.at)
            case Phase.REFUSED:
                return Refused(self.refusal or "refused", self.errors, self.reason, intent=self.intent, at=self.at)
            case Phase.UNKNOWN:
                return Unknown(self.reason, intent=self.intent, at=self.at)
            case Phase.SUBMITTED | Phase.PLANNING | Phase.PENDING | Phase.APPROVED | Phase.EXECUTING:
                return None
            case _ as never:
                assert_never(never)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What every outcome carries."""

    intent: str
    #: When, in Unix milliseconds on Kafka's clock.
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Succeeded(_Ended):
    """The executor did exactly what was approved, once.

    >>> str(Succeeded(Receipt("Copied 3 objects."), intent="reporter.01JDX6Y7000000000000000000"))
    'done: Copied 3 objects.'
    """

    receipt: Receipt

    def __str__(self) -> str:
        return f"done: {self.receipt.summary}"


@dataclass(frozen=True, slots=True)
class Failed(_Ended):
    """It was approved, the executor tried, and it failed; the reason is the executor's."""

    reason: str | None = None

    def __str__(self) -> str:
        return _sentence("approved and tried, but it failed", self.reason)


@dataclass(frozen=True, slots=True)
class Denied(_Ended):
    """Policy or a person said no. Asking again for the same is asking the same people again."""

    reason: str | None = None

    def __str__(self) -> str:
        return _sentence("denied, nothing was done", self.reason)


@dataclass(frozen=True, slots=True)
class Revoked(_Ended):
    """A person took their yes back before it was done."""

    reason: str | None = None

    def __str__(self) -> str:
        return _sentence("the approval was taken back, nothing was done", self.reason)


@dataclass(frozen=True, slots=True)
class Expired(_Ended):
    """Nobody decided in time, or nobody did what was approved. Nothing was done."""

    def __str__(self) -> str:
        return "nobody decided in time, nothing was done"


@dataclass(frozen=True, slots=True)
class Withdrawn(_Ended):
    """The requester, or an owner of the agent, took it back. Nothing was done."""

    reason: str | None = None

    def __str__(self) -> str:
        return _sentence("withdrawn, nothing was done", self.reason)


@dataclass(frozen=True, slots=True)
class Refused(_Ended):
    """Keyturn could not accept the intent: no executor for it, parameters that don't fit, no plan. Nothing was done."""

    #: One word: `bad_parameters`, `unknown_action`, `id_out_of_window`…
    refusal: str
    #: The places that are wrong, where Keyturn names them.
    errors: tuple[FieldError, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        detail = "; ".join(map(str, self.errors)) or self.reason
        return _sentence(f"refused ({self.refusal}), nothing was done", detail)


@dataclass(frozen=True, slots=True)
class Unknown(_Ended):
    """It was approved and begun, and nobody knows whether it was done. Never do it again yourself: people find out.

    It may still become Succeeded or Failed: `wait(until_known=True)` waits for that.
    """

    reason: str | None = None

    def __str__(self) -> str:
        return _sentence("begun, and nobody knows yet whether it was done; people find out", self.reason)


NotDone: TypeAlias = Failed | Denied | Revoked | Expired | Withdrawn | Refused | Unknown
"""Every outcome but the good one."""

Outcome: TypeAlias = Succeeded | NotDone
"""What became of an intent."""


def _sentence(what: str, why: str | None) -> str:
    return f"{what}: {why}" if why else what
