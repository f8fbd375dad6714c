"""Plays one run: asks, clicks and blows at once; then everything serves again, every intent ends, and it is judged."""

import asyncio
import contextlib
import hashlib
import json
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from gateway import contract as contract_of_gateway
from notifiers.api import contract
from notifiers.api.client import Client, ClientSettings, ForbiddenError, GoneError, TemporaryError
from sandbox import story
from sandbox.agent import SandboxAgent
from sandbox.roles import environment, keyturn
from sandbox.world import SandboxWorld, TokenRefusedError
from schemas import envelope, topics
from schemas.record import Record
from schemas.records import FINAL, Intent, IntentStatus, Phase, Refusal, Subject, Verdict, Withdrawal
from streams import connection, reading
from streams.errors import StreamError
from tests.campaign.realm import clock
from tests.campaign.script import AGENTS, BY_HTTP, LONG_TTL, SHORT_TTL, Ask, Blow, Script, Wish
from tests.campaign.troupe import Troupe

ORACLE: Final = Path(__file__).with_name("oracle.py")
AGAIN_SECONDS: Final = 0.2
END_SECONDS: Final = 300.0
"""How long an intent may take once everything serves again."""
TOKEN_SECONDS: Final = 1800.0
BIG: Final = b"x" * 600_000
OPEN: Final = frozenset({Phase.PLANNING, Phase.PENDING})
T = TypeVar("T")


@dataclass
class Life:
    """One intent, as seen from outside."""

    ask: Ask
    intent: Intent
    prefix: str
    bucket: str
    #: Where each object must be in the end, and the SHA-256 of its bytes.
    objects: dict[str, str]
    #: Whether anybody, or a rule, ever said yes.
    consented: bool = False


@dataclass(frozen=True)
class Judged:
    """What came of a run."""

    seconds: float
    ends: Counter[str]
    faults: tuple[str, ...]
    not_reached: int


