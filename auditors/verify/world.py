"""The live documents: read from their topics once, and in force in each chain as that chain took them. No I/O.

A document comes into force when a pinned root key signed it (a roster: or a roster key of the directory in force), it
is exactly the next version, and it names its predecessor's digest. A roster that comes before the directory with its
key, or before its predecessor, waits for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeAlias

from . import canonical, signatures
from .canonical import Members
from .lines import Line
from .shapes import (
    KEYID,
    KINDS,
    NAME,
    ShapeError,
    Statement,
    closed,
    flag,
    maybe_text,
    maybe_whole,
    parts,
    requester_of,
    text,
    texts,
    whole,
)

TYPES: Final = {kind: f"keyturn.{kind}.v1" for kind in KINDS}
GENESIS: Final = "keyturn.genesis.v1"
DEFERRED_AT_MOST: Final = 64
CHATS: Final = frozenset({"slack", "teams"})
"""Channels that know who wrote, and have seen nobody log in."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, what it may say, and since when."""

    public: str
    role: str
    holder: str
    channel: str | None
    max_assurance: str | None
    #: Whose logins it may vouch for.
    providers: frozenset[str]
    valid_from: int
    valid_until: int | None

    def is_valid(self, at: int) -> bool:
        """Whether the key counts at this log time."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)


@dataclass(frozen=True, slots=True)
class Person:
    """A human, and who acts for them."""

    delegates: frozenset[str]
    is_active: bool


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, and the persons behind it."""

    owners: frozenset[str]
    users: frozenset[str]
    #: Holders of the gateways' keys that may sign in its name.
    gateways: frozenset[str]
    is_active: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A set of persons; a synced one's members are in the roster."""

    members: frozenset[str]
    is_synced: bool


@dataclass(frozen=True)
class Directory:
    """Who there is, in one version."""

    persons: Mapping[str, Person] = field(default_factory=dict)
    accounts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    rotas: frozenset[str] = frozenset()
    keys: Mapping[str, Key] = field(default_factory=dict)

    @classmethod
    def read(cls, members: Members) -> "Directory":
        """From the members of a directory. ShapeError when a name, account or key is there twice."""
        accounts: dict[tuple[str, str], str] = {}
        persons: dict[str, Person] = {}
        for each in parts(members, "persons"):
            name = text(each, "id", NAME)
            _once(persons, name, "person")
            persons[name] = Person(frozenset(texts(each, "delegates")), flag(each, "is_active", default=True))
            for account in parts(each, "accounts"):
                login = (text(account, "provider"), text(account, "subject"))
                _once(accounts, login, "account")
                accounts[login] = name
        agents: dict[str, Agent] = {}
        clients: dict[tuple[str, str], str] = {}
        for each in parts(members, "agents"):
            name = text(each, "id", NAME)
            # An agent named like a person could take that person's intent ids.
            _once({**agents, **dict.fromkeys(persons)} if name in persons else agents, name, "agent")
            for account in parts(each, "accounts"):
                login = (text(account, "provider"), text(account, "subject"))
                _once(accounts, login, "account")
                _once(clients, login, "account")
                clients[login] = name
            agents[name] = Agent(
                frozenset(texts(each, "owners")),
                frozenset(texts(each, "users")),
                frozenset(texts(each, "gateways")),
                flag(each, "is_active", default=True),
            )
        groups: dict[str, Group] = {}
        for each in parts(members, "groups"):
            name = text(each, "id", NAME)
            _once(groups, name, "group")
            groups[name] = Group(frozenset(texts(each, "members")), flag(each, "is_synced", default=False))
        keys: dict[str, Key] = {}
        for each in parts(members, "keys"):
            keyid = text(each, "keyid", KEYID)
            _once(keys, keyid, "key")
            keys[keyid] = _key(each)
        return cls(persons, accounts, agents, groups, frozenset(texts(members, "rotas")), keys)

    def refuses(self, statement: Statement, log_time: int, realm: str) -> str | None:
        """Why this statement does not count at `log_time`: `bad_signature`, `not_entitled`, or None when it counts."""
        key = self.keys.get(statement.keyid)
        if (
            key is None
            or key.role not in signatures.MAY_SIGN.get(statement.type, frozenset())
            or not key.is_valid(log_time)
            or not signatures.fits(key.public, realm, statement.type, statement.value, statement.sig)
        ):
            return "bad_signature"
        return None if self._may_say(key, statement) else "not_entitled"

    def _may_say(self, key: Key, statement: Statement) -> bool:
        """Whether this key's holder may say this very record: whom it may ask for, its executor, its channel."""
        body = statement.body
        match statement.type:
            case "keyturn.intent.v1":
                return _is_its_own(body.get("id"), body.get("subject")) and self._speaks_for(key, body.get("subject"))
            case "keyturn.withdrawal.v1":
                is_own = key.role == "gateway" or _is_its_own(body.get("intent"), body.get("by"))
                return is_own and self._speaks_for(key, body.get("by"))
            case "keyturn.plan.v1" | "keyturn.plan-failed.v1" | "keyturn.claim.v1" | "keyturn.outcome.v1":
                return body.get("executor") == key.holder
            case "keyturn.decision.v1" | "keyturn.resolution.v1":
                return _has_met(key, body)
            case _:
                return True

    def _speaks_for(self, key: Key, subject: object) -> bool:
        """Whether the key may ask in this name: an agent's own, a gateway it lists, a gateway that knows a login."""
        if not isinstance(subject, dict) or not isinstance(name := subject.get("id"), str):
            return False
        if subject.get("type") == "agent":
            if key.role == "agent":
                return key.holder == name
            return name in self.agents and key.holder in self.agents[name].gateways
        return key.role == "gateway" and subject.get("type") == "person" and self._knows(key, name)

    def has_checked(self, keyid: str, person: str | None) -> bool:
        """Whether the key that signed is a gateway's that can have seen a login of this person."""
        key = self.keys.get(keyid)
        return key is not None and key.role == "gateway" and person is not None and self._knows(key, person)

    def _knows(self, key: Key, person: str) -> bool:
        return any(who == person and provider in key.providers for (provider, _), who in self.accounts.items())


