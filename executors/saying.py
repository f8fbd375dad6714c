"""What an executor says: reports, signed with its own key, and what it puts aside. Each is durable when said."""

import logging

from aiokafka import ConsumerRecord

from schemas import envelope, ids, quarantine, topics
from schemas.partition import partition_of
from schemas.record import Record, Statement, state
from schemas.records import Refusal, Source
from schemas.signing import Signer
from streams.producing import Speaker
from streams.settings import Settings

log = logging.getLogger("keyturn.executor")


class Voice:
    """One executor's words."""

    def __init__(self, settings: Settings, executor: str, signer: Signer, speaker: Speaker, partitions: int) -> None:
        """`partitions` is the realm's P."""
        self._realm = settings.realm
        self._names = settings.names
        self._source = f"executor-{executor}"
        self._signer = signer
        self._speaker = speaker
        self._partitions = partitions
        self._reports = settings.names.of(topics.REPORTS)
        self._quarantine = settings.names.of(topics.QUARANTINE)

    def sign(self, record: Record) -> Statement:
        """The record, signed; not said yet."""
        return state(record, self._signer, self._realm)

    async def report(self, record: Record, intent_id: str) -> Source:
        """Say a record about this intent on `reports`; where it stands."""
        return await self.report_signed(self.sign(record), intent_id)

    async def report_signed(self, statement: Statement, intent_id: str) -> Source:
        """Say what was signed before, byte for byte; where it stands."""
        sealed = envelope.reseal(statement, intent_id, self._realm, source=self._source)
        partition = partition_of(ids.requester_of(intent_id), self._partitions)
        return await self._speaker.say(self._reports, partition, sealed)

    async def put_aside(self, record: ConsumerRecord, refusal: Refusal, reason: str) -> None:
        """Quarantine, with an alarm: nobody but the core may speak here, and it speaks plainly (law 9)."""
        source = Source(topic=self._names.plain(record.topic), partition=record.partition, offset=record.offset)
        log.critical(
            "record refused; nothing was done",
            extra={"topic": source.topic, "partition": source.partition, "offset": source.offset, "reason": reason},
        )
        kept = quarantine.put_aside(
            source, self._source, refusal, reason, key=record.key, value=record.value, headers=tuple(record.headers)
        )
        sealed = envelope.seal(kept, quarantine.key_of(source), self._signer, self._realm, source=self._source)
        await self._speaker.say(self._quarantine, record.partition, sealed)
