"""From what was read to a plan: which versions would be copied, and what people are told of it. No I/O.

The objects are bound by one digest over (key, version, ETag, size) of each, in the order of their keys. As many as fit
in a record also stand in the plan itself, so that people can approve them (ADR 0016); a longer list is read again when
it is needed, and the digest compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from executors.contract import TargetMissingError
from executors.s3.client import Version
from executors.s3.parameters import Export
from schemas import canonical
from schemas.canonical import Json
from schemas.record import RecordError, Scalar
from schemas.records import Change, Fingerprint, Intent, ListLeaf, Plan, Reversibility, Round

MAX_COPY_BYTES: Final = 5 * 1024**3
"""CopyObject takes less than this in one call; above it only a multipart copy would do."""
MAX_TOLD: Final = 256
"""A plan takes no more changes."""
MAX_TOLD_BYTES: Final = Plan.MAX_BYTES - 16
"""Of a plan with its changes: the runner writes the number of the manifest in force into it, at most 16 digits."""
UNSEEN: Final = "They are too many to be told one by one, so nobody can approve this: ask for a narrower prefix."
MAX_SHOWN: Final = 120
"""Of a key in the summary, which is prose; the plan itself has keys in full or not at all."""
OBJECTS: Final = "objects"


@dataclass(frozen=True, slots=True)
class Look:
    """What an export rests on, as it was read."""

    objects: tuple[Version, ...]
    #: Keys already there in the destination, below its prefix.
    taken: frozenset[str]
    source_versioned: bool
    destination_versioned: bool
    #: None: could not be read.
    destination_public: bool | None

    def require_plannable(self, export: Export) -> None:
        """Raise TargetMissingError when there is no plan for this, saying what to do."""
        place = f"s3://{export.source_bucket}/{export.source_prefix}"
        if not self.source_versioned:
            raise TargetMissingError(f"turn versioning on for {export.source_bucket}: an export pins versions")
        if not self.objects:
            raise TargetMissingError(f"there is no object below {place}")
        if len(self.objects) > export.max_objects:
            raise TargetMissingError(f"more than {export.max_objects} objects below {place}; narrow the prefix")
        for item in self.objects:
            if item.size >= MAX_COPY_BYTES:
                raise TargetMissingError(f"{item.key!r} has {item.size} bytes; one copy takes less than 5 GiB")
        if clashes := self.clashes(export):
            first = ", ".join(f"{key!r}" for key in clashes[:3])
            raise TargetMissingError(
                f"{len(clashes)} of the keys exist in {export.destination_bucket} already ({first}); nothing is ever "
                "overwritten: choose another prefix"
            )

    def clashes(self, export: Export) -> list[str]:
        """The keys of the destination that the export would need and that exist."""
        return sorted(self.taken & {export.target_of(item.key) for item in self.objects})

    def fingerprints(self, export: Export) -> tuple[Fingerprint, ...]:
        """What must be the same when the plan is carried out."""
        destination = f"versioned={_word(self.destination_versioned)} public={_word(self.destination_public)}"
        return (
            Fingerprint(target=f"s3://{export.source_bucket}/{export.source_prefix}", value=list_digest(self.objects)),
            Fingerprint(target=f"s3://{export.destination_bucket}", value=destination),
        )


def list_digest(objects: Sequence[Version]) -> str:
    """The digest that binds the objects."""
    return canonical.digest_of(rows_of(objects))


def plan(export: Export, look: Look, intent: Intent, round_: Round, now: int) -> Plan:
    """The plan of `export` as the world looks. TargetMissingError when there is none."""
    look.require_plannable(export)
    try:
        rows = canonical.encode(rows_of(look.objects))
        short = _plan(export, look, intent, round_, now, list_bytes=len(rows))
        # Made for all of them even when they are too many: a key that no record can show is found here, before
        # anything is copied, and not in the receipt.
        changes = tuple(_change(export, item) for item in look.objects)
    except (canonical.CanonicalError, ValidationError) as exc:
        raise TargetMissingError(
            f"a key below {export.source_prefix} cannot be shown unambiguously (control, bidi or unusual characters, "
            "or too long); rename it or narrow the prefix"
        ) from exc
    return telling(short, changes)


def telling(short: Plan, changes: tuple[Change, ...]) -> Plan:
    """The plan with its changes as far as a record holds all of them; else with none, and its summary says so."""
    if len(changes) <= MAX_TOLD:
        full = short.model_copy(update={"changes": changes})
        try:
            if len(full.to_bytes()) <= MAX_TOLD_BYTES:
                return full
        except RecordError:  # past the record's own cap
            pass
    return short.model_copy(update={"summary": f"{short.summary} {UNSEEN}"})


def planned_objects(export: Export, plan_: Plan) -> tuple[Version, ...] | None:
    """The objects that stand in the plan itself; None when it only binds them by digest."""
    if not plan_.changes:
        return None
    prefix = f"s3://{export.source_bucket}/"
    return tuple(
        Version(
            key=str(change.detail["source"]).removeprefix(prefix),
            version=str(change.detail["version"]),
            etag=str(change.detail["etag"]),
            size=int(change.detail["bytes"]),
        )
        for change in plan_.changes
    )


def difference(export: Export, look: Look, plan_: Plan) -> str | None:
    """What differs from the plan, in words; None when everything is as planned."""
    planned = {mark.target: mark.value for mark in plan_.fingerprints}
    for mark in look.fingerprints(export):
        if planned.get(mark.target) != mark.value:
            return _explain(export, look, plan_, mark)
    if clashes := look.clashes(export):
        return f"{len(clashes)} of the destination keys exist by now, first {clashes[0]!r}"
    return None


def _explain(export: Export, look: Look, plan_: Plan, mark: Fingerprint) -> str:
    planned = planned_objects(export, plan_)
    if not mark.target.startswith(f"s3://{export.source_bucket}/") or planned is None:
        return f"{mark.target} is not as it was planned"
    changed = sorted({item.key for item in set(planned) ^ set(look.objects)})
    return f"{len(changed)} objects below {mark.target} are not as planned, first {changed[0]!r}"


def _plan(export: Export, look: Look, intent: Intent, round_: Round, now: int, *, list_bytes: int) -> Plan:
    size = sum(item.size for item in look.objects)
    public = {True: "PUBLIC", False: "not public", None: "public or not: unknown, taken as public"}
    first, last = look.objects[0].key[:MAX_SHOWN], look.objects[-1].key[:MAX_SHOWN]
    undo = (
        "Delete exactly the versions this creates (the receipt names them)."
        if look.destination_versioned
        else "Delete the keys this creates, as long as they are still ours; the bucket keeps no versions."
    )
    return Plan(
        round=round_,
        intent=intent.digest,
        executor="s3",
        manifest=0,  # which version is in force is for the runner to say
        summary=(
            f"Copy {len(look.objects)} objects, {size} bytes, from s3://{export.source_bucket}/{export.source_prefix} "
            f"to s3://{export.destination_bucket}/{export.destination_prefix} ({public[look.destination_public]}), "
            f"from {first!r} to {last!r}. Metadata is kept, tags are not; nothing is overwritten."
        ),
        lists=(ListLeaf(name=OBJECTS, count=len(look.objects), bytes=list_bytes, digest=list_digest(look.objects)),),
        fingerprints=look.fingerprints(export),
        measures={
            "objects": len(look.objects),
            "bytes": size,
            "largest_bytes": max(item.size for item in look.objects),
            # Law 6: what cannot be read counts as the worse.
            "destination_public": look.destination_public is not False,
            "destination_versioned": look.destination_versioned,
        },
        reversibility=Reversibility.COMPENSATING,
        undo=f"{undo} Whoever could read them may have read them by then.",
        planned_at=now,
    )


def _change(export: Export, item: Version) -> Change:
    detail: dict[str, Scalar] = {
        "source": f"s3://{export.source_bucket}/{item.key}",
        "version": item.version,
        "etag": item.etag,
        "bytes": item.size,
    }
    return Change(verb="copy", target=f"s3://{export.destination_bucket}/{export.target_of(item.key)}", detail=detail)


def rows_of(objects: Sequence[Version]) -> list[Json]:
    """What the digest of a list is made from."""
    return [[item.key, item.version, item.etag, item.size] for item in objects]


def _word(fact: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[fact]
