"""What an agent asks for, as the bytes that are signed; what can never be an intent is refused here, by place. No I/O.

The rules are those of `schemas/json/keyturn.intent.v1.json`; the tests hold them against it.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from keyturn import canonical, ids, signing
from keyturn.canonical import CanonicalError, Json
from keyturn.errors import FieldError, ParametersError

INTENT: Final = "keyturn.intent.v1"
WITHDRAWAL: Final = "keyturn.withdrawal.v1"
MAX_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 6
MAX_TTL: Final = 30 * 24 * 3600
MAX_PROPERTIES: Final = 64
MAX_ITEMS: Final = 256
MAX_IDENTIFIER: Final = 1024
MAX_PROSE: Final = 2000

Property: TypeAlias = bool | int | str | Sequence[bool | int | str]
"""A parameter of an action."""
Body: TypeAlias = dict[str, Json]

_ACTION: Final = re.compile(r"[a-z][a-z0-9]{0,30}\.[a-z][a-z0-9_]{0,62}")
_MEMBER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NOT_SHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_INVISIBLE: Final = frozenset("\u3164\u115f\u1160\uffa0\u2800\u034f\ufe0f\u17b4\u17b5") | frozenset(
    map(chr, range(0xE0100, 0xE01F0))
)


@dataclass(frozen=True, slots=True)
class Draft:
    """What is wanted, before anybody signs it."""

    action: str
    resource: tuple[str, str]
    properties: Mapping[str, Property]
    reason: str
    ttl: timedelta | int
    on_behalf_of: str | None = None
    run: str | None = None
    ticket: str | None = None
    traceparent: str | None = None

    @property
    def seconds(self) -> int:
        """The ttl."""
        return _seconds(self.ttl)

    def members(self) -> Body:
        """The intent's members, without id and subject. ParametersError names every place that is wrong."""
        context: dict[str, Json] = {"reason": unicodedata.normalize("NFC", self.reason)}
        for name in ("on_behalf_of", "run", "traceparent", "ticket"):
            if (value := getattr(self, name)) is not None:
                context[name] = value
        action: dict[str, Json] = {"name": self.action}
        if self.properties:
            action["properties"] = {name: _plain(value) for name, value in self.properties.items()}
        kind, name = self.resource
        body: Body = {
            "action": action,
            "resource": {"type": kind, "id": name},
            "context": context,
            "ttl": _seconds(self.ttl),
        }
        if errors := [*_member_errors(body), *_canonical_errors(body)]:
            raise ParametersError(dict.fromkeys(errors))
        return body


@dataclass(frozen=True, slots=True)
class Sealed:
    """A signed record: exactly these bytes go to Kafka."""

    type: str
    #: The intent it is about: the record's key on Kafka.
    intent: str
    value: bytes
    keyid: str
    sig: str

    @property
    def digest(self) -> str:
        """SHA-256 of the value."""
        return canonical.digest(self.value)


@dataclass(frozen=True, slots=True)
class Unsigned:
    """What an agent without a key sends: the gateway makes the intent, in the name of whom the token is about."""

    members: Body
    #: Makes a repeat safe.
    idempotency_key: str


def intent_bytes(intent_id: str, agent: str, members: Mapping[str, Json]) -> bytes:
    """The canonical bytes of an agent's intent."""
    body: Body = {**members, "id": intent_id, "subject": {"type": "agent", "id": agent}}
    return _bounded(body)


def without_trace(members: Mapping[str, Json]) -> Body:
    """The same wish, whoever traces it."""
    context = members["context"]
    kept = (
        {name: value for name, value in context.items() if name != "traceparent"} if isinstance(context, dict) else {}
    )
    return {**members, "context": kept}


def withdrawal_bytes(intent_id: str, agent: str, reason: str | None) -> bytes:
    """The canonical bytes of an agent's withdrawal."""
    body: Body = {"intent": intent_id, "by": {"type": "agent", "id": agent}}
    if reason is not None:
        body["reason"] = unicodedata.normalize("NFC", reason)
        if errors := list(_prose(body["reason"], "/reason")):
            raise ParametersError(errors)
    return _bounded(body)


def seal(
    kind: Literal["intent", "withdrawal"], intent_id: str, value: bytes, signer: signing.Signer, realm: str
) -> Sealed:
    """The record signed for this realm."""
    record_type = INTENT if kind == "intent" else WITHDRAWAL
    return Sealed(record_type, intent_id, value, signer.keyid, signing.sign(signer, realm, record_type, value))


def errors_of(body: Mapping[str, object]) -> tuple[FieldError, ...]:
    """Everything that keeps a whole body from being an intent."""
    if extra := body.keys() - {"id", "subject", "action", "resource", "context", "ttl"}:
        return tuple(FieldError(f"/{name}", "an intent has no such member") for name in sorted(extra))
    found = [*_member_errors(body), *_canonical_errors(body)]
    try:
        ids.split(str(body.get("id")))
    except ids.IntentIdError as exc:
        found.append(FieldError("/id", str(exc)))
    subject = body.get("subject")
    if not isinstance(subject, dict) or subject.keys() != {"type", "id"}:
        found.append(FieldError("/subject", "must have exactly type and id"))
    else:
        if subject["type"] not in {"agent", "person"}:
            found.append(FieldError("/subject/type", "agent or person"))
        found += _name(subject["id"], "/subject/id")
    return tuple(dict.fromkeys(found))


