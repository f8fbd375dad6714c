"""Whatever went in without an answer is found and driven again, once."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.intake import metrics
from broker.intake.speaking import Desk
from broker.intake.sweep import Sweep
from schemas import topics
from schemas.record import Scalar
from schemas.records import Intent, Source
from streams.cluster import Cluster
from streams.errors import LostPositionError
from streams.facts import FactSource
from streams.producing import Speaker
from streams.worlds import WorldView
from tests.core.test_positions import tear
from tests.house import BOTS, PARTITIONS, House, NewRealm, bot_of, now
from tests.intake.answers import answered, answers


async def acked(realm: House) -> None:
    """As if a worker had lost everything there is: acked, and never answered."""
    async with Cluster(realm.master) as cluster:
        await cluster.commit(
            f"{realm.master.prefix}intake", realm.name(topics.INTENTS), await realm.ends(topics.INTENTS)
        )


@asynccontextmanager
async def desk_of(realm: House, sources: Sequence[FactSource] = ()) -> AsyncIterator[Desk]:
    settings = realm.settings("intake")
    async with WorldView(settings) as view, Speaker(settings) as speaker:
        yield Desk(settings, speaker, view.caught_up, sources, now, PARTITIONS)


async def test_what_was_acked_without_an_answer_is_driven_again_once_and_cites_its_source(realm: House) -> None:
    sources = await realm.ask([intent for bot in BOTS for intent in realm.intents(3, bot)])
    assert not await answers(realm)
    settings = realm.settings("intake")
    async with desk_of(realm) as desk, Sweep(settings, desk.answer, now) as sweep:
        assert await sweep.once() == 0, "what is not acked is the live stream's"
        await acked(realm)
        assert await sweep.once() == len(sources)
        assert await sweep.once() == 0
        # Nor does one that remembers nothing.
        async with Sweep(settings, desk.answer, now) as another:
            assert await another.once() == 0
        [later] = await realm.ask(realm.intents(1, bot_of(1)))
        assert await sweep.once() == 0
        await acked(realm)
        assert await sweep.once() == 1
        assert await sweep.once() == 0
    found = await answers(realm)
    assert set(found) == {*sources, later}
    assert {len(every) for every in found.values()} == {1}
    assert all("classification" in every[0] for every in found.values())


async def test_a_hole_in_the_log_and_records_nobody_can_read_are_swept_over(realm: House) -> None:
    await tear(realm, topics.INTENTS, 0)
    [after] = await realm.ask(realm.intents(1, bot_of(0)))
    await acked(realm)
    async with desk_of(realm) as desk, Sweep(realm.settings("intake"), desk.answer, now) as sweep:
        assert await sweep.once() == 2
        assert await sweep.once() == 0
    unread = Source(topic="intents", partition=0, offset=after.offset - 2)
    found = await answers(realm)
    assert found[unread][0]["refusal"] == "malformed"
    assert "classification" in found[after][0]


async def test_who_stands_before_a_hole_with_nothing_after_it_says_so(
    new_realm: NewRealm, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records if record.name == "keyturn.sweep"]

    async with (
        new_realm() as realm,
        desk_of(realm) as desk,
        Sweep(realm.settings("intake"), desk.answer, now) as sweep,
    ):
        await tear(realm, topics.INTENTS, 0, is_aborted=True)
        assert await sweep.once() == 0
        assert not said(), "what came since the last pass may still be answered"
        assert await sweep.once() == 0
    [line] = said()
    assert line["msg"].startswith("intake stands still")
    assert (line["partition"], line["committed"], line["end"]) == (0, 1, 3)
    assert metrics.LAG.labels(0)._value.get() == 2


async def test_a_worker_that_starts_repairs_what_was_lost_before(new_realm: NewRealm) -> None:
    async with new_realm() as realm:
        sources = await realm.ask([intent for bot in BOTS for intent in realm.intents(2, bot)])
        await acked(realm)
        async with realm.run("intake") as intake:
            await answered(realm, sources)
            assert [line["count"] for line in intake.logged("driven again")] == [len(sources)]
            assert await intake.stop() == 0


async def test_offsets_beyond_the_end_of_the_log_stop_the_sweep_by_name(new_realm: NewRealm) -> None:
    async with new_realm(()) as realm:
        async with Cluster(realm.master) as cluster:
            await cluster.commit(f"{realm.master.prefix}intake", realm.name(topics.INTENTS), {0: 99})
        async with desk_of(realm) as desk, Sweep(realm.settings("intake"), desk.answer, now) as sweep:
            with pytest.raises(LostPositionError, match=r"intents/0: intake committed 99, the log ends at 1"):
                await sweep.once()


class Slow:
    """A source of facts that never answers."""

    name = "slow"

    async def find(self, intent: Intent) -> Mapping[str, Scalar]:  # noqa: ARG002
        await asyncio.Event().wait()
        return {"environment": "test"}


async def test_a_fact_that_is_late_is_unknown_in_the_answer(realm: House, tmp_path: Path) -> None:
    [source] = await realm.ask(realm.intents(1, bot_of(1)))
    await acked(realm)
    async with desk_of(realm, [Slow()]) as desk, Sweep(realm.settings("intake"), desk.answer, now) as sweep:
        assert await sweep.once() == 1
    [answer] = (await answers(realm))[source]
    facts = answer["facts"]
    assert isinstance(facts, list)
    assert [fact["name"] for fact in facts] == ["classification", "environment", "owner"]
    assert not any("value" in fact for fact in facts)
