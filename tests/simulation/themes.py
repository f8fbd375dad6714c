"""What a history is made of: how much goes wrong, who says what and when. Each theme leans towards one interleaving.

The numbered ones are those of docs/assurance.md, which broke an earlier draft; "calm" and "storm" lean nowhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from schemas.records import Channel, Verdict
from tests.broker.builders import DIGEST
from tests.simulation.kafka import Chances
from tests.simulation.provider import Manner

SEATED = {
    "group:sre": ("dan", "eve", "fay"),
    "group:data": ("gus", "hal", "dan"),
    "group:synced": ("gus", "kim"),
    "oncall:night": ("ivy", "kim"),
}
ANYBODY = ("ada", "ben", "cat", "dan", "eve", "fay", "gus", "hal", "ivy", "jon", "kim", "nobody", "mallory")


@dataclass(frozen=True, slots=True)
class Click:
    """One person's word, and when: after so long, or so long before or after the deadline."""

    person: str
    verdict: Verdict
    channel: Channel
    after_ms: int
    around_deadline: bool = False
    question: str | None = None
    account: str | None = None
    names_person: bool = False
    #: Whose key signs; by default the channel's own.
    by: str | None = None

    def at(self, now: int, expires_at: int) -> int:
        return expires_at + self.after_ms if self.around_deadline else now + self.after_ms


@dataclass(frozen=True)
class Theme:
    """How likely what is."""

    name: str
    #: How long things go wrong; then everything may end.
    seconds: float = 60.0
    spread: float = 10.0
    most_intents: int = 2
    #: From 0 (nothing goes wrong) to 1.
    storm: float = 0.5
    actions: tuple[str, ...] = ("copy", "copy", "copy", "export", "guard", "erase", "list")
    ttls: tuple[int, ...] = (60, 60, 60, 20, 300)
    withdraws: float = 0.1
    withdraw_within: float = 25.0
    late_words: float = 0.1
    duplicates: float = 0.1
    #: How often a record comes again, byte for byte, seconds later.
    said_again: float = 0.02
    intake_loses: float = 0.05
    intake_seconds: float = 1.0
    #: How often an intent waits unread: intake then cites the world of when it reads, not of when it was asked.
    intake_is_behind: float = 0.0
    resolve_seconds: tuple[float, float] = (5, 60)
    manners: tuple[tuple[str, float], ...] = ()
    moves: tuple[tuple[str, int], ...] = (("owners", 1), ("groups", 1), ("keys", 1), ("roster", 1), ("policies", 1))
    skews: tuple[tuple[str, int], ...] = ()
    #: Slack is this slow.
    slack_seconds: float = 4.0
    revokes: float = 0.12
    denies: float = 0.05
    snipes: float = 0.05
    snipe_ms: tuple[int, int] = (-1500, 1500)
    strangers: float = 0.3
    #: How far the clocks of cores are ahead.
    core_skew: tuple[int, int] = (-1800, 1800)
    #: How long an idle poll lasts.
    idle_seconds: float = 5.0
    #: An executor is frozen while it acts, until long after its lease.
    freezes_actor: float = 0.0
    #: Somebody clicks in the very moment in which a roster changes.
    clicks_at_changes: float = 0.0
    #: Who stood behind the agent and does so no longer says yes.
    leavers_click: float = 0.0

    def action(self, random: Random) -> str:
        return random.choice(self.actions)

    def ttl(self, random: Random) -> int:
        return random.choice(self.ttls)

    def leader_skew(self, topic: str, random: Random) -> int:
        return dict(self.skews).get(topic, random.randint(-1000, 1000))

    def chances(self, random: Random) -> Chances:
        """Some histories have one kind of fault only, and some have all."""
        storm = self.storm
        if random.random() < 0.3:
            storm *= 0.1
        return Chances(
            dies_before=0.02 * storm,
            dies_after=0.02 * storm,
            dies_at=0.006 * storm,
            loses_answer=0.015 * storm,
            is_not_written=0.015 * storm,
            is_seen_late=0.12 * storm,
            is_cut=0.2 * storm,
            skips=0.05 * storm,
            repeats=0.05 * storm,
        )

    def manner(self, random: Random) -> Manner:
        made = Manner(
            missing=0.02,
            drifts=0.15,
            by_duration=0.2,
            call_is_slow=0.1 * self.storm,
            loses_answer=0.06 * self.storm,
            refuses=0.03,
            cannot_tell=0.15 * self.storm,
        )
        for name, value in self.manners:
            setattr(made, name, value)
        return made

    def changes(self, random: Random) -> Iterable[tuple[str, int]]:
        for kind, most in self.moves:
            yield kind, random.randint(0, most)

    def crashes(self, random: Random) -> int:
        return random.randint(0, 4) if random.random() < self.storm else 0

    def forgeries(self, random: Random) -> int:
        return random.randint(0, 6) if random.random() < self.storm else 0

    def clicks(self, random: Random, row: dict[str, Any]) -> Iterable[Click]:
        """Who says what about this question."""
        requirement = row["classification"].get("requirement")
        if requirement is None:
            return
        for seat in requirement["seats"]:
            for _ in range(seat["count"]):
                yield from self._willing(random, random.choice(SEATED[seat["of"]]))
                if random.random() < 0.5:
                    yield from self._willing(random, random.choice(SEATED[seat["of"]]))
        while random.random() < self.strangers:
            yield self._stranger(random)

    def _willing(self, random: Random, who: str) -> Iterable[Click]:
        channel = random.choice((Channel.API, Channel.API, Channel.SLACK))
        slow = self.slack_seconds if channel is Channel.SLACK else 2.0
        after = int(1000 * (0.2 + slow * random.random() ** 2))
        if random.random() < self.snipes:
            yield Click(who, Verdict.APPROVE, channel, random.randint(*self.snipe_ms), around_deadline=True)
            return
        if random.random() < self.denies:
            yield Click(who, Verdict.DENY, channel, after)
            return
        yield Click(
            who,
            Verdict.APPROVE,
            channel,
            after,
            account="dan.second" if who == "dan" and channel is Channel.API and random.random() < 0.2 else None,
            names_person=random.random() < 0.2,
        )
        if random.random() < self.revokes:
            other = random.choice((Channel.API, channel))
            yield Click(who, Verdict.REVOKE, other, random.randint(0, after + 3000))

    def _stranger(self, random: Random) -> Click:
        """Whose word should count for nothing, mostly."""
        channel = random.choice((Channel.API, Channel.SLACK))
        return Click(
            random.choice(ANYBODY),
            random.choice((Verdict.APPROVE, Verdict.APPROVE, Verdict.APPROVE, Verdict.REVOKE, Verdict.DENY)),
            channel,
            random.randint(100, 12_000),
            question=DIGEST if random.random() < 0.1 else None,
            names_person=random.random() < 0.3,
            by=random.choice((None, None, None, "gateway", "nobody", "slack", "core")),
        )


