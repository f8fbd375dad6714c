"""A log that was cut, torn or written by a stranger stops the core by name: nothing is lost in silence."""

import asyncio
import contextlib
import signal

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]

from broker.core.trail import Chain, key_of
from schemas import topics
from schemas.records import ChainHead, Phase, Refusal
from schemas.topics import Topic
from streams import connection
from streams.cluster import _configuration
from tests.core.laws import assert_whole
from tests.hostility.commands import keyturn
from tests.house import House, NewRealm, bot_of, now, until


async def cut(realm: House, topic: Topic, partition: int, before: int) -> None:
    """Remove the records before this offset, as retention would."""
    client = AdminClient(_configuration(realm.master))
    futures = client.delete_records([TopicPartition(realm.name(topic), partition, before)])
    for future in futures.values():
        await asyncio.wrap_future(future)


class TakenBackError(Exception):
    """Aborts a transaction."""


async def tear(realm: House, topic: Topic, partition: int, *, is_aborted: bool = False) -> None:
    """Write a transaction, whose end takes an offset of its own: a hole. An aborted one's records are in it, too."""
    end = (await realm.ends(topic))[partition]
    producer: AIOKafkaProducer = connection.producer(realm.master, transactional_id=f"{realm.folder.name}-stranger")
    await connection.start(producer, realm.master)
    try:
        with contextlib.suppress(TakenBackError):
            async with producer.transaction():
                await producer.send_and_wait(realm.name(topic), b"{}", key=b"stranger", partition=partition)
                if is_aborted:
                    raise TakenBackError
    finally:
        await producer.stop()

    async def is_over() -> bool:
        return (await realm.ends(topic))[partition] == end + 2

    await until(is_over)


async def test_a_hole_in_an_input_stops_the_core_by_name(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        [first, second] = realm.intents(2, bot_of(0))
        await realm.classify([first])
        await tear(realm, topics.CLASSIFIED, 0)
        await realm.classify([second])
        async with realm.run("core") as core:
            await realm.until_row(first, lambda row: row.phase is Phase.PLANNING)
            why = await core.failed()
        assert "GapError" in why
        assert "classified/0" in why
        assert "offset 4 where 3 was due" in why
        assert second.id not in await realm.rows()
        trail = await assert_whole(realm)
        # What the stranger wrote is a record like any other: unreadable, said once.
        [refused] = [each for each in trail if each.source.offset == 2 and each.source.topic == topics.CLASSIFIED.name]
        assert refused.refusal is Refusal.MALFORMED


@pytest.mark.parametrize("is_aborted", [False, True], ids=["a marker", "records that were taken back"])
async def test_a_hole_with_nothing_after_it_stops_the_core_by_name(new_realm: NewRealm, is_aborted: bool) -> None:
    async with new_realm() as realm:
        [intent] = realm.intents(1, bot_of(0))
        async with realm.run("core") as core:
            await core.ready()
            await tear(realm, topics.CLASSIFIED, 0, is_aborted=is_aborted)
            why = await core.failed()
        due = 1 if is_aborted else 2
        assert "GapError" in why
        assert "classified/0" in why
        assert f"no record before offset 3 where {due} was due" in why
        # And whoever declares it finds the core going on.
        place = f"classified/0/{due}"
        said = await keyturn(realm, "core", "skip", place, "--reason", "a stranger wrote here", "--wait", "0")
        assert said.code == 75, said
        async with realm.run("core") as core:
            await core.ready()
            await realm.classify([intent])
            await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0


async def test_records_that_are_gone_before_they_were_decided_stop_the_core_by_name(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        intents = realm.intents(4, bot_of(0))
        async with realm.run("core") as core:
            await core.ready()
            await realm.classify(intents[:1])
            await realm.until_row(intents[0], lambda row: row.phase is Phase.PLANNING)
            # While it runs, or stands still for a while.
            core.signal(signal.SIGSTOP)
            # Its fetch that is under way is answered with the first of these, and no more.
            await realm.classify(intents[1:2])
            await realm.classify(intents[2:3])
            await cut(realm, topics.CLASSIFIED, 0, 4)
            core.signal(signal.SIGCONT)
            why = await core.failed()
            assert "LostPositionError" in why
        # And at a start.
        async with realm.run("core") as core:
            why = await core.failed()
        assert "LostPositionError" in why
        assert "classified/0: owned position 3 is outside [4, 4]" in why


async def test_a_trail_that_goes_on_without_its_core_stops_it_by_name(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        [intent] = realm.intents(1, bot_of(1))
        async with realm.run("core") as core:
            await core.ready()
            await realm.classify([intent])
            await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0
        last = [each for each in await realm.trail() if each.chain == "core-1"][-1]
        forged = last.model_copy(update={"seq": last.seq + 1, "prev": last.digest})
        await realm.say(topics.AUDIT, forged, by="core", key=key_of(forged), partition=0)
        async with realm.run("core") as core:
            why = await core.failed()
        assert "LostPositionError" in why
        assert f"chain core-1 ends with {last.seq + 1}" in why
        assert f"its core remembers {last.seq}" in why


async def test_rows_that_are_gone_while_their_trail_is_not_stop_the_core_by_name(new_realm: NewRealm) -> None:
    async with new_realm(()) as realm:
        chain = Chain(realm.master.realm, "core-0", ChainHead())
        source = await realm.say(topics.CLASSIFIED, realm.classified(realm.intents(1)[0]), by="intake")
        lost = chain.of_refused_input(source, now(), b"", Refusal.MALFORMED, "long ago", realm.world)
        await realm.say(topics.AUDIT, lost, by="core", key=key_of(lost), partition=0)
        async with realm.run("core") as core:
            why = await core.failed()
        assert "LostPositionError" in why
        assert "remembers 0" in why
