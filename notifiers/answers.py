"""The core's answers in words for people, and where in a row to find the one to a given click. No I/O.

One sentence a refusal: what it means and what to do. Every channel says the same.
"""

from dataclasses import dataclass
from typing import Final, Literal

from schemas.records import Answer, PendingApproval, Refusal, Source

MEANING: Final[dict[Refusal, str]] = {
    Refusal.BAD_SIGNATURE: "the notifier's key may not say this: its operator must look at the directory's keys",
    Refusal.NOT_ENTITLED: "this notifier may not vouch for your login: an administrator lists the login's provider in "
    "`providers` of the notifier's key in the directory",
    Refusal.MALFORMED: "the core could not read it",
    Refusal.WRONG_PARTITION: "it came in on the wrong partition",
    Refusal.ID_OUT_OF_WINDOW: "this intent is too old to be known",
    Refusal.UNKNOWN_AGENT: "the agent is not in the directory",
    Refusal.UNKNOWN_PERSON: "no active person of the directory has this account",
    Refusal.UNKNOWN_ACTION: "no executor offers this action",
    Refusal.UNKNOWN_INTENT: "the core knows no such intent",
    Refusal.BAD_PARAMETERS: "the parameters do not fit the action",
    Refusal.SECRET_FOUND: "a secret was found in it",
    Refusal.DUPLICATE: "it was said before",
    Refusal.CONFLICT: "something else was said before under this id",
    Refusal.OVERLOADED: "too much waits already",
    Refusal.COOL_DOWN: "people denied this a while ago",
    Refusal.STALE_WORLD: "it rests on documents that are no longer in force",
    Refusal.WRONG_ROUND: "it belongs to another round of planning",
    Refusal.WRONG_QUESTION: "the question has changed since: read it again",
    Refusal.WRONG_GRANT: "another grant's outcome is unknown: read it again",
    Refusal.WRONG_INSTANCE: "another instance holds the grant",
    Refusal.WRONG_PHASE: "this is not the time for it: read it again",
    Refusal.SELF_APPROVAL: "you stand behind the requester, and nobody approves for themselves",
    Refusal.NO_SEAT: "none of the seats that must be filled is yours",
    Refusal.ALREADY_DECIDED: "it is decided already, or you said so before",
    Refusal.BARRED: "you revoked on this question; your yes no longer counts on it",
    Refusal.ASSURANCE_TOO_LOW: "this needs more certainty about who you are: log in afresh, or use a stronger channel",
    Refusal.LATE: "the deadline has passed",
    Refusal.FINAL: "it has ended already",
    Refusal.NOTHING_TO_REVOKE: "you have no yes on this question",
    Refusal.NOT_LOST: "the log still holds it: nothing is lost there",
    Refusal.INTERNAL: "the core failed to judge it; its operator must look at the audit trail",
}
"""Every refusal has its sentence; a test holds the catalogue against it."""

State = Literal["deciding", "taken", "refused", "forgotten"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the core made of one click, as far as the row shows it."""

    state: State
    refusal: Refusal | None = None


def find(row: PendingApproval | None, said: Source) -> Found:
    """The answer to the word at this position. `forgotten`: answered so long ago that only the trail knows."""
    if row is None:
        return Found("deciding")
    for answer in row.answers:
        if answer.source == said:
            return Found("taken") if answer.refusal is None else Found("refused", answer.refusal)
    if any(vote.source == said for vote in row.votes):
        return Found("taken")
    return Found("forgotten" if any(_is_later(answer, said) for answer in row.answers) else "deciding")


def _is_later(answer: Answer, said: Source) -> bool:
    """One partition is decided in order: a later answer means that this one was given."""
    source = answer.source
    return (source.topic, source.partition) == (said.topic, said.partition) and source.offset > said.offset
