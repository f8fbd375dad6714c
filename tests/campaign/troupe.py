"""The processes of a campaign: two of each role, started in arms, supervised, struck, timed until they serve again."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, Self

from sandbox import ports
from sandbox.kafka import EmbeddedKafka, KafkaCluster
from sandbox.roles import HEALTH, environment, is_ready, together
from sandbox.supervise import Backoff, Child, Places, State
from streams.realm import RealmFolder
from tests.campaign.armed import TAKEN
from tests.campaign.script import Order

ARMED: Final = Path(__file__).with_name("armed.py")
LOOK_SECONDS: Final = 0.05
AGAIN: Final = Backoff(timedelta(milliseconds=100), timedelta(milliseconds=400))
KAFKA: Final = "kafka"


@dataclass(frozen=True, slots=True)
class Part:
    """One process."""

    #: What its points and orders are called by.
    kind: str
    #: What follows `keyturn run`.
    words: tuple[str, ...]
    #: Its environment file, without `.env`.
    environment: str
    instance: str

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.instance}"


PARTS: Final = (
    *(Part("intake", ("intake",), "intake", instance) for instance in "ab"),
    *(Part("core", ("core",), "core", instance) for instance in "ab"),
    *(Part("executor", ("executor", "s3"), "executor-s3", instance) for instance in "ab"),
    Part("gateway", ("gateway",), "gateway", "a"),
    Part("api", ("api",), "notifier-api", "a"),
)
TOLD: Final = {"intake": {"KEYTURN_INTAKE_SWEEP_SECONDS": "3"}}


@dataclass
class Troupe:
    """All of them, in one realm's folder. `async with`: all serve inside, all are gone outside."""

    folder: Path
    kafka: EmbeddedKafka | KafkaCluster
    parts: tuple[Part, ...] = PARTS
    #: Seconds from a death until the same process serves again, by kind.
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    #: By point.
    hits: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    #: How long a process that stops itself at a point stays stopped.
    pause: float = 1.0
    _children: dict[str, Child] = field(default_factory=dict, init=False)
    _health: dict[str, int] = field(default_factory=dict, init=False)
    _read: Counter[str] = field(default_factory=Counter, init=False)
    _orders: int = field(default=0, init=False)
    _watching: list[asyncio.Task[None]] = field(default_factory=list, init=False)
    _resuming: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        for each in ("hits", *(f"orders/{part.kind}" for part in self.parts)):
            (self.folder / each).mkdir(parents=True, exist_ok=True)
        home = RealmFolder(self.folder)
        places = Places.under(self.folder)
        free = ports.choose(len(self.parts), secrets.token_bytes)
        for part, port in zip(self.parts, free, strict=True):
            self._health[part.name] = port
            variables = home.environment(part.environment) | {
                HEALTH: str(port),
                "KEYTURN_INSTANCE": part.instance,
                "KEYTURN_STATE": str(self.folder / "state" / part.name),
                **TOLD.get(part.kind, {}),
            }
            command = ("run", *part.words, "--dir", str(self.folder))
            self._children[part.name] = Child(
                part.name,
                (sys.executable, "-P", str(ARMED), str(self.folder), part.name, part.kind, *command),
                environment(variables),
                ready=partial(is_ready, port),
                places=places,
                preflight=partial(ports.require_free, port, f"the health of {part.name}"),
                restart=AGAIN,
            )

    async def __aenter__(self) -> Self:
        try:
            await together(child.start() for child in self._children.values())
        except BaseException:
            await self._stop()
            raise
        watched = [(part.kind, self._children[part.name]) for part in self.parts]
        watched += [(KAFKA, node) for node in self.kafka.children.values()]
        self._watching = [asyncio.create_task(self._watch(kind, child)) for kind, child in watched]
        self._watching.append(asyncio.create_task(self._keep_looking(), name="hits"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._watching, *self._resuming):
            task.cancel()
        await self._stop()

    async def _stop(self) -> None:
        for child in self._children.values():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGCONT)
        await together(child.stop() for child in self._children.values())

    # ------------------------------------------------------------ striking

    def order(self, order: Order) -> None:
        """From now on: whoever of its kind gets there first obeys."""
        self._orders += 1
        file = self.folder / "orders" / order.kind / f"{self._orders:05}.json"
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps({"point": order.point, "nth": order.nth, "signal": order.signal}))
        aside.rename(file)

    def call_off(self) -> int:
        """Forget the orders that nobody has obeyed yet; how many these are."""
        left = list((self.folder / "orders").glob("*/*.json"))
        for file in left:
            with contextlib.suppress(FileNotFoundError):
                file.rename(file.with_suffix(".off"))
        return len(left)

    def strike(self, victim: str, number: signal.Signals, seconds: float) -> None:
        """A signal to a process by name; who is stopped goes on after so many seconds."""
        child = (self._children | self.kafka.children)[victim]
        if child.pid is None:
            return
        # Who died a moment ago is struck already.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
            if number is signal.SIGSTOP:
                self._resume_later(child, child.pid, seconds)

    def names(self, kind: str) -> list[str]:
        return [*self.kafka.children] if kind == KAFKA else [part.name for part in self.parts if part.kind == kind]

    def _resume_later(self, child: Child, pid: int, seconds: float) -> None:
        async def resume() -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        task = asyncio.create_task(resume(), name=f"resume {child.name}")
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    # ------------------------------------------------------------ watching

    def look(self) -> None:
        """Take in what the processes have noted since the last look; whoever stopped itself is resumed later."""
        for part in self.parts:
            path = self.folder / "hits" / part.name
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._read[part.name])
                whole = file.read().rpartition(b"\n")[0]
            self._read[part.name] += len(whole) + 1 if whole else 0
            for line in whole.decode().splitlines():
                self._note(part, line)

    def _note(self, part: Part, line: str) -> None:
        if not line.startswith(TAKEN):
            self.hits[line] += 1
            return
        what, _, point = line.removeprefix(TAKEN).partition(" ")
        self.struck[point] += 1
        child = self._children[part.name]
        if what == signal.SIGSTOP.name and child.pid is not None:
            self._resume_later(child, child.pid, self.pause)

    async def _watch(self, kind: str, child: Child) -> None:
        """Time each death until the same child is ready again."""
        deaths = child.deaths
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if child.deaths == deaths:
                continue
            began = time.monotonic()
            while child.state is not State.READY:  # noqa: ASYNC110 - a child's state sets no event
                await asyncio.sleep(LOOK_SECONDS)
            deaths = child.deaths
            self.recoveries[kind].append(time.monotonic() - began)

    async def _keep_looking(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def serve(self, within: float = 90.0) -> None:
        """Wait until nobody is stopped any more and every process is ready."""
        async with asyncio.timeout(within):
            while self._resuming or not await self._all_ready():  # noqa: ASYNC110 - nor do other processes
                await asyncio.sleep(LOOK_SECONDS)

    async def _all_ready(self) -> bool:
        children = [*self._children.values(), *self.kafka.children.values()]
        if any(child.state is not State.READY or child.pid is None for child in children):
            return False
        return all([await is_ready(port) for port in self._health.values()])

    def fail_stops(self) -> Counter[str]:
        """How often a process ended by itself, and why, by kind and error: all of it was caused by what was struck."""
        found: Counter[str] = Counter()
        for part in self.parts:
            for log in (self._children[part.name].log_path, self._children[part.name].log_path.with_suffix(".log.1")):
                for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
                    if '"message": "fail-stop"' in line:
                        found[f"{part.kind}: {json.loads(line)['error']:.90}"] += 1
        return found

    def tails(self) -> str:
        """The end of every log: for whoever must find out why."""
        return "\n".join(f"--- {name}\n{child.tail()}" for name, child in self._children.items())
