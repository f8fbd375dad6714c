"""What a change of a stack is asked to be, and by which names the provider knows it. No I/O."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from executors.contract import TargetMissingError
from schemas import canonical
from schemas.records import Intent, Property, Round

ACTION: Final = "infra.change_set"
OWN_NAME: Final = "keyturn-"
"""What the names of our change sets begin with."""
_STACK: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
_DESCRIBED: Final = re.compile(r"Keyturn: ([a-z0-9_.A-Z-]+), round ([0-9]+), for ([0-9]+) s")


@dataclass(frozen=True, slots=True)
class Wish:
    """The parameters of `infra.change_set`."""

    stack: str
    #: The template itself; None: it lies at `url`.
    body: str | None
    url: str | None
    sha256: str
    parameters: tuple[tuple[str, str], ...]
    keep: tuple[str, ...]
    capabilities: tuple[str, ...]

    @classmethod
    def of(cls, intent: Intent) -> Self:
        """What `intent` asks for; TargetMissingError when it cannot be meant."""
        if intent.action.name != ACTION:
            raise TargetMissingError(f"this executor performs {ACTION}, not {intent.action.name}")
        given = intent.action.properties
        stack, body, url = _text(given, "stack"), _text(given, "template_body"), _text(given, "template_url")
        sha256 = _text(given, "template_sha256")
        if stack is None or not _STACK.fullmatch(stack):
            raise TargetMissingError("the parameters do not fit the manifest's schema")
        # Policy judges the resource, and the card shows it: it must be what is really changed.
        if (intent.resource.type, intent.resource.id) != ("stack", stack):
            raise TargetMissingError(f"the resource of this intent must be the stack {stack}")
        if (body is None) == (url is None) or (url is None) != (sha256 is None):
            raise TargetMissingError("give either template_body, or template_url with template_sha256")
        pairs = [each.partition("=") for each in _texts(given, "parameters")]
        keep = _texts(given, "keep_parameters")
        names = [name for name, _, _ in pairs] + list(keep)
        if len(set(names)) != len(names) or not all(equals for _, equals, _ in pairs):
            raise TargetMissingError("each parameter is given once, as Name=value, or kept, never both")
        return cls(
            stack,
            body,
            url,
            sha256 if sha256 is not None else template_digest(body or ""),
            tuple((name, value) for name, _, value in pairs),
            keep,
            _texts(given, "capabilities"),
        )


@dataclass(frozen=True, slots=True)
class Named:
    """How a change set is named that is about to be made: each time otherwise, as nobody can foresee.

    Law 1: under a name or a token that can be worked out beforehand, somebody else could have left another change set.
    """

    #: ClientToken: the provider makes one change set of it.
    token: str
    name: str
    #: Whose it is and how long its intent may live; `Left.of` reads it again.
    description: str

    @classmethod
    def of(cls, intent: Intent, round_: Round, chance: bytes) -> Self:
        """The names for this intent, this round and these random bytes, of which there are 16 or more."""
        token = canonical.digest_of(
            {
                "intent": intent.digest,
                "round": round_.number,
                "opened": round_.opened.to_json(),
                "chance": chance.hex(),
            }
        )
        name = f"{own_prefix(intent.id)}{round_.number}-{token[:32]}"
        return cls(token, name, f"Keyturn: {intent.id}, round {round_.number}, for {intent.ttl} s")


@dataclass(frozen=True, slots=True)
class Left:
    """What the description of one of our change sets says."""

    intent_id: str
    round: int
    ttl: int

    @classmethod
    def of(cls, name: str, description: str) -> "Left | None":
        """None when it is not one of ours."""
        found = _DESCRIBED.fullmatch(description)
        if found is None or not name.startswith(own_prefix(found[1])):
            return None
        return cls(found[1], int(found[2]), int(found[3]))


def own_prefix(intent_id: str) -> str:
    """What the names of an intent's change sets begin with."""
    return f"{OWN_NAME}{intent_id.rpartition('.')[2]}-"


def execution_token(grant_digest: str) -> str:
    """ClientRequestToken: each event of the execution carries it, so that it is known as this grant's."""
    return f"{OWN_NAME}{grant_digest}"


def template_digest(text: str) -> str:
    """SHA-256 of the template's bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def _text(given: dict[str, Property], name: str) -> str | None:
    value = given.get(name)
    if value is None or (isinstance(value, str) and value):
        return value
    raise TargetMissingError("the parameters do not fit the manifest's schema")


def _texts(given: dict[str, Property], name: str) -> tuple[str, ...]:
    values = given.get(name, ())
    if not isinstance(values, tuple):
        raise TargetMissingError("the parameters do not fit the manifest's schema")
    texts = tuple(value for value in values if isinstance(value, str) and value)
    if len(texts) != len(values):
        raise TargetMissingError("the parameters do not fit the manifest's schema")
    return texts
