"""`keyturn audit` over a bundle: what a person at a terminal sees."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditors import story
from cli.main import root_for
from schemas.records import Result, Verdict
from tests.auditors.builders import ROOT, Trail, save


@pytest.fixture(scope="module")
def trail() -> Trail:
    trail = Trail().begin()
    trail.outcome(trail.executing(), Result.FAILED)
    intent_id = trail.pending(agent="porter")
    trail.say(intent_id, "alice")
    trail.say(intent_id, "bob", Verdict.DENY)
    return trail


@pytest.fixture(scope="module")
def bundle(trail: Trail, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(trail.topics, tmp_path_factory.mktemp("audit") / "bundle")


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(root_for(["audit"]), ["audit", *words])
    return done.exit_code, done.stdout


def test_a_clean_bundle_verifies(bundle: Path) -> None:
    code, text = run("verify", "--bundle", str(bundle), "--root-key", ROOT.public)
    assert code == 0
    assert text.splitlines()[-1] == "clean"
    assert "1 failed" in text


def test_a_broken_law_is_exit_code_six(trail: Trail, tmp_path: Path) -> None:
    tampered = trail.bundle()
    del tampered["audit"][10]
    code, text = run("verify", "--bundle", str(save(tampered, tmp_path)), "--root-key", ROOT.public, "--json")
    assert code == 6
    report = json.loads(text)
    assert [fault["law"] for fault in report["faults"]] == [10]


def test_another_realm_is_exit_code_six(bundle: Path) -> None:
    assert run("verify", "--bundle", str(bundle), "--root-key", ROOT.public, "--realm", "acme-prod")[0] == 6


def test_an_intents_story_is_told_in_order(trail: Trail, bundle: Path) -> None:
    intent_id = next(name for name in trail.rows if name.startswith("porter."))
    code, text = run("show", intent_id, "--bundle", str(bundle))
    assert code == 0
    steps = [line for line in text.splitlines() if not line.startswith(" ")]
    assert [line.split()[2] for line in steps] == [
        "intent.classified",
        "plan.reported",
        "decision.recorded",
        "decision.recorded",
    ]
    assert "REFUSED self_approval" in steps[2]
    assert "pending -> denied" in steps[3]
    assert "asks 1 of group:data and 2 of group:sre, assurance identity; never alice, dave, gina" in text


def test_a_story_as_json_is_one_value(trail: Trail, bundle: Path) -> None:
    intent_id = next(name for name in trail.rows if name.startswith("porter."))
    code, text = run("show", intent_id, "--bundle", str(bundle), "--json")
    assert code == 0
    assert json.loads(text)[0]["event"] == "intent.classified"


def test_an_intent_that_never_was_is_exit_code_one(bundle: Path) -> None:
    assert run("show", "builder.01JXT21TX00000000000000099", "--bundle", str(bundle))[0] == 1


def test_every_record_has_one_calm_line(trail: Trail) -> None:
    for record in trail.records:
        text = story.line(record)
        assert text.isprintable()
        assert record.event in text


def test_an_agents_words_cannot_steer_the_terminal() -> None:
    assert story.quoted("\x1b[2J\u202eok") == "\\u{1b}[2J\\u{202e}ok"
