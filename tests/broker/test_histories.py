"""Any history: whatever comes, in whatever order, twice, forged or late, a grant rests on what the laws demand.

The oracle below shares nothing with the core but the records: it reads the log of inputs and spells the laws out.
"""

import base64
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.lifecycle import Event, Step
from schemas import canonical
from schemas.record import Statement
from schemas.records import (
    FINAL,
    Channel,
    Claim,
    ClassifiedIntent,
    Decision,
    ForwardedWithdrawal,
    Grant,
    Intent,
    Outcome,
    OutcomeUnknown,
    Phase,
    Requirement,
    Result,
    Source,
    Verdict,
)
from schemas.snapshots import Directory, Policies, Roster, Rota, Shift
from schemas.world import World
from tests.broker.builders import (
    CEDAR,
    DAY,
    LEASE,
    MINUTE,
    REALM,
    SECOND,
    T0,
    Story,
    agents_with,
    groups_with,
    keys_with,
    persons_with,
)

# ---------------------------------------------------------------- the oracle


def is_signed(statement: Statement, world: World, at: int, roles: set[str]) -> bool:
    """Ed25519 over the DSSE encoding, by a key of the directory that is valid at this time."""
    for known in world.directory.keys if world.directory else ():
        if known.keyid != statement.keyid or known.role not in roles:
            continue
        if at < known.valid_from or (known.valid_until is not None and at >= known.valid_until):
            return False
        kind = f"application/vnd.{statement.type}+json;realm={REALM}".encode()
        value = canonical.encode(statement.body)
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(value), value)
        try:
            Ed25519PublicKey.from_public_bytes(base64.b64decode(known.public)).verify(
                base64.b64decode(statement.sig), message
            )
        except InvalidSignature:
            return False
        return True
    return False


def behind(intent: Intent, world: World, cited: int) -> set[str]:
    """Everybody who stood behind the requester in any directory version from the cited one on."""
    found: set[str] = set()
    for directory in world.directories[cited - 1 :]:
        now = set()
        for agent in directory.agents:
            if agent.id == intent.subject.id:
                now |= {*agent.owners, *agent.users}
        for _ in range(3):
            now |= {each for person in directory.persons if person.id in now for each in person.delegates}
        found |= now
    return found


def seats_of(person: str, world: World, at: int) -> set[str]:
    directory = world.directory
    assert directory is not None
    if not any(each.id == person and each.is_active for each in directory.persons):
        return set()
    found = set()
    for group in directory.groups:
        members = group.members
        if group.is_synced:
            members = next((each.members for each in world.rosters[-1].groups if each.id == group.id), ())
        if person in members:
            found.add(f"group:{group.id}")
    for rota in world.rosters[-1].rotas:
        if rota.id in directory.rotas and any(
            shift.person == person and shift.starts_at <= at < shift.ends_at for shift in rota.shifts
        ):
            found.add(f"oncall:{rota.id}")
    return found


def fills(requirement: Requirement, may: dict[str, set[str]]) -> bool:
    places = [seat.of for seat in requirement.seats for _ in range(seat.count)]
    return any(
        all(place in may[name] for place, name in zip(places, chosen, strict=True))
        for chosen in itertools.permutations(sorted(may), len(places))
    )


