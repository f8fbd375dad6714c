"""Closed shapes of what is read: a member that is missing, unknown or of another kind is a ShapeError. No I/O."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from . import canonical
from .canonical import Json, Members

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
INSTANCE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,126}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
KEYID: Final = re.compile(r"[0-9a-f]{32}")
SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{86}==")
RULES: Final = re.compile(r"[ -~]{1,1024}")
EVENT: Final = re.compile(r"[a-z]+\.[a-z_]+")
INTENT_ID: Final = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})\.([0-7][0-9A-HJKMNP-TV-Z]{25})")
_ULID: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class ShapeError(ValueError):
    """A record is not of the form its type has; the text names the member."""


# ---------------------------------------------------------------- members


def text(members: Mapping[str, Json], name: str, pattern: re.Pattern[str] | None = None) -> str:
    """A text that must be there."""
    value = members.get(name)
    if not isinstance(value, str) or (pattern is not None and pattern.fullmatch(value) is None):
        raise ShapeError(f"{name}: {_shown(value)} is not what belongs there")
    return value


def whole(members: Mapping[str, Json], name: str) -> int:
    """A whole number that must be there, 0 or more."""
    value = members.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ShapeError(f"{name}: {_shown(value)} is no number")
    return value


def flag(members: Mapping[str, Json], name: str, default: bool) -> bool:
    """A yes or no; its default when it is not there."""
    value = members.get(name, default)
    if not isinstance(value, bool):
        raise ShapeError(f"{name}: {_shown(value)} is neither true nor false")
    return value


def part(members: Mapping[str, Json], name: str) -> Members:
    """An object that must be there."""
    value = members.get(name)
    if not isinstance(value, dict):
        raise ShapeError(f"{name}: {_shown(value)} is no object")
    return value


def parts(members: Mapping[str, Json], name: str) -> list[Members]:
    """A list of objects; none when it is not there."""
    found: list[Members] = []
    for value in _list(members, name):
        if not isinstance(value, dict):
            raise ShapeError(f"{name}: {_shown(value)} is no object")
        found.append(value)
    return found


def texts(members: Mapping[str, Json], name: str) -> tuple[str, ...]:
    """A list of texts; none when it is not there."""
    found: list[str] = []
    for value in _list(members, name):
        if not isinstance(value, str):
            raise ShapeError(f"{name}: {_shown(value)} is no text")
        found.append(value)
    return tuple(found)


def maybe_text(members: Mapping[str, Json], name: str, pattern: re.Pattern[str] | None = None) -> str | None:
    """A text, or nothing."""
    return text(members, name, pattern) if name in members else None


def maybe_whole(members: Mapping[str, Json], name: str) -> int | None:
    """A whole number, or nothing."""
    return whole(members, name) if name in members else None


def maybe_part(members: Mapping[str, Json], name: str) -> Members | None:
    """An object, or nothing."""
    return part(members, name) if name in members else None


def closed(members: Mapping[str, Json], what: str, required: str, optional: str = "") -> None:
    """Law 6: an unknown member is never read over."""
    needed, known = set(required.split()), set(optional.split())
    if missing := sorted(needed - set(members)):
        raise ShapeError(f"{what}: {missing[0]} is missing")
    if unknown := sorted(set(members) - needed - known):
        raise ShapeError(f"{what}: unknown member {unknown[0][:60]!r}")


def _list(members: Mapping[str, Json], name: str) -> list[Json]:
    value = members.get(name, [])
    if not isinstance(value, list):
        raise ShapeError(f"{name}: {_shown(value)} is no list")
    return value


def _shown(value: object) -> str:
    return repr(value)[:60] if value is not None else "nothing"


# ---------------------------------------------------------------- ids


def requester_of(intent_id: str) -> str:
    """Whose intent this is: `<requester>.<ULID>`."""
    match = INTENT_ID.fullmatch(intent_id)
    if match is None:
        raise ShapeError(f"{intent_id[:120]!r} is not an intent id")
    return match[1]


def time_of(intent_id: str) -> int:
    """The instant in an intent id, Unix milliseconds (ULID: the first ten digits)."""
    match = INTENT_ID.fullmatch(intent_id)
    if match is None:
        raise ShapeError(f"{intent_id[:120]!r} is not an intent id")
    at = 0
    for digit in match[2][:10]:
        at = at * 32 + _ULID.index(digit)
    return at


# ---------------------------------------------------------------- pieces of records


@dataclass(frozen=True, slots=True)
class Place:
    """A position on the log; `topic` without prefix."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def read(cls, members: Members) -> "Place":
        """From a `source` or `opened` member."""
        closed(members, "source", "topic partition offset")
        return cls(text(members, "topic"), whole(members, "partition"), whole(members, "offset"))

    def to_json(self) -> Members:
        """As it is hashed."""
        return {"topic": self.topic, "partition": self.partition, "offset": self.offset}

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True)
class Statement:
    """A signed record inside another."""

    type: str
    body: Members
    keyid: str
    sig: str

    @classmethod
    def read(cls, members: Members) -> "Statement":
        """From a member that embeds one."""
        closed(members, "statement", "type body keyid sig")
        return cls(
            text(members, "type"),
            part(members, "body"),
            text(members, "keyid", KEYID),
            text(members, "sig", SIGNATURE),
        )

    @cached_property
    def value(self) -> bytes:
        """The bytes that were signed."""
        return canonical.encode(self.body)

    @cached_property
    def digest(self) -> str:
        """Their SHA-256."""
        return canonical.digest(self.value)

    def to_json(self) -> Members:
        """As it is embedded."""
        return {"type": self.type, "body": self.body, "keyid": self.keyid, "sig": self.sig}


