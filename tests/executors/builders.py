"""A small world with real keys and real signatures, and grants in it: true ones, and ones with one thing wrong."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Final

from executors.checking import Limits, Own
from schemas import ids, question
from schemas.record import Statement, state
from schemas.records import (
    AccountRef,
    Action,
    Assurance,
    Channel,
    ClassifiedIntent,
    Context,
    Decision,
    Evidence,
    Grant,
    Intent,
    Plan,
    Property,
    Question,
    Requirement,
    Resource,
    Reversibility,
    Round,
    Seat,
    Source,
    Subject,
    Verdict,
    Versions,
    Vote,
)
from schemas.signing import PrivateKeySigner
from schemas.snapshots import Agent, Directory, Group, Key, Person, Roster, Rota, Shift
from schemas.world import World

REALM: Final = "test"
EXECUTOR: Final = "lamp"
INSTANCE: Final = "lamp-0-aa"
ASKED: Final = 1_790_000_000_000
"""When the intent of the fixed world came in."""
GRANTED: Final = ASKED + 60_000
ISSUER: Final = "https://login.example"
CLAIM: Final = Source(topic="reports", partition=0, offset=7)
OWN: Final = Own(EXECUTOR, INSTANCE, Limits())


def signer(name: str) -> PrivateKeySigner:
    """Everybody's key follows from the name."""
    return PrivateKeySigner.from_seed(hashlib.sha256(name.encode()).digest())


def key(name: str, role: str, holder: str, **more: Any) -> Key:
    """A key as the directory lists it."""
    made = signer(name)
    return Key.model_validate(
        {"keyid": made.keyid, "public": made.public, "role": role, "holder": holder, "valid_from": 0} | more
    )


def account(person: str, provider: str = ISSUER) -> AccountRef:
    """A login of a person."""
    return AccountRef(provider=provider, subject=f"sub-{person}")


def person(name: str, *delegates: str, **more: Any) -> Person:
    """A human with two logins."""
    accounts = (account(name), account(name, "slack-T1"))
    return Person(id=name, name=name.title(), accounts=accounts, delegates=delegates, **more)


KEYS: Final = (
    key("core", "core", "core"),
    key("intake", "intake", "intake"),
    key("gateway", "gateway", "gateway", providers=(ISSUER,)),
    key("lamp", "executor", EXECUTOR),
    key("other", "executor", "other"),
    key("bot", "agent", "bot"),
    key("api", "notifier", "api", channel=Channel.API, max_assurance=Assurance.IDENTITY, providers=(ISSUER,)),
    key("slack", "notifier", "slack", channel=Channel.SLACK, max_assurance=Assurance.CHANNEL, providers=("slack-T1",)),
)

DIRECTORY: Final = Directory(
    version=1,
    persons=(
        person("ada", "dora"),
        person("dora"),
        person("grace"),
        person("linus"),
        person("ken"),
        person("gone", is_active=False),
    ),
    agents=(Agent(id="bot", owners=("ada",), gateways=("gateway",)),),
    groups=(
        Group(id="sre", members=("grace", "linus", "ada", "dora", "gone")),
        Group(id="data", members=("grace", "ken")),
    ),
    rotas=("night",),
    keys=KEYS,
)
"""ada owns the agent bot and dora acts for ada; grace and linus are sre, grace and ken are data."""

ROSTER: Final = Roster(
    version=1,
    rotas=(Rota(id="night", shifts=(Shift(person="ken", starts_at=ASKED, ends_at=ASKED + 30_000),)),),
)


def world(*later: Directory, roster: Roster = ROSTER, realm: str = REALM, since: int = ASKED - 3_600_000) -> World:
    """The world after version 1 of the directory, its roster, and these later versions, in force `since`."""
    root = signer("root")
    made = World(realm, ((root.keyid, root.public),))
    for snapshot in (DIRECTORY, roster):
        made = made.with_snapshot(state(snapshot, root, realm), ASKED - 3_600_000)
    for snapshot in later:
        made = made.with_snapshot(state(snapshot, root, realm), since)
    return made


def next_directory(before: Directory = DIRECTORY, **changed: Any) -> Directory:
    """The version after `before`, with these members changed."""
    return before.model_copy(update={"version": before.version + 1, "previous": before.digest} | changed)


TWO_SRE: Final = Requirement(seats=(Seat(of="group:sre", count=2),), assurance=Assurance.IDENTITY, within=3600)
ONE_SRE: Final = Requirement(seats=(Seat(of="group:sre", count=1),), assurance=Assurance.IDENTITY, within=3600)
VERSIONS: Final = Versions(directory=1, roster=1, policies=0, manifests=0, rules="rules-1")


