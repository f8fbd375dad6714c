"""A gateway over a log in memory: the real ledger hears real signed records, and the app answers without sockets.

The people, keys and policies are those of `tests.broker.builders`; tokens come from the sandbox's issuer.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
from aiokafka import ConsumerRecord

from broker import lifecycle
from gateway.app import Gateway, make_app
from gateway.book import Changes, Entry, Watcher
from gateway.callers import audience_of
from gateway.checking import Checker
from gateway.ledger import Known, Ledger, Marks
from gateway.settings import GatewaySettings
from sandbox import issuer as oidc
from schemas import envelope, ids, signing
from schemas.envelope import Sealed
from schemas.partition import partition_of
from schemas.record import Record, Statement, state
from schemas.records import (
    AccountRef,
    Intent,
    PendingApproval,
    Phase,
    Quarantined,
    Source,
)
from schemas.snapshots import Agent, Directory, Person
from schemas.world import World
from streams.facts import FactSource
from streams.http.oidc import Keys, Login, Verifier
from streams.sayings import NotRecordedError
from tests.broker import builders
from tests.broker.builders import REALM, T0, an_intent, signer

PARTITIONS = 4
SEALED = "application/vnd.keyturn.intent.v1+json"
SEALED_WITHDRAWAL = "application/vnd.keyturn.withdrawal.v1+json"
AUDIENCE = "keyturn-gateway"
BODY: dict[str, Any] = {
    "action": {"name": "s3.copy", "properties": {"bucket": "reports"}},
    "resource": {"type": "bucket", "id": "reports"},
    "context": {"reason": "the auditors asked"},
    "ttl": 600,
}


def world_with(issuer: str) -> World:
    """The builders' world, where everybody has an account at this issuer.

    `bot` has a colleague, `twin`. `courier` and `mule` have no keys; `mule` lets no gateway sign for it.
    """
    persons = tuple(
        each.model_copy(update={"accounts": (AccountRef(provider=issuer, subject=f"sub-{each.id}"),)})
        for each in builders.PERSONS
    )
    agents = (
        *builders.AGENTS,
        Agent(id="twin", owners=("ada",), gateways=("gateway",)),
        keyless("courier", issuer, gateways=("gateway",)),
        keyless("mule", issuer),
        keyless("retired", issuer, gateways=("gateway",), is_active=False),
    )
    # Everybody's logins are this issuer's: what vouches for logins vouches for these.
    keys = tuple(
        key.model_copy(update={"providers": (issuer,)}) if key.providers == (builders.IDP,) else key
        for key in builders.KEYS
    )
    keys = (*keys, builders.key("twin", "agent", "twin"))
    return builders.changed(builders.a_world(), Directory, persons=persons, agents=agents, keys=keys)


def keyless(name: str, issuer: str, **more: Any) -> Agent:
    """An agent that is known by its OAuth client."""
    return Agent(id=name, owners=("ada",), accounts=(AccountRef(provider=issuer, subject=f"client-{name}"),), **more)


def named(world: World, name: str) -> Person:
    assert world.directory
    return next(person for person in world.directory.persons if person.id == name)


def a_record(topic: str, partition: int, offset: int, at: int, sealed: Sealed) -> ConsumerRecord:
    headers = tuple(sealed.headers)
    return ConsumerRecord(
        topic, partition, offset, at, 1, sealed.key, sealed.value, None, len(sealed.key), len(sealed.value), headers
    )


@dataclass
class MemoryBook:
    """A log in memory, and what the ledger makes of it."""

    world: World
    clock: list[int]
    ledger: Ledger = field(default_factory=Ledger)
    changes: Changes = field(default_factory=Changes)
    said: list[Statement] = field(default_factory=list)
    is_kafka_up: bool = True
    #: The next offsets, by topic and partition; offset 0 is the genesis record.
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    heard: list[ConsumerRecord] = field(default_factory=list)

    @property
    def signer(self) -> signing.Signer:
        return signer("gateway")

    def entry(self, intent_id: str) -> Entry:
        return Entry(self.ledger.known(intent_id), self.ledger.row(intent_id, self.world))

    def known(self, intent_id: str) -> Known:
        return self.ledger.known(intent_id)

    def ids_of(self, requester: str) -> Iterator[str]:
        return self.ledger.ids_of(requester)

    def place_of(self, requester: str) -> int:
        return partition_of(requester, PARTITIONS)

    def read_to(self, requester: str) -> Marks:
        return self.ledger.read_to(self.place_of(requester))

    def watch(self, requester: str) -> AbstractContextManager[Watcher]:
        return self.changes.watch(requester)

    async def say(self, statement: Statement, intent_id: str) -> Source:
        if not self.is_kafka_up:
            raise NotRecordedError("Kafka did not acknowledge it")
        self.said.append(statement)
        sealed = envelope.reseal(statement, intent_id, REALM, source="gateway")
        return self.write("intents", intent_id, sealed)

    # ------------------------------------------------------------ what others write

    def write(self, topic: str, intent_id: str, sealed: Sealed) -> Source:
        partition = partition_of(ids.requester_of(intent_id), PARTITIONS)
        offset = self.ends.get((topic, partition), 1)
        self.ends[topic, partition] = offset + 1
        self.hear(a_record(topic, partition, offset, self.clock[0], sealed))
        return Source(topic=topic, partition=partition, offset=offset)

    def hear(self, record: ConsumerRecord) -> None:
        self.heard.append(record)
        takes = {"pending": lambda: self.ledger.take_row(record)}
        takes["intents"] = lambda: self.ledger.take_intent(record, self.world)
        takes["quarantine"] = lambda: self.ledger.take_quarantined(record, self.world)
        if (intent_id := takes[record.topic]()) is not None:
            self.changes.tell(intent_id)

    def seal(self, record: Record, key: str, by: str, *, realm: str = REALM, number: int | None = None) -> Sealed:
        return envelope.seal(record, key, signer(by), realm, source="test", number=number)

    def put(self, row: PendingApproval, by: str = "core") -> None:
        number = next(_numbers)
        self.write("pending", row.intent_id, self.seal(row, row.intent_id, by, number=number))

    def answer(self, intent: Intent, phase: Phase, **more: Any) -> PendingApproval:
        """What the core says of an intent that lies on the log."""
        asked = self.ledger.known(intent.id).asked
        statement = asked.statement if asked else state(intent, signer(intent.subject.id), REALM)
        place = asked.place if asked else Source(topic="intents", partition=0, offset=1)
        classified = builders.classified_of(self.world, statement, at=self.clock[0], source=place)
        members: dict[str, Any] = {
            "intent_id": intent.id,
            "phase": phase,
            "classified": state(classified, signer("intake"), REALM),
            "classification": classified.classification,
            "asked_at": self.clock[0],
            "changed": Source(topic="classified", partition=0, offset=1),
            "changed_at": self.clock[0],
        }
        row = lifecycle.kept(PendingApproval.model_validate(members | more))
        self.put(row)
        return row

    def quarantine(self, found: Quarantined, by: str = "intake") -> None:
        sealed = self.seal(found, f"intents/{found.source.partition}/{found.source.offset}", by)
        partition = found.source.partition
        offset = self.ends.get(("quarantine", partition), 0)
        self.ends["quarantine", partition] = offset + 1
        self.hear(a_record("quarantine", partition, offset, self.clock[0], sealed))

    def restarted(self) -> "MemoryBook":
        """Another process that reads the same log from its start."""
        fresh = MemoryBook(self.world, self.clock, ends=self.ends)
        for topic in ("pending", "intents", "quarantine"):
            for record in self.heard:
                if record.topic == topic:
                    fresh.hear(record)
        return fresh


_numbers = itertools.count(1)


@dataclass
class Door:
    """What a test holds of one gateway."""

    book: MemoryBook
    http: httpx.AsyncClient
    issuer: oidc.Issuer
    clock: list[int]
    seconds: list[float]
    gateway: Gateway

    def intent(self, number: int = 1, requester: str = "bot", **more: Any) -> Intent:
        return an_intent(requester=requester, number=number, at=self.clock[0], **more)

    def sealed(self, record: Record, by: str, *, realm: str = REALM) -> dict[str, str]:
        sig = signing.sign(signer(by), realm, record.TYPE, record.to_bytes())
        kind = SEALED if record.TYPE == Intent.TYPE else SEALED_WITHDRAWAL
        return {"Content-Type": kind, "Keyturn-Keyid": signer(by).keyid, "Keyturn-Sig": sig}

    async def submit(self, intent: Intent, by: str = "bot", **more: str) -> httpx.Response:
        return await self.http.post("/v1/intents", content=intent.to_bytes(), headers=self.sealed(intent, by) | more)

    async def ask(self, person: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post("/v1/intents", json=body or BODY, headers=self.as_(person) | named)

    async def show(self, intent_id: str, who: str = "bot", **params: str) -> httpx.Response:
        return await self.http.get(f"/v1/intents/{intent_id}", headers=self.reading(who), params=params)

    def reading(self, who: str) -> dict[str, str]:
        return self.own(who) if who in {"bot", "twin", "old"} else self.as_(who)

    def as_(self, person: str, **more: Any) -> dict[str, str]:
        token = self.issuer.token_for(person, **({"audience": AUDIENCE} | more))
        return {"Authorization": f"Bearer {token}"}

    async def login(self, headers: dict[str, str]) -> Login:
        """What the gateway makes of this token."""
        return await self.gateway._login(headers["Authorization"].removeprefix("Bearer "))

    def client(self, agent: str, **claims: Any) -> dict[str, str]:
        """The token that an agent's OAuth client got for itself (RFC 9068, 2.2)."""
        usual = {"sub": f"client-{agent}", "client_id": f"client-{agent}", "aud": AUDIENCE}
        token = self.issuer.sign(usual | claims, ("intents:read", "intents:write"), None)
        return {"Authorization": f"Bearer {token}"}

    def own(
        self, agent: str, by: str | None = None, headers: dict[str, Any] | None = None, **claims: Any
    ) -> dict[str, str]:
        """An agent's own token."""
        now = self.clock[0] // 1000
        usual: dict[str, Any] = {
            "iss": agent,
            "sub": agent,
            "aud": audience_of(REALM),
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
        }
        whole = {name: value for name, value in (usual | claims).items() if value is not None}
        key = signer(by or agent)
        head = {"kid": key.keyid, "typ": "JWT"} | (headers or {})
        return {"Authorization": f"Bearer {jwt.encode(whole, key.key, 'EdDSA', head)}"}


