"""What a core that turned bad would do with its own valid key: each story is told to an auditor at a terminal.

Its numbers, its chain and its signatures are right; what it did is not. The auditor has a bundle and the root key.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import root_for
from schemas import envelope
from schemas.record import state
from schemas.records import AuditRecord, ChainHead, Effect, Phase, Refusal, Source, Verdict
from tests.auditors import differential
from tests.auditors.builders import (
    PREFIX,
    ROOT,
    Bundle,
    Line,
    Trail,
    check,
    directory,
    members_of,
    reforged,
    save,
    signer,
    successor,
    value_of,
)
from tests.auditors.test_attacks import ATTACKS, Attack, at, require_found, unanswered

SIX = {
    "a self-approval": "an_owner_approves_her_own_agents_intent",
    "a late yes": "a_late_yes_counts",
    "one person in two seats": "one_person_takes_two_seats_by_two_logins",
    "a second grant": "two_instances_are_granted",
    "an act without a question": "an_executor_acts_without_a_question",
    "a widened requirement": "a_question_asks_for_less_than_policy",
}
ROGUE: dict[str, Attack] = {}


def told(trail: Trail, lie: AuditRecord) -> tuple[Bundle, Any]:
    """The bundle with the lie in it, and where it stands."""
    return trail.bundle(), at(lie)


def the_least(trail: Trail, audit: list[Line]) -> Bundle:
    """A trail and the live documents, without what they could be compared with."""
    return {name: trail.bundle()[name] for name in ("directory", "roster", "policies", "manifests")} | {"audit": audit}


def rogue(law: int, code: str) -> Callable[[Callable[[], tuple[Bundle, Any]]], Callable[[], Any]]:
    def register(make: Callable[[], tuple[Bundle, Any]]) -> Callable[[], Any]:
        ROGUE[make.__name__] = Attack(law, code, make)
        return make

    return register


@rogue(3, "requirement.weaker")
def a_requirement_is_widened_to_people_whom_policy_did_not_name() -> tuple[Bundle, Any]:
    """Two of sre and one of data become three of sre, so that whoever is at hand may fill every seat."""
    trail = Trail().begin()
    intent_id = trail.ask()

    def wider(record: AuditRecord) -> AuditRecord:
        assert record.requirement is not None
        sre = next(seat for seat in record.requirement.seats if seat.of == "group:sre")
        anybody = sre.model_copy(update={"count": 3})
        return record.model_copy(update={"requirement": record.requirement.model_copy(update={"seats": (anybody,)})})

    return told(trail, trail.plan(intent_id, audit=wider))


@rogue(11, "input.omitted")
def an_intent_is_skipped_as_if_it_had_never_come() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent = trail.intent()
    unanswered(trail, lambda: trail.feed("classified", trail.classified(intent), "intake"))
    return told(trail, trail.feed("classified", trail.classified(trail.intent()), "intake"))


@rogue(6, "life.before")
def an_intent_is_forgotten_while_people_are_asked() -> tuple[Bundle, Any]:
    """Its row is dropped, so that a no finds nothing to say no to."""
    trail = Trail().begin()
    intent_id = trail.pending()

    def unknown(record: AuditRecord) -> AuditRecord:
        changes = {"refusal": Refusal.UNKNOWN_INTENT, "before": None, "after": None, "said": (), "question": None}
        return record.model_copy(update=changes | {"requirement": None, "circle": (), "until": None})

    return told(trail, trail.say(intent_id, "bob", Verdict.DENY, audit=unknown))


@rogue(6, "life.transition")
def a_no_is_recorded_and_ignored() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    trail.say(intent_id, "bob")
    return told(
        trail,
        trail.say(
            intent_id,
            "carol",
            Verdict.DENY,
            audit=lambda record: record.model_copy(update={"after": Phase.PENDING, "said": ()}),
        ),
    )


@rogue(3, "quorum.ignored")
def the_last_yes_is_recorded_and_ignored() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    trail.say(intent_id, "bob")
    trail.say(intent_id, "carol")
    return told(
        trail,
        trail.say(
            intent_id, "erin", audit=lambda record: record.model_copy(update={"after": Phase.PENDING, "said": ()})
        ),
    )


@rogue(3, "requirement.weaker")
def a_permit_that_is_not_in_the_policy() -> tuple[Bundle, Any]:
    """Intake said that people must be asked; the core says that nobody needs to be."""
    trail = Trail().begin()
    intent_id = trail.ask()

    def automatic(record: AuditRecord) -> AuditRecord:
        assert record.classification is not None
        permit = record.classification.model_copy(update={"effect": Effect.PERMIT, "requirement": None})
        changes = {"after": Phase.APPROVED, "classification": permit, "requirement": None}
        return record.model_copy(update=changes)

    return told(trail, trail.plan(intent_id, audit=automatic))


@rogue(5, "trail.time")
def a_yes_is_backdated_to_before_the_deadline() -> tuple[Bundle, Any]:
    """Without the raw topics: what shows it is the order of the chain's own log times."""
    trail = Trail().begin()
    intent_id = trail.pending(ttl=600)
    trail.say(intent_id, "bob")
    in_time = trail.now
    trail.now += 3_600_000
    trail.say(intent_id, "alice")
    lie = trail.say(intent_id, "carol", at=in_time + 1)
    return the_least(trail, trail.bundle()["audit"]), at(lie)


