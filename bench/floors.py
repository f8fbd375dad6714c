"""What the same client does on the same Kafka with no product around it: the floors nothing of ours can go below."""

import asyncio
import time

from aiokafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from bench.figures import Board, rate, spread
from bench.stand import Stand
from streams import cluster, connection

OUTPUTS = 3
BATCH = 500


async def run(stand: Stand, board: Board, count: int, singles: int) -> None:
    """Produce, consume, transactions; in the bench's own process."""
    board.title(f"floors: bare aiokafka on the same Kafka, {count:,} records of the same size and headers")
    settings = stand.home.master
    name = f"{settings.prefix}floor"
    admin = AdminClient(cluster._configuration(settings))  # noqa: SLF001 - what every client of ours is given
    for future in admin.create_topics(
        [
            NewTopic(each, num_partitions=1, replication_factor=1, config={"message.timestamp.type": "LogAppendTime"})
            for each in (name, f"{name}.out")
        ]
    ).values():
        await asyncio.wrap_future(future)
    sealed = stand.sealed(stand.intents(count))
    place = TopicPartition(name, 0)
    producer = connection.producer(settings)
    await connection.start(producer, settings)
    begun = time.monotonic()
    futures = [
        await producer.send(name, each.value, key=each.key, partition=0, headers=list(each.headers)) for each in sealed
    ]
    await asyncio.gather(*futures)
    board.say("produce, acks=all, idempotent", rate(count, 1000 * (time.monotonic() - begun)))
    await producer.stop()

    consumer = connection.reader(settings)
    await connection.start(consumer, settings)
    consumer.assign([place])
    consumer.seek(place, 0)
    begun, seen = time.monotonic(), 0
    while seen < count:
        seen += sum(map(len, (await consumer.getmany(timeout_ms=250)).values()))
    board.say("consume, read_committed", rate(count, 1000 * (time.monotonic() - begun)))

    producer = connection.producer(settings, transactional_id=f"{settings.prefix}floor")
    await connection.start(producer, settings)
    consumer.seek(place, 0)
    begun, seen, commits = time.monotonic(), 0, 0
    while seen < count:
        found = [r for batch in (await consumer.getmany(timeout_ms=250, max_records=BATCH)).values() for r in batch]
        if found:
            async with producer.transaction():
                for record in found:
                    for _ in range(OUTPUTS):
                        await producer.send(f"{name}.out", record.value, key=record.key, partition=0)
            seen, commits = seen + len(found), commits + 1
    board.say(
        f"consume, {OUTPUTS} records each, transactions",
        rate(count, 1000 * (time.monotonic() - begun)),
        f"{commits} commits",
    )
    took = []
    for each in sealed[:singles]:
        begun = time.monotonic()
        async with producer.transaction():
            await producer.send(f"{name}.out", each.value, key=each.key, partition=0)
        took.append(1000 * (time.monotonic() - begun))
    board.say("one record, one transaction", spread(took), f"{len(took)} one by one")
    await producer.stop()
    await consumer.stop()