@dataclass(frozen=True, slots=True)
class Said:
    """A record the core wrote with a step."""

    topic: str
    type: str
    digest: str


KINDS: Final = ("directory", "roster", "policies", "manifests")


@dataclass(frozen=True, slots=True)
class Versions:
    """What a record rests on."""

    directory: int
    roster: int
    policies: int
    manifests: int
    rules: str

    @classmethod
    def read(cls, members: Members) -> "Versions":
        """From a `versions` member."""
        closed(members, "versions", "directory roster policies manifests rules")
        directory, roster, policies, manifests = (whole(members, kind) for kind in KINDS)
        return cls(directory, roster, policies, manifests, text(members, "rules", RULES))

    def to_json(self) -> Members:
        """As it is hashed."""
        return {**self.numbers, "rules": self.rules}

    @property
    def numbers(self) -> dict[str, int]:
        """By kind."""
        return {
            "directory": self.directory,
            "roster": self.roster,
            "policies": self.policies,
            "manifests": self.manifests,
        }


@dataclass(frozen=True, slots=True)
class Audit:
    """One record of the trail."""

    realm: str
    chain: str
    seq: int
    prev: str | None
    log_time: int
    source: Place
    event: str
    intent: str | None
    before: str | None
    after: str | None
    refusal: str | None
    reason: str | None
    statement: Statement | None
    sha256: str | None
    size: int | None
    said: tuple[Said, ...]
    question: Members | None
    requirement: Members | None
    circle: tuple[str, ...]
    classification: Members | None
    until: int | None
    versions: Versions
    #: SHA-256 of the stored bytes.
    digest: str
    #: Where the record itself lies.
    offset: int
    timestamp: int

    @classmethod
    def read(cls, members: Members, digest: str, offset: int, timestamp: int) -> "Audit":
        """From the members of an audit record."""
        closed(
            members,
            "audit record",
            "realm chain seq log_time source event versions",
            "prev intent before after refusal reason statement sha256 bytes said question requirement circle "
            "classification until",
        )
        statement = maybe_part(members, "statement")
        said: list[Said] = []
        for each in parts(members, "said"):
            closed(each, "said", "topic type digest")
            said.append(Said(text(each, "topic"), text(each, "type"), text(each, "digest", DIGEST)))
        return cls(
            realm=text(members, "realm", NAME),
            chain=text(members, "chain", NAME),
            seq=whole(members, "seq"),
            prev=maybe_text(members, "prev", DIGEST),
            log_time=whole(members, "log_time"),
            source=Place.read(part(members, "source")),
            event=text(members, "event", EVENT),
            intent=maybe_text(members, "intent", INTENT_ID),
            before=_phase(members, "before"),
            after=_phase(members, "after"),
            refusal=maybe_text(members, "refusal"),
            reason=maybe_text(members, "reason"),
            statement=Statement.read(statement) if statement is not None else None,
            sha256=maybe_text(members, "sha256", DIGEST),
            size=maybe_whole(members, "bytes"),
            said=tuple(said),
            question=maybe_part(members, "question"),
            requirement=maybe_part(members, "requirement"),
            circle=texts(members, "circle"),
            classification=_judgement(members),
            until=maybe_whole(members, "until"),
            versions=Versions.read(part(members, "versions")),
            digest=digest,
            offset=offset,
            timestamp=timestamp,
        )