@rogue(9, "input.differs")
def a_late_yes_is_shown_with_another_log_time_than_kafka_gave_it() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    lie = trail.say(
        trail.pending(), "bob", audit=lambda record: record.model_copy(update={"log_time": record.log_time - 900})
    )
    return told(trail, lie)


@rogue(6, "world.snapshot")
def a_directory_version_comes_into_force_that_never_was() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    first = next(record for record in trail.records if record.chain == "core-1" and record.source.topic == "directory")
    head = trail.chains[1].head
    lie = first.model_copy(
        update={
            "seq": head.seq + 1,
            "prev": head.digest,
            "source": Source(topic="directory", partition=0, offset=2),
            "sha256": "d" * 64,
            "versions": first.versions.model_copy(update={"directory": 2}),
        }
    )
    return told(trail, trail.audit(lie, 1))


def on_anothers_topic(trail: Trail) -> Source:
    """A directory, signed by the root key, on the topic of manifests: erin is no longer in it."""
    before = directory()
    fired = tuple(person for person in before.persons if person.id != "erin")
    document = successor(before, before, persons=fired)
    return trail.write("manifests", 0, envelope.seal(document, "2", ROOT, trail.realm, source="administration"))


@rogue(6, "world.snapshot")
def a_document_on_anothers_topic_comes_into_force() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    source = on_anothers_topic(trail)
    before = directory()
    fired = tuple(person for person in before.persons if person.id != "erin")
    groups = tuple(group for group in before.groups if group.id != "operators")
    statement = state(successor(before, before, persons=fired, groups=groups), ROOT, trail.realm)
    world = trail.worlds[1].with_snapshot(statement, trail.now)
    lie = trail.chains[1].of_world(source, trail.now, statement, world, is_deferred=False)
    return told(trail, trail.audit(lie, 1))


@rogue(10, "trail.repeated")
def a_chain_forks() -> tuple[Bundle, Any]:
    """Two records of one number, both naming the same predecessor, both signed: one for each reader."""
    trail = Trail().begin()
    intent_id = trail.pending()
    head: ChainHead = trail.chains[1].head
    said = trail.say(intent_id, "bob", Verdict.DENY)
    chain = trail.chains[1]
    other = said.model_copy(update={"seq": head.seq + 1, "prev": head.digest, "reason": "for the other reader"})
    trail.audit(other, 1)
    trail.chains[1] = chain
    return told(trail, other)


@rogue(10, "trail.prev")
def a_chain_goes_on_from_a_record_that_nobody_sees() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    said = trail.say(trail.pending(), "bob")
    head = trail.chains[1].head
    hidden = said.model_copy(update={"reason": "nobody saw this"})
    assert head.digest is not None
    lie = said.model_copy(update={"seq": head.seq + 1, "prev": hidden.digest})
    return told(trail, trail.audit(lie, 1))


# ---------------------------------------------------------------- the auditor looks


@pytest.mark.parametrize("story", SIX)
def test_of_six_lies_a_person_would_fear_each_is_found(story: str, tmp_path: Path) -> None:
    require_found(ATTACKS[SIX[story]], tmp_path / "bundle")


