"""One act within its lease, each step in the journal before it is taken; and planning, which is total."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from executors import checking
from executors.acting import ActJournal, Execution
from executors.contract import Act, ActFailedError, OutcomeUnknownError, StaleError
from executors.errors import RunawayActError
from executors.outcomes import Ended
from executors.planner import Planner
from schemas.records import JournalEntry, Plan, PlanFailed, PlanRequest, Receipt, Result
from tests.executors.builders import GRANTED, INSTANCE, OWN, Life, wish
from tests.executors.lamp import LAMP, Lamp, Script, switch

LIFE = Life()
GRANT = LIFE.grant(LIFE.yes("grace"))


@dataclass
class Desk:
    """A clock that is moved by hand, a journal on paper."""

    now: int = GRANTED
    paper: list[JournalEntry] = field(default_factory=list)
    on_write: Callable[[], None] = lambda: None

    async def write(self, entry: JournalEntry) -> None:
        self.on_write()
        self.paper.append(entry)

    async def act(self, script: Script, *, lease_ms: int = 60_000, seconds: float = 5) -> Ended:
        execution, _ = self.prepared(script, lease_ms=lease_ms, seconds=seconds)
        return await execution.run(lambda: self.now)

    def prepared(self, script: Script, *, lease_ms: int = 60_000, seconds: float = 5) -> tuple[Execution, Lamp]:
        grant = GRANT.model_copy(update={"lease_until": GRANTED + lease_ms})
        deadline = checking.deadline_of(grant, OWN.limits)
        journal = ActJournal(LIFE.intent.id, grant.digest, INSTANCE, deadline, self.write, lambda: self.now)
        act = Act(LIFE.intent, LIFE.plan, grant, grant.digest, deadline, journal)
        lamp = Lamp(script)
        return Execution(lamp, act, journal, OWN.limits.skew_ms, seconds, 0.05), lamp


async def test_each_step_is_written_before_it_is_taken() -> None:
    desk = Desk()

    async def script(act: Act) -> Receipt:
        await act.journal.started(1, "switch it", {"lamp": "lamp-1"})
        assert [(entry.entry, entry.step) for entry in desk.paper] == [("started", 1)]
        await act.journal.done(1, "switch it")
        return Receipt(summary="on")

    ended = await desk.act(script)
    assert ended == Ended(Result.SUCCEEDED, None, Receipt(summary="on"))
    assert desk.paper[0].detail == {"lamp": "lamp-1"}
    assert {entry.grant for entry in desk.paper} == {GRANT.digest}


async def test_an_act_that_takes_too_long_is_stopped_and_its_outcome_is_unknown() -> None:
    async def script(_: Act) -> Receipt:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await Desk().act(script, seconds=0.05)).result is Result.UNKNOWN
    assert (await Desk().act(script, lease_ms=OWN.limits.skew_ms + 50)).result is Result.UNKNOWN


async def test_an_act_whose_lease_the_core_ended_is_stopped() -> None:
    async def script(_: Act) -> Receipt:
        await asyncio.Event().wait()
        raise AssertionError

    desk = Desk()
    execution, lamp = desk.prepared(script)
    running = asyncio.create_task(execution.run(lambda: desk.now))
    await lamp.acting.wait()
    execution.end("the core says so")
    assert await running == Ended(Result.UNKNOWN, "stopped: the core says so")


async def test_an_act_that_does_not_stop_ends_the_process() -> None:
    free = asyncio.Event()

    async def script(_: Act) -> Receipt:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return Receipt(summary="late")

    with pytest.raises(RunawayActError):
        await Desk().act(script, seconds=0.05)
    free.set()


async def test_no_step_begins_after_the_credentials_died() -> None:
    desk = Desk()

    async def late(act: Act) -> Receipt:
        desk.now = act.deadline.credential_dies_at
        await act.journal.started(1, "too late")
        raise AssertionError

    assert (await desk.act(late)).result is Result.FAILED
    assert desk.paper == []

    async def later(act: Act) -> Receipt:
        await act.journal.started(1, "in time")
        desk.now = act.deadline.credential_dies_at
        await act.journal.started(2, "too late")
        raise AssertionError

    desk.now = GRANTED
    assert (await desk.act(later)).result is Result.UNKNOWN


async def test_a_slow_journal_does_not_carry_a_step_past_its_time() -> None:
    desk = Desk()

    def slow() -> None:
        desk.now = GRANTED + 60_000

    desk.on_write = slow
    assert (await desk.act(switch)).result is Result.UNKNOWN


async def test_a_journal_that_cannot_be_written_stops_the_process_whatever_the_plugin_does() -> None:
    desk = Desk()

    def broken() -> None:
        raise ConnectionError("no journal")

    desk.on_write = broken

    async def careless(act: Act) -> Receipt:
        try:
            await act.journal.started(1, "switch it")
        except ConnectionError:
            return Receipt(summary="on")
        raise AssertionError

    with pytest.raises(ConnectionError):
        await desk.act(careless)


async def test_a_step_that_cannot_be_written_down_is_not_taken() -> None:
    async def unwritable(act: Act) -> Receipt:
        await act.journal.started(1, "copy", {"key": "cafe\u0301"})
        raise AssertionError

    desk = Desk()
    assert (await desk.act(unwritable)).result is Result.FAILED
    assert desk.paper == []


async def test_stale_counts_only_while_nothing_was_begun() -> None:
    async def at_once(_: Act) -> Receipt:
        raise StaleError("it moved")

    async def afterwards(act: Act) -> Receipt:
        await act.journal.started(1, "switch it")
        raise StaleError("it moved")

    assert (await Desk().act(at_once)).result is Result.STALE
    assert (await Desk().act(afterwards)).result is Result.UNKNOWN


async def test_what_a_plugin_says_of_its_own_act_is_kept() -> None:
    async def failed(_: Act) -> Receipt:
        raise ActFailedError("denied", Receipt(summary="half"))

    async def unknown(_: Act) -> Receipt:
        raise OutcomeUnknownError("no answer")

    async def broken(_: Act) -> Receipt:
        raise KeyError("bug")

    assert await Desk().act(failed) == Ended(Result.FAILED, "denied", Receipt(summary="half"))
    assert await Desk().act(unknown) == Ended(Result.UNKNOWN, "no answer")
    assert (await Desk().act(broken)).result is Result.FAILED


# ---------------------------------------------------------------- planning


def request(to: str) -> PlanRequest:
    life = LIFE.but(intent=wish(to=to))
    return PlanRequest(round=life.round, classified=life.classified, expires_at=GRANTED)


async def planned(asked: PlanRequest, seconds: int = 5) -> Plan | PlanFailed:
    action = LAMP.actions[0].model_copy(update={"timeout": seconds})
    manifest = LAMP.model_copy(update={"actions": (action,)})
    return await Planner(manifest, Lamp(), lambda: GRANTED, lambda: 1).plan(asked)


async def test_a_plan_is_for_what_was_asked() -> None:
    asked = request("on")
    plan = await planned(asked)
    assert isinstance(plan, Plan)
    assert plan.round == asked.round


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("nowhere", "there is no such lamp"),
        ("break", "internal: ZeroDivisionError"),
        ("flood", "at most 32768 are accepted"),
        ("other", "internal: the plan is for something else than was asked"),
    ],
)
async def test_there_is_no_plan_and_the_reason_is_told(to: str, reason: str) -> None:
    failed = await planned(request(to))
    assert isinstance(failed, PlanFailed)
    assert reason in failed.reason


async def test_planning_ends_after_the_manifests_time() -> None:
    failed = await planned(request("sleep"), seconds=0)
    assert isinstance(failed, PlanFailed)
    assert "longer than the manifest allows" in failed.reason


async def test_an_action_this_process_does_not_know_has_no_plan() -> None:
    action = LIFE.intent.action.model_copy(update={"name": "lamp.sing"})
    life = LIFE.but(intent=LIFE.intent.model_copy(update={"action": action}))
    failed = await planned(PlanRequest(round=life.round, classified=life.classified, expires_at=GRANTED))
    assert isinstance(failed, PlanFailed)
    assert "has no action lamp.sing" in failed.reason


async def test_a_request_about_another_intent_has_no_plan() -> None:
    asked = PlanRequest(round=Life(wish(number=4)).round, classified=LIFE.classified, expires_at=GRANTED)
    assert isinstance(await planned(asked), PlanFailed)
