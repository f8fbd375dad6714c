"""To the end that was there, over whatever holes transactions leave; never from a place the log does not hold."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas import topics
from schemas.records import IntentStatus, Phase, Source
from streams import connection, reading
from streams.errors import LostPositionError
from streams.producing import Speaker
from streams.reading import Surveyor
from tests.core.test_positions import cut
from tests.house import BOTS, House, until


@pytest_asyncio.fixture
async def reader(realm: House) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = connection.reader(realm.master)
    await connection.start(consumer, realm.master)
    yield consumer
    await consumer.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def writer(realm: House) -> AsyncIterator[AIOKafkaProducer]:
    producer = connection.producer(realm.master, transactional_id="writer")
    await connection.start(producer, realm.master)
    yield producer
    await producer.stop()


async def transaction(producer: AIOKafkaProducer, topic: str, values: list[bytes], *, commits: bool) -> None:
    await producer.begin_transaction()
    for value in values:
        await producer.send_and_wait(topic, value, key=b"key", partition=0)
    await (producer.commit_transaction() if commits else producer.abort_transaction())


async def test_a_read_ends_though_the_log_ends_with_holes(
    realm: House, reader: AIOKafkaConsumer, writer: AIOKafkaProducer
) -> None:
    topic = realm.name(topics.STATUS)
    await transaction(writer, topic, [b"1", b"2"], commits=True)
    await transaction(writer, topic, [b"never"], commits=False)
    await transaction(writer, topic, [b"3"], commits=True)
    await transaction(writer, topic, [b"never", b"never"], commits=False)
    # Two, one, one and two records, and a marker after each transaction.
    place = TopicPartition(topic, 0)
    async with Surveyor(realm.master) as surveyor:

        async def is_over() -> bool:
            return await surveyor.ends([place]) == {place: 10}

        await until(is_over)
    ends = await reading.assign_from_start(reader, [place, TopicPartition(topic, 1)])
    assert ends == {place: 10, TopicPartition(topic, 1): 0}
    found = [record.value async for _, record in reading.read_to_end(reader, ends)]
    assert found == [b"1", b"2", b"3"]
    # And again at once from its end.
    assert [record async for _, record in reading.read_to_end(reader, ends)] == []


async def test_a_read_ends_where_it_was_told_to_though_there_is_more(realm: House, reader: AIOKafkaConsumer) -> None:
    said = await realm.ask(realm.intents(5, BOTS[0]))
    place = TopicPartition(realm.name(topics.INTENTS), said[0].partition)
    await reading.assign_from_start(reader, [place])
    reader.seek(place, said[1].offset)
    upto = {place: said[3].offset}
    assert [record.offset async for _, record in reading.read_to_end(reader, upto)] == [
        1 + said[0].offset,
        said[2].offset,
    ]
    upto = {place: said[4].offset + 1}
    assert [record.offset async for _, record in reading.read_to_end(reader, upto)] == [
        said[3].offset,
        said[4].offset,
    ], "what lay beyond the first end was lost"


async def test_an_owned_position_must_lie_within_the_log(realm: House) -> None:
    await realm.classify(realm.intents(4, BOTS[0]))
    at = next(number for number, end in (await realm.ends(topics.CLASSIFIED)).items() if end == 5)
    await cut(realm, topics.CLASSIFIED, at, 3)
    place = TopicPartition(realm.name(topics.CLASSIFIED), at)
    async with Surveyor(realm.master) as surveyor:
        await surveyor.require_held({place: 3})
        await surveyor.require_held({place: 5})
        for outside in (2, 6):
            with pytest.raises(
                LostPositionError, match=rf"classified/{at}: owned position {outside} is outside \[3, 5\]"
            ):
                await surveyor.require_held({place: outside})


async def test_what_was_said_is_durable_and_its_place_reads_the_same_in_every_installation(realm: House) -> None:
    settings = realm.settings("core")
    [intent] = realm.intents(1)
    record = IntentStatus(intent=intent.id, phase=Phase.PLANNING, at=0)
    sealed = realm.sealed(record, intent.id, "core")
    topic = realm.name(topics.STATUS)
    async with Speaker(settings) as speaker:
        assert await speaker.partitions(topic) == 2
        first = await speaker.say(topic, 1, sealed)
        assert first == Source(topic="status", partition=1, offset=0)
        await speaker.say_all([(topic, 1, sealed)] * 3)
        await speaker.say_all([])
    assert [record.offset for record in await realm.read(topics.STATUS) if record.partition == 1] == [0, 1, 2, 3]
