"""The eleven interleavings that broke an earlier draft. Each is told as it happened, and must end well.

What concerns an executor alone (credentials, observing) is tested with executors; here is the core's part of it.
"""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from broker.core import order
from broker.core.order import BEFORE_CLAIM, BEFORE_TICK, Input, Order, ReadEnds, Ready, Starved
from schemas.record import state
from schemas.records import (
    ApprovalEnded,
    Channel,
    ClaimRefused,
    Grant,
    OutcomeUnknown,
    Phase,
    PlanRequest,
    Refusal,
    Result,
    Tick,
    Verdict,
)
from schemas.snapshots import Directory, Roster, Rota, Shift
from schemas.timing import LEADER_SKEW_MS
from tests.broker.builders import (
    DAY,
    HOUR,
    LEASE,
    MINUTE,
    REALM,
    ROSTER,
    SECOND,
    SETTLE,
    T0,
    Partition,
    Story,
    a_partition,
    agents_with,
    an_intent,
    approved,
    changed,
    classified_of,
    executing,
    groups_with,
    in_phase,
    pending,
    signer,
    unknown,
)


def on_call(*names: str) -> Roster:
    shifts = tuple(Shift(person=name, starts_at=T0 - DAY, ends_at=T0 + DAY) for name in names)
    return ROSTER.model_copy(update={"rotas": (Rota(id="night", shifts=shifts),)})


def test_1_a_duplicate_of_an_old_stale_moves_nobody_out_of_a_new_lease() -> None:
    story = executing(instance="a")
    old_stale = story.an_outcome(Result.STALE, "a")
    story.hear(old_stale)
    story.plan()
    story.approve("eve")
    story.claim("a")
    grant = story.grant
    assert story.hear(old_stale).refusal is Refusal.WRONG_GRANT
    assert (story.phase, story.here.grant) == (Phase.EXECUTING, grant)
    assert story.claim("b").refusal is Refusal.WRONG_PHASE
    assert story.said(ClaimRefused)[0].instance == "b"


def test_2_a_revoke_that_overtakes_its_own_yes_through_another_channel_bars_it() -> None:
    story = pending()
    slow = story.a_decision(Verdict.APPROVE, "dan", channel=Channel.SLACK)
    story.revoke("dan", channel=Channel.API)
    assert story.hear(slow, by="slack").refusal is Refusal.BARRED
    assert story.voters == set()
    assert story.claim().refusal is Refusal.WRONG_PHASE


def test_2_and_8_the_revoke_counts_even_where_the_core_has_not_read_the_roster_that_gives_the_seat() -> None:
    story = pending("s3.guard")
    slow = story.a_decision(Verdict.APPROVE, "eve", channel=Channel.SLACK)
    assert story.revoke("eve").refusal is None
    story.becomes(Roster, rotas=on_call("eve").rotas)
    assert story.hear(slow, by="slack").refusal is Refusal.BARRED


@pytest.mark.parametrize(("by", "kind"), [("bot", "agent"), ("ada", "person")])
def test_3_a_withdrawal_whose_intent_was_lost_pins_the_id_until_the_sweep_drives_it_again(
    by: str, kind: Literal["agent", "person"]
) -> None:
    partition = a_partition()
    story = Story()
    partition.append(story.a_withdrawal(by, kind), at=T0)
    partition.fetch()
    partition.run()
    swept = classified_of(partition.world, state(story.intent, signer("bot"), REALM))
    partition.append(swept, at=T0 + 10 * SECOND)
    partition.fetch()
    partition.run()
    assert partition.rows[story.intent.id].phase is Phase.WITHDRAWN
    assert partition.steps[-1][1].refusal is Refusal.FINAL
    assert partition.told(PlanRequest) == []


@pytest.mark.parametrize(("stop", "end"), [("withdraw", Phase.WITHDRAWN), ("revoke", Phase.REVOKED)])
def test_4_a_withdrawal_too_late_to_stop_is_remembered_when_nothing_was_done(stop: str, end: Phase) -> None:
    story = executing()
    if stop == "withdraw":
        story.withdraw()
    else:
        story.revoke("dan")
    story.report(Result.STALE)
    assert story.phase is end
    assert story.said(PlanRequest) == []


def test_5_a_tick_of_a_leader_that_is_ahead_does_not_beat_a_timely_yes() -> None:
    story = pending()
    deadline = story.here.expires_at
    assert deadline is not None
    # The leader of `ticks` is ahead by all that is allowed; the yes is appended later, and a millisecond in time.
    assert story.tick(deadline + LEADER_SKEW_MS).refusal is Refusal.WRONG_PHASE
    story.approve("dan", at=deadline - 1)
    assert story.phase is Phase.APPROVED


