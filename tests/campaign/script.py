"""What one run of the campaign does, from its seed alone: who asks for what, who dies where, and when. No I/O.

The seed chooses the point: as many seeds in a row as there are points strike each of them.
"""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.crashpoints import POINTS

AGENTS: Final = ("reporter", "clerk", "teller", "runner")
"""One on each of the four partitions."""
SHORT_TTL: Final = 4
LONG_TTL: Final = 600
BY_HTTP: Final = frozenset({"clerk", "runner"})
"""These agents ask through the gateway; the others write to Kafka themselves."""
KINDS: Final = ("gateway", "intake", "core", "executor", "api")
RANDOM_SHARE: Final = 0.4
"""Of the runs that have a second fault, at any moment, beside the one at the named point."""
PAUSES: Final = (0.5, 1.0, 3.0, 12.0)
"""How long a stopped process stays so; the last is longer than a session, and than a lease."""


class Wish(StrEnum):
    """What becomes of an intent, if nothing dies."""

    APPROVED = "approved"
    BIG = "big"  # needs two people
    PUBLIC = "public"  # needs nobody
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"  # a yes, and at once taken back: whichever the core hears in time
    FORBIDDEN = "forbidden"


ALWAYS: Final = (Wish.APPROVED, Wish.APPROVED, Wish.EXPIRED, Wish.PUBLIC)
SOMETIMES: Final = (Wish.APPROVED, Wish.BIG, Wish.DENIED, Wish.WITHDRAWN, Wish.REVOKED, Wish.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class Ask:
    """One intent."""

    wish: Wish
    agent: str
    #: Seconds after the run began.
    at: float
    objects: int


@dataclass(frozen=True, slots=True)
class Order:
    """Whoever of this kind reaches the point for the `nth` time gets the signal."""

    kind: str
    point: str
    nth: int
    signal: str


@dataclass(frozen=True, slots=True)
class Blow:
    """A signal at a moment, wherever its victim then is."""

    #: A kind of role, or `kafka`.
    victim: str
    at: float
    signal: str


@dataclass(frozen=True, slots=True)
class Script:
    """One run."""

    seed: int
    asks: tuple[Ask, ...]
    orders: tuple[Order, ...]
    blows: tuple[Blow, ...]
    #: How long whoever is stopped stays stopped.
    pause: float

    @property
    def point(self) -> str:
        """The named point that this run is about."""
        return self.orders[-1].point

    def __str__(self) -> str:
        struck = ", ".join(f"{order.signal} at {order.point} #{order.nth}" for order in self.orders)
        blown = "".join(f", {blow.signal} to {blow.victim} at {blow.at:.1f} s" for blow in self.blows)
        return struck + blown


def kind_of(point: str) -> str:
    """Which kind of process reaches a point: its first word."""
    word = point.partition(".")[0]
    return {"notifier": "api"}.get(word, word)


def is_rare(point: str) -> bool:
    """Whether it is reached once in a life of a process, or only after another one's death."""
    return point.startswith(("core.start", "core.stop", "core.tick", "executor.unknown"))


def script(seed: int) -> Script:
    """The run of this seed."""
    chance = random.Random(seed)
    point = POINTS[seed % len(POINTS)]
    wishes = [*ALWAYS, *(chance.choice(SOMETIMES) for _ in range(4))]
    chance.shuffle(wishes)
    asks = tuple(
        Ask(wish, chance.choice(AGENTS), round(chance.uniform(0, 1.5), 2), chance.randint(1, 4)) for wish in wishes
    )
    return Script(seed, asks, *_faults(chance, point), pause=chance.choices(PAUSES, (4, 4, 2, 1))[0])


def _faults(chance: random.Random, point: str) -> tuple[tuple[Order, ...], tuple[Blow, ...]]:
    kind = kind_of(point)
    signal = chance.choices(("SIGKILL", "SIGTERM", "SIGSTOP"), (6, 2, 2))[0]
    nth = 1 if is_rare(point) else chance.randint(1, 2 if kind == "gateway" else 3)
    orders = [Order(kind, point, nth, signal)]
    blows: list[Blow] = []
    if point.startswith("core.start"):
        blows.append(Blow("core", 0.5, "SIGKILL"))
    if point.startswith("core.stop"):
        blows.append(Blow("core", 0.5, "SIGTERM"))
    if point.startswith("executor.unknown"):
        orders.insert(0, Order("executor", "executor.act.5-step-journalled", 1, "SIGKILL"))
    if chance.random() < RANDOM_SHARE:
        victim = chance.choice((*KINDS, "kafka"))
        blows.append(Blow(victim, round(chance.uniform(0, 4), 2), chance.choice(("SIGKILL", "SIGTERM", "SIGSTOP"))))
    return tuple(orders), tuple(blows)


def dense(seed: int) -> Script:
    """A short run with more deaths: of each kind somebody is killed twice, each time where everything passes."""
    chance = random.Random(seed)
    orders = [
        Order(kind, point, 1, "SIGKILL")
        for kind in KINDS
        for point in chance.sample([point for point in POINTS if kind_of(point) == kind and not is_rare(point)], 2)
    ]
    wishes = (*ALWAYS, Wish.DENIED, Wish.APPROVED, Wish.WITHDRAWN, Wish.BIG)
    asks = tuple(Ask(wish, AGENTS[number % len(AGENTS)], 0.3 * number, 2) for number, wish in enumerate(wishes))
    return Script(seed, asks, tuple(orders), (), pause=PAUSES[0])
