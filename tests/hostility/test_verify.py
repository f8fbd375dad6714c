"""The verifier believes a skip only as far as a root key, the chain and the raw topic bear it out."""

from typing import Any

import pytest

from auditors.verify.findings import Report
from schemas import envelope
from schemas.record import Record, state
from schemas.records import Redrive, Skip, Source
from schemas.signing import PrivateKeySigner
from tests.auditors.builders import ROOT, Trail, directory, signer, successor

LOST = 3


def operated(trail: Trail, record: Record, event: str, by: PrivateKeySigner, number: int) -> None:
    """An operator's record on `operations`, and the core's word on it."""
    statement = state(record, by, trail.realm)
    source = trail.write("operations", number, envelope.reseal(statement, "x", trail.realm, source="operator"))
    said = trail.chains[number].of_operation(source, trail.now, event, statement, None, "burnt", trail.worlds[number])
    trail.audit(said, number)


def holed(*, by: PrivateKeySigner | None = ROOT, **changed: Any) -> Trail:
    """A trail that goes on beyond records of `classified` that are gone, declared unless `by` is nobody."""
    trail = Trail().begin()
    number = trail.partition(trail.ask())
    position = 1 + max(line["offset"] for line in trail.topics["classified"] if line["partition"] == number)
    for _ in range(LOST):
        trail.write("classified", number, envelope.Sealed(b"", b"", ()))
    members = {
        "topic": "classified",
        "partition": number,
        "position": position,
        "until": position + LOST,
        "reason": "burnt",
    }
    if by is not None:
        operated(trail, Skip.model_validate(members | changed), "input.skipped", by, number)
    trail.ask()
    gone = range(position, position + LOST)
    trail.topics["classified"] = [
        line for line in trail.topics["classified"] if line["partition"] != number or line["offset"] not in gone
    ]
    return trail


def codes(report: Report) -> set[str]:
    return {fault.code for fault in report.faults}


def test_a_declared_hole_is_no_fault_and_is_told() -> None:
    report = holed().check()
    assert report.is_clean, report.faults
    assert any("a root key declared classified/" in note and "burnt" in note for note in report.notes)


def test_an_undeclared_hole_is_one() -> None:
    assert codes(holed(by=None).check()) == {"input.gap", "input.omitted"}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"position": 1}, {"input.skipped"}),
        ({"partition": 7}, {"input.skipped", "input.gap", "input.omitted"}),
        ({"topic": "intents"}, {"input.skipped", "input.gap", "input.omitted"}),
        ({"topic": "operations"}, {"input.skipped", "input.gap", "input.omitted"}),
    ],
    ids=["from before where it stood", "another partition", "another topic", "its own topic"],
)
def test_a_skip_that_is_not_where_the_chain_stood_is_a_fault(changed: dict[str, Any], found: set[str]) -> None:
    assert codes(holed(**changed).check()) == found


def test_a_skip_that_covers_less_than_the_hole_leaves_a_fault() -> None:
    trail = holed()
    whole = codes(trail.check())
    assert whole == set()
    members = [line for line in trail.topics["classified"] if line["offset"] != 0]
    # One more record than was declared is gone.
    trail.topics["classified"] = [line for line in trail.topics["classified"] if line is not members[-1]]
    assert codes(trail.check()) >= {"input.missing"}


def test_who_holds_no_root_key_declares_nothing() -> None:
    assert codes(holed(by=signer("core")).check()) == {"statement.signature"}


@pytest.mark.parametrize(("by", "found"), [("op", set()), ("core", {"statement.signature"})])
def test_a_redrive_is_an_operators_word(by: str, found: set[str]) -> None:
    trail = Trail().begin()
    known = trail.worlds[0].directory
    assert known is not None
    one = signer("op")
    listed = known.keys[0].model_copy(
        update={"keyid": one.keyid, "public": one.public, "role": "operator", "holder": "operator"}
    )
    trail.change(successor(directory(keys=(*known.keys, listed)), known))
    again = Redrive(
        source=Source(topic="intents", partition=0, offset=4), sha256="0" * 64, bytes=3, reason="listed too late"
    )
    operated(trail, again, "input.redriven", signer(by), 0)
    assert codes(trail.check()) == found
