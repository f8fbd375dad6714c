"""The newest row of every intent, as `pending` says it, kept as the bytes that Kafka holds. No I/O.

Rows are verified and decoded when touched, by the keys of the directory then in force.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aiokafka import ConsumerRecord

from schemas import envelope, ids
from schemas.envelope import EnvelopeError, Headers
from schemas.record import RecordError
from schemas.records import PendingApproval, Phase
from schemas.topics import PROGRESS_KEY
from schemas.world import World
from streams.errors import NumberGapError

log = logging.getLogger("keyturn.rows")

DECODED: Final = 2048
"""How many verified rows are kept decoded."""


class UnreadableError(Exception):
    """The row's bytes are no row."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A row as it is known without reading it."""

    intent_id: str
    #: Another one whenever the row is another one; opaque.
    version: str


@dataclass(frozen=True, slots=True)
class Held:
    """A row as it was read, and whether the core's signature on it fits."""

    row: PendingApproval
    is_verified: bool
    version: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """A row as it lies on Kafka."""

    value: bytes
    headers: Headers
    log_time: int
    version: str
    phase: Phase | None


class Rows:
    """The newest row of every intent, as bytes."""

    def __init__(self) -> None:
        self._rows: dict[str, _Stored] = {}
        self._decoded: OrderedDict[str, Held] = OrderedDict()
        self._numbers: dict[int, int] = {}

    def take(self, record: ConsumerRecord) -> str | None:
        """Remember one record of `pending`; returns the intent whose row changed, if it is a row."""
        self._require_forward(record)
        if record.key is None or record.key == PROGRESS_KEY.encode():
            return None
        intent_id = str(record.key, "ascii", "replace")
        try:
            ids.split(intent_id)
        except ids.IntentIdError:
            log.error("a key of no intent", extra={"partition": record.partition, "offset": record.offset})  # noqa: TRY400
            return None
        if record.value is None:
            self._rows.pop(intent_id, None)
        else:
            version = f"{record.partition}-{record.offset}"
            hint = _phase(record.headers)
            self._rows[intent_id] = _Stored(record.value, record.headers, record.timestamp, version, hint)
        self._decoded.pop(intent_id, None)
        return intent_id

    def _require_forward(self, record: ConsumerRecord) -> None:
        """Law 11, as far as compaction leaves it: superseded rows may be gone, but nothing is ever said twice."""
        number = envelope.number_of(record.headers)
        last = self._numbers.get(record.partition, -1)
        if number is None or number <= last:
            raise NumberGapError(
                f"{record.topic}/{record.partition}: number {number} after {last} at offset {record.offset}: "
                "somebody else wrote there, or the log was replaced"
            )
        self._numbers[record.partition] = number

    def row(self, intent_id: str, world: World) -> Held | None:
        """The row, verified against the keys of the directory in force."""
        if (decoded := self._decoded.get(intent_id)) is not None:
            self._decoded.move_to_end(intent_id)
            return decoded
        stored = self._rows.get(intent_id)
        if stored is None:
            return None
        held = _read(intent_id, stored, world)
        if held.is_verified:
            self._decoded[intent_id] = held
            if len(self._decoded) > DECODED:
                self._decoded.popitem(last=False)
        return held

    def listed(self, phases: frozenset[Phase]) -> Iterator[Listed]:
        """The rows whose hint is one of these phases, or that have none."""
        for intent_id, stored in self._rows.items():
            if stored.phase is None or stored.phase in phases:
                yield Listed(intent_id, stored.version)


def _phase(headers: Headers) -> Phase | None:
    hint = dict(headers).get("phase")
    try:
        return Phase(str(hint, "ascii")) if hint is not None else None
    except ValueError:
        return None


def _read(intent_id: str, stored: _Stored, world: World) -> Held:
    try:
        statement = envelope.unseal(stored.headers, stored.value, (PendingApproval,))
        row = statement.read(PendingApproval)
    except (EnvelopeError, RecordError) as exc:
        raise UnreadableError(f"the row of {intent_id} cannot be read: {exc}") from exc
    if row.intent_id != intent_id:
        raise UnreadableError(f"the row of {intent_id} is another intent's")
    is_verified = world.authority.refuses(statement, stored.log_time) is None
    return Held(row, is_verified, stored.version)
