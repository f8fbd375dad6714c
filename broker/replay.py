"""The trail decided again: the shipped judgement over the trail's own inputs, in their order. Pure: no Kafka, no file.

Law 10 asks for a trail that only grows; this asks that it follows. Every audit record must come out byte for byte as
it stands there, digests of everything said included, or the first one that does not is named with its first field.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final

from broker.core.deciding import Deciding
from broker.core.rows import Rows, Stored
from broker.core.trail import Chain
from broker.lifecycle import intent_id_of
from schemas import canonical, envelope, ids, partition, topics
from schemas.canonical import Json
from schemas.raw import RawRecord
from schemas.record import Record, RecordError, Statement
from schemas.records import FINAL, AuditRecord, ChainHead, Genesis, PendingApproval, Progress, Refusal, Source
from schemas.timing import LEADER_SKEW_MS
from schemas.topics import PROGRESS_KEY, Names
from schemas.world import RULES, World

WORLD: Final = frozenset(topic.name for topic in topics.WORLD)
PREFIX: Final = "core-"
NOTHING: Final = "(nothing)"
MAX_PARTITIONS: Final = 4096
SHOWN: Final = 300

Find = Callable[[Source], RawRecord | None]
"""What lies at this place of an input topic; None when it is not at hand."""


class ReplayError(Exception):
    """The trail cannot be decided again with what is at hand; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where the trail does not follow from its inputs."""

    chain: str
    seq: int
    #: Members from the record inwards; `pending/<intent>` in front where a row differs.
    path: str
    #: On the trail.
    expected: str
    #: Decided now.
    got: str

    def __str__(self) -> str:
        return f"{self.chain}/{self.seq} {self.path}: on the trail {self.expected}, decided now {self.got}"


class Diverged(Exception):  # noqa: N818 - an answer, raised only between the lines of this module
    """The first divergence."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


class OtherRulesError(ReplayError):
    """From here on the trail was decided by rules that this version does not have."""


@dataclass(slots=True)
class Replayed:
    """What was found the same."""

    records: int = 0
    #: Unreadable inputs whose bytes are not at hand: what the trail says of them was taken over.
    at_its_word: int = 0
    #: Rows of ended intents that a tick forgot which is not on the trail.
    forgotten: int = 0
    rows: int = 0
    #: Of these, rows written before one of their members was known: the trail is the same.
    rows_older: int = 0
    #: Chains whose rows could not be compared, since what is at hand of `pending` is another state of them.
    rows_skipped: int = 0
    heads: dict[str, ChainHead] = field(default_factory=dict)


@dataclass(slots=True)
class _Partition:
    own: Deciding
    #: Decided and not yet found on the trail: a tick ends several intents.
    due: deque[bytes] = field(default_factory=deque)


@dataclass(slots=True)
class Snapshots:
    """What lies on `pending`: the digest of each row, and how far it goes."""

    rows: dict[int, dict[str, str]] = field(default_factory=dict)
    heads: dict[int, ChainHead] = field(default_factory=dict)

    def take(self, record: RawRecord) -> None:
        """One record of `pending`, in its order."""
        key = (record.key or b"").decode()
        rows = self.rows.setdefault(record.partition, {})
        if key == PROGRESS_KEY and record.value is not None:
            self.heads[record.partition] = Progress.from_bytes(record.value).head
        elif record.value is None:
            rows.pop(key, None)
        elif envelope.type_of(record.headers) != Genesis.TYPE:
            rows[key] = canonical.digest(record.value)


