"""Nobody wears people down (T14): caps, a rate, and a cool-down after a no, all of them a function of the log."""

import pytest

from broker.core.rows import Rows, Stored
from broker.lifecycle import denied_wish_of
from schemas.records import PendingApproval, Phase, Refusal, Subject
from schemas.snapshots import Agent, Directory
from tests.broker.builders import AGENTS, HOUR, MINUTE, SECOND, T0, Story, an_intent


def agents_with(**changed: object) -> tuple[Agent, ...]:
    first, *others = AGENTS
    return (first.model_copy(update=changed), *others)


def denied_by_people(number: int = 1) -> Story:
    story = Story()
    story.ask(number=number)
    story.plan()
    assert story.deny("dan").refusal is None
    assert story.phase is Phase.DENIED
    return story


# ---------------------------------------------------------------- the judge


def test_what_people_denied_is_not_asked_again_before_the_cool_down_is_over() -> None:
    story = Story(denied_at=T0 - HOUR + 1)
    step = story.ask()
    assert (step.refusal, story.phase) == (Refusal.COOL_DOWN, Phase.REFUSED)
    assert step.reason == "people denied the same wish; it may be asked again in 1 s"


def test_once_it_is_over_it_may_be_asked() -> None:
    story = Story(denied_at=T0 - HOUR)
    assert (story.ask().refusal, story.phase) == (None, Phase.PLANNING)


@pytest.mark.parametrize(("seconds", "refusal"), [(0, None), (1, None), (3600, Refusal.COOL_DOWN)])
def test_how_long_it_lasts_is_in_the_directory(seconds: int, refusal: Refusal | None) -> None:
    story = Story(denied_at=T0 - 2 * SECOND)
    story.becomes(Directory, agents=agents_with(cool_down=seconds))
    assert story.ask().refusal is refusal


def test_a_person_may_ask_again_at_once() -> None:
    story = Story(denied_at=T0 - SECOND)
    person = Subject(type="person", id="eve")
    assert story.ask(requester="eve", subject=person, signed_by="gateway").refusal is None


@pytest.mark.parametrize(("before", "refusal"), [(4, None), (5, Refusal.OVERLOADED), (500, Refusal.OVERLOADED)])
def test_an_agent_is_admitted_so_many_times_a_minute(before: int, refusal: Refusal | None) -> None:
    story = Story(in_last_minute=before)
    story.becomes(Directory, agents=agents_with(max_per_minute=5))
    assert story.ask().refusal is refusal


def test_without_a_rate_in_the_directory_only_open_intents_are_bounded() -> None:
    assert Story(in_last_minute=100_000).ask().refusal is None


# ---------------------------------------------------------------- what the rows remember


def restored(rows: Rows) -> Rows:
    """As the next process reads them from Kafka."""
    again = Rows()
    for intent_id in sorted(rows._rows, reverse=True):
        stored = rows._rows[intent_id]
        again.put(intent_id, Stored.read(tuple(stored.headers()), stored.value))
    return again


def put(rows: Rows, row: PendingApproval) -> None:
    rows.put(row.intent_id, Stored.of(row))


def wish(story: Story) -> str:
    assert story.intent is not None
    return story.intent.content_digest


def test_rows_remember_what_people_denied_and_when_through_a_restart() -> None:
    first, second = denied_by_people(1), denied_by_people(2)
    assert wish(first) == wish(second)
    rows = Rows()
    put(rows, first.here)
    later = second.here.model_copy(update={"ended_at": second.here.ended_at + MINUTE if second.here.ended_at else None})
    put(rows, later)
    for each in (rows, restored(rows)):
        assert each.denied_at(wish(first)) == later.ended_at
        assert each.denied_at("0" * 64) is None
        each.drop(later.intent_id)
        assert each.denied_at(wish(first)) == first.here.ended_at
        each.drop(first.here.intent_id)
        assert each.denied_at(wish(first)) is None


def test_what_policy_denied_and_what_expired_costs_nobody_attention() -> None:
    forbidden = Story()
    forbidden.ask(properties={"bucket": "locked"})
    assert forbidden.phase is Phase.DENIED
    assert denied_wish_of(forbidden.here) is None
    withdrawn = Story()
    withdrawn.ask()
    withdrawn.plan()
    assert denied_wish_of(withdrawn.here) is None


def test_a_hint_that_lies_of_a_denial_bars_nobody() -> None:
    story = Story()
    story.ask()
    stored = Stored.of(story.here)
    assert story.intent is not None
    lying = Stored(stored.value, Phase.DENIED, None, T0, T0, story.intent.content_digest)
    rows = Rows()
    rows.put(story.here.intent_id, lying)
    assert rows.denied_at(story.intent.content_digest) is None
    assert rows.open_of("bot") == 1


def test_the_minute_before_counts_what_was_admitted_and_nothing_else() -> None:
    rows = Rows()
    for number in range(10):
        story = Story()
        story.ask(number=number)
        put(rows, story.here.model_copy(update={"asked_at": T0 + number * 10 * SECOND}))
    refused = Story(open_intents=3)
    refused.ask(number=99)
    assert refused.phase is Phase.REFUSED
    put(rows, refused.here)
    for each in (rows, restored(rows)):
        assert each.asked_before("bot", T0 + 90 * SECOND) == 6
        assert each.asked_before("bot", T0) == 1
        assert each.asked_before("bot", T0 - 1) == 0
        assert each.asked_before("bot", T0 + HOUR) == 0
        assert each.asked_before("old", T0) == 0
    # An intent that is refused after all (it can't be planned) counts no more, and a forgotten one neither.
    last = an_intent(number=9).id
    row = rows.get(last)
    assert row is not None
    put(rows, row.model_copy(update={"phase": Phase.REFUSED, "ended_at": T0}))
    rows.drop(an_intent(number=8).id)
    for each in (rows, restored(rows)):
        assert each.asked_before("bot", T0 + 90 * SECOND) == 4
