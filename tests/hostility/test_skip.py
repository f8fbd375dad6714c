"""Inputs are gone: the core stops by name, and goes on only when a root key says so, for all to see (law 11)."""

import json

from schemas import topics
from schemas.records import AuditRecord, Phase, Refusal, Skip
from tests.core.test_positions import cut, tear
from tests.hostility.commands import keyturn
from tests.house import PARTITIONS, House, NewRealm, bot_of, enact
from tests.intake.answers import answered

WHY = "broker 2 lost its disk, INC-7"


async def audited(realm: House, event: str) -> list[AuditRecord]:
    return [record for record in await realm.trail() if record.event == event]


async def test_a_declared_hole_is_on_the_trail_and_the_core_goes_on_beyond_it(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        [first], [second], [third] = (realm.intents(1, bot_of(0)) for _ in range(3))
        async with realm.run("intake") as intake, realm.run("core") as core:
            await intake.ready()
            await core.ready()
            await realm.ask([first])
            await realm.until_row(first, lambda row: row.phase is Phase.PLANNING)
            assert (await keyturn(realm, "core", "skip", "classified/0/2", "--reason", WHY)).error == (
                "nothing is lost at classified/0/2: what lies there can be read. Start the core"
            )
            await tear(realm, topics.CLASSIFIED, 0)
            [source] = await realm.ask([second])
            await answered(realm, [source])
            why = await core.failed()
            assert f"{realm.name(topics.CLASSIFIED)}/0" in why
            assert "offset 4 where 3 was due" in why

            # Said while nobody serves: it waits for the core.
            place = f"{realm.name(topics.CLASSIFIED)}/0/3"
            said = await keyturn(realm, "core", "skip", place, "--reason", WHY, "--wait", "0.2")
            assert (said.code, said.out.strip()) == (
                75,
                "core-0: declared; no core has heard it yet, and goes on at classified/0/4 when it starts",
            )
        assert (await realm.row(second)) is None
        async with realm.run("intake") as intake, realm.run("core") as core:
            await core.ready()
            await realm.until_row(second, lambda row: row.phase is Phase.PLANNING)
            await intake.ready()
            await realm.ask([third])
            await realm.until_row(third, lambda row: row.phase is Phase.PLANNING)
            # Once is enough: said again, it is refused before anything is written.
            again = await keyturn(realm, "core", "skip", place, "--reason", WHY)
            assert "stands at classified/0/" in again.error
            assert await core.stop() == 0

        [record] = await audited(realm, "input.skipped")
        assert (record.refusal, record.reason, record.chain) == (None, WHY, "core-0")
        assert record.statement is not None
        skip = record.statement.read(Skip)
        assert (skip.topic, skip.partition, skip.position, skip.until) == ("classified", 0, 3, 4)
        assert realm.world.is_root_signed(record.statement)
        checked = await keyturn(realm, "audit", "verify")
        assert checked.code == 0, checked.out
        assert "declared classified/0/3 lost, on at 4" in checked.out
        tail = await keyturn(realm, "audit", "tail", "-n", "100")
        assert any("input.skipped" in line and WHY in line for line in tail.out.splitlines())


async def test_expired_inputs_are_skipped_while_the_core_runs_or_stands_and_others_are_not(
    new_realm: NewRealm,
) -> None:
    async with new_realm() as realm:
        intents = realm.intents(4, bot_of(0))
        async with realm.run("core") as core:
            await core.ready()
            await realm.classify(intents[:1])
            await realm.until_row(intents[0], lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0
        await realm.classify(intents[1:3])
        await cut(realm, topics.CLASSIFIED, 0, 4)
        async with realm.run("core") as core:
            assert "owned position 2 is outside [4, 4]" in await core.failed()
        # Nobody but a root key says so: the core does not even look.
        forged = Skip(topic="classified", partition=0, position=2, until=4, reason="trust me")
        await realm.say(topics.OPERATIONS, forged, by="operator", key="classified/0/2", partition=0)
        # A root key that is mistaken is told so.
        for mistaken in (
            forged.model_copy(update={"position": 1}),
            forged.model_copy(update={"until": 3}),
            forged.model_copy(update={"topic": "decisions", "position": 1, "until": 2}),
            forged.model_copy(update={"topic": "operations", "position": 2, "until": 3}),
            forged.model_copy(update={"partition": 1}),
        ):
            await realm.say(topics.OPERATIONS, mistaken, by="root", key="classified/0/2", partition=0)
        async with realm.run("core") as core:
            assert "owned position 2 is outside [4, 4]" in await core.failed()

        said = await keyturn(realm, "core", "skip", "classified/0/2", "--reason", WHY, "--wait", "0", "--json")
        assert said.code == 75
        assert [(each["core"], each["until"], each["is_answered"]) for each in json.loads(said.out)] == [(0, 4, False)]
        async with realm.run("core") as core:
            await core.ready()
            await realm.classify(intents[3:])
            await realm.until_row(intents[3], lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0
        assert {intent.id for intent in intents} & set(await realm.rows()) == {intents[0].id, intents[3].id}
        skips = await audited(realm, "input.skipped")
        assert [record.refusal for record in skips] == [Refusal.BAD_SIGNATURE, *[Refusal.NOT_LOST] * 5, None]
        assert [record.source.offset for record in skips] == list(range(1, 8))


async def test_a_hole_in_a_live_document_is_declared_to_every_partition_that_stands_there(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        await tear(realm, topics.POLICIES, 0)
        place = f"policies/0/{(await realm.ends(topics.POLICIES))[0] - 1}"
        known = realm.world.policies
        assert known is not None
        after = {"version": known.version + 1, "previous": dict(realm.world.digests)[known.TYPE]}
        await enact(realm, known.model_copy(update=after))
        heard: set[int] = set()
        # The first partition that comes to the hole ends the process; another may stand there only the next time.
        while heard != set(range(PARTITIONS)):
            async with realm.run("core") as core:
                assert "GapError" in await core.failed()
            said = await keyturn(realm, "core", "skip", place, "--reason", WHY, "--wait", "0", "--json")
            assert said.code == 75, said
            heard |= {each["core"] for each in json.loads(said.out)}
        async with realm.run("core") as core:
            await core.ready()
            [intent] = realm.intents(1, bot_of(1))
            await realm.classify([intent])
            await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0
        assert {record.versions.policies for record in await realm.trail() if record.intent == intent.id} == {2}


async def test_what_lies_before_a_hole_is_decided_before_the_core_stops(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        before, [after] = realm.intents(3, bot_of(0)), realm.intents(1, bot_of(0))
        await realm.classify(before)
        await tear(realm, topics.CLASSIFIED, 0)
        await realm.classify([after])
        # All of it is fetched at once.
        async with realm.run("core") as core:
            assert "offset 6 where 5 was due" in await core.failed()
        rows = await realm.rows()
        assert {intent.id for intent in before} == set(rows)
        said = await keyturn(realm, "core", "skip", "classified/0/5", "--reason", WHY, "--wait", "0")
        assert said.code == 75, said
        async with realm.run("core") as core:
            await core.ready()
            await realm.until_row(after, lambda row: row.phase is Phase.PLANNING)
            assert await core.stop() == 0


async def test_what_is_no_place_of_an_input_is_a_wrong_use(realm: House) -> None:
    for place in ("intents/0/3", "classified/0", "classified/x/3", "operations/0/1"):
        said = await keyturn(realm, "core", "skip", place, "--reason", WHY)
        assert said.code == 2, said
    assert (await keyturn(realm, "core", "skip", "classified/0/3", "--reason", " ")).code == 2
    assert (await keyturn(realm, "core", "skip", "classified/9/3", "--reason", WHY)).error == (
        "classified has no partition 9"
    )
