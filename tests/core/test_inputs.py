"""Every input ends as exactly one thing on the trail, and a bad one leaves its neighbours alone (law 9)."""

import dataclasses
import secrets
from collections.abc import AsyncIterator

import orjson
import pytest_asyncio

from schemas import topics
from schemas.envelope import Sealed
from schemas.records import Phase, Refusal, Tick, Verdict
from schemas.snapshots import Agent
from schemas.topics import Topic
from streams.administration import provision
from streams.realm import lay_out
from tests.broker.builders import key
from tests.core.laws import assert_numbered, assert_whole
from tests.core.test_barrier import a_decision, approved
from tests.house import House, NewRealm, bot_of, enact, now, until


def unsigned(sealed: Sealed) -> Sealed:
    return dataclasses.replace(
        sealed, headers=tuple(each for each in sealed.headers if each[0] not in {"keyid", "sig"})
    )


def holding(sealed: Sealed, value: bytes) -> Sealed:
    return dataclasses.replace(sealed, value=value)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def spoilt(new_realm: NewRealm) -> AsyncIterator[House]:
    """A realm with rows that no core wrote."""
    async with new_realm() as made:
        yield made


async def test_each_bad_record_is_one_quarantine_record_and_one_audit_record_and_its_neighbours_pass(
    realm: House,
) -> None:
    bot, other = bot_of(0), bot_of(1)
    good = realm.intents(10, bot)
    honest = [realm.sealed(realm.classified(intent), intent.id, "intake") for intent in good]
    [stray] = realm.intents(1, other)
    bad: list[tuple[Topic, Sealed, Refusal]] = [
        (topics.CLASSIFIED, dataclasses.replace(honest[0], key=b"another"), Refusal.WRONG_PARTITION),
        (topics.CLASSIFIED, realm.sealed(realm.classified(stray), stray.id, "intake"), Refusal.WRONG_PARTITION),
        (topics.CLASSIFIED, unsigned(honest[1]), Refusal.BAD_SIGNATURE),
        (topics.CLASSIFIED, holding(honest[2], b"\x00\xff not json"), Refusal.MALFORMED),
        (topics.CLASSIFIED, holding(honest[2], honest[2].value + b" "), Refusal.MALFORMED),
        # A name whose own description cannot be said as it stands.
        (topics.CLASSIFIED, holding(honest[3], orjson.dumps({"e\u0301": 1})), Refusal.MALFORMED),
        (topics.DECISIONS, honest[4], Refusal.MALFORMED),
        (topics.REPORTS, holding(honest[5], b""), Refusal.MALFORMED),
        (topics.TICKS, realm.sealed(Tick(partition=1, number=1), "tick-1", "core"), Refusal.WRONG_PARTITION),
        (topics.TICKS, realm.sealed(Tick(partition=0, number=1), "tick-0", "s3"), Refusal.BAD_SIGNATURE),
        (topics.POLICIES, holding(honest[6], b"{}"), Refusal.MALFORMED),
    ]
    planted: dict[str, Refusal] = {}
    for place, (topic, sealed, refusal) in enumerate(bad):
        if place < len(honest):
            await realm.say_raw(topics.CLASSIFIED, 0, honest[place])
        planted[str(await realm.say_raw(topic, 0, sealed))] = refusal
    forged = await realm.say_raw(
        topics.CLASSIFIED, 0, realm.sealed(realm.classified(good[0]), good[0].id, "intake", realm="elsewhere")
    )
    last = await realm.say_raw(topics.CLASSIFIED, 0, honest[-1])

    async with realm.run("core") as core:
        await core.ready()
        await realm.decided(topics.CLASSIFIED, last)
        assert await core.stop() == 0

    rows = await realm.rows()
    assert {intent.id for intent in good} == set(rows)
    trail = await assert_whole(realm)
    of_first = [record for record in trail if record.chain == "core-0"]
    kept = [each for each in await realm.quarantined() if each.stage == "core" and str(each.source) in planted]
    # Every core partition reads the world's topics for itself.
    world = [source for source in planted if "policies" in source]
    assert sorted(str(each.source) for each in kept) == sorted([*planted, *world])
    assert {str(each.source): each.refusal for each in kept} == planted
    audited = [record for record in of_first if str(record.source) in planted]
    assert {str(record.source): (record.event, record.refusal) for record in audited} == {
        source: ("input.quarantined", refusal) for source, refusal in planted.items()
    }
    assert len(audited) == len(planted)
    # What another realm's intake says is attributed to nobody, and is nothing here.
    assert [record.refusal for record in of_first if record.source == forged] == [Refusal.BAD_SIGNATURE]


async def test_a_fault_inside_is_the_refusal_internal_once_and_the_partition_goes_on(spoilt: House) -> None:
    [intent, neighbour] = spoilt.intents(2, bot_of(1))
    async with spoilt.run("core") as core:
        await core.ready()
        row = (await approved(spoilt, [intent]))[intent.id]
        assert await core.stop() == 0
    # A row that nobody could have written: it waits for people, and there is no question.
    broken = row.model_copy(update={"phase": Phase.PENDING, "question": None})
    await spoilt.say(topics.PENDING, broken, by="core", key=intent.id)
    decision = await spoilt.say(topics.DECISIONS, a_decision(row, Verdict.APPROVE, "eve"), by="api")
    async with spoilt.run("core") as core:
        await core.ready()
        await spoilt.classify([neighbour])
        await spoilt.until_row(neighbour, lambda found: found.phase is Phase.PLANNING)
        await spoilt.decided(topics.DECISIONS, decision)
        assert await core.stop() == 0
    assert [each.refusal for each in await spoilt.trail() if each.source == decision] == [Refusal.INTERNAL]


