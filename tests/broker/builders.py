"""A signed world, and a driver that tells one intent's story to `lifecycle.decide`. No Kafka, no clock, no mocks.

Every step a story takes is held against what must hold of any step: see `Story.hear`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from broker import lifecycle
from broker.core import order
from broker.core.order import Input, Order, ReadEnds, Ready, Starved
from broker.core.trail import Chain
from broker.lifecycle import Event, EventRecord, Local, Step
from schemas import classification, ids
from schemas.record import Record, Scalar, Statement, state
from schemas.records import (
    FINAL,
    AccountRef,
    Action,
    ApprovedIntent,
    Assurance,
    ChainHead,
    Channel,
    Claim,
    ClassifiedIntent,
    Context,
    Decision,
    Evidence,
    Fact,
    ForwardedWithdrawal,
    Grant,
    Intent,
    Outcome,
    OutcomeUnknown,
    PendingApproval,
    Phase,
    Plan,
    PlanFailed,
    Receipt,
    Refusal,
    Resolution,
    Resource,
    Result,
    Reversibility,
    Source,
    Subject,
    Tick,
    Verdict,
    Withdrawal,
)
from schemas.signing import PrivateKeySigner
from schemas.snapshots import (
    Agent,
    Directory,
    Group,
    Key,
    Manifest,
    ManifestAction,
    Manifests,
    Person,
    Policies,
    Role,
    Roster,
    Rota,
    Shift,
    Snapshot,
)
from schemas.timing import LEADER_SKEW_MS
from schemas.world import World

REALM = "test"
T0 = 1_764_000_000_000
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
DIGEST = "0" * 64
LEASE, SETTLE = 60, 30
IDP, SLACK = "https://idp.example", "T0001"

# ---------------------------------------------------------------- who there is


@cache
def signer(name: str) -> PrivateKeySigner:
    return PrivateKeySigner.from_seed(hashlib.sha256(name.encode()).digest())


def key(name: str, role: Role, holder: str, **more: Any) -> Key:
    return Key.model_validate(
        {"keyid": signer(name).keyid, "public": signer(name).public, "role": role, "holder": holder, "valid_from": 0}
        | more
    )


def person(name: str, *, accounts: Iterable[AccountRef] | None = None, **more: Any) -> Person:
    given = (account(name), account(name, "slack")) if accounts is None else tuple(accounts)
    return Person(id=name, name=name.title(), accounts=given, **more)


def account(name: str, channel: str = "api") -> AccountRef:
    return AccountRef(provider=IDP if channel == "api" else SLACK, subject=name)


# Ada owns the agent and sits among the engineers; Ben uses it; Cat acts for Ada. Jon has left.
# Dan, Eve and Fay are engineers, Gus and Hal (and Dan) answer for data, Ivy and Kim are on call at night.
PERSONS = (
    person("ada", delegates=("cat",)),
    person("ben"),
    person("cat"),
    person("dan", accounts=(account("dan"), account("dan", "slack"), AccountRef(provider=IDP, subject="dan.second"))),
    person("eve"),
    person("fay"),
    person("gus"),
    person("hal"),
    person("ivy"),
    person("jon", is_active=False),
    person("kim"),
)
AGENTS = (
    Agent(id="bot", owners=("ada",), users=("ada", "ben"), gateways=("gateway",), max_open=3),
    Agent(id="old", owners=("ada",), gateways=("gateway",)),
)
GROUPS = (
    Group(id="sre", members=("ada", "ben", "cat", "dan", "eve", "fay", "jon")),
    Group(id="data", members=("dan", "gus", "hal")),
    Group(id="synced", is_synced=True),
)
KEYS = (
    key("bot", "agent", "bot"),
    key("old", "agent", "old"),
    key("gateway", "gateway", "gateway", providers=(IDP,)),
    key("intake", "intake", "intake"),
    key("core", "core", "core"),
    key("s3", "executor", "s3"),
    key("iam", "executor", "iam"),
    key("api", "notifier", "api", channel=Channel.API, max_assurance=Assurance.IDENTITY, providers=(IDP,)),
    key("slack", "notifier", "slack", channel=Channel.SLACK, max_assurance=Assurance.CHANNEL, providers=(SLACK,)),
)
DIRECTORY = Directory(version=1, persons=PERSONS, agents=AGENTS, groups=GROUPS, rotas=("night",), keys=KEYS)
ROSTER = Roster(
    version=1,
    groups=(Group(id="synced", members=("gus", "kim", "ada")),),
    rotas=(
        Rota(
            id="night",
            shifts=(
                Shift(person="ivy", starts_at=T0 - HOUR, ends_at=T0 + 10 * MINUTE),
                Shift(person="kim", starts_at=T0 + 10 * MINUTE, ends_at=T0 + DAY),
            ),
        ),
    ),
)

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["bucket"],
    "properties": {
        "bucket": {"type": "string", "maxLength": 63},
        "count": {"type": "integer"},
        "force": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}


def offered(name: str, **more: Any) -> ManifestAction:
    return ManifestAction.model_validate(
        {
            "name": name,
            "title": name,
            "parameters": PARAMETERS,
            "measures": {"objects": "integer", "public": "boolean"},
            "reversibility": Reversibility.EXACT,
            "timeout": 60,
            "lease": LEASE,
            "settle": SETTLE,
        }
        | more
    )


MANIFESTS = Manifests(
    version=1,
    executors=(
        Manifest(
            executor="s3",
            version="1",
            actions=tuple(offered(f"s3.{verb}") for verb in ("list", "copy", "export", "erase", "guard")),
        ),
        Manifest(executor="iam", version="1", actions=(offered("iam.grant"),)),
    ),
)
CEDAR = """
@id("list") @automatic("reads names only") @risk("low")
permit (principal, action == Action::"s3.list", resource);

