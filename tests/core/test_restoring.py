"""Whatever kills a core, the next one goes on from the last transaction: nothing is lost, nothing decided twice."""

import asyncio
import contextlib
import random

from schemas import topics
from schemas.records import Phase, Refusal
from tests.core.laws import assert_whole
from tests.house import BOTS, House, until

ROUNDS = 4
AT_ONCE = 50


async def test_a_core_killed_three_times_under_load_decides_every_input_exactly_once(realm: House) -> None:
    chance = random.Random(20_26)
    intents = [intent for bot in BOTS for intent in realm.intents(ROUNDS * AT_ONCE // len(BOTS), bot)]
    chance.shuffle(intents)
    for number in range(ROUNDS):
        async with realm.run("core") as core:
            await core.ready()
            share = intents[number * AT_ONCE : (number + 1) * AT_ONCE]
            writing = asyncio.create_task(_one_by_one(realm, share))
            if number < ROUNDS - 1:
                with contextlib.suppress(TimeoutError):
                    await core.ended(within=chance.uniform(0.05, 0.5))
                await core.kill()
                await writing
            else:
                await writing
                await _all_decided(realm)
                # What was decided before the kills is remembered.
                for intent in chance.sample(intents, 5):
                    again = await realm.say(topics.CLASSIFIED, realm.classified(intent), by="intake")
                    await realm.decided(topics.CLASSIFIED, again)
                assert await core.stop() == 0

    trail = await assert_whole(realm)
    assert len([record for record in trail if record.event == "intent.classified"]) == len(intents) + 5
    assert [record.refusal for record in trail if record.refusal is not None] == [Refusal.DUPLICATE] * 5
    rows = await realm.rows()
    assert {intent.id for intent in intents} == set(rows)
    assert {row.phase for row in rows.values()} == {Phase.PLANNING}
    assert len(await realm.read(topics.PLANNING, "s3")) == len(intents)


async def _one_by_one(realm: House, intents: list[object]) -> None:
    for intent in intents:
        await realm.classify([intent])  # type: ignore[list-item]


async def _all_decided(realm: House) -> None:
    ends = await realm.ends(topics.CLASSIFIED)

    async def are_there() -> bool:
        progress = await realm.progress()
        return all(at in progress and progress[at].positions[topics.CLASSIFIED.name] == end for at, end in ends.items())

    await until(are_there)


async def test_a_burst_of_a_thousand_goes_through_and_expires_in_bounded_portions(realm: House) -> None:
    burst = realm.intents(1000, BOTS[0], ttl=1)
    await realm.classify(burst)
    async with realm.run("core") as core:
        await core.ready()
        await _all_decided(realm)

        async def have_expired() -> bool:
            rows = await realm.rows()
            return all(rows[intent.id].phase is Phase.EXPIRED for intent in burst)

        await until(have_expired)
        assert await core.stop() == 0

    trail = await assert_whole(realm)
    ids = {intent.id for intent in burst}
    by_tick: dict[int, int] = {}
    for record in trail:
        if record.intent in ids and record.event == "intent.expired":
            by_tick[record.source.offset] = by_tick.get(record.source.offset, 0) + 1
    assert sum(by_tick.values()) == 1000
    assert max(by_tick.values()) <= 500
