"""How the command line asks: over the gateway's HTTP, or straight to Kafka with an agent's own rights.

Both say the same thing: an intent that the requester signed, or a form that the gateway signs for whom a token names.
A token or a signature goes over TLS, or to this machine only.

    AskingError           it said no
    ├── RefusedError      it was not let in: what is wrong, by place
    ├── NotAllowedError   not by this key or token
    ├── NotToldError      a setting that is needed is missing, or its file cannot be read
    ├── IntegrityError    what the gateway knows of it cannot be trusted
    └── NotYetError       it may work later
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol, Self

import httpx
import jwt
from pydantic import Field, JsonValue, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway import callers, contract
from schemas import envelope, ids, signing, topics
from schemas.partition import partition_of
from schemas.record import Record
from schemas.records import FINAL, Intent, IntentStatus, Subject, Withdrawal
from schemas.signing import PrivateKeySigner
from streams import connection, reading
from streams.http.problems import Kind
from streams.http.urls import is_loopback, is_private_to_us
from streams.producing import Speaker
from streams.realm import RealmFolder
from streams.settings import Settings, read_signer

TIMEOUT: Final = 20.0
RECONNECT_SECONDS: Final = 1.0
TOKEN_SECONDS: Final = 300


class AskingError(Exception):
    """It said no; the text says what to do."""


class RefusedError(AskingError):
    """It was not let in."""

    def __init__(self, text: str, problem: dict[str, JsonValue]) -> None:
        super().__init__(text)
        self.problem = problem


class NotAllowedError(AskingError):
    """Not by this key or token."""


class NotToldError(AskingError):
    """A setting that is needed is missing, or cannot be used."""


class IntegrityError(AskingError):
    """What the gateway knows of it cannot be trusted."""


class NotYetError(AskingError):
    """It may work later."""


class AskerSettings(BaseSettings):
    """Who asks, and where, from `KEYTURN_…` variables; options of the command win."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_", frozen=True, extra="ignore", hide_input_in_errors=True)

    gateway_url: str | None = Field(default=None, description="The gateway's base URL.")
    agent: str | None = Field(default=None, description="The agent that asks.")
    realm: str | None = Field(default=None, description="The realm its key signs for.")
    key_file: Path | None = Field(default=None, description="The agent's key.")
    token: SecretStr | None = Field(default=None, description="An access token for the gateway; prefer TOKEN_FILE.")
    token_file: Path | None = Field(default=None, description="A file that holds it.")


def settings_of(folder: Path | None, agent: str | None, url: str | None) -> AskerSettings:
    """What this process, and the agent's part of a realm's folder, say."""
    given: dict[str, Any] = {name: value for name, value in (("agent", agent), ("gateway_url", url)) if value}
    if folder is not None and agent is not None:
        told = RealmFolder(folder).environment(f"agent-{agent}")
        for name in ("gateway_url", "realm", "key_file"):
            given.setdefault(name, told.get(f"KEYTURN_{name.upper()}"))
    return AskerSettings(**given)


@dataclass(frozen=True, slots=True)
class Sign:
    """An agent that signs for itself."""

    agent: str
    realm: str
    signer: PrivateKeySigner


@dataclass(frozen=True, slots=True)
class Token:
    """Whoever the issuer says."""

    text: str


def identity(settings: AskerSettings) -> Sign | Token:
    """Who asks: a key if there is one, else a token. NotToldError when there is neither."""
    if settings.key_file is not None and settings.agent is not None and settings.realm is not None:
        return Sign(settings.agent, settings.realm, read_signer(settings.key_file))
    text = ""
    if settings.token_file is not None:
        try:
            text = settings.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise NotToldError(
                f"KEYTURN_TOKEN_FILE: {settings.token_file} cannot be read ({_reason(exc)}): name a file that holds an "
                "access token for the gateway"
            ) from exc
        if not text:
            raise NotToldError(f"KEYTURN_TOKEN_FILE: {settings.token_file} is empty: put an access token into it")
    elif settings.token is not None:
        text = settings.token.get_secret_value().strip()
    if text:
        return Token(text)
    raise NotToldError(
        "nobody to ask as: name an agent with its key (--dir DIR --agent NAME, or KEYTURN_AGENT, KEYTURN_REALM and "
        "KEYTURN_KEY_FILE), or set KEYTURN_TOKEN_FILE to an access token for the gateway"
    )


def _reason(exc: OSError | UnicodeDecodeError) -> str:
    return (exc.strerror or type(exc).__name__) if isinstance(exc, OSError) else "it is not text"


@dataclass(frozen=True, slots=True)
class State:
    """Where an intent is."""

    id: str
    phase: str
    is_final: bool
    members: dict[str, JsonValue]


