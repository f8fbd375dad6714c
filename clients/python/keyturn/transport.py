"""How what an agent says reaches Keyturn, and how it hears: HTTP, Kafka, or memory in a test. A Protocol; no I/O."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from keyturn.canonical import Json
from keyturn.errors import FieldError
from keyturn.intents import Sealed, Unsigned
from keyturn.outcomes import Refused, Status


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to an intent: it is recorded, or was refused at the door and never will be."""

    intent: str
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What policy would say, were this submitted now. Nothing was submitted, and nothing is promised."""

    #: `permit`, `deny`, `require_approval`.
    effect: str
    risk: str | None = None
    rules: tuple[str, ...] = ()
    #: Who would be asked: seats, assurance, seconds.
    requirement: Mapping[str, object] | None = None
    errors: tuple[FieldError, ...] = ()
    #: What could not be seen without the executor's plan.
    caveats: tuple[str, ...] = ()
    #: What nobody could find out, which only raises the class.
    unknown_facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ActionOffer:
    """An action that an executor offers."""

    name: str
    title: str = ""
    #: JSON Schema of its properties.
    parameters: Mapping[str, object] = field(default_factory=dict)


class Transport(Protocol):
    """One way to Keyturn. Every method may raise NoConnectionError, NotAllowedError and AnswerError."""

    async def start(self) -> None:
        """Connect. When this returns the configuration works as far as can be seen without asking for anything."""
        ...

    async def submit(self, asked: Sealed | Unsigned, traceparent: str | None) -> Submitted:
        """Say an intent. When this returns it is durable, or was refused. The same again changes nothing."""
        ...

    async def withdraw(self, intent_id: str, said: Sealed | None, reason: str | None) -> None:
        """Take an intent back. When this returns the withdrawal is durable; whether it came in time the phase says."""
        ...

    def watch(self, intent_id: str) -> AsyncGenerator[Status, None]:
        """The current status, if there is one, then each that follows. Never ends by itself; lost connections are its
        affair.

        Phases that passed while nobody looked may be left out, the newest never.
        """
        ...

    async def status(self, intent_id: str) -> Status | None:
        """The status now; None if there is none yet."""
        ...

    async def check(self, members: Mapping[str, Json], asked: Sealed | None) -> Check:
        """What policy would say."""
        ...

    async def actions(self) -> tuple[ActionOffer, ...]:
        """What executors offer."""
        ...

    async def aclose(self) -> None:
        """Let go of everything. Nothing is withdrawn."""
        ...
