"""From a change set that the provider worked out to a plan, and back: is it still what was planned? No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from executors.contract import TargetMissingError
from executors.infra import changes
from executors.infra.client import ChangeSet, ResourceChange, Stack
from executors.infra.parameters import Named, Wish, template_digest
from schemas import canonical
from schemas.canonical import Json
from schemas.record import RecordError, Scalar
from schemas.records import Change, Fingerprint, Intent, ListLeaf, Plan, Reversibility, Round

MAX_INLINE: Final = 64
MAX_INLINE_BYTES: Final = 24 * 1024
"""A receipt with its list is at most this; what was asked of people stands in the plan, and there always whole."""
MAX_CHANGES: Final = 256
"""A plan takes no more."""
SPARE_BYTES: Final = 64
"""Left free of a plan's 32 KiB for what the runner adds: the manifest's version."""
MAX_KEPT: Final = 256 * 1024
"""Characters of a previous template that the journal keeps."""
CHANGES: Final = "changes"
NESTED: Final = frozenset(
    {
        "AWS::CloudFormation::Stack",
        "AWS::CloudFormation::StackSet",
        "AWS::ServiceCatalog::CloudFormationProvisionedProduct",
    }
)
"""Resources whose own changes stand in no change set of this stack."""
ELSEWHERE: Final = ('"Fn::FindInMap"', '"Fn::If"', '"Fn::Transform"', '"Condition"')
"""In a resource of a template: what it is stands in another part of the template, or nowhere in it."""
NO_CHANGES: Final = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True, slots=True)
class Look:
    """What a plan rests on, as it was read."""

    stack: Stack
    change_set: ChangeSet
    #: The template that stands; None: the stack is only a name yet.
    previous: str | None
    #: The template that the change set would bring.
    template: str

    @property
    def digest(self) -> str:
        """Of everything that the change set would do."""
        made = self.change_set
        return canonical.digest_of(
            {
                "changes": [changes.row_of(each) for each in made.changes],
                "template": template_digest(self.template),
                "parameters": _texts(made.parameters),
                "capabilities": list(made.capabilities),
            }
        )

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """What must be the same when the plan is carried out."""
        previous = template_digest(self.previous) if self.previous is not None else "none"
        stands = f"{self.stack.status} {self.stack.updated.isoformat()} template {previous}"
        return (
            Fingerprint(target=self.change_set.arn, value=f"{self.change_set.execution} {self.digest}"),
            Fingerprint(target=self.stack.id, value=stands),
        )


def require_ours(made: ChangeSet, arn: str, named: Named) -> None:
    """Raise TargetMissingError when what the provider shows is not the change set that our own call made."""
    # Law 1: a name can be taken again, an ARN can't.
    if (made.arn, made.name, made.description) != (arn, named.name, named.description):
        raise TargetMissingError(f"{made.arn} ({made.name}) is not the change set that was made here: it is {arn}")


def require_template(wish: Wish, template: str) -> None:
    """Raise TargetMissingError when the provider holds another template than was asked for."""
    if template_digest(template) != wish.sha256:
        raise TargetMissingError(
            f"the template of the change set has SHA-256 {template_digest(template)}, asked for was {wish.sha256}: "
            "what lies at template_url is another, or somebody took our change set's name"
        )


def require_made(made: ChangeSet) -> None:
    """Raise TargetMissingError, with the provider's reason, when there is nothing to execute."""
    if made.strange:
        raise TargetMissingError(
            f"{made.strange} entries of the change set are no changes of resources: what they are can't be shown here"
        )
    nested = [each.logical_id for each in made.changes if each.kind in NESTED]
    if nested:
        # Law 7: what a nested stack would do does not stand in this change set.
        raise TargetMissingError(
            f"{nested[0]} is a nested stack (or a set of them), whose changes can't be shown here: change it by itself"
        )
    if made.status == "CREATE_COMPLETE" and made.execution == "AVAILABLE":
        return
    if any(hint in made.reason for hint in NO_CHANGES):
        raise TargetMissingError("the stack is already as the template and the parameters say: nothing would change")
    raise TargetMissingError(f"no change set could be made of this: {made.status}, {made.execution}: {made.reason}")


def plan(wish: Wish, look: Look, intent: Intent, round_: Round, now: int) -> Plan:
    """The plan of `wish` as the provider worked it out."""
    before = changes.read_template(look.previous or "")
    after = changes.read_template(look.template)
    # Law 7: what does not fit whole is no plan. The gravest stand first, before whatever pads them.
    made = sorted(look.change_set.changes, key=changes.gravity)
    if len(made) > MAX_CHANGES:
        raise TargetMissingError(f"{len(made)} changes are more than one plan can show ({MAX_CHANGES}): ask in parts")
    try:
        leaves = tuple(changes.change_of(wish.stack, each, before, after) for each in made)
        for each, leaf in zip(made, leaves, strict=True):
            _require_shown(wish, each, leaf)
        full = _plan(wish, look, intent, round_, now).model_copy(update={"changes": leaves})
        size = len(full.to_bytes())
    except (canonical.CanonicalError, ValidationError, RecordError) as exc:
        raise TargetMissingError(f"the change set cannot be shown whole and unambiguously: {_first(exc)}") from exc
    if size > Plan.MAX_BYTES - SPARE_BYTES:
        raise TargetMissingError(f"the changes take {size} bytes, more than one plan can show: ask in parts")
    return full


