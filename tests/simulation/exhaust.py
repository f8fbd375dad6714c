"""Every order of every event there can be in a small world, through the shipped `decide`: `make exhaust`.

Breadth first over (rows, time, world). Any event may come in any state, again and again, so duplicates, reorders and
late words are all in it. What a row remembers only for telling people (its last answers, what changed it) is put to
one value, or no two paths would ever meet; `decide` reads neither.
"""

import argparse
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

from broker import lifecycle
from broker.lifecycle import Event, Local, Step
from schemas.records import (
    FINAL,
    AccountRef,
    Channel,
    Claim,
    ClassifiedIntent,
    Decision,
    ForwardedWithdrawal,
    Grant,
    Intent,
    Outcome,
    PendingApproval,
    Plan,
    Receipt,
    Result,
    Reversibility,
    Source,
    Subject,
    Tick,
    Verdict,
    Withdrawal,
)
from schemas.snapshots import Directory, Policies
from schemas.timing import LEADER_SKEW_MS
from schemas.world import World
from tests.broker import builders
from tests.broker.builders import CEDAR, DIGEST, IDP, LEASE, REALM, SECOND, SETTLE, T0, account, agents_with
from tests.simulation import primitives

TTL = 600
TIMES = (
    T0,
    T0 + 1000 * TTL - 1,
    T0 + 1000 * TTL + LEADER_SKEW_MS + 1,
    T0 + 1000 * (TTL + LEASE + SETTLE) + 10 * SECOND,
)
"""Asked; the last timely moment; past every deadline; past every lease."""
NOWHERE = Source(topic="classified", partition=0, offset=0)
OWNERS = {"ada", "eve"}
"""Whoever owned the agent in any of the worlds; cat acts for ada, and ben uses the agent."""
CIRCLE = {"ada", "ben", "cat", "eve"}
SRE, DATA = {"ada", "ben", "cat", "dan", "eve", "fay"}, {"dan", "gus", "hal"}