@dataclass
class Oracle:
    """What the log of inputs allows."""

    reached: Counter[str] = field(default_factory=Counter)

    def require_grant_is_right(self, grant: Grant, story: Story, heard: list[tuple[Event, World]]) -> None:
        claim = next(event for event, _ in heard if event.source == grant.claim)
        assert isinstance(claim.record, Claim)
        world = story.world
        assert is_signed(claim.statement, world, claim.log_time, {"executor"})
        # Law 1: the first body of this id, the plan, the facts; nothing else was asked.
        first = next(
            event
            for event, then in heard
            if isinstance(event.record, ClassifiedIntent)
            and is_signed(event.statement, then, event.log_time, {"intake"})
        )
        classified = first.record
        assert isinstance(classified, ClassifiedIntent)
        intent = classified.intent.read(Intent)
        asked = grant.question
        assert claim.record.question == asked.digest
        assert (asked.realm, asked.intent_id) == (REALM, intent.id)
        assert asked.intent == canonical.digest_of(classified.intent.body)
        assert asked.plan == canonical.digest_of(grant.plan.body)
        assert asked.facts == canonical.digest_of([fact.to_json() for fact in classified.facts])
        # Law 5: before every deadline.
        requirement = grant.requirement
        seconds = min(intent.ttl, requirement.within if requirement is not None else intent.ttl)
        deadline = classified.asked_at + 1000 * seconds
        assert claim.log_time < deadline
        assert grant.lease_until == claim.log_time + LEASE * SECOND
        # Nobody entitled said no, and the requester did not withdraw, before the claim.
        opened = next(i for i, (event, _) in enumerate(heard) if event.source == asked.opened)
        upto = heard.index((claim, world)) if (claim, world) in heard else len(heard)
        for event, then in heard[:upto]:
            record = event.record
            if isinstance(record, ForwardedWithdrawal) and is_signed(event.statement, then, event.log_time, {"intake"}):
                assert record.withdrawal.body["by"]["id"] not in {"bot", "ada"}
        # Laws 2 and 3.
        if requirement is None:
            assert intent.action.name == "s3.list"
            assert grant.votes == ()
            return
        assert asked.requirement == canonical.digest_of(requirement.to_json())
        circle = behind(intent, world, classified.versions.directory)
        may: dict[str, set[str]] = {}
        for vote in grant.votes:
            said = [
                event
                for event, _ in heard[opened:upto]
                if event.statement == vote.decision and event.log_time == vote.log_time and event.source == vote.source
            ]
            assert said, "a yes that nobody said"
            decision = vote.decision.read(Decision)
            assert decision.verdict is Verdict.APPROVE
            assert (decision.intent, decision.question) == (intent.id, asked.digest)
            assert vote.log_time < deadline
            assert is_signed(vote.decision, world, vote.log_time, {"notifier"})
            directory = world.directory
            assert directory is not None
            owner = [each.id for each in directory.persons if decision.account in each.accounts]
            assert owner == [vote.person]
            assert vote.person not in circle
            assert vote.person not in may, "one person twice"
            for event, _ in heard[opened : heard.index(next(pair for pair in heard if pair[0] is said[0]))]:
                record = event.record
                if (
                    isinstance(record, Decision)
                    and record.question == asked.digest
                    and record.verdict is Verdict.REVOKE
                ):
                    is_same = record.account in next(
                        each.accounts for each in directory.persons if each.id == vote.person
                    )
                    assert not (is_same and is_signed(event.statement, world, event.log_time, {"notifier"}))
            may[vote.person] = seats_of(vote.person, world, vote.log_time)
        assert fills(requirement, may)


# ---------------------------------------------------------------- histories

WORLDS: tuple[tuple[type[Any], dict[str, Any]], ...] = (
    (Directory, {"groups": groups_with("sre", "eve", "fay", "dan")}),
    (Directory, {"groups": groups_with("sre", "eve")}),
    (Directory, {"agents": agents_with("bot", owners=("ada", "eve"))}),
    (Directory, {"agents": agents_with("bot", owners=("ada",))}),
    (Directory, {"persons": persons_with("ada", delegates=("cat", "dan"))}),
    (Directory, {"persons": persons_with("dan", is_active=False)}),
    (Directory, {"keys": keys_with("slack", valid_until=T0)}),
    (
        Policies,
        {"cedar": CEDAR.replace('@approvers("group:sre") @within', '@approvers("group:sre group:data") @within')},
    ),
    (Policies, {"cedar": CEDAR}),
    (Policies, {"cedar": "broken"}),
    (Roster, {"rotas": (Rota(id="night", shifts=(Shift(person="hal", starts_at=T0, ends_at=T0 + DAY),)),)}),
)
CHANNELS = (Channel.API, Channel.API, Channel.SLACK)
APPROVERS = ("dan", "eve", "fay", "gus", "hal", "ivy")
ANYBODY = (*APPROVERS, "kim", "ada", "ben", "jon")
INSTANCES = ("a", "b")
BOOLEANS = (True, False)
Act = tuple[str, Any, Any]
ACTS: tuple[tuple[int, str, Sequence[Any], Sequence[Any]], ...] = (
    (6, "approve", APPROVERS, CHANNELS),
    (2, "approve", ANYBODY, CHANNELS),
    (4, "plan", (1, 1, 500), (None,)),
    (6, "claim", INSTANCES, (None,)),
    (5, "report", INSTANCES, tuple(Result)),
    (3, "report", INSTANCES, (Result.STALE,)),
    (2, "revoke", ("dan", "dan", "eve", "ivy", "jon"), CHANNELS),
    (1, "deny", ("gus", "kim", "dan", "eve", "ben"), CHANNELS),
    (1, "withdraw", ("bot", "ada", "ben", "dan"), (None,)),
    (4, "world", range(len(WORLDS)), (None,)),
    (3, "replay", range(40), BOOLEANS),
    (3, "forge", range(40), ("realm", "role", "body")),
    (2, "tick", range(4), (None,)),
    (2, "again", BOOLEANS, (None,)),
    (4, "wait", (-2 * SECOND, 1, MINUTE, 5 * MINUTE, 12 * MINUTE), (None,)),
)
"""(weight, what, first choice, second choice)."""


def an_act(chance: Random) -> Act:
    _, act, firsts, seconds = chance.choices(ACTS, [weight for weight, *_ in ACTS])[0]
    return act, chance.choice(firsts), chance.choice(seconds)


