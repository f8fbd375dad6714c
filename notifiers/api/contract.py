"""What this API takes and gives, as JSON.

Requests are closed and strict; answers may grow, so their readers ignore what they do not know.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from notifiers.answers import State
from notifiers.card import Card
from schemas.record import Digest, Prose
from schemas.records import Assurance, Phase, Question, Refusal, Risk, Source, Verdict

Reason = Annotated[Prose, Field(pattern=r"\S")]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class DecisionBody(_Request):
    """`POST /v1/approvals/{id}/decisions`. The question is in If-Match."""

    verdict: Verdict
    #: The digest of the card that the person saw.
    card: Digest
    #: Needed with `deny`.
    reason: Reason | None = None


class ResolutionBody(_Request):
    """`POST /v1/approvals/{id}/resolutions`: what was found out about an `unknown`."""

    grant: Digest
    found: Literal["succeeded", "failed"]
    card: Digest
    reason: Reason


class SeatView(_Answer):
    """One place to fill."""

    of: str
    person: str | None = None


class RequirementView(_Answer):
    """What must be fulfilled."""

    seats: tuple[SeatView, ...]
    assurance: Assurance
    within: int


class Disqualified(_Answer):
    """Somebody whose yes would be refused for who they are."""

    person: str
    why: Refusal


class You(_Answer):
    """What the core would probably say to the person who asks; a refusal, or nothing foreseen."""

    person: str
    seats: tuple[str, ...]
    approve: Refusal | None = None
    deny: Refusal | None = None
    revoke: Refusal | None = None
    #: To a word about an `unknown` (`POST …/resolutions`).
    resolve: Refusal | None = None
    #: By which seats this person may say it: of those who could have been asked, or `group:operators` where nobody was.
    resolves_as: tuple[str, ...] = ()


class ApprovalView(_Answer):
    """`GET /v1/approvals/{id}`."""

    id: str
    #: Changes whenever the row does; for `?wait=&after=`.
    version: str
    phase: Phase
    question: Question | None = None
    question_digest: Digest | None = None
    card: Card
    #: Whether Approve may be offered for this card (law 7).
    offers_approve: bool
    requirement: RequirementView | None = None
    may_not_approve: tuple[Disqualified, ...] = ()
    you: You
    grant: Digest | None = None
    asked_at: int
    expires_at: int | None = None
    reason: str | None = None


class Summary(_Answer):
    """One line of `GET /v1/approvals`."""

    id: str
    version: str
    phase: Phase
    question_digest: Digest | None = None
    action: str | None = None
    resource_type: str | None = None
    resource: str | None = None
    risk: Risk | None = None
    seats_filled: int
    seats: int
    asked_at: int
    expires_at: int | None = None


class Page(_Answer):
    """`GET /v1/approvals`."""

    approvals: tuple[Summary, ...]
    #: Changes whenever a row of this selection does; for `?wait=&after=`.
    version: str
    #: The next page, if there is one.
    cursor: str | None = None


class Recorded(_Answer):
    """A person's word is on the log; the core decides. Location: where its answer will be."""

    recorded: Source
    location: str
    #: What the core will probably refuse it for. Only a message: the core decides.
    expected_refusal: Refusal | None = None
    detail: str


class AnswerView(_Answer):
    """`GET /v1/approvals/{id}/decisions/{position}`: the core's answer."""

    state: State
    refusal: Refusal | None = None
    #: The problem type of the refusal.
    type: str | None = None
    detail: str
    phase: Phase | None = None
    seats_filled: int = 0
    seats: int = 0