@id("copy") @approvers("group:sre") @within("1h")
permit (principal, action == Action::"s3.copy", resource);

@id("export") @approvers("group:sre group:data") @quorum("2 1") @risk("high") @within("30m")
permit (principal, action == Action::"s3.export", resource);

@id("much") @approvers("oncall:night") @risk("critical") @within("20m")
permit (principal, action == Action::"s3.export", resource)
when { context has plan && context.plan has objects && context.plan.objects > 100 };

@id("erase") @approvers("group:synced") @assurance("identity")
permit (principal, action == Action::"s3.erase", resource);

@id("guard") @approvers("oncall:night")
permit (principal, action == Action::"s3.guard", resource);

@id("public")
forbid (principal, action in [Action::"s3.copy", Action::"s3.export"], resource)
when { context has plan && context.plan has public && context.plan.public };

@id("locked")
forbid (principal, action in [Action::"s3.copy", Action::"s3.export"], resource)
when { context.properties.bucket == "locked" };
"""
POLICIES = Policies(version=1, cedar=CEDAR)

# ---------------------------------------------------------------- the world


def empty_world() -> World:
    root = signer("root")
    return World(REALM, ((root.keyid, root.public),))


def with_documents(world: World, *documents: Snapshot, at: int = T0 - HOUR) -> World:
    for document in documents:
        world = world.with_snapshot(state(document, signer("root"), REALM), at)
    return world


@cache
def a_world() -> World:
    return with_documents(empty_world(), DIRECTORY, ROSTER, POLICIES, MANIFESTS)


def changed(world: World, kind: type[Snapshot], *, at: int = T0 - HOUR, **members: Any) -> World:
    """The world after the next version of a document, with these members changed, in force at this log time."""
    now: dict[type[Snapshot], Snapshot | None] = {
        Directory: world.directory,
        Roster: world.rosters[-1] if world.rosters else None,
        Policies: world.policies,
        Manifests: world.manifests,
    }
    before = now[kind]
    following = {"version": world.version_of(kind) + 1, "previous": dict(world.digests).get(kind.TYPE)}
    if before is None:
        return with_documents(world, kind.model_validate({**members, **following}), at=at)
    return with_documents(world, before.model_copy(update={**members, **following}), at=at)


def keys_with(name: str, **more: Any) -> tuple[Key, ...]:
    """All keys, one of them changed."""
    return tuple(each.model_copy(update=more) if each.keyid == signer(name).keyid else each for each in KEYS)


def persons_with(name: str, **more: Any) -> tuple[Person, ...]:
    return tuple(each.model_copy(update=more) if each.id == name else each for each in PERSONS)


def agents_with(name: str, **more: Any) -> tuple[Agent, ...]:
    return tuple(each.model_copy(update=more) if each.id == name else each for each in AGENTS)


def groups_with(name: str, *members: str) -> tuple[Group, ...]:
    return tuple(each.model_copy(update={"members": members}) if each.id == name else each for each in GROUPS)


# ---------------------------------------------------------------- records

FACTS: dict[str, Scalar | None] = {"environment": "staging", "classification": "synthetic", "owner": "platform"}


def facts(**found: Scalar | None) -> tuple[Fact, ...]:
    return tuple(
        Fact(name=name, value=value, source="catalog", observed_at=T0) for name, value in (FACTS | found).items()
    )


def an_intent(
    action: str = "s3.copy",
    *,
    requester: str = "bot",
    number: int = 1,
    at: int = T0,
    properties: Mapping[str, Scalar | tuple[Scalar, ...]] | None = None,
    **more: Any,
) -> Intent:
    return Intent.model_validate(
        {
            "id": ids.intent_id(requester, at, number.to_bytes(10)),
            "subject": Subject(type="agent", id=requester),
            "action": Action(name=action, properties=dict(properties or {"bucket": "reports"})),
            "resource": Resource(type="bucket", id="reports"),
            "context": Context(reason="because"),
            "ttl": 3600,
        }
        | more
    )


def classified_of(
    world: World, intent: Statement, *, at: int = T0, found: tuple[Fact, ...] | None = None, **more: Any
) -> ClassifiedIntent:
    """What an honest intake says of this intent."""
    known = facts() if found is None else found
    return ClassifiedIntent.model_validate(
        {
            "intent": intent,
            "source": Source(topic="intents", partition=0, offset=1),
            "asked_at": at,
            "facts": known,
            "classification": classification.classify(intent.read(Intent), known, None, world, at),
            "versions": world.versions,
        }
        | more
    )


def evidence(channel: Channel, at: int) -> Evidence:
    if channel is Channel.API:
        return Evidence(kind="oidc", digest=DIGEST, issuer=IDP, auth_time=at // 1000 - 60)
    return Evidence(kind="chat", digest=DIGEST)


_SIGNED_BY: Mapping[type[Record], str] = {
    ClassifiedIntent: "intake",
    ForwardedWithdrawal: "intake",
    Plan: "s3",
    PlanFailed: "s3",
    Claim: "s3",
    Outcome: "s3",
    Decision: "api",
    Resolution: "api",
    Tick: "core",
}
_TOPIC: Mapping[type[Record], str] = {
    ClassifiedIntent: "classified",
    ForwardedWithdrawal: "classified",
    Plan: "reports",
    PlanFailed: "reports",
    Claim: "reports",
    Outcome: "reports",
    Decision: "decisions",
    Resolution: "decisions",
    Tick: "ticks",
}


def event_of(
    record: EventRecord,
    *,
    at: int,
    offset: int = 1,
    by: str | None = None,
    realm: str = REALM,
    topic: str | None = None,
) -> Event:
    statement = state(record, signer(by or _SIGNED_BY[type(record)]), realm)
    source = Source(topic=topic or _TOPIC[type(record)], partition=0, offset=offset)
    return Event(source, at, record, statement)


# ---------------------------------------------------------------- telling


def said_bytes(step: Step) -> list[bytes]:
    """Everything a step says, as bytes."""
    row = [step.row.to_bytes()] if step.row is not None else []
    return [
        *row,
        *(output.record.to_bytes() for output in step.outputs),
        repr((step.event, step.refusal, step.reason, step.until)).encode(),
    ]


@dataclass
class Story:
    """One intent's life, told input by input. `at` is the log time of the next input unless one is given."""

    world: World = field(default_factory=a_world)
    at: int = T0
    row: PendingApproval | None = None
    open_intents: int = 0
    in_last_minute: int = 0
    denied_at: int | None = None
    intent: Intent = field(default_factory=an_intent)
    steps: list[Step] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    chain: Chain = field(default_factory=lambda: Chain(REALM, "core-0", ChainHead()))
    is_told_twice: bool = True
    _offsets: Counter[str] = field(default_factory=Counter)

    # ------------------------------------------------------------ what holds of any step

    def hear(self, record: EventRecord, *, at: int | None = None, by: str | None = None, realm: str = REALM) -> Step:
        """Tell the core one signed input."""
        topic = _TOPIC[type(record)]
        self._offsets[topic] += 1
        when = self.at if at is None else at
        return self.decide(event_of(record, at=when, by=by, realm=realm, offset=self._offsets[topic]))

    def decide(self, event: Event) -> Step:
        before = self.row
        local = Local(self.open_intents, self.in_last_minute, self.denied_at)
        step = lifecycle.decide(before, event, self.world, local)
        if self.is_told_twice:
            # The same inputs give the same bytes.
            again = lifecycle.decide(before, event, self.world, local)
            assert said_bytes(again) == said_bytes(step)
        audit = self.chain.of_step(before, event, step, self.world)
        assert len(audit.to_bytes()) > 0
        self.chain = self.chain.after(audit)
        for output in step.outputs:
            assert type(output.record).from_bytes(output.record.to_bytes()) == output.record
        if step.row is not None:
            # A row that cannot be read again would stop its partition.
            assert PendingApproval.from_bytes(step.row.to_bytes()) == step.row
        if before is not None:
            assert step.row is not None
            assert step.row.intent_id == before.intent_id
            assert set(step.row.circle) >= set(before.circle)
            if step.refusal is not None:
                assert is_same_but_for_answers(before, step.row)
            if before.phase in FINAL:
                assert step.refusal is not None
        elif step.refusal is not None and step.row is not None:
            assert step.row.phase is Phase.REFUSED
        self.row = step.row
        self.steps.append(step)
        self.events.append(event)
        return step

    # ------------------------------------------------------------ looking

    @property
    def here(self) -> PendingApproval:
        assert self.row is not None
        return self.row

    @property
    def phase(self) -> Phase | None:
        return self.row.phase if self.row is not None else None

    @property
    def question(self) -> str:
        return self.row.question.digest if self.row is not None and self.row.question is not None else DIGEST

    @property
    def grant(self) -> Grant:
        assert self.here.grant is not None
        return self.here.grant

    @property
    def voters(self) -> set[str]:
        return {vote.person for vote in self.here.votes}

    @property
    def last(self) -> tuple[str, Refusal | None, str | None]:
        """What the last step was, in short."""
        step = self.steps[-1]
        return step.event, step.refusal, step.reason

    def said(self, kind: type[Record], step: Step | None = None) -> list[Any]:
        """The records of this kind that the last step said."""
        return [each.record for each in (step or self.steps[-1]).outputs if isinstance(each.record, kind)]

    def wait(self, milliseconds: int) -> None:
        self.at += milliseconds

    # ------------------------------------------------------------ inputs

    def ask(
        self,
        action: str = "s3.copy",
        *,
        signed_by: str = "bot",
        found: tuple[Fact, ...] | None = None,
        at: int | None = None,
        by: str | None = None,
        said: Mapping[str, Any] | None = None,
        **intent: Any,
    ) -> Step:
        self.intent = an_intent(action, **intent)
        return self.ask_this(self.intent, signed_by=signed_by, found=found, at=at, by=by, said=said)

    def ask_this(
        self,
        intent: Intent,
        *,
        signed_by: str = "bot",
        found: tuple[Fact, ...] | None = None,
        at: int | None = None,
        by: str | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> Step:
        when = self.at if at is None else at
        signed = state(intent, signer(signed_by), REALM)
        return self.hear(classified_of(self.world, signed, at=when, found=found, **(said or {})), at=when, by=by)

    def a_plan(self, *, objects: int = 1, public: bool = False, **more: Any) -> Plan:
        assert self.here.round is not None
        return Plan.model_validate(
            {
                "round": self.here.round,
                "intent": state(self.intent, signer("bot"), REALM).digest,
                "executor": "s3",
                "manifest": 1,
                "summary": "copies",
                "measures": {"objects": objects, "public": public},
                "reversibility": Reversibility.EXACT,
                "undo": "delete the copy",
                "planned_at": self.at,
            }
            | more
        )

    def plan(self, *, at: int | None = None, by: str | None = None, **more: Any) -> Step:
        return self.hear(self.a_plan(**more), at=at, by=by)

    def plan_failed(self, **more: Any) -> Step:
        assert self.here.round is not None
        return self.hear(
            PlanFailed.model_validate({"round": self.here.round, "executor": "s3", "reason": "no such bucket"} | more)
        )

    def a_decision(
        self, verdict: Verdict, who: str, *, channel: Channel = Channel.API, at: int | None = None, **more: Any
    ) -> Decision:
        return Decision.model_validate(
            {
                "intent": self.here.intent_id if self.row else self.intent.id,
                "question": self.question if self.row else DIGEST,
                "verdict": verdict,
                "account": account(who, channel.value),
                "channel": channel,
                "evidence": evidence(channel, self.at if at is None else at),
                "card": DIGEST,
            }
            | more
        )

    def says(
        self,
        verdict: Verdict,
        who: str,
        *,
        channel: Channel = Channel.API,
        at: int | None = None,
        by: str | None = None,
        **more: Any,
    ) -> Step:
        return self.hear(self.a_decision(verdict, who, channel=channel, at=at, **more), at=at, by=by or channel.value)

    def approve(self, who: str, **more: Any) -> Step:
        return self.says(Verdict.APPROVE, who, **more)

    def deny(self, who: str, **more: Any) -> Step:
        return self.says(Verdict.DENY, who, **more)

    def revoke(self, who: str, **more: Any) -> Step:
        return self.says(Verdict.REVOKE, who, **more)

    def a_claim(self, instance: str = "one", **more: Any) -> Claim:
        return Claim.model_validate(
            {
                "intent": self.here.intent_id if self.row else self.intent.id,
                "question": self.question if self.row else DIGEST,
                "executor": "s3",
                "instance": instance,
            }
            | more
        )

    def claim(self, instance: str = "one", *, at: int | None = None, by: str | None = None, **more: Any) -> Step:
        return self.hear(self.a_claim(instance, **more), at=at, by=by)

    def an_outcome(self, result: Result = Result.SUCCEEDED, instance: str = "one", **more: Any) -> Outcome:
        grant = self.row.grant if self.row is not None else None
        return Outcome.model_validate(
            {
                "intent": self.here.intent_id if self.row else self.intent.id,
                "grant": grant.digest if grant is not None else DIGEST,
                "instance": instance,
                "executor": "s3",
                "result": result,
                "receipt": Receipt(summary="copied") if result is Result.SUCCEEDED else None,
            }
            | more
        )

    def report(
        self, result: Result = Result.SUCCEEDED, instance: str = "one", *, at: int | None = None, **more: Any
    ) -> Step:
        return self.hear(self.an_outcome(result, instance, **more), at=at)

    def observe(self, result: Result = Result.SUCCEEDED, instance: str = "two", **more: Any) -> Step:
        """What another instance sees, citing the `unknown` that was said."""
        return self.report(result, instance, observed=True, **({"unknown": self.here.unknown} | more))

    def a_withdrawal(
        self, by: str = "bot", kind: Literal["agent", "person"] = "agent", *, signed_by: str | None = None, **more: Any
    ) -> ForwardedWithdrawal:
        withdrawal = Withdrawal(intent=self.intent.id, by=Subject(type=kind, id=by), **more)
        signed = state(withdrawal, signer(signed_by or ("bot" if kind == "agent" else "gateway")), REALM)
        return ForwardedWithdrawal(
            withdrawal=signed,
            source=Source(topic="intents", partition=0, offset=2),
            asked_at=self.at,
            versions=self.world.versions,
        )

    def withdraw(self, by: str = "bot", kind: Literal["agent", "person"] = "agent", **more: Any) -> Step:
        return self.hear(self.a_withdrawal(by, kind, **more))

    def tick(self, at: int | None = None, *, by: str | None = None) -> Step:
        return self.hear(Tick(partition=0, number=1), at=at, by=by)

    def a_resolution(
        self, who: str, found: str = "succeeded", *, channel: Channel = Channel.API, **more: Any
    ) -> Resolution:
        grant = self.row.grant if self.row is not None else None
        return Resolution.model_validate(
            {
                "intent": self.here.intent_id if self.row else self.intent.id,
                "grant": grant.digest if grant is not None else DIGEST,
                "found": found,
                "account": account(who, channel.value),
                "channel": channel,
                "evidence": evidence(channel, self.at),
                "reason": "looked",
                "card": DIGEST,
            }
            | more
        )

    def resolve(self, who: str, found: str = "succeeded", *, channel: Channel = Channel.API, **more: Any) -> Step:
        return self.hear(self.a_resolution(who, found, channel=channel, **more), by=channel.value)

    # ------------------------------------------------------------ the world changes

    def becomes(self, kind: type[Snapshot], *, since: int = T0 - HOUR, **members: Any) -> None:
        self.world = changed(self.world, kind, at=since, **members)


def is_same_but_for_answers(before: PendingApproval, after: PendingApproval) -> bool:
    """Law 6, law 9: a refused input changes nothing but what its notifier waits for."""
    return after == before.model_copy(
        update={"answers": after.answers, "changed": after.changed, "changed_at": after.changed_at}
    )


# ---------------------------------------------------------------- stories that begin later


def planning(action: str = "s3.copy", **more: Any) -> Story:
    story = Story()
    story.ask(action, **more)
    assert story.phase is Phase.PLANNING, story.last
    return story


def pending(action: str = "s3.copy", **more: Any) -> Story:
    story = planning(action, **more)
    story.plan()
    assert story.phase is Phase.PENDING, story.last
    return story


def approved(action: str = "s3.copy", by: Iterable[str] = ("dan",), **more: Any) -> Story:
    story = planning(action, **more)
    story.plan()
    for who in by:
        story.approve(who)
    assert story.phase is Phase.APPROVED, story.last
    assert story.said(ApprovedIntent)
    return story


def executing(action: str = "s3.copy", by: Iterable[str] = ("dan",), instance: str = "one") -> Story:
    story = approved(action, by)
    story.claim(instance)
    assert story.phase is Phase.EXECUTING, story.last
    return story


def unknown(action: str = "s3.copy", by: Iterable[str] = ("dan",)) -> Story:
    story = executing(action, by)
    assert story.here.settled_at is not None
    story.at = story.here.settled_at + LEADER_SKEW_MS + 1
    story.tick()
    assert story.phase is Phase.UNKNOWN, story.last
    assert story.said(OutcomeUnknown)
    return story


def ended(phase: Phase) -> Story:
    """A story that ended so."""
    match phase:
        case Phase.REFUSED:
            story = planning()
            story.plan_failed()
        case Phase.DENIED:
            story = pending()
            story.deny("dan")
        case Phase.WITHDRAWN:
            story = pending()
            story.withdraw()
        case Phase.REVOKED:
            story = approved()
            story.revoke("dan")
        case Phase.EXPIRED:
            story = pending()
            story.at += 2 * HOUR
            story.tick()
        case Phase.SUCCEEDED:
            story = executing()
            story.report()
        case Phase.FAILED:
            story = executing()
            story.report(Result.FAILED)
        case _:
            raise AssertionError(f"{phase} is not final")
    assert story.phase is phase, story.last
    return story


def in_phase(phase: Phase | None) -> Story:
    match phase:
        case None:
            return Story()
        case Phase.PLANNING:
            return planning()
        case Phase.PENDING:
            return pending()
        case Phase.APPROVED:
            return approved()
        case Phase.EXECUTING:
            return executing()
        case Phase.UNKNOWN:
            return unknown()
        case _:
            return ended(phase)


# ---------------------------------------------------------------- a partition with separate logs


Body = Event | tuple[Statement, int]
"""An event, or a signed live document with its log time."""


@dataclass
class Partition:
    """`order.Order` and `lifecycle.decide` over logs that are fetched piece by piece: the loop, without Kafka."""

    world: World = field(default_factory=empty_world)
    logs: dict[str, list[Body]] = field(default_factory=lambda: {name: [] for name in order.INPUTS})
    rows: dict[str, PendingApproval] = field(default_factory=dict)
    steps: list[tuple[str, Step]] = field(default_factory=list)
    order: Order[Body] = field(default_factory=lambda: Order({}))

    def append(self, record: EventRecord, *, at: int, by: str | None = None) -> Event:
        """Acknowledged by its leader: it is on the log, whether or not anybody has fetched it."""
        topic = _TOPIC[type(record)]
        event = event_of(record, at=at, by=by, offset=len(self.logs[topic]))
        self.logs[topic].append(event)
        return event

    def publish(self, *documents: Snapshot, at: int = T0) -> None:
        for document in documents:
            topic = type(document).__name__.lower()
            self.logs[topic].append((state(document, signer("root"), REALM), at))

    def fetch(self, *names: str) -> None:
        """Everything there is of these topics; of all, if none is named."""
        for name in names or order.INPUTS:
            for offset in range(self.order.fetched_to(name), len(self.logs[name])):
                body = self.logs[name][offset]
                is_claim = isinstance(body, Event) and isinstance(body.record, Claim)
                assert self.order.offer(Input(name, offset, body, is_claim))

    def run(self) -> None:
        """Decide what is there; a barrier that waits fetches what it waits for."""
        while True:
            match self.order.next():
                case Ready(input=item):
                    self._decide(item.body)
                case ReadEnds() as asked:
                    self.order.ends_are(asked, {name: len(self.logs[name]) for name in asked.topics})
                case Starved(waits=True):
                    self.fetch()
                case Starved(waits=False):
                    return

    def told(self, kind: type[Record]) -> list[Any]:
        return [each.record for _, step in self.steps for each in step.outputs if isinstance(each.record, kind)]

    def _decide(self, body: Body) -> None:
        if not isinstance(body, Event):
            self.world = self.world.with_snapshot(*body)
            return
        named = lifecycle.intent_id_of(body.record)
        for intent_id in [named] if named is not None else sorted(self.rows):
            step = lifecycle.decide(self.rows.get(intent_id), body, self.world, Local())
            self.steps.append((intent_id, step))
            if step.row is not None:
                self.rows[intent_id] = step.row


def a_partition() -> Partition:
    partition = Partition()
    partition.publish(DIRECTORY, ROSTER, POLICIES, MANIFESTS)
    partition.fetch()
    partition.run()
    return partition