async def test_an_unreadable_row_stops_only_what_is_about_it(spoilt: House) -> None:
    [intent, neighbour] = spoilt.intents(2, bot_of(1))
    async with spoilt.run("core") as core:
        await core.ready()
        row = (await approved(spoilt, [intent]))[intent.id]
        assert await core.stop() == 0
    sealed = spoilt.sealed(row, intent.id, "core")
    hints = (("phase", b"approved"), ("due", str(now()).encode()))
    unreadable = dataclasses.replace(sealed, value=b"{}", headers=(*sealed.headers, *hints))
    await spoilt.say_raw(topics.PENDING, 1, unreadable)
    decision = await spoilt.say(topics.DECISIONS, a_decision(row, Verdict.DENY, "eve"), by="api")
    async with spoilt.run("core") as core:
        await core.ready()
        await spoilt.classify([neighbour])
        await spoilt.decided(topics.DECISIONS, decision)

        async def is_there() -> bool:
            progress = (await spoilt.progress())[1]
            return progress.positions[topics.CLASSIFIED.name] == (await spoilt.ends(topics.CLASSIFIED))[1]

        await until(is_there)
        assert await core.stop() == 0
    assert [each.refusal for each in await spoilt.trail() if each.source == decision] == [Refusal.MALFORMED]


async def test_nothing_is_due_before_its_deadline_and_no_tick_is_sent_until_something_is(realm: House) -> None:
    [brief] = realm.intents(1, bot_of(0), ttl=1)
    [long] = realm.intents(1, bot_of(0))
    before = (await realm.ends(topics.TICKS))[0]
    async with realm.run("core") as core:
        await core.ready()
        await realm.classify([brief, long])
        asked = await realm.until_row(brief, lambda row: row.phase is Phase.PLANNING)
        early = await realm.say(topics.TICKS, Tick(partition=0, number=77), by="core", key="tick-0", partition=0)
        await realm.until_row(brief, lambda row: row.phase is Phase.EXPIRED)
        assert await core.stop() == 0

    assert asked.expires_at is not None
    due = asked.expires_at + 2_000
    [expired] = [each for each in await realm.trail() if each.intent == brief.id and each.event == "intent.expired"]
    assert expired.log_time > due
    assert not [each for each in await realm.trail() if each.source == early]
    ticks = [record for record in await realm.read(topics.TICKS) if record.partition == 0 and record.offset >= before]
    sent = [record.timestamp for record in ticks if record.offset != early.offset]
    # By this machine's clock, which is the log's too: none while nothing was due, none after all was done.
    assert 1 <= len(sent) <= 2
    assert min(sent) > due
    kept = await realm.row(long)
    assert kept is not None
    assert kept.phase is Phase.PLANNING


async def test_an_executor_without_topics_stops_nothing_and_is_heard_once_they_are_there(realm: House) -> None:
    [lost, neighbour, found] = realm.intents(3, bot_of(0), "iam.grant")
    neighbour = neighbour.model_copy(update={"action": neighbour.action.model_copy(update={"name": "s3.copy"})})
    async with realm.run("core") as core:
        await core.ready()
        await realm.classify([lost, neighbour])
        for intent in (lost, neighbour):
            await realm.until_row(intent, lambda row: row.phase is Phase.PLANNING)
        [told] = core.logged("executor topic is not provisioned")
        assert told["intent_id"] == lost.id

        grown = realm.home.realm().model_copy(update={"executors": ("s3", "iam")})
        lay_out(realm.folder, grown, ["ada"], secrets.token_bytes)
        await provision(realm.folder, realm.admin)
        await realm.classify([found])
        await realm.until_row(found, lambda row: row.phase is Phase.PLANNING)
        assert await core.stop() == 0
    asked = await realm.read(topics.PLANNING, "iam")
    assert [record.key.decode() for record in asked] == [found.id]
    assert_numbered(asked)


async def test_whoever_is_in_a_directory_that_was_acknowledged_before_is_known(realm: House) -> None:
    async with realm.run("core") as core:
        await core.ready()
        for number in range(8):
            name = f"new{number}"
            now_in_force = realm.world.directory
            assert now_in_force is not None
            await enact(
                realm,
                now_in_force.model_copy(
                    update={
                        "version": now_in_force.version + 1,
                        "previous": dict(realm.world.digests)[now_in_force.TYPE],
                        "agents": (*now_in_force.agents, Agent(id=name, owners=("ada",))),
                        "keys": (*now_in_force.keys, key(name, "agent", name)),
                    }
                ),
            )
            intents = realm.intents(1, name)
            await realm.classify(intents)
            row = await realm.until_row(intents[0], lambda _: True)
            assert row.phase is Phase.PLANNING, row.reason
        assert await core.stop() == 0
