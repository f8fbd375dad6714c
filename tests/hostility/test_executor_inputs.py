"""What somebody with the core's rights on Kafka, but not its key, tells an executor: each is put aside once (law 9).

The process is composed as in production; a scripted core speaks to it in between, and is answered as ever.
"""

import random
from collections import Counter
from itertools import islice

from schemas import topics
from schemas.envelope import seal
from schemas.record import Record
from schemas.records import ApprovedIntent, JournalEntry, Outcome, Plan, PlanRequest, Result
from streams import connection
from streams.producing import Speaker
from tests.executors.builders import EXECUTOR, Life
from tests.executors.conftest import core
from tests.executors.stage import PARTITIONS, Core, now, running
from tests.hostility.families import PLACES, SEALS, VALUES, Honest, Shot, shots

__all__ = ["core"]

SEED = 2026
EACH = len(VALUES) + len(SEALS) + len(PLACES)
COUNTED = "n"


def honest(core: Core, record: Record, life: Life) -> Honest:
    sealed = seal(record, life.intent.id, core.key("core"), core.settings.realm, source="core")
    return Honest(
        sealed.key, sealed.value, tuple(sealed.headers), core.key("core"), core.partition, PARTITIONS, record.MAX_BYTES
    )


async def planted(core: Core, topic: topics.Topic, shot: list[Shot]) -> Counter[str]:
    """Written past the core's transactions, as whoever stole its password would."""
    name = core.settings.names.of(topic, EXECUTOR)
    producer = connection.producer(core.settings)
    await connection.start(producer, core.settings)
    try:
        waiting = [
            await producer.send(name, each.value, each.key, each.partition, headers=list(each.headers)) for each in shot
        ]
        placed = [await each for each in waiting]
    finally:
        await producer.stop()
    plain = core.settings.names.plain(name)
    return Counter(f"{plain}/{each.partition}/{each.offset}" for each in placed)


async def test_each_is_put_aside_once_and_the_core_is_heard_in_between(core: Core) -> None:
    chance = random.Random(SEED)
    before, after, victim = core.life(), core.life(), core.life()
    # No number: even a genuine record that is said again past the core's transactions has none.
    asked = PlanRequest(round=victim.round, classified=victim.classified, expires_at=now() + 60_000)
    approved = ApprovedIntent(
        intent=victim.intent.id, question=victim.question.digest, executor=EXECUTOR, approved_until=now() + 60_000
    )
    async with running(core) as process:
        await process.ready()
        await core.ask_for_plan(before)
        await core.hears(Plan, before)
        due: Counter[str] = Counter()
        for topic, record in ((topics.PLANNING, asked), (topics.APPROVED, approved)):
            example = honest(core, record, victim)
            families = (*VALUES, *SEALS, *PLACES)
            due += await planted(core, topic, list(islice(shots(chance, lambda e=example: e, families), EACH)))
        await core.ask_for_plan(after)
        await core.hears(Plan, after)
        claim = await core.approve(after)
        await core.grant(after, claim)
        assert (await core.hears(Outcome, after)).result is Result.SUCCEEDED
        await process.ends()
    kept = Counter(
        f"{each.source.topic}/{each.source.partition}/{each.source.offset}" for each in await core.quarantined()
    )
    assert {place: kept[place] for place in due} == dict(due)
    assert process.lamp.acts[0].intent.id == after.intent.id
    assert len(process.lamp.acts) == 1
    print(f"\n{sum(due.values())} hostile records to an executor, seed {SEED}")  # noqa: T201 - the figure


async def test_a_journal_that_somebody_else_wrote_into_bars_what_it_names_and_nothing_else(core: Core) -> None:
    chance = random.Random(SEED)
    barred, free = core.life(), core.life()
    entry = JournalEntry(intent=barred.intent.id, grant="0" * 64, instance="lamp-0-x", step=0, entry="used", what="x")
    settings = core.folder.settings("executor-lamp")
    own = core.key("executor-lamp")
    sealed = seal(entry, entry.intent, own, settings.realm, source="executor-lamp")
    example = Honest(sealed.key, sealed.value, tuple(sealed.headers), own, core.partition, PARTITIONS, entry.MAX_BYTES)
    name = settings.names.of(topics.JOURNAL, EXECUTOR)
    async with Speaker(settings) as speaker:
        for each in islice(shots(chance, lambda: example, (*VALUES, *SEALS)), len(VALUES) + len(SEALS)):
            await speaker._producer.send_and_wait(
                name, each.value, each.key, each.partition, headers=list(each.headers)
            )
    async with running(core) as process:
        # Not even claimed; whoever comes after it is.
        await core.say_approved(barred)
        claim = await core.approve(free)
        await core.grant(free, claim)
        assert (await core.hears(Outcome, free)).result is Result.SUCCEEDED
        assert [act.intent.id for act in process.lamp.acts] == [free.intent.id]
        assert not [heard for heard in core.heard if heard.record.key == barred.intent.id.encode()]
        await process.ends()