OPEN: Final = frozenset({"planning", "pending", "approved", "executing", "unknown"})
FINAL: Final = frozenset({"refused", "denied", "withdrawn", "revoked", "expired", "succeeded", "failed"})


def _phase(members: Mapping[str, Json], name: str) -> str | None:
    value = maybe_text(members, name)
    if value is not None and value not in OPEN | FINAL:
        raise ShapeError(f"{name}: {value[:60]!r} is no phase")
    return value


# ---------------------------------------------------------------- forms of statements

FORMS: Final[dict[str, tuple[str, str]]] = {
    "keyturn.intent.v1": ("id subject action resource context ttl", ""),
    "keyturn.withdrawal.v1": ("intent by", "reason"),
    "keyturn.classified-intent.v1": ("intent source asked_at versions", "facts classification refusal reason"),
    "keyturn.forwarded-withdrawal.v1": ("withdrawal source asked_at versions", "refusal reason"),
    "keyturn.plan.v1": (
        "round intent executor manifest summary reversibility undo planned_at",
        "changes lists fingerprints measures",
    ),
    "keyturn.plan-failed.v1": ("round executor reason", ""),
    "keyturn.claim.v1": ("intent question executor instance", ""),
    "keyturn.outcome.v1": ("intent grant instance executor result", "observed unknown receipt undo reason"),
    "keyturn.decision.v1": ("intent question verdict account channel evidence card", "person reason"),
    "keyturn.resolution.v1": ("intent grant found account channel evidence reason card", "person"),
    "keyturn.tick.v1": ("partition number", ""),
    "keyturn.skip.v1": ("topic partition position until reason", ""),
    "keyturn.restore.v1": ("partition head at reason", ""),
    "keyturn.redrive.v1": ("source sha256 bytes reason", ""),
}
"""Members each statement must have, and may have."""


def require_form(statement: Statement) -> None:
    """ShapeError when the body is not of its type's form."""
    form = FORMS.get(statement.type)
    if form is None:
        raise ShapeError(f"{statement.type[:80]!r} is no input of the core")
    closed(statement.body, statement.type, *form)
    _DEEP.get(statement.type, _nothing)(statement.body)


def _nothing(_: Members) -> None:
    return


def _intent(body: Members) -> None:
    subject = part(body, "subject")
    closed(subject, "subject", "type id")
    if text(subject, "type") not in {"agent", "person"}:
        raise ShapeError("subject.type is neither agent nor person")
    text(subject, "id", NAME)
    text(body, "id", INTENT_ID)
    text(part(body, "action"), "name")
    maybe_text(part(body, "context"), "on_behalf_of", NAME)
    whole(body, "ttl")


def _withdrawal(body: Members) -> None:
    text(body, "intent", INTENT_ID)
    text(part(body, "by"), "id", NAME)


def _classified(body: Members) -> None:
    Statement.read(part(body, "intent"))
    Place.read(part(body, "source"))
    whole(body, "asked_at")
    parts(body, "facts")
    Versions.read(part(body, "versions"))
    maybe_text(body, "refusal")
    _judgement(body)


def _forwarded(body: Members) -> None:
    Statement.read(part(body, "withdrawal"))
    Place.read(part(body, "source"))
    whole(body, "asked_at")
    maybe_text(body, "refusal")


def _round(body: Members) -> None:
    round_ = part(body, "round")
    closed(round_, "round", "intent number opened")
    text(round_, "intent", INTENT_ID)
    whole(round_, "number")
    Place.read(part(round_, "opened"))
    text(body, "executor", NAME)


def _plan(body: Members) -> None:
    _round(body)
    text(body, "intent", DIGEST)


def _claim(body: Members) -> None:
    text(body, "intent", INTENT_ID)
    text(body, "question", DIGEST)
    text(body, "executor", NAME)
    text(body, "instance", INSTANCE)