BEGINNING: tuple[Act, ...] = (
    ("approve", "dan", Channel.API),
    ("approve", "eve", Channel.SLACK),
    ("approve", "gus", Channel.API),
    ("approve", "ivy", Channel.API),
    ("claim", "a", None),
    ("wait", SECOND, None),
)
"""Some histories begin well, so that what comes late is reached too."""


@dataclass
class History(Story):
    """A story that remembers what it heard, and in which world."""

    heard: list[tuple[Event, World]] = field(default_factory=list)

    is_told_twice: bool = False

    def decide(self, event: Event) -> Step:
        self.heard.append((event, self.world))
        return super().decide(event)


def act_upon(story: History, act: str, first: Any, second: Any) -> None:  # noqa: C901, PLR0912 - one flat match
    match act:
        case "approve" | "revoke" | "deny":
            story.says(Verdict(act), first, channel=second)
        case "plan":
            if story.row is not None and story.row.round is not None:
                story.plan(objects=first)
        case "claim":
            story.claim(first)
        case "report":
            observed = story.phase is Phase.UNKNOWN and first == "b"
            story.report(second, first, observed=observed, unknown=story.here.unknown if observed else None)
        case "withdraw":
            story.withdraw(first, "agent" if first == "bot" else "person")
        case "world":
            kind, members = WORLDS[first]
            story.becomes(kind, **members)
        case "replay":
            event, _ = story.heard[first % len(story.heard)]
            # Appended again, at a new place, and now; or the very record with its old time.
            later = event if second else Event(event.source, story.at, event.record, event.statement)
            place = Source(topic=event.source.topic, partition=0, offset=event.source.offset + 1000)
            story.decide(Event(place, later.log_time, event.record, event.statement))
        case "forge":
            event, _ = story.heard[first % len(story.heard)]
            match second:
                case "realm":
                    story.hear(event.record, realm="staging")
                case "role":
                    story.hear(event.record, by="gateway")
                case _:
                    broken = event.statement.model_copy(update={"sig": story.events[0].statement.sig})
                    if broken != event.statement:
                        assert story.decide(Event(event.source, story.at, event.record, broken)).refusal is not None
        case "tick":
            story.tick(story.at + first * 20 * MINUTE)
        case "again":
            story.ask_this(story.intent if first else story.intent.model_copy(update={"ttl": 77}))
        case _:
            story.wait(first)


ACTIONS = ("s3.list", "s3.copy", "s3.copy", "s3.export", "s3.guard")


def tell(oracle: Oracle, action: str, begun: int, rest: Sequence[Act]) -> None:
    """One history, held against the oracle at every step."""
    story = History()
    story.ask(action)
    story.plan()
    granted: set[str] = set()
    for act, first, second in (*BEGINNING[:begun], *rest):
        before = story.here
        act_upon(story, act, first, second)
        if act in {"world", "wait"}:
            continue
        for grant in story.said(Grant):
            assert grant.question.digest not in granted, "a second right to act under one question"
            granted.add(grant.question.digest)
            oracle.require_grant_is_right(grant, story, story.heard)
            oracle.reached["grant"] += 1
        if before.phase in FINAL:
            assert story.phase is before.phase
        if before.phase is not Phase.UNKNOWN and story.phase is Phase.UNKNOWN:
            assert story.said(OutcomeUnknown)
        if story.here.outcome is not None and before.outcome is None:
            assert before.grant is not None
            assert story.here.outcome.read(Outcome).grant == before.grant.digest
        oracle.reached[story.here.phase.value] += before.phase is not story.here.phase


def test_many_seeded_histories_grant_only_what_the_laws_allow_and_reach_every_end() -> None:
    oracle = Oracle()
    for seed in range(150):
        chance = Random(seed)
        rest = [an_act(chance) for _ in range(20)]
        try:
            tell(oracle, chance.choice(ACTIONS), chance.choice((0, 3, len(BEGINNING))), rest)
        except AssertionError as wrong:
            wrong.add_note(f"seed {seed}")
            raise
    # No violation means nothing where nothing was reached.
    reached = {phase.value for phase in Phase if oracle.reached[phase.value] or phase is Phase.REFUSED}
    assert reached == {phase.value for phase in Phase}, oracle.reached
    assert oracle.reached["grant"] >= 50


@settings(max_examples=40)
@given(
    st.sampled_from(ACTIONS),
    st.integers(0, len(BEGINNING)),
    st.lists(st.integers(0, 2**32).map(lambda seed: an_act(Random(seed))), max_size=15),
)
def test_any_history_grants_only_what_the_laws_allow(action: str, begun: int, rest: list[Act]) -> None:
    tell(Oracle(), action, begun, rest)
