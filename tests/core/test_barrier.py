"""Law 4 on a real log: what was acknowledged wins over a claim that the core has in its hands already."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from broker.core import partition
from broker.core.partition import CorePartition, Shared
from schemas import topics
from schemas.record import state
from schemas.records import (
    Channel,
    Claim,
    Decision,
    ForwardedWithdrawal,
    Intent,
    PendingApproval,
    Phase,
    Plan,
    Refusal,
    Reversibility,
    Source,
    Verdict,
)
from streams import connection, reading
from streams.errors import FencedError, GapError
from streams.producing import Speaker
from streams.reading import Surveyor
from streams.settings import Settings
from tests.broker.builders import DIGEST, REALM, account, evidence, signer
from tests.core.laws import assert_whole
from tests.house import PARTITIONS, SECONDS, House, bot_of, now


def a_plan(row: PendingApproval, intent: Intent) -> Plan:
    assert row.round is not None
    return Plan(
        round=row.round,
        intent=state(intent, signer(intent.subject.id), REALM).digest,
        executor="s3",
        manifest=1,
        summary="copies",
        measures={"objects": 1, "public": False},
        reversibility=Reversibility.EXACT,
        undo="delete the copy",
        planned_at=now(),
    )


def a_decision(row: PendingApproval, verdict: Verdict, who: str) -> Decision:
    assert row.question is not None
    return Decision(
        intent=row.intent_id,
        question=row.question.digest,
        verdict=verdict,
        account=account(who),
        channel=Channel.API,
        evidence=evidence(Channel.API, now()),
        card=DIGEST,
    )


def a_claim(row: PendingApproval) -> Claim:
    assert row.question is not None
    return Claim(intent=row.intent_id, question=row.question.digest, executor="s3", instance="s3-one")


async def taken_back(house: House, intent: Intent) -> Source:
    forwarded = ForwardedWithdrawal(
        withdrawal=state(house.withdrawal(intent), signer(intent.subject.id), REALM),
        source=Source(topic="intents", partition=0, offset=1),
        asked_at=now(),
        versions=house.world.versions,
    )
    return await house.say(topics.CLASSIFIED, forwarded, by="intake", key=intent.id)


async def approved(house: House, intents: Sequence[Intent]) -> dict[str, PendingApproval]:
    """Every one of them may be claimed; a core runs."""
    await house.classify(intents)
    await house.until_row(intents[-1], lambda row: row.phase is Phase.PLANNING)
    rows = await house.rows()
    for intent in intents:
        await house.say(topics.REPORTS, a_plan(rows[intent.id], intent), by="s3", key=intent.id)
    await house.until_row(intents[-1], lambda row: row.phase is not Phase.PLANNING)
    rows = await house.rows()
    for intent in intents:
        if rows[intent.id].phase is Phase.PENDING:
            await house.say(topics.DECISIONS, a_decision(rows[intent.id], Verdict.APPROVE, "dan"), by="api")
    await house.until_row(intents[-1], lambda row: row.phase is Phase.APPROVED)
    rows = await house.rows()
    return {intent.id: rows[intent.id] for intent in intents}


@pytest.mark.parametrize("is_claimed_first", [False, True], ids=["before the claim", "after the claim"])
async def test_what_is_acknowledged_while_the_core_is_down_wins_over_a_claim_in_whatever_order(
    realm: House, is_claimed_first: bool
) -> None:
    withdrawn = realm.intents(5, bot_of(0), "s3.list")
    denied = realm.intents(5, bot_of(0), "s3.copy")
    async with realm.run("core") as core:
        await core.ready()
        rows = await approved(realm, [*withdrawn, *denied])
        assert await core.stop() == 0

    claims = []
    for intent in (*withdrawn, *denied):
        row = rows[intent.id]
        if is_claimed_first:
            claims.append(await realm.say(topics.REPORTS, a_claim(row), by="s3"))
        if intent in withdrawn:
            await taken_back(realm, intent)
        else:
            await realm.say(topics.DECISIONS, a_decision(row, Verdict.DENY, "eve"), by="api")
        if not is_claimed_first:
            claims.append(await realm.say(topics.REPORTS, a_claim(row), by="s3"))
    async with realm.run("core") as core:
        await core.ready()
        await realm.decided(topics.REPORTS, *claims)
        assert await core.stop() == 0

    after = await realm.rows()
    assert {after[intent.id].phase for intent in withdrawn} == {Phase.WITHDRAWN}
    assert {after[intent.id].phase for intent in denied} == {Phase.DENIED}
    trail = await assert_whole(realm)
    assert [each.refusal for each in trail if each.source in claims] == [Refusal.FINAL] * len(claims)


async def test_what_is_acknowledged_before_a_claim_is_written_wins_while_the_core_runs(realm: House) -> None:
    withdrawn = realm.intents(10, bot_of(1), "s3.list")
    denied = realm.intents(10, bot_of(1), "s3.copy")
    claimed = realm.intents(5, bot_of(1), "s3.list")
    async with realm.run("core") as core:
        await core.ready()
        rows = await approved(realm, [*withdrawn, *denied, *claimed])
        claims = []
        for intent in (*withdrawn, *denied, *claimed):
            if intent in withdrawn:
                await taken_back(realm, intent)
            elif intent in denied:
                await realm.say(topics.DECISIONS, a_decision(rows[intent.id], Verdict.DENY, "eve"), by="api")
            claims.append(await realm.say(topics.REPORTS, a_claim(rows[intent.id]), by="s3"))
        await realm.decided(topics.REPORTS, *claims)
        assert await core.stop() == 0

    after = await realm.rows()
    assert {after[intent.id].phase for intent in withdrawn} == {Phase.WITHDRAWN}
    assert {after[intent.id].phase for intent in denied} == {Phase.DENIED}
    assert {after[intent.id].phase for intent in claimed} == {Phase.EXECUTING}
    trail = await assert_whole(realm)
    refused = [each.refusal for each in trail if each.source in claims]
    assert refused == [Refusal.FINAL] * 20 + [None] * 5


@dataclass
class SlowReader:
    """A reader that delivers one topic a few polls later than all others."""

    consumer: AIOKafkaConsumer
    slow: TopicPartition
    polls: int = 3
    kept: dict[TopicPartition, list[Any]] = field(default_factory=dict)

    async def getmany(self, *places: TopicPartition, **how: Any) -> dict[TopicPartition, list[Any]]:
        found: dict[TopicPartition, list[Any]] = await self.consumer.getmany(*places, **how)
        if self.slow in found:
            self.kept.setdefault(self.slow, []).extend(found.pop(self.slow))
        if self.kept:
            self.polls -= 1
        if self.kept and self.polls <= 0:
            found |= self.kept
            self.kept = {}
        return found

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.consumer.seek(place, offset)

    async def position(self, place: TopicPartition) -> int:
        kept = self.kept.get(place)
        return int(kept[0].offset) if kept else await self.consumer.position(place)


@pytest.mark.parametrize("topic", [topics.CLASSIFIED, topics.DECISIONS], ids=["a withdrawal", "a deny"])
async def test_a_claim_that_was_fetched_first_waits_for_what_its_reader_is_slow_to_deliver(
    realm: House, topic: topics.Topic
) -> None:
    [intent] = realm.intents(1, bot_of(0), "s3.copy")
    async with realm.run("core") as core:
        await core.ready()
        row = (await approved(realm, [intent]))[intent.id]
        assert await core.stop() == 0
    if topic is topics.CLASSIFIED:
        await taken_back(realm, intent)
    else:
        await realm.say(topic, a_decision(row, Verdict.DENY, "eve"), by="api")
    claim = await realm.say(topics.REPORTS, a_claim(row), by="s3")

    settings = realm.settings("core")
    producer = connection.producer(settings, transactional_id=f"{settings.prefix}core-0")
    consumer = connection.reader(settings)
    async with Speaker(settings) as speaker, Surveyor(settings) as surveyor:
        await connection.start(producer, settings)
        await connection.start(consumer, settings)
        part = CorePartition(settings, 0, Shared(PARTITIONS, settings.signer(), speaker, surveyor, now))
        await part._restore()
        reading.assign_at(consumer, part._positions())
        slow = SlowReader(consumer, TopicPartition(realm.name(topic), 0))
        async with asyncio.timeout(SECONDS):
            while part._order.positions[topics.REPORTS.name] <= claim.offset:
                await part._turn(slow, producer)
        await consumer.stop()
        await producer.stop()

    ended = await realm.row(intent)
    assert ended is not None
    assert ended.phase is (Phase.WITHDRAWN if topic is topics.CLASSIFIED else Phase.DENIED)
    trail = await assert_whole(realm)
    assert [each.refusal for each in trail if each.source == claim] == [Refusal.FINAL]


async def test_a_claim_does_not_wait_in_silence_for_what_its_reader_never_delivers(
    realm: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(partition, "STALL_POLLS", 5)
    [intent] = realm.intents(1, bot_of(0), "s3.copy")
    async with realm.run("core") as core:
        await core.ready()
        row = (await approved(realm, [intent]))[intent.id]
        assert await core.stop() == 0
    denied = await realm.say(topics.DECISIONS, a_decision(row, Verdict.DENY, "eve"), by="api")
    claim = await realm.say(topics.REPORTS, a_claim(row), by="s3")

    settings = realm.settings("core")
    consumer = connection.reader(settings)
    async with Speaker(settings) as speaker, Surveyor(settings) as surveyor:
        producer = connection.producer(settings, transactional_id=f"{settings.prefix}core-0")
        await connection.start(producer, settings)
        await connection.start(consumer, settings)
        part = CorePartition(settings, 0, Shared(PARTITIONS, settings.signer(), speaker, surveyor, now))
        await part._restore()
        reading.assign_at(consumer, part._positions())
        deaf = SlowReader(consumer, TopicPartition(realm.name(topics.DECISIONS), 0), polls=1_000_000)
        place = f"{realm.name(topics.DECISIONS)}/0: {denied.offset} of {denied.offset + 1}"

        async def serve() -> None:
            while True:
                await part._turn(deaf, producer)

        with pytest.raises(GapError, match=re.escape(place)):
            await asyncio.wait_for(serve(), SECONDS)
        assert part._order.positions[topics.REPORTS.name] == claim.offset
        await consumer.stop()
        await producer.stop()


class Meanwhile(Surveyor):
    """Something happens before it says where this topic ends."""

    topic = ""
    happens: Callable[[], Awaitable[None]] | None = None

    async def ends(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        wanted = list(places)
        if self.happens is not None and self.topic in {place.topic for place in wanted}:
            happens, self.happens = self.happens, None
            await happens()
        return await super().ends(wanted)


async def test_a_core_that_another_one_replaced_while_it_restored_says_that_it_was_fenced(
    realm: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[AIOKafkaConsumer | AIOKafkaProducer] = []
    start = connection.start

    async def noted(client: AIOKafkaConsumer | AIOKafkaProducer, settings: Settings) -> None:
        begun.append(client)
        await start(client, settings)

    [intent] = realm.intents(1, bot_of(0))

    async def another_takes_over() -> None:
        async with realm.run("core") as core:
            await core.ready()
            await realm.classify([intent])
            await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0

    settings = realm.settings("core")
    async with Speaker(settings) as speaker, Meanwhile(settings) as surveyor:
        # Its rows are restored by then, and its trail is not looked at.
        surveyor.topic, surveyor.happens = realm.name(topics.AUDIT), another_takes_over
        zombie = CorePartition(settings, 0, Shared(PARTITIONS, settings.signer(), speaker, surveyor, now))
        monkeypatch.setattr(connection, "start", noted)
        with pytest.raises(FencedError, match="partition 0: another core took it over"):
            await zombie.run(asyncio.Event(), lambda: None)
        # It tidies nothing up: its process would be gone.
        for client in begun:
            await client.stop()