def _bounded(body: Body) -> bytes:
    try:
        value = canonical.encode(body, max_depth=MAX_DEPTH)
    except CanonicalError as exc:
        raise ParametersError([FieldError(exc.path or "/", exc.rule)]) from None
    if len(value) > MAX_BYTES:
        raise ParametersError(
            [
                FieldError(
                    "/", f"{len(value)} bytes; at most {MAX_BYTES} are accepted: name large things, don't embed them"
                )
            ]
        )
    return value


def _plain(value: Property) -> Json:
    """A list of its own, so that nobody changes what was signed; anything else is judged by the rules."""
    if isinstance(value, list | tuple):
        return list(value)
    return value  # type: ignore[return-value] # whatever it is: the rules say


def _seconds(ttl: timedelta | int) -> int:
    if isinstance(ttl, timedelta):
        return int(ttl.total_seconds())
    return ttl


def _canonical_errors(body: Mapping[str, object]) -> list[FieldError]:
    try:
        canonical.encode(dict(body), max_depth=MAX_DEPTH)
    except CanonicalError as exc:
        return [FieldError(exc.path or "/", exc.rule)]
    return []


def _member_errors(body: Mapping[str, object]) -> list[FieldError]:
    """What is wrong with the members a requester chooses."""
    found = [
        FieldError(f"/{part}", "must be an object")
        for part in ("action", "resource", "context")
        if not isinstance(body.get(part), dict)
    ]
    if found:
        return found
    action, resource, context = (_members(body[part]) for part in ("action", "resource", "context"))
    found += _unknown(action, {"name", "properties"}, "/action")
    if not isinstance(name := action.get("name"), str) or not _ACTION.fullmatch(name):
        found.append(FieldError("/action/name", "must be <executor>.<verb> in lower case, like s3.export"))
    found += _property_errors(action.get("properties", {}))
    found += _unknown(resource, {"type", "id"}, "/resource")
    found += _name(resource.get("type"), "/resource/type")
    found += _identifier(resource.get("id"), "/resource/id")
    found += _unknown(context, {"reason", "on_behalf_of", "run", "traceparent", "ticket"}, "/context")
    found += _prose(context.get("reason"), "/context/reason")
    if "on_behalf_of" in context:
        found += _name(context["on_behalf_of"], "/context/on_behalf_of")
    for each in ("run", "ticket"):
        if each in context:
            found += _identifier(context[each], f"/context/{each}")
    if "traceparent" in context and not (
        isinstance(parent := context["traceparent"], str) and _TRACEPARENT.fullmatch(parent)
    ):
        found.append(FieldError("/context/traceparent", "must be a W3C traceparent of version 00"))
    ttl = body.get("ttl")
    if type(ttl) is not int or not 1 <= ttl <= MAX_TTL:
        found.append(FieldError("/ttl", f"whole seconds from 1 to {MAX_TTL} (30 days)"))
    return found


def _members(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _unknown(members: Mapping[str, object], known: set[str], path: str) -> list[FieldError]:
    return [FieldError(f"{path}/{name}", "there is no such member") for name in members if name not in known]


def _property_errors(properties: object) -> list[FieldError]:
    path = "/action/properties"
    if not isinstance(properties, dict):
        return [FieldError(path, "must be an object")]
    found: list[FieldError] = []
    if len(properties) > MAX_PROPERTIES:
        found.append(FieldError(path, f"at most {MAX_PROPERTIES} members"))
    for name, value in properties.items():
        here = f"{path}/{name}"
        if not isinstance(name, str) or not _MEMBER.fullmatch(name):
            found.append(FieldError(here, "a name is a letter, then at most 62 letters, digits or _"))
        elif isinstance(value, list | tuple):
            if len(value) > MAX_ITEMS:
                found.append(FieldError(here, f"at most {MAX_ITEMS} items"))
            found += [
                FieldError(f"{here}/{index}", "str, int or bool")
                for index, item in enumerate(value)
                if type(item) not in {str, int, bool, float, type(None)}  # those two have a better text of their own
            ]
        elif isinstance(value, dict):
            found.append(FieldError(here, "objects do not nest here: str, int, bool, or a list of these"))
    return found


def _name(value: object, path: str) -> list[FieldError]:
    if isinstance(value, str) and ids.NAME.fullmatch(value):
        return []
    return [FieldError(path, "a name: lower-case letters, digits, - and _, at most 63, a letter or digit first")]


def _identifier(value: object, path: str) -> list[FieldError]:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_IDENTIFIER:
        return [FieldError(path, f"text of 1 to {MAX_IDENTIFIER} characters")]
    hidden = next((char for char in value if char in _INVISIBLE or unicodedata.category(char) in _NOT_SHOWN), None)
    if hidden is not None:
        return [FieldError(path, f"U+{ord(hidden):04X} is not accepted here: control, bidi or invisible")]
    return []


def _prose(value: object, path: str) -> list[FieldError]:
    if isinstance(value, str) and len(value) <= MAX_PROSE:
        return []
    return [FieldError(path, f"text of at most {MAX_PROSE} characters")]
