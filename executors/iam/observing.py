"""What an identity's list of policies says of an act. No I/O.

An attachment bears no mark of who made it. So what the journal knows decides whose it is: no call is ever made that
was not written there before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from executors.contract import Finding, Observation
from executors.iam.parameters import Attachment
from executors.iam.planning import attached_digest
from schemas.records import Change, JournalEntry, Plan, Receipt

STEP = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands there now."""

    #: None: the identity is gone.
    unique_id: str | None
    attached: tuple[str, ...]
    #: The policy's default version and its text's digest; None: the policy is gone.
    policy: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """What the journal says of one grant."""

    is_started: bool
    is_done: bool

    @classmethod
    def of(cls, journal: Sequence[JournalEntry], grant: str) -> "Told":
        """Of this grant alone."""
        entries = {entry.entry for entry in journal if entry.grant == grant and entry.step == STEP}
        return cls("started" in entries, "done" in entries)


def conclude(wanted: Attachment, plan: Plan, seen: Seen, told: Told) -> Observation:
    """The finding. What it cannot tell apart it says in words."""
    planned = {mark.target: mark.value for mark in plan.fingerprints}
    if seen.unique_id != planned.get(wanted.identity):
        gone = "is gone" if seen.unique_id is None else "was deleted and made again under the same name"
        return Observation(Finding.CONFLICT, f"{wanted.identity} {gone}; what was attached to it is gone with it")
    is_there = wanted.policy in seen.attached
    is_as_planned = is_there == (wanted.verb == "attach")
    state = f"{wanted.policy} is {'' if is_there else 'not '}attached to {wanted.identity}"
    if not told.is_started:
        if is_as_planned:
            return Observation(
                Finding.CONFLICT, f"{state}, but not by this act, which never called; somebody else did it"
            )
        return Observation(Finding.NOT_APPLIED, f"{state}; no call was ever begun")
    if not is_as_planned:
        if told.is_done:
            return Observation(
                Finding.CONFLICT, f"{state}: this act changed it, and somebody has changed it back since"
            )
        return Observation(Finding.NOT_APPLIED, state)
    beside = _beside(wanted, planned, seen)
    return Observation(Finding.APPLIED, f"{state}{beside}", receipt(wanted, plan, f"Observed: {state}{beside}.", ""))


def _beside(wanted: Attachment, planned: dict[str, str], seen: Seen) -> str:
    """What others have changed since the plan."""
    changed = []
    before = {*seen.attached} - {wanted.policy} if wanted.verb == "attach" else {*seen.attached, wanted.policy}
    if attached_digest(before) != planned.get(f"{wanted.identity} attached"):
        changed.append("other policies were attached or detached since the plan")
    if seen.policy != planned.get(wanted.policy):
        changed.append("the policy has another default version or text than the one approved")
    return "".join(f"; foreign change: {each}" for each in changed)


def receipt(wanted: Attachment, plan: Plan, summary: str, request: str) -> Receipt:
    """The proof: what was changed, by which request of the provider's."""
    planned = {mark.target: mark.value for mark in plan.fingerprints}
    version, _, document = planned.get(wanted.policy, "").partition(" ")
    detail = {
        "policy": wanted.policy,
        "version": version,
        "document": document,
        "identity_id": planned.get(wanted.identity, ""),
        "undo": wanted.inverse,
    }
    return Receipt(
        summary=summary,
        changes=(Change(verb=wanted.verb, target=wanted.identity, detail=dict(detail)),),
        measures={"attachments": 1},
        requests=(request,) if request else (),
    )