async def until(holds: Callable[[], object]) -> None:
    """Let the others go on until it is so."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what other tasks do sets no event
            await asyncio.sleep(0)


def a_door(
    issuer: oidc.Issuer,
    http: httpx.AsyncClient,
    clock: list[int],
    *,
    sources: Sequence[FactSource] = (),
    **more: int,
) -> Door:
    """A gateway over a new log."""
    return over(MemoryBook(world_with(issuer.url), clock), issuer, http, sources=sources, **more)


def over(
    book: MemoryBook,
    issuer: oidc.Issuer,
    http: httpx.AsyncClient,
    *,
    sources: Sequence[FactSource] = (),
    **more: int,
) -> Door:
    """A gateway process over this log."""
    seconds = [0.0]
    verifier = Verifier(issuer.url, AUDIENCE, Keys(issuer.url, http, lambda: seconds[0]), lambda: book.clock[0] / 1000)
    gateway = Gateway(
        book,
        verifier,
        Checker(sources),
        GatewaySettings.model_validate(more),
        now=lambda: book.clock[0],
        monotonic=lambda: seconds[0],
        entropy=secrets.token_bytes,
    )
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(make_app(gateway), raise_app_exceptions=False), base_url="http://gateway"
    )
    return Door(book, client, issuer, book.clock, seconds, gateway)


__all__ = ["T0", "Door", "MemoryBook", "a_door", "until"]
