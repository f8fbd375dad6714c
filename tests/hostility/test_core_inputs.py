"""A thousand hostile records on every input of intake and core: each is answered once, and nobody else is disturbed.

Law 9. The roles run as in production; each record is written with the rights of a principal that may write there.
More of them, and others: `make hostility RECORDS=20000 SEED=7`.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from schemas import topics
from schemas.envelope import Sealed
from schemas.record import Record
from schemas.records import Intent, Phase, Refusal, Source, Tick, Verdict
from schemas.topics import Topic
from streams import connection
from tests.broker.builders import signer
from tests.core.laws import assert_whole
from tests.core.test_barrier import a_decision, a_plan
from tests.hostility.families import PLACES, SEALS, VALUES, Family, Honest, Shot, shots
from tests.house import PARTITIONS, House, bot_of, until
from tests.intake.answers import answered

RECORDS = int(os.environ.get("RECORDS", "1000"))
SEED = int(os.environ.get("SEED", "2026"))
SHARES = {"intents": 30, "classified": 16, "decisions": 16, "reports": 16, "ticks": 10, "world": 3}
ALL: tuple[tuple[str, Family], ...] = (*VALUES, *SEALS, *PLACES)
ANYWHERE = tuple(each for each in ALL if each not in PLACES)
NEIGHBOUR_EVERY = 12


def share(name: str) -> int:
    return max(RECORDS * SHARES[name] // 100, 1)


def honest_of(sealed: Sealed, by: str, record: Record, partition: int = 0, partitions: int = PARTITIONS) -> Honest:
    headers = tuple(sealed.headers)
    return Honest(sealed.key, sealed.value, headers, signer(by), partition, partitions, record.MAX_BYTES)


@dataclass
class Battery:
    """Writes to one topic with one principal's rights, hostile records with neighbours in between."""

    realm: House
    topic: Topic
    role: str
    hostile: dict[Source, str] = field(default_factory=dict)
    neighbours: list[Source] = field(default_factory=list)

    async def fire(self, shot: Sequence[Shot], neighbours: Sequence[Sealed] = ()) -> None:
        settings = self.realm.settings(self.role)
        name = self.realm.name(self.topic)
        producer = connection.producer(settings)
        await connection.start(producer, settings)
        try:
            waiting = []
            others = list(neighbours)
            for number, each in enumerate(shot):
                headers = list(each.headers)
                future = await producer.send(name, each.value, each.key, each.partition, headers=headers)
                waiting.append((each.family, future))
                if others and number % max(len(shot) // len(neighbours), 1) == 0:
                    good = others.pop()
                    sent = await producer.send(name, good.value, good.key, 0, headers=list(good.headers))
                    waiting.append((None, sent))
            for good in others:
                sent = await producer.send(name, good.value, good.key, 0, headers=list(good.headers))
                waiting.append((None, sent))
            for family, future in waiting:
                there = await future
                source = Source(topic=self.topic.name, partition=there.partition, offset=there.offset)
                if family is None:
                    self.neighbours.append(source)
                else:
                    self.hostile[source] = family
        finally:
            await producer.stop()


def volley(
    chance: random.Random, count: int, honest: Callable[[], Honest], families: Sequence[tuple[str, Family]] = ALL
) -> list[Shot]:
    return list(islice(shots(chance, honest, families), count))


async def test_each_hostile_record_is_answered_once_and_its_neighbours_as_if_nothing_were(realm: House) -> None:  # noqa: PLR0915
    chance = random.Random(SEED)
    bot = bot_of(0)
    each = max(share("intents") // NEIGHBOUR_EVERY, 4)
    good = realm.intents(each, bot)
    victims = realm.intents(4, bot)
    fired: list[Battery] = []

    def of(intents: Sequence[Intent], make: Callable[[Intent], tuple[Sealed, str, Record]]) -> Callable[[], Honest]:
        def any_of_them() -> Honest:
            sealed, by, record = make(chance.choice(intents))
            return honest_of(sealed, by, record)

        return any_of_them

    async with realm.run("intake") as intake, realm.run("core") as core:
        await intake.ready()
        await core.ready()

        # ---- intents, by an agent: what nobody else sent under these ids
        strangers = realm.intents(20, bot)
        battery = Battery(realm, topics.INTENTS, f"agent-{bot}")
        fired.append(battery)
        await battery.fire(
            volley(
                chance,
                share("intents"),
                of(strangers, lambda intent: (realm.sealed(intent, intent.id, bot), bot, intent)),
            ),
            [realm.sealed(intent, intent.id, bot) for intent in (*good, *victims)],
        )
        # Told twice, and by ids of another time.
        old, young = (an_id_at(realm, bot, shift) for shift in (-25 * 3600_000, 3600_000))
        odd = Battery(realm, topics.INTENTS, f"agent-{bot}")
        await odd.fire([], [realm.sealed(intent, intent.id, bot) for intent in (good[0], good[0], old, young)])
        for source, family in zip(odd.neighbours, ["replayed", "replayed", "old id", "future id"], strict=True):
            assert family
            battery.hostile[source] = family
        said = await answered(realm, [*battery.hostile, *battery.neighbours])
        for source, family in battery.hostile.items():
            [answer] = said[source]
            assert "refusal" in answer or family == "replayed", (source, family, answer)
        assert {len(said[source]) for source in battery.neighbours} == {1}
        assert all("refusal" not in said[source][0] for source in battery.neighbours)
        await until(lambda: _are_in(realm, [*good, *victims], Phase.PLANNING))

        # ---- classified, by intake
        unheard = realm.intents(10, bot)
        battery = Battery(realm, topics.CLASSIFIED, "intake")
        fired.append(battery)
        await battery.fire(
            volley(
                chance,
                share("classified"),
                of(
                    unheard,
                    lambda intent: (
                        realm.sealed(realm.classified(intent), intent.id, "intake"),
                        "intake",
                        realm.classified(intent),
                    ),
                ),
            )
        )

        # ---- reports, by an executor: plans of the good ones in between
        rows = await realm.rows()
        plans = {intent.id: a_plan(rows[intent.id], intent) for intent in (*good, *victims)}
        battery = Battery(realm, topics.REPORTS, "executor-s3")
        fired.append(battery)
        await battery.fire(
            volley(
                chance,
                share("reports"),
                of(
                    victims[:2],
                    lambda intent: (realm.sealed(plans[intent.id], intent.id, "s3"), "s3", plans[intent.id]),
                ),
            ),
            [realm.sealed(plans[intent.id], intent.id, "s3") for intent in (*good, *victims[2:])],
        )
        await until(lambda: _are_in(realm, [*good, *victims[2:]], Phase.PENDING))

        # ---- decisions, by a notifier: each good one gets its yes
        rows = await realm.rows()
        yes = {intent.id: a_decision(rows[intent.id], Verdict.APPROVE, "dan") for intent in (*good, *victims[2:])}
        battery = Battery(realm, topics.DECISIONS, "notifier-api")
        fired.append(battery)
        await battery.fire(
            volley(
                chance,
                share("decisions"),
                of(
                    victims[2:],
                    lambda intent: (realm.sealed(yes[intent.id], intent.id, "api"), "api", yes[intent.id]),
                ),
            ),
            [realm.sealed(yes[intent.id], intent.id, "api") for intent in good],
        )
        await until(lambda: _are_in(realm, good, Phase.APPROVED))

        # ---- ticks, by the core; live documents, by administration and the sync
        battery = Battery(realm, topics.TICKS, "core")
        fired.append(battery)
        tick = Tick(partition=0, number=9_999)
        sealed = realm.sealed(tick, "tick-0", "core")
        # The key of a tick says nothing.
        await battery.fire(volley(chance, share("ticks"), lambda: honest_of(sealed, "core", tick), ANYWHERE))
        for topic, document, role, by in (
            (topics.DIRECTORY, realm.world.directory, "administration", "root"),
            (topics.ROSTER, realm.world.rosters[-1], "roster", "roster"),
            (topics.POLICIES, realm.world.policies, "administration", "root"),
            (topics.MANIFESTS, realm.world.manifests, "administration", "root"),
        ):
            assert document is not None
            after = document.model_copy(
                update={"version": document.version + 1, "previous": dict(realm.world.digests)[document.TYPE]}
            )
            sealed = realm.sealed(after, str(after.version), by)
            battery = Battery(realm, topic, role)
            fired.append(battery)
            honest = honest_of(sealed, by, after, partitions=1)
            await battery.fire(volley(chance, share("world"), lambda honest=honest: honest, ANYWHERE))

        for battery in fired[1:]:
            await realm.decided(battery.topic, *_last(battery))
        # Who comes last is answered as who came first.
        [late] = realm.intents(1, bot)
        await realm.ask([late])
        await until(lambda: _are_in(realm, [late], Phase.PLANNING))
        assert not intake.logged("fail-stop")
        assert not core.logged("fail-stop")
        assert await intake.stop() == 0
        assert await core.stop() == 0

    trail = await assert_whole(realm)
    kept = Counter(str(each.source) for each in await realm.quarantined() if each.stage == "core")
    answers = Counter((str(record.source), record.chain) for record in trail)
    refusals = {str(record.source): record for record in trail}
    for battery in fired[1:]:
        chains = PARTITIONS if battery.topic in topics.WORLD else 1
        for source, family in battery.hostile.items():
            record = refusals[str(source)]
            # A roster that nobody may have signed waits for a directory that lists its key; it is not in force.
            is_waiting = record.event == "world.deferred" and battery.topic is topics.ROSTER
            assert record.refusal is not None or is_waiting, (battery.topic.name, family, record)
            assert record.refusal is not Refusal.INTERNAL, (battery.topic.name, family, record.reason)
            assert sum(answers[str(source), f"core-{number}"] for number in range(PARTITIONS)) == chains
            assert kept[str(source)] == (chains if record.event == "input.quarantined" else 0), (family, record)
    after_all = await realm.rows()
    assert {after_all[intent.id].phase for intent in good} == {Phase.APPROVED}
    assert [after_all[intent.id].phase for intent in victims] == [Phase.PLANNING] * 2 + [Phase.PENDING] * 2
    assert not any(after_all[intent.id].votes for intent in victims)
    assert realm.world.versions.directory == trail[-1].versions.directory
    total = sum(len(battery.hostile) for battery in fired)
    kinds = {family for battery in fired for family in battery.hostile.values()}
    by_refusal = Counter(record.refusal.value for record in trail if record.refusal is not None)
    print(f"\n{total} hostile records of {len(kinds)} families, seed {SEED}: {dict(by_refusal)}")  # noqa: T201 - the figures
    assert total >= RECORDS
    assert kinds >= {name for name, _ in ALL}


def an_id_at(realm: House, bot: str, shift: int) -> Intent:
    from tests.broker.builders import an_intent
    from tests.house import now

    return an_intent(requester=bot, number=abs(shift) % 1000 + 7, at=now() + shift)


async def _are_in(realm: House, intents: Sequence[Intent], phase: Phase) -> bool:
    rows = await realm.rows()
    return all(intent.id in rows and rows[intent.id].phase is phase for intent in intents)


def _last(battery: Battery) -> list[Source]:
    """The last record of each partition."""
    found: dict[int, Source] = {}
    for source in (*battery.hostile, *battery.neighbours):
        if source.partition not in found or found[source.partition].offset < source.offset:
            found[source.partition] = source
    return list(found.values())