def test_5_a_yes_that_was_acknowledged_before_a_due_tick_is_decided_first() -> None:
    partition, story = waiting_for_people()
    deadline = partition.rows[story.intent.id].expires_at
    assert deadline is not None
    partition.append(Tick(partition=0, number=1), at=deadline + LEADER_SKEW_MS + 1)
    partition.fetch("ticks")
    story.row = partition.rows[story.intent.id]
    partition.append(story.a_decision(Verdict.APPROVE, "dan"), at=deadline - 1, by="api")
    partition.run()
    approved_then = [step.row.phase for _, step in partition.steps if step.row is not None]
    assert approved_then[-2:] == [Phase.APPROVED, Phase.EXPIRED]


def test_6_a_plan_of_a_fast_leader_makes_no_timely_yes_late() -> None:
    story = in_phase(Phase.PLANNING)
    deadline = story.here.expires_at
    assert deadline is not None
    story.plan(at=deadline + SECOND)
    story.approve("dan", at=deadline - 1)
    assert story.phase is Phase.APPROVED
    assert story.here.approved_until == deadline
    assert story.claim(at=deadline - 1).refusal is None


def test_7_an_owner_who_leaves_while_the_intent_waits_unread_stays_in_the_circle() -> None:
    story = Story()
    said = classified_of(story.world, state(story.intent, signer("bot"), REALM))
    story.becomes(Directory, agents=agents_with("bot", owners=("fay",), users=()))
    story.hear(said)
    story.plan()
    assert story.approve("ada").refusal is Refusal.SELF_APPROVAL
    assert story.approve("ben").refusal is Refusal.SELF_APPROVAL
    assert story.approve("fay").refusal is Refusal.SELF_APPROVAL


@pytest.mark.parametrize("since", [T0 - LEADER_SKEW_MS, T0 + 1])
def test_7_an_owner_who_leaves_while_intake_is_behind_stays_in_the_circle(since: int) -> None:
    story = Story(at=T0 + MINUTE)
    story.becomes(Directory, since=since, agents=agents_with("bot", owners=("fay",), users=()))
    story.hear(classified_of(story.world, state(story.intent, signer("bot"), REALM)))
    assert (story.here.circle_from, story.here.circle_to) == (1, 2)
    story.plan()
    assert story.approve("ada").refusal is Refusal.SELF_APPROVAL
    assert story.approve("ben").refusal is Refusal.SELF_APPROVAL
    assert story.approve("fay").refusal is Refusal.SELF_APPROVAL


def test_7_an_owner_who_left_before_it_was_asked_is_outside() -> None:
    story = Story(at=T0 + MINUTE)
    story.becomes(Directory, since=T0 - LEADER_SKEW_MS - 1, agents=agents_with("bot", owners=("fay",), users=()))
    story.hear(classified_of(story.world, state(story.intent, signer("bot"), REALM)))
    assert story.here.circle == ("fay",)


def test_7_an_asking_that_intake_dates_into_the_future_begins_no_circle_later() -> None:
    story = Story(at=T0)
    story.becomes(Directory, since=T0 - 1, agents=agents_with("bot", owners=("fay",), users=()))
    story.hear(classified_of(story.world, state(story.intent, signer("bot"), REALM), at=T0 + MINUTE))
    assert "ada" in story.here.circle


def test_7_who_joins_and_leaves_between_two_checks_stays_in_the_circle() -> None:
    story = pending()
    story.becomes(Directory, agents=agents_with("bot", owners=("ada", "eve")))
    story.becomes(Directory, agents=agents_with("bot"))
    assert story.approve("eve").refusal is Refusal.SELF_APPROVAL
    story = approved()
    story.becomes(Directory, agents=agents_with("bot", owners=("ada", "dan")))
    story.becomes(Directory, agents=agents_with("bot"))
    story.claim()
    assert story.steps[-1].event == "claim.reopened"
    assert "dan" in story.here.circle


def waiting_for_people(action: str = "s3.copy") -> tuple[Partition, Story]:
    """A partition whose intent waits for people."""
    partition = a_partition()
    story = Story(world=partition.world)
    story.intent = an_intent(action)
    partition.append(classified_of(partition.world, state(story.intent, signer("bot"), REALM)), at=T0)
    partition.fetch()
    partition.run()
    story.row = partition.rows[story.intent.id]
    partition.append(story.a_plan(), at=T0)
    partition.fetch()
    partition.run()
    story.row = partition.rows[story.intent.id]
    assert story.phase is Phase.PENDING
    return partition, story


