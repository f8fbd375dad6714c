"""The first record of every input partition: signed by the root key, skipped by everybody.

Without it a reader whose committed offset is still 0 can lose records in a rebalance: its client does not go back to
an offset of 0 (docs/adr/0001). It is written only into an empty partition, before anybody else may write there.
"""

from collections.abc import Iterable
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas import envelope
from schemas.envelope import EnvelopeError
from schemas.record import RecordError
from schemas.records import Genesis
from schemas.signing import KeyRing, Signer
from streams import connection
from streams.cluster import REQUEST_SECONDS, ClusterError
from streams.findings import First, Place
from streams.producing import Speaker
from streams.settings import Settings

KEY: Final = "genesis"
SOURCE: Final = "administration"


async def read_firsts(settings: Settings, wanted: Iterable[Place]) -> dict[Place, First]:
    """What each of these partitions, all of which exist, begins with."""
    partitions = [TopicPartition(*place) for place in wanted]
    if not partitions:
        return {}
    ring = KeyRing(dict(settings.roots))
    consumer = connection.reader(settings)
    await connection.start(consumer, settings)
    try:
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        firsts = {at: First.EXPIRED if begins[at] > 0 else First.EMPTY for at in partitions}
        waiting = {at for at in partitions if begins[at] == 0 and ends[at] > 0}
        for at in partitions:
            consumer.seek(at, begins[at])
        consumer.pause(*(set(partitions) - waiting))
        while waiting:
            fetched = await consumer.getmany(*waiting, timeout_ms=int(REQUEST_SECONDS * 1000), max_records=1)
            if not fetched:
                raise ClusterError(f"{min(waiting).topic}: its first record did not arrive in time")
            for at, batch in fetched.items():
                firsts[at] = _judge(batch[0], settings.realm, ring)
                waiting.discard(at)
                consumer.pause(at)
    except KafkaError as exc:
        raise ClusterError(f"first records: {exc!r}") from exc
    finally:
        await consumer.stop()
    return {(at.topic, at.partition): first for at, first in firsts.items()}


def _judge(record: ConsumerRecord, realm: str, ring: KeyRing) -> First:
    try:
        statement = envelope.unseal(record.headers, record.value, (Genesis,))
        genesis = statement.read(Genesis)
    except (EnvelopeError, RecordError):
        return First.FOREIGN
    fits = ring.verifies(realm, statement.type, statement.value, statement.keyid, statement.sig)
    is_ours = fits and genesis == _genesis(realm, (record.topic, record.partition))
    return First.GENESIS if is_ours else First.FOREIGN


async def write(settings: Settings, wanted: Iterable[Place], signer: Signer) -> None:
    """Begin these empty partitions. When this returns the records are durable."""
    sealed = [
        (place, envelope.seal(_genesis(settings.realm, place), KEY, signer, settings.realm, source=SOURCE))
        for place in wanted
    ]
    try:
        async with Speaker(settings) as speaker:
            await speaker.say_all((topic, partition, record) for (topic, partition), record in sealed)
    except KafkaError as exc:
        raise ClusterError(f"genesis records: {exc!r}") from exc


def _genesis(realm: str, place: Place) -> Genesis:
    return Genesis(realm=realm, topic=place[0], partition=place[1])
