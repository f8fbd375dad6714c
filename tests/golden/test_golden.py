"""The committed trail comes out byte for byte as it was, whatever was made better since."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditors import bundle
from auditors.verify.files import Bundle, verify
from broker import lifecycle
from cli.main import root_for
from schemas.records import AuditRecord, Phase, Refusal
from schemas.world import RULES
from tests.auditors.builders import REALM, ROOT
from tests.golden import make

WHAT_TO_DO = """
The same inputs no longer give the same answers. If that was not meant: your change is wrong, mend it. If it was: it is
a change of rules, and trails decided under the old ones can only be replayed by the old version. Raise RULES in
schemas/world.py, say in CHANGELOG.md what is answered otherwise, run `make golden`, and commit what it writes.
"""

UNREACHABLE = {
    (Phase.APPROVED, "keyturn.decision.v1", Phase.APPROVED),  # the table's row is one for both phases
    (Phase.APPROVED, "keyturn.decision.v1", Phase.PENDING),
}
NOT_THE_CORES = {
    Refusal.SECRET_FOUND,  # intake's, and it goes to quarantine
    Refusal.NOT_LOST,  # of a skip, by what the log holds at that moment
    Refusal.INTERNAL,  # a defect of ours, whenever it stands on a trail
}


@pytest.fixture(scope="module")
def stories() -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory() as folder:
        yield make.unpack(Path(folder))


@pytest.fixture(scope="module")
def records(stories: list[Path]) -> list[AuditRecord]:
    return [AuditRecord.from_bytes(value) for story in stories for value in bundle.values(story, "audit")]


def test_the_golden_trail_is_decided_again_byte_for_byte() -> None:
    different = make.changed()
    assert not different, "\n".join([WHAT_TO_DO, *different])


def test_the_golden_trail_was_decided_by_the_rules_of_this_version(records: list[AuditRecord]) -> None:
    assert {record.versions.rules for record in records} == {RULES}, WHAT_TO_DO


def test_the_golden_trail_verifies(stories: list[Path]) -> None:
    found = {story.name: verify(Bundle(story), [ROOT.public], realm=REALM).faults for story in stories}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_every_transition_that_can_be_taken_is_in_it(records: list[AuditRecord]) -> None:
    listed = {(before, kind.TYPE, after) for (before, kind), line in lifecycle.TABLE.items() for after in line.after}
    taken = {
        (record.before, record.statement.type, record.after)
        for record in records
        if record.statement is not None and (record.refusal is None or record.event == "intent.refused")
    }
    assert listed - taken == UNREACHABLE


def test_every_refusal_of_the_core_is_in_it(records: list[AuditRecord]) -> None:
    assert set(Refusal) - {record.refusal for record in records} == NOT_THE_CORES


def test_it_is_small(stories: list[Path]) -> None:
    assert make.GOLDEN.stat().st_size < 1_000_000
    assert {story.name for story in stories} <= {*make.STORIES}


@pytest.mark.parametrize("seed", [1, 4_000_000_000])
def test_another_process_with_another_hash_seed_decides_the_same(stories: list[Path], seed: int) -> None:
    story = next(story for story in stories if story.name == "stale")
    words = ["audit", "replay", str(story), "--root-key", ROOT.public, "--hash-seed", str(seed), "--json"]
    done = CliRunner().invoke(root_for(["audit"]), words)
    report = json.loads(done.stdout)
    assert (done.exit_code, report["is_same"], report["hash_seed"]) == (0, True, seed)
    assert report["rows"] == 1


def test_golden_is_not_written_when_the_answers_changed_and_the_rules_did_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(make, "GOLDEN", tmp_path / "small.tar.xz")
    monkeypatch.setattr(make, "STORIES", {"expired": make.STORIES["expired"]})
    assert make.main() == 0
    before = make.GOLDEN.read_bytes()
    monkeypatch.setattr(lifecycle, "LEADER_SKEW_MS", 9_000_000)
    assert make.main() == 1
    assert "raise RULES" in capsys.readouterr().err
    assert make.GOLDEN.read_bytes() == before
