"""What the log says of each intent of each requester: asked, quarantined, or with a row. No I/O, no clock.

Everything here was read from Kafka, so every gateway process, restarted or one of many, knows the same. What was asked
counts only if its signature fits: a stranger's record under somebody's id is that stranger's.
"""

import base64
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aiokafka import ConsumerRecord

from schemas import envelope, ids, topics
from schemas.envelope import EnvelopeError
from schemas.record import RecordError, Statement
from schemas.records import Intent, Quarantined, Source
from schemas.world import World
from streams.rows import Held, Rows

KEPT_MS: Final = ids.WINDOW_BEFORE_MS + ids.FORGET_MARGIN_MS
"""What was asked this long ago has an answer, or its id is too old for one."""
QUARANTINES_EACH: Final = 4


class Marks(NamedTuple):
    """How far something was read, as the next offset of each topic. All of one requester lies in one partition."""

    pending: int = 0
    intents: int = 0
    quarantine: int = 0

    def joined(self, other: "Marks") -> "Marks":
        """The further of both, topic by topic."""
        return Marks(*map(max, self, other))

    def is_within(self, other: "Marks") -> bool:
        """Whether everything here was read there too."""
        return all(mine <= theirs for mine, theirs in zip(self, other, strict=True))


@dataclass(frozen=True, slots=True)
class Asked:
    """An intent on the log, signed by whom it names, that has no row yet."""

    statement: Statement
    place: Source
    log_time: int


@dataclass(slots=True)
class Known:
    """All that the log says of one intent."""

    asked: Asked | None = None
    quarantined: tuple[Quarantined, ...] = ()
    #: Log time of the newest quarantine.
    quarantined_at: int = 0
    has_row: bool = False
    #: Where its newest records lie, each as the offset after it.
    marks: Marks = field(default_factory=Marks)

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to say."""
        return self.asked is None and not self.quarantined and not self.has_row


class Ledger:
    """Everything known, by intent."""

    def __init__(self) -> None:
        self.rows = Rows()
        self._known: dict[str, Known] = {}
        self._of: dict[str, dict[str, None]] = {}
        #: How far each partition was read.
        self._read: dict[int, Marks] = {}
        #: Ids without a row, with the log time they came at, oldest first.
        self._waiting: OrderedDict[str, int] = OrderedDict()

    # ------------------------------------------------------------ hearing

    def take_row(self, record: ConsumerRecord) -> str | None:
        """One record of `pending`; the intent it is about, if it is about one."""
        intent_id = self.rows.take(record)
        self._reach(record.partition, Marks(pending=record.offset + 1))
        if intent_id is None:
            return None
        if record.value is None:
            self._forget(intent_id)
            return intent_id
        known = self._open(intent_id)
        known.has_row, known.asked = True, None
        # What was asked is in the row now: its own place would be known to those who saw it, and to nobody else.
        known.marks = Marks(pending=record.offset + 1, quarantine=known.marks.quarantine)
        self._waiting.pop(intent_id, None)
        return intent_id

    def take_intent(self, record: ConsumerRecord, world: World) -> str | None:
        """One record of `intents`; the intent that was asked by it, if it is new and really its requester's."""
        self._reach(record.partition, Marks(intents=record.offset + 1))
        intent_id = _intent_id(record.key)
        if intent_id is None or self._is_answered(intent_id):
            return None
        try:
            statement = envelope.unseal(record.headers, record.value, topics.INTENTS.types)
        except EnvelopeError:
            return None  # intake says so, in quarantine
        if statement.type != Intent.TYPE or statement.body.get("id") != intent_id:
            return None
        if world.authority.refuses(statement, record.timestamp) is not None:
            return None
        place = Source(topic=topics.INTENTS.name, partition=record.partition, offset=record.offset)
        return intent_id if self.ask(intent_id, Asked(statement, place, record.timestamp)) else None

    def ask(self, intent_id: str, asked: Asked) -> bool:
        """This was asked, at this place. Whether that is news: the first body under an id counts."""
        known = self._open(intent_id)
        if known.has_row or known.asked is not None:
            return False
        known.asked = asked
        known.marks = known.marks.joined(Marks(intents=asked.place.offset + 1))
        self._waiting[intent_id] = asked.log_time
        return True

    def take_quarantined(self, record: ConsumerRecord, world: World) -> str | None:
        """One record of `quarantine`; the intent whose record could not be read, if it says which."""
        self._reach(record.partition, Marks(quarantine=record.offset + 1))
        try:
            statement = envelope.unseal(record.headers, record.value, topics.QUARANTINE.types)
            if world.authority.refuses(statement, record.timestamp) is not None:
                return None
            found = statement.read(Quarantined)
        except (EnvelopeError, RecordError):
            return None
        intent_id = self._about(found)
        if intent_id is None:
            return None
        known = self._open(intent_id)
        known.quarantined = (*known.quarantined, found)[-QUARANTINES_EACH:]
        known.quarantined_at = record.timestamp
        known.marks = known.marks.joined(Marks(quarantine=record.offset + 1))
        if not known.has_row:
            self._waiting.setdefault(intent_id, record.timestamp)
        return intent_id

    def forget_before(self, log_time: int) -> None:
        """Drop what has had no row for so long that none will come."""
        while self._waiting and next(iter(self._waiting.values())) < log_time:
            intent_id, _ = self._waiting.popitem(last=False)
            self._forget(intent_id)

    # ------------------------------------------------------------ looking

    def known(self, intent_id: str) -> Known:
        """What is known of it; nothing, if nothing is."""
        return self._known.get(intent_id) or Known()

    def row(self, intent_id: str, world: World) -> Held | None:
        """Its row. UnreadableError when its bytes are no row."""
        return self.rows.row(intent_id, world)

    def ids_of(self, requester: str) -> Iterator[str]:
        """Every intent of this requester, in no order."""
        yield from self._of.get(requester, ())

    def read_to(self, partition: int) -> Marks:
        """How far this partition was read."""
        return self._read.get(partition, Marks())

    # ------------------------------------------------------------ keeping

    def _is_answered(self, intent_id: str) -> bool:
        known = self._known.get(intent_id)
        return known is not None and known.has_row

    def _open(self, intent_id: str) -> Known:
        found = self._known.get(intent_id)
        if found is None:
            found = self._known[intent_id] = Known()
            self._of.setdefault(ids.requester_of(intent_id), {})[intent_id] = None
        return found

    def _forget(self, intent_id: str) -> None:
        self._known.pop(intent_id, None)
        requester = ids.requester_of(intent_id)
        own = self._of.get(requester, {})
        own.pop(intent_id, None)
        if not own:
            self._of.pop(requester, None)

    def _reach(self, partition: int, marks: Marks) -> None:
        self._read[partition] = self.read_to(partition).joined(marks)

    def _about(self, found: Quarantined) -> str | None:
        """Whose intent a quarantined record was to be: by its Kafka key, where that could be kept."""
        if found.source.topic != topics.INTENTS.name or found.key is None:
            return None
        return _intent_id(base64.b64decode(found.key))


def _intent_id(key: bytes | None) -> str | None:
    text = str(key or b"", "ascii", "replace")
    try:
        ids.split(text)
    except ids.IntentIdError:
        return None
    return text