class Replay:
    """One run over a whole trail: `take` each value of `audit` in its order, then `finish`."""

    def __init__(
        self,
        world: World,
        find: Find,
        partitions: int,
        snapshots: Snapshots,
        storage: Callable[[], MutableMapping[str, Stored]] = dict,
    ) -> None:
        """`world`: the empty one. `storage`: where the rows of a partition are kept, if not in memory."""
        self._world = world
        self._find = find
        self._count = partitions
        self._snapshots = snapshots
        self._storage = storage
        self._partitions: dict[int, _Partition] = {}
        self.result = Replayed()

    def take(self, value: bytes) -> None:
        """The next record of the trail. Diverged when it is not what its input makes."""
        record = _read(value)
        number = _number(record)
        here = self._partitions.get(number)
        if here is None:
            own = Deciding(self._world, Names(), number, self._count)
            own.rows = Rows(self._storage())
            here = self._partitions[number] = _Partition(own)
        if not here.due:
            self._decide(record, here)
        decided = here.due.popleft() if here.due else None
        if decided != value:
            raise Diverged(_difference(record, value, decided))
        self.result.records += 1
        if not here.due:
            self._compare_rows(number, here)

    def finish(self) -> Replayed:
        """The result, once the whole trail was taken."""
        for here in self._partitions.values():
            if here.due:
                got = AuditRecord.from_bytes(here.due[0])
                raise Diverged(Divergence(got.chain, got.seq, "(whole)", NOTHING, f"{got.event} of {got.intent}"))
            self.result.heads[here.own.chain.name] = here.own.chain.head
        self.result.rows_skipped = sum(1 for head in self._snapshots.heads.values() if head.seq)
        return self.result

    # ------------------------------------------------------------ deciding

    def _decide(self, record: AuditRecord, here: _Partition) -> None:
        """Decide the input that this record cites; what is due on the trail follows from it."""
        if record.versions.rules != RULES:
            raise OtherRulesError(
                f"{record.chain}/{record.seq}: decided by {record.versions.rules}, and this version has {RULES}: "
                "replay it with the version of Keyturn that has them"
            )
        received = self._input(record)
        if received is None:
            self._take_over(record, here)
            return
        self._forget_unseen(record, here)
        # What the log held when a skip was judged is not at hand: the trail's word is taken for it.
        objection = record.reason if record.refusal is Refusal.NOT_LOST else None
        here.own.decide(record.source.topic, received, objection)
        here.own.jumps.clear()
        words = here.own.taken().words
        here.due.extend(word.value or b"" for word in words if word.type == AuditRecord.TYPE)

    def _input(self, record: AuditRecord) -> RawRecord | None:
        """The input as it lay on its topic; None when its bytes are not at hand."""
        statement = record.statement
        if statement is not None:
            return _Restored.of(record, statement)
        found = self._find(record.source)
        if found is None and record.source.topic in WORLD:
            raise ReplayError(f"{record.chain}/{record.seq}: {record.source} is not at hand; export the bundle again")
        return found

    def _take_over(self, record: AuditRecord, here: _Partition) -> None:
        """An unreadable input without its bytes moves nothing: its record must fit the chain, the rest is its word."""
        own = here.own
        known = {"realm": own.chain.realm, "seq": own.chain.head.seq + 1, "prev": own.chain.head.digest}
        due = record.model_copy(update=known | {"versions": own.world.versions})
        own.chain = own.chain.after(due)
        here.due.append(due.to_bytes())
        self.result.at_its_word += 1

    def _forget_unseen(self, record: AuditRecord, here: _Partition) -> None:
        """A tick that ended nothing is not on the trail, and forgets old rows all the same."""
        if record.before is not None or record.intent is None:
            return
        row = here.own.rows.get(record.intent)
        if row is None or row.ended_at is None or row.phase not in FINAL:
            return
        if ids.is_forgettable(record.intent, row.ended_at, record.log_time + LEADER_SKEW_MS):
            here.own.rows.drop(record.intent)
            self.result.forgotten += 1

    # ------------------------------------------------------------ rows

    def _compare_rows(self, number: int, here: _Partition) -> None:
        """Where `pending` stands at this very record of the chain, its rows are the ones decided now."""
        chain: Chain = here.own.chain
        if self._snapshots.heads.get(number) != chain.head:
            return
        del self._snapshots.heads[number]
        for intent_id, digest in self._snapshots.rows.pop(number, {}).items():
            row = here.own.rows.get(intent_id)
            if row is not None and row.digest != digest and _is_older_form(row, digest):
                self.result.rows_older += 1
            elif row is None or row.digest != digest:
                got = row.digest if row is not None else NOTHING
                raise Diverged(Divergence(chain.name, chain.head.seq, f"pending/{intent_id}", digest, got))
            self.result.rows += 1


