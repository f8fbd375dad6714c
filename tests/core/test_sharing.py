"""Several cores on one realm: the group shares out partitions, the fence separates those who believe they own one."""

import signal

from schemas import topics
from schemas.records import Phase
from tests.core.laws import assert_whole
from tests.house import House, Process, bot_of, until


def served(core: Process) -> list[int]:
    return [line["partition"] for line in core.logged("partition served")]


async def test_partitions_move_from_the_dead_and_a_stopped_core_that_wakes_up_is_fenced(realm: House) -> None:
    async with (
        realm.run("core", instance="a") as first,
        realm.run("core", instance="b") as second,
        realm.run("core", instance="c") as third,
    ):
        for core in (first, second, third):
            await core.ready()

        async def are_shared() -> bool:
            # Two partitions, three processes: the last one stands by.
            owners = [core for core in (first, second, third) if served(core)[-1:] and _owns(core)]
            return len(owners) == 2 and {served(core)[-1] for core in owners} == {0, 1}

        await until(are_shared)
        before = [*realm.intents(20, bot_of(0)), *realm.intents(20, bot_of(1))]
        await realm.classify(before)
        for intent in before[-1:] + before[:1]:
            await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)

        owner = {served(core)[-1]: core for core in (first, second, third) if _owns(core)}
        killed, zombie = owner[0], owner[1]
        heir = next(core for core in (first, second, third) if core not in (killed, zombie))
        zombie.signal(signal.SIGSTOP)
        await killed.kill()
        # Written while nobody serves them: the zombie will find them in its socket when it wakes up.
        during = [*realm.intents(20, bot_of(0)), *realm.intents(20, bot_of(1))]
        await realm.classify(during)
        for intent in (during[0], during[-1]):
            await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
        assert set(served(heir)) == {0, 1}

        zombie.signal(signal.SIGCONT)
        assert "ProducerFenced" in await zombie.failed()
        after = realm.intents(20, bot_of(1))
        await realm.classify(after)
        await realm.until_row(after[-1], lambda row: row.phase is Phase.PLANNING)
        await until(heir.is_ready)

    trail = await assert_whole(realm)
    intents = {intent.id for intent in (*before, *during, *after)}
    assert sorted(record.intent or "" for record in trail if record.event == "intent.classified") == sorted(intents)
    assert len(await realm.read(topics.PLANNING, "s3")) == len(intents)


def _owns(core: Process) -> bool:
    """Whether what it served last it still serves."""
    return len(core.logged("partition served")) > len(core.logged("partition released"))