def _key(members: Members) -> Key:
    return Key(
        text(members, "public"),
        text(members, "role"),
        text(members, "holder"),
        maybe_text(members, "channel"),
        maybe_text(members, "max_assurance"),
        frozenset(texts(members, "providers")),
        whole(members, "valid_from"),
        maybe_whole(members, "valid_until"),
    )


def _once(known: Mapping[str, object] | Mapping[tuple[str, str], object], name: object, what: str) -> None:
    if name in known:
        raise ShapeError(f"{what} {name} is listed twice")


def _has_met(key: Key, body: Members) -> bool:
    """Whether the channel of this key can have met that account: a provider it knows, and evidence it can have."""
    account, evidence = body.get("account"), body.get("evidence")
    if key.channel is None or body.get("channel") != key.channel:
        return False
    if not isinstance(account, dict) or not isinstance(evidence, dict):
        return False
    provider, kind = account.get("provider"), evidence.get("kind")
    if provider not in key.providers:
        return False
    if key.channel in CHATS:
        return kind == "chat" and evidence.get("issuer", provider) == provider
    if kind == "oidc":
        return evidence.get("issuer") == provider
    return kind == "webauthn" and evidence.get("issuer", provider) == provider


def _is_its_own(intent_id: object, subject: object) -> bool:
    if not isinstance(intent_id, str) or not isinstance(subject, dict):
        return False
    try:
        return requester_of(intent_id) == subject.get("id")
    except ShapeError:
        return False


@dataclass(frozen=True, slots=True)
class Roster:
    """Members of synced groups; who is on call when: (person, from, until)."""

    groups: Mapping[str, frozenset[str]]
    rotas: Mapping[str, tuple[tuple[str, int, int], ...]]

    @classmethod
    def read(cls, members: Members) -> "Roster":
        """From the members of a roster. Of a name listed twice the first group counts, and all shifts."""
        groups: dict[str, frozenset[str]] = {}
        for each in parts(members, "groups"):
            groups.setdefault(text(each, "id"), frozenset(texts(each, "members")))
        rotas: dict[str, tuple[tuple[str, int, int], ...]] = {}
        for each in parts(members, "rotas"):
            shifts = tuple(
                (text(shift, "person"), whole(shift, "starts_at"), whole(shift, "ends_at"))
                for shift in parts(each, "shifts")
            )
            rotas[text(each, "id")] = rotas.get(text(each, "id"), ()) + shifts
        return cls(groups, rotas)


@dataclass(frozen=True, slots=True)
class Action:
    """How long a grant of this action lasts, and how long after it writes may still land. Milliseconds."""

    lease_ms: int
    settle_ms: int


@dataclass(frozen=True, slots=True)
class Manifests:
    """The actions executors offer."""

    actions: Mapping[str, Action]

    @classmethod
    def read(cls, members: Members) -> "Manifests":
        """From the members of the manifests."""
        actions: dict[str, Action] = {}
        for manifest in parts(members, "executors"):
            for each in parts(manifest, "actions"):
                action = Action(1000 * whole(each, "lease"), 1000 * whole(each, "settle"))
                actions.setdefault(text(each, "name"), action)
        return cls(actions)


