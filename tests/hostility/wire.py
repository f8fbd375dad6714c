"""Record batches as no honest client writes them, sent with a principal's own rights."""

from collections.abc import Iterable, Sequence
from typing import Self

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from schemas.records import Source
from streams.connection import client_arguments
from streams.settings import Settings

Headers = Sequence[tuple[bytes, bytes | None]]
Written = tuple[bytes | None, bytes | None, Headers]


class _Name(str):
    """A header name of any bytes at all."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        made = super().__new__(cls, raw.decode("latin-1"))
        made.raw = raw
        return made

    def encode(self, *_: str) -> bytes:  # type: ignore[override]
        return self.raw


def batch(key: bytes | None, value: bytes | None, headers: Headers, *, codec: int = 0) -> bytes:
    """One record; `codec` 1 is gzip."""
    return batch_of([(key, value, headers)], codec=codec)


def batch_of(records: Iterable[Written], *, codec: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 0, key, value, [(_Name(name), data) for name, data in headers])
    return bytes(builder.build())


async def write(settings: Settings, topic: str, partition: int, data: bytes) -> Source:
    """This very batch; where its first record stands. KafkaError when the broker does not take it."""
    client = AIOKafkaClient(**client_arguments(settings))
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        request = ProduceRequest(
            transactional_id=None, required_acks=-1, timeout=20_000, topics=[(topic, [(partition, data)])]
        )
        response = await client.send(leader, request)
        _, code, offset, *_ = response.topics[0][1][0]
        if code:
            raise for_code(code)
        return Source(topic=topic.removeprefix(settings.prefix), partition=partition, offset=offset)
    finally:
        await client.close()
