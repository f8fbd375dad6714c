"""From what was read to the plan of a deletion, and from histories to what became of it. No I/O.

A deletion puts one delete marker over each planned version; the version stays below it. The objects are bound as
those of an export are: by one digest over (key, version, ETag, size) of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import ValidationError

from executors.contract import Finding, Observation, TargetMissingError
from executors.s3.client import Deleted, Expiry, Stand, Version
from executors.s3.observing import MAX_INLINE, MAX_INLINE_BYTES, MAX_REQUESTS
from executors.s3.parameters import Delete
from executors.s3.planning import MAX_SHOWN, OBJECTS, list_digest, rows_of, telling
from schemas import canonical
from schemas.canonical import Json
from schemas.record import Scalar
from schemas.records import (
    Change,
    Fingerprint,
    Intent,
    JournalEntry,
    ListLeaf,
    Plan,
    Receipt,
    Reversibility,
    Round,
)

FOR_EVER_DAYS: Final = 36_500
"""What is measured when no rule erases: a policy compares numbers."""
MARGIN_MS: Final = 5_000
"""How far the provider's clock may be from ours when a marker is told by its time."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a deletion rests on, as it was read."""

    objects: tuple[Version, ...]
    is_versioned: bool
    #: Versions can be erased, and so our markers taken away, only with a second factor.
    needs_mfa: bool
    #: None: could not be read.
    expiries: tuple[Expiry, ...] | None
    is_locked: bool | None

    def require_plannable(self, delete: Delete) -> None:
        """Raise TargetMissingError when there is no plan for this, saying what to do."""
        if not self.is_versioned:
            raise TargetMissingError(
                f"turn versioning on for {delete.bucket}: without it a deletion could never be undone"
            )
        if not self.objects:
            raise TargetMissingError(f"there is no object below {delete.place}; what was there is deleted already")
        if len(self.objects) > delete.max_objects:
            raise TargetMissingError(f"more than {delete.max_objects} objects below {delete.place}; narrow the prefix")

    def days(self, delete: Delete) -> int | None:
        """Days after its deletion in which a version surely stays; None: no rule erases it."""
        if self.expiries is None:
            return 0
        hit = [
            rule.days
            for rule in self.expiries
            if rule.prefix.startswith(delete.prefix) or delete.prefix.startswith(rule.prefix)
        ]
        return min(hit, default=None)

    def fingerprints(self, delete: Delete) -> tuple[Fingerprint, ...]:
        """What must be the same when the plan is carried out."""
        days = self.days(delete)
        kept = "unknown" if self.expiries is None else "ever" if days is None else str(days)
        bucket = f"versioned={self.is_versioned} kept={kept} locked={self.is_locked} mfa={self.needs_mfa}".lower()
        return (
            Fingerprint(target=delete.place, value=list_digest(self.objects)),
            Fingerprint(target=f"s3://{delete.bucket}", value=bucket),
        )


def plan(delete: Delete, look: Look, intent: Intent, round_: Round, now: int) -> Plan:
    """The plan of `delete` as the world looks. TargetMissingError when there is none."""
    look.require_plannable(delete)
    try:
        short = _plan(delete, look, intent, round_, now)
        # Made for all even when they are too many: a key that no record can show is found before anything is done.
        changes = tuple(_change(delete, item) for item in look.objects)
    except (canonical.CanonicalError, ValidationError) as exc:
        raise TargetMissingError(
            f"a key below {delete.prefix} cannot be shown unambiguously (control, bidi or unusual characters, or too "
            "long); rename it or narrow the prefix"
        ) from exc
    return telling(short, changes)


def difference(delete: Delete, look: Look, plan_: Plan) -> str | None:
    """What differs from the plan, in words; None when everything is as planned."""
    planned = {mark.target: mark.value for mark in plan_.fingerprints}
    for mark in look.fingerprints(delete):
        if planned.get(mark.target) == mark.value:
            continue
        if mark.target == delete.place and plan_.changes:
            then = {(str(change.target), str(change.detail["version"])) for change in plan_.changes}
            now = {(f"s3://{delete.bucket}/{item.key}", item.version) for item in look.objects}
            changed = sorted(then ^ now)
            if changed:
                return f"{len({target for target, _ in changed})} objects are not as planned, first {changed[0][0]!r}"
        return f"{mark.target} is not as it was planned: {mark.value}"
    return None


def _plan(delete: Delete, look: Look, intent: Intent, round_: Round, now: int) -> Plan:
    size, days = sum(item.size for item in look.objects), look.days(delete)
    first, last = look.objects[0].key[:MAX_SHOWN], look.objects[-1].key[:MAX_SHOWN]
    rows: list[Json] = rows_of(look.objects)
    measures: dict[str, Scalar] = {
        "objects": len(look.objects),
        "bytes": size,
        "largest_bytes": max(item.size for item in look.objects),
        # Law 6: what cannot be read protects nobody.
        "object_lock": look.is_locked is True,
        "recoverable_days": FOR_EVER_DAYS if days is None else days,
    }
    return Plan(
        round=round_,
        intent=intent.digest,
        executor="s3",
        manifest=0,  # which version is in force is for the runner to say
        summary=(
            f"Delete {len(look.objects)} objects, {size} bytes, below {delete.place}, from {first!r} to {last!r}. Each "
            f"gets a delete marker; its versions stay below it. {_kept(look, days, now)}"
        ),
        lists=(
            ListLeaf(
                name=OBJECTS, count=len(rows), bytes=len(canonical.encode(rows)), digest=list_digest(look.objects)
            ),
        ),
        fingerprints=look.fingerprints(delete),
        measures=measures,
        reversibility=Reversibility.EXACT if days is None else Reversibility.WINDOW,
        undo=_undo(look, days),
        planned_at=now,
    )