@dataclass(frozen=True, slots=True)
class _Restored:
    """An input as it lay on its topic, from its statement on the trail."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None

    @classmethod
    def of(cls, record: AuditRecord, statement: Statement) -> "_Restored":
        key = record.intent or ""
        for kind in topics_of(record.source.topic):
            if statement.type == kind.TYPE:
                try:
                    key = intent_id_of(statement.read(kind)) or ""  # type: ignore[arg-type] # the map lists event records
                except RecordError:
                    break
        sealed = envelope.reseal(statement, key, record.realm, source="replay")
        source = record.source
        return cls(source.partition, source.offset, record.log_time, sealed.key, sealed.headers, sealed.value)


def _is_older_form(row: PendingApproval, digest: str) -> bool:
    """Whether the row lacks exactly one member that this version knows, and is the same otherwise."""
    members = row.to_json()
    return any(
        canonical.digest_of({other: value for other, value in members.items() if other != name}) == digest
        for name in members
    )


def topics_of(name: str) -> tuple[type[Record], ...]:
    """The record types of the input topic of that name."""
    return next((topic.types for topic in topics.CORE_INPUTS if topic.name == name), ())


def partitions_of(requesters: Mapping[str, int], least: int) -> int:
    """The realm's P: the first that is not below `least` and puts every requester where the trail has it."""
    for count in range(max(least, 1), MAX_PARTITIONS + 1):
        if all(partition.partition_of(requester, count) == number for requester, number in requesters.items()):
            return count
    raise ReplayError("no number of partitions puts every requester where the trail has it; see `keyturn audit verify`")


# ---------------------------------------------------------------- what differs


def _read(value: bytes) -> AuditRecord:
    try:
        return AuditRecord.from_bytes(value)
    except RecordError as exc:
        raise ReplayError(f"not an audit record: {exc}; see `keyturn audit verify`") from exc


def _number(record: AuditRecord) -> int:
    text = record.chain.removeprefix(PREFIX)
    if not record.chain.startswith(PREFIX) or not text.isascii() or not text.isdigit():
        raise ReplayError(f"{record.chain}/{record.seq}: no chain of a core partition; see `keyturn audit verify`")
    return int(text)


def _difference(record: AuditRecord, value: bytes, decided: bytes | None) -> Divergence:
    if decided is None:
        return Divergence(record.chain, record.seq, "(whole)", f"{record.event} of {record.intent}", NOTHING)
    path, expected, got = next(differences(canonical.decode(value), canonical.decode(decided)))
    return Divergence(record.chain, record.seq, path, _shown(expected), _shown(got))


def differences(expected: Json, got: Json, path: str = "") -> Iterator[tuple[str, Json, Json]]:
    """Where two values differ: the path of each leaf, in the order of names."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for name in sorted({*expected, *got}):
            inner = f"{path}.{name}" if path else name
            if name not in expected or name not in got:
                yield inner, expected.get(name, NOTHING), got.get(name, NOTHING)
            else:
                yield from differences(expected[name], got[name], inner)
    elif isinstance(expected, list) and isinstance(got, list):
        for index in range(max(len(expected), len(got))):
            here = expected[index] if index < len(expected) else NOTHING
            there = got[index] if index < len(got) else NOTHING
            yield from differences(here, there, f"{path}[{index}]")
    elif expected != got or type(expected) is not type(got):
        yield path or "(whole)", expected, got


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else canonical.encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
