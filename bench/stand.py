"""A realm of its own on one embedded Kafka, real role processes on it, and a watch on what its log holds."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from aiokafka import TopicPartition

from sandbox.kafka import EmbeddedKafka
from sandbox.roles import environment
from schemas import topics
from schemas.envelope import Sealed, seal
from schemas.partition import partition_of
from schemas.records import Intent
from schemas.snapshots import Agent
from schemas.topics import Topic
from streams.reading import Surveyor
from tests.broker import builders
from tests.broker.builders import an_intent, key, signer
from tests.house import DIRECTORY, PARTITIONS, POLICIES, House, Process, house, now

AGENTS: Final = tuple(f"bench{number:02}" for number in range(20))
QUIET_SECONDS: Final = 1.5
LOOK_SECONDS: Final = 0.1
ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = (
    DIRECTORY.model_copy(
        update={
            "agents": tuple(Agent(id=name, owners=("ada",), users=("ada", "ben"), max_open=10_000) for name in AGENTS),
            "keys": (*DIRECTORY.keys, *(key(name, "agent", name) for name in AGENTS)),
        }
    ),
    builders.ROSTER,
    POLICIES,
    builders.MANIFESTS,
)


@dataclass
class Stand:
    """The realm, and how to measure it."""

    home: House
    kafka: EmbeddedKafka
    surveyor: Surveyor
    counter: int = 0

    def intents(self, count: int) -> list[Intent]:
        """New ones, shared out among the agents."""
        at = now()
        made = [
            an_intent("s3.copy", requester=AGENTS[number % len(AGENTS)], number=self.counter + number, at=at)
            for number in range(count)
        ]
        self.counter += count
        return made

    def sealed(self, intents: Iterable[Intent]) -> list[Sealed]:
        """Signed by each agent."""
        return [seal(each, each.id, signer(each.subject.id), builders.REALM, source="bench") for each in intents]

    async def submit(self, intents: Sequence[Intent]) -> None:
        """Written in one burst."""
        name = self.home.name(topics.INTENTS)
        words = [
            (name, partition_of(each.subject.id, PARTITIONS), sealed)
            for each, sealed in zip(intents, self.sealed(intents), strict=True)
        ]
        for start in range(0, len(words), 5_000):
            await self.home.speaker.say_all(words[start : start + 5_000])

    def places(self, topic: Topic, executor: str | None = None) -> list[TopicPartition]:
        """Every partition of it."""
        name = self.home.name(topic, executor)
        return [TopicPartition(name, number) for number in range(PARTITIONS if topic.is_partitioned else 1)]

    async def end(self, topic: Topic, executor: str | None = None) -> int:
        """The sum of its end offsets."""
        return sum((await self.surveyor.ends(self.places(topic, executor))).values())

    async def settled(self, topic: Topic, at_least: int, within: float, executor: str | None = None) -> None:
        """Wait until there are so many offsets and for a while no more come."""
        last, since = -1, time.monotonic()
        async with asyncio.timeout(within):
            while True:
                end = await self.end(topic, executor)
                if end != last:
                    last, since = end, time.monotonic()
                if end >= at_least and time.monotonic() - since > QUIET_SECONDS:
                    return
                await asyncio.sleep(LOOK_SECONDS)

    async def times(self, topic: Topic, since: int, executor: str | None = None) -> list[int]:
        """The log times of all its records after `since`, in order."""
        return sorted(record.timestamp for record in await self.home.read(topic, executor) if record.timestamp > since)


class Helper:
    """A process of the bench's own, given the variables of a role."""

    def __init__(self, home: House, role: str, module: str, **variables: str) -> None:
        self._command = (sys.executable, "-m", module, str(home.folder))
        self._environment = environment({**home.home.environment(role), **_inherited(), **variables})
        self._log = home.folder / f"{module}-{time.monotonic_ns()}.log"

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()
        elif self.process.returncode != 0:
            raise RuntimeError(f"{self._command}: exit {self.process.returncode}: {self._log.read_text()[-2000:]}")


def _inherited() -> Mapping[str, str]:
    return {name: os.environ[name] for name in ("KEYTURN_CACHE", "HOME") if name in os.environ}


@asynccontextmanager
async def stand(folder: Path) -> AsyncIterator[Stand]:
    """Everything but roles runs."""
    kafka = EmbeddedKafka(folder / "kafka")
    async with kafka as address, house(folder / "realm", address, DOCUMENTS) as home, Surveyor(home.master) as surveyor:
        yield Stand(home, kafka, surveyor)


def resident(process: Process) -> int:
    """Bytes of memory that a role process holds."""
    lines = (line.split() for line in (_proc(process) / "status").read_text().splitlines())
    return next(int(words[1]) for words in lines if words[0] == "VmRSS:") * 1024


def burnt(process: Process) -> float:
    """Seconds of processor time that a role process has used."""
    fields = (_proc(process) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _proc(process: Process) -> Path:
    [started] = process.logged("started")[-1:]
    return Path(f"/proc/{started['pid']}")
