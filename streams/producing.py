"""Saying a signed record: to a named partition, `acks=all`; when `say` returns the record is durable."""

import asyncio
from collections.abc import Iterable
from typing import Self

from aiokafka import AIOKafkaProducer

from schemas.envelope import Sealed
from schemas.records import Source
from streams import connection
from streams.settings import Settings


class Speaker:
    """One idempotent producer of a role."""

    def __init__(self, settings: Settings) -> None:
        """Not started: `async with`."""
        self._settings = settings
        self._producer: AIOKafkaProducer = connection.producer(settings)

    async def __aenter__(self) -> Self:
        await connection.start(self._producer, self._settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def say(self, topic: str, partition: int, sealed: Sealed) -> Source:
        """Write one record; returns where it stands. Raises KafkaError when it is not known to be durable."""
        sent = await self._producer.send_and_wait(
            topic, sealed.value, key=sealed.key, partition=partition, headers=list(sealed.headers)
        )
        # By its name on the map: places on the log read the same in every installation.
        name = topic.removeprefix(self._settings.prefix)
        return Source(topic=name, partition=sent.partition, offset=sent.offset)

    async def say_all(self, records: Iterable[tuple[str, int, Sealed]]) -> None:
        """Write many at once; returns when all are durable."""
        futures = [
            await self._producer.send(
                topic, sealed.value, key=sealed.key, partition=partition, headers=list(sealed.headers)
            )
            for topic, partition, sealed in records
        ]
        if futures:
            await asyncio.gather(*futures)

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(await self._producer.partitions_for(topic))
