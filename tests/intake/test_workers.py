"""Two workers share the intents; whoever is killed or stopped, every input has an answer."""

import asyncio
import time

from schemas.records import Source
from tests.house import BOTS, House
from tests.intake.answers import answered

AT_ONCE = 60


async def test_every_input_has_an_answer_though_workers_are_killed_and_stopped_under_load(realm: House) -> None:
    batches = [[intent for bot in BOTS for intent in realm.intents(AT_ONCE // len(BOTS), bot)] for _ in range(4)]
    sources: list[Source] = []
    async with realm.run("intake", instance="a") as first, realm.run("intake", instance="b") as second:
        await asyncio.gather(first.ready(), second.ready())
        sources += await realm.ask(batches[0])
        writing = asyncio.create_task(realm.ask(batches[1]))
        await answered(realm, sources[:1])
        await first.kill()
        sources += await writing
        async with realm.run("intake", instance="a") as again:
            writing = asyncio.create_task(realm.ask(batches[2]))
            began = time.monotonic()
            assert await second.stop() == 0
            assert time.monotonic() - began < 8
            sources += await writing
            async with realm.run("intake", instance="b") as second_again:
                await asyncio.gather(again.ready(), second_again.ready())
                sources += await realm.ask(batches[3])
                found = await answered(realm, sources)
                assert await again.stop() == 0
                assert await second_again.stop() == 0
    # Duplicates are allowed: the core refuses them. An answer without a question is not.
    assert set(found) == set(sources)
    assert all("classification" in each for every in found.values() for each in every)