@dataclass(frozen=True, slots=True)
class Policies:
    """Cedar text, which is not evaluated here."""

    cedar: str

    @classmethod
    def read(cls, members: Members) -> "Policies":
        """From the members of the policies."""
        return cls(text(members, "cedar"))


Document: TypeAlias = Directory | Roster | Policies | Manifests
_READERS: Final[dict[str, Callable[[Members], Document]]] = {
    "directory": Directory.read,
    "roster": Roster.read,
    "policies": Policies.read,
    "manifests": Manifests.read,
}
_MEMBERS: Final = {
    "directory": "persons agents groups rotas keys",
    "roster": "groups rotas",
    "policies": "cedar",
    "manifests": "executors",
}


@dataclass(frozen=True)
class Snapshot:
    """One version of one live document, as its topic holds it."""

    kind: str
    offset: int
    log_time: int
    version: int
    previous: str | None
    statement: Statement
    document: Document
    is_root_signed: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """A record of a world topic that is no document; the core must have refused it."""

    log_time: int
    sha256: str
    reason: str


class Shelf:
    """Every record of the world topics, by place."""

    def __init__(self, roots: Mapping[str, str], realm: str | None) -> None:
        """`roots`: pinned public keys by key id. Without a realm it is learnt from the trail before it is needed."""
        self._roots = roots
        self.realm = realm
        self._lines: dict[tuple[str, int], Line] = {}
        self._read: dict[tuple[str, int], Snapshot | Broken | None] = {}

    def take(self, line: Line) -> None:
        """Keep one record."""
        self._lines[line.topic, line.offset] = line

    def __len__(self) -> int:
        return len(self._lines)

    def at(self, kind: str, offset: int) -> Snapshot | Broken | None:
        """What lies there; None when nothing does, or a genesis record."""
        place = (kind, offset)
        if place not in self._read:
            line = self._lines.get(place)
            self._read[place] = self._open(line) if line is not None else None
        return self._read[place]

    @cached_property
    def _versions(self) -> dict[tuple[str, int], Snapshot]:
        """The first root-signed record of each version."""
        found: dict[tuple[str, int], Snapshot] = {}
        for kind, offset in sorted(self._lines):
            snapshot = self.at(kind, offset)
            if isinstance(snapshot, Snapshot) and snapshot.is_root_signed:
                found.setdefault((kind, snapshot.version), snapshot)
        return found

    def is_root_signed(self, statement: Statement) -> bool:
        """Whether a pinned root key signed it, whatever the directory says."""
        root = self._roots.get(statement.keyid)
        return root is not None and signatures.fits(
            root, self.realm or "", statement.type, statement.value, statement.sig
        )

    def between(self, kind: str, above: int, upto: int) -> list[Snapshot]:
        """The root-signed versions above .. upto, in order: for going on after a fault."""
        return [
            snapshot
            for (of, version), snapshot in sorted(self._versions.items(), key=lambda item: item[0])
            if of == kind and above < version <= upto
        ]

    def after(self, kind: str, offset: int) -> list[tuple[int, int]]:
        """(offset, log time) of the records of a topic above an offset; not the genesis record."""
        return [
            (at, line.timestamp)
            for (topic, at), line in sorted(self._lines.items(), key=lambda item: item[0])
            if topic == kind and at > offset and not (at == 0 and line.header("ce_type") == GENESIS)
        ]

    def newest_key(self, keyid: str) -> Key | None:
        """A key as the newest directory has it that lists it: retired keys stay, with their validity."""
        return self._keys.get(keyid)

    @cached_property
    def _keys(self) -> dict[str, Key]:
        found: dict[str, Key] = {}
        for _, snapshot in sorted(self._versions.items(), key=lambda item: item[0]):
            if isinstance(snapshot.document, Directory):
                found |= snapshot.document.keys
        return found

    def _open(self, line: Line) -> Snapshot | Broken | None:
        if line.offset == 0 and line.header("ce_type") == GENESIS:
            return None
        value = line.value or b""
        try:
            return self._snapshot(line, value)
        except ValueError as exc:
            return Broken(line.timestamp, canonical.digest(value), str(exc))

    def _snapshot(self, line: Line, value: bytes) -> Snapshot:
        kind = line.topic
        keyid, sig = line.header("keyid"), line.header("sig")
        if line.header("ce_type") != TYPES[kind] or keyid is None or sig is None:
            raise ShapeError("not exactly one ce_type, keyid and sig of a live document")
        body = canonical.decode(value)
        closed(body, TYPES[kind], "version", f"previous {_MEMBERS[kind]}")
        root = self._roots.get(keyid)
        version, previous = whole(body, "version"), maybe_text(body, "previous")
        if (version == 1) != (previous is None):
            raise ShapeError("version 1, and only that, has no predecessor")
        return Snapshot(
            kind,
            line.offset,
            line.timestamp,
            version,
            previous,
            Statement(TYPES[kind], body, keyid, sig),
            _READERS[kind](body),
            root is not None and signatures.fits(root, self.realm or "", TYPES[kind], value, sig),
        )


