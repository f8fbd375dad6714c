"""What decisions rest on and changes while Keyturn runs: directory, roster, policies, manifests.

Each is a numbered snapshot that names its predecessor's digest and is signed by a root key that every role pins
(the roster also by a sync that may write only rosters). A new version is an input of the core like any other:
monotone, audited, in force without a restart. No I/O.
"""

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from schemas import canonical
from schemas.record import (
    ActionName,
    Count,
    Digest,
    Identifier,
    Instant,
    KeyId,
    MemberName,
    Name,
    Part,
    Prose,
    Record,
    Seconds,
)
from schemas.records import AccountRef, Assurance, Channel, Reversibility

PublicKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]

Role = Literal["root", "agent", "gateway", "intake", "core", "executor", "notifier", "roster", "notary", "operator"]
"""What a key may say: see `schemas.authority`."""


class Key(Part):
    """A public key, what it may say, and since when. Retired keys stay, with their validity."""

    keyid: KeyId
    public: PublicKey
    role: Role
    #: Which agent, executor or notifier holds it.
    holder: Name
    #: Of a notifier: the one channel it vouches for, and how far.
    channel: Channel | None = None
    max_assurance: Assurance | None = None
    #: Of a notifier or gateway: the account providers (OIDC issuers, Slack teams, Entra tenants) whose logins it may
    #: vouch for. None are vouched for when it is empty.
    providers: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()
    valid_from: Instant
    valid_until: Instant | None = None

    @model_validator(mode="after")
    def _notifiers_name_their_channel(self) -> Self:
        if (self.role == "notifier") != (self.channel is not None and self.max_assurance is not None):
            raise ValueError("a notifier's key, and only that, names channel and max_assurance")
        if self.providers and self.role not in {"notifier", "gateway"}:
            raise ValueError("only a notifier's or a gateway's key names providers")
        return self


class Person(Part):
    """A human. Whoever decides is a person; accounts are how we meet them."""

    id: Name
    name: Prose
    accounts: Annotated[tuple[AccountRef, ...], Field(max_length=32)] = ()
    #: Persons who act for this one; they stand in the circle of whatever this person asks (law 2).
    delegates: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    is_active: bool = True


class Agent(Part):
    """A registered agent, the persons answerable for it and those it may act for."""

    id: Name
    owners: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    users: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()
    #: Holders of the gateways' keys that may sign in its name; no gateway may when it is empty.
    gateways: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    #: How a gateway recognises it when it has no key: the OAuth clients that are this agent (RFC 9068: the issuer, and
    #: the `sub` of a token that the client got for itself). Never a person's.
    accounts: Annotated[tuple[AccountRef, ...], Field(max_length=32)] = ()
    #: How many of its intents may wait at once.
    max_open: Annotated[int, Field(ge=1, le=10_000)] = 20
    #: How many of its intents may be admitted within a minute; no bound but `max_open` when absent.
    max_per_minute: Annotated[int, Field(ge=1, le=100_000)] | None = None
    #: For how many seconds what people denied is not asked again (the same content, under whatever id). No longer
    #: than rows are remembered.
    cool_down: Annotated[int, Field(ge=0, le=24 * 3600)] = 3600
    is_active: bool = True


class Group(Part):
    """A named set of persons. A synced group's members come from the roster."""

    id: Name
    members: Annotated[tuple[Name, ...], Field(max_length=4096)] = ()
    is_synced: bool = False


class Snapshot(Record):
    """A numbered version of a live document. `previous` is the digest of version - 1, absent in version 1."""

    version: Annotated[int, Field(ge=1, le=2**31)]
    previous: Digest | None = None

    @model_validator(mode="after")
    def _only_the_first_has_no_predecessor(self) -> Self:
        if (self.version == 1) != (self.previous is None):
            raise ValueError("version 1 has no `previous`; every other names the digest of the version before it")
        return self


