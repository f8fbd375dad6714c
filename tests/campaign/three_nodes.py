"""`make three-nodes`: three Kafka nodes, load through whole lives; three times the node that matters most is killed.

The leader of a partition, then the coordinator of a group, then that of the transactions: each found by asking the
cluster, killed with -9, and started again only when two nodes have carried an intent of each partition from its
question to its end. That is the silence which is printed.
"""

import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]

from sandbox.kafka import KafkaCluster
from sandbox.world import Sandbox, SandboxWorld
from schemas import topics
from schemas.records import FINAL, Phase
from streams import access, cluster, connection
from streams.administration import settings_of
from streams.realm import RealmFolder
from streams.settings import Settings
from tests.campaign.play import Life, Stage, staged, verified
from tests.campaign.realm import campaign_realm
from tests.campaign.running import say
from tests.campaign.script import AGENTS, Ask, Wish
from tests.campaign.troupe import Troupe

NODES: Final = 3
LEASE_SECONDS: Final = 40
"""Longer than the silence: an act that Kafka interrupts should still be in time to say how it ended."""
EVERY_SECONDS: Final = 0.7
"""Between two intents of the load, of which no more than so many live at once."""
AT_ONCE: Final = 8
WITHIN_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.2
STEPS: Final = (Phase.PLANNING, Phase.PENDING, Phase.SUCCEEDED, Phase.FAILED)
LOAD: Final = (Wish.APPROVED, Wish.PUBLIC, Wish.DENIED, Wish.APPROVED, Wish.EXPIRED)