def test_8_a_roster_that_was_acknowledged_before_the_decision_is_judged_at_the_claim() -> None:
    partition, story = waiting_for_people("s3.guard")
    # Ivy is no longer on call: acknowledged, not read. Her yes counts by what the core knows.
    partition.publish(changed(partition.world, Roster, rotas=on_call("kim").rotas).rosters[-1], at=T0 + 1)
    partition.append(story.a_decision(Verdict.APPROVE, "ivy"), at=T0 + 2, by="api")
    partition.fetch("decisions")
    partition.run()
    row = partition.rows[story.intent.id]
    assert (row.phase, [vote.person for vote in row.votes]) == (Phase.APPROVED, ["ivy"])
    # The claim's barrier reads the roster first.
    story.row = row
    partition.append(story.a_claim(), at=T0 + 3)
    partition.fetch("reports")
    partition.run()
    assert partition.world.versions.roster == 2
    assert partition.told(Grant) == []
    assert partition.steps[-1][1].event == "claim.reopened"


@pytest.mark.parametrize("word", ["revoke", "deny", "withdraw"])
def test_8_an_acknowledged_word_wins_over_a_later_claim_that_is_fetched_first(word: str) -> None:
    partition, story = waiting_for_people()
    partition.append(story.a_decision(Verdict.APPROVE, "dan"), at=T0, by="api")
    partition.fetch()
    partition.run()
    story.row = partition.rows[story.intent.id]
    claim = story.a_claim()
    partition.append(claim, at=T0)
    partition.fetch("reports")
    if word == "withdraw":
        partition.append(story.a_withdrawal(), at=T0)
    else:
        partition.append(story.a_decision(Verdict(word), "dan"), at=T0, by="api")
    partition.run()
    assert partition.told(Grant) == []
    assert partition.told(ApprovalEnded)
    assert [each.refusal for each in partition.told(ClaimRefused)] == [Refusal.FINAL]


def test_9_nobody_observes_before_the_core_says_unknown_and_it_waits_for_every_clock() -> None:
    story = executing(instance="slow")
    row = story.here
    assert row.lease_until == T0 + LEASE * SECOND
    assert row.settled_at == T0 + (LEASE + SETTLE) * SECOND
    for at in (
        T0,
        T0 + LEASE * SECOND,
        T0 + (LEASE + SETTLE) * SECOND,
        T0 + (LEASE + SETTLE) * SECOND + LEADER_SKEW_MS,
    ):
        assert story.tick(at).refusal is Refusal.WRONG_PHASE
        assert story.report(Result.FAILED, "fast", observed=True, at=at).refusal is Refusal.WRONG_PHASE
    story.tick(T0 + (LEASE + SETTLE) * SECOND + LEADER_SKEW_MS + 1)
    assert [each.grant for each in story.said(OutcomeUnknown)] == [row.grant]
    # The slow actor's late word still counts, until somebody else's did.
    story.report(Result.SUCCEEDED, "slow")
    assert (story.phase, story.here.flagged) == (Phase.SUCCEEDED, True)
    assert story.observe(Result.FAILED, "fast").refusal is Refusal.FINAL


def test_9_an_outcome_that_was_acknowledged_before_the_tick_is_decided_first() -> None:
    partition, story = waiting_for_people()
    partition.append(story.a_decision(Verdict.APPROVE, "dan"), at=T0, by="api")
    partition.fetch()
    partition.run()
    story.row = partition.rows[story.intent.id]
    partition.append(story.a_claim(), at=T0)
    partition.fetch()
    partition.run()
    story.row = partition.rows[story.intent.id]
    partition.append(Tick(partition=0, number=1), at=T0 + HOUR)
    partition.fetch("ticks")
    partition.append(story.an_outcome(), at=T0 + HOUR)
    partition.run()
    assert partition.rows[story.intent.id].phase is Phase.SUCCEEDED
    assert partition.told(OutcomeUnknown) == []


# ---------------------------------------------------------------- 10: the barriers


def test_10_a_claims_barrier_waits_for_no_ticks() -> None:
    assert set(BEFORE_CLAIM) == {"directory", "roster", "policies", "manifests", "classified", "decisions"}
    assert set(BEFORE_TICK) == {*BEFORE_CLAIM, "reports"}


