"""Every record of `intents` is answered: what is bad, what comes after a hole, what a worker died of."""

import dataclasses
import json
import signal

import orjson

from schemas import topics
from schemas.records import Refusal
from schemas.snapshots import Agent
from tests.broker.builders import key
from tests.core.test_positions import tear
from tests.house import BOTS, House, NewRealm, bot_of, enact, forbidden, until
from tests.intake.answers import answered, answers


async def test_a_worker_says_what_it_waits_for_until_it_has_its_partitions(realm: House) -> None:
    async with realm.run("intake") as intake:
        seen: list[tuple[int, dict[str, object]]] = []

        async def is_ready() -> bool:
            if (answer := await intake.health("/readyz")) is not None:
                seen.append((answer.status, json.loads(answer.body)))
            return bool(seen) and seen[-1][0] == 200

        await until(is_ready)
        live = await intake.health("/livez")
        assert live is not None
        assert (live.status, live.body) == (200, b'{"live":true}')
        waited = [set(body["waiting_for"]) for status, body in seen if status == 503]  # type: ignore[call-overload]
        assert waited
        assert {"faust"} in waited
        assert seen[-1][1] == {"ready": True, "waiting_for": {}}
        assert await intake.stop() == 0


async def test_what_cannot_be_read_and_what_holds_a_secret_is_quarantined_and_stops_nobody(realm: House) -> None:
    secret = "AKIA" + "QWERTYUIOPASDFGH".replace("O", "2")
    good, leaky = realm.intents(2, bot_of(0))
    leaky = leaky.model_copy(update={"context": leaky.context.model_copy(update={"reason": f"use {secret}"})})
    sealed = realm.sealed(good, good.id, BOTS[0])
    # Unsigned bytes whose own description cannot be said as they stand: one of these must not stop a worker for ever.
    unsayable = dataclasses.replace(sealed, value=orjson.dumps({"e\u0301": 1}))
    deep = dataclasses.replace(sealed, value=b'{"a":' * 15 + b"1" + b"}" * 15)
    async with realm.run("intake") as intake:
        await intake.ready()
        bad = [await realm.say_raw(topics.INTENTS, 0, each) for each in (unsayable, deep)]
        hidden = await realm.say(topics.INTENTS, leaky, by=leaky.subject.id)
        [fine] = await realm.ask([good])
        found = await answered(realm, [*bad, hidden, fine])
        assert await intake.stop() == 0
    assert [found[each][0]["refusal"] for each in bad] == [Refusal.MALFORMED] * 2
    assert found[hidden][0]["refusal"] == Refusal.SECRET_FOUND
    assert "value" not in found[hidden][0]
    assert "classification" in found[fine][0]
    for record in await realm.read(topics.QUARANTINE):
        assert secret.encode() not in record.value


async def test_an_agent_whose_directory_was_acknowledged_before_it_asked_is_known(realm: House) -> None:
    async with realm.run("intake") as intake:
        await intake.ready()
        for number in range(5):
            name = f"new{number}"
            before = realm.world.directory
            assert before is not None
            changed = {
                "version": before.version + 1,
                "previous": dict(realm.world.digests)[before.TYPE],
                "agents": (*before.agents, Agent(id=name, owners=("ada",))),
                "keys": (*before.keys, key(name, "agent", name)),
            }
            await enact(realm, before.model_copy(update=changed))
            [source] = await realm.ask(realm.intents(1, name))
            [answer] = (await answered(realm, [source]))[source]
            assert "classification" in answer, answer
        assert await intake.stop() == 0


async def test_a_hole_in_the_log_ends_the_worker_by_name_before_anything_is_acked(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        async with realm.run("intake") as intake:
            await intake.ready()
            [before] = await realm.ask(realm.intents(1, bot_of(1)))
            await answered(realm, [before])
            await tear(realm, topics.INTENTS, 1)
            [after] = await realm.ask(realm.intents(1, bot_of(1)))
            why = await intake.failed()
        assert "GapError" in why
        assert f"intents/1: offset {after.offset} where {after.offset - 1} was due" in why
        assert (await realm.committed("intake", topics.INTENTS))[1] < after.offset
        # What is really gone stops every process: nothing is skipped in silence.
        async with realm.run("intake") as intake:
            assert "GapError" in await intake.failed()
        assert after not in await answers(realm)


async def test_a_batch_that_cannot_be_answered_ends_the_worker_before_the_ack(realm: House) -> None:
    async with realm.run("intake") as intake:
        await intake.ready()
        async with forbidden(realm, "intake", topics.CLASSIFIED, "write"):
            sources = []

            async def is_over() -> bool:
                sources.extend(await realm.ask(realm.intents(1, bot_of(0))))
                return intake.is_over

            await until(is_over)
            assert "TopicAuthorizationFailed" in await intake.failed()
        committed = await realm.committed("intake", topics.INTENTS)
        unanswered = set(sources) - (await answers(realm)).keys()
        assert committed[0] <= min(source.offset for source in unanswered)
    async with realm.run("intake") as intake:
        await intake.ready()
        await answered(realm, sources)
        intake.signal(signal.SIGINT)
        assert await intake.ended() == 0