class Asker(Protocol):
    """One way to ask. `async with`."""

    async def submit(self, form: contract.IntentForm) -> dict[str, JsonValue]:
        """Ask. When this returns it is on the log; the answer says where."""
        ...

    async def check(self, form: contract.IntentForm, /) -> dict[str, JsonValue]:
        """What policy would say."""
        ...

    async def withdraw(self, intent_id: str, reason: str | None) -> dict[str, JsonValue]:
        """Take it back."""
        ...

    def states(self, intent_id: str) -> AsyncIterator[State]:
        """Where it is now, and whenever that changes, until it has ended."""
        ...


def intent_of(form: contract.IntentForm, agent: str, entropy: bytes, now: int) -> Intent:
    """The intent of an agent that signs for itself."""
    return Intent(
        id=form.id or ids.intent_id(agent, now, entropy),
        subject=Subject(type="agent", id=agent),
        action=form.action,
        resource=form.resource,
        context=form.context.model_dump(exclude_none=True),  # type: ignore[arg-type] # the same members
        ttl=form.ttl,
    )


def _now() -> int:
    return time.time_ns() // 1_000_000


# ---------------------------------------------------------------- over HTTP


class HttpAsker:
    """The gateway."""

    def __init__(self, url: str, who: Sign | Token) -> None:
        if not is_private_to_us(url):
            raise NotToldError(f"{url}: a token or a signature goes over https, or to this machine only")
        self._who = who
        parts = httpx.URL(url)
        # A proxy has no business between us and our own machine.
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), timeout=TIMEOUT, trust_env=not is_loopback(parts.host), follow_redirects=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def submit(self, form: contract.IntentForm) -> dict[str, JsonValue]:
        """Ask; once more with the same bytes if the connection breaks under the answer."""
        match self._who:
            case Sign() as sign:
                intent = intent_of(form, sign.agent, secrets.token_bytes(ids.ENTROPY_BYTES), _now())
                content, headers = intent.to_bytes(), _sealed(intent, sign, contract.SEALED_INTENT)
            case Token():
                content, headers = _body(form), self._bearer() | {"Content-Type": contract.JSON}
                headers["Idempotency-Key"] = secrets.token_urlsafe(24)
        try:
            answer = await self._send("POST", "/v1/intents", content, headers)
        except NotYetError:
            answer = await self._send("POST", "/v1/intents", content, headers)
        return _members(answer)

    async def check(self, form: contract.IntentForm) -> dict[str, JsonValue]:
        """What policy would say."""
        headers = self._bearer() | {"Content-Type": contract.JSON}
        return _members(await self._send("POST", "/v1/check", _body(form), headers))

    async def withdraw(self, intent_id: str, reason: str | None) -> dict[str, JsonValue]:
        """Take it back."""
        match self._who:
            case Sign() as sign:
                by = Subject(type="agent", id=sign.agent)
                withdrawal = Withdrawal(intent=intent_id, by=by, reason=reason)
                content, headers = withdrawal.to_bytes(), _sealed(withdrawal, sign, contract.SEALED_WITHDRAWAL)
            case Token():
                content = json.dumps({"reason": reason} if reason is not None else {}).encode()
                headers = self._bearer() | {"Content-Type": contract.JSON}
        return _members(await self._send("POST", f"/v1/intents/{intent_id}/withdraw", content, headers))

    async def states(self, intent_id: str) -> AsyncIterator[State]:
        """By long polls, so that it goes through any proxy; a connection that breaks is made again."""
        version: str | None = None
        while True:
            params = {"wait": "15", **({"after": version} if version is not None else {})}
            try:
                answer = await self._send("GET", f"/v1/intents/{intent_id}", None, self._bearer(), params)
            except NotYetError:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            view = contract.IntentView.model_validate_json(answer.content)
            if view.version != version:
                yield State(view.id, str(view.phase), view.is_final, _members(answer))
            version = view.version
            if view.is_final:
                return

    def _bearer(self) -> dict[str, str]:
        match self._who:
            case Sign() as sign:
                now = int(time.time())
                claims = {
                    "iss": sign.agent,
                    "sub": sign.agent,
                    "aud": callers.audience_of(sign.realm),
                    "iat": now,
                    "exp": now + TOKEN_SECONDS,
                    "jti": secrets.token_hex(16),
                }
                head = {"kid": sign.signer.keyid, "typ": "JWT"}
                text = jwt.encode(claims, sign.signer.key, callers.ALGORITHM, head)
            case Token(text=text):
                pass
        return {"Authorization": f"Bearer {text}"}

    async def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: dict[str, str],
        params: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, content=content, headers=headers, params=params)
        except httpx.TransportError as exc:
            where = self._http.base_url
            raise NotYetError(f"{where} cannot be reached: {type(exc).__name__}; is --gateway right?") from exc
        if answer.is_success:
            return answer
        raise _problem(answer)


