"""What the core grants and what the executor accepts are the same thing: both are asked about one history."""

import pytest

from broker import lifecycle
from broker.lifecycle import Event, EventRecord, Local, Step
from executors import checking
from executors.checking import Check, Known, Refused, Verified
from schemas.classification import classify
from schemas.record import Statement, state
from schemas.records import (
    Claim,
    Fact,
    Grant,
    OutcomeUnknown,
    PendingApproval,
    Phase,
    PlanRequest,
    Source,
    Tick,
)
from schemas.snapshots import Manifests, Policies
from schemas.world import World
from tests.executors.builders import ASKED, GRANTED, INSTANCE, OWN, REALM, Life, next_directory, signer, world
from tests.executors.lamp import LAMP

ASK_SRE = """
@id("lamp") @approvers("group:sre") @quorum("1") @assurance("identity") @within("1h")
permit (principal, action == Action::"lamp.switch", resource);
"""
ASK_NOBODY = """
@id("lamp") @automatic("a lamp harms nobody")
permit (principal, action == Action::"lamp.switch", resource);
"""


def ruled(cedar: str, seen: World) -> World:
    for snapshot in (Policies(version=1, cedar=cedar), Manifests(version=1, executors=(LAMP,))):
        seen = seen.with_snapshot(state(snapshot, signer("root"), REALM), ASKED)
    return seen


FACTS = tuple(
    Fact(name=name, value="known", source="catalog", observed_at=ASKED)
    for name in ("classification", "environment", "owner")
)


class History:
    """One intent in the real core."""

    def __init__(self, cedar: str, seen: World | None = None) -> None:
        self.world = ruled(cedar, seen or world())
        self.row: PendingApproval | None = None
        self.offset = 0

    def says(self, topic: str, record: EventRecord, statement: Statement, at: int) -> Step:
        self.offset += 1
        source = Source(topic=topic, partition=0, offset=self.offset)
        step = lifecycle.decide(self.row, Event(source, at, record, statement), self.world, Local())
        assert step.refusal is None, step.reason
        self.row = step.row
        return step

    def to_approval(self, *approvers: str) -> Life:
        life = Life(cited=self.world.versions)
        own = classify(life.intent, FACTS, None, self.world, ASKED)
        proposal = life.classification.model_copy(update={"facts": FACTS, "classification": own})
        classified = state(proposal, signer("intake"), REALM)
        step = self.says("classified", proposal, classified, ASKED + 10)
        request = next(out.record for out in step.outputs if isinstance(out.record, PlanRequest))
        plan = life.plan.model_copy(update={"round": request.round})
        self.says("reports", plan, state(plan, signer("lamp"), REALM), ASKED + 20)
        assert self.row is not None
        assert self.row.question is not None
        for who in approvers:
            decision = life.decision(who, ASKED + 5_000, question=self.row.question.digest)
            self.says("decisions", decision, state(decision, signer("api"), REALM), ASKED + 5_000)
        assert self.row.phase is Phase.APPROVED
        return life

    def claimed(self, life: Life) -> tuple[Grant, Known]:
        assert self.row is not None
        assert self.row.question is not None
        claim = Claim(intent=life.intent.id, question=self.row.question.digest, executor="lamp", instance=INSTANCE)
        step = self.says("reports", claim, state(claim, signer("lamp"), REALM), GRANTED)
        grant = next(out.record for out in step.outputs if isinstance(out.record, Grant))
        return grant, Known((Source(topic="keyturn.reports", partition=0, offset=self.offset),))


def judged(grant: Grant, known: Known, seen: World) -> Verified | Refused:
    return checking.judge(state(grant, signer("core"), REALM), GRANTED + 20, OWN, seen, GRANTED + 100, known)


@pytest.mark.parametrize(("cedar", "approvers"), [(ASK_SRE, ("grace",)), (ASK_NOBODY, ())])
def test_what_the_core_grants_is_accepted(cedar: str, approvers: tuple[str, ...]) -> None:
    history = History(cedar)
    grant, known = history.claimed(history.to_approval(*approvers))
    verified = judged(grant, known, history.world)
    assert isinstance(verified, Verified), verified
    assert verified.approvers == approvers
    assert (verified.note == checking.PERMITTED) == (not approvers)


def test_who_became_an_owner_after_the_core_granted_spoils_the_grant() -> None:
    history = History(ASK_SRE)
    grant, known = history.claimed(history.to_approval("grace"))
    directory = history.world.directory
    assert directory is not None
    joined = next_directory(agents=(directory.agents[0].model_copy(update={"owners": ("ada", "grace")}),))
    later = history.world.with_snapshot(state(joined, signer("root"), REALM), GRANTED)
    refused = judged(grant, known, later)
    assert isinstance(refused, Refused)
    assert refused.check is Check.SELF_APPROVAL


def test_the_executor_knows_the_grant_that_the_core_calls_unknown() -> None:
    history = History(ASK_SRE)
    grant, _ = history.claimed(history.to_approval("grace"))
    at = grant.lease_until + 10_000
    tick = Tick(partition=0, number=1)
    step = history.says("ticks", tick, state(tick, signer("core"), REALM), at)
    unknown = next(out.record for out in step.outputs if isinstance(out.record, OutcomeUnknown))
    assert unknown.grant.digest == state(grant, signer("core"), REALM).digest