def _kept(look: Look, days: int | None, now: int) -> str:
    if look.expiries is None:
        return "The lifecycle rules cannot be read: how long the versions stay is unknown, taken as not at all."
    if days is None:
        return "No lifecycle rule erases them."
    until = datetime.fromtimestamp(now // 1000, UTC) + timedelta(days=days)
    return f"A lifecycle rule erases them {days} days later: done now, not before {until:%Y-%m-%d}."


def _undo(look: Look, days: int | None) -> str:
    how = "Delete exactly the markers this puts (the receipt or the journal names each): the same versions are back."
    bound = "" if days is None else f" Only within {days} days, as long as no lifecycle rule has erased them."
    factor = " The bucket demands a second factor for that." if look.needs_mfa else ""
    return f"{how}{bound}{factor} A marker over which somebody has written since hides nothing any more."


def _change(delete: Delete, item: Version) -> Change:
    detail: dict[str, Scalar] = {"version": item.version, "etag": item.etag, "bytes": item.size}
    return Change(verb="delete", target=f"s3://{delete.bucket}/{item.key}", detail=detail)


# ---------------------------------------------------------------- what became of it


@dataclass(frozen=True, slots=True)
class Step:
    """One planned deletion that was begun, as the journal has it."""

    number: int
    object: Version
    #: Between which instants its call can have had its effect.
    began: int
    until: int
    #: The marker it put; None: nobody knows whether it put one.
    marker: str | None


def step_detail(item: Version, began: int, until: int) -> dict[str, Scalar]:
    """What the journal keeps of a deletion before it is begun."""
    return {
        "key": item.key,
        "version": item.version,
        "etag": item.etag,
        "bytes": item.size,
        "began": began,
        "until": until,
    }


def begun(journal: Sequence[JournalEntry], grant: str) -> tuple[Step, ...]:
    """The deletions begun under this grant: nothing else can have had an effect, for each is written before."""
    markers = {entry.step: str(entry.detail["marker"]) for entry in journal if _is(entry, grant, "done")}
    found: dict[int, Step] = {}
    for entry in journal:
        if _is(entry, grant, "started"):
            told = entry.detail
            item = Version(str(told["key"]), str(told["version"]), str(told["etag"]), int(told["bytes"]))
            found[entry.step] = Step(entry.step, item, int(told["began"]), int(told["until"]), markers.get(entry.step))
    return tuple(found[number] for number in sorted(found))


def _is(entry: JournalEntry, grant: str, kind: str) -> bool:
    return entry.grant == grant and entry.step > 0 and entry.entry == kind


def marker_of(step: Step, history: Sequence[Stand]) -> str | None:
    """The marker that this step put, if it is there.

    A marker carries no word of ours. One that the journal names is ours by its id; else it is ours when it is the
    only one above the planned version and was put while our call could take effect.
    """
    markers = [stand for stand in history if stand.is_marker]
    if step.marker is not None:
        return step.marker if any(stand.version == step.marker for stand in markers) else None
    planned = next((stand for stand in history if stand.version == step.object.version), None)
    above = [stand for stand in markers if planned is not None and stand.modified >= planned.modified]
    if len(above) != 1:
        return None
    at = int(above[0].modified.timestamp() * 1000)
    return above[0].version if step.began - MARGIN_MS <= at <= step.until + MARGIN_MS else None


def stands(step: Step, history: Sequence[Stand]) -> bool:
    """Whether the planned version is what stands on the key."""
    return bool(history) and history[0].version == step.object.version


def conclude(
    delete: Delete, planned: int, ours: Mapping[Version, Deleted], by_time: int, foreign: Sequence[Version]
) -> Observation:
    """The finding, given what was found on every key that can have been touched."""
    count = f"{len(ours)} of {planned} objects below {delete.place} carry our delete marker"
    if by_time:
        count += f", {by_time} of them known by its time alone"
    proof = receipt(delete, ours, f"Observed: {count}.") if ours else None
    if foreign:
        first = ", ".join(repr(item.key) for item in foreign[:3])
        return Observation(
            Finding.CONFLICT, f"{count}; on {len(foreign)} keys stands something else, first {first}", proof
        )
    if len(ours) == planned:
        return Observation(Finding.APPLIED, count, proof)
    if ours:
        return Observation(Finding.PARTIAL, f"{count}; the others were not deleted", proof)
    return Observation(Finding.NOT_APPLIED, count, None)


def receipt(delete: Delete, deleted: Mapping[Version, Deleted], summary: str) -> Receipt:
    """The proof of what was deleted: in full when it is short, else bound by digest."""
    rows: list[Json] = [[item.key, item.version, made.marker] for item, made in deleted.items()]
    data = canonical.encode(rows)
    leaf = ListLeaf(name="deleted", count=len(rows), bytes=len(data), digest=canonical.digest(data))
    is_short = len(rows) <= MAX_INLINE and leaf.bytes <= MAX_INLINE_BYTES
    changes = tuple(
        Change(
            verb="delete",
            target=f"s3://{delete.bucket}/{item.key}",
            detail={"version": item.version, "etag": item.etag, "bytes": item.size, "marker": made.marker},
        )
        for item, made in deleted.items()
    )
    return Receipt(
        summary=summary,
        changes=changes if is_short else (),
        lists=(leaf,),
        measures={"objects": len(rows), "bytes": sum(item.size for item in deleted)},
        requests=tuple(made.request for made in deleted.values() if made.request)[:MAX_REQUESTS],
    )
