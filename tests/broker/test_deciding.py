"""Law 9: whatever lies on an input has an answer on the trail; what operators say counts only from who may say it."""

from dataclasses import dataclass
from typing import Any

import pytest

from broker.core.deciding import Deciding
from schemas import envelope, ids, partition
from schemas.record import Record
from schemas.records import (
    ChainHead,
    ClassifiedIntent,
    Decision,
    Phase,
    Redrive,
    Refusal,
    Restore,
    Skip,
    Source,
    Tick,
    Verdict,
)
from schemas.snapshots import Directory
from schemas.topics import Names
from tests.broker.builders import KEYS, MINUTE, REALM, T0, Story, a_world, changed, key, pending, signer

PARTITIONS = 4
OURS = partition.partition_of("bot", PARTITIONS)


@dataclass(frozen=True)
class Raw:
    """A record as it lies on Kafka."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes | None


def sealed(record: Record, by: str, *, subject: str = "x", offset: int = 3, at: int = T0) -> Raw:
    return raw(record.TYPE, record.to_bytes(), by, subject=subject, offset=offset, at=at)


def raw(kind: str, value: bytes, by: str, *, subject: str = "x", offset: int = 3, at: int = T0) -> Raw:
    made = envelope.seal_bytes(kind, value, subject, signer(by), REALM, source=by)
    return Raw(OURS, offset, at, made.key, tuple(made.headers), made.value)


def deciding(at: Story | None = None) -> Deciding:
    world = changed(a_world(), Directory, keys=(*KEYS, key("operator", "operator", "operator")))
    made = Deciding(world, Names(), OURS, PARTITIONS)
    if at is not None:
        for event in at.events:
            made.decide_event(event)
    made.taken()
    return made


def said(of: Deciding) -> list[tuple[str, Refusal | None, str | None]]:
    return [(each.audit.event, each.audit.refusal, each.audit.reason) for each in of.taken().decided]


def event_and_refusal(of: Deciding) -> tuple[str, Refusal | None]:
    [(event, refusal, _)] = said(of)
    return event, refusal


# ---------------------------------------------------------------- what operators say

SKIP = Skip(topic="decisions", partition=OURS, position=3, until=9, reason="the disks are gone")
REDRIVE = Redrive(
    source=Source(topic="intents", partition=OURS, offset=7), sha256="0" * 64, bytes=12, reason="the key is listed now"
)


def restore(of: Deciding, **changed: Any) -> Restore:
    usual = {"partition": OURS, "head": of.chain.head, "at": T0, "reason": "volumes put back"}
    return Restore.model_validate(usual | changed)


def test_a_skip_that_root_signed_moves_the_order_on_and_is_on_the_trail() -> None:
    core = deciding()
    core.decide("operations", sealed(SKIP, "root"))
    assert core.jumps == [("decisions", 9)]
    assert event_and_refusal(core) == ("input.skipped", None)


@pytest.mark.parametrize(
    ("by", "objection", "refusal"),
    [("core", None, Refusal.BAD_SIGNATURE), ("root", "it can be read", Refusal.NOT_LOST)],
)
def test_a_skip_that_is_not_roots_or_not_true_moves_nothing(by: str, objection: str | None, refusal: Refusal) -> None:
    core = deciding()
    core.decide("operations", sealed(SKIP, by), objection)
    assert core.jumps == []
    assert event_and_refusal(core) == ("input.skipped", refusal)


def test_a_restore_of_this_chain_as_it_stands_bars_what_was_asked_before() -> None:
    core = deciding()
    core.decide("operations", sealed(restore(core), "root"))
    assert core.world.restored_to == ids.restored_to(T0, T0)
    assert event_and_refusal(core) == ("realm.restored", None)


@pytest.mark.parametrize(
    ("by", "changed", "refusal"),
    [
        ("core", {}, Refusal.BAD_SIGNATURE),
        ("root", {"partition": OURS + 1}, Refusal.NOT_LOST),
        ("root", {"head": ChainHead(seq=5, digest="a" * 64)}, Refusal.NOT_LOST),
        ("root", {"at": T0 + ids.WINDOW_AFTER_MS + 1}, Refusal.NOT_LOST),
    ],
)
def test_any_other_restore_is_refused_on_the_trail(by: str, changed: dict[str, Any], refusal: Refusal) -> None:
    core = deciding()
    core.decide("operations", sealed(restore(core, **changed), by))
    assert core.world.restored_to == 0
    assert event_and_refusal(core) == ("realm.restored", refusal)


@pytest.mark.parametrize(("by", "refusal"), [("operator", None), ("core", Refusal.BAD_SIGNATURE)])
def test_word_of_a_redrive_is_on_the_trail_whoever_says_it(by: str, refusal: Refusal | None) -> None:
    core = deciding()
    core.decide("operations", sealed(REDRIVE, by))
    assert event_and_refusal(core) == ("input.redriven", refusal)


# ---------------------------------------------------------------- what cannot be decided


@pytest.mark.parametrize(
    ("record", "refusal"),
    [
        (raw(Decision.TYPE, b'{"intent":"bot"}', "api"), Refusal.MALFORMED),
        (sealed(pending().a_decision(Verdict.APPROVE, "dan"), "api", subject="another"), Refusal.WRONG_PARTITION),
    ],
)
def test_a_decision_that_is_none_is_put_aside(record: Raw, refusal: Refusal) -> None:
    core = deciding()
    assert core.decide("decisions", record) == ()
    batch = core.taken()
    assert [word.topic for word in batch.words] == ["keyturn.quarantine", "keyturn.audit"]
    assert [each.audit.refusal for each in batch.decided] == [refusal]
    assert batch.is_worth_a_commit


def test_what_is_about_an_id_that_is_none_is_put_aside() -> None:
    core = deciding()
    story = pending()
    classified = story.events[0].record
    assert isinstance(classified, ClassifiedIntent)
    nameless = classified.intent.model_copy(update={"body": {**classified.intent.body, "id": "none"}})
    word = classified.model_copy(update={"intent": nameless})
    core.decide("classified", sealed(word, "intake", subject="none"))
    assert event_and_refusal(core) == ("input.quarantined", Refusal.MALFORMED)


@pytest.mark.parametrize(
    ("tick", "by", "refusal"),
    [
        (Tick(partition=OURS + 1, number=1), "core", Refusal.WRONG_PARTITION),
        (Tick(partition=OURS, number=1), "intake", Refusal.BAD_SIGNATURE),
    ],
)
def test_a_tick_of_another_partition_or_another_role_is_put_aside(tick: Tick, by: str, refusal: Refusal) -> None:
    core = deciding()
    core.decide("ticks", sealed(tick, by))
    assert event_and_refusal(core) == ("input.quarantined", refusal)


def test_pure_code_that_fails_at_a_record_is_an_answer_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    core, story = deciding(), pending()
    monkeypatch.setattr(core.rows, "get", lambda _: 1 / 0)
    word = story.a_decision(Verdict.APPROVE, "dan")
    [failure] = core.decide("decisions", sealed(word, "api", subject=word.intent))
    assert isinstance(failure.error, ZeroDivisionError)
    assert event_and_refusal(core) == ("input.quarantined", Refusal.INTERNAL)
    assert core.decide("decisions", sealed(word, "api", subject="another")) == ()


def test_what_cannot_be_said_is_internal_and_moves_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    story = pending()
    core = deciding(story)
    intent_id = story.here.intent_id
    before = core.rows.get(intent_id)
    monkeypatch.setattr(core, "_word", lambda *_: 1 / 0)
    word = story.a_decision(Verdict.APPROVE, "dan")
    [failure] = core.decide("decisions", sealed(word, "api", subject=intent_id, at=story.at + MINUTE))
    assert (failure.intent_id, failure.error) == (intent_id, None)
    assert "cannot be said" in failure.reason
    batch = core.taken()
    assert batch.rows == {}
    assert core.rows.get(intent_id) == before
    assert before is not None
    assert before.phase is Phase.PENDING
    assert [each.audit.refusal for each in batch.decided] == [Refusal.INTERNAL]
