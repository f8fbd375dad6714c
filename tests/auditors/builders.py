"""Trails for the verifier's tests: the real lifecycle over signed inputs, in memory, with offsets and log times.

`Trail` is an honest core unless a step is told to lie: `row` and `world` doctor what the core believes, `audit` doctors
what it writes. Everything a lying core says is signed with its valid key, and its chain is consistent.
"""

import base64
import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from auditors.verify import Head, Report, Verification
from auditors.verify.lines import parse
from broker import lifecycle
from broker.core import trail as core_trail
from broker.core.trail import Chain
from broker.lifecycle import Event, Local
from schemas import classification, envelope, ids, partition
from schemas.record import Record, Statement, state
from schemas.records import (
    AccountRef,
    Action,
    Assurance,
    AuditRecord,
    ChainHead,
    Channel,
    Claim,
    ClassifiedIntent,
    Context,
    Decision,
    Evidence,
    Fact,
    ForwardedWithdrawal,
    Genesis,
    Intent,
    Outcome,
    PendingApproval,
    Plan,
    PlanFailed,
    Receipt,
    Refusal,
    Resolution,
    Resource,
    Restore,
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
    Roster,
    Rota,
    Shift,
    Snapshot,
)
from schemas.world import World

REALM = "acme-test"
PREFIX = "keyturn."
PARTITIONS = 2
START = 1_750_000_000_000
HOUR = 3_600_000
IDP = "https://login.example"
Line = dict[str, Any]
Bundle = dict[str, list[Line]]


def signer(name: str) -> PrivateKeySigner:
    """A key that is the same in every run."""
    return PrivateKeySigner.from_seed(hashlib.sha256(name.encode()).digest())


ROOT = signer("root")
ROOTS = ((ROOT.keyid, ROOT.public),)
SEALED_BY_ROOT = "root"

CEDAR = """
@id("export_needs_people") @risk("high")
@approvers("group:sre group:data") @quorum("2 1") @assurance("identity") @within("1h")
permit(principal, action == Action::"s3.export", resource);

@id("page_needs_on_call") @risk("medium") @approvers("oncall:payments") @within("30m")
permit(principal, action == Action::"s3.page", resource);

@id("list_is_automatic") @automatic("reads only")
permit(principal, action == Action::"s3.list", resource);
"""
WEAKER = CEDAR.replace('@quorum("2 1") @assurance("identity")', '@quorum("1 1") @assurance("channel")')


def _key(name: str, role: Any, holder: str, **more: Any) -> Key:
    made = signer(name)
    given = {"valid_from": START - HOUR} | more
    return Key(keyid=made.keyid, public=made.public, role=role, holder=holder, **given)


def keys() -> tuple[Key, ...]:
    """One key a role."""
    vouches = {"channel": Channel.API, "max_assurance": Assurance.IDENTITY, "providers": (IDP,)}
    return (
        _key("builder", "agent", "builder"),
        _key("porter", "agent", "porter"),
        _key("gateway", "gateway", "gateway", providers=(IDP,)),
        _key("intake", "intake", "intake"),
        _key("core", "core", "core"),
        _key("s3", "executor", "s3"),
        _key("iam", "executor", "iam"),
        _key("api", "notifier", "api", **vouches),
        _key(
            "console",
            "notifier",
            "console",
            channel=Channel.CONSOLE,
            max_assurance=Assurance.CHANNEL,
            providers=(IDP,),
        ),
        _key("slack", "notifier", "slack", channel=Channel.SLACK, max_assurance=Assurance.CHANNEL, providers=("T1",)),
        _key("sync", "roster", "sync"),
    )


def account(person: str) -> AccountRef:
    """The login of a person."""
    return AccountRef(provider=IDP, subject=person)


def _person(name: str, *, logins: Iterable[str] = (), **more: Any) -> Person:
    accounts = tuple(account(login) for login in (name, *logins))
    return Person(id=name, name=name.title(), accounts=accounts, **more)


