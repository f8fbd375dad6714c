"""Whatever dies, every intent ends, and nothing is done twice."""

import asyncio
import os
import signal
import time

from sandbox import story
from sandbox.supervise import State
from schemas import topics
from schemas.record import Record
from schemas.records import Claim, ClassifiedIntent, Decision, Outcome, Phase, Verdict
from streams import administration
from streams.cluster import Cluster, GroupIsLiveError
from tests.flow.stage import Stage, names


async def seen(stage: Stage, topic: topics.Topic, kind: type[Record], intent: str, count: int = 1) -> None:
    """Wait until an input about the intent lies on its topic, decided or not."""
    async with asyncio.timeout(200):
        while (
            sum(
                record.key == intent.encode() and dict(record.headers)["ce_type"] == kind.TYPE.encode()
                for record in await stage.read(topic)
            )
            < count
        ):
            pass  # each round reads Kafka to its end


async def test_a_core_killed_before_every_step_of_a_life_decides_it_all_the_same(stage: Stage) -> None:
    shelf = await stage.shelf(objects=40)
    intent = stage.intent(shelf)

    await stage.roles.kill("core")
    await stage.agent.submit(intent)
    await seen(stage, topics.CLASSIFIED, ClassifiedIntent, intent.id)
    await stage.roles.start("core")
    await stage.agent.until(intent.id, Phase.PENDING)

    view = await stage.view("cho", intent.id, Phase.PENDING)
    await stage.roles.kill("core")
    with await stage.client("cho") as client:
        recorded = await asyncio.to_thread(client.decide, view, Verdict.APPROVE, None)
    await seen(stage, topics.DECISIONS, Decision, intent.id)
    await stage.roles.stop("executor-s3")
    await stage.roles.start("core")
    await stage.agent.until(intent.id, Phase.APPROVED)
    with await stage.client("cho") as client:
        assert (await asyncio.to_thread(client.answer, recorded, 30.0)).refusal is None

    await stage.roles.kill("core")
    await stage.roles.start("executor-s3")
    await seen(stage, topics.REPORTS, Claim, intent.id)
    await stage.roles.start("core")
    await stage.agent.until(intent.id, Phase.EXECUTING)

    await stage.roles.kill("core")
    await seen(stage, topics.REPORTS, Outcome, intent.id)
    await stage.roles.start("core")
    await stage.agent.until(intent.id, Phase.SUCCEEDED)

    await stage.assert_exported_once(shelf)
    assert names(await stage.events(intent.id)) == [
        "intent.classified",
        "plan.reported",
        "decision.recorded",
        "claim.granted",
        "outcome.reported",
    ]


async def test_cores_killed_at_any_moment_under_load_lose_and_repeat_nothing(stage: Stage) -> None:
    shelves = [await stage.shelf(objects=1) for _ in range(12)]
    intents = [stage.intent(shelf) for shelf in shelves]
    for number, intent in enumerate(intents):
        await stage.agent.submit(intent)
        if number % 4 == 3:
            await stage.roles.crash("core")
    for number, intent in enumerate(intents):
        await stage.agent.until(intent.id, Phase.PENDING)
        assert await stage.says("cho", intent.id, Verdict.APPROVE) is None
        if number % 4 == 1:
            await stage.roles.crash("core")
    for intent, shelf in zip(intents, shelves, strict=True):
        await stage.agent.until(intent.id, Phase.SUCCEEDED)
        await stage.assert_exported_once(shelf)
        assert names(await stage.events(intent.id)).count("claim.granted") == 1


async def test_an_intake_killed_under_load_answers_every_intent(stage: Stage) -> None:
    shelf = await stage.shelf(objects=1)
    intents = [stage.intent(shelf, ttl=60) for _ in range(15)]
    for number, intent in enumerate(intents):
        await stage.agent.submit(intent)
        if number in {4, 9}:
            await stage.roles.crash("intake")
    for intent in intents:
        await stage.agent.until(intent.id, Phase.PENDING, Phase.REFUSED)
    for intent in intents:
        await stage.agent.withdraw(intent.id)
    for intent in intents:
        await stage.agent.until(intent.id, Phase.WITHDRAWN)


async def test_an_executor_that_dies_mid_copy_is_observed_and_the_copy_is_not_repeated(stage: Stage) -> None:
    # More than a plan can list, which only policy can permit (law 7): nobody could see it.
    shelf = await stage.shelf(objects=200, bucket=story.BROCHURES)
    wish = stage.intent(shelf)
    await stage.agent.submit(wish)
    intent = wish.id
    async with asyncio.timeout(200):
        while not any(entry.entry == "done" for entry in await stage.journal(intent)):
            pass  # each round reads Kafka to its end

    await stage.roles.kill("executor-s3")
    copied = await stage.exported(shelf)
    assert 0 < len(copied) < len(shelf.keys)
    await stage.roles.start("executor-s3")
    await stage.agent.until(intent, Phase.FAILED, within=200)

    row = await stage.row(intent)
    assert row.flagged
    assert names(await stage.events(intent))[-3:] == ["claim.granted", "outcome.unknown", "outcome.reported"]
    after = await stage.exported(shelf)
    assert all(len(bodies) == 1 for bodies in after.values())
    assert len(after) < len(shelf.keys), "somebody went on with the copy"
    outcome = Outcome.from_bytes(row.outcome.value) if row.outcome else None
    assert outcome is not None
    assert outcome.observed
    assert str(len(after)) in (outcome.reason or "")


async def test_a_kafka_killed_in_the_middle_of_a_life_comes_back_and_the_life_goes_on(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)
    child = stage.sandbox.kafka.child
    assert child is not None
    assert child.pid is not None
    deaths = child.deaths
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(200):
        while child.deaths == deaths or child.state is not State.READY:
            await asyncio.to_thread(time.sleep, 0.1)

    await stage.served()
    # The status was committed and seen; the row's own marker may only be written now, by whoever coordinates.
    seen = await stage.view("cho", intent, Phase.PENDING)
    assert await stage.says("cho", intent, Verdict.APPROVE, seen=seen) is None
    await stage.agent.until(intent, Phase.SUCCEEDED)
    await stage.assert_exported_once(shelf)


async def test_the_sweep_drives_an_intent_again_that_was_committed_past_without_an_answer(stage: Stage) -> None:
    intent = stage.intent(await stage.shelf())
    await stage.roles.stop("intake")
    sent = await stage.agent.submit(intent)
    settings = administration.settings_of(stage.realm, stage.world.admin)
    group, topic = f"{settings.prefix}intake", settings.names.of(topics.INTENTS)
    async with Cluster(settings) as cluster, asyncio.timeout(200):
        while True:
            try:
                await cluster.commit(group, topic, {sent.partition: sent.offset + 1})
                break
            except GroupIsLiveError:  # its static member is remembered until the group's session ends
                await asyncio.to_thread(time.sleep, 0.5)

    await stage.roles.start("intake")
    await stage.agent.until(intent.id, Phase.PENDING)

    (first, *_) = await stage.trail(intent.id)
    assert first.statement is not None
    assert first.statement.read(ClassifiedIntent).source == sent
