"""A Keyturn in memory, for the tests of whoever writes an agent. The people and the executor do what the test says.

It is strict before it is kind: what the real one would refuse (a signature of another realm, an id that is too old or
of somebody else, bytes that are not canonical, an unknown action, parameters that don't fit the executor's manifest,
another body under the same id) is refused here by the same rules, and an intent moves only as the real one could. It
proves nothing about policy: who would be asked, and whether anybody may say yes, only the real one knows.

>>> keyturn = Keyturn()
>>> with keyturn.connect("reporter") as client:
...     keyturn.denies("no contract with them")
...     outcome = client.ask("s3.export", ("bucket", "acme-customers"), {"to": "acme-exports"}, reason="they asked")
>>> str(outcome)
'denied, nothing was done: no contract with them'
>>> [intent.properties["to"] for intent in keyturn.intents]
['acme-exports']
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

from keyturn import canonical, ids, intents, signing
from keyturn.blocking import Client
from keyturn.canonical import CanonicalError, Json
from keyturn.client import AsyncClient, Author, BearerAuthor, SigningAuthor
from keyturn.errors import FieldError, KeyturnError, NoConnectionError, NotAllowedError, UnknownIntentError
from keyturn.intents import Sealed, Unsigned
from keyturn.outcomes import Phase, Receipt, Refused, Status
from keyturn.transport import ActionOffer, Check, Submitted

REALM: Final = "testing"
NOON: Final = 1_767_268_800_000
"""2026-01-01T12:00:00Z: when a new Keyturn's clock starts."""

_NEXT: Final = {
    Phase.PLANNING: {Phase.PENDING, Phase.APPROVED, Phase.REFUSED, Phase.DENIED, Phase.WITHDRAWN, Phase.EXPIRED},
    Phase.PENDING: {Phase.APPROVED, Phase.DENIED, Phase.WITHDRAWN, Phase.EXPIRED},
    Phase.APPROVED: {Phase.EXECUTING, Phase.PENDING, Phase.DENIED, Phase.REVOKED, Phase.WITHDRAWN, Phase.EXPIRED},
    Phase.EXECUTING: {Phase.SUCCEEDED, Phase.FAILED, Phase.UNKNOWN, Phase.PLANNING},
    Phase.UNKNOWN: {Phase.SUCCEEDED, Phase.FAILED},
}
"""How an intent moves; what is not listed cannot happen."""


class ImpossibleError(KeyturnError, AssertionError):
    """The test says something happens that cannot happen to a real intent."""


# ---------------------------------------------------------------- what people and the executor do


@dataclass(frozen=True, slots=True)
class Approve:
    """Everybody who is asked says yes, and the executor does it."""

    summary: str = "done in memory"
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deny:
    """A person says no."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Revoke:
    """A person says yes and takes it back in time."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Expire:
    """Nobody decides in time."""


@dataclass(frozen=True, slots=True)
class Fail:
    """It is approved, and the executor fails."""

    reason: str = "the provider said no"


@dataclass(frozen=True, slots=True)
class Refuse:
    """There is no plan: the executor looked, and what is asked for makes no sense."""

    reason: str = "the target is missing"
    refusal: str = "bad_parameters"


@dataclass(frozen=True, slots=True)
class Lose:
    """It is approved and begun, and nobody knows whether it was done."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody decides yet: the test says later, by id."""


Answer: TypeAlias = Approve | Deny | Revoke | Expire | Fail | Refuse | Lose | Wait


@dataclass(frozen=True, slots=True)
class Asked:
    """An intent that was accepted."""

    id: str
    agent: str
    action: str
    resource: tuple[str, str]
    properties: Mapping[str, Json]
    context: Mapping[str, Json]
    ttl: timedelta
    #: The signed bytes.
    value: bytes = field(repr=False)


@dataclass
class _Life:
    asked: Asked | None
    statuses: list[Status] = field(default_factory=list)

    @property
    def status(self) -> Status:
        return self.statuses[-1]


