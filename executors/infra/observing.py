"""What became of an execution: read from the events that carry its token. No I/O.

The provider stamps each event of an operation with the token it was begun with, which is made from the grant. So what
is ours is certain, and whatever else happened to the stack is somebody else's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from executors.contract import Finding, Observation
from executors.infra.client import Event
from executors.infra.planning import MAX_INLINE, MAX_INLINE_BYTES, stack_of
from schemas import canonical
from schemas.canonical import Json
from schemas.record import Scalar
from schemas.records import Change, ListLeaf, Plan, Receipt

SUCCEEDED: Final = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})
ROLLED_BACK: Final = frozenset(
    {"ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE", "DELETE_COMPLETE"}
)
MAX_REASONS: Final = 4


class Came(StrEnum):
    """How an execution ended, or that it has not."""

    NOTHING = "nothing"
    RUNS = "runs"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled back"
    #: It failed and could not be put back either: parts of it are there.
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the events of one token say."""

    came: Came
    #: The stack's own last status.
    status: str
    #: Why resources failed, the first first.
    reasons: tuple[str, ...]
    #: The last event of each resource, by its logical id.
    resources: Mapping[str, Event]

    @property
    def why(self) -> str:
        """In words."""
        reasons = "; ".join(self.reasons) or "the provider gives no reason"
        return f"{self.status}: {reasons}"


def seen(events: Sequence[Event]) -> Seen:
    """Read the events of one token, oldest first."""
    of_stack = [event for event in events if event.is_of_stack]
    status = of_stack[-1].status if of_stack else ""
    # The failures that follow the first are its consequences: "Resource creation cancelled".
    reasons = tuple(
        f"{event.logical_id}: {event.reason or event.status}" for event in events if event.status.endswith("_FAILED")
    )[:MAX_REASONS]
    resources = {event.logical_id: event for event in events if not event.is_of_stack}
    return Seen(_came(status, is_begun=bool(events)), status, reasons, resources)


def _came(status: str, *, is_begun: bool) -> Came:
    if not is_begun:
        return Came.NOTHING
    if status in SUCCEEDED:
        return Came.SUCCEEDED
    if status in ROLLED_BACK:
        return Came.ROLLED_BACK
    if status.endswith("_FAILED"):
        return Came.STUCK
    return Came.RUNS


def observation(plan: Plan, found: Seen, execution: str | None, request: str = "") -> Observation:
    """The finding. `execution` is the change set's own status; None: it is there no more."""
    match found.came:
        case Came.SUCCEEDED:
            return Observation(Finding.APPLIED, found.status, receipt(plan, found, "Observed: it is done.", request))
        case Came.ROLLED_BACK:
            return Observation(Finding.NOT_APPLIED, f"rolled back: {found.why}")
        case Came.STUCK:
            return Observation(
                Finding.PARTIAL, found.why, receipt(plan, found, f"Observed: stuck in {found.status}.", request)
            )
        case Came.RUNS:
            return Observation(Finding.UNKNOWN, f"the provider still works on it: {found.status or 'begun'}")
        case Came.NOTHING:
            pass
    if execution is None or execution in {"AVAILABLE", "UNAVAILABLE", "OBSOLETE"}:
        gone = "the change set is gone" if execution is None else f"the change set is {execution}"
        return Observation(Finding.NOT_APPLIED, f"{gone}, and no event of the stack carries this grant's token")
    return Observation(Finding.CONFLICT, f"the change set is {execution}, but not by this grant: somebody executed it")


def receipt(plan: Plan, found: Seen, summary: str, request: str = "") -> Receipt:
    """The proof of what was done: in full when it is short, else bound by digest."""
    planned = {change.target: change for change in plan.changes}
    rows: list[Json] = [
        [name, event.kind, event.physical_id, event.status] for name, event in sorted(found.resources.items())
    ]
    data = canonical.encode(rows)
    leaf = ListLeaf(name="resources", count=len(rows), bytes=len(data), digest=canonical.digest(data))
    stack = stack_of(plan).split("/")[1]
    changes: list[Change] = []
    if len(rows) <= MAX_INLINE and leaf.bytes <= MAX_INLINE_BYTES:
        for name, event in sorted(found.resources.items()):
            detail: dict[str, Scalar] = {"type": event.kind, "status": event.status}
            if event.physical_id:
                detail["physical_id"] = event.physical_id
            was = planned.get(f"{stack}/{name}") or Change(verb="update", target=f"{stack}/{name}")
            changes.append(was.model_copy(update={"detail": detail}))
    return Receipt(
        summary=summary,
        changes=tuple(changes),
        lists=(leaf,),
        measures={"resources": len(rows)},
        requests=(request,) if request else (),
    )
