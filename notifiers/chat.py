"""What a chat product is to us: places where cards stand, and one way to put them there. A third one is one module.

An adapter renders (pure) and carries (I/O); it decides nothing. Which card stands where is kept on the topic `cards`
(`notifiers.shown`), and what should stand there is a function of the row (`notifiers.reconcile`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from notifiers.card import Bounds, Card
from schemas import canonical
from schemas.canonical import Json
from schemas.records import Channel


class ChatError(Exception):
    """A place could not be written to."""


class BusyError(ChatError):
    """Not now: the product limits how often, or does not answer. It is tried again, after so many seconds at least."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class InDoubtError(BusyError):
    """It may have been written, or not: nobody answered. Look for it before it is written again."""


class RefusedError(ChatError):
    """Never like this: the place is not there, we are not in it, or the payload is none. A person must look."""


class GoneError(ChatError):
    """The message is not there any more."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a message carries, unseen, so that it is found again: which intent's card, and for which question."""

    intent: str
    #: The first digits of the question.
    question: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message as it goes to the product."""

    #: The product's own JSON: Slack's `{"text", "blocks"}`, an Adaptive Card.
    payload: Mapping[str, Json]
    #: What a notification or a screen reader says.
    summary: str
    #: Whether it has a button that says yes.
    offers_approve: bool

    @property
    def digest(self) -> str:
        """SHA-256 of the payload: another one is another look."""
        return canonical.digest_of(dict(self.payload))


@dataclass(frozen=True, slots=True)
class Superseded:
    """A card for a question that is not the one in force: it says so, and has no buttons."""

    card: Card
    #: In one sentence.
    why: str


class Chat(Protocol):
    """One product, as one app of ours in it."""

    @property
    def channel(self) -> Channel:
        """Which channel its clicks come in by."""
        ...

    @property
    def bounds(self) -> Bounds:
        """How much one message of it can show."""
        ...

    def render(self, card: Card | Superseded) -> Rendered:
        """The message for this card. Pure; equal cards give equal payloads."""
        ...

    async def post(self, place: str, message: Rendered, mark: Mark) -> str:
        """Put it there and return the product's id of it. InDoubtError when nobody can tell whether it is there."""
        ...

    async def update(self, place: str, message_id: str, message: Rendered) -> None:
        """Make it look like this. GoneError when it is not there any more. Doing it twice is doing it once."""
        ...

    async def find(self, place: str, mark: Mark) -> str | None:
        """The id of our message with this mark, if it is there; None as well where nobody can look."""
        ...

    async def remark(self, place: str, message_id: str, text: str) -> None:
        """Say something below it (a thread), plain text."""
        ...
