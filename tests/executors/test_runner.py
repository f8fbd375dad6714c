"""The runner on a real Kafka: what was granted is done once, whatever dies; what was not, never."""

import asyncio
import base64
import logging
import re
from pathlib import Path

import pytest

from executors import outcomes
from executors.contract import Act, Finding, StaleError
from schemas import topics
from schemas.record import state
from schemas.records import (
    ApprovalEnded,
    Claim,
    ClaimRefused,
    Grant,
    JournalEntry,
    Outcome,
    OutcomeUnknown,
    Plan,
    PlanFailed,
    Receipt,
    Refusal,
    Result,
    Source,
)
from schemas.signing import PrivateKeySigner
from streams.errors import NumberGapError
from tests.executors.builders import Life
from tests.executors.lamp import Lamp, switch
from tests.executors.stage import SECONDS, Claimed, Core, now, running

FORGER = PrivateKeySigner.from_seed(bytes(32))


def entry_of(life: Life, grant: Grant, kind: str, **more: object) -> JournalEntry:
    """An entry of an earlier life."""
    members = {"intent": life.intent.id, "grant": grant.digest, "instance": grant.instance, "step": 0}
    return JournalEntry.model_validate(members | {"entry": kind, "what": kind} | more)


async def stuck(act: Act) -> Receipt:
    """Begins, and never comes back."""
    await act.journal.started(1, "switch it")
    await asyncio.Event().wait()
    raise AssertionError


async def test_planned_claimed_granted_and_done_once(core: Core) -> None:
    life = core.life()
    async with running(core) as process:
        await core.ask_for_plan(life)
        plan = await core.hears(Plan, life)
        assert (plan.round, plan.intent) == (life.round, life.intent.digest)
        claim = await core.approve(life)
        assert claim.instance.startswith("lamp-0-")
        grant = await core.grant(life, claim)
        outcome = await core.hears(Outcome, life)
        assert (outcome.result, outcome.grant, outcome.instance) == (Result.SUCCEEDED, grant.digest, claim.instance)
        assert outcome.undo == "Switch it off."
        assert [entry.entry for entry in await core.journal(life)] == ["used", "started", "done", "ended"]
        assert len(process.lamp.acts) == 1
        assert process.lamp.acts[0].deadline.lease_until == grant.lease_until

        missing = core.life("nowhere")
        await core.ask_for_plan(missing)
        assert (await core.hears(PlanFailed, missing)).reason == "there is no such lamp"

        await process.ends()
        assert process.lamp.is_closed


async def test_a_process_tidies_from_its_start_and_goes_on_though_that_fails(core: Core) -> None:
    async with running(core, tidy_seconds="0.01") as process, asyncio.timeout(SECONDS):
        await process.lamp.tidied_again.wait()
        life = core.life()
        await core.ask_for_plan(life)
        await core.hears(Plan, life)
    assert not [then for then in process.lamp.tidied if not 0 < then <= now()]


async def test_a_grant_delivered_again_after_a_restart_is_answered_with_the_same_bytes(core: Core) -> None:
    life = core.life()
    async with running(core) as process:
        claim = await core.approve(life)
        grant = await core.grant(life, claim)
        await core.hears(Outcome, life)
        await process.dies()
    before = len(core.heard)
    async with running(core) as process:
        await core.say(topics.APPROVED, life.intent.id, grant)
        await core.hears(Outcome, life, after=before)
        assert process.lamp.acts == []
    said = core.outcomes(life)
    assert len(said) >= 2
    assert len(set(said)) == 1


