"""What a policy's document grants, as far as it can be told without asking whether a request would be allowed. No I/O.

Two documents are compared by what stands in them: a right counts as held already only if an Allow is there for the same
action that surely covers the resource and asks for no more. Denials and conditions are never weighed to make a grant
look smaller.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from executors.contract import ExecutorError
from executors.iam.levels import Levels
from executors.iam.patterns import MAX_PATTERN, Effort, cost, matches

EVERYTHING: Final = "*"
_ROOT: Final = re.compile(r"AWS (arn:[a-z-]+:iam::)?(?P<account>\d{12})(:root)?")
_PLAIN: Final = re.compile(r"[^\s,\"]+")
_NOBODYS: Final = tuple(f"arn:{of}:no-service:nowhere-0:000000000000:nothing" for of in ("aws", "aws-cn", "aws-us-gov"))
"""What no service has: a pattern that means one of these means everything, however it is spelt."""
_KNOWN: Final = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})


@dataclass(frozen=True, slots=True)
class Right:
    """One resource under one condition, on which an action is allowed."""

    resource: str
    #: The condition's text; empty when there is none.
    condition: str
    #: A `${` in it is no variable: the document is of a version that has none.
    is_literal: bool = False

    def covers(self, other: "Right") -> bool:
        """Whether whoever holds this surely holds `other`."""
        if self.condition and self.condition != other.condition:
            return False
        if self.has_variable or (self.condition and other.has_variable):
            # The same text is not the same thing when only one of the two reads a variable in it.
            return self == other
        if self.resource in {EVERYTHING, other.resource}:
            return True
        # A question mark of ours could take a star of theirs for one character.
        is_comparable = "?" not in self.resource and not self.resource.startswith("not ")
        return is_comparable and not other.resource.startswith("not ") and matches(self.resource, other.resource)

    @property
    def is_unbounded(self) -> bool:
        """Whether it is on every resource, or on all but some."""
        return self.resource.startswith("not ") or any(matches(self.resource, each) for each in (EVERYTHING, *_NOBODYS))

    @property
    def has_variable(self) -> bool:
        """Whether a `${...}` stands in it: a variable, or an escaped `*`, `?` or `$` (IAM, policy variables)."""
        return "${" in self.resource or "${" in self.condition


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a document, in one form whatever it was written in."""

    effect: str
    actions: tuple[str, ...]
    #: None: it names none that are left out. Empty: nothing is left out.
    not_actions: tuple[str, ...] | None
    rights: tuple[Right, ...]
    #: Members that are none of these, as they are written: people are told of them, and nobody weighs them.
    rest: str = ""

    def allowed(self, levels: Levels, effort: Effort) -> frozenset[str]:
        """The actions that it speaks of; both lists when it has both, which IAM does not take."""
        named = _union(levels, self.actions, effort)
        if self.not_actions is None:
            return named
        return named | levels.all_but(_union(levels, self.not_actions, effort))


@dataclass(frozen=True, slots=True)
class Document:
    """One policy's text."""

    #: SHA-256 of the text, its members sorted.
    digest: str
    statements: tuple[Statement, ...]

    @classmethod
    def of(cls, text: Mapping[str, Any]) -> Self:
        """The document as the provider gave it."""
        is_literal = text.get("Version") != "2012-10-17"
        statements = _several(text.get("Statement", []))
        return cls(digest_of(text), tuple(_statement(each, is_literal=is_literal) for each in statements))

    @property
    def allows(self) -> Iterator[Statement]:
        """The statements that allow."""
        return (each for each in self.statements if each.effect == "Allow")

    @property
    def denies(self) -> int:
        """How many statements deny."""
        return sum(each.effect != "Allow" for each in self.statements)

    def says(self) -> str:
        """The document in words of ASCII, statement by statement."""
        return "; ".join(_words(each) for each in self.statements)


Grants = Mapping[str, frozenset[Right]]
"""By action: on what, and when."""


def grants(documents: Iterable[Document], levels: Levels, effort: Effort) -> Grants:
    """What the documents' Allow statements allow together. ExecutorError when it takes more than `effort` leaves."""
    found: dict[str, set[Right]] = {}
    for document in documents:
        for statement in document.allows:
            actions = statement.allowed(levels, effort)
            effort.spend(len(actions) * len(statement.rights))
            for action in actions:
                found.setdefault(action, set()).update(statement.rights)
    return {action: frozenset(rights) for action, rights in found.items()}


def denials(document: Document, levels: Levels, effort: Effort) -> Grants:
    """What the document's statements forbid. ExecutorError as in `grants`."""
    forbidden = (replace(each, effect="Allow") for each in document.statements if each.effect != "Allow")
    return grants([Document(document.digest, tuple(forbidden))], levels, effort)


def beyond(given: Grants, held: Grants, effort: Effort) -> dict[str, frozenset[Right]]:
    """What `given` allows and `held` does not surely allow already. ExecutorError as in `grants`."""
    found: dict[str, frozenset[Right]] = {}
    # A statement for many actions gives each the same rights: they are compared once.
    compared: dict[tuple[frozenset[Right], frozenset[Right]], frozenset[Right]] = {}
    for action, rights in given.items():
        have = held.get(action, frozenset())
        more = compared.get((rights, have))
        if more is None:
            effort.spend(sum(cost(mine.resource, right.resource) for right in rights for mine in have))
            more = frozenset(right for right in rights if not any(mine.covers(right) for mine in have))
            compared[rights, have] = more
        if more:
            found[action] = more
    return found


