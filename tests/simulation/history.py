"""One history: everybody who takes part, what befalls them, and what is left to be judged.

Shipped code runs in here: `broker.core.partition` with everything below it, `broker.intake.answering`, and the whole
of `executors` from the runner down. What stands in for the world outside is the simulated Kafka, the clocks, the
provider, people and agents, and somebody who forges. Everything follows from the seed.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import orjson
from aiokafka import TopicPartition

from broker.core.partition import CorePartition, Shared
from broker.intake import answering
from executors.runner import Runner
from executors.settings import ExecutorSettings
from schemas import canonical, envelope, ids, topics
from schemas.partition import partition_of
from schemas.record import Record
from schemas.records import (
    Action,
    Channel,
    Context,
    Decision,
    Evidence,
    Fact,
    Genesis,
    Intent,
    Quarantined,
    Resolution,
    Resource,
    Source,
    Subject,
    Verdict,
    Withdrawal,
)
from schemas.snapshots import Snapshot
from schemas.world import World
from streams import connection, crashpoints
from streams.health import Health
from streams.producing import Speaker
from streams.reading import Surveyor
from streams.settings import Settings
from tests.broker.builders import DIGEST, IDP, REALM, account, facts
from tests.broker.builders import signer as ed25519
from tests.simulation import cast
from tests.simulation.clockwork import EPOCH_MS, HERE, Host, KilledError, Loop, StalledError
from tests.simulation.kafka import Fetched, Kafka, bind, plain
from tests.simulation.primitives import signer
from tests.simulation.provider import Plugin, Provider
from tests.simulation.themes import SEATED, Click, Theme, theme_of

PREFIX = "keyturn."
PARTITIONS = 2
OURS = partition_of(cast.BOT, PARTITIONS)
PATIENCE = 20
"""Tries to resolve an `unknown` before administration makes somebody entitled to."""
MOST_TURNS = 60_000
QUIET_SECONDS = 400.0
INPUTS = ("directory", "roster", "policies", "manifests", "classified", "decisions", "reports")
OPEN = {"planning", "pending", "approved", "executing", "unknown"}
KEYED = {
    Channel.API: "api",
    Channel.SLACK: "slack",
}


class UnfinishedError(AssertionError):
    """The faults stopped long ago, and still something waits."""


@dataclass
class Left:
    """What is left of a history, for whoever judges it."""

    seed: int
    theme: str
    logs: dict[str, list[Fetched]]
    effects: list[Any]
    faults: Counter[str]
    reached: Counter[str]
    intents: list[Intent]
    failures: list[tuple[str, str]]
    escaped: list[BaseException]
    ended_at: int
    #: What still waited long after the faults stopped.
    unfinished: str | None = None
    story: list[str] = field(default_factory=list)

    def of(self, topic: str) -> list[Fetched]:
        return self.logs.get(PREFIX + topic, [])

    @property
    def digest(self) -> str:
        """Of everything that was ever durable, with its place and time, and every effect."""
        total = hashlib.sha256()
        for name in sorted(self.logs):
            for record in self.logs[name]:
                total.update(repr(tuple(record)).encode())
        total.update(repr(self.effects).encode())
        total.update(repr(sorted(self.faults.items())).encode())
        return total.hexdigest()


@cache
def settings_of(instance: str) -> Settings:
    return Settings.model_validate(
        {
            "realm": REALM,
            "prefix": PREFIX,
            "kafka": "simulated:9092",
            "kafka_security": "SASL_PLAINTEXT",
            "kafka_username": "simulated",
            "kafka_password": "simulated",
            "root_keys": ed25519("root").public,
            "instance": instance,
        }
    )


EXECUTOR_SETTINGS = ExecutorSettings(world_seconds=3.0, answer_seconds=20.0, acts=2)


def topic_counts() -> dict[str, int]:
    names = settings_of("0").names
    return {
        names.of(topic, "s3" if topic.is_per_executor else None): PARTITIONS if topic.is_partitioned else 1
        for topic in topics.TOPICS
    }


class History:
    """One seed, from genesis until everything ended."""

    def __init__(self, seed: int, theme: Theme | None = None, *, tells: bool = False) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.theme = theme or theme_of(seed)
        self.loop = Loop()
        self.kafka = Kafka(self.loop, self.random, topic_counts())
        self.reached: Counter[str] = Counter()
        self.tells = tells
        self.story: list[str] = []
        self.intents: list[Intent] = []
        self.failures: list[tuple[str, str]] = []
        self.provider = Provider(self.loop, self.random, self.kafka, self.theme.manner(self.random))
        self.world = World(REALM, settings_of("0").roots)
        self.documents: dict[str, Snapshot] = {}
        self.is_over = False
        self.lives: Counter[str] = Counter()
        self.cores: list[Host] = []
        #: As the core last said them.
        self.positions: dict[str, int] = {}
        self.phases: dict[str, str] = {}
        #: Rows that wait for people.
        self.waiting: dict[str, dict[str, Any]] = {}
        self.executors: dict[str, Host] = {}
        self.asked: dict[str, set[str]] = {}
        #: Who stood behind the agent once and does so no longer.
        self.left: frozenset[str] = frozenset()
        #: Of each `unknown`, how often somebody tried to resolve it.
        self.resolving: Counter[str] = Counter()
        self._signed: list[Fetched] = []
        self.unfinished: str | None = None

    # ------------------------------------------------------------ the whole

    def run(self) -> Left:
        """Everything, to the end."""
        asyncio.set_event_loop(None)
        with simulated(self.kafka):
            try:
                self.loop.run_until_complete(self._run())
            except StalledError:
                self.unfinished = "nothing will ever happen again"
            except UnfinishedError as error:
                self.unfinished = str(error)
            finally:
                self._put_out()
        self.reached["interleaving 11"] += self.provider.discarded
        self.reached["calls with a dead credential"] += self.provider.too_late
        self.reached["looks at an unknown"] += self.provider.looks
        logs: dict[str, list[Fetched]] = {}
        for place in sorted(self.kafka.logs):
            logs.setdefault(place.topic, []).extend(
                record for record in self.kafka.logs[place].records if record is not None
            )
        return Left(
            self.seed,
            self.theme.name,
            logs,
            self.provider.effects,
            self.kafka.faults,
            self.reached,
            self.intents,
            self.failures,
            self.loop.escaped,
            self.loop.now_ms,
            self.unfinished,
            self.story,
        )

    def _put_out(self) -> None:
        """Let every task end, so that nothing of one history is left in the next."""
        self.is_over = True
        for host in self.loop.hosts:
            host.kill()
        with suppress(StalledError, KilledError):
            self.loop.run_until_complete(self._nothing())
        self.loop.close()

    async def _nothing(self) -> None:
        for _ in range(50):
            if not any(host.tasks for host in self.loop.hosts):
                return
            await asyncio.sleep(0)

    async def _run(self) -> None:
        theme, random = self.theme, self.random
        self._begin()
        self.kafka.chances = theme.chances(random)
        self.kafka.idle_seconds = theme.idle_seconds
        for second in sorted(random.uniform(0, theme.spread) for _ in range(random.randint(1, theme.most_intents))):
            self.loop.later(second, self._ask)
        self._start_core()
        for name in ("0", "1"):
            self._start_executor(name)
        for kind, many in theme.changes(random):
            for _ in range(many):
                self.loop.later(random.uniform(0.5, theme.seconds), self._change, kind)
        for _ in range(theme.crashes(random)):
            self.loop.later(random.uniform(0.2, theme.seconds), self._befall)
        for _ in range(theme.forgeries(random)):
            self.loop.later(random.uniform(0.5, theme.seconds), self._forge)
        await asyncio.sleep(theme.seconds)
        self.kafka.chances.stop()
        for host in self.loop.hosts:
            host.thaw()
        self.reached["faults stopped"] += 1
        until = self.loop.time() + QUIET_SECONDS
        while not self._is_quiet():
            if self.loop.time() > until or self.loop.turns > MOST_TURNS:
                raise UnfinishedError(self._what_waits())
            await asyncio.sleep(3)

    def tell(self, text: str) -> None:
        if self.tells:
            self.story.append(f"{(self.loop.now_ms - EPOCH_MS) / 1000:9.3f}  {text}")

    # ------------------------------------------------------------ before anything

    def _begin(self) -> None:
        """Genesis, skewed leaders, and the first documents."""
        kafka, random = self.kafka, self.random
        for topic in topics.TOPICS:
            if topic.is_input and topic not in topics.WORLD:
                for number in range(PARTITIONS):
                    name = PREFIX + topic.name
                    kafka.logs[TopicPartition(name, number)].skew_ms = self.theme.leader_skew(topic.name, random)
                    self._put(name, number, Genesis(realm=REALM, topic=topic.name, partition=number), "genesis", "root")
        for log in kafka.logs.values():
            if not log.skew_ms:
                log.skew_ms = random.randint(-1000, 1000)
        self.provider.skew_ms = random.randint(-1000, 1000)
        for document in cast.FIRST:
            self._publish(document)
        kafka.heard.append(self._hear)

    def _put(self, name: str, partition: int, record: Record, key: str, by: str) -> Fetched:
        sealed = envelope.seal(record, key, signer(by), REALM, source="simulation")
        return self.kafka.append(name, partition, sealed.key, sealed.value, sealed.headers)

    def _publish(self, document: Snapshot) -> None:
        topic = cast.topic_of(document)
        statement = cast.signed(document)
        sealed = envelope.reseal(statement, str(document.version), REALM, source="administration")
        record = self.kafka.append(PREFIX + topic, 0, sealed.key, sealed.value, sealed.headers)
        self.documents[topic] = document
        self.world = self.world.with_snapshot(statement, record.timestamp)
        self.tell(f"administration: {topic} version {document.version}")

    def _change(self, kind: str) -> None:
        if self.is_over:
            return
        document, choices = cast.CHANGES[kind]
        topic = document.__name__.lower()
        before = cast.behind(self.documents["directory"])
        self._publish(cast.next_version(self.documents[topic], kind, self.random.randrange(len(choices))))
        self.reached[f"world: {kind}"] += 1
        after = cast.behind(self.documents["directory"])
        self.left = (self.left | before) - after
        if before - after:
            for row in list(self.waiting.values()):
                self._leavers_say_yes(row, canonical.digest_of(row["question"]))
        if kind == "roster":
            for row in list(self.waiting.values()):
                if self.random.random() < self.theme.clicks_at_changes:
                    question = canonical.digest_of(row["question"])
                    who = self.random.choice(SEATED["oncall:night"])
                    self._later(0.03, self._click, row, question, Click(who, Verdict.APPROVE, Channel.API, 0))

    def _leavers_say_yes(self, row: dict[str, Any], question: str) -> None:
        """Nobody leaves the circle by leaving (law 2): who stood behind the agent tries."""
        if not self.theme.leavers_click:
            return
        for who in sorted(self.left):
            if self.random.random() < self.theme.leavers_click:
                self.reached["world: a leaver says yes"] += 1
                self._later(2, self._click, row, question, Click(who, Verdict.APPROVE, Channel.API, 0))

    # ------------------------------------------------------------ processes

    def _start_core(self) -> None:
        """The group gave the partition to a process: fenced is whoever had it before."""
        if self.is_over:
            return
        self.lives["core"] += 1
        host = Host(self.loop, f"core-{self.lives['core']}", self.random.randint(*self.theme.core_skew))
        self.cores.append(host)
        self.tell(f"{host} starts")
        settings = settings_of("0")

        async def serve() -> None:
            async with Speaker(settings) as speaker, Surveyor(settings) as surveyor:
                shared = Shared(PARTITIONS, signer("core"), speaker, surveyor, host.clock)  # type: ignore[arg-type]
                await CorePartition(settings, OURS, shared).run(asyncio.Event(), lambda: None)

        host.at_end.append(lambda: self._core_ended(host))
        host.run(serve())

    def _core_ended(self, host: Host) -> None:
        self._note_end(host)
        if not self.is_over and host is self.cores[-1]:
            self.loop.later(self.random.uniform(0.3, 3.0), self._replace_core, host)

    def _replace_core(self, before: Host) -> None:
        if self.cores[-1] is before:
            self._start_core()

    def _start_executor(self, name: str) -> None:
        if self.is_over:
            return
        self.lives[name] += 1
        host = Host(self.loop, f"executor-{name}-{self.lives[name]}", self.random.randint(-1000, 1000))
        self.executors[name] = host
        self.tell(f"{host} starts")

        instance = f"s3-{name}-{self.lives[name]}"

        async def serve() -> None:
            made = Runner(
                settings_of(name),
                EXECUTOR_SETTINGS,
                cast.MANIFESTS.executors[0],
                Plugin(self.provider, host, instance),
                signer("s3"),
                host.clock,
                instance,
            )
            await made.run(Health(0), asyncio.Event())

        host.at_end.append(lambda: self._executor_ended(host, name))
        host.run(serve())

    def _executor_ended(self, host: Host, name: str) -> None:
        self._note_end(host)
        if not self.is_over:
            self.loop.later(self.random.uniform(0.5, 4.0), self._start_executor, name)

    def _note_end(self, host: Host) -> None:
        if self.is_over:
            return
        if host.failure is not None:
            what = type(host.failure).__name__
            self.failures.append((host.name, f"{what}: {host.failure}"))
            self.kafka.faults[f"{host.name.split('-')[0]} stopped by {what}"] += 1
        self.tell(f"{host} is gone" + (f": {host.failure!r}" if host.failure else ""))

    def _befall(self) -> None:
        """Something happens to some process."""
        if self.is_over:
            return
        random = self.random
        living = [host for host in (self.cores[-1], *self.executors.values()) if not (host.is_dead or host.is_frozen)]
        if not living:
            return
        host = random.choice(living)
        who = host.name.split("-")[0]
        if random.random() < 0.4:
            self.kafka.faults[f"{who} killed"] += 1
            self.tell(f"{host} is killed")
            host.kill()
            return
        seconds = random.choice((0.3, 2.0, 8.0, 15.0, 40.0)) * random.uniform(0.5, 1.5)
        self.kafka.faults[f"{who} frozen"] += 1
        self.tell(f"{host} is frozen for {seconds:.1f} s")
        host.freeze()
        self.loop.later(seconds, self._thaw, host)
        if who == "core":
            if seconds > 6:
                self.loop.later(6.0, self._replace_frozen, host)
        else:
            for group in self.kafka.groups.values():
                group.suspect(host)

    def _freeze_actor(self, instance: str) -> None:
        for name, host in self.executors.items():
            if instance == f"s3-{name}-{self.lives[name]}" and not self.is_over:
                self.loop.later(self.random.uniform(0.0, 6.0), self._freeze, host, self.random.uniform(30, 55))

    def _freeze(self, host: Host, seconds: float) -> None:
        if host.is_dead or host.is_frozen:
            return
        self.kafka.faults["actor frozen past its lease"] += 1
        self.tell(f"{host} is frozen for {seconds:.1f} s")
        host.freeze()
        self.loop.later(seconds, self._thaw, host)
        for group in self.kafka.groups.values():
            group.suspect(host)

    def _replace_frozen(self, host: Host) -> None:
        if host.is_frozen and self.cores[-1] is host:
            self.kafka.faults["core replaced while frozen"] += 1
            self._start_core()

    def _thaw(self, host: Host) -> None:
        if host.is_frozen:
            self.tell(f"{host} wakes")
        host.thaw()

    # ------------------------------------------------------------ agents and intake

    def _ask(self) -> None:
        random, theme = self.random, self.theme
        number = len(self.intents) + 1
        properties: dict[str, Any] = {"bucket": "locked" if random.random() < 0.03 else "reports"}
        if random.random() < 0.2:
            properties["count"] = random.choice((1, 500))
        if random.random() < 0.03:
            properties["force"] = True
        if random.random() < 0.02:
            properties["unheard"] = "of"
        intent = Intent(
            id=ids.intent_id(cast.BOT, self.loop.now_ms + random.choice((0, 0, 0, -100)), number.to_bytes(10)),
            subject=Subject(type="agent", id=cast.BOT),
            action=Action(name=f"s3.{theme.action(random)}", properties=properties),
            resource=Resource(type="bucket", id="reports"),
            context=Context(reason="because"),
            ttl=theme.ttl(random),
        )
        if random.random() < 0.02:
            at = self.loop.now_ms + random.choice((-2 * cast.DAY, cast.DAY))
            intent = intent.model_copy(update={"id": ids.intent_id(cast.BOT, at, number.to_bytes(10))})
        self.intents.append(intent)
        self.tell(f"bot asks {intent.action.name} {intent.id[-4:]} ttl {intent.ttl}")
        self._put(PREFIX + "intents", OURS, intent, intent.id, cast.BOT)
        if random.random() < 0.1:
            # Another body under the same id.
            self._later(6, self._put_if_alive, "intents", intent.model_copy(update={"ttl": 7}), intent.id, cast.BOT)
        if random.random() < theme.withdraws:
            by = random.choice(("bot", "bot", "ada", "ben"))
            self._later(theme.withdraw_within, self._withdraw, intent, by)

    def _withdraw(self, intent: Intent, by: str) -> None:
        if self.is_over:
            return
        kind = "agent" if by == cast.BOT else "person"
        withdrawal = Withdrawal(intent=intent.id, by=Subject(type=kind, id=by))  # type: ignore[arg-type]
        self.tell(f"{by} withdraws {intent.id[-4:]}")
        self._put(PREFIX + "intents", OURS, withdrawal, intent.id, cast.BOT if by == cast.BOT else "gateway")

    def _later(self, within: float, call: Any, *arguments: Any) -> None:
        self.loop.later(self.random.uniform(0, within), call, *arguments)

    def _put_if_alive(self, topic: str, record: Record, key: str, by: str) -> None:
        if not self.is_over:
            self._put(PREFIX + topic, OURS, record, key, by)

    def _take_in(self, record: Fetched, world: World, *, is_swept: bool = False) -> None:
        """Intake: stateless, at least once; what it lost the sweep drives again."""
        if self.is_over:
            return
        random, theme = self.random, self.theme
        if not is_swept and random.random() < theme.intake_loses and record.offset:
            self.kafka.faults["intake lost a record"] += 1
            self.loop.later(random.uniform(5, 20), self._take_in, record, self.world)
            return
        source = Source(topic="intents", partition=record.partition, offset=record.offset)
        raw = answering.Raw(source, record.timestamp, record.key, record.value, record.headers)
        if raw.is_genesis:
            return
        received = answering.receive(raw, world, PARTITIONS)
        if isinstance(received, answering.Admitted):
            found: tuple[Fact, ...] = facts(**({"owner": None} if random.random() < 0.2 else {}))
            received = answering.classify(received, found, world)
        if isinstance(received, Quarantined):
            self._put(PREFIX + "quarantine", OURS, received, "intents", "intake")
            self.reached["intake quarantined"] += 1
            return
        key = (record.key or b"").decode()
        self._put(PREFIX + "classified", OURS, received, key, "intake")
        if random.random() < theme.duplicates:
            self.kafka.faults["intake said it twice"] += 1
            self._later(10, self._put_if_alive, "classified", received, key, "intake")

    def _read_late(self, record: Fetched) -> None:
        """Intake was behind: who stood behind the requester at the asking may have left since."""
        self._take_in(record, self.world)

    def _say_again(self, record: Fetched, name: str) -> None:
        """A writer that did not hear that it was heard."""
        if not self.is_over:
            self.kafka.faults[f"said again: {name}"] += 1
            again = self.kafka.append(record.topic, record.partition, record.key, record.value, record.headers)
            self.tell(f"{name}/{record.offset} comes again at {again.offset}")

    # ------------------------------------------------------------ people

    def _hear(self, record: Fetched) -> None:
        """Whatever becomes durable may move somebody."""
        match plain(record.topic):
            case "intents":
                # Intake may know an older world than the one in force when it speaks.
                delay = self.random.random() ** 3 * self.theme.intake_seconds
                if self.theme.intake_is_behind and self.random.random() < self.theme.intake_is_behind:
                    self.kafka.faults["intake was behind"] += 1
                    self.loop.later(self.random.uniform(3, 15), self._read_late, record)
                else:
                    self.loop.later(delay, self._take_in, record, self.world)
            case "pending" if record.value is not None:
                body = orjson.loads(record.value)
                if record.key == b"progress":
                    self.positions = body["positions"]
                else:
                    self.phases[body["intent_id"]] = body["phase"]
                    self._show(body)
            case "classified" | "decisions" | "reports" as name:
                self._signed.append(record)
                if self.random.random() < self.theme.said_again and not self.is_over:
                    self.loop.later(self.random.uniform(0.1, 25), self._say_again, record, name)
            case _:
                pass

    def _show(self, row: dict[str, Any]) -> None:
        """The card: who sees it clicks, sooner or later."""
        self.reached[f"row: {row['phase']}"] += 1
        if row["phase"] == "pending":
            self.waiting[row["intent_id"]] = row
        else:
            self.waiting.pop(row["intent_id"], None)
        if row["phase"] == "executing" and self.random.random() < self.theme.freezes_actor:
            self._freeze_actor(row["grant"]["instance"])
        if row["phase"] == "unknown" and row["intent_id"] not in self.resolving:
            self.resolving[row["intent_id"]] += 1
            self.loop.later(self.random.uniform(*self.theme.resolve_seconds), self._resolve, row)
        if row["phase"] not in {"pending", "approved"}:
            if row["phase"] == "executing" and self.random.random() < self.theme.late_words:
                self._say_too_late(row)
            return
        question = canonical.digest_of(row["question"])
        known = self.asked.setdefault(row["intent_id"], set())
        if question in known:
            return
        known.add(question)
        if len(known) > 1:
            self.reached["asked again"] += 1
        self._leavers_say_yes(row, question)
        expires_at = row.get("expires_at", 0)
        for click in self.theme.clicks(self.random, row):
            at = click.at(self.loop.now_ms, expires_at)
            self.loop.later(max(0.0, (at - self.loop.now_ms) / 1000), self._click, row, question, click)
            if self.random.random() < self.theme.duplicates:
                self.loop.later(
                    max(0.0, (at - self.loop.now_ms) / 1000) + self.random.uniform(0, 9),
                    self._click,
                    row,
                    question,
                    click,
                )

    def _say_too_late(self, row: dict[str, Any]) -> None:
        intent = next((each for each in self.intents if each.id == row["intent_id"]), None)
        if intent is None:
            return
        if self.random.random() < 0.5:
            self._later(3, self._withdraw, intent, "bot")
            return
        voters = [vote["person"] for vote in row.get("votes", ())]
        verdict = self.random.choice((Verdict.REVOKE, Verdict.DENY))
        question = canonical.digest_of(row["question"])
        if voters:
            self._later(3, self._click, row, question, Click(voters[0], verdict, Channel.API, 0))

    def _click(self, row: dict[str, Any], question: str, click: Any) -> None:
        if self.is_over:
            return
        now = self.loop.now_ms
        subject = click.person if click.account is None else click.account
        decision = Decision(
            intent=row["intent_id"],
            question=click.question or question,
            verdict=click.verdict,
            account=account(subject, click.channel.value),
            person=click.person if click.names_person else None,
            channel=click.channel,
            evidence=_evidence(click.channel, now),
            card=DIGEST,
        )
        self.tell(f"{click.person} says {click.verdict.value} to {row['intent_id'][-4:]} by {click.channel.value}")
        record = self._put(PREFIX + "decisions", OURS, decision, row["intent_id"], click.by or KEYED[click.channel])
        if self.theme.name.startswith("5"):
            self.tell(f"   log time {record.timestamp - EPOCH_MS}")

    def _resolve(self, row: dict[str, Any]) -> None:
        """Somebody looked with their own eyes, and says the truth."""
        if self.is_over or row.get("grant") is None:
            return
        random = self.random
        grant = canonical.digest_of(row["grant"])
        found = "succeeded" if self.provider.was_done(grant) else "failed"
        who = random.choice(("dan", "eve", "gus", "ivy", "kim", "hal", "ada", "jon"))
        channel = random.choice((Channel.API, Channel.SLACK))
        resolution = Resolution(
            intent=row["intent_id"],
            grant=grant if random.random() < 0.9 else DIGEST,
            found=found,  # type: ignore[arg-type]
            account=account(who, channel.value),
            channel=channel,
            evidence=_evidence(channel, self.loop.now_ms),
            reason="looked",
            card=DIGEST,
        )
        self.tell(f"{who} resolves {row['intent_id'][-4:]} as {found}")
        self._put(PREFIX + "decisions", OURS, resolution, row["intent_id"], KEYED[channel])
        if self._phase_of(row["intent_id"]) == "unknown" or random.random() < 0.5:
            self.loop.later(random.uniform(1, 10), self._resolve_again, row)

    def _resolve_again(self, row: dict[str, Any]) -> None:
        if self._phase_of(row["intent_id"]) != "unknown":
            return
        self.resolving[row["intent_id"]] += 1
        if self.resolving[row["intent_id"]] == PATIENCE:
            self._change("relief")
        self._resolve(row)

    # ------------------------------------------------------------ forgers

    def _forge(self) -> None:
        """Whoever can write to a topic, and has no key, or the wrong one."""
        if self.is_over or not self._signed:
            return
        random = self.random
        record = random.choice(self._signed)
        name = plain(record.topic)
        match random.choice(
            ("replay", "replay", "replay", "body", "role", "realm", "key", "garbage", "headers", "place")
        ):
            case "replay":
                self.kafka.append(record.topic, record.partition, record.key, record.value, record.headers)
                self.kafka.faults[f"replayed: {name}"] += 1
            case "body":
                value = (record.value or b"").replace(b'"deny"', b'"approve"').replace(b'"failed"', b'"succeeded"')
                value = value if value != record.value else value.replace(b"s3", b"s4", 1).replace(b"api", b"apo", 1)
                self.kafka.append(record.topic, record.partition, record.key, value, record.headers)
                self.kafka.faults["forged: body"] += 1
            case "role" | "realm" as what:
                statement = _statement_of(record)
                realm = REALM if what == "role" else "staging"
                by = signer(random.choice(("gateway", "iam", "bot", "slack", "nobody"))) if what == "role" else None
                if statement is None:
                    return
                made = by or signer({"decisions": "api", "reports": "s3"}.get(name, "intake"))
                from schemas import signing

                sig = signing.sign(made, realm, statement.type, statement.value)
                forged = statement.model_copy(update={"keyid": made.keyid, "sig": sig})
                sealed = envelope.reseal(forged, (record.key or b"").decode(), REALM, source="forger")
                self.kafka.append(record.topic, record.partition, sealed.key, sealed.value, sealed.headers)
                self.kafka.faults[f"forged: {what}"] += 1
            case "key":
                self.kafka.append(record.topic, record.partition, b"bot.elsewhere", record.value, record.headers)
                self.kafka.faults["forged: key"] += 1
            case "garbage":
                value = random.choice((b"", b"{}", b"null", b"{", b"\xff" * 30, (record.value or b"")[:-1]))
                self.kafka.append(record.topic, record.partition, record.key, value, record.headers)
                self.kafka.faults["garbage"] += 1
            case "headers":
                headers = tuple(
                    each for each in record.headers if each[0] != random.choice(("sig", "keyid", "ce_type"))
                )
                twice = record.headers + tuple(each for each in record.headers if each[0] == "sig")
                self.kafka.append(
                    record.topic, record.partition, record.key, record.value, random.choice((headers, twice, ()))
                )
                self.kafka.faults["forged: headers"] += 1
            case _:
                other = random.choice(("classified", "decisions", "reports", "ticks", "approved.s3", "policies"))
                self.kafka.append(
                    PREFIX + other, 0 if other == "policies" else OURS, record.key, record.value, record.headers
                )
                self.kafka.faults["forged: another topic"] += 1

    # ------------------------------------------------------------ the end

    def _phase_of(self, intent_id: str) -> str | None:
        return self.phases.get(intent_id)

    def _is_quiet(self) -> bool:
        """Every input is decided, every intent has ended, and every executor has said what it had to."""
        if self.cores[-1].is_dead or any(self._waits()):
            return False
        group = self.kafka.groups.get(f"{PREFIX}executor-s3")
        if group is None:
            return False
        for topic in ("planning.s3", "approved.s3"):
            place = TopicPartition(PREFIX + topic, OURS)
            last = max((each.offset for each in self.kafka.logs[place].records if each is not None), default=-1)
            if group.furthest.get(place, 0) <= last:
                return False
        return True

    def _waits(self) -> Iterator[str]:
        # A tick that moves nothing leaves no trace: how far ticks are decided may stay unsaid.
        for name in INPUTS:
            place = TopicPartition(PREFIX + name, OURS if self.kafka.topics[PREFIX + name] > 1 else 0)
            # Nor does genesis.
            if self.positions.get(name, 0) < self.kafka.end(place) > 1:
                yield f"{name} is decided up to {self.positions.get(name, 0)} of {self.kafka.end(place)}"
        for intent, phase in self.phases.items():
            if phase in OPEN:
                yield f"{intent[-4:]} is {phase}"

    def _what_waits(self) -> str:
        living = [str(host) for host in self.loop.hosts if not host.is_dead]
        return f"{'; '.join(self._waits()) or 'executors'}; {self.loop.turns} turns; {', '.join(living)} live"


def _evidence(channel: Channel, now: int) -> Evidence:
    if channel is Channel.API:
        return Evidence(kind="oidc", digest=DIGEST, issuer=IDP, auth_time=now // 1000 - 60)
    return Evidence(kind="chat", digest=DIGEST)


def _statement_of(record: Fetched) -> Any:
    from schemas.envelope import EnvelopeError

    try:
        return envelope.unseal(record.headers, record.value, BY_NAME[plain(record.topic)].types)
    except EnvelopeError:
        return None


BY_NAME = {topic.name: topic for topic in topics.TOPICS}


@contextmanager
def simulated(kafka: Kafka) -> Iterator[None]:
    """While it lasts, the rooms' one way to Kafka leads here, and processes die at the places named for it."""

    def reached(name: str) -> None:
        host = HERE.get()
        if host is not None and not host.is_dead and kafka.chance(kafka.chances.dies_at, f"died at {name}"):
            host.kill()
            raise KilledError(name)

    reader, writer = bind(kafka)
    before = connection.AIOKafkaConsumer, connection.AIOKafkaProducer, crashpoints.reached
    logging.disable(logging.CRITICAL)
    connection.AIOKafkaConsumer, connection.AIOKafkaProducer, crashpoints.reached = reader, writer, reached
    try:
        yield
    finally:
        connection.AIOKafkaConsumer, connection.AIOKafkaProducer, crashpoints.reached = before
        logging.disable(logging.NOTSET)