async def test_a_process_that_dies_while_it_acts_is_not_continued_only_looked_at(core: Core) -> None:
    life = core.life()
    async with running(core, Lamp(stuck)) as process:
        claim = await core.approve(life)
        grant = await core.grant(life, claim)
        await asyncio.wait_for(process.lamp.acting.wait(), SECONDS)
        await process.dies()
    assert core.outcomes(life) == []

    async with running(core, Lamp(finding=Finding.APPLIED)) as process:
        # Its grant was not committed, so it comes again; this tells when it was passed over.
        other = core.life()
        await core.approve(other)
        assert process.lamp.acts == []
        unknown = await core.say_unknown(grant)
        outcome = await core.hears(Outcome, life)
        assert (outcome.result, outcome.observed, outcome.unknown) == (Result.SUCCEEDED, True, unknown.digest)
        assert outcome.instance != grant.instance
        assert [entry.entry for entry in process.lamp.looks[0][1]] == ["used", "started"]

        before = len(core.heard)
        await core.say(topics.APPROVED, life.intent.id, unknown.read(OutcomeUnknown))
        await core.hears(Outcome, life, after=before)
        assert len(set(core.outcomes(life))) == 1
        assert len(process.lamp.looks) == 1
        assert process.lamp.acts == []


async def test_an_outcome_that_was_written_but_not_said_is_said_by_the_next_process(core: Core) -> None:
    life = core.life()
    gone = Claimed("lamp-0-gone", Source(topic="reports", partition=core.partition, offset=1))
    grant = core.granting(life, gone)
    said = state(
        outcomes.outcome(grant, gone.instance, outcomes.Ended(Result.SUCCEEDED)), core.key("executor-lamp"), "test"
    )
    for number, kind in enumerate(("used", "ended")):
        entry = entry_of(life, grant, kind, detail={"question": life.question.digest} if number == 0 else {})
        signed = entry.model_copy(update={"outcome": said if kind == "ended" else None})
        await core.write_in_journal(signed, core.key("executor-lamp"))
    async with running(core) as process:
        await core.say(topics.APPROVED, life.intent.id, grant)
        heard = await core.hears_signed(Outcome, life)
        assert heard.statement == said
        # Nor is it looked at when the core has not heard it in time: the actor's own word counts.
        before = len(core.heard)
        await core.say_unknown(grant)
        assert (await core.hears_signed(Outcome, life, after=before)).statement == said
        assert process.lamp.acts == []
        assert process.lamp.looks == []