class Keyturn:
    """One installation in memory. Its clock stands still until `advance`."""

    def __init__(
        self, *, realm: str = REALM, actions: Mapping[str, Mapping[str, object]] | None = None, now: int = NOON
    ) -> None:
        """`actions`: JSON Schema of each action's properties; without it every action is known and takes anything."""
        self.realm = realm
        self._actions = None if actions is None else {name: dict(schema) for name, schema in actions.items()}
        self._now = now
        self._lives: dict[str, _Life] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        self._unsigned: dict[tuple[str, str], str] = {}
        self._decide: Callable[[Asked], Answer] = lambda _: Wait()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._loses_next = False
        self._random = 0
        # Clients live on event loops of other threads.
        self._turn = threading.RLock()

    @classmethod
    def of_manifests(cls, *manifests: Path, realm: str = REALM) -> "Keyturn":
        """With the actions of executors' `manifest.json`."""
        actions: dict[str, Mapping[str, object]] = {}
        for path in manifests:
            for action in json.loads(path.read_text(encoding="utf-8"))["actions"]:
                actions[action["name"]] = action["parameters"]
        return cls(realm=realm, actions=actions)

    # ---------------------------------------------------------------- clients

    def connect(self, agent: str, *, key: signing.Signer | None = None, has_key: bool = True) -> Client:
        """A client in the name of an agent, whose key is in the directory unless it has none."""
        return Client(self.connect_async(agent, key=key, has_key=has_key))

    def connect_async(self, agent: str, *, key: signing.Signer | None = None, has_key: bool = True) -> AsyncClient:
        """The same to await."""
        return AsyncClient(_Memory(self, agent), self._author(agent, key, has_key=has_key))

    def key(self, agent: str) -> signing.Key:
        """The key of an agent, listed in the directory from now on. Published: it signs nothing but tests."""
        key = signing.Key.from_seed(hashlib.sha256(f"keyturn testing key: {agent}".encode()).digest())
        self._keys[key.keyid] = (agent, key.public)
        return key

    def _author(self, agent: str, key: signing.Signer | None, *, has_key: bool) -> Author:
        if not has_key:
            return BearerAuthor(ids.IdMaker("key", lambda: self._now, self._entropy).next)
        maker = ids.IdMaker(agent, lambda: self._now, self._entropy)
        return SigningAuthor(agent, self.realm, key or self.key(agent), maker, lambda: self._now)

    def _entropy(self, count: int) -> bytes:
        with self._turn:
            self._random += 1
            return hashlib.sha256(str(self._random).encode()).digest()[:count]

    # ---------------------------------------------------------------- what the test says

    def decides(self, decide: Callable[[Asked], Answer]) -> None:
        """What becomes of each intent from now on."""
        self._decide = decide

    def approves(self, summary: str = "done in memory", **details: object) -> None:
        """From now on everybody says yes, and the executor does it."""
        self.decides(lambda _: Approve(summary, details))

    def denies(self, reason: str | None = None) -> None:
        """From now on somebody says no."""
        self.decides(lambda _: Deny(reason))

    def expires(self) -> None:
        """From now on nobody decides in time."""
        self.decides(lambda _: Expire())

    def fails(self, reason: str = "the provider said no") -> None:
        """From now on everybody says yes, and the executor fails."""
        self.decides(lambda _: Fail(reason))

    def waits(self) -> None:
        """From now on nobody decides until the test does, by `answer`. So it begins."""
        self.decides(lambda _: Wait())

    def answer(self, intent_id: str, answer: Answer) -> None:
        """What becomes of one intent, now. ImpossibleError for what could not happen to a real one."""
        with self._turn:
            self._apply(self._life(intent_id), answer)

    def advance(self, by: timedelta) -> None:
        """Time passes: who has not been decided on within its ttl expires."""
        with self._turn:
            self._now += int(by.total_seconds() * 1000)
            for life in self._lives.values():
                is_open = life.status.phase in {Phase.PLANNING, Phase.PENDING, Phase.APPROVED}
                if is_open and life.status.deadline is not None and life.status.deadline < self._now:
                    self._move(life, Phase.EXPIRED, "nobody decided in time")

    def loses_next_answer(self) -> None:
        """The next intent is recorded, and whoever submitted it hears of a lost connection instead."""
        self._loses_next = True

    @property
    def intents(self) -> tuple[Asked, ...]:
        """Every intent that was accepted, in order."""
        with self._turn:
            return tuple(life.asked for life in self._lives.values() if life.asked is not None)

    def history(self, intent_id: str) -> tuple[Phase, ...]:
        """Every phase an intent was in."""
        with self._turn:
            return tuple(status.phase for status in self._life(intent_id).statuses)

    # ---------------------------------------------------------------- the door

    def _submit(self, agent: str, asked: Sealed | Unsigned) -> Submitted:
        with self._turn:
            sealed = asked if isinstance(asked, Sealed) else self._sign(agent, asked)
            if isinstance(sealed, Refused):
                return Submitted("", sealed)
            submitted = self._admit(sealed)
            if self._loses_next and submitted.refused is None:
                self._loses_next = False
                raise NoConnectionError(f"the test lost the answer to {sealed.intent}", sealed.intent)
            return submitted

    def _sign(self, agent: str, asked: Unsigned) -> Sealed | Refused:
        """As the gateway does for who has no key: the same idempotency key gives the same id."""
        made = self._unsigned.setdefault((agent, asked.idempotency_key), "")
        if not made:
            made = ids.intent_id(agent, self._now, self._entropy(ids.ENTROPY_BYTES))
            self._unsigned[agent, asked.idempotency_key] = made
        value = intents.intent_bytes(made, agent, asked.members)
        key = self.key(agent)
        return intents.seal("intent", made, value, key, self.realm)

    def _admit(self, sealed: Sealed) -> Submitted:
        body = self._require_signed(sealed, intents.INTENT)
        refused = self._refusal(sealed, body)
        if refused is None and sealed.intent in self._lives:
            known = self._lives[sealed.intent].asked
            if known is None or known.value == sealed.value:
                return Submitted(sealed.intent)
            refused = self._refused(sealed, "conflict", "another body was seen first under this id")
        if refused is not None:
            return Submitted(sealed.intent, refused)
        action, resource, context = _object(body["action"]), _object(body["resource"]), _object(body["context"])
        asked = Asked(
            id=sealed.intent,
            agent=ids.split(sealed.intent)[0],
            action=str(action["name"]),
            resource=(str(resource["type"]), str(resource["id"])),
            properties=_object(action.get("properties", {})),
            context=context,
            ttl=timedelta(seconds=int(str(body["ttl"]))),
            value=sealed.value,
        )
        life = self._lives[asked.id] = _Life(asked)
        deadline = self._now + int(asked.ttl.total_seconds() * 1000)
        self._say(life, Status(asked.id, Phase.PLANNING, at=self._now, deadline=deadline))
        self._apply(life, self._decide(asked))
        return Submitted(asked.id)

    def _require_signed(self, sealed: Sealed, record_type: str) -> dict[str, Json]:
        """The body, if it is canonical and signed by a listed key of this realm."""
        agent, public = self._keys.get(sealed.keyid, ("", ""))
        if not agent or not signing.verifies(public, self.realm, record_type, sealed.value, sealed.sig):
            raise NotAllowedError(
                f"the signature of {sealed.intent} is no listed key's in realm {self.realm}: use the client of "
                "`Keyturn.connect`, or list the key with `Keyturn.key`"
            )
        try:
            body = canonical.decode(sealed.value, max_bytes=intents.MAX_BYTES, max_depth=intents.MAX_DEPTH)
        except CanonicalError as exc:
            raise NotAllowedError(f"{sealed.intent} is not in canonical form: {exc}") from exc
        said_by = _object(body.get("subject") or body.get("by") or {})
        about = str(body.get("id") or body.get("intent"))
        if said_by.get("id") != agent or about != sealed.intent or about.partition(".")[0] != agent:
            raise NotAllowedError(f"{agent} may not speak for {said_by.get('id')} about {about}")
        return body

    def _refusal(self, sealed: Sealed, body: Mapping[str, Json]) -> Refused | None:
        if errors := intents.errors_of(body):
            return self._refused(sealed, "malformed", "not an intent", errors)
        age = timedelta(milliseconds=self._now - ids.split(sealed.intent)[1])
        if not -ids.NEWEST <= age <= ids.OLDEST:
            return self._refused(sealed, "id_out_of_window", f"the id's time is {age} before Kafka's")
        action = _object(body["action"])
        if self._actions is None:
            return None
        schema = self._actions.get(str(action["name"]))
        if schema is None:
            offered = ", ".join(sorted(self._actions)) or "none"
            return self._refused(sealed, "unknown_action", f"no executor performs {action['name']}; there is {offered}")
        if errors := _schema_errors(schema, action.get("properties", {})):
            return self._refused(sealed, "bad_parameters", "the parameters do not fit the executor's manifest", errors)
        return None

    def _refused(self, sealed: Sealed, refusal: str, reason: str, errors: tuple[FieldError, ...] = ()) -> Refused:
        return Refused(refusal, errors, reason, intent=sealed.intent, at=self._now)

    def _withdraw(self, agent: str, intent_id: str, said: Sealed | None, reason: str | None) -> None:
        with self._turn:
            if said is not None:
                reason = str(self._require_signed(said, intents.WITHDRAWAL).get("reason", "")) or None
            elif intent_id.partition(".")[0] != agent:
                raise UnknownIntentError(f"{intent_id} is none of {agent}'s")
            life = self._lives.setdefault(intent_id, _Life(None))
            if not life.statuses:
                # It overtook its intent, which is pinned as withdrawn.
                self._say(life, Status(intent_id, Phase.WITHDRAWN, reason, at=self._now))
            elif life.status.phase in {Phase.PLANNING, Phase.PENDING, Phase.APPROVED}:
                self._move(life, Phase.WITHDRAWN, reason)

    # ---------------------------------------------------------------- a life

    def _apply(self, life: _Life, answer: Answer) -> None:
        match answer:
            case Approve(summary, details):
                self._execute(life)
                self._move(life, Phase.SUCCEEDED, summary, receipt=Receipt(summary, details))
            case Fail(reason):
                self._execute(life)
                self._move(life, Phase.FAILED, reason)
            case Lose(reason):
                self._execute(life)
                self._move(life, Phase.UNKNOWN, reason)
            case Revoke(reason):
                self._reach(life, Phase.PENDING, Phase.APPROVED)
                self._move(life, Phase.REVOKED, reason)
            case Deny(reason):
                self._reach(life, Phase.PENDING)
                self._move(life, Phase.DENIED, reason)
            case Expire():
                self._reach(life, Phase.PENDING)
                self._move(life, Phase.EXPIRED, "nobody decided in time")
            case Refuse(reason, refusal):
                self._move(life, Phase.REFUSED, reason, refusal=refusal)
            case Wait():
                self._reach(life, Phase.PENDING)

    def _execute(self, life: _Life) -> None:
        if life.status.phase is not Phase.UNKNOWN:  # then people found out
            self._reach(life, Phase.PENDING, Phase.APPROVED, Phase.EXECUTING)

    def _reach(self, life: _Life, *phases: Phase) -> None:
        """Through these phases, from where it is."""
        order = [Phase.PLANNING, *phases]
        here = order.index(life.status.phase) if life.status.phase in order else -1
        for phase in order[here + 1 :] if here >= 0 else phases:
            self._move(life, phase)

    def _move(self, life: _Life, phase: Phase, reason: str | None = None, **more: Any) -> None:
        before = life.status
        if phase not in _NEXT.get(before.phase, ()):
            raise ImpossibleError(f"{before.intent} is {before.phase.value}: it can't become {phase.value}")
        self._say(life, replace(before, phase=phase, reason=reason, at=self._now, **more))

    def _say(self, life: _Life, status: Status) -> None:
        life.statuses.append(status)
        for loop, event in self._listeners:
            loop.call_soon_threadsafe(event.set)

    def _life(self, intent_id: str) -> _Life:
        if intent_id not in self._lives:
            raise UnknownIntentError(f"{intent_id} was never accepted")
        return self._lives[intent_id]

    def _own(self, agent: str, intent_id: str) -> tuple[Status, ...]:
        """What an agent can see: its own."""
        with self._turn:
            life = self._lives.get(intent_id)
            return tuple(life.statuses) if life is not None and intent_id.partition(".")[0] == agent else ()