def _sealed(record: Record, sign: Sign, kind: str) -> dict[str, str]:
    sig = signing.sign(sign.signer, sign.realm, record.TYPE, record.to_bytes())
    return {"Content-Type": kind, "Keyturn-Keyid": sign.signer.keyid, "Keyturn-Sig": sig}


def _body(form: contract.IntentForm) -> bytes:
    return form.model_dump_json(exclude_none=True).encode()


def _members(answer: httpx.Response) -> dict[str, JsonValue]:
    found = _object(answer)
    if found is None:
        raise AskingError(f"the answer is not the gateway's ({answer.status_code}): is KEYTURN_GATEWAY_URL right?")
    return found


def _object(answer: httpx.Response) -> dict[str, JsonValue] | None:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _problem(answer: httpx.Response) -> AskingError:
    """What a no means. Its status decides, not its body: a proxy's may be a page, or nothing."""
    problem = _object(answer)
    status = answer.status_code
    text = str((problem or {}).get("detail") or f"the gateway, or a proxy before it, answered {status}")
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return NotAllowedError(text)
        case HTTPStatus.BAD_GATEWAY if problem is not None and problem.get("type") == Kind.INTEGRITY.urn:
            # Not a proxy's, and waiting heals nothing.
            return IntegrityError(text)
        case (
            HTTPStatus.TOO_MANY_REQUESTS
            | HTTPStatus.REQUEST_TIMEOUT
            | HTTPStatus.INTERNAL_SERVER_ERROR
            | HTTPStatus.BAD_GATEWAY
            | HTTPStatus.SERVICE_UNAVAILABLE
            | HTTPStatus.GATEWAY_TIMEOUT
        ):
            return NotYetError(text)
        case _ if problem is None:
            return AskingError(f"{text}: is KEYTURN_GATEWAY_URL right?")
        case _:
            return RefusedError(text, problem)


# ---------------------------------------------------------------- by Kafka


class KafkaAsker:
    """Kafka itself, with the rights of an agent: write `intents`, read `status`."""

    def __init__(self, settings: Settings, agent: str) -> None:
        self._settings = settings
        self._agent = agent
        self._signer = settings.signer()
        self._speaker = Speaker(settings)

    async def __aenter__(self) -> Self:
        await self._speaker.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._speaker.__aexit__()

    async def submit(self, form: contract.IntentForm) -> dict[str, JsonValue]:
        """Sign and write it."""
        intent = intent_of(form, self._agent, secrets.token_bytes(ids.ENTROPY_BYTES), _now())
        place = await self._say(intent, intent.id)
        return {"id": intent.id, "digest": intent.digest, "content_digest": intent.content_digest, **place}

    async def check(self, _: contract.IntentForm) -> dict[str, JsonValue]:
        """Nobody answers questions on Kafka."""
        raise AskingError("what policy would say is asked over HTTP: add --gateway URL, or set KEYTURN_GATEWAY_URL")

    async def withdraw(self, intent_id: str, reason: str | None) -> dict[str, JsonValue]:
        """Sign and write the withdrawal."""
        by = Subject(type="agent", id=self._agent)
        return {"id": intent_id, **await self._say(Withdrawal(intent=intent_id, by=by, reason=reason), intent_id)}

    async def states(self, intent_id: str) -> AsyncIterator[State]:
        """What `status` says of it."""
        topic = self._settings.names.of(topics.STATUS)
        consumer = connection.reader(self._settings)
        await connection.start(consumer, self._settings)
        try:
            count = (await connection.require_partitions(consumer, [topic]))[topic]
            at = partition_of(ids.requester_of(intent_id), count)
            await reading.assign_from_start(consumer, [connection.places(topic, count)[at]])
            while True:
                for records in (await consumer.getmany(timeout_ms=reading.POLL_MS)).values():
                    for record in records:
                        if record.key == intent_id.encode() and record.value is not None:
                            status = IntentStatus.from_bytes(record.value)
                            is_final = status.phase in FINAL
                            yield State(status.intent, status.phase.value, is_final, {**status.to_json()})  # type: ignore[dict-item] # JSON
                            if is_final:
                                return
        finally:
            await consumer.stop()

    async def _say(self, record: Record, intent_id: str) -> dict[str, JsonValue]:
        topic = self._settings.names.of(topics.INTENTS)
        sealed = envelope.seal(record, intent_id, self._signer, self._settings.realm, source=self._agent)
        at = partition_of(ids.requester_of(intent_id), await self._speaker.partitions(topic))
        place = await self._speaker.say(topic, at, sealed)
        return {"partition": place.partition, "offset": place.offset}