class Hearer:
    """Follows `status` with an auditor's rights: the newest status of every intent."""

    def __init__(self, world: SandboxWorld) -> None:
        self._settings = world.settings("auditor")
        self._consumer = connection.reader(self._settings)
        self._heard: dict[str, IntentStatus] = {}
        #: When each phase of an intent was first heard of.
        self.times: dict[str, dict[Phase, float]] = {}
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Hearer"]:
        await connection.start(self._consumer, self._settings)
        name = self._settings.names.of(topics.STATUS)
        count = (await connection.require_partitions(self._consumer, [name]))[name]
        await reading.assign_from_start(self._consumer, connection.places(name, count))
        following = asyncio.create_task(self._follow(), name="status")
        try:
            yield self
        finally:
            following.cancel()
            await asyncio.wait({following})
            await self._consumer.stop()

    def phase(self, intent: str) -> Phase | None:
        status = self._heard.get(intent)
        return status.phase if status is not None else None

    async def until(self, intent: str, holds: Callable[[Phase | None], bool]) -> Phase | None:
        while not holds(phase := self.phase(intent)):
            changed = self._changed
            await changed.wait()
        return phase

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(KafkaError):
                for records in (await self._consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        if record.value is not None:
                            status = IntentStatus.from_bytes(record.value)
                            self._heard[status.intent] = status
                            self.times.setdefault(status.intent, {}).setdefault(status.phase, time.monotonic())
                    self._changed.set()
                    self._changed = asyncio.Event()


@dataclass
class Stage:
    """Everything that is the same from run to run in one realm."""

    world: SandboxWorld
    troupe: Troupe
    hearer: Hearer
    s3: Any
    oracle: asyncio.subprocess.Process
    agents: dict[str, SandboxAgent] = field(default_factory=dict)
    _stacks: dict[str, AsyncExitStack] = field(default_factory=dict)
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)

    # ------------------------------------------------------------ one run

    async def play(self, script: Script) -> Judged:
        """From the first intent until everything ended and was judged."""
        began = time.monotonic()
        self.troupe.pause = script.pause
        for order in script.orders:
            self.troupe.order(order)
        lives: list[Life] = [await self.life(ask) for ask in script.asks]
        living = {asyncio.create_task(self.live(life), name=life.intent.id) for life in lives}
        blowing = [asyncio.create_task(self._blow(script, blow), name="blow") for blow in script.blows]
        faults: list[str] = []
        for task in blowing:
            await task
        try:
            _, left = await asyncio.wait(living, timeout=END_SECONDS)
            await self.troupe.serve()
            if left:
                _, left = await asyncio.wait(left, timeout=END_SECONDS)
            for task in left:
                phase = self.hearer.phase(task.get_name())
                faults.append(f"{task.get_name()}: not ended, but {phase.value if phase else 'never heard of'}")
                task.cancel()
        except TimeoutError:
            faults.append("not every role serves again")
        failed = [(task, task.exception()) for task in living if task.done() and not task.cancelled()]
        faults += [f"{task.get_name()}: {error!r}" for task, error in failed if error is not None]
        not_reached = self.troupe.call_off()
        verdict = await self.judged(lives)
        ends = Counter(phase.value if (phase := self.hearer.phase(life.intent.id)) else "nothing" for life in lives)
        return Judged(time.monotonic() - began, ends, (*faults, *verdict["faults"]), not_reached)

    async def judged(self, lives: list[Life]) -> dict[str, Any]:
        """The oracle's judgement of the effects."""
        asked = [
            {
                "id": life.intent.id,
                "bucket": life.bucket,
                "prefix": life.prefix,
                "objects": life.objects,
                "consented": life.consented,
                "told": phase.value if (phase := self.hearer.phase(life.intent.id)) is not None else None,
            }
            for life in lives
        ]
        s3 = self.world.s3
        case = {
            "endpoint": s3.endpoint,
            "region": s3.region,
            "access_key": s3.admin.access_key,
            "secret_key": s3.admin.secret_key,
            "intents": asked,
        }
        assert self.oracle.stdin is not None
        assert self.oracle.stdout is not None
        self.oracle.stdin.write(json.dumps(case).encode() + b"\n")
        await self.oracle.stdin.drain()
        async with asyncio.timeout(150):
            line = await self.oracle.stdout.readline()
        verdict: dict[str, Any] = json.loads(line)
        return verdict

    async def _blow(self, script: Script, blow: Blow) -> None:
        await asyncio.sleep(blow.at)
        names = self.troupe.names(blow.victim)
        victim = names[script.seed // 7 % len(names)]
        self.troupe.strike(victim, signal.Signals[blow.signal], script.pause)

    # ------------------------------------------------------------ one life

    async def life(self, ask: Ask) -> Life:
        """An intent with objects of its own to export."""
        prefix = f"c/{secrets.token_hex(6)}/"
        source = story.BROCHURES if ask.wish is Wish.PUBLIC else story.CUSTOMERS
        bucket = story.WEBSITE if ask.wish is Wish.FORBIDDEN else story.EXPORTS
        objects: dict[str, str] = {}
        bodies = (BIG, BIG) if ask.wish is Wish.BIG else (b"some customers\n",) * ask.objects
        for number, body in enumerate(bodies):
            key, whole = f"{prefix}{number:03}", body + prefix.encode()
            await self.s3.put_object(Bucket=source, Key=key, Body=whole)
            objects[key] = hashlib.sha256(whole).hexdigest()
        properties = {
            "source_bucket": source,
            "source_prefix": prefix,
            "destination_bucket": bucket,
            "destination_prefix": prefix,
        }
        ttl = SHORT_TTL if ask.wish is Wish.EXPIRED else LONG_TTL
        intent = self.agents[ask.agent].intent("s3.export", ("bucket", source), properties, ask.wish.value, ttl)
        return Life(ask, intent, prefix, bucket, objects, consented=ask.wish is Wish.PUBLIC)

    async def live(self, life: Life) -> None:
        """Ask, let people say what they say, and wait for the end."""
        await asyncio.sleep(life.ask.at)
        intent = life.intent
        await self._submit(life)
        match life.ask.wish:
            case Wish.APPROVED:
                await self._decide(life, "cho", Verdict.APPROVE)
            case Wish.BIG:
                await self._decide(life, "cho", Verdict.APPROVE)
                await self._decide(life, "eli", Verdict.APPROVE)
            case Wish.DENIED:
                await self._decide(life, "cho", Verdict.DENY)
            case Wish.REVOKED:
                await self._decide(life, "cho", Verdict.APPROVE)
                await self._decide(life, "cho", Verdict.REVOKE)
            case Wish.WITHDRAWN:
                await self.hearer.until(intent.id, lambda phase: phase is not None and phase is not Phase.PLANNING)
                await self._withdraw(life)
            case Wish.PUBLIC | Wish.EXPIRED | Wish.FORBIDDEN:
                pass
        await self.hearer.until(intent.id, lambda phase: phase in FINAL)

    async def _submit(self, life: Life) -> None:
        intent, name = life.intent, life.ask.agent
        if name in BY_HTTP:
            await self._through_the_gateway(name, "/v1/intents", contract_of_gateway.SEALED_INTENT, intent, intent.id)
        else:
            await self._as_agent(name, lambda agent: agent.submit(intent))

    async def _withdraw(self, life: Life) -> None:
        intent_id, name = life.intent.id, life.ask.agent
        if name in BY_HTTP:
            path, kind = f"/v1/intents/{intent_id}/withdraw", contract_of_gateway.SEALED_WITHDRAWAL
            record = Withdrawal(intent=intent_id, by=Subject(type="agent", id=name))
            await self._through_the_gateway(name, path, kind, record, intent_id)
        else:
            await self._as_agent(name, lambda agent: agent.withdraw(intent_id))

    async def _through_the_gateway(self, name: str, path: str, kind: str, record: Record, intent_id: str) -> None:
        """Send the same bytes until they are acknowledged, or it is too late."""
        settings = self.world.settings(f"agent-{name}")
        sealed = envelope.seal(record, intent_id, settings.signer(), settings.realm, source=name)
        told = dict(sealed.headers)
        headers = {
            "Keyturn-Keyid": told["keyid"].decode(),
            "Keyturn-Sig": told["sig"].decode(),
            "Content-Type": kind,
        }
        async with httpx.AsyncClient(base_url=self.world.gateway, timeout=20.0, trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.post(path, content=sealed.value, headers=headers)
                    if answer.is_success or answer.status_code == HTTPStatus.CONFLICT:
                        return
                    if answer.status_code < HTTPStatus.TOO_MANY_REQUESTS:
                        raise AssertionError(f"{path}: {answer.status_code} {answer.text}")
                await asyncio.sleep(AGAIN_SECONDS)

    async def _decide(self, life: Life, person: str, verdict: Verdict) -> None:
        """Say it until the core has answered, and until it counted or the question is over."""
        name = life.intent.id
        await self.hearer.until(name, lambda phase: phase is not None and phase is not Phase.PLANNING)
        while self.hearer.phase(name) not in FINAL:
            if verdict is Verdict.APPROVE:
                life.consented = True
            refusal = await self._click(person, name, verdict)
            if refusal in {None, Refusal.ALREADY_DECIDED, Refusal.FINAL, Refusal.NOTHING_TO_REVOKE}:
                return
            # The plan went stale under the yes, or there is nothing to say yes to at the moment.
            await asyncio.sleep(AGAIN_SECONDS)

    async def _click(self, person: str, name: str, verdict: Verdict) -> Refusal | None:
        def view(client: Client) -> contract.ApprovalView:
            return client.approval(name)

        seen = await self._as_person(person, view)
        if seen.question_digest is None:
            return Refusal.WRONG_QUESTION
        reason = None if verdict is Verdict.APPROVE else "not now"
        recorded = await self._as_person(person, lambda client: client.decide(seen, verdict, reason))
        # What was acknowledged is answered, however long it takes (law 9).
        while (
            answer := await self._as_person(person, lambda client: client.answer(recorded, 10.0))
        ).state == "deciding":
            pass
        return answer.refusal

    async def _as_person(self, person: str, ask: Callable[[Client], T]) -> T:
        """Ask the API again until it answers."""
        while True:
            with contextlib.suppress(TemporaryError, GoneError, TokenRefusedError, ForbiddenError):
                token, since = self._tokens.get(person, ("", 0.0))
                if time.monotonic() - since > TOKEN_SECONDS or not token:
                    token = await self.world.token(person)
                    self._tokens[person] = (token, time.monotonic())
                settings = ClientSettings(api_url=self.world.api, token=SecretStr(token))
                with Client(settings) as client:
                    return await asyncio.to_thread(ask, client)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _as_agent(self, name: str, say: Callable[[SandboxAgent], Any]) -> None:
        """Say it until Kafka has acknowledged it; an agent whose producer is spoilt starts anew."""
        while True:
            agent = self.agents[name]
            try:
                await say(agent)
            except KafkaError:
                if self.agents[name] is agent:
                    with contextlib.suppress(KafkaError, StreamError):
                        await self.enter(name)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    async def enter(self, name: str) -> None:
        """A new life of this agent."""
        stack = AsyncExitStack()
        settings = self.world.settings(f"agent-{name}")
        agent = await stack.enter_async_context(SandboxAgent(settings, name, clock, secrets.token_bytes))
        before, self._stacks[name], self.agents[name] = self._stacks.get(name), stack, agent
        if before is not None:
            await before.aclose()

    async def leave(self) -> None:
        """Every agent is done."""
        for stack in self._stacks.values():
            await stack.aclose()


@asynccontextmanager
async def staged(world: SandboxWorld, troupe: Troupe) -> AsyncIterator[Stage]:
    """The stage on a realm whose roles all serve."""
    s3: Any = get_session().create_client(
        "s3",
        region_name=world.s3.region,
        endpoint_url=world.s3.endpoint,
        aws_access_key_id=world.s3.admin.access_key,
        aws_secret_access_key=world.s3.admin.secret_key,
        config=AioConfig(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    oracle = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(ORACLE), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
    )  # fmt: skip
    connection.quiet_client_logs()
    try:
        async with s3 as client, Hearer(world).listening() as hearer:
            stage = Stage(world, troupe, hearer, client, oracle)
            try:
                for name in AGENTS:
                    await stage.enter(name)
                yield stage
            finally:
                await stage.leave()
    finally:
        oracle.kill()
        await oracle.wait()


async def verified(world: SandboxWorld) -> tuple[bool, str]:
    """What `keyturn audit verify` says of the trail."""
    process = await asyncio.create_subprocess_exec(
        *keyturn("audit", "verify", "--dir", str(world.folder)),
        env=environment({"NO_COLOR": "1"}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    return process.returncode == 0, text.decode().strip()
