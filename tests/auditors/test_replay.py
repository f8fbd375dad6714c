"""Deciding a trail again: the same bytes, or the first place where they are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from auditors import bundle as bundles
from broker.core.rows import Stored
from cli import replaying
from cli.main import root_for
from schemas.records import AuditRecord, Classification, Effect, PendingApproval, Phase, Refusal, Risk
from tests.auditors.builders import ROOT, Bundle, Trail, members_of, reforged, save, value_of, with_value
from tests.golden.make import kept, told
from tests.golden.stories import STORIES


def replay(made: Bundle, folder: Path) -> tuple[int, dict[str, Any]]:
    return replaying.run(save(made, folder / "bundle"), [ROOT.public], None, tells=False)


def story(name: str) -> Bundle:
    return kept(told(STORIES[name]))


def without(made: Bundle, *names: str) -> Bundle:
    return {name: lines for name, lines in made.items() if name not in names}


def edited(made: Bundle, event: str, **changes: Any) -> Bundle:
    """A core with a valid key writes its trail anew, with these members in the first record of this event."""

    def edit(records: list[AuditRecord]) -> list[AuditRecord]:
        index = next(index for index, record in enumerate(records) if record.event == event)
        records[index] = records[index].model_copy(update=changes)
        return records

    return without(made, "pending") | {"audit": reforged(made["audit"], edit)}


@pytest.mark.parametrize(
    ("event", "changes", "path"),
    [
        ("claim.granted", {"until": 1}, "until"),
        ("plan.reported", {"circle": ()}, "circle"),
        ("decision.recorded", {"after": Phase.APPROVED}, "after"),
        ("decision.recorded", {"refusal": Refusal.LATE}, "refusal"),
        ("intent.classified", {"reason": "because"}, "reason"),
        ("world.changed", {"sha256": "0" * 64}, "sha256"),
    ],
)
def test_a_record_that_does_not_follow_is_named_with_its_field(
    event: str, changes: dict[str, Any], path: str, tmp_path: Path
) -> None:
    made = edited(story("approved_and_done"), event, **changes)
    code, report = replay(made, tmp_path)
    assert code == 6
    found = report["divergence"]
    first = next(line for line in made["audit"] if members_of(line)["event"] == event)
    assert (found["chain"], found["seq"]) == (members_of(first)["chain"], members_of(first)["seq"])
    assert found["path"].startswith(path)
    assert found["expected"] != found["got"]


def test_a_permit_that_policy_never_gave_is_found_though_every_signature_fits(tmp_path: Path) -> None:
    """What `verify` cannot judge, since it evaluates no Cedar: intake and core lie together."""
    trail = Trail().begin()
    permit = Classification(effect=Effect.PERMIT, risk=Risk.LOW)
    proposal = trail.classified(trail.intent(), classification=permit)
    trail.feed("classified", proposal, "intake", audit=lambda said: said.model_copy(update={"classification": permit}))
    code, report = replay(trail.topics, tmp_path)
    assert code == 6
    assert report["divergence"]["path"].startswith("classification.")


def test_a_record_that_was_left_out_is_missed(tmp_path: Path) -> None:
    made = without(story("several_at_one_tick"), "pending")
    del made["audit"][max(i for i, line in enumerate(made["audit"]) if members_of(line)["chain"] == "core-1")]
    code, report = replay(made, tmp_path)
    assert code == 6
    assert report["divergence"]["expected"] == "(nothing)"


def test_a_record_of_nothing_is_found(tmp_path: Path) -> None:
    def edit(records: list[AuditRecord]) -> list[AuditRecord]:
        return [*records, next(record for record in records if record.event == "intent.expired")]

    made = without(story("expired_while_planning"), "pending")
    code, report = replay(made | {"audit": reforged(made["audit"], edit)}, tmp_path)
    assert (code, report["divergence"]["got"]) == (6, "(nothing)")


def test_a_row_that_does_not_follow_is_found(tmp_path: Path) -> None:
    made = story("denied")
    lines = made["pending"]
    index = next(i for i, line in enumerate(lines) if members_of(line).get("phase") == "denied")
    lines[index] = with_value(lines[index], value_of(lines[index]).replace(b'"phase":"denied"', b'"phase":"failed"'))
    code, report = replay(made, tmp_path)
    assert code == 6
    assert report["divergence"]["path"].startswith("pending/builder.")


def test_an_unreadable_input_without_its_bytes_is_taken_at_the_trails_word_and_counted(tmp_path: Path) -> None:
    made = without(story("unreadable"), "classified", "decisions", "reports", "ticks")
    code, report = replay(made, tmp_path)
    assert code == 0
    assert report["at_its_word"] > 5


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(root_for(["audit"]), ["audit", "replay", *words])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_says_the_same_or_where_it_is_not(tmp_path: Path) -> None:
    made = story("denied")
    code, text, _ = run(str(save(made, tmp_path / "good")), "--root-key", ROOT.public)
    assert (code, text.splitlines()[-1]) == (0, "the same")
    forged = edited(made, "decision.recorded", after=Phase.APPROVED)
    code, text, _ = run(str(save(forged, tmp_path / "forged")), "--root-key", ROOT.public)
    assert code == 6
    assert "DIVERGES at core-1/7, after" in text
    assert "on the trail: approved" in text
    assert "decided now:  pending" in text


def _other_rules(made: Bundle) -> Bundle:
    def edit(records: list[AuditRecord]) -> list[AuditRecord]:
        old = records[-1].versions.model_copy(update={"rules": "rules-0"})
        return [*records[:-1], records[-1].model_copy(update={"versions": old})]

    return made | {"audit": reforged(made["audit"], edit)}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_other_rules, "decided by rules-0"),
        (lambda made: made | {"directory": made["directory"][:1]}, "is not at hand"),
        (lambda made: made | {"audit": []}, "no audit record"),
        (lambda made: made | {"audit": [with_value(made["audit"][0], b"{}")]}, "not an audit record"),
    ],
)
def test_what_cannot_be_decided_again_is_exit_code_one_with_the_reason(
    spoil: Callable[[Bundle], Bundle], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(spoil(story("denied")), tmp_path / "bundle")
    assert replaying.main([str(folder), "--root-key", ROOT.public]) == 1
    assert says in capsys.readouterr().err


def test_ended_rows_lie_on_disk_and_read_as_they_were_written(tmp_path: Path) -> None:
    places = replaying.Places(tmp_path)
    rows = replaying.RowsOnDisk(places, "core-1")
    found = [line for line in told(everywhere)["pending"] if "phase" in members_of(line)]
    stored = {members_of(line)["intent_id"]: Stored.of(PendingApproval.from_bytes(value_of(line))) for line in found}
    assert {each.phase for each in stored.values()} == {Phase.WITHDRAWN, Phase.PENDING}
    rows.update(stored)
    assert dict(rows) == stored
    for name in stored:
        del rows[name]
    assert len(rows) == 0
    places.close()


def everywhere(trail: Trail) -> None:
    trail.withdraw(trail.ask())
    trail.pending()


def test_a_bundle_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replaying.main([str(tmp_path), "--root-key", ROOT.public]) == 1
    assert "keyturn audit export" in capsys.readouterr().err
    with pytest.raises(bundles.BundleError):
        bundles.parse(json.dumps({"topic": 1}).encode(), "x")