@dataclass(frozen=True, slots=True)
class Trust:
    """Who can become a role."""

    digest: str
    principals: tuple[str, ...]
    #: Everybody may, if only the conditions hold.
    is_open: bool
    other_accounts: bool
    #: Accounts of which everybody may become the role whom a policy there allows: how many that are is unknown.
    whole_accounts: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: Mapping[str, Any], account: str) -> Self:
        """The trust policy of a role of `account`. Conditions are not weighed: they count as if they held."""
        named: set[str] = set()
        for statement in _several(text.get("Statement", [])):
            # Law 6: what is not surely a denial counts as trust.
            if statement.get("Effect") != "Deny":
                named |= set(_principals(statement))
        return cls(
            digest_of(text),
            tuple(sorted(named)),
            is_open=any(name.endswith((" *", "anyone but")) for name in named),
            other_accounts=any(_is_foreign(name, account) for name in named),
            whole_accounts=tuple(sorted({match["account"] for name in named if (match := _ROOT.fullmatch(name))})),
        )


def text_of(value: object) -> str:
    """Any JSON, its members sorted: policies may hold what our own canonical form has no place for."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest_of(value: object) -> str:
    """SHA-256 of any JSON, its members sorted."""
    return hashlib.sha256(text_of(value).encode()).hexdigest()


def _union(levels: Levels, patterns: Iterable[str], effort: Effort) -> frozenset[str]:
    return frozenset().union(*(levels.expand(pattern, effort) for pattern in patterns))


def _statement(said: Mapping[str, Any], *, is_literal: bool) -> Statement:
    condition = json.dumps(said["Condition"], sort_keys=True) if said.get("Condition") else ""
    excluded = _texts(said.get("NotResource"))
    others = (f"not {' '.join(sorted(map(_told, excluded)))}",) if excluded else ()
    # Nothing named, or nothing left out, is everything.
    resources = (*others, *_texts(said.get("Resource"))) or (EVERYTHING,)
    actions, not_actions = _texts(said.get("Action")), _texts(said.get("NotAction"))
    if any(len(text) > MAX_PATTERN for text in (*actions, *not_actions, *excluded, *_texts(said.get("Resource")))):
        raise ExecutorError(f"a policy names an action or a resource of more than {MAX_PATTERN} characters")
    return Statement(
        # Law 6: what is not surely a denial counts as a grant.
        effect="Deny" if said.get("Effect") == "Deny" else "Allow",
        actions=actions,
        not_actions=not_actions if "NotAction" in said else None,
        rights=tuple(Right(resource, condition, is_literal) for resource in resources),
        rest=text_of(rest) if (rest := {name: said[name] for name in said.keys() - _KNOWN}) else "",
    )


def _words(statement: Statement) -> str:
    parts = [", ".join(map(_told, statement.actions))] if statement.actions else []
    if statement.not_actions is not None:
        parts.append(f"everything but {', '.join(map(_told, statement.not_actions)) or 'nothing'}")
    actions = " and ".join(parts) or "nothing"
    # What is left out was told when it was read.
    rights = {right.resource for right in statement.rights}
    resources = ", ".join(sorted(each if each.startswith("not ") else _told(each) for each in rights))
    condition = next((f" if {right.condition}" for right in statement.rights if right.condition), "")
    literal = any("${" in right.resource + right.condition and right.is_literal for right in statement.rights)
    plain = "; its ${...} are no variables but plain text" if literal else ""
    rest = f" with {statement.rest}" if statement.rest else ""
    return ascii(f"{statement.effect} {actions} on {resources}{condition}{rest}{plain}")[1:-1]


def _told(name: str) -> str:
    """A resource or an action, so that one never looks like two: an ARN may end in a name with blanks and commas."""
    return name if _PLAIN.fullmatch(name) else json.dumps(name)


def _principals(statement: Mapping[str, Any]) -> Iterator[str]:
    if "NotPrincipal" in statement:
        yield "anyone but"
    principal = statement.get("Principal")
    if isinstance(principal, str):
        yield f"AWS {principal}"
    elif isinstance(principal, Mapping):
        for kind, names in principal.items():
            yield from (f"{kind} {name}" for name in _texts(names))


def _is_foreign(principal: str, account: str) -> bool:
    kind, _, name = principal.partition(" ")
    if kind in {"AWS", "Federated"}:
        return name != EVERYTHING and not _is_of(name, account)
    # A canonical user id names an account without saying which; law 6: whoever cannot be told is a stranger.
    return kind != "Service"


def _is_of(name: str, account: str) -> bool:
    # By its place: a role's path may hold colons, and whoever makes the role chooses it.
    return name == account or name.split(":")[4:5] == [account]


def _several(value: Any) -> Sequence[Mapping[str, Any]]:
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(str(each) for each in value) if isinstance(value, list) else (str(value),)