def directory(**changes: Any) -> Directory:
    """Version 1: alice owns the agents, dave is her delegate, gina may use them; the others decide."""
    given: dict[str, Any] = {
        "version": 1,
        "persons": (
            _person("alice", delegates=("dave",)),
            _person("bob", logins=("bob-admin",)),
            _person("carol"),
            _person("dave"),
            _person("erin"),
            _person("gina"),
            _person("hugo", is_active=False),
        ),
        "agents": (
            Agent(id="builder", owners=("alice",), users=("gina",), gateways=("gateway",)),
            Agent(id="porter", owners=("alice",), users=("gina",), gateways=("gateway",)),
        ),
        "groups": (
            Group(id="sre", members=("alice", "bob", "carol", "dave", "hugo")),
            Group(id="data", is_synced=True),
            Group(id="operators", members=("erin", "alice")),
        ),
        "rotas": ("payments",),
        "keys": keys(),
    }
    return Directory(**(given | changes))


def roster(**changes: Any) -> Roster:
    """Version 1: erin and carol are in data; bob is on call first, erin after him."""
    given: dict[str, Any] = {
        "version": 1,
        "groups": (Group(id="data", members=("erin", "carol")),),
        "rotas": (
            Rota(
                id="payments",
                shifts=(
                    Shift(person="bob", starts_at=START - HOUR, ends_at=START + HOUR),
                    Shift(person="erin", starts_at=START + HOUR, ends_at=START + 9 * HOUR),
                ),
            ),
        ),
    }
    return Roster(**(given | changes))


def manifests() -> Manifests:
    """One executor with three actions."""

    def action(name: str) -> ManifestAction:
        return ManifestAction(
            name=name,
            title=f"Do {name}",
            parameters={
                "type": "object",
                "additionalProperties": False,
                "required": ["prefix"],
                "properties": {"prefix": {"type": "string"}},
            },
            measures={"objects": "integer"},
            reversibility=Reversibility.COMPENSATING,
            timeout=60,
            lease=120,
            settle=30,
        )

    actions = tuple(action(name) for name in ("s3.export", "s3.list", "s3.page"))
    return Manifests(version=1, executors=(Manifest(executor="s3", version="1", actions=actions),))


def successor(document: Snapshot, before: Snapshot, **changes: Any) -> Any:
    """`document` as the version after `before`."""
    return document.model_copy(update={"version": before.version + 1, "previous": before.digest} | changes)


def same(value: Any) -> Any:
    """Not doctored."""
    return value


