"""What an installation's Kafka must look like, what it does look like, and what is to be done. No I/O.

Everything follows from the topic map. A remedy only creates and raises: nothing is ever deleted, no partition count
changed, no retention shortened. What only a person may mend is a finding without a remedy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.topics import INTENTS, TOPICS, Names, Principal
from streams import access
from streams.access import Cast, Right

UNLIMITED: Final = "-1"
GROWING: Final = frozenset({"retention.ms", "retention.bytes", "min.insync.replicas", "min.compaction.lag.ms"})
"""Settings of which more than the map's is as good: it is never taken back."""
FIRST_OFFSET: Final = 1
"""Where intake starts: after the genesis record."""

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic, as it is or as it must be."""

    partitions: int
    replicas: int
    settings: Mapping[str, str]


class First(StrEnum):
    """What a partition begins with."""

    EMPTY = "empty"
    GENESIS = "genesis"
    #: Retention removed the beginning, so there was one.
    EXPIRED = "expired"
    #: Something else, or a genesis record that our root key did not sign.
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must be there."""

    names: Names
    cast: Cast
    partitions: int
    replicas: int
    min_insync_replicas: int
    #: Whether users have passwords; with client certificates they don't.
    has_passwords: bool = True

    def topics(self) -> dict[str, TopicState]:
        """Every topic of this installation."""
        safety = {"min.insync.replicas": str(self.min_insync_replicas), "unclean.leader.election.enable": "false"}
        return {
            name: TopicState(
                self.partitions if topic.is_partitioned else 1, self.replicas, topic.configuration() | safety
            )
            for name, topic, _ in self.names.all(self.cast.executors)
        }

    def beginnings(self) -> tuple[Place, ...]:
        """Every partition that must begin with a genesis record."""
        inputs = [self.names.of(topic) for topic in TOPICS if topic.is_input and topic.is_partitioned]
        return tuple((name, partition) for name in inputs for partition in range(self.partitions))

    @property
    def intents(self) -> str:
        """The topic that intake reads with a consumer group."""
        return self.names.of(INTENTS)

    @property
    def intake(self) -> str:
        """Intake's consumer group."""
        return access.group_of(self.names, Principal.INTAKE.value)


@dataclass(frozen=True, slots=True)
class Found:
    """What is there."""

    topics: Mapping[str, TopicState]
    rights: frozenset[Right]
    users: frozenset[str]
    firsts: Mapping[Place, First]
    #: Partitions of `intents` at which intake's group has a committed offset.
    committed: frozenset[int]


# ---------------------------------------------------------------- remedies


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Make a topic."""

    name: str
    state: TopicState

    def __str__(self) -> str:
        return f"create topic {self.name} ({self.state.partitions} partitions, {self.state.replicas} replicas)"


@dataclass(frozen=True, slots=True)
class SetTopic:
    """Change settings of a topic."""

    name: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        pairs = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"set {pairs} on topic {self.name}"


@dataclass(frozen=True, slots=True)
class Begin:
    """Write the genesis records of these empty partitions."""

    places: tuple[Place, ...]

    def __str__(self) -> str:
        return f"write {len(self.places)} genesis record(s) to {self.places[0][0]}"


@dataclass(frozen=True, slots=True)
class CommitFirst:
    """Set intake's first offset."""

    partitions: tuple[int, ...]

    def __str__(self) -> str:
        return f"commit offset {FIRST_OFFSET} for intake on {len(self.partitions)} partition(s)"


@dataclass(frozen=True, slots=True)
class AddUser:
    """Give a user the password of its role."""

    name: str
    role: str

    def __str__(self) -> str:
        return f"create user {self.name}"


@dataclass(frozen=True, slots=True)
class Grant:
    """Add rights."""

    rights: frozenset[Right]

    def __str__(self) -> str:
        return f"add {len(self.rights)} right(s) for {min(self.rights).principal}"


Remedy = CreateTopic | SetTopic | Begin | CommitFirst | AddUser | Grant


# ---------------------------------------------------------------- findings


class Verdict(StrEnum):
    """How a fact compares with what must be."""

    OK = "ok"
    MISSING = "missing"
    DIFFERS = "differs"
    SUPERFLUOUS = "superfluous"
    #: Nothing is done anywhere while such a finding stands.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact, and what mends it; without a remedy, if it is not ok, a person must."""

    verdict: Verdict
    what: str
    detail: str
    remedy: Remedy | None = None

    @property
    def is_ok(self) -> bool:
        """Whether this is as it must be."""
        return self.verdict is Verdict.OK

    def __str__(self) -> str:
        return f"{self.verdict:<11} {self.what}: {self.detail}"


