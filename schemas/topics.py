"""The one map of topics: partitions, clean-up, who writes, who reads. No I/O.

The README's table, the access control lists and the provisioning are all generated from it. Roles are Kafka
principals; one writer a topic keeps the direction of every arrow.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from schemas import records, snapshots
from schemas.record import Record

DAY_MS: Final = 24 * 60 * 60 * 1000
FOREVER: Final = "-1"
MAX_LONG: Final = "9223372036854775807"


class Principal(StrEnum):
    """Roles as Kafka knows them. An executor's own principal is `executor-<name>`."""

    AGENT = "agent"
    GATEWAY = "gateway"
    INTAKE = "intake"
    CORE = "core"
    EXECUTOR = "executor"
    NOTIFIER = "notifier"
    AUDITOR = "auditor"
    NOTARY = "notary"
    ADMINISTRATION = "administration"
    ROSTER = "roster"
    OPERATOR = "operator"


ALL_BUT_AGENTS: Final = frozenset(Principal) - {Principal.AGENT}


class Cleanup(StrEnum):
    """What Kafka may forget."""

    DELETE = "delete"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the map. `name` is without the prefix; `{executor}` in it stands for each executor."""

    name: str
    says: str
    cleanup: Cleanup
    writers: frozenset[Principal]
    readers: frozenset[Principal]
    types: tuple[type[Record], ...]
    #: P partitions (the realm's number), or one.
    is_partitioned: bool = True
    retention_ms: int | None = None
    #: Written in transactions: offsets have holes, so each record carries a gap-free number `n` (law 11).
    is_transactional: bool = False
    #: An input of the core or of intake: gap-free offsets, a genesis record in every partition.
    is_input: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_per_executor(self) -> bool:
        """Whether there is one such topic for each executor."""
        return "{executor}" in self.name

    def configuration(self) -> dict[str, str]:
        """The settings Kafka gets, replication aside."""
        settings = {
            "cleanup.policy": self.cleanup.value,
            "message.timestamp.type": "LogAppendTime",
            # The broker unpacks what a producer packed: a codec that a reader lacks would stop it for ever (law 9), and
            # a batch that unpacks to more than the broker accepts is refused where it is written.
            "compression.type": "uncompressed",
        }
        if self.cleanup is Cleanup.DELETE:
            settings["retention.ms"] = str(self.retention_ms) if self.retention_ms else FOREVER
            # By time alone: a limit on size, a broker's default, would drop inputs early and in silence (law 11).
            settings["retention.bytes"] = FOREVER
        return settings | dict(self.extra)


def _topic(
    name: str,
    says: str,
    cleanup: Cleanup,
    writers: set[Principal],
    readers: set[Principal] | frozenset[Principal],
    *types: type[Record],
    is_partitioned: bool = True,
    days: int | None = None,
    is_transactional: bool = False,
    is_input: bool = False,
    extra: Mapping[str, str] | None = None,
) -> Topic:
    retention_ms = days * DAY_MS if days else None
    return Topic(
        name,
        says,
        cleanup,
        frozenset(writers),
        frozenset(readers),
        types,
        is_partitioned,
        retention_ms,
        is_transactional,
        is_input,
        extra or {},
    )


_P = Principal
_C = Cleanup
_r = records

INTENTS: Final = _topic(
    "intents",
    "intents and withdrawals, signed by who asks",
    _C.DELETE,
    {_P.AGENT, _P.GATEWAY, _P.OPERATOR},
    {_P.INTAKE, _P.GATEWAY, _P.AUDITOR, _P.OPERATOR},
    _r.Intent,
    _r.Withdrawal,
    days=30,
    is_input=True,
)
CLASSIFIED: Final = _topic(
    "classified",
    "intake's answer to each of them",
    _C.DELETE,
    {_P.INTAKE, _P.OPERATOR},
    {_P.INTAKE, _P.CORE, _P.AUDITOR, _P.OPERATOR},
    _r.ClassifiedIntent,
    _r.ForwardedWithdrawal,
    days=30,
    is_input=True,
)
DECISIONS: Final = _topic(
    "decisions",
    "what people say",
    _C.DELETE,
    {_P.NOTIFIER, _P.OPERATOR},
    {_P.CORE, _P.AUDITOR, _P.OPERATOR},
    _r.Decision,
    _r.Resolution,
    days=30,
    is_input=True,
)
REPORTS: Final = _topic(
    "reports",
    "plans, claims and outcomes",
    _C.DELETE,
    {_P.EXECUTOR, _P.OPERATOR},
    {_P.CORE, _P.AUDITOR, _P.OPERATOR},
    _r.Plan,
    _r.PlanFailed,
    _r.Claim,
    _r.Outcome,
    days=30,
    is_input=True,
)
TICKS: Final = _topic(
    "ticks",
    "time has passed",
    _C.DELETE,
    {_P.CORE},
    {_P.CORE, _P.AUDITOR, _P.OPERATOR},
    _r.Tick,
    days=30,
    is_input=True,
)
OPERATIONS: Final = _topic(
    "operations",
    "what operators do about lost inputs, set aside records and a restored log",
    _C.DELETE,
    {_P.OPERATOR},
    {_P.CORE, _P.AUDITOR, _P.OPERATOR},
    _r.Skip,
    _r.Restore,
    _r.Redrive,
    days=30,
    is_input=True,
)
PENDING: Final = _topic(
    "pending",
    "one row an intent, and where each core partition is",
    _C.COMPACT,
    {_P.CORE},
    {_P.CORE, _P.NOTIFIER, _P.GATEWAY, _P.AUDITOR, _P.OPERATOR},
    _r.PendingApproval,
    _r.Progress,
    is_transactional=True,
)
STATUS: Final = _topic(
    "status",
    "phase and reason, without parameters",
    _C.COMPACT,
    {_P.CORE},
    {_P.AGENT, _P.GATEWAY, _P.AUDITOR},
    _r.IntentStatus,
    is_transactional=True,
)
PLANNING: Final = _topic(
    "planning.{executor}",
    "please plan",
    _C.DELETE,
    {_P.CORE},
    {_P.EXECUTOR},
    _r.PlanRequest,
    days=30,
    is_transactional=True,
)
APPROVED: Final = _topic(
    "approved.{executor}",
    "may be claimed, granted, refused, ended, unknown",
    _C.DELETE,
    {_P.CORE},
    {_P.EXECUTOR, _P.AUDITOR},
    _r.ApprovedIntent,
    _r.Grant,
    _r.ClaimRefused,
    _r.ApprovalEnded,
    _r.OutcomeUnknown,
    days=30,
    is_transactional=True,
)
JOURNAL: Final = _topic(
    "journal.{executor}",
    "each step before it is taken",
    _C.DELETE,
    {_P.EXECUTOR},
    {_P.EXECUTOR, _P.AUDITOR},
    _r.JournalEntry,
    days=90,
)
AUDIT: Final = _topic(
    "audit",
    "everything that happened, chained",
    _C.COMPACT,
    {_P.CORE},
    {_P.CORE, _P.AUDITOR, _P.NOTARY, _P.OPERATOR},
    _r.AuditRecord,
    is_partitioned=False,
    is_transactional=True,
    extra={"min.compaction.lag.ms": MAX_LONG, "retention.ms": FOREVER, "retention.bytes": "-1"},
)
CHECKPOINTS: Final = _topic(
    "checkpoints",
    "signed heads of the audit log",
    _C.COMPACT,
    {_P.NOTARY},
    {_P.NOTARY, _P.AUDITOR, _P.EXECUTOR},
    is_partitioned=False,
)
_KEPT = {"min.compaction.lag.ms": MAX_LONG, "retention.ms": FOREVER, "retention.bytes": "-1"}
DIRECTORY: Final = _topic(
    "directory",
    "persons, accounts, agents, owners, groups, keys",
    _C.COMPACT,
    {_P.ADMINISTRATION},
    ALL_BUT_AGENTS,
    snapshots.Directory,
    is_partitioned=False,
    is_input=True,
    extra=_KEPT,
)
ROSTER: Final = _topic(
    "roster",
    "members of synced groups, who is on call when",
    _C.COMPACT,
    {_P.ADMINISTRATION, _P.ROSTER},
    ALL_BUT_AGENTS,
    snapshots.Roster,
    is_partitioned=False,
    is_input=True,
    extra=_KEPT,
)
POLICIES: Final = _topic(
    "policies",
    "Cedar policies",
    _C.COMPACT,
    {_P.ADMINISTRATION},
    ALL_BUT_AGENTS,
    snapshots.Policies,
    is_partitioned=False,
    is_input=True,
    extra=_KEPT,
)
MANIFESTS: Final = _topic(
    "manifests",
    "what each executor can do",
    _C.COMPACT,
    {_P.ADMINISTRATION},
    ALL_BUT_AGENTS,
    snapshots.Manifests,
    is_partitioned=False,
    is_input=True,
    extra=_KEPT,
)
CARDS: Final = _topic(
    "cards",
    "what was shown where",
    _C.COMPACT,
    {_P.NOTIFIER},
    {_P.NOTIFIER, _P.AUDITOR},
    _r.ShownCard,
    is_partitioned=False,
)
VAULT: Final = _topic(
    "vault",
    "openings of sensitive values, encrypted; a tombstone is lawful erasure",
    _C.COMPACT,
    {_P.GATEWAY, _P.AGENT},
    {_P.NOTIFIER, _P.EXECUTOR},
)
QUARANTINE: Final = _topic(
    "quarantine",
    "records nobody could read",
    _C.DELETE,
    {_P.INTAKE, _P.CORE, _P.EXECUTOR},
    # Whoever asks can see its own (law 9): the gateway shows each requester what could not be read of it.
    {_P.INTAKE, _P.GATEWAY, _P.AUDITOR, _P.ADMINISTRATION, _P.OPERATOR},
    _r.Quarantined,
    days=90,
)

TOPICS: Final = (
    INTENTS,
    CLASSIFIED,
    DECISIONS,
    REPORTS,
    TICKS,
    OPERATIONS,
    PENDING,
    STATUS,
    PLANNING,
    APPROVED,
    JOURNAL,
    AUDIT,
    CHECKPOINTS,
    DIRECTORY,
    ROSTER,
    POLICIES,
    MANIFESTS,
    CARDS,
    VAULT,
    QUARANTINE,
)
CORE_INPUTS: Final = (CLASSIFIED, DECISIONS, REPORTS, TICKS, OPERATIONS)
"""Topics of P partitions that one core partition decides."""
WORLD: Final = (DIRECTORY, ROSTER, POLICIES, MANIFESTS)
"""Topics of one partition that every core partition reads whole."""

PROGRESS_KEY: Final = "progress"
"""The key of a core partition's `Progress` in `pending`; no intent id looks like it."""


@dataclass(frozen=True, slots=True)
class Names:
    """The full names of topics in one installation. `prefix` ends in a dot or is empty."""

    prefix: str = "keyturn."

    def of(self, topic: Topic, executor: str | None = None) -> str:
        """The name on the cluster."""
        if topic.is_per_executor != (executor is not None):
            raise ValueError(f"{topic.name}: name the executor exactly when the topic is one an executor")
        return self.prefix + (topic.name.replace("{executor}", executor) if executor else topic.name)

    def plain(self, name: str) -> str:
        """A full name as the map has it: places on the log read the same in every installation."""
        return name.removeprefix(self.prefix)

    def all(self, executors: tuple[str, ...]) -> Iterator[tuple[str, Topic, str | None]]:
        """Every (name, topic, executor) of an installation with these executors."""
        for topic in TOPICS:
            if topic.is_per_executor:
                for executor in executors:
                    yield self.of(topic, executor), topic, executor
            else:
                yield self.of(topic), topic, None
