"""One agent floods: it is told so, people see no more of it than its cap, and everybody else is answered as before."""

import asyncio
import dataclasses
import time
from collections import Counter
from pathlib import Path

from schemas import topics
from schemas.records import Phase, Refusal, Verdict
from schemas.snapshots import Agent, Directory
from tests.broker.builders import an_intent
from tests.core.laws import assert_whole
from tests.core.test_barrier import a_decision, a_plan
from tests.house import BOTS, DIRECTORY, DOCUMENTS, NewRealm, bot_of, now

FLOOD, FAT = 800, 60
CAP, RATE = 10, 25
BOUND_SECONDS = 120.0
"""On a machine that does nothing else: under 2."""
MEGABYTE = 1 << 20
MEMORY = 400 * MEGABYTE

BOUNDED = DIRECTORY.model_copy(
    update={
        "agents": tuple(
            Agent(id=bot, owners=("ada",), max_open=CAP, max_per_minute=RATE, cool_down=600) for bot in BOTS
        )
    }
)


def resident(pid: int) -> int:
    """The most memory a process has ever had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def test_a_flood_of_one_agent_is_refused_by_name_and_others_are_answered_meanwhile(new_realm: NewRealm) -> None:
    documents = tuple(BOUNDED if isinstance(each, Directory) else each for each in DOCUMENTS)
    async with new_realm(documents) as realm:
        noisy, calm = bot_of(0), next(bot for bot in BOTS if bot != bot_of(0))
        async with realm.run("intake") as intake, realm.run("core") as core:
            await intake.ready()
            await core.ready()
            flood = realm.intents(FLOOD, noisy)
            name = realm.name(topics.INTENTS)
            sealed = [(name, 0, realm.sealed(intent, intent.id, noisy)) for intent in flood]
            # And with it what nobody can read, as large as Kafka takes it.
            odd = sealed[0][2]
            fat = [(name, 0, dataclasses.replace(odd, value=bytes(900_000))) for _ in range(FAT)]
            flooding = asyncio.create_task(realm.speaker.say_all([*fat, *sealed]))
            delays = []
            for intent in realm.intents(5, calm):
                started = time.monotonic()
                await realm.ask([intent])
                await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
                delays.append(time.monotonic() - started)
            await flooding
            await realm.until_row(flood[-1], lambda row: row.phase is not None)
            memory = resident(intake._process.pid)
            print(f"\n{FLOOD + FAT} at once: others wait {max(delays):.1f} s, intake {memory >> 20} MiB")  # noqa: T201
            assert max(delays) < BOUND_SECONDS, delays
            assert memory < MEMORY
            assert await intake.stop() == 0
            assert await core.stop() == 0
        trail = await assert_whole(realm)
        ids = {intent.id for intent in flood}
        ends = Counter((record.event, record.refusal) for record in trail if record.intent in ids)
        assert ends == {("intent.classified", None): CAP, ("intent.refused", Refusal.OVERLOADED): FLOOD - CAP}
        # The requester hears of each.
        told = {record.key.decode() for record in await realm.read(topics.STATUS)}
        assert ids <= told


async def test_what_people_denied_is_refused_when_it_is_asked_again_and_after_a_restart_too(
    new_realm: NewRealm,
) -> None:
    documents = tuple(BOUNDED if isinstance(each, Directory) else each for each in DOCUMENTS)
    async with new_realm(documents) as realm:
        bot, other = bot_of(0), next(bot for bot in BOTS if bot != bot_of(0))
        [wish] = realm.intents(1, bot)
        async with realm.run("core") as core:
            await core.ready()
            await realm.classify([wish])
            row = await realm.until_row(wish, lambda row: row.phase is Phase.PLANNING)
            await realm.say(topics.REPORTS, a_plan(row, wish), by="s3", key=wish.id)
            row = await realm.until_row(wish, lambda row: row.phase is Phase.PENDING)
            await realm.say(topics.DECISIONS, a_decision(row, Verdict.DENY, "dan"), by="api")
            await realm.until_row(wish, lambda row: row.phase is Phase.DENIED)
            [again] = realm.intents(1, bot)
            await realm.classify([again])
            await realm.until_row(again, lambda row: row.phase is Phase.REFUSED)
            assert await core.stop() == 0
        async with realm.run("core") as core:
            await core.ready()
            [still], [others] = realm.intents(1, bot), realm.intents(1, other)
            different = an_intent(requester=bot, number=70, at=now(), properties={"bucket": "elsewhere"})
            await realm.classify([still, different, others])
            await realm.until_row(still, lambda row: row.phase is Phase.REFUSED)
            await realm.until_row(different, lambda row: row.phase is Phase.PLANNING)
            await realm.until_row(others, lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0
        refused = {record.intent: record.refusal for record in await assert_whole(realm) if record.refusal}
        assert refused == {again.id: Refusal.COOL_DOWN, still.id: Refusal.COOL_DOWN}
