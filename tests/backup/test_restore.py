"""A backup goes back onto an empty Kafka: the realm goes on, and nothing of before is done again."""

import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord

from auditors import bundle
from sandbox import story
from sandbox.agent import SandboxAgent
from sandbox.roles import RunningRoles
from sandbox.world import Sandbox
from schemas import ids, topics
from schemas.envelope import Sealed
from schemas.records import Phase, Refusal, Verdict
from schemas.topics import CORE_INPUTS, INTENTS, WORLD, Topic
from streams.administration import settings_of
from streams.cluster import Cluster
from streams.producing import Speaker
from streams.realm import RealmFolder
from tests.flow.stage import Stage, clock, names, refusals, set_up
from tests.hostility.commands import keyturn

REPLAYED = (topics.INTENTS, topics.DECISIONS, topics.REPORTS)
AGAIN = 3
"""A yes, a claim and an outcome."""
INPUTS = (INTENTS, *CORE_INPUTS, *WORLD)


def lies(record: Any) -> tuple[Any, ...]:
    return (record.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers))


async def test_a_realm_goes_on_from_its_backup_and_does_nothing_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    sandbox = Sandbox(tmp_path / "realm")
    async with sandbox as world:
        master = settings_of(RealmFolder(world.folder), world.admin)
        async with RunningRoles(world.folder) as roles, set_up(sandbox, world, roles) as stage:
            shelves = [await stage.shelf() for _ in range(3)]
            done, waiting = await stage.asked(shelves[0]), await stage.asked(shelves[1])
            await does(stage, done)
            # What retention does: the log does not begin at 0 any more.
            async with Cluster(master) as cluster:
                await cluster.delete_records(master.names.of(INTENTS), dict.fromkeys(range(story.PARTITIONS), 1))
            made = await keyturn(world, "backup", str(kept))
            assert made.code == 0, made
            assert "open at the backup: 1 pending" in made.out
            # The world goes on: what waited is done, and something new.
            later = await stage.asked(shelves[2])
            for each in (waiting, later):
                await does(stage, each)
            after = {topic.name: await said_after(stage, topic, kept) for topic in REPLAYED}
            assert all(after.values())
        refused = await keyturn(world, "restore", str(kept))
        assert "a backup is written into a Kafka that has none of them" in refused.error

        # All replicas are gone.
        await sandbox.kafka.stop()
        shutil.rmtree(world.folder / "kafka" / "data")
        await sandbox.kafka.start()
        said = await keyturn(world, "restore", str(kept))
        assert said.code == 0, said
        assert "open at the backup: 1 pending" in said.out
        checked = await keyturn(world, "topics", "check")
        assert checked.code == 0, checked

        # Somebody kept every byte of what came later, and is there before the core.
        async with Speaker(master) as speaker:
            for name, records in after.items():
                for record in records:
                    again = Sealed(record.key or b"", record.value or b"", tuple(record.headers))
                    await speaker.say(master.prefix + name, record.partition, again)
        async with RunningRoles(world.folder) as roles, set_up(sandbox, world, roles) as stage:
            await lies_as_before(stage, kept)
            # What was kept of them: an intent, the yeses, claims and outcomes.
            await stage.until_trail(waiting, lambda trail: "intent.expired" in {each.event for each in trail})
            for intent in (waiting, later):
                await stage.until_trail(intent, lambda trail: sum(each.refusal is not None for each in trail) >= AGAIN)
            assert names(await stage.events(waiting)) == ["intent.classified", "plan.reported", "intent.expired"]
            assert names(await stage.events(later)) == []
            for intent in (waiting, later):
                assert Refusal.ID_OUT_OF_WINDOW in refusals(await stage.events(intent))
            assert (await stage.row(done)).phase is Phase.SUCCEEDED

            # Ids may be five minutes ahead, and only what is asked that much later is new.
            agent = SandboxAgent(
                world.settings(f"agent-{story.AGENT}"),
                story.AGENT,
                lambda: clock() + ids.WINDOW_AFTER_MS - 1_000,
                secrets.token_bytes,
            )
            async with agent:
                ahead = replace(stage, agent=agent)
                shelves.append(await ahead.shelf())
                await does(ahead, await ahead.asked(shelves[-1]))
            for shelf in shelves:
                await stage.assert_exported_once(shelf)
        for words in (("audit", "verify"), ("audit", "replay")):
            checked = await keyturn(world, *words)
            assert checked.code == 0, checked


async def does(stage: Stage, intent: str) -> None:
    assert await stage.says("cho", intent, Verdict.APPROVE) is None
    await stage.agent.until(intent, Phase.SUCCEEDED)


async def said_after(stage: Stage, topic: Topic, kept: Path) -> list[ConsumerRecord]:
    before = {(record.partition, record.offset) for record in bundle.records(kept, topic.name)}
    return [
        record
        for record in await stage.read(topic)
        if (record.partition, record.offset) not in before and record.offset > 0
    ]


async def lies_as_before(stage: Stage, kept: Path) -> None:
    for topic in INPUTS:
        before = [lies(record) for record in bundle.records(kept, topic.name)]
        now = {lies(record) for record in await stage.read(topic)}
        assert [each for each in before if each not in now] == [], topic.name