@pytest.mark.parametrize("story", ROGUE)
def test_a_rogue_core_is_found(story: str, tmp_path: Path) -> None:
    require_found(ROGUE[story], tmp_path / "bundle")


def verified(bundle: Bundle, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    words = ["audit", "verify", "--bundle", str(save(bundle, folder)), "--root-key", ROOT.public, "--json", *options]
    ended = CliRunner().invoke(root_for(["audit"]), words)
    return ended.exit_code, json.loads(ended.stdout)


def test_a_truncated_tail_is_found_by_whoever_remembers_a_head(tmp_path: Path) -> None:
    trail = Trail().begin()
    trail.outcome(trail.executing())
    code, report = verified(trail.bundle(), tmp_path / "whole")
    assert code == 0
    heads = [f"--head={chain}/{head['seq']}:{head['digest']}" for chain, head in report["chains"].items()]
    cut = {
        name: lines
        for name, lines in trail.bundle().items()
        if name in {"directory", "roster", "policies", "manifests"}
    }
    cut["audit"] = trail.bundle()["audit"][:-2]
    assert verified(cut, tmp_path / "cut")[0] == 0, "nobody who remembers nothing can tell"
    code, report = verified(cut, tmp_path / "cut", *heads)
    assert code == 6
    assert [(fault["law"], fault["code"], fault["chain"]) for fault in report["faults"]] == [
        (10, "trail.head", "core-1")
    ]


def test_a_truncated_tail_is_found_by_what_executors_were_told(tmp_path: Path) -> None:
    """No head was remembered; the grant lies on the executor's topic."""
    trail = Trail().begin()
    trail.executing()
    bundle = trail.bundle()
    del bundle["audit"][-1]
    code, report = verified(bundle, tmp_path / "cut")
    assert code == 6
    assert {(fault["law"], fault["code"]) for fault in report["faults"]} == {(4, "output.unaudited")}


def test_a_document_on_anothers_topic_that_was_set_aside_changes_no_world(tmp_path: Path) -> None:
    """The honest half: erin still fills her seat; the verifier takes no directory into force that the core did not."""
    trail = Trail().begin()
    source = on_anothers_topic(trail)
    line = trail.topics["manifests"][-1]
    for number, chain in trail.chains.items():
        value = value_of(line)
        reason = "not accepted here"
        refused = chain.of_refused_input(source, trail.now, value, Refusal.MALFORMED, reason, trail.worlds[number])
        trail.audit(refused, number)
    trail.outcome(trail.executing())
    code, report = verified(trail.bundle(), tmp_path / "bundle")
    assert code == 0, report["faults"]
    assert report["versions"]["directory"] == 1


def test_a_core_that_rewrites_its_whole_past_is_found_by_one_remembered_head(tmp_path: Path) -> None:
    trail = Trail().begin()
    trail.say(trail.pending(), "bob", Verdict.DENY)
    head = trail.chains[1].head

    def another_past(records: list[AuditRecord]) -> list[AuditRecord]:
        return [record for record in records if record.event != "decision.recorded"]

    forged = the_least(trail, reforged(trail.bundle()["audit"], another_past))
    assert verified(forged, tmp_path / "forged")[0] == 0
    code, report = verified(forged, tmp_path / "forged", f"--head=core-1/{head.seq}:{head.digest}")
    assert (code, report["faults"][0]["code"]) == (6, "trail.head")


def test_the_records_of_these_stories_are_signed_by_the_cores_own_key() -> None:
    bundle, _ = ROGUE["a_chain_forks"].make()
    assert {line["topic"] for line in bundle["audit"]} == {PREFIX + "audit"}
    report = check(bundle)
    assert "trail.signature" not in {fault.code for fault in report.faults}
    assert members_of(bundle["audit"][0])["chain"] == "core-0"
    assert signer("core").keyid


def test_verifier_and_core_agree_on_random_histories() -> None:
    """40 here; `make differential` plays thousands."""
    disagreeing = {
        seed: report.faults for seed in range(40) if not (report := differential.play(seed).check()).is_clean
    }
    assert disagreeing == {}