async def test_an_intent_with_a_journal_entry_that_nobody_signed_is_never_acted_upon(
    core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    life = core.life()
    async with running(core) as process:
        claim = await core.approve(life)
        grant = core.granting(life, claim)
        with caplog.at_level(logging.CRITICAL, "keyturn.executor"):
            await core.write_in_journal(entry_of(life, grant, "started"), FORGER)
            await core.say(topics.APPROVED, life.intent.id, grant)
            outcome = await core.hears(Outcome, life)
        assert outcome.reason == "refused: used: the journal holds an entry about this intent that cannot be trusted"
        assert process.lamp.acts == []


async def test_a_grant_that_was_not_claimed_is_refused(core: Core) -> None:
    life, other = core.life(), core.life()
    async with running(core) as process:
        claim = await core.approve(other)
        await core.grant(life, claim)
        refused = await core.hears(Outcome, life)
        assert (refused.result, refused.reason) == (
            Result.FAILED,
            "refused: claim: it answers no claim of this process",
        )
        assert process.lamp.acts == []


async def test_a_stale_plan_leaves_room_for_another_round(core: Core) -> None:
    async def moved(_: Act) -> Receipt:
        raise StaleError("somebody switched it meanwhile")

    life = core.life()
    async with running(core, Lamp(moved)) as process:
        await core.grant(life, await core.approve(life))
        outcome = await core.hears(Outcome, life)
        assert (outcome.result, outcome.reason) == (Result.STALE, "somebody switched it meanwhile")

        process.lamp.script = switch
        before = len(core.heard)
        again = life.but(number=2)
        await core.grant(again, await core.approve(again))
        assert (await core.hears(Outcome, again, after=before)).result is Result.SUCCEEDED
        assert len(process.lamp.acts) == 2


async def test_refused_and_ended_claims_free_their_place(core: Core) -> None:
    async with running(core, acts="1") as process:
        first, second, third = core.life(), core.life(), core.life()
        claim = await core.approve(first)
        # The only place is taken: these two wait, and the second of them is taken back before it is claimed.
        for waiting in (second, third):
            await core.say_approved(waiting)
        ended = ApprovalEnded(intent=second.intent.id, question=second.question.digest)
        await core.say(topics.APPROVED, second.intent.id, ended)
        refused = ClaimRefused(
            intent=first.intent.id,
            question=first.question.digest,
            instance=claim.instance,
            refusal=Refusal.LATE,
        )
        await core.say(topics.APPROVED, first.intent.id, refused)
        await core.grant(third, await core.hears_claim(third))
        assert (await core.hears(Outcome, third)).result is Result.SUCCEEDED
        claimed = {heard.record.key for heard in core.heard if heard.statement.type == Claim.TYPE}
        assert second.intent.id.encode() not in claimed
        assert [act.intent.id for act in process.lamp.acts] == [third.intent.id]


async def test_a_forged_grant_is_put_aside_with_an_alarm_and_a_true_one_still_counts(
    core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    life = core.life()
    async with running(core) as process:
        claim = await core.approve(life)
        with caplog.at_level(logging.CRITICAL, "keyturn.executor"):
            # Not the core's key; then the core's, but said where another ledger is asked.
            await core.say(topics.APPROVED, life.intent.id, core.granting(life, claim), by=FORGER)
            elsewhere = 1 - core.partition
            true = core.granting(life, claim)
            await core.say(topics.APPROVED, life.intent.id, true, number=99, partition=elsewhere)
            await core.say(topics.APPROVED, life.intent.id, true)
            assert (await core.hears(Outcome, life)).result is Result.SUCCEEDED
        assert len(process.lamp.acts) == 1
        async with asyncio.timeout(SECONDS):
            while not {Refusal.BAD_SIGNATURE, Refusal.WRONG_PARTITION} <= {
                one.refusal for one in await core.quarantined()
            }:
                pass
        assert any(record.message == "record refused; nothing was done" for record in caplog.records)


async def test_a_grant_over_a_forged_yes_fails_with_an_alarm_and_nothing_is_done(
    core: Core, caplog: pytest.LogCaptureFixture
) -> None:
    life = core.life()
    async with running(core) as process:
        claim = await core.approve(life)
        forged = life.yes("grace", at=now(), by=FORGER)
        with caplog.at_level(logging.CRITICAL, "keyturn.executor"):
            await core.grant(life, claim, votes=(forged,))
            outcome = await core.hears(Outcome, life)
        assert outcome.result is Result.FAILED
        assert outcome.reason == "refused: vote: no notifier signed the yes of grace"
        assert process.lamp.acts == []
        assert [entry.entry for entry in await core.journal(life)] == ["ended"]
        assert any(record.message == "grant refused; nothing was done" for record in caplog.records)


async def test_planning_does_not_wait_behind_an_act_and_unknown_ends_it(core: Core) -> None:
    life, other = core.life(), core.life()
    async with running(core, Lamp(stuck)) as process:
        grant = await core.grant(life, await core.approve(life))
        await asyncio.wait_for(process.lamp.acting.wait(), SECONDS)
        await core.ask_for_plan(other)
        await core.hears(Plan, other)
        assert core.outcomes(life) == []
        # The core's time ran out first: this act is stopped, and only then looked at.
        await core.say_unknown(grant)
        stopped = await core.hears(Outcome, life)
        assert (stopped.result, stopped.observed) == (Result.UNKNOWN, False)
        async with asyncio.timeout(SECONDS):
            while len(core.outcomes(life)) < 2:
                await core._listen()
        assert [entry.entry for entry in process.lamp.looks[0][1]] == ["used", "started"]


async def test_a_running_act_may_end_when_the_process_is_told_to_stop(core: Core) -> None:
    may_end = asyncio.Event()

    async def slow(act: Act) -> Receipt:
        await act.journal.started(1, "switch it")
        await may_end.wait()
        return Receipt(summary="on")

    life, late = core.life(), core.life()
    async with running(core, Lamp(slow)) as process:
        await core.grant(life, await core.approve(life))
        await asyncio.wait_for(process.lamp.acting.wait(), SECONDS)
        process.stop.set()
        await process.stopping()
        await core.ask_for_plan(late)
        may_end.set()
        assert (await core.hears(Outcome, life)).result is Result.SUCCEEDED
        await process.ends()
        assert process.lamp.plans == []
    async with running(core) as process:
        # What it left is the next one's, and what it did is nobody's.
        await core.hears(Plan, late)
        assert process.lamp.acts == []
        assert len(core.outcomes(life)) == 1


async def test_a_missing_number_stops_the_process(own_core: Core) -> None:
    core = own_core
    life = core.life()
    async with running(core) as process:
        await core.approve(life)
        core.lose_a_word()
        await core.grant(life, await core.hears_claim(life))
        with pytest.raises(NumberGapError):
            await asyncio.wait_for(process.task, SECONDS)
        assert process.lamp.acts == []


async def test_what_runs_when_a_number_is_missing_may_end_and_nothing_new_begins(own_core: Core) -> None:
    core, may_end = own_core, asyncio.Event()

    async def slow(act: Act) -> Receipt:
        await act.journal.started(1, "switch it")
        await may_end.wait()
        return Receipt(summary="on")

    life, late = core.life(), core.life()
    async with running(core, Lamp(slow)) as process:
        await core.grant(life, await core.approve(life))
        await asyncio.wait_for(process.lamp.acting.wait(), SECONDS)
        core.lose_a_word()
        await core.say_approved(late)
        await process.stopping()
        assert not process.task.done()
        may_end.set()
        assert (await core.hears(Outcome, life)).result is Result.SUCCEEDED
        with pytest.raises(NumberGapError):
            await asyncio.wait_for(process.task, SECONDS)
        assert len(process.lamp.acts) == 1


async def test_a_number_missing_where_a_new_process_goes_on_stops_it_until_an_administrator_says_where_to(
    own_core: Core,
) -> None:
    core = own_core
    life, other = core.life(), core.life()
    async with running(core) as process:
        await core.grant(life, await core.approve(life))
        await core.hears(Outcome, life)
        # Whatever is handled is committed when it ends, and nothing waits.
        await process.ends()
    core.lose_a_word()
    await core.say_approved(other)
    for _ in range(2):
        async with running(core) as process:
            with pytest.raises(NumberGapError, match=r"number 3 at offset \d+ comes after number 1") as caught:
                await asyncio.wait_for(process.task, SECONDS)
            assert process.lamp.acts == []
    found = re.search(r"at offset (\d+)", str(caught.value))
    assert found is not None
    await core.set_back(int(found[1]))
    async with running(core) as process:
        await core.grant(other, await core.hears_claim(other))
        assert (await core.hears(Outcome, other)).result is Result.SUCCEEDED
        assert len(process.lamp.acts) == 1


async def test_an_executor_whose_key_nobody_listed_waits_and_says_so(core: Core, tmp_path: Path) -> None:
    file = tmp_path / "unlisted.key"
    file.write_text(base64.b64encode(bytes(range(32))).decode())
    async with running(core, changed={"key_file": file}) as process:
        async with asyncio.timeout(SECONDS):
            while "key" not in process.health._waiting:  # noqa: ASYNC110  no event is set for it
                await asyncio.sleep(0.02)
        await process.ends()


async def test_two_processes_share_the_partitions_and_each_intent_is_done_once(core: Core) -> None:
    async with running(core) as first, running(core, changed={"instance": "1"}) as second:
        await first.ready()
        await second.ready()
        lives = [core.life() for _ in range(3)]
        for life in lives:
            await core.grant(life, await core.approve(life))
            assert (await core.hears(Outcome, life)).result is Result.SUCCEEDED
        done = [act.intent.id for process in (first, second) for act in process.lamp.acts]
        assert sorted(done) == sorted(life.intent.id for life in lives)
        assert [len(core.outcomes(life)) for life in lives] == [1, 1, 1]
        await second.ends()
        await first.ends()