def _outcome(body: Members) -> None:
    text(body, "intent", INTENT_ID)
    text(body, "grant", DIGEST)
    text(body, "executor", NAME)
    text(body, "instance", INSTANCE)
    flag(body, "observed", default=False)
    maybe_text(body, "unknown", DIGEST)
    if text(body, "result") not in {"succeeded", "failed", "stale", "unknown"}:
        raise ShapeError("result is unknown")


def _word(body: Members) -> None:
    text(body, "intent", INTENT_ID)
    account = part(body, "account")
    closed(account, "account", "provider subject")
    text(account, "provider")
    text(account, "subject")
    maybe_text(body, "person", NAME)
    text(body, "channel")
    evidence = part(body, "evidence")
    closed(evidence, "evidence", "kind digest", "issuer auth_time acr amr")
    text(evidence, "kind")
    maybe_whole(evidence, "auth_time")


def _decision(body: Members) -> None:
    _word(body)
    text(body, "question", DIGEST)
    if text(body, "verdict") not in {"approve", "deny", "revoke"}:
        raise ShapeError("verdict is unknown")


def _resolution(body: Members) -> None:
    _word(body)
    text(body, "grant", DIGEST)
    if text(body, "found") not in {"succeeded", "failed"}:
        raise ShapeError("found is unknown")


def _tick(body: Members) -> None:
    whole(body, "partition")
    whole(body, "number")


def _skip(body: Members) -> None:
    text(body, "topic")
    for name in ("partition", "position", "until"):
        whole(body, name)
    text(body, "reason")


def _restore(body: Members) -> None:
    whole(body, "partition")
    whole(body, "at")
    text(body, "reason")
    head = part(body, "head")
    closed(head, "head", "", "seq digest")
    if "seq" in head:
        whole(head, "seq")
    maybe_text(head, "digest", DIGEST)


def _redrive(body: Members) -> None:
    Place.read(part(body, "source"))
    text(body, "sha256", DIGEST)
    whole(body, "bytes")
    text(body, "reason")


_DEEP: Final[dict[str, Callable[[Members], None]]] = {
    "keyturn.intent.v1": _intent,
    "keyturn.withdrawal.v1": _withdrawal,
    "keyturn.classified-intent.v1": _classified,
    "keyturn.forwarded-withdrawal.v1": _forwarded,
    "keyturn.plan.v1": _plan,
    "keyturn.plan-failed.v1": _round,
    "keyturn.claim.v1": _claim,
    "keyturn.outcome.v1": _outcome,
    "keyturn.decision.v1": _decision,
    "keyturn.resolution.v1": _resolution,
    "keyturn.tick.v1": _tick,
    "keyturn.skip.v1": _skip,
    "keyturn.restore.v1": _restore,
    "keyturn.redrive.v1": _redrive,
}

EFFECTS: Final = ("permit", "require_approval", "deny")
RISKS: Final = ("low", "medium", "high", "critical")
ASSURANCES: Final = ("channel", "identity", "person")
MAX_SEATS: Final = 16


def require_requirement(requirement: Members) -> None:
    """ShapeError when this is no requirement."""
    closed(requirement, "requirement", "seats assurance within")
    seats = parts(requirement, "seats")
    if not 1 <= len(seats) <= MAX_SEATS:
        raise ShapeError("a requirement has 1 to 16 kinds of seats")
    for seat in seats:
        closed(seat, "seat", "of count")
        text(seat, "of")
        if not 1 <= whole(seat, "count") <= MAX_SEATS:
            raise ShapeError("seat.count is not 1 to 16")
    if text(requirement, "assurance") not in ASSURANCES:
        raise ShapeError("assurance is unknown")
    whole(requirement, "within")


def _judgement(members: Members) -> Members | None:
    """What policy said, if it is there."""
    found = maybe_part(members, "classification")
    if found is None:
        return None
    closed(found, "classification", "effect risk", "rules requirement reason")
    if text(found, "effect") not in EFFECTS or text(found, "risk") not in RISKS:
        raise ShapeError("classification: effect or risk is unknown")
    texts(found, "rules")
    requirement = maybe_part(found, "requirement")
    if requirement is not None:
        require_requirement(requirement)
    return found
