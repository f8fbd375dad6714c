"""A realm in memory: keys, a directory, rows as the core writes them, and a desk behind which the real core decides."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from broker import lifecycle
from notifiers.desk import Changes, Word
from schemas import ids, question, record
from schemas.record import Statement
from schemas.records import (
    AccountRef,
    Action,
    Assurance,
    Change,
    Channel,
    Classification,
    ClassifiedIntent,
    Context,
    Decision,
    Effect,
    Evidence,
    Fact,
    Fingerprint,
    Grant,
    Intent,
    ListLeaf,
    PendingApproval,
    Phase,
    Plan,
    Requirement,
    Resource,
    Reversibility,
    Risk,
    Round,
    Seat,
    Source,
    Subject,
    Verdict,
    Versions,
    Vote,
)
from schemas.signing import PrivateKeySigner
from schemas.snapshots import Agent, Directory, Group, Key, Person
from schemas.world import World
from streams.rows import Held, Listed
from streams.sayings import NotRecordedError

REALM = "stage"
T0 = 1_700_000_000_000
ISSUER = "http://127.0.0.1:9"
VERSIONS = Versions(directory=1, roster=0, policies=0, manifests=0, rules="rules-1")

ROOT = PrivateKeySigner.from_seed(b"r" * 32)
AGENT = PrivateKeySigner.from_seed(b"a" * 32)
GATEWAY = PrivateKeySigner.from_seed(b"g" * 32)
INTAKE = PrivateKeySigner.from_seed(b"i" * 32)
CORE = PrivateKeySigner.from_seed(b"c" * 32)
S3 = PrivateKeySigner.from_seed(b"s" * 32)
API = PrivateKeySigner.from_seed(b"n" * 32)

REQUIREMENT = Requirement(seats=(Seat(of="group:sre", count=2),), assurance=Assurance.IDENTITY, within=3600)


def account(name: str, issuer: str = ISSUER) -> AccountRef:
    return AccountRef(provider=issuer, subject=f"sub-{name}")


def directory(issuer: str = ISSUER) -> Directory:
    def key(signer: PrivateKeySigner, role: str, holder: str, **more: object) -> Key:
        return Key(keyid=signer.keyid, public=signer.public, role=role, holder=holder, valid_from=0, **more)

    people = {"ana": "Ana Lima", "ben": "Ben Oduya", "cho": "Cho Ji-woo", "dev": "Dévora Núñez", "eve": "Eve"}
    return Directory(
        version=1,
        persons=tuple(
            Person(id=name, name=full, accounts=(account(name, issuer),), is_active=name != "eve")
            for name, full in people.items()
        ),
        agents=(Agent(id="bot", owners=("dev",), users=("dev",), gateways=("gateway",)),),
        groups=(Group(id="sre", members=("ana", "ben", "dev", "eve")),),
        keys=(
            key(AGENT, "agent", "bot"),
            key(GATEWAY, "gateway", "gateway", providers=(issuer,)),
            key(INTAKE, "intake", "intake"),
            key(CORE, "core", "core"),
            key(S3, "executor", "s3"),
            key(API, "notifier", "api", channel=Channel.API, max_assurance=Assurance.IDENTITY, providers=(issuer,)),
        ),
    )


def world(issuer: str = ISSUER) -> World:
    statement = record.state(directory(issuer), ROOT, REALM)
    return World(REALM, ((ROOT.keyid, ROOT.public),)).with_snapshot(statement, T0)


def intent_id(number: int = 0, at: int = T0, requester: str = "bot") -> str:
    return ids.intent_id(requester, at, number.to_bytes(10, "big"))


def intent(number: int = 0, at: int = T0, **changed: object) -> Intent:
    members: dict[str, object] = {
        "id": intent_id(number, at),
        "subject": Subject(type="agent", id="bot"),
        "action": Action(name="s3.delete_prefix", properties={"prefix": "logs/2023/", "versions": True, "depth": 3}),
        "resource": Resource(type="bucket", id="arn:aws:s3:::prod-logs"),
        "context": Context(reason="the bucket is full", run="run-7", ticket="OPS-12"),
        "ttl": 1800,
    }
    return Intent(**{**members, **changed})


def plan_of(wish: Statement, at: int = T0, **changed: object) -> Plan:
    members: dict[str, object] = {
        "round": Round(intent=str(wish.body["id"]), number=1, opened=Source(topic="classified", partition=0, offset=4)),
        "intent": wish.digest,
        "executor": "s3",
        "manifest": 1,
        "summary": "delete 2 objects",
        "changes": (
            Change(verb="delete", target="prod-logs/logs/2023/a", detail={"size": 12}),
            Change(verb="delete", target="prod-logs/logs/2023/b", detail={"size": 28}),
        ),
        "lists": (ListLeaf(name="keys", count=2, bytes=40, digest="d" * 64),),
        "fingerprints": (Fingerprint(target="prod-logs/logs/2023/a", value="etag-1"),),
        "measures": {"objects": 2},
        "reversibility": Reversibility.WINDOW,
        "undo": "restore the versions within 30 days",
        "planned_at": at,
    }
    return Plan(**{**members, **changed})


FACTS = (
    Fact(name="environment", value="production", source="tags", observed_at=T0),
    Fact(name="freeze", source="calendar", observed_at=T0),
)


def pending(
    wish: Intent | None = None,
    *,
    signer: PrivateKeySigner = AGENT,
    plan: dict[str, object] | None = None,
    facts: tuple[Fact, ...] = FACTS,
    requirement: Requirement = REQUIREMENT,
    risk: Risk = Risk.HIGH,
    rules: tuple[str, ...] = ("prod-deletes",),
    at: int = T0,
) -> PendingApproval:
    """A row that waits for people, as the core writes it."""
    wish = wish or intent(at=at)
    signed = record.state(wish, signer, REALM)
    source = Source(topic="classified", partition=0, offset=4)
    classified = ClassifiedIntent(intent=signed, source=source, asked_at=at, facts=facts, versions=VERSIONS)
    planned = record.state(plan_of(signed, at, **(plan or {})), S3, REALM)
    opened = Source(topic="reports", partition=0, offset=9)
    return PendingApproval(
        intent_id=wish.id,
        phase=Phase.PENDING,
        classified=record.state(classified, INTAKE, REALM),
        classification=Classification(
            effect=Effect.REQUIRE_APPROVAL,
            risk=risk,
            rules=rules,
            requirement=requirement,
            reason="deletes in production",
        ),
        plan=planned,
        question=question.ask(REALM, wish.id, classified, planned, requirement, opened),
        circle=("dev",),
        circle_to=1,
        asked_at=at,
        expires_at=at + 1_800_000,
        changed=opened,
        changed_at=at + 1000,
    )


def unknown(at: int = T0) -> PendingApproval:
    """A row whose outcome nobody knows."""
    row = pending(at=at)
    assert row.question
    assert row.classified
    assert row.plan
    grant = Grant(
        question=row.question,
        requirement=REQUIREMENT,
        classified=row.classified,
        plan=row.plan,
        instance="s3-0-1",
        executor="s3",
        claim=Source(topic="reports", partition=0, offset=12),
        granted_at=at,
        lease_until=at + 1000,
        versions=VERSIONS,
    )
    return row.model_copy(update={"phase": Phase.UNKNOWN, "grant": grant})


def evidence(at: int = T0) -> Evidence:
    return Evidence(kind="oidc", digest="e" * 64, issuer=ISSUER, auth_time=at // 1000)


def decision(row: PendingApproval, name: str, verdict: Verdict = Verdict.APPROVE, **changed: object) -> Decision:
    assert row.question
    members: dict[str, object] = {
        "intent": row.intent_id,
        "question": row.question.digest,
        "verdict": verdict,
        "account": account(name),
        "channel": Channel.API,
        "evidence": evidence(),
        "card": "c" * 64,
    }
    return Decision(**{**members, **changed})


def vote(row: PendingApproval, name: str, at: int = T0) -> Vote:
    statement = record.state(decision(row, name), API, REALM)
    return Vote(person=name, decision=statement, log_time=at, source=Source(topic="decisions", partition=0, offset=1))


@dataclass
class MemoryDesk:
    """A desk whose `decisions` is a list, with the real core behind it."""

    world: World
    now: "itertools.count[int]"
    #: Without the core, words stay unanswered until `decide`.
    is_core_up: bool = True
    is_kafka_up: bool = True
    said: list[Word] = field(default_factory=list)
    _rows: dict[str, tuple[PendingApproval, bool, int]] = field(default_factory=dict)
    _waiting: list[tuple[Source, int, Word]] = field(default_factory=list)
    _changes: Changes = field(default_factory=Changes)
    _version: int = 0

    @property
    def keyid(self) -> str:
        return API.keyid

    def put(self, row: PendingApproval, *, is_verified: bool = True) -> None:
        self._version += 1
        self._rows[row.intent_id] = (row, is_verified, self._version)
        self._changes.tell(row.intent_id)

    def row(self, intent_id: str) -> Held | None:
        found = self._rows.get(intent_id)
        return Held(found[0], found[1], f"0-{found[2]}") if found else None

    def listed(self, phases: frozenset[Phase]) -> Iterator[Listed]:
        for intent_id, (row, _, version) in self._rows.items():
            if row.phase in phases:
                yield Listed(intent_id, f"0-{version}")

    def watch(self) -> AbstractContextManager[AsyncIterator[str]]:
        return self._changes.watch()

    def close(self) -> None:
        self._changes.close()

    async def say(self, word: Word) -> Source:
        if not self.is_kafka_up:
            raise NotRecordedError("Kafka did not acknowledge it")
        said = Source(topic="decisions", partition=0, offset=len(self.said))
        self.said.append(word)
        self._waiting.append((said, next(self.now), word))
        if self.is_core_up:
            self.decide()
        return said

    def decide(self) -> None:
        """The core decides everything that waits, in order."""
        while self._waiting:
            said, log_time, word = self._waiting.pop(0)
            event = lifecycle.Event(said, log_time, word, record.state(word, API, REALM))
            held = self.row(word.intent)
            step = lifecycle.decide(held.row if held else None, event, self.world, lifecycle.Local())
            if step.row is not None:
                self.put(step.row)