@dataclass(slots=True)
class ChainWorld:
    """The world as one chain has taken it so far."""

    realm: str
    #: By version: circles are unions over them.
    directories: dict[int, Directory] = field(default_factory=dict)
    #: By version: the log time at which it came into force.
    since: dict[int, int] = field(default_factory=dict)
    roster: Roster | None = None
    manifests: Manifests | None = None
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    digests: dict[str, str] = field(default_factory=dict)
    #: Rosters that may still come into force.
    deferred: list[Snapshot] = field(default_factory=list)
    #: Ids of this time and before may be from before a restore.
    restored_to: int = 0

    @property
    def directory(self) -> Directory:
        """The directory in force; an empty one before the first."""
        return self.directories.get(self.versions["directory"], Directory())

    def directory_at(self, log_time: int) -> int:
        """The number of the directory that was in force just before this log time; 0 where that is not known."""
        version = 0
        while self.since.get(version + 1, log_time) < log_time:
            version += 1
        return version

    def objection(self, snapshot: Snapshot) -> tuple[str, str] | None:
        """(code, what) when this record may not come into force now."""
        if not snapshot.is_root_signed and not self._is_sync(snapshot):
            return "world.signature", f"signed by {snapshot.statement.keyid}"
        due = self.versions[snapshot.kind] + 1
        if snapshot.version != due:
            return "world.successor", f"{snapshot.kind} version {snapshot.version} where {due} was due"
        if snapshot.previous != self.digests.get(snapshot.kind):
            return "world.predecessor", f"{snapshot.kind} version {snapshot.version} names another predecessor"
        return None

    def may_come_later(self, snapshot: Snapshot, objection: tuple[str, str]) -> bool:
        """Whether a roster waits for the directory that lists its key, or for the version before it."""
        return (
            snapshot.kind == "roster"
            and len(self.deferred) < DEFERRED_AT_MOST
            and snapshot.version > self.versions["roster"]
            and objection[0] in {"world.signature", "world.successor"}
        )

    def take(self, snapshot: Snapshot) -> None:
        """It is in force, and with it every roster that waited for it."""
        self._take(snapshot)
        index = 0
        while index < len(self.deferred):
            waiting = self.deferred.pop(index)
            objection = self.objection(waiting)
            if objection is None:
                self._take(waiting)
                index = 0
            elif self.may_come_later(waiting, objection):
                self.deferred.insert(index, waiting)
                index += 1
            else:
                index = 0

    def _take(self, snapshot: Snapshot) -> None:
        self.versions[snapshot.kind] = snapshot.version
        self.digests[snapshot.kind] = snapshot.statement.digest
        match snapshot.document:
            case Directory() as directory:
                self.directories[snapshot.version] = directory
                self.since[snapshot.version] = snapshot.log_time
            case Roster() as roster:
                self.roster = roster
            case Manifests() as manifests:
                self.manifests = manifests
            case Policies():
                pass

    def action(self, name: str) -> Action | None:
        """The action of that name, if an executor offers it now."""
        return self.manifests.actions.get(name) if self.manifests is not None else None

    def follow(self, numbers: Mapping[str, int], shelf: Shelf) -> None:
        """Go on after a fault: have what the trail says is in force, as far as the topics show it."""
        for kind, version in numbers.items():
            for snapshot in shelf.between(kind, self.versions[kind], version):
                self.take(snapshot)
            self.versions[kind] = version
            if kind == "directory" and self.directories:
                # Of a version that its topic does not hold the last one known stands in.
                self.directories.setdefault(version, self.directories[max(self.directories)])

    def _is_sync(self, snapshot: Snapshot) -> bool:
        return (
            snapshot.kind == "roster"
            and self.directory.refuses(snapshot.statement, snapshot.log_time, self.realm) is None
        )