@dataclass
class _State:
    """Logs that grow, what was fetched of them, and the order; `acknowledged` is what stood when each was fetched."""

    logs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(order.INPUTS, 0))
    ordered: Order[str] = field(default_factory=lambda: Order({}))
    acknowledged: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    asked: ReadEnds | None = None

    def key(self) -> tuple[object, ...]:
        ordered = self.ordered
        return (
            *self.logs.values(),
            *ordered.positions.values(),
            *(ordered.fetched_to(name) for name in order.INPUTS),
            *((name, each.upto, *each.needs.items()) for name, each in sorted(ordered._barriers.items())),
            self.asked,
            *((place, *stood.values()) for place, stood in sorted(self.acknowledged.items())),
        )

    def clone(self) -> "_State":
        ordered: Order[str] = Order(self.ordered.positions)
        for waiting in self.ordered._waiting.values():
            for item in waiting:
                ordered.offer(item)
        ordered._barriers = dict(self.ordered._barriers)
        return _State(dict(self.logs), ordered, dict(self.acknowledged), self.asked)

    def fetch(self, name: str, claims: frozenset[int]) -> None:
        offset = self.ordered.fetched_to(name)
        is_claim = name == "reports" and offset in claims
        self.ordered.offer(Input(name, offset, name, is_claim))
        if is_claim or name == "ticks":
            self.acknowledged[name, offset] = dict(self.logs)

    def step(self) -> bool:
        """One answer of the order; False when it starves. Laws 4 and 5 are held here."""
        if self.asked is not None:
            self.ordered.ends_are(self.asked, {name: self.logs[name] for name in self.asked.topics})
            self.asked = None
            return True
        match self.ordered.next():
            case Ready(input=item):
                stood = self.acknowledged.pop((item.topic, item.offset), {})
                needs = BEFORE_TICK if item.topic == "ticks" else BEFORE_CLAIM
                assert all(self.ordered.positions[name] >= stood.get(name, 0) for name in needs)
                return True
            case ReadEnds() as asked:
                self.asked = asked
                return True
            case Starved():
                return False

    def drain(self, claims: frozenset[int]) -> None:
        while True:
            while self.step():
                pass
            behind = [name for name in order.INPUTS if self.ordered.fetched_to(name) < self.logs[name]]
            if not behind:
                return
            self.fetch(behind[-1], claims)


@pytest.mark.parametrize("claims", [frozenset({0}), frozenset({1}), frozenset({0, 1})], ids=str)
def test_10_no_interleaving_of_appends_fetches_and_decisions_blocks_or_overtakes(claims: frozenset[int]) -> None:
    # Exhaustive: every state that two reports, a tick and a decision can reach.
    most = {"reports": 2, "ticks": 1, "decisions": 1}
    seen: set[tuple[object, ...]] = set()
    waiting = [_State()]
    while waiting:
        state = waiting.pop()
        if state.key() in seen:
            continue
        seen.add(state.key())
        end = state.clone()
        end.drain(claims)
        assert end.ordered.positions == end.logs, "something waits for ever"
        for name, limit in most.items():
            if state.logs[name] < limit:
                grown = state.clone()
                grown.logs[name] += 1
                waiting.append(grown)
            if state.ordered.fetched_to(name) < state.logs[name]:
                fetched = state.clone()
                fetched.fetch(name, claims)
                waiting.append(fetched)
        after = state.clone()
        if after.step():
            waiting.append(after)
    assert len(seen) > 1000, "the search reached too little to mean anything"


# ---------------------------------------------------------------- 11


def test_11_a_lease_is_an_absolute_instant_counted_from_the_claims_own_log_time() -> None:
    # That a credential dies before it, or is thrown away unused, is the executors' part: tests/executors, executors_s3.
    story = approved()
    story.wait(7 * SECOND)
    story.claim()
    assert story.said(Grant)[0].lease_until == T0 + (7 + LEASE) * SECOND


def test_what_was_acknowledged_later_than_the_end_does_not_reopen_it() -> None:
    story = unknown()
    story.resolve("eve", "failed")
    for at in (story.at, story.at + HOUR):
        assert story.report(at=at).refusal is Refusal.FINAL
        assert story.tick(at).refusal is Refusal.FINAL


def test_a_seat_lost_and_won_again_before_the_claim_is_held() -> None:
    story = approved()
    story.becomes(Directory, groups=groups_with("sre", "eve"))
    story.becomes(Directory, groups=groups_with("sre", "dan"))
    story.claim()
    assert story.phase is Phase.EXECUTING