CALM = Theme("calm", storm=0.0, most_intents=3, moves=())
STORM = Theme("storm", storm=1.0, most_intents=3)
EVERYDAY = Theme("everyday", storm=0.3)
THEMES: tuple[Theme, ...] = (
    EVERYDAY,
    STORM,
    CALM,
    Theme(
        "1 stale twice",
        actions=("copy",),
        ttls=(60, 120),
        manners=(("drifts", 0.6), ("call_seconds", 4.0), ("call_is_slow", 0.3)),
        said_again=0.6,
        revokes=0.02,
        storm=0.3,
        moves=(),
    ),
    Theme("2 slow chat", actions=("copy", "export"), slack_seconds=15, revokes=0.6, storm=0.2),
    Theme("3 lost intent", intake_loses=0.5, withdraws=0.7, withdraw_within=3, storm=0.2),
    Theme(
        "4 late withdrawal",
        actions=("copy",),
        late_words=0.9,
        manners=(("drifts", 0.7), ("look_seconds", 8.0)),
        revokes=0.02,
        storm=0.2,
    ),
    Theme(
        "5 fast ticks",
        actions=("copy", "guard"),
        ttls=(5, 8, 12),
        snipes=0.95,
        snipe_ms=(-100, 1000),
        core_skew=(1500, 1900),
        idle_seconds=0.2,
        seconds=30,
        spread=4,
        skews=(("ticks", 1000), ("decisions", -1000)),
        storm=0.15,
        most_intents=3,
        moves=(),
    ),
    Theme(
        "6 fast plans",
        actions=("copy", "guard"),
        ttls=(3, 4, 5),
        snipes=0.9,
        manners=(("plan_seconds", 7.0),),
        skews=(("reports", 1000), ("decisions", -1000)),
        storm=0.1,
        most_intents=3,
        moves=(),
    ),
    Theme(
        "7 owners come and go",
        actions=("copy", "export"),
        moves=(("owners", 4), ("groups", 1)),
        intake_seconds=8.0,
        intake_is_behind=0.5,
        strangers=0.6,
        seconds=25,
        storm=0.2,
        leavers_click=0.8,
    ),
    Theme(
        "8 rosters change",
        actions=("guard", "guard", "export"),
        moves=(("roster", 8), ("groups", 1)),
        seconds=25,
        storm=0.4,
        clicks_at_changes=0.9,
    ),
    Theme(
        "9 slow actors",
        actions=("copy",),
        manners=(("call_is_slow", 0.5), ("loses_answer", 0.3), ("look_seconds", 3.0), ("drifts", 0.02)),
        storm=0.4,
        seconds=90,
        revokes=0.02,
        resolve_seconds=(20, 90),
        freezes_actor=0.6,
        moves=(),
    ),
    Theme("10 claims and ticks", actions=("copy", "list"), ttls=(6, 9, 12, 30), most_intents=4, storm=0.6, moves=()),
    Theme(
        "11 pauses while minting",
        actions=("copy", "list"),
        manners=(("by_duration", 1.0), ("drifts", 0.02)),
        storm=0.5,
        revokes=0.02,
    ),
)
"""A seed's theme is one of these in turn."""


def theme_of(seed: int) -> Theme:
    return THEMES[seed % len(THEMES)]