@dataclass
class Eyes:
    """What the cluster says of itself, to an administrator."""

    settings: Settings
    client: AIOKafkaClient

    async def leader(self, topic: topics.Topic, partition: int) -> int:
        """The node that leads a partition."""
        name = self.settings.names.of(topic)
        admin = AdminClient(cluster._configuration(self.settings))
        found = await asyncio.to_thread(admin.list_topics, name, timeout=10)
        return int(found.topics[name].partitions[partition].leader)

    async def coordinator(self, kind: int, key: str) -> int:
        """The node that coordinates a group or a transactional id."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                with contextlib.suppress(KafkaError):
                    return int(await self.client.coordinator_lookup(kind, key))
                await asyncio.sleep(LOOK_SECONDS)

    async def until_whole(self) -> None:
        """Wait until each partition of every topic is in sync on all nodes."""
        admin = AdminClient(cluster._configuration(self.settings))
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                with contextlib.suppress(KafkaException):
                    found = await asyncio.to_thread(admin.list_topics, timeout=5)
                    partitions = [each for topic in found.topics.values() for each in topic.partitions.values()]
                    if partitions and all(len(each.isrs) == NODES for each in partitions):
                        return
                await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def eyes(world: SandboxWorld) -> AsyncIterator[Eyes]:
    settings = settings_of(RealmFolder(world.folder), world.admin)
    client = AIOKafkaClient(**connection.client_arguments(settings))
    await client.bootstrap()
    try:
        yield Eyes(settings, client)
    finally:
        await client.close()


@dataclass
class Load:
    """Intents of every agent, one after the other, a few at once, until told to stop."""

    stage: Stage
    lives: list[Life] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _living: set[asyncio.Task[None]] = field(default_factory=set)
    _number: int = 0

    async def run(self) -> None:
        while True:
            while len(self._living) >= AT_ONCE:
                await asyncio.wait(set(self._living), return_when=asyncio.FIRST_COMPLETED)
            wish = LOAD[self._number % len(LOAD)]
            await self.ask(wish, AGENTS[self._number % len(AGENTS)])
            await asyncio.sleep(EVERY_SECONDS)

    async def ask(self, wish: Wish, agent: str) -> tuple[Life, asyncio.Task[None]]:
        """One more."""
        self._number += 1
        life = await self.stage.life(Ask(wish, agent, 0.0, 2))
        self.lives.append(life)
        task = asyncio.create_task(self.stage.live(life), name=life.intent.id)
        self._living.add(task)
        task.add_done_callback(self._over)
        return life, task

    async def ended(self) -> None:
        """Wait until each of them has its end; who has none is a fault."""
        if self._living:
            _, left = await asyncio.wait(set(self._living), timeout=WITHIN_SECONDS)
            for task in left:
                task.cancel()
        self.faults += [
            f"{life.intent.id}: lost" for life in self.lives if self.stage.hearer.phase(life.intent.id) not in FINAL
        ]

    def _over(self, task: asyncio.Task[None]) -> None:
        self._living.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.faults.append(f"{task.get_name()}: {error!r}")


async def require_three_copies(world: SandboxWorld) -> int:
    """What `keyturn topics apply` made of three brokers: how many topics there are."""
    home = RealmFolder(world.folder)
    names = home.realm().names
    wanted = {names.of(topic) for topic in topics.TOPICS if not topic.is_per_executor}
    wanted |= {names.of(topic, "s3") for topic in topics.TOPICS if topic.is_per_executor}
    async with cluster.Cluster(settings_of(home, world.admin)) as there:
        found = await there.topics(wanted)
    assert found.keys() == wanted, wanted - found.keys()
    for name, state in found.items():
        assert (state.replicas, state.settings["min.insync.replicas"]) == (NODES, "2"), (name, state)
    return len(found)


async def whole_lives(load: Load) -> str:
    """One intent of each agent, asked now: how many seconds until it was classified, asked about, and performed."""
    began = time.monotonic()

    async def live(agent: str) -> str:
        life, task = await load.ask(Wish.APPROVED, agent)
        async with asyncio.timeout(WITHIN_SECONDS):
            await asyncio.shield(task)
        times = load.stage.hearer.times[life.intent.id]
        return "/".join(f"{times[phase] - began:.1f}" for phase in STEPS if phase in times)

    return "  ".join(await asyncio.gather(*(live(agent) for agent in AGENTS)))


async def silence(what: str, node: int, kafka: KafkaCluster, load: Load, look: Eyes) -> None:
    """Kill this node, time the silence, start it again and wait until it has caught up."""
    began = time.monotonic()
    await kafka.nodes[node].kill()
    try:
        each = await whole_lives(load)
    except TimeoutError:
        each = "never"
        load.faults.append(f"without node {node} ({what}) not every partition is served")
    down = time.monotonic() - began
    await kafka.nodes[node].start()
    await load.stage.troupe.serve()
    await look.until_whole()
    whole = time.monotonic() - began
    say(f"{what:<28} {each}   (node {node}, down {down:.1f} s, whole again after {whole:.1f} s)")


async def run(folder: Path) -> list[str]:
    """All three kills; what is wrong in the end."""
    sandbox = Sandbox(folder, nodes=NODES)
    kafka = sandbox.kafka
    assert isinstance(kafka, KafkaCluster)
    began = time.monotonic()
    async with campaign_realm(sandbox, LEASE_SECONDS) as world, Troupe(world.folder, kafka) as troupe:
        say(f"three nodes, and two of each role, after {time.monotonic() - began:.1f} s")
        count = await require_three_copies(world)
        say(f"{count} topics, each with replication 3 and min.insync.replicas 2")
        async with staged(world, troupe) as stage, eyes(world) as look:
            load = Load(stage)
            asking = asyncio.create_task(load.run(), name="load")
            say("seconds until an intent was in planning/pending/succeeded, one of each partition, asked at the kill")
            say(f"{'nobody':<28} {await whole_lives(load)}")
            for what, found in _victims(look):
                await silence(what, await found(), kafka, load, look)
            asking.cancel()
            await load.ended()
            verdict = await stage.judged(load.lives)
            say(f"{verdict['checked']} intents looked at in S3, {verdict['done']} with effects")
        is_clean, text = await verified(world)
        say(text)
        for why, times in troupe.fail_stops().most_common():
            say(f"{times:>4} ended by itself: {why}")
    return [*load.faults, *verdict["faults"], *([] if is_clean else [text])]


def _victims(look: Eyes) -> list[tuple[str, Callable[[], Awaitable[int]]]]:
    names = look.settings.names
    group = access.group_of(names, "core")
    return [
        (f"leader of {topics.INTENTS.name}/0", lambda: look.leader(topics.INTENTS, 0)),
        ("coordinator of group core", lambda: look.coordinator(CoordinationType.GROUP, group)),
        (
            "coordinator of core's tx",
            lambda: look.coordinator(CoordinationType.TRANSACTION, f"{look.settings.prefix}core-0"),
        ),
    ]


def main() -> int:
    connection.quiet_client_logs()
    logging.getLogger("sandbox.supervise").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="keyturn-three-", ignore_cleanup_errors=True) as folder:
        faults = asyncio.run(run(Path(folder)))
    say("\n".join(faults) or "0 lost, 0 done twice, the trail is whole")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