def compare(wanted: Wanted, found: Found) -> tuple[Finding, ...]:
    """Every fact about this installation, in the order in which remedies must be applied.

    Rights come last: nobody may write to a partition before its genesis record is there.
    """
    return (
        *_topics(wanted, found),
        *_beginnings(wanted, found),
        *_first_offsets(wanted, found),
        *(_users(wanted, found) if wanted.has_passwords else ()),
        *_rights(wanted, found),
    )


def _topics(wanted: Wanted, found: Found) -> Iterator[Finding]:
    for name, state in wanted.topics().items():
        what, actual = f"topic {name}", found.topics.get(name)
        if actual is None:
            yield Finding(Verdict.MISSING, what, "not there", CreateTopic(name, state))
            continue
        if actual.partitions != state.partitions:
            yield Finding(
                Verdict.REFUSED,
                what,
                f"has {actual.partitions} partitions, the realm says {state.partitions}. That stays: requesters "
                "would move away from their history. Set `partitions` in realm.yaml right, or use another prefix",
            )
            continue
        if actual.replicas < state.replicas:
            detail = f"{actual.replicas} replicas, the realm says {state.replicas}: use kafka-reassign-partitions"
            yield Finding(Verdict.DIFFERS, what, detail)
        if off := {key: value for key, value in state.settings.items() if not _suffices(key, actual, value)}:
            has = ", ".join(f"{key} is {actual.settings.get(key)}, not {value}" for key, value in off.items())
            yield Finding(Verdict.DIFFERS, what, has, SetTopic(name, off))
        elif actual.replicas >= state.replicas:
            yield Finding(Verdict.OK, what, f"{actual.partitions} partitions, settings as mapped")


def _suffices(key: str, actual: TopicState, value: str) -> bool:
    has = actual.settings.get(key)
    if has == value:
        return True
    if key not in GROWING or has is None or value == UNLIMITED:
        return False
    return has == UNLIMITED or int(has) > int(value)


def _beginnings(wanted: Wanted, found: Found) -> Iterator[Finding]:
    by_topic: dict[str, list[Place]] = {}
    for place in wanted.beginnings():
        by_topic.setdefault(place[0], []).append(place)
    for name, places in by_topic.items():
        what = f"genesis of {name}"
        firsts = {place: found.firsts.get(place, First.EMPTY) for place in places}
        if foreign := [partition for (_, partition), first in firsts.items() if first is First.FOREIGN]:
            detail = f"partition(s) {foreign} begin with another record than our root key's; use another prefix"
            yield Finding(Verdict.REFUSED, what, detail)
        elif empty := tuple(place for place, first in firsts.items() if first is First.EMPTY):
            yield Finding(Verdict.MISSING, what, f"{len(empty)} partition(s) are empty", Begin(empty))
        else:
            yield Finding(Verdict.OK, what, f"{len(places)} partition(s) begin with it")


def _first_offsets(wanted: Wanted, found: Found) -> Iterator[Finding]:
    what = f"offsets of {wanted.intake}"
    if without := tuple(partition for partition in range(wanted.partitions) if partition not in found.committed):
        yield Finding(Verdict.MISSING, what, f"none on {len(without)} partition(s)", CommitFirst(without))
    else:
        yield Finding(Verdict.OK, what, f"committed on {wanted.partitions} partition(s)")


def _users(wanted: Wanted, found: Found) -> Iterator[Finding]:
    for role in wanted.cast.roles():
        user = wanted.cast.user(role)
        if user in found.users:
            yield Finding(Verdict.OK, f"user {user}", "has a password")
        else:
            yield Finding(Verdict.MISSING, f"user {user}", "has no password", AddUser(user, role))


def _rights(wanted: Wanted, found: Found) -> Iterator[Finding]:
    must = access.rights(wanted.names, wanted.cast)
    has = access.touching(found.rights, wanted.names, wanted.cast)
    for role in wanted.cast.roles():
        mine = frozenset(access.rights_of(role, wanted.names, wanted.cast))
        if missing := mine - has:
            yield Finding(Verdict.MISSING, f"rights of {role}", "; ".join(map(str, sorted(missing))), Grant(missing))
        else:
            yield Finding(Verdict.OK, f"rights of {role}", f"{len(mine)} as mapped")
    for right in sorted(has - must):
        detail = "nobody's role needs it. It stays until you remove it: kafka-acls --remove"
        yield Finding(Verdict.SUPERFLUOUS, str(right), detail)
