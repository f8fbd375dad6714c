"""What the gateway takes and gives, as JSON.

Requests are closed and strict; answers may grow, so their readers ignore what they do not know. Instants are Unix
milliseconds, as everywhere on the log.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.record import Digest, Identifier, IntentId, Name, Prose, Seconds
from schemas.records import Action, Assurance, Phase, Receipt, Refusal, Resource, Result, Risk

JSON: Final = "application/json"
SEALED_INTENT: Final = "application/vnd.keyturn.intent.v1+json"
SEALED_WITHDRAWAL: Final = "application/vnd.keyturn.withdrawal.v1+json"
DEFAULT_TTL: Final = 3600


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ContextForm(_Request):
    """In which circumstances, in the requester's own words."""

    reason: Prose = ""
    run: Identifier | None = None
    traceparent: Annotated[str, Field(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")] | None = None
    ticket: Identifier | None = None


class IntentForm(_Request):
    """`POST /v1/intents` and `/v1/check` by whom has no key: the gateway makes the intent of it, and signs."""

    action: Action
    resource: Resource
    context: ContextForm = ContextForm()
    ttl: Seconds = DEFAULT_TTL
    #: Chosen by the requester, so that asking again is harmless; or send an Idempotency-Key.
    id: IntentId | None = None


class WithdrawalForm(_Request):
    """`POST /v1/intents/{id}/withdraw` by whom has no key."""

    reason: Prose | None = None


class FaultView(_Answer):
    """One thing that is wrong, and where (a JSON Pointer into the intent)."""

    path: str
    message: str


class Links(_Answer):
    """Where to look next."""

    self: str
    events: str


class Accepted(_Answer):
    """It is on the log: these bytes, at this place."""

    id: str
    digest: Digest
    content_digest: Digest
    partition: int
    offset: int
    links: Links


class Withdrawn(_Answer):
    """The withdrawal is on the log; the core decides whether it came in time."""

    id: str
    partition: int | None = None
    offset: int | None = None
    links: Links


class SeatsView(_Answer):
    """How many people said yes, of how many. Who may be asked is nobody's business who asks."""

    filled: int
    wanted: int


class OutcomeView(_Answer):
    """What became of it."""

    result: Result
    #: Found out afterwards, by observing or by people, not reported by whoever acted.
    flagged: bool = False
    summary: str | None = None
    undo: str | None = None
    receipt: Receipt | None = None


class QuarantineView(_Answer):
    """A record under this id that nobody could read, or attribute."""

    refusal: Refusal
    reason: str
    partition: int
    offset: int
    sha256: Digest


class IntentView(_Answer):
    """`GET /v1/intents/{id}`, and the data of an event."""

    id: str
    #: Changes whenever anything here does; for `?wait=&after=`.
    version: str
    #: `submitted`: on the log, not answered yet. `quarantined`: nobody could read it, and no row came of it.
    phase: Phase | Literal["submitted", "quarantined"]
    is_final: bool
    refusal: Refusal | None = None
    reason: str | None = None
    action: str | None = None
    resource: str | None = None
    digest: Digest | None = None
    question: Digest | None = None
    risk: Risk | None = None
    seats: SeatsView | None = None
    #: When silence becomes a no.
    deadline: int | None = None
    outcome: OutcomeView | None = None
    quarantined: tuple[QuarantineView, ...] = ()
    asked_at: int | None = None
    updated_at: int


class Page(_Answer):
    """`GET /v1/intents`: own ones, newest first."""

    items: tuple[IntentView, ...]
    #: `?after=` of the next page, if there is one.
    next: str | None = None


class RequirementView(_Answer):
    """What would have to be fulfilled: how many seats, not whose."""

    seats: int
    assurance: Assurance
    within: int


class CheckView(_Answer):
    """`POST /v1/check`: what policy would say now. It binds nobody."""

    effect: Literal["permit", "deny", "require_approval", "refused"]
    risk: Risk | None = None
    rules: tuple[str, ...] = ()
    requirement: RequirementView | None = None
    executor: Name | None = None
    reason: str | None = None
    refusal: Refusal | None = None
    errors: tuple[FaultView, ...] = ()
    unknown_facts: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


class ActionView(_Answer):
    """One thing that an executor offers."""

    name: str
    executor: Name
    title: str
    reversibility: str
    #: JSON Schema of `action.properties`, and of `resource`.
    parameters: dict[str, JsonValue]
    resource: dict[str, JsonValue]


class Actions(_Answer):
    """`GET /v1/actions`."""

    actions: tuple[ActionView, ...]