ALLOWED = {
    (None, "planning"), (None, "denied"), (None, "refused"), (None, "withdrawn"),
    ("planning", "pending"), ("planning", "approved"), ("planning", "denied"), ("planning", "refused"),
    ("planning", "withdrawn"), ("planning", "expired"),
    ("pending", "approved"), ("pending", "denied"), ("pending", "revoked"), ("pending", "withdrawn"),
    ("pending", "expired"),
    ("approved", "executing"), ("approved", "pending"), ("approved", "denied"), ("approved", "revoked"),
    ("approved", "withdrawn"), ("approved", "expired"),
    ("executing", "succeeded"), ("executing", "failed"), ("executing", "planning"), ("executing", "withdrawn"),
    ("executing", "revoked"), ("executing", "denied"), ("executing", "unknown"),
    ("unknown", "succeeded"), ("unknown", "failed"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ghost:
    """What nobody in the system needs to know, and the laws are about."""

    #: Questions under which somebody was granted the right to act.
    granted: frozenset[str] = frozenset()
    #: A grant that has not ended as `stale`.
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything at one moment: by intent its row as bytes and its ghost; which time, which world."""

    rows: tuple[bytes | None, ...]
    ghosts: tuple[Ghost, ...]
    now: int
    world: int


class Search:
    """One small world."""

    def __init__(self, intents: int, people: tuple[str, ...], action: str, *, changes: bool, rounds: int) -> None:
        """`rounds`: how often an act may end stale."""
        self.action = action
        self.people = people
        self.rounds = rounds
        self.worlds = self._worlds(changes=changes)
        self.intents = tuple(builders.an_intent(action, number=number + 1, ttl=TTL) for number in range(intents))
        self.seen: dict[State, int] = {}
        self.counts: Counter[str] = Counter()
        self.transitions = 0
        self._events: dict[tuple[object, ...], Event] = {}
        self._parsed: dict[bytes, PendingApproval] = {}
        self._kept: dict[str, bytes] = {}

    @staticmethod
    def _worlds(*, changes: bool) -> tuple[World, ...]:
        first = builders.changed(builders.a_world(), Directory, agents=agents_with("bot", max_open=1))
        if not changes:
            return (first,)
        # Eve comes to own the agent, and leaves; then policy asks for more.
        joined = builders.changed(first, Directory, agents=agents_with("bot", owners=("ada", "eve"), max_open=1))
        left = builders.changed(joined, Directory, agents=agents_with("bot", max_open=1))
        text = CEDAR.replace('@approvers("group:sre") @within', '@approvers("group:sre group:data") @within')
        return first, joined, left, builders.changed(left, Policies, cedar=text)

    # ------------------------------------------------------------ what may come

    def events(self, state: State) -> Iterator[tuple[int, Event]]:
        """Everything that may come now, about either intent."""
        at = TIMES[state.now]
        for number, intent in enumerate(self.intents):
            row = self._row(state.rows[number])
            for record, by in self._records(number, intent, row, state.world):
                yield number, self._event(number, record, by, at)

    def _records(
        self, number: int, intent: Intent, row: PendingApproval | None, world: int
    ) -> Iterator[tuple[lifecycle.EventRecord, str]]:
        yield self._classified(intent), "intake"
        if row is None:
            yield self._withdrawal(intent), "intake"
            return
        yield self._classified(intent.model_copy(update={"ttl": 77})), "intake"
        yield self._withdrawal(intent), "intake"
        yield Tick(partition=0, number=1), "core"
        if row.round is not None and row.round.number <= self.rounds:
            yield self._plan(intent, row), "s3"
        if row.question is not None:
            question = row.question.digest
            for name in self.people:
                yield self._decision(intent, question, Verdict.APPROVE, name), "api"
            yield self._decision(intent, question, Verdict.REVOKE, self.people[0]), "api"
            yield self._decision(intent, question, Verdict.DENY, self.people[-1]), "api"
            yield self._decision(intent, question, Verdict.APPROVE, self.people[0]), "slack"
            yield self._decision(intent, DIGEST, Verdict.APPROVE, self.people[0]), "api"
            for instance in ("a", "b"):
                yield Claim(intent=intent.id, question=question, executor="s3", instance=instance), "s3"
        if row.grant is not None:
            for result in (Result.SUCCEEDED, Result.STALE, Result.UNKNOWN):
                yield self._outcome(intent, row.grant.digest, "a", result), "s3"
            yield self._outcome(intent, row.grant.digest, "b", Result.FAILED), "s3"
            yield self._outcome(intent, DIGEST, "a", Result.STALE), "s3"
            observed = self._outcome(intent, row.grant.digest, "b", Result.FAILED)
            yield observed.model_copy(update={"observed": True, "unknown": row.unknown or DIGEST}), "s3"

    def _event(self, number: int, record: lifecycle.EventRecord, by: str, at: int) -> Event:
        name = (number, record.digest, by, at)
        if name not in self._events:
            made = builders.event_of(record, at=at, by="core", offset=1 + number)
            statement = primitives.state(record, primitives.signer(by), REALM)
            self._events[name] = replace(made, statement=statement)
        return self._events[name]

    def _classified(self, intent: Intent) -> ClassifiedIntent:
        signed = primitives.state(intent, primitives.signer("bot"), REALM)
        return builders.classified_of(self.worlds[0], signed, at=T0)

    def _withdrawal(self, intent: Intent) -> ForwardedWithdrawal:
        record = Withdrawal(intent=intent.id, by=Subject(type="agent", id="bot"))
        return ForwardedWithdrawal(
            withdrawal=primitives.state(record, primitives.signer("bot"), REALM),
            source=NOWHERE,
            asked_at=T0,
            versions=self.worlds[0].versions,
        )

    def _plan(self, intent: Intent, row: PendingApproval) -> Plan:
        return Plan.model_validate(
            {
                "round": row.round,
                "intent": intent.digest,
                "executor": "s3",
                "manifest": 1,
                "summary": "copies",
                "measures": {"objects": 1, "public": False},
                "reversibility": Reversibility.EXACT,
                "undo": "delete",
                "planned_at": T0,
            }
        )

    def _decision(self, intent: Intent, question: str, verdict: Verdict, name: str) -> Decision:
        # "dan.second" is another account of dan's.
        known = AccountRef(provider=IDP, subject=name) if "." in name else account(name)
        return Decision(
            intent=intent.id,
            question=question,
            verdict=verdict,
            account=known,
            channel=Channel.API,
            evidence=builders.evidence(Channel.API, T0),
            card=DIGEST,
        )

    def _outcome(self, intent: Intent, grant: str, instance: str, result: Result) -> Outcome:
        receipt = Receipt(summary="copied") if result is Result.SUCCEEDED else None
        return Outcome(intent=intent.id, grant=grant, instance=instance, executor="s3", result=result, receipt=receipt)

    # ------------------------------------------------------------ searching

    def run(self, most: int | None = None) -> None:
        """Until nothing new is found, or so many states were looked at. AssertionError names what broke."""
        first = State((None,) * len(self.intents), (Ghost(),) * len(self.intents), 0, 0)
        self.seen[first] = 0
        waiting = deque([first])
        back: dict[int, set[int]] = {}
        ended: set[int] = set()
        looked = 0
        while waiting and (most is None or looked < most):
            state = waiting.popleft()
            looked += 1
            here = self.seen[state]
            if all(row is not None and self._parsed[row].phase in FINAL for row in state.rows):
                ended.add(here)
            for after in self._after(state):
                if after not in self.seen:
                    self.seen[after] = len(self.seen)
                    waiting.append(after)
                back.setdefault(self.seen[after], set()).add(here)
        self.counts["states"] = len(self.seen)
        if not waiting:
            self._require_an_end_from_everywhere(back, ended)

    def _after(self, state: State) -> Iterator[State]:
        if state.now + 1 < len(TIMES):
            yield replace(state, now=state.now + 1)
        if state.world + 1 < len(self.worlds):
            yield replace(state, world=state.world + 1)
        for number, event in self.events(state):
            before = self._row(state.rows[number])
            others = sum(
                row is not None and self._parsed[row].phase not in FINAL
                for each, row in enumerate(state.rows)
                if each != number
            )
            step = lifecycle.decide(before, event, self.worlds[state.world], Local(others + self._is_open(before)))
            self.transitions += 1
            ghost = self._judged(before, event, step, state.ghosts[number])
            if step.row is not None and step.row.phase in FINAL:
                ghost = Ghost()
            row = self._put(step.row) if step.row is not before else state.rows[number]
            rows = tuple(row if each == number else old for each, old in enumerate(state.rows))
            ghosts = tuple(ghost if each == number else old for each, old in enumerate(state.ghosts))
            yield replace(state, rows=rows, ghosts=ghosts)

    @staticmethod
    def _is_open(row: PendingApproval | None) -> int:
        return int(row is not None and row.phase not in FINAL)

    def _row(self, value: bytes | None) -> PendingApproval | None:
        return self._parsed[value] if value is not None else None

    def _put(self, row: PendingApproval | None) -> bytes | None:
        if row is None:
            return None
        forgotten: dict[str, object] = {"answers": (), "changed": NOWHERE, "changed_at": T0, "reason": None}
        if row.phase in FINAL:
            # Nothing moves it any more, which is asked of every event below; how it came here is told apart no longer.
            forgotten |= {"ended_at": T0, "votes": (), "barred": (), "plan": None, "question": None, "grant": None}
            forgotten |= {"outcome": None, "round": None, "circle": (), "circle_to": 0, "classification": None}
            forgotten |= {"unknown": None, "remembered": None, "flagged": False, "lease_until": None}
            forgotten |= {"settled_at": None, "approved_until": None, "expires_at": None}
        plain = row.model_copy(update=forgotten)
        value = plain.to_bytes()
        self._parsed.setdefault(value, plain)
        return value

    # ------------------------------------------------------------ the laws, once more

    def _judged(self, before: PendingApproval | None, event: Event, step: Step, ghost: Ghost) -> Ghost:
        phase = before.phase.value if before is not None else None
        after = step.row.phase.value if step.row is not None else None
        assert phase == after or (phase, after) in ALLOWED, f"{phase} -> {after} by {event.record.TYPE}"
        assert before is None or before.phase not in FINAL or step.refusal is not None, f"{phase} answered"
        assert step.refusal is None or str(step.refusal) != "internal", step.reason
        assert phase == after or step.refusal is None or phase is None, f"refused, and {phase} -> {after}"
        self.counts[f"{phase} -> {after}"] += phase != after
        self.counts[f"refused: {step.refusal}"] += step.refusal is not None
        for output in step.outputs:
            if isinstance(output.record, Grant):
                ghost = self._granted(output.record, event, ghost)
        record = event.record
        if (
            isinstance(record, Outcome)
            and step.refusal is None
            and record.result is Result.STALE
            and phase == "executing"
        ):
            ghost = replace(ghost, is_live=False)
        return ghost

    def _granted(self, grant: Grant, event: Event, ghost: Ghost) -> Ghost:
        self.counts["grants"] += 1
        question = grant.question.digest
        assert question not in ghost.granted, "a second grant under one question"
        assert not ghost.is_live, "granted while somebody may act"
        assert event.log_time < T0 + 1000 * TTL, "granted after the deadline"
        persons = []
        for vote in grant.votes:
            said = vote.decision.read(Decision)
            assert said.question == question, "a yes to another question"
            assert said.verdict is Verdict.APPROVE, "no yes"
            person = said.account.subject.split(".", 1)[0]
            assert person == vote.person, "another person's yes"
            assert vote.log_time < T0 + 1000 * TTL, "a late yes"
            persons.append(person)
        assert len(set(persons)) == len(persons), "one person twice"
        behind = {"ada", "ben", "cat"} | ({"eve"} if grant.versions.directory > 2 else set())
        assert not behind & set(persons), "somebody of the circle"
        # The rules that were in force when it was granted.
        wanted: list[set[str]] = [SRE] if self.action == "s3.copy" else [SRE, SRE, DATA]
        if grant.versions.policies > 1 and self.action == "s3.copy":
            wanted = [SRE, DATA]
        assert any(
            all(person in seat for person, seat in zip(chosen, wanted, strict=True))
            for chosen in permutations(persons, len(wanted))
        ), f"{persons} fill no quorum"
        return replace(ghost, granted=ghost.granted | {question}, is_live=True)

    def _require_an_end_from_everywhere(self, back: dict[int, set[int]], ended: Iterable[int]) -> None:
        """Liveness: wherever it stands, there is a way to the end of every intent."""
        reaches = set(ended)
        waiting = list(reaches)
        while waiting:
            for before in back.get(waiting.pop(), ()):
                if before not in reaches:
                    reaches.add(before)
                    waiting.append(before)
        assert len(reaches) == len(self.seen), f"{len(self.seen) - len(reaches)} states lead nowhere"


def searches(*, is_short: bool) -> Iterator[tuple[str, Search]]:
    """The small worlds."""
    if is_short:
        one = Search(1, ("dan", "ada"), "s3.copy", changes=True, rounds=1)
        seats = Search(1, ("dan", "dan.second", "gus"), "s3.export", changes=False, rounds=1)
        yield "one seat, owners and rules that change", one
        yield "three seats, three accounts of two persons", seats
        return
    one = Search(1, ("dan", "dan.second", "eve", "ada"), "s3.copy", changes=True, rounds=2)
    seats = Search(1, ("dan", "dan.second", "eve", "gus", "hal", "ada"), "s3.export", changes=False, rounds=1)
    two = Search(2, ("dan", "dan.second", "eve", "gus", "hal", "ada"), "s3.copy", changes=True, rounds=1)
    yield "one seat, owners and rules that change, stale twice", one
    yield "three seats, six accounts of five persons", seats
    yield "two intents of an agent that may have one open, owners and rules that change", two


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.exhaust", description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the small ones of the small worlds")
    parser.add_argument("--counts", action="store_true")
    given = parser.parse_args()
    primitives.install(is_swift=False)
    for name, search in searches(is_short=given.short):
        begun = time.process_time()
        search.run()
        sys.stdout.write(
            f"{name}: {len(search.seen)} states, {search.transitions} transitions, {search.counts['grants']} grants, "
            f"{time.process_time() - begun:.1f} s; every state leads to an end\n"
        )
        if given.counts:
            sys.stdout.writelines(f"  {count:8} {what}\n" for what, count in sorted(search.counts.items()) if count)
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
