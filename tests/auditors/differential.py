"""`make differential`: random histories, decided by the core and judged by the verifier, which share no code.

Each seed is one history: several intents at once, people who may and who may not, duplicates, wrong rounds and grants,
keys of strangers, documents that change in between, time that jumps. The verifier must find nothing wrong in any.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from schemas.records import FINAL, Channel, Phase, Result, Subject, Verdict
from schemas.snapshots import Policies
from tests.auditors.builders import CEDAR, HOUR, WEAKER, Trail, directory, roster, successor

PEOPLE = ("alice", "bob", "bob-admin", "carol", "dave", "erin", "gina", "hugo", "nobody")
ACTIONS = ("s3.export", "s3.export", "s3.page", "s3.list")
GUIDED = 0.75
STRICT = '@id("none") forbid(principal, action, resource);'


class History:
    """One random history."""

    def __init__(self, seed: int) -> None:
        """The same seed, the same history."""
        self.chance = random.Random(seed)
        self.trail = Trail().begin()
        self.intents: list[str] = []
        self.focus: str | None = None
        self.documents: dict[str, Any] = {
            "directory": directory(),
            "roster": roster(),
            "policies": Policies(version=1, cedar=CEDAR),
        }

    def play(self, steps: int) -> Trail:
        """So many inputs, or a few more."""
        self.ask()
        verbs: dict[Callable[[], object], int] = {
            self.ask: 2,
            self.plan: 2,
            self.say: 4,
            self.claim: 2,
            self.outcome: 2,
            self.resolve: 2,
            self.withdraw: 1,
            self.change: 2,
            self.tick: 2,
            self.wait: 1,
        }
        for verb in self.chance.choices([*verbs], [*verbs.values()], k=steps):
            if self.chance.random() < GUIDED and self.intents:
                self.go_on()
            else:
                verb()
        return self.trail

    def go_on(self) -> None:
        """What an intent waits for, mostly as it should be."""
        self.focus = self.one()
        phase = self.trail.rows[self.focus].phase
        due: dict[Phase, tuple[Callable[[], object], ...]] = {
            Phase.PLANNING: (self.plan,),
            Phase.PENDING: (self.say,),
            Phase.APPROVED: (self.claim, self.claim, self.claim, self.say, self.withdraw),
            Phase.EXECUTING: (self.outcome, self.outcome, self.outcome, self.tick, self.say, self.withdraw),
            Phase.UNKNOWN: (self.resolve, self.outcome),
        }
        self.chance.choice(due.get(phase, (self.ask, self.say, self.claim)))()
        self.focus = None

    # ------------------------------------------------------------ verbs

    def ask(self) -> None:
        agent = self.chance.choice(("builder", "builder", "porter"))
        if self.chance.random() < 0.1 and self.intents:
            self._again()
            return
        ttl = self.chance.choice((60, 600, 7200))
        self.intents.append(self.trail.ask(agent=agent, action=self.chance.choice(ACTIONS), ttl=ttl))

    def _again(self) -> None:
        row = self.trail.rows[self.one()]
        if row.classified is not None:
            from schemas.records import ClassifiedIntent, Intent

            wish = row.classified.read(ClassifiedIntent).intent.read(Intent)
            if self.chance.random() < 0.5:
                wish = wish.model_copy(update={"ttl": wish.ttl + 1})
            self.trail.feed("classified", self.trail.classified(wish), "intake")

    def one(self) -> str:
        """Mostly one that lives."""
        if self.focus is not None:
            return self.focus
        alive = [name for name in self.intents if self.trail.rows[name].phase not in FINAL]
        return self.chance.choice(alive if alive and self.chance.random() < 0.9 else self.intents)

    def plan(self) -> None:
        intent_id = self.one()
        row = self.trail.rows[intent_id]
        if row.round is None:
            return
        if self.chance.random() < 0.1:
            self.trail.no_plan(intent_id)
            return
        wrong: dict[str, Any] = {}
        if self.chance.random() < 0.1:
            wrong = {"round": row.round.model_copy(update={"number": row.round.number + 1})}
        self.trail.plan(intent_id, changes=wrong)

    def say(self) -> None:
        verdict = self.chance.choices([*Verdict], [12, 1, 1])[0]
        lies: dict[str, Any] = {}
        if self.chance.random() < 0.15:
            lies = self.chance.choice(
                (
                    {"question": "0" * 64},
                    {"by": "stranger"},
                    {"by": "core"},
                    {"by": "console"},
                    {"by": "console", "channel": Channel.CONSOLE},
                    {"sealed_in": "acme-staging"},
                )
            )
        people = PEOPLE if self.chance.random() < 0.4 else ("bob", "carol", "erin")
        self.trail.say(self.one(), self.chance.choice(people), verdict, **lies)

    def claim(self) -> None:
        question = "0" * 64 if self.chance.random() < 0.1 else None
        self.trail.claim(self.one(), instance=self.chance.choice(("s3-a", "s3-b")), question=question)

    def outcome(self) -> None:
        intent_id = self.one()
        row = self.trail.rows[intent_id]
        changes: dict[str, Any] = {}
        if row.phase is Phase.UNKNOWN and self.chance.random() < 0.5:
            changes = {"observed": True, "unknown": row.unknown, "instance": "s3-b"}
        elif self.chance.random() < 0.2:
            changes = self.chance.choice(
                ({"grant": "0" * 64}, {"instance": "s3-b"}, {"observed": True, "unknown": "0" * 64})
            )
        self.trail.outcome(intent_id, self.chance.choice([*Result]), changes=changes)

    def resolve(self) -> None:
        intent_id = self.one()
        if self.trail.rows[intent_id].grant is not None:
            found = self.chance.choice(("succeeded", "failed"))
            self.trail.resolve(intent_id, self.chance.choice(PEOPLE), found)

    def withdraw(self) -> None:
        by = self.chance.choice((None, "alice", "carol", "gina"))
        if by is None:
            self.trail.withdraw(self.one())
        else:
            self.trail.withdraw(self.one(), by=Subject(type="person", id=by), key="gateway")

    def change(self) -> None:
        name = self.chance.choice(sorted(self.documents))
        before = self.documents[name]
        changes: dict[str, Any] = {}
        if name == "directory":
            owners = self.chance.choice((("alice",), ("gina",), ("alice", "bob")))
            agents = tuple(agent.model_copy(update={"owners": owners}) for agent in before.agents)
            changes = {"agents": agents}
        elif name == "roster":
            changes = {"groups": self.chance.choice(((), roster().groups))}
        else:
            changes = {"cedar": self.chance.choices((CEDAR, WEAKER, STRICT), (3, 2, 1))[0]}
        if self.chance.random() < 0.2:
            self.trail.change(successor(before, before, **changes | {"previous": "0" * 64}))
            return
        self.documents[name] = successor(before, before, **changes)
        self.trail.change(self.documents[name])

    def tick(self) -> None:
        jump = self.chance.choice((1_000, 60_000, 400_000, 2 * HOUR))
        self.trail.tick(self.chance.randrange(2), self.trail.now + jump)

    def wait(self) -> None:
        self.trail.now += self.chance.choice((500, 30_000, 600_000))


def play(seed: int, steps: int = 40) -> Trail:
    """The history of a seed."""
    return History(seed).play(steps)


def main(arguments: list[str]) -> int:
    """`differential [HISTORIES [FIRST SEED]]`: says what was reached, and each seed where the two disagree."""
    count = int(arguments[0]) if arguments else 2_000
    first = int(arguments[1]) if len(arguments) > 1 else 0
    reached: Counter[str] = Counter()
    wrong = 0
    for seed in range(first, first + count):
        trail = play(seed)
        report = trail.check()
        for record in trail.records:
            reached[record.refusal.value if record.refusal is not None else record.event] += 1
        if not report.is_clean:
            wrong += 1
            sys.stdout.write(f"seed {seed}: {report.faults[0]}\n")
    for name, often in sorted(reached.items()):
        sys.stdout.write(f"{often:8} {name}\n")
    sys.stdout.write(f"{count} histories, {sum(reached.values())} records, {wrong} where they disagree\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