class Directory(Snapshot):
    """Who there is: persons and their accounts, agents and their owners, groups, keys."""

    TYPE: ClassVar[str] = "keyturn.directory.v1"

    persons: Annotated[tuple[Person, ...], Field(max_length=20_000)] = ()
    agents: Annotated[tuple[Agent, ...], Field(max_length=20_000)] = ()
    groups: Annotated[tuple[Group, ...], Field(max_length=2_000)] = ()
    #: Rotas that a roster may fill.
    rotas: Annotated[tuple[Name, ...], Field(max_length=2_000)] = ()
    keys: Annotated[tuple[Key, ...], Field(max_length=20_000)] = ()

    @cached_property
    def active_persons(self) -> frozenset[str]:
        """The ids of everybody who is active."""
        return frozenset(person.id for person in self.persons if person.is_active)

    @cached_property
    def active_agents(self) -> frozenset[str]:
        """The ids of the agents that are active."""
        return frozenset(agent.id for agent in self.agents if agent.is_active)

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Self:
        persons = [person.id for person in self.persons]
        agents = [agent.id for agent in self.agents]
        # Law 2: one login is one person's or one agent's, or an agent could decide as the person.
        accounts = [account for person in self.persons for account in person.accounts]
        accounts += [account for agent in self.agents for account in agent.accounts]
        for what, names in (
            # An intent id starts with its requester: an agent named like a person could squat on that person's ids.
            ("person or agent", persons + agents),
            ("group", [group.id for group in self.groups]),
            ("rota", list(self.rotas)),
            ("key", [key.keyid for key in self.keys]),
            ("account", [f"{account.provider} {account.subject}" for account in accounts]),
        ):
            if len(set(names)) != len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise ValueError(f"{what} listed twice: {', '.join(twice)}")
        known = set(persons)
        mentioned = {
            *(name for agent in self.agents for name in (*agent.owners, *agent.users)),
            *(name for group in self.groups for name in group.members),
            *(name for person in self.persons for name in person.delegates),
        }
        if unknown := sorted(mentioned - known):
            raise ValueError(f"not a person of this directory: {', '.join(unknown)}")
        return self


class Shift(Part):
    """One person on call, from (inclusive) until (exclusive)."""

    person: Name
    starts_at: Instant
    ends_at: Instant


class Rota(Part):
    """Who is on call when."""

    id: Name
    shifts: Annotated[tuple[Shift, ...], Field(max_length=4096)] = ()


class Roster(Snapshot):
    """What syncs bring in: members of the groups and rotas that the directory lists as synced."""

    TYPE: ClassVar[str] = "keyturn.roster.v1"

    groups: Annotated[tuple[Group, ...], Field(max_length=2_000)] = ()
    rotas: Annotated[tuple[Rota, ...], Field(max_length=2_000)] = ()


class Policies(Snapshot):
    """Policy as text. The Cedar schema is generated from the manifests, so that a misspelt attribute is refused."""

    TYPE: ClassVar[str] = "keyturn.policies.v1"

    cedar: Annotated[str, Field(max_length=256 * 1024)]


MeasureType = Literal["integer", "string", "boolean"]


class ManifestAction(Part):
    """One action of an executor."""

    name: ActionName
    title: Prose
    #: JSON Schema (2020-12) of `action.properties`; closed (`additionalProperties: false`).
    parameters: dict[str, Any]
    #: What a plan measures, for policy: name and type.
    measures: Annotated[dict[MemberName, MeasureType], Field(max_length=32)] = {}
    permissions: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()
    reversibility: Reversibility
    timeout: Seconds
    #: How long after a grant only its instance may act.
    lease: Seconds
    #: How long after the lease writes may still land at the provider.
    settle: Seconds

    @cached_property
    def parameters_bytes(self) -> bytes:
        """The JSON Schema's canonical bytes."""
        return canonical.encode(self.parameters)

    @field_validator("parameters")
    @classmethod
    def _parameters_are_closed(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
            raise ValueError('parameters must say "type": "object" and "additionalProperties": false')
        return schema


class Manifest(Part):
    """What an executor can do, as static data: the broker reads it and imports no plugin."""

    executor: Name
    version: Identifier
    actions: Annotated[tuple[ManifestAction, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _actions_carry_the_executors_name(self) -> Self:
        for action in self.actions:
            if action.name.partition(".")[0] != self.executor:
                raise ValueError(f"{action.name}: an action of {self.executor} is named {self.executor}.<verb>")
        return self


class Manifests(Snapshot):
    """All executors of this realm."""

    TYPE: ClassVar[str] = "keyturn.manifests.v1"
    #: Parameters are JSON Schemas.
    MAX_DEPTH: ClassVar[int] = 16

    executors: Annotated[tuple[Manifest, ...], Field(max_length=256)] = ()

    def action(self, name: str) -> ManifestAction | None:
        """The action of that name, if an executor offers it."""
        for manifest in self.executors:
            for action in manifest.actions:
                if action.name == name:
                    return action
        return None


__all__ = [
    "Agent",
    "Count",
    "Directory",
    "Group",
    "Key",
    "Manifest",
    "ManifestAction",
    "Manifests",
    "Person",
    "Policies",
    "Role",
    "Roster",
    "Rota",
    "Shift",
    "Snapshot",
]
