"""Law 4 after a restore: what was asked before it opens no life, and what waits only ends."""

import pytest

from broker import lifecycle
from schemas.records import Phase, Refusal
from schemas.timing import LEADER_SKEW_MS
from tests.broker.builders import MINUTE, Story, a_world, event_of, in_phase


def restored(story: Story) -> Story:
    story.world = story.world.restored(story.at + MINUTE)
    return story


def test_an_intent_from_before_opens_no_life() -> None:
    story = restored(Story(world=a_world()))
    step = story.ask()
    assert (step.refusal, step.reason) == (Refusal.ID_OUT_OF_WINDOW, lifecycle.RESTORED)


@pytest.mark.parametrize("phase", [Phase.PLANNING, Phase.PENDING, Phase.APPROVED])
def test_what_waits_from_before_expires_at_the_next_tick_whatever_its_deadline(phase: Phase) -> None:
    story = restored(in_phase(phase))
    story.tick()
    assert story.phase is Phase.EXPIRED
    assert story.here.reason == lifecycle.RESTORED


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.APPROVED])
def test_what_waits_from_before_hears_no_yes_and_no_claim_but_is_withdrawn(phase: Phase) -> None:
    story = restored(in_phase(phase))
    assert story.approve("eve").refusal is Refusal.ID_OUT_OF_WINDOW
    assert story.claim().refusal is Refusal.ID_OUT_OF_WINDOW
    story.withdraw()
    assert story.phase is Phase.WITHDRAWN


def test_an_act_from_before_still_ends() -> None:
    story = restored(in_phase(Phase.EXECUTING))
    story.report()
    assert story.phase is Phase.SUCCEEDED


def test_a_restore_is_no_reason_to_wait_for_the_leaders_clocks() -> None:
    story = in_phase(Phase.PENDING)
    assert story.tick(story.here.expires_at).refusal is not None
    assert restored(story).tick(story.at - LEADER_SKEW_MS).refusal is None


def test_a_wish_is_told_by_what_is_asked_whatever_its_id_and_only_of_an_intent_that_can_be_read() -> None:
    first, second = Story(world=a_world()), Story(world=a_world())
    first.ask(number=1)
    second.ask(number=2)
    assert first.intent.id != second.intent.id
    wish = lifecycle.wish_of(first.events[0])
    assert wish == lifecycle.wish_of(second.events[0]) == first.intent.content_digest
    assert lifecycle.wish_of(event_of(first.a_withdrawal(), at=first.at)) is None
    classified = first.events[0].record
    broken = classified.intent.model_copy(update={"body": {**classified.intent.body, "action": 7}})
    unreadable = event_of(classified.model_copy(update={"intent": broken}), at=first.at)
    assert lifecycle.wish_of(unreadable) is None