@dataclass
class Trail:
    """A realm with its topics, and a core that decides every input as soon as it is there."""

    now: int = START
    realm: str = REALM
    core: str = "core"
    topics: Bundle = field(default_factory=dict)
    rows: dict[str, PendingApproval] = field(default_factory=dict)
    worlds: dict[int, World] = field(default_factory=dict)
    chains: dict[int, Chain] = field(default_factory=dict)
    records: list[AuditRecord] = field(default_factory=list)
    numbers: dict[tuple[str, int], int] = field(default_factory=dict)
    ids_made: int = 0

    def __post_init__(self) -> None:
        for number in range(PARTITIONS):
            self.worlds[number] = World(self.realm, ROOTS)
            self.chains[number] = Chain(self.realm, f"core-{number}", ChainHead())
            for topic in ("intents", "classified", "decisions", "reports", "ticks"):
                self.write_genesis(topic, number)
        for topic in ("directory", "roster", "policies", "manifests"):
            self.write_genesis(topic, 0)

    # ------------------------------------------------------------ topics

    def write(self, topic: str, number: int, sealed: envelope.Sealed, at: int | None = None) -> Source:
        """Append a record; the log time moves on."""
        self.now = at if at is not None else self.now + 1_000
        lines = self.topics.setdefault(topic, [])
        offset = sum(1 for line in lines if line["partition"] == number)
        lines.append(
            {
                "topic": PREFIX + topic,
                "partition": number,
                "offset": offset,
                "timestamp": self.now,
                "key": base64.b64encode(sealed.key).decode(),
                "headers": [[name, base64.b64encode(value).decode()] for name, value in sealed.headers],
                "value": base64.b64encode(sealed.value).decode(),
            }
        )
        return Source(topic=topic, partition=number, offset=offset)

    def write_genesis(self, topic: str, number: int) -> None:
        """The first record of an input partition."""
        record = Genesis(realm=self.realm, topic=PREFIX + topic, partition=number)
        self.write(topic, number, envelope.seal(record, "genesis", ROOT, self.realm, source="administration"), START)

    def audit(self, record: AuditRecord, number: int) -> AuditRecord:
        """Append to the trail, and to its chain."""
        sealed = envelope.seal(record, core_trail.key_of(record), signer(self.core), self.realm, source="core")
        at = self.now
        self.write("audit", 0, sealed, record.log_time + 5)
        self.now = at
        self.chains[number] = self.chains[number].after(record)
        self.records.append(record)
        return record

    # ------------------------------------------------------------ the world

    def change(
        self, document: Snapshot, *, by: str = "root", chains: Iterable[int] = range(PARTITIONS), skips: bool = False
    ) -> None:
        """A new version of a live document; every chain takes it, or refuses it."""
        topic = document.TYPE.split(".")[1]
        key = ROOT if by == "root" else signer(by)
        sealed = envelope.seal(document, str(document.version), key, self.realm, source="administration")
        source = self.write(topic, 0, sealed)
        statement = state(document, key, self.realm)
        for number in chains:
            world = self.worlds[number]
            deferred = len(world.deferred)
            try:
                world = world.with_snapshot(statement, self.now)
            except ValueError as exc:
                refusal = getattr(exc, "refusal", Refusal.MALFORMED)
                if not skips:
                    chain = self.chains[number]
                    self.audit(chain.of_refused_input(source, self.now, sealed.value, refusal, str(exc), world), number)
                    continue
                # A lying core: it takes what it must not.
                world = _forced(world, document, statement)
            self.worlds[number] = world
            is_deferred = len(world.deferred) > deferred
            record = self.chains[number].of_world(source, self.now, statement, world, is_deferred=is_deferred)
            self.audit(record, number)

    def begin(self, **changes: Any) -> "Trail":
        """Version 1 of everything, or what is given instead."""
        given = {
            "directory": directory(),
            "roster": roster(),
            "policies": Policies(version=1, cedar=CEDAR),
            "manifests": manifests(),
        } | changes
        for document in given.values():
            self.change(document)
        return self

    # ------------------------------------------------------------ deciding

    def feed(
        self,
        topic: str,
        record: Any,
        by: str,
        *,
        at: int | None = None,
        sealed_in: str | None = None,
        row: Callable[[PendingApproval], PendingApproval] = same,
        world: Callable[[World], World] = same,
        audit: Callable[[AuditRecord], AuditRecord] = same,
        spoil: Callable[[Statement], Statement] = same,
    ) -> AuditRecord:
        """One input, signed, appended, decided, audited."""
        statement = spoil(state(record, signer(by), sealed_in or self.realm))
        intent_id = lifecycle.intent_id_of(record) or ""
        number = partition.partition_of(ids.requester_of(intent_id), PARTITIONS)
        source = self.write(topic, number, envelope.reseal(statement, intent_id, self.realm, source=by), at)
        event = Event(source, self.now, record, statement)
        return self._decide(intent_id, number, event, row, world, audit)

    def tick(
        self,
        number: int,
        at: int,
        *,
        intents: Iterable[str] | None = None,
        row: Callable[[PendingApproval], PendingApproval] = same,
    ) -> list[AuditRecord]:
        """Time has passed: every due row of the partition moves."""
        record = Tick(partition=number, number=at)
        statement = state(record, signer("core"), self.realm)
        source = self.write("ticks", number, envelope.reseal(statement, "tick", self.realm, source="core"), at)
        event = Event(source, at, record, statement)
        due = [
            intent_id
            for intent_id, held in self.rows.items()
            if self.partition(intent_id) == number and (lifecycle.due_at(held) or at) < at
        ]
        return [self._decide(intent_id, number, event, row) for intent_id in (intents if intents is not None else due)]

    def _decide(
        self,
        intent_id: str,
        number: int,
        event: Event,
        row: Callable[[PendingApproval], PendingApproval] = same,
        world: Callable[[World], World] = same,
        audit: Callable[[AuditRecord], AuditRecord] = same,
    ) -> AuditRecord:
        known = self.worlds[number]
        held = self.rows.get(intent_id)
        before = row(held) if held is not None else None
        step = lifecycle.decide(before, event, world(known), Local())
        if step.refusal is Refusal.INTERNAL:
            raise AssertionError(step.reason)
        if step.row is not None:
            self.rows[intent_id] = step.row
        for output in step.outputs:
            if output.executor is not None and output.topic.name.startswith("approved."):
                self._output(f"approved.{output.executor}", number, output.record, intent_id)
        return self.audit(audit(self.chains[number].of_step(before, event, step, known)), number)

    def _output(self, topic: str, number: int, record: Record, intent_id: str) -> None:
        count = self.numbers.get((topic, number), 0)
        self.numbers[topic, number] = count + 1
        at = self.now
        sealed = envelope.seal(record, intent_id, signer("core"), self.realm, source="core", number=count)
        self.write(topic, number, sealed, at)

    @staticmethod
    def partition(intent_id: str) -> int:
        """Where everything about this intent is said."""
        return partition.partition_of(ids.requester_of(intent_id), PARTITIONS)

    # ------------------------------------------------------------ a story's verbs

    def intent(self, agent: str = "builder", action: str = "s3.export", ttl: int = 7200, **context: Any) -> Intent:
        """A wish with a new id."""
        self.ids_made += 1
        return Intent(
            id=ids.intent_id(agent, self.now, self.ids_made.to_bytes(10, "big")),
            subject=Subject(type="agent", id=agent),
            action=Action(name=action, properties={"prefix": "reports/"}),
            resource=Resource(type="bucket", id="acme-data"),
            context=Context(reason="quarterly export", **context),
            ttl=ttl,
        )

    def classified(self, intent: Intent, *, by: str | None = None, sealed_in: str | None = None, **changes: Any) -> Any:
        """The intent on its topic, and intake's answer to it."""
        key = signer(by or intent.subject.id)
        statement = state(intent, key, sealed_in or self.realm)
        number = self.partition(intent.id)
        source = self.write("intents", number, envelope.reseal(statement, intent.id, self.realm, source="agent"))
        facts = tuple(
            Fact(name=name, value=value, source="tags", observed_at=self.now)
            for name, value in (("classification", "internal"), ("environment", "prod"), ("owner", "data"))
        )
        world = self.worlds[number]
        given = {
            "intent": statement,
            "source": source,
            "asked_at": self.now,
            "facts": facts,
            "classification": classification.classify(intent, facts, None, world, self.now),
            "versions": world.versions,
        } | changes
        return ClassifiedIntent(**given)

    def ask(self, *, agent: str = "builder", action: str = "s3.export", ttl: int = 7200, **lies: Any) -> str:
        """An intent, admitted."""
        intent = self.intent(agent, action, ttl)
        self.feed("classified", self.classified(intent), "intake", **lies)
        return intent.id

    def asked_of_a_late_intake(self, late_by: int = 0) -> str:
        """An intent that waited unread while its agent's owner left. `late_by`: how wrong intake dates the asking."""
        self.now += 60_000
        intent = self.intent("builder", "s3.export")
        said = self.classified(intent)
        before = directory()
        agents = tuple(agent.model_copy(update={"owners": ("gina",)}) for agent in before.agents)
        self.now += 30_000
        self.change(successor(before, before, agents=agents))
        self.now += 60_000
        versions = self.worlds[self.partition(intent.id)].versions
        said = said.model_copy(update={"versions": versions, "asked_at": said.asked_at + late_by})
        self.feed("classified", said, "intake")
        return intent.id

    def plan(self, intent_id: str, *, changes: dict[str, Any] | None = None, **lies: Any) -> AuditRecord:
        """The executor's plan for the open round."""
        row = self.rows[intent_id]
        assert row.classified is not None
        given = {
            "round": row.round,
            "intent": row.classified.read(ClassifiedIntent).intent.digest,
            "executor": "s3",
            "manifest": 1,
            "summary": "copy 12 objects",
            "measures": {"objects": 12},
            "reversibility": Reversibility.COMPENSATING,
            "undo": "delete the copies",
            "planned_at": self.now,
        } | (changes or {})
        return self.feed("reports", Plan(**given), "s3", **lies)

    def no_plan(self, intent_id: str, **lies: Any) -> AuditRecord:
        """The executor could not plan."""
        round_ = self.rows[intent_id].round
        assert round_ is not None
        return self.feed("reports", PlanFailed(round=round_, executor="s3", reason="no such bucket"), "s3", **lies)

    def pending(self, *, agent: str = "builder", action: str = "s3.export", ttl: int = 7200) -> str:
        """An intent that people are asked about."""
        intent_id = self.ask(agent=agent, action=action, ttl=ttl)
        self.plan(intent_id)
        return intent_id

    def approved(self, *, agent: str = "builder") -> str:
        """An intent with every seat filled."""
        intent_id = self.pending(agent=agent)
        for person in ("bob", "carol", "erin"):
            self.say(intent_id, person)
        assert self.rows[intent_id].phase.value == "approved"
        return intent_id

    def executing(self, *, agent: str = "builder") -> str:
        """A granted intent."""
        intent_id = self.approved(agent=agent)
        self.claim(intent_id)
        return intent_id

    def say(
        self,
        intent_id: str,
        login: str,
        verdict: Verdict = Verdict.APPROVE,
        *,
        question: str | None = None,
        by: str = "api",
        channel: Channel = Channel.API,
        kind: Any = "oidc",
        at: int | None = None,
        **lies: Any,
    ) -> AuditRecord:
        """One person's word."""
        asked = self.rows[intent_id].question
        now = at if at is not None else self.now + 1_000
        record = Decision(
            intent=intent_id,
            question=question or (asked.digest if asked is not None else "0" * 64),
            verdict=verdict,
            account=account(login),
            channel=channel,
            evidence=Evidence(
                kind=kind,
                digest=hashlib.sha256(login.encode()).hexdigest(),
                issuer=IDP,
                auth_time=now // 1000 - 60,
            ),
            card="c" * 64,
        )
        return self.feed("decisions", record, by, at=at, **lies)

    def claim(self, intent_id: str, *, instance: str = "s3-a", question: str | None = None, **lies: Any) -> AuditRecord:
        """The executor will act."""
        asked = self.rows[intent_id].question
        digest = question or (asked.digest if asked is not None else "0" * 64)
        return self.feed(
            "reports", Claim(intent=intent_id, question=digest, executor="s3", instance=instance), "s3", **lies
        )

    def outcome(
        self,
        intent_id: str,
        result: Result = Result.SUCCEEDED,
        *,
        changes: dict[str, Any] | None = None,
        **lies: Any,
    ) -> AuditRecord:
        """What happened."""
        grant = self.rows[intent_id].grant
        given = {
            "intent": intent_id,
            "grant": grant.digest if grant is not None else "0" * 64,
            "instance": grant.instance if grant is not None else "s3-a",
            "executor": "s3",
            "result": result,
            "receipt": Receipt(summary="12 objects copied") if result is Result.SUCCEEDED else None,
            "reason": None if result is Result.SUCCEEDED else "because",
        } | (changes or {})
        return self.feed("reports", Outcome(**given), "s3", **lies)

    def resolve(self, intent_id: str, login: str, found: Any = "succeeded", **lies: Any) -> AuditRecord:
        """What people found out."""
        grant = self.rows[intent_id].grant
        assert grant is not None
        record = Resolution(
            intent=intent_id,
            grant=grant.digest,
            found=found,
            account=account(login),
            channel=Channel.API,
            evidence=Evidence(kind="oidc", digest="e" * 64, issuer=IDP, auth_time=self.now // 1000),
            reason="looked at the bucket",
            card="c" * 64,
        )
        return self.feed("decisions", record, "api", **lies)

    def restore(self, number: int, *, by: PrivateKeySigner = ROOT, **lies: Any) -> AuditRecord:
        """The log of this partition was put back to where it stands; a root key says so, and the core heeds it."""
        head = lies.get("head", self.chains[number].head)
        at, refusal = lies.get("at", self.now), lies.get("refusal")
        restore = Restore(partition=lies.get("partition", number), head=head, at=at, reason="disks gone")
        statement = state(restore, by, self.realm)
        sealed = envelope.reseal(statement, "restore", self.realm, source="operator")
        source = self.write("operations", number, sealed)
        if refusal is None:
            self.worlds[number] = self.worlds[number].restored(ids.restored_to(self.now, restore.at))
        said = self.chains[number].of_operation(
            source, self.now, "realm.restored", statement, refusal, restore.reason, self.worlds[number]
        )
        return self.audit(said, number)

    def withdraw(self, intent_id: str, *, by: Subject | None = None, key: str | None = None) -> AuditRecord:
        """The requester or an owner takes it back."""
        requester = ids.requester_of(intent_id)
        record = Withdrawal(intent=intent_id, by=by or Subject(type="agent", id=requester))
        statement = state(record, signer(key or requester), self.realm)
        number = self.partition(intent_id)
        source = self.write("intents", number, envelope.reseal(statement, intent_id, self.realm, source="agent"))
        forwarded = ForwardedWithdrawal(
            withdrawal=statement, source=source, asked_at=self.now, versions=self.worlds[number].versions
        )
        return self.feed("classified", forwarded, "intake")

    # ------------------------------------------------------------ checking

    def bundle(self) -> Bundle:
        """A copy of every topic, to be tampered with."""
        return copy.deepcopy(self.topics)

    def check(self, **more: Any) -> Report:
        """What the verifier says."""
        return check(self.topics, **more)


def _forced(world: World, document: Snapshot, statement: Statement) -> World:
    """The world of a core that does not look at versions and signatures."""
    assert isinstance(document, Directory)
    filler = (world.directories[-1],) * (document.version - 1 - len(world.directories))
    digests = tuple(sorted({**dict(world.digests), document.TYPE: statement.digest}.items()))
    since = (*world.directories_since, *(world.directories_since[-1] for _ in (*filler, document)))
    return replace(world, directories=(*world.directories, *filler, document), directories_since=since, digests=digests)


def check(bundle: Bundle, *, realm: str | None = None, heads: Iterable[Head] = (), root: str = ROOT.public) -> Report:
    """The verifier over a bundle in memory."""
    verification = Verification([root], realm=realm, heads=heads)
    for topic, lines in bundle.items():
        if topic != "audit":
            for line in lines:
                verification.take(parse(json.dumps(line).encode()))
    for line in bundle["audit"]:
        verification.take_audit(parse(json.dumps(line).encode()))
    return verification.finish()


def save(bundle: Bundle, folder: Path) -> Path:
    """A bundle on disk."""
    folder.mkdir(exist_ok=True)
    for topic, lines in bundle.items():
        (folder / f"{topic}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def value_of(line: Line) -> bytes:
    """The bytes of a line."""
    return base64.b64decode(line["value"])


def with_value(line: Line, value: bytes | None) -> Line:
    """The line with other bytes."""
    return line | {"value": base64.b64encode(value).decode() if value is not None else None}


def with_header(line: Line, name: str, value: str) -> Line:
    """The line with another header."""
    encoded = base64.b64encode(value.encode()).decode()
    return line | {"headers": [[key, encoded if key == name else old] for key, old in line["headers"]]}


def members_of(line: Line) -> dict[str, Any]:
    """The members of an audit line."""
    members: dict[str, Any] = json.loads(value_of(line))
    return members


def reforged(
    lines: list[Line], edit: Callable[[list[AuditRecord]], Iterable[AuditRecord]], key: str = "core"
) -> list[Line]:
    """A trail that a core with a valid key wrote anew: numbered, chained and signed consistently."""
    records = list(edit([AuditRecord.from_bytes(value_of(line)) for line in lines]))
    return [_line(record, offset, record.log_time + 5, key) for offset, record in enumerate(rechained(records), 1)]


def rechained(records: Iterable[AuditRecord]) -> Iterator[AuditRecord]:
    """Each record numbered after, and naming, the one before it in its chain."""
    heads: dict[str, ChainHead] = {}
    for record in records:
        head = heads.get(record.chain, ChainHead())
        linked = record.model_copy(update={"seq": head.seq + 1, "prev": head.digest})
        heads[record.chain] = ChainHead(seq=linked.seq, digest=linked.digest)
        yield linked


def _line(record: AuditRecord, offset: int, at: int, key: str) -> Line:
    sealed = envelope.seal(record, core_trail.key_of(record), signer(key), record.realm, source="core")
    return {
        "topic": PREFIX + "audit",
        "partition": 0,
        "offset": offset,
        "timestamp": at,
        "key": base64.b64encode(sealed.key).decode(),
        "headers": [[name, base64.b64encode(value).decode()] for name, value in sealed.headers],
        "value": base64.b64encode(sealed.value).decode(),
    }
