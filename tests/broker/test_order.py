"""In which order a partition decides: no gap, no repeat, and nothing acknowledged is overtaken by a claim or a tick."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import order
from broker.core.order import BEFORE_CLAIM, BEFORE_TICK, INPUTS, Input, OffsetGapError, Order, ReadEnds, Ready, Starved


def offered(positions: dict[str, int] | None = None, *items: tuple[str, int, bool]) -> Order[str]:
    ordered: Order[str] = Order(positions or {})
    for name, offset, is_claim in items:
        assert ordered.offer(Input(name, offset, f"{name}/{offset}", is_claim))
    return ordered


def taken(ordered: Order[str]) -> list[str]:
    """Everything that is ready now."""
    found = []
    while isinstance(step := ordered.next(), Ready):
        found.append(step.input.body)
    return found


def test_what_was_decided_or_fetched_before_is_dropped() -> None:
    ordered = offered({"decisions": 7})
    assert not ordered.offer(Input("decisions", 6, "decided"))
    assert ordered.offer(Input("decisions", 7, "due"))
    assert not ordered.offer(Input("decisions", 7, "again"))
    assert taken(ordered) == ["due"]
    assert not ordered.offer(Input("decisions", 7, "again"))
    assert ordered.positions["decisions"] == 8


def test_a_gap_is_an_error_that_names_the_topic_and_the_due_offset() -> None:
    ordered = offered({"decisions": 7}, ("decisions", 7, False))
    with pytest.raises(OffsetGapError, match="decisions: offset 9 where 8 was due"):
        ordered.offer(Input("decisions", 9, "later"))
    assert ordered.fetched_to("decisions") == 8
    assert ordered.offer(Input("decisions", 8, "due"))


def test_the_world_goes_first_then_intents_then_people() -> None:
    names = ("ticks", "reports", "decisions", "classified", *reversed(order.WORLD))
    ordered = offered(None, *((name, 0, False) for name in names))
    assert taken(ordered) == [f"{name}/0" for name in (*order.WORLD, "classified", "decisions", "reports")]
    assert ordered.next() == ReadEnds(BEFORE_TICK, "ticks", 1)


@pytest.mark.parametrize(
    ("topic", "needs"), [("reports", BEFORE_CLAIM), ("ticks", BEFORE_TICK)], ids=["a claim", "a tick"]
)
def test_a_claim_and_a_tick_wait_for_what_stands_below_the_ends_read_after_they_were_fetched(
    topic: str, needs: tuple[str, ...]
) -> None:
    for name in needs:
        ordered = offered(None, (topic, 0, topic == "reports"))
        asked = ordered.next()
        assert asked == ReadEnds(needs, topic, 1)
        assert isinstance(asked, ReadEnds)
        ordered.ends_are(asked, {each: 2 if each == name else 0 for each in needs})
        assert ordered.next() == Starved(waits=True)
        assert ordered.awaited() == {name: 0}
        ordered.offer(Input(name, 0, "first"))
        assert ordered.next() == Ready(Input(name, 0, "first"))
        assert ordered.next() == Starved(waits=True)
        assert ordered.awaited() == {name: 1}
        ordered.offer(Input(name, 1, "second"))
        assert taken(ordered) == ["second", f"{topic}/0"]
        assert ordered.awaited() == {}


def test_ends_read_for_one_claim_are_never_used_for_a_later_one() -> None:
    ordered = offered(None, ("reports", 0, True))
    first = ordered.next()
    assert isinstance(first, ReadEnds)
    ordered.ends_are(first, dict.fromkeys(BEFORE_CLAIM, 0))
    # Fetched before the question is answered is not fetched before it was asked.
    ordered.offer(Input("reports", 1, "reports/1", is_claim=True))
    assert taken(ordered) == ["reports/0"]
    second = ordered.next()
    assert second == ReadEnds(BEFORE_CLAIM, "reports", 2)
    assert isinstance(second, ReadEnds)
    ordered.ends_are(second, dict.fromkeys(BEFORE_CLAIM, 0) | {"decisions": 1})
    assert ordered.next() == Starved(waits=True)


def test_claims_fetched_together_share_one_reading_of_the_ends() -> None:
    ordered = offered(None, ("reports", 0, True), ("reports", 1, False), ("reports", 2, True))
    asked = ordered.next()
    assert isinstance(asked, ReadEnds)
    ordered.ends_are(asked, dict.fromkeys(BEFORE_CLAIM, 0))
    assert taken(ordered) == ["reports/0", "reports/1", "reports/2"]
    assert ordered.next() == Starved(waits=False)


def test_reports_that_claim_nothing_wait_for_nobody() -> None:
    ordered = offered(None, ("reports", 0, False), ("reports", 1, True))
    assert taken(ordered) == ["reports/0"]


def test_what_stands_behind_a_waiting_claim_keeps_its_place() -> None:
    ordered = offered(None, ("reports", 0, True), ("reports", 1, False), ("ticks", 0, False))
    asked = ordered.next()
    assert isinstance(asked, ReadEnds)
    ordered.ends_are(asked, dict.fromkeys(BEFORE_CLAIM, 0) | {"classified": 1})
    assert ordered.next() == Starved(waits=True)
    ordered.offer(Input("classified", 0, "classified/0"))
    assert taken(ordered) == ["classified/0", "reports/0", "reports/1"]
    assert ordered.next() == ReadEnds(BEFORE_TICK, "ticks", 1)


# ---------------------------------------------------------------- against a naive model


@dataclass
class Model:
    """The laws, as plainly as they can be said: who was on the log when a claim or a tick was fetched goes first."""

    logs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INPUTS, 0))
    #: For each waiting claim and tick, how long every log was when it was fetched.
    stood: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    claims: set[int] = field(default_factory=set)
    decided: list[tuple[str, int]] = field(default_factory=list)

    def require_allowed(self, name: str, offset: int) -> None:
        """Law 11: each offset once, in its turn. Law 4: after everything that was acknowledged before."""
        assert offset == sum(1 for topic, _ in self.decided if topic == name)
        needs: Iterable[str] = ()
        if name == "ticks":
            needs = BEFORE_TICK
        elif name == "reports" and offset in self.claims:
            needs = BEFORE_CLAIM
        for each in needs:
            done = sum(1 for topic, _ in self.decided if topic == each)
            assert done >= self.stood[name, offset][each], f"{name}/{offset} overtook {each}"


operations = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(INPUTS), st.booleans()),
    st.tuples(st.just("fetch"), st.sampled_from(INPUTS), st.booleans()),
    st.tuples(st.just("refetch"), st.sampled_from(INPUTS), st.booleans()),
    st.tuples(st.just("step"), st.just(""), st.booleans()),
)


@settings(max_examples=300)
@given(st.lists(operations, max_size=60))
def test_any_history_is_decided_whole_in_turn_and_behind_its_barriers(  # noqa: C901 - one flat match
    history: list[tuple[str, str, bool]],
) -> None:
    model = Model()
    ordered: Order[tuple[str, int]] = Order({})
    asked: ReadEnds | None = None

    def fetch(name: str) -> None:
        offset = ordered.fetched_to(name)
        if offset < model.logs[name]:
            model.stood[name, offset] = dict(model.logs)
            is_claim = name == "reports" and offset in model.claims
            assert ordered.offer(Input(name, offset, (name, offset), is_claim))

    def step() -> Ready[tuple[str, int]] | ReadEnds | Starved | None:
        nonlocal asked
        if asked is not None:
            ordered.ends_are(asked, {name: model.logs[name] for name in asked.topics})
            asked = None
            return None
        found = ordered.next()
        if isinstance(found, Ready):
            model.require_allowed(*found.input.body)
            model.decided.append(found.input.body)
        elif isinstance(found, ReadEnds):
            asked = found
        return found

    for act, name, flag in history:
        match act:
            case "append":
                if name == "reports" and flag:
                    model.claims.add(model.logs[name])
                model.logs[name] += 1
            case "fetch":
                fetch(name)
            case "refetch":
                for offset in range(ordered.fetched_to(name)):
                    assert not ordered.offer(Input(name, offset, (name, offset)))
            case _:
                step()
    # Once nothing more is appended, everything is decided: no barrier waits for ever.
    for _ in range(10 * (sum(model.logs.values()) + 1)):
        if isinstance(step(), Starved):
            for name in INPUTS:
                fetch(name)
    assert {name: ordered.positions[name] for name in INPUTS} == model.logs
    assert len(model.decided) == len(set(model.decided)) == sum(model.logs.values())


def test_a_partition_goes_on_behind_what_is_gone_only_while_nothing_waits_before_it() -> None:
    ordered = offered({"decisions": 7})
    ordered.jump("decisions", 40)
    assert ordered.offer(Input("decisions", 40, "due"))
    with pytest.raises(AssertionError, match="decisions: records wait"):
        ordered.jump("decisions", 50)
    assert taken(ordered) == ["due"]
