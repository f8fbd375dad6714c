"""What the destination says of an act: ours, foreign or missing, key by key. No I/O.

Ours is an object that carries this intent and this grant in its metadata and has the planned size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from executors.contract import Finding, Observation
from executors.s3.client import Copied, Head, Version
from executors.s3.parameters import Export
from schemas import canonical
from schemas.canonical import Json
from schemas.record import Scalar
from schemas.records import Change, JournalEntry, ListLeaf, Receipt

INTENT: Final = "keyturn-intent"
GRANT: Final = "keyturn-grant"
STEP: Final = "keyturn-step"
MAX_INLINE: Final = 64
MAX_INLINE_BYTES: Final = 24 * 1024
MAX_REQUESTS: Final = 64


@dataclass(frozen=True, slots=True)
class Target:
    """One planned copy: its step, what it copies and onto which key."""

    step: int
    object: Version
    key: str


def targets(export: Export, objects: Sequence[Version]) -> tuple[Target, ...]:
    """The planned copies in order; the first is step 1."""
    return tuple(Target(number, item, export.target_of(item.key)) for number, item in enumerate(objects, start=1))


def started(export: Export, journal: Sequence[JournalEntry], grant: str) -> tuple[Target, ...]:
    """The copies that were begun under this grant: nothing else can have had an effect, for each is written before."""
    found: dict[int, Target] = {}
    for entry in journal:
        if entry.grant != grant or entry.step == 0:
            continue
        if entry.entry == "started":
            item = Version(
                key=str(entry.detail["key"]),
                version=str(entry.detail["version"]),
                etag=str(entry.detail["etag"]),
                size=int(entry.detail["bytes"]),
            )
            found[entry.step] = Target(entry.step, item, export.target_of(item.key))
    return tuple(found[step] for step in sorted(found))


def made_versions(journal: Sequence[JournalEntry], grant: str) -> dict[int, str]:
    """The versions that finished copies made, by step."""
    return {
        entry.step: str(entry.detail["made"])
        for entry in journal
        if entry.grant == grant and entry.entry == "done" and entry.detail.get("made")
    }


def step_detail(item: Version) -> dict[str, Scalar]:
    """What the journal keeps of a copy before it is begun."""
    return {"key": item.key, "version": item.version, "etag": item.etag, "bytes": item.size}


def mark(intent_id: str, grant: str, step: int) -> dict[str, str]:
    """The metadata by which a copy is known as ours."""
    return {INTENT: intent_id, GRANT: grant, STEP: str(step)}


def is_ours(head: Head, target: Target, intent_id: str, grant: str) -> bool:
    """Whether the object is the copy that this act made."""
    wanted = mark(intent_id, grant, target.step)
    return head.size == target.object.size and all(head.metadata.get(name) == text for name, text in wanted.items())


def conclude(
    export: Export, planned: int, ours: Mapping[Target, Head], foreign: Sequence[Target], grant: str
) -> Observation:
    """The finding, given what was found on every target that can have been touched."""
    copied = {target: Copied(head.version, head.etag, "") for target, head in ours.items()}
    count = f"{len(ours)} of {planned} objects are in s3://{export.destination_bucket}/{export.destination_prefix}"
    proof = receipt(export, copied, f"Observed: {count}.") if ours else None
    if foreign:
        first = ", ".join(repr(target.key) for target in foreign[:3])
        return Observation(
            Finding.CONFLICT, f"{count}; on {len(foreign)} keys stands something else, first {first}", proof
        )
    if len(ours) == planned:
        return Observation(Finding.APPLIED, count, proof)
    if ours:
        return Observation(Finding.PARTIAL, f"{count}; the others were not copied", proof)
    return Observation(Finding.NOT_APPLIED, f"nothing carries the mark of grant {grant[:12]}", None)


def receipt(export: Export, copied: Mapping[Target, Copied], summary: str) -> Receipt:
    """The proof of what was copied: in full when it is short, else bound by digest."""
    rows: list[Json] = [[target.key, made.version or "", made.etag] for target, made in copied.items()]
    leaf = ListLeaf(name="copied", count=len(rows), bytes=len(canonical.encode(rows)), digest=canonical.digest_of(rows))
    is_short = len(rows) <= MAX_INLINE and leaf.bytes <= MAX_INLINE_BYTES
    return Receipt(
        summary=summary,
        changes=tuple(_change(export, target, made) for target, made in copied.items()) if is_short else (),
        lists=(leaf,),
        measures={"objects": len(rows), "bytes": sum(target.object.size for target in copied)},
        requests=tuple(made.request for made in copied.values() if made.request)[:MAX_REQUESTS],
    )


def _change(export: Export, target: Target, made: Copied) -> Change:
    detail: dict[str, Scalar] = {
        "source": f"s3://{export.source_bucket}/{target.object.key}",
        "source_version": target.object.version,
        "etag": made.etag,
        "bytes": target.object.size,
    }
    if made.version:
        detail["version"] = made.version
    return Change(verb="copy", target=f"s3://{export.destination_bucket}/{target.key}", detail=detail)