def _require_shown(wish: Wish, made: ResourceChange, leaf: Change) -> None:
    """Raise TargetMissingError when neither the card's intent nor this leaf says what the resource will be (law 7)."""
    # A template in the intent stands on the card whole; one in a bucket is but a digest there.
    if wish.body is not None or made.action == "Remove" or made.before or made.after:
        return
    text = str(leaf.detail.get("after", ""))
    if not text or any(word in text for word in ELSEWHERE):
        raise TargetMissingError(
            f"what {made.logical_id} will be can't be shown: CloudFormation does not tell, and the template at "
            "template_url is no JSON or takes it from another part of itself; give it as template_body"
        )


def difference(look: Look, planned: Plan) -> str | None:
    """What differs from the plan, in words; None when everything is as planned."""
    then = {mark.target: mark.value for mark in planned.fingerprints}
    for mark in look.fingerprints:
        if then.get(mark.target) != mark.value:
            return f"{mark.target} is not as it was planned: {mark.value}"
    return None


def late_values(look: Look) -> tuple[str, ...]:
    """What the provider looks up only when it acts: such a value is nobody's to sign (law 1), and is counted and named.

    Looked for in the template, its parameters' values and what the provider made of both, so that a reference that the
    template puts together from pieces is seen too.
    """
    made = look.change_set
    texts = [look.template, *made.parameters.values(), *(each.after for each in made.changes)]
    return tuple(sorted({found for text in texts for found in changes.late_values(text)}))


def change_set_of(planned: Plan) -> str:
    """The ARN of the change set that a plan is of."""
    return planned.fingerprints[0].target


def stack_of(planned: Plan) -> str:
    """The id of the stack that a plan is of."""
    return planned.fingerprints[1].target


def keepable(look: Look) -> dict[str, Scalar] | None:
    """What undoing needs, as the journal can keep it; None when it can't."""
    if look.previous is None or len(look.previous) > MAX_KEPT:
        return None
    kept: dict[str, Scalar] = {
        "previous_template": look.previous,
        "previous_parameters": canonical.encode({"parameters": _texts(look.stack.parameters)}).decode(),
    }
    try:
        canonical.encode({name: str(text) for name, text in kept.items()})
    except canonical.CanonicalError:
        return None
    return kept


def _plan(wish: Wish, look: Look, intent: Intent, round_: Round, now: int) -> Plan:
    made, stack = look.change_set, look.stack
    rows: list[Json] = [changes.row_of(each) for each in made.changes]
    data = canonical.encode(rows)
    counted = changes.counts(made.changes)
    losses = [each for each in made.changes if changes.loses_state(each)]
    late = late_values(look)
    return Plan(
        round=round_,
        intent=intent.digest,
        executor="infra",
        manifest=0,  # which version is in force is for the runner to say
        summary=_summary(wish, look, counted, [each.logical_id for each in losses], late),
        lists=(ListLeaf(name=CHANGES, count=len(rows), bytes=len(data), digest=canonical.digest(data)),),
        fingerprints=look.fingerprints,
        measures={
            **counted,
            "late_values": len(late),
            "is_new_stack": stack.is_empty,
            "termination_protection": stack.is_protected,
            "drift": stack.drift.lower(),
        },
        reversibility=Reversibility.NONE if losses else Reversibility.COMPENSATING,
        undo=_undo(look, bool(losses)),
        planned_at=now,
    )


def _summary(wish: Wish, look: Look, counted: Mapping[str, Scalar], losses: list[str], late: tuple[str, ...]) -> str:
    what = "Create the stack" if look.stack.is_empty else "Update the stack"
    done = f"{counted['replaces']} replaced, {counted['destroys']} destroyed"
    parts = [f"{what} {wish.stack}: {counted['creates']} created, {counted['updates']} changed, {done}."]
    if losses:
        named = ", ".join(losses[:8]) + (f" and {len(losses) - 8} more" if len(losses) > 8 else "")  # noqa: PLR2004
        parts.append(f"WHAT THESE HOLD IS LOST: {named}.")
    if late:
        named = ", ".join(late[:8]) + (f" and {len(late) - 8} more" if len(late) > 8 else "")  # noqa: PLR2004
        parts.append(f"WHAT THESE STAND FOR IS LOOKED UP WHEN IT IS DONE, and may be another by then: {named}.")
    if look.change_set.capabilities:
        parts.append(f"The template may do what {', '.join(look.change_set.capabilities)} allows.")
    if not look.stack.is_empty:
        parts.append(f"Termination protection is {'on' if look.stack.is_protected else 'off'}.")
        parts.append(_drift(look.stack))
    return " ".join(parts)


def _drift(stack: Stack) -> str:
    if stack.drift == "NOT_CHECKED" or stack.drift_checked is None:
        return "Nobody has looked whether resources were changed by hand (drift): such changes may be overwritten."
    at = f"{stack.drift_checked:%Y-%m-%d %H:%M} UTC"
    if stack.drift == "DRIFTED":
        return f"Resources were changed by hand (drift seen {at}): such changes may be overwritten."
    return f"Drift as of {at}: {stack.drift}."


def _undo(look: Look, is_lost: bool) -> str:
    if is_lost:
        return "None: resources that hold data are replaced or destroyed, and no template brings back what they held."
    if look.previous is None:
        return "Delete the stack (by hand; Keyturn has no action for that)."
    where = (
        "the journal keeps it, with the parameters that are not masked"
        if keepable(look) is not None
        else "Keyturn does not keep it: have it ready"
    )
    return (
        f"Ask for infra.change_set again, a new intent, with the template that stands there now (SHA-256 "
        f"{template_digest(look.previous)}; {where}). What was destroyed is made anew, not brought back."
    )


def _texts(values: Mapping[str, str]) -> dict[str, Json]:
    return dict(values)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False)[0]["msg"])
    return str(error)
