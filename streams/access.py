"""Who may do what on Kafka: the least rights of every principal, derived from the topic map. No I/O.

Read and Write each imply Describe, and an idempotent producer needs no more than Write on its topic. Nobody holds a
right on the cluster, and only the core holds one on transactional ids: a stranger who could write transactions into
an input would punch holes into its offsets (law 11), one who could take the core's id would fence it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.topics import Names, Principal, Topic


class Resource(StrEnum):
    """What a right is about."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional_id"
    CLUSTER = "cluster"
    OTHER = "other"


class Pattern(StrEnum):
    """How a right's name is compared."""

    LITERAL = "literal"
    PREFIXED = "prefixed"
    OTHER = "other"


class Right(NamedTuple):
    """One entry of Kafka's access control list."""

    principal: str
    resource: Resource
    name: str
    pattern: Pattern
    operation: str
    permission: str = "allow"
    host: str = "*"

    def __str__(self) -> str:
        verb = "may" if self.permission == "allow" else "may not"
        span = "…" if self.pattern is Pattern.PREFIXED else ""
        place = "" if self.host == "*" else f" from {self.host}"
        return f"{self.principal} {verb} {self.operation} {self.resource} {self.name}{span}{place}"


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody of one realm whom Kafka must know."""

    executors: tuple[str, ...] = ()
    notifiers: tuple[str, ...] = ()
    #: Agents that write to Kafka themselves; those behind the gateway are not here.
    agents: tuple[str, ...] = ()
    #: Starts the name of every Kafka user: two realms on one cluster need different ones.
    user_prefix: str = ""

    def roles(self) -> dict[str, tuple[Principal, str | None]]:
        """Every role: its part in the topic map, and the executor, notifier or agent it stands for."""
        roles: dict[str, tuple[Principal, str | None]] = {str(part): (part, None) for part in SINGLES}
        for part, names in (
            (Principal.EXECUTOR, self.executors),
            (Principal.NOTIFIER, self.notifiers),
            (Principal.AGENT, self.agents),
        ):
            roles |= {f"{part}-{name}": (part, name) for name in names}
        return roles

    def user(self, role: str) -> str:
        """The Kafka user of a role."""
        return self.user_prefix + role


SINGLES: Final = (
    Principal.GATEWAY,
    Principal.INTAKE,
    Principal.CORE,
    Principal.AUDITOR,
    Principal.NOTARY,
    Principal.ADMINISTRATION,
    Principal.ROSTER,
    Principal.OPERATOR,
)
"""Parts with one user a realm."""

GROUPED: Final = frozenset({Principal.INTAKE, Principal.CORE, Principal.EXECUTOR})
"""Parts that share their partitions out among several processes; all others read without a consumer group."""


def group_of(names: Names, role: str) -> str:
    """The consumer group of a role."""
    return names.prefix + role


def transactional_prefix(names: Names) -> str:
    """How the core's transactional ids begin; the partition follows."""
    return f"{names.prefix}{Principal.CORE}-"


def rights(names: Names, cast: Cast) -> frozenset[Right]:
    """Exactly the rights that must be there: no fewer, and no more."""
    return frozenset(right for role in cast.roles() for right in rights_of(role, names, cast))


def rights_of(role: str, names: Names, cast: Cast) -> Iterator[Right]:
    """The rights of one role."""
    part, of = cast.roles()[role]
    principal = f"User:{cast.user(role)}"
    for name, topic, executor in names.all(cast.executors):
        if part is Principal.EXECUTOR and executor is not None and executor != of:
            continue
        for operation in _operations(topic, part):
            yield Right(principal, Resource.TOPIC, name, Pattern.LITERAL, operation)
    if part in GROUPED:
        yield Right(principal, Resource.GROUP, group_of(names, role), Pattern.LITERAL, "read")
    if part is Principal.CORE:
        yield Right(principal, Resource.TRANSACTIONAL_ID, transactional_prefix(names), Pattern.PREFIXED, "write")


def _operations(topic: Topic, part: Principal) -> Iterator[str]:
    if part in topic.readers:
        yield "read"
    if part in topic.writers:
        yield "write"


def touching(found: Iterable[Right], names: Names, cast: Cast) -> frozenset[Right]:
    """Those of the rights found on a cluster that concern this installation: its principals', or on its names.

    A wildcard or a shorter prefix of a stranger covers our topics too, and counts.
    """
    ours = {f"User:{cast.user(role)}" for role in cast.roles()}
    return frozenset(right for right in found if right.principal in ours or _covers(right, names.prefix))


def _covers(right: Right, prefix: str) -> bool:
    if right.resource not in {Resource.TOPIC, Resource.GROUP, Resource.TRANSACTIONAL_ID}:
        return False
    if right.pattern is Pattern.PREFIXED:
        return right.name.startswith(prefix) or prefix.startswith(right.name)
    return right.name == "*" or right.name.startswith(prefix)
