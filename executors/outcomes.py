"""What an act or an observation came to, in the words of an `Outcome`. No I/O, no clock.

Law 4: what cannot be known is `unknown`. `stale` and "nothing was done" are believed only while the journal holds no
step that was begun.
"""

import contextlib
import unicodedata
from dataclasses import dataclass
from typing import Final

from executors.contract import (
    ActFailedError,
    ExecutorError,
    Finding,
    Observation,
    OutcomeUnknownError,
    StaleError,
)
from schemas import canonical
from schemas.canonical import CanonicalError, Json
from schemas.record import RecordError
from schemas.records import Grant, ListLeaf, Outcome, Receipt, Result

MAX_PROSE: Final = 2000
MAX_LISTS: Final = 16


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended."""

    result: Result
    reason: str | None = None
    receipt: Receipt | None = None


def succeeded(receipt: Receipt) -> Ended:
    """The plugin returned its proof."""
    return Ended(Result.SUCCEEDED, None, receipt)


def of_error(error: BaseException, *, has_started: bool) -> Ended:
    """What an exception out of `execute` means, given whether a step was begun."""
    match error:
        case StaleError() if not has_started:
            return Ended(Result.STALE, str(error))
        case StaleError():
            return Ended(Result.UNKNOWN, f"the executor called the plan stale after it had begun: {error}")
        case ActFailedError():
            return Ended(Result.FAILED, str(error), error.receipt)
        case OutcomeUnknownError():
            return Ended(Result.UNKNOWN, str(error))
        case ExecutorError() if not has_started:
            # It could not even look: the provider's own words tell an operator more than ours.
            return Ended(Result.FAILED, f"{error}; nothing was begun")
        case _ if has_started:
            return Ended(Result.UNKNOWN, f"internal: {type(error).__name__}, after a step was begun")
        case _:
            return Ended(Result.FAILED, f"internal: {type(error).__name__}; nothing was begun")


_FOUND: Final = {
    Finding.APPLIED: Result.SUCCEEDED,
    Finding.NOT_APPLIED: Result.FAILED,
    Finding.PARTIAL: Result.FAILED,
    Finding.CONFLICT: Result.FAILED,
    Finding.UNKNOWN: Result.UNKNOWN,
}


def of_observation(seen: Observation) -> Ended:
    """What an observer found, as a result; the finding's own word stays in the reason."""
    return Ended(_FOUND[seen.finding], f"{seen.finding.value}: {seen.reason}", seen.receipt)


def outcome(
    grant: Grant, instance: str, ended: Ended, *, undo: str | None = None, unknown: str | None = None
) -> Outcome:
    """The record of it. `unknown` is the digest of the OutcomeUnknown that an observation answers.

    Total: a receipt that breaks the record's cap or profile is cut, until what is left can be said.
    """
    was_done = ended.receipt is not None
    made = Outcome(
        intent=grant.question.intent_id,
        grant=grant.digest,
        instance=instance,
        executor=grant.executor,
        result=ended.result,
        observed=unknown is not None,
        unknown=unknown,
        receipt=ended.receipt,
        undo=prose(undo) if was_done and undo else None,
        reason=prose(ended.reason) if ended.reason else None,
    )
    return made if ended.receipt is None else _fitting(made, ended.receipt)


def _fitting(made: Outcome, receipt: Receipt) -> Outcome:
    for cut in (_whole, _bound_by_digest):
        with contextlib.suppress(RecordError, CanonicalError):
            fitting = made.model_copy(update={"receipt": cut(receipt)})
            fitting.to_bytes()
            return fitting
    return made.model_copy(update={"receipt": _summary_only(receipt)})


def _whole(receipt: Receipt) -> Receipt:
    return receipt


def _bound_by_digest(receipt: Receipt) -> Receipt:
    rows: list[Json] = [change.to_json() for change in receipt.changes]
    data = canonical.encode(rows)
    leaf = ListLeaf(name="changes", count=len(rows), bytes=len(data), digest=canonical.digest(data))
    return Receipt(summary=prose(receipt.summary), lists=(*receipt.lists, leaf)[-MAX_LISTS:])


def _summary_only(receipt: Receipt) -> Receipt:
    return Receipt(summary=prose(receipt.summary))


def prose(text: str) -> str:
    """Somebody's words as a record can carry them: NFC, no lone surrogates, bounded."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())[:MAX_PROSE]
