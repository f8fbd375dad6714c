"""After a restore nothing from before leads to an act, whatever of it comes again."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from auditors.verify.findings import Report
from broker.core.deciding import Deciding
from broker.core.rows import Rows, Stored
from schemas import envelope, ids, topics
from schemas.record import Record
from schemas.records import AuditRecord, ChainHead, Phase, Refusal, Restore, Result
from schemas.topics import Names
from schemas.world import World
from tests.auditors.builders import HOUR, PARTITIONS, REALM, ROOT, ROOTS, START, Trail, signer
from tests.hostility.commands import keyturn
from tests.house import PARTITIONS as CORES
from tests.house import House, NewRealm, bot_of, until
from tests.intake.answers import answered

WHY = "volumes put back to 02:00, INC-9"


def codes(report: Report) -> set[str]:
    return {fault.code for fault in report.faults}


def unaware(world: World) -> World:
    """As a core has it that does not heed the restore."""
    return replace(world, restored_to=0)


# ---------------------------------------------------------------- the rule, and the verifier's own


def test_what_waited_at_the_restore_only_ends_and_what_comes_long_enough_after_is_new() -> None:
    trail = Trail().begin()
    pending, approved, running = trail.pending(), trail.approved(), trail.executing()
    number = trail.partition(pending)
    trail.restore(number)
    refused = [trail.say(pending, "bob"), trail.claim(approved)]
    assert {record.refusal for record in refused} == {Refusal.ID_OUT_OF_WINDOW}
    assert {row.phase for row in (trail.rows[pending], trail.rows[approved])} == {Phase.PENDING, Phase.APPROVED}
    ended = trail.tick(number, trail.now + 1, intents=[pending, approved])
    assert [(record.event, record.after) for record in ended] == [("intent.expired", Phase.EXPIRED)] * 2
    trail.outcome(running)
    assert trail.rows[running].phase is Phase.SUCCEEDED
    trail.now += HOUR
    assert trail.rows[trail.executing()].phase is Phase.EXECUTING
    report = trail.check()
    assert report.is_clean, report.faults
    assert any("a root key declared the realm restored" in note and "disks gone" in note for note in report.notes)


def test_an_id_of_before_the_restore_opens_no_life_even_when_its_clock_was_ahead() -> None:
    trail = Trail().begin()
    first = trail.ask()
    trail.restore(trail.partition(first))
    ahead = trail.intent().model_copy(
        update={"id": ids.intent_id("builder", trail.now + ids.WINDOW_AFTER_MS, bytes(10))}
    )
    for intent in (trail.intent(), ahead):
        record = trail.feed("classified", trail.classified(intent), "intake")
        assert record.refusal is Refusal.ID_OUT_OF_WINDOW
        assert intent.id not in trail.rows
    assert trail.check().is_clean


def test_what_was_executing_and_proves_stale_is_not_asked_again() -> None:
    trail = Trail().begin()
    running = trail.executing()
    trail.restore(trail.partition(running))
    trail.outcome(running, Result.STALE)
    assert trail.plan(running).refusal is Refusal.ID_OUT_OF_WINDOW
    trail.tick(trail.partition(running), trail.now + 1, intents=[running])
    assert trail.rows[running].phase is Phase.EXPIRED
    assert trail.check().is_clean


def admits(trail: Trail) -> None:
    trail.ask(world=unaware)


def plans(trail: Trail) -> None:
    trail.plan(next(iter(trail.rows)), world=unaware)


def counts_a_yes(trail: Trail) -> None:
    trail.say(list(trail.rows)[1], "bob", world=unaware)


def grants(trail: Trail) -> None:
    trail.claim(list(trail.rows)[2], world=unaware)


@pytest.mark.parametrize("lie", [admits, plans, counts_a_yes, grants])
def test_a_core_that_goes_on_as_if_nothing_was_restored_is_found(lie: Callable[[Trail], None]) -> None:
    trail = Trail().begin()
    trail.ask()
    trail.pending()
    trail.approved()
    trail.restore(trail.partition(next(iter(trail.rows))))
    assert trail.check().is_clean
    lie(trail)
    assert "life.restored" in codes(trail.check())


@pytest.mark.parametrize(
    ("lies", "found"),
    [
        ({"by": signer("core")}, {"statement.signature"}),
        ({"head": ChainHead(seq=3, digest="0" * 64)}, {"realm.restored"}),
        ({"partition": 7}, {"realm.restored"}),
        ({"at": START + HOUR}, {"realm.restored"}),
    ],
    ids=["no root key", "of another state", "of another partition", "by a clock far ahead"],
)
def test_a_core_that_restores_by_itself_to_end_what_waits_is_found(lies: dict[str, Any], found: set[str]) -> None:
    trail = Trail().begin()
    trail.restore(trail.partition(trail.pending()), **lies)
    assert codes(trail.check()) == found


@pytest.mark.parametrize("refusal", [Refusal.NOT_LOST, Refusal.BAD_SIGNATURE, Refusal.INTERNAL])
def test_a_core_that_does_not_heed_a_true_restore_is_found(refusal: Refusal) -> None:
    trail = Trail().begin()
    trail.restore(trail.partition(trail.pending()), refusal=refusal)
    assert codes(trail.check()) == {"refusal.unfounded"}


@pytest.mark.parametrize(
    ("lies", "refusal"),
    [
        ({"by": signer("core")}, Refusal.BAD_SIGNATURE),
        ({"head": ChainHead(seq=3, digest="0" * 64)}, Refusal.NOT_LOST),
        ({"partition": 7}, Refusal.NOT_LOST),
        ({"at": START + HOUR}, Refusal.NOT_LOST),
    ],
    ids=["no root key", "of another state", "of another partition", "by a clock far ahead"],
)
def test_a_restore_that_is_rightly_refused_is_no_fault(lies: dict[str, Any], refusal: Refusal) -> None:
    trail = Trail().begin()
    trail.restore(trail.partition(trail.pending()), refusal=refusal, **lies)
    report = trail.check()
    assert report.is_clean, report.faults


# ---------------------------------------------------------------- the core's judgement


def judged(record: Record, by: Any, head: ChainHead) -> tuple[Deciding, AuditRecord]:
    own = Deciding(World(REALM, ROOTS), Names(), 0, PARTITIONS)
    own.chain = replace(own.chain, head=head)
    sealed = envelope.seal(record, "x", by, REALM, source="operator")

    class Lying:
        partition, offset, timestamp = 0, 1, START
        key, headers, value = sealed.key, sealed.headers, sealed.value

    assert own.decide("operations", Lying()) == ()
    return own, own.batch.decided[0].audit


HEAD = ChainHead(seq=5, digest="a" * 64)
TRUE = Restore(partition=0, head=HEAD, at=START, reason=WHY)


@pytest.mark.parametrize(
    ("changed", "by", "refusal"),
    [
        ({}, ROOT, None),
        ({}, signer("core"), Refusal.BAD_SIGNATURE),
        ({"partition": 1}, ROOT, Refusal.NOT_LOST),
        ({"head": ChainHead(seq=4, digest="a" * 64)}, ROOT, Refusal.NOT_LOST),
        ({"head": ChainHead(seq=5, digest="b" * 64)}, ROOT, Refusal.NOT_LOST),
        ({"at": START + ids.WINDOW_AFTER_MS + 1}, ROOT, Refusal.NOT_LOST),
    ],
    ids=["true", "no root key", "another partition", "an older state", "another state", "a clock far ahead"],
)
def test_a_restore_counts_once_for_the_chain_as_it_stands(
    changed: dict[str, Any], by: Any, refusal: Refusal | None
) -> None:
    own, audit = judged(TRUE.model_copy(update=changed), by, HEAD)
    assert (audit.event, audit.refusal) == ("realm.restored", refusal)
    assert own.world.restored_to == (ids.restored_to(START, START) if refusal is None else 0)


def test_rows_that_wait_are_due_at_once_whether_they_came_before_the_restore_or_are_read_after_it() -> None:
    trail = Trail().begin()
    waiting, running = trail.pending(), trail.executing()
    stored = {intent_id: Stored.of(trail.rows[intent_id]) for intent_id in (waiting, running)}
    before, after = Rows(), Rows()
    after.restored(trail.now)
    for intent_id, each in stored.items():
        before.put(intent_id, each)
        after.put(intent_id, each)
    before.restored(trail.now)
    assert list(before.due_before(trail.now)) == list(after.due_before(trail.now)) == [waiting]
    later = Rows()
    later.restored(START - 1)
    later.put(waiting, stored[waiting])
    assert list(later.due_before(trail.now)) == []


# ---------------------------------------------------------------- on a real Kafka


async def test_a_declared_restore_ends_what_waits_and_refuses_what_comes_again_across_restarts(
    new_realm: NewRealm,
) -> None:
    async with new_realm() as realm:
        [waiting], [kept], [again] = (realm.intents(1, bot_of(0)) for _ in range(3))
        async with realm.run("intake") as intake, realm.run("core") as core:
            await intake.ready()
            await core.ready()
            await realm.ask([waiting])
            await realm.until_row(waiting, lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0
            # Somebody kept the bytes of what was done after the state that came back, and is there before the core.
            await answered(realm, await realm.ask([kept]))
        said = await keyturn(realm, "core", "restored", "--reason", WHY)
        assert (said.code, len(said.out.splitlines())) == (75, CORES)
        assert "its core heeds it first of all when it starts" in said.out
        async with realm.run("core") as core:
            await core.ready()
            row = await realm.until_row(waiting, lambda row: row.phase is Phase.EXPIRED)
            assert "restored" in (row.reason or "")
            assert await core.stop() == 0
        async with realm.run("intake") as intake, realm.run("core") as core:
            await intake.ready()
            await core.ready()
            await realm.ask([again])

            async def are_refused() -> bool:
                told = {record.intent: record.refusal for record in await realm.trail()}
                return told.get(kept.id) is told.get(again.id) is Refusal.ID_OUT_OF_WINDOW

            await until(are_refused)
            assert await core.stop() == 0
        assert set(await realm.rows()) == {waiting.id}

        checked = await keyturn(realm, "audit", "verify")
        assert checked.code == 0, checked.out
        assert checked.out.count("a root key declared the realm restored") == CORES
        # The chain has moved on: the same word again counts nowhere.
        [word] = [record for record in await realm.read(topics.OPERATIONS) if record.partition == 0 and record.offset]
        await realm.say_raw(topics.OPERATIONS, 0, envelope.Sealed(word.key, word.value, tuple(word.headers)))
        async with realm.run("core") as core:
            await core.ready()
            await until(lambda: answered_again(realm))
            assert await core.stop() == 0


async def answered_again(realm: House) -> bool:
    found = [record.refusal for record in await realm.trail() if record.event == "realm.restored"]
    return found.count(None) == CORES and found[CORES:] == [Refusal.NOT_LOST]