def wish(at: int = ASKED, number: int = 0, requester: str = "bot", **properties: Property) -> Intent:
    """An agent's wish to switch the lamp on."""
    return Intent(
        id=ids.intent_id(requester, at, number.to_bytes(10)),
        subject=Subject(type="agent", id=requester),
        action=Action(name=f"{EXECUTOR}.switch", properties=properties or {"to": "on"}),
        resource=Resource(type="lamp", id="lamp-1"),
        context=Context(reason="It is dark."),
        ttl=7200,
    )


@dataclass(frozen=True)
class Life:
    """One intent on its way to a grant; `replace` changes what is not signed yet."""

    intent: Intent = field(default_factory=wish)
    at: int = ASKED
    requirement: Requirement | None = ONE_SRE
    realm: str = REALM
    cited: Versions = VERSIONS
    number: int = 1
    intent_by: PrivateKeySigner = field(default_factory=lambda: signer("bot"))
    intake: PrivateKeySigner = field(default_factory=lambda: signer("intake"))
    executor: PrivateKeySigner = field(default_factory=lambda: signer("lamp"))
    core: PrivateKeySigner = field(default_factory=lambda: signer("core"))
    notifier: PrivateKeySigner = field(default_factory=lambda: signer("api"))

    def but(self, **changed: Any) -> "Life":
        """The same with something else."""
        return replace(self, **changed)

    @property
    def signed_intent(self) -> Statement:
        """As the requester signed it."""
        return state(self.intent, self.intent_by, self.realm)

    @property
    def classification(self) -> ClassifiedIntent:
        """Intake's answer."""
        return ClassifiedIntent(
            intent=self.signed_intent,
            source=Source(topic="keyturn.intents", partition=0, offset=1),
            asked_at=self.at,
            versions=self.cited,
        )

    @property
    def classified(self) -> Statement:
        """As intake signed it."""
        return state(self.classification, self.intake, self.realm)

    @property
    def round(self) -> Round:
        """The planning round."""
        opened = Source(topic="keyturn.classified", partition=0, offset=self.number)
        return Round(intent=self.intent.id, number=self.number, opened=opened)

    @property
    def plan(self) -> Plan:
        """What the executor would do."""
        return Plan(
            round=self.round,
            intent=self.intent.digest,
            executor=EXECUTOR,
            manifest=0,
            summary="Switch the lamp on.",
            reversibility=Reversibility.EXACT,
            undo="Switch it off.",
            planned_at=self.at,
        )

    @property
    def signed_plan(self) -> Statement:
        """As the executor signed it."""
        return state(self.plan, self.executor, self.realm)

    @property
    def question(self) -> Question:
        """What people are asked."""
        opened = Source(topic="keyturn.reports", partition=0, offset=self.number)
        return question.ask(self.realm, self.intent.id, self.classification, self.signed_plan, self.requirement, opened)

    def decision(self, who: str, at: int, **changed: Any) -> Decision:
        """One person's yes, through the API."""
        evidence = Evidence(kind="oidc", digest="0" * 64, issuer=ISSUER, auth_time=at // 1000)
        made = Decision(
            intent=self.intent.id,
            question=self.question.digest,
            verdict=Verdict.APPROVE,
            account=account(who),
            person=who,
            channel=Channel.API,
            evidence=evidence,
            card="1" * 64,
        )
        return made.model_copy(update=changed)

    def yes(self, who: str, at: int | None = None, by: PrivateKeySigner | None = None, **changed: Any) -> Vote:
        """A yes that the core counted as `who`'s; `changed` are members of the decision."""
        said_at = self.at + 10_000 if at is None else at
        decision = state(self.decision(who, said_at, **changed), by or self.notifier, self.realm)
        source = Source(topic="keyturn.decisions", partition=0, offset=1)
        return Vote(person=who, decision=decision, log_time=said_at, source=source)

    def grant(self, *votes: Vote, at: int = GRANTED, instance: str = INSTANCE, **changed: Any) -> Grant:
        """The core's grant over these votes; `changed` are members of the grant."""
        made = Grant(
            question=self.question,
            requirement=self.requirement,
            classified=self.classified,
            plan=self.signed_plan,
            votes=votes,
            circle=("ada", "dora"),
            instance=instance,
            executor=EXECUTOR,
            claim=CLAIM,
            granted_at=at,
            lease_until=at + 60_000,
            versions=VERSIONS,
        )
        return made.model_copy(update=changed)
