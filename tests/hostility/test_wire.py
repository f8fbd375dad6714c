"""What a stranger's client can do to a batch: none of it stops a reader (law 9)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka import Producer

from schemas import topics
from schemas.records import Refusal, Source
from streams.cluster import _configuration
from tests.hostility import wire
from tests.house import House, Process, bot_of
from tests.intake.answers import answered


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def intake(realm: House) -> AsyncIterator[Process]:
    async with realm.run("intake") as running:
        await running.ready()
        yield running
        assert await running.stop() == 0
        assert not running.logged("fail-stop")


def sent(realm: House, codec: str) -> list[Source]:
    """Intents as an agent with another client sends them: twenty in a packed batch."""
    intents = realm.intents(20, bot_of(0))
    settings = realm.settings(f"agent-{bot_of(0)}")
    producer = Producer(_configuration(settings) | {"compression.type": codec, "linger.ms": 50})
    sources: list[Source] = []
    failures: list[LibrdkafkaError] = []

    def delivered(error: LibrdkafkaError | None, message: object) -> None:
        if error is not None:
            failures.append(error)
        else:
            sources.append(Source(topic=topics.INTENTS.name, partition=0, offset=message.offset()))  # type: ignore[attr-defined]

    for intent in intents:
        sealed = realm.sealed(intent, intent.id, intent.subject.id)
        name = realm.name(topics.INTENTS)
        producer.produce(name, sealed.value, sealed.key, 0, headers=list(sealed.headers), on_delivery=delivered)
    assert producer.flush(20) == 0
    assert not failures
    return sources


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_packed_intents_are_answered_whatever_they_are_packed_with(
    realm: House, intake: Process, codec: str
) -> None:
    sources = await asyncio.to_thread(sent, realm, codec)
    found = await answered(realm, sources)
    assert all("classification" in found[source][0] for source in sources)


@pytest.mark.parametrize("codec", [0, 1], ids=["plain", "packed"])
@pytest.mark.parametrize("name", [b"\xff\xfe", b"", b"\x00", b"sig\xc3", b"x" * 40_000])
async def test_a_header_of_any_name_is_read_and_its_neighbours_are_answered(
    realm: House, intake: Process, name: bytes, codec: int
) -> None:
    before, odd, after = realm.intents(3, bot_of(0))
    [first] = await realm.ask([before])
    sealed = realm.sealed(odd, odd.id, odd.subject.id)
    headers = [*((key.encode(), value) for key, value in sealed.headers), (name, b"x"), (name, None)]
    data = wire.batch(sealed.key, sealed.value, headers, codec=codec)
    source = await wire.write(realm.settings(f"agent-{odd.subject.id}"), realm.name(topics.INTENTS), 0, data)
    [last] = await realm.ask([after])
    found = await answered(realm, [first, source, last])
    # An unknown header changes nothing: the intent is its signed bytes.
    assert all("classification" in found[each][0] for each in (first, source, last))


async def test_of_a_batch_with_a_nameless_header_inside_every_record_is_answered_once(
    realm: House, intake: Process
) -> None:
    settings = realm.settings(f"agent-{bot_of(0)}")
    data = wire.batch_of([(b"k", b"v", ()), (b"k", b"v", ((b"\xff", b"x"),)), (b"k", b"v", ())])
    first = await wire.write(settings, realm.name(topics.INTENTS), 0, data)
    sources = [first.model_copy(update={"offset": first.offset + number}) for number in range(3)]
    found = await answered(realm, sources)
    assert [[each["refusal"] for each in found[source]] for source in sources] == [[Refusal.MALFORMED]] * 3


async def test_what_unpacks_to_more_than_a_record_may_be_is_not_taken(realm: House, intake: Process) -> None:
    settings = realm.settings(f"agent-{bot_of(0)}")
    bomb = wire.batch(b"k", b"0" * (16 << 20), (), codec=1)
    assert len(bomb) < 20_000
    with pytest.raises(MessageSizeTooLargeError):
        await wire.write(settings, realm.name(topics.INTENTS), 0, bomb)


@pytest.mark.parametrize("place", [20, 65, -1], ids=["its checksum", "a record", "its end"])
async def test_a_torn_batch_is_not_taken(realm: House, intake: Process, place: int) -> None:
    data = bytearray(wire.batch(b"k", b"value", ((b"a", b"b"),)))
    data[place] ^= 0x55
    with pytest.raises(KafkaError):
        await wire.write(realm.settings(f"agent-{bot_of(0)}"), realm.name(topics.INTENTS), 0, bytes(data))