@dataclass
class _Memory:
    """The way to it: a Transport."""

    keyturn: Keyturn
    agent: str

    async def start(self) -> None:
        """Nothing to connect."""

    async def aclose(self) -> None:
        """Nothing to let go of."""

    async def submit(self, asked: Sealed | Unsigned, traceparent: str | None) -> Submitted:
        """Through the door, at once."""
        del traceparent
        return self.keyturn._submit(self.agent, asked)  # noqa: SLF001 - one module

    async def withdraw(self, intent_id: str, said: Sealed | None, reason: str | None) -> None:
        """Through the door, at once."""
        self.keyturn._withdraw(self.agent, intent_id, said, reason)  # noqa: SLF001

    async def status(self, intent_id: str) -> Status | None:
        """The newest."""
        return next(reversed(self.keyturn._own(self.agent, intent_id)), None)  # noqa: SLF001

    async def watch(self, intent_id: str) -> AsyncGenerator[Status, None]:
        """All of them."""
        listener = (asyncio.get_running_loop(), asyncio.Event())
        self.keyturn._listeners.add(listener)  # noqa: SLF001
        told = 0
        try:
            while True:
                listener[1].clear()
                for status in self.keyturn._own(self.agent, intent_id)[told:]:  # noqa: SLF001
                    told += 1
                    yield status
                await listener[1].wait()
        finally:
            self.keyturn._listeners.discard(listener)  # noqa: SLF001

    async def check(self, members: Mapping[str, Json], asked: Sealed | None) -> Check:
        """Somebody would be asked: there is no policy here."""
        del members, asked
        return Check("require_approval", caveats=("keyturn.testing has no policy",))

    async def actions(self) -> tuple[ActionOffer, ...]:
        """What the test said there is."""
        offered = self.keyturn._actions or {}  # noqa: SLF001
        return tuple(ActionOffer(name, parameters=schema) for name, schema in offered.items())


def _object(value: object) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _schema_errors(schema: Mapping[str, object], properties: Json) -> tuple[FieldError, ...]:
    try:
        import jsonschema_rs
    except ImportError:
        raise ImpossibleError("actions= needs a JSON Schema validator: pip install 'keyturn[testing]'") from None
    validator = jsonschema_rs.validator_for(dict(schema))
    return tuple(
        FieldError("/".join(["/action/properties", *map(str, error.instance_path)]), error.message)
        for error in validator.iter_errors(properties)
    )
