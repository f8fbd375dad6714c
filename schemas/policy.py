"""What policy says of an intent. Pure: no I/O, no clock; any evaluation error is a deny (law 6).

Cedar evaluates, with a strict schema made from the manifests, so that a misspelt attribute is refused when a policy
is loaded and not skipped when it matters. Annotations carry the obligations. All matching rules are combined, so
that a rule can only tighten: union of seats, highest risk, strongest assurance, shortest time. No rule is a deny.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import cedarpy

from schemas import assurance, seats
from schemas.canonical import Json
from schemas.records import (
    Assurance,
    Classification,
    Effect,
    Fact,
    Intent,
    Plan,
    Requirement,
    Risk,
    Seat,
)
from schemas.snapshots import Manifest, ManifestAction, Manifests, Policies

FACTS: Final[Mapping[str, str]] = {
    "classification": "String",
    "environment": "String",
    "owner": "String",
}
"""The facts a policy can rest on, and their Cedar types. One that is missing or late is in `context.unknown`."""

RISKS: Final = (Risk.LOW, Risk.MEDIUM, Risk.HIGH, Risk.CRITICAL)
EFFECTS: Final = (Effect.PERMIT, Effect.REQUIRE_APPROVAL, Effect.DENY)
DEFAULT_WITHIN: Final = 3600
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_KNOWN: Final = frozenset({"id", "risk", "approvers", "quorum", "assurance", "within", "automatic", "description"})
_OF_PERMITS: Final = frozenset({"approvers", "quorum", "assurance", "within", "automatic"})
_MEASURES: Final = {"integer": "Long", "string": "String", "boolean": "Boolean"}

# What matches is bounded, so that no policy makes a record that nobody can write.
MAX_RULES: Final = 64
MAX_GROUPS: Final = 16
MAX_PLACES: Final = 32
ANSWERS: Final = 4096
"""How many answers of Cedar are remembered, a few hundred bytes each."""


class PolicyError(ValueError):
    """A policy that cannot come into force; the message names the statement by line and says what to do."""


@dataclass(frozen=True, slots=True)
class Obligation:
    """What one rule asks for when it matches."""

    rule: str
    risk: Risk
    seats: tuple[Seat, ...]
    assurance: Assurance
    within: int


@dataclass(frozen=True, slots=True, eq=False)
class Rulebook:
    """Parsed policies and the schema they were checked against. Immutable handles: swap a reference to reload.

    One is itself and no other's equal, so that what it answered can be remembered.
    """

    policies: cedarpy.PolicySet
    schema: cedarpy.Schema
    obligations: Mapping[str, Obligation]
    #: Names of forbids, by Cedar's policy id.
    denials: Mapping[str, str]


# ---------------------------------------------------------------- loading


def load(cedar: str, executors: Iterable[Manifest]) -> Rulebook:
    """The rulebook of this Cedar text. PolicyError, with the line, for anything that is not exactly meant."""
    schema_text = json.dumps(schema_for(executors))
    parsed, policies = _parsed(cedar)
    if parsed["templates"]:
        raise PolicyError("a rule with ?principal or ?resource is a template, which nothing here fills; write it out")
    obligations: dict[str, Obligation] = {}
    denials: dict[str, str] = {}
    names: dict[str, str] = {}
    # In the order in which they are written: the parser's own order differs from run to run.
    for policy_id, policy in sorted(parsed["staticPolicies"].items(), key=lambda item: (len(item[0]), item[0])):
        annotations = _annotations(policy.get("annotations", {}))
        name = names[policy_id] = _name(annotations, policy_id, names.values())
        if policy["effect"] == "permit":
            obligations[policy_id] = _obligation(name, annotations)
        elif asking := sorted(_OF_PERMITS & set(annotations)):
            raise PolicyError(f"@id({name!r}): a forbid asks nobody; take @{asking[0]} away")
        else:
            denials[policy_id] = name
    result = cedarpy.validate_policies(cedar, schema_text)
    if not result.validation_passed:
        raise PolicyError(min(f"@id({names.get(each.policy_id, '')!r}): {each.error}" for each in result.errors))
    return Rulebook(policies, cedarpy.Schema.from_json_str(schema_text), obligations, denials)


@lru_cache(maxsize=8)
def _load_cached(cedar: str, manifests: bytes) -> Rulebook | str:
    try:
        return load(cedar, Manifests.from_bytes(manifests).executors)
    except PolicyError as exc:
        return str(exc)


def rulebook(policies: Policies, manifests: Manifests) -> Rulebook:
    """The rulebook in force, parsed once. PolicyError when the policy does not fit the manifests in force."""
    found = _load_cached(policies.cedar, manifests.to_bytes())
    if isinstance(found, str):
        raise PolicyError(found)
    return found


def schema_for(executors: Iterable[Manifest]) -> dict[str, object]:
    """The strict Cedar schema: one action a manifest action, its parameters and measures as typed attributes."""
    return {
        "": {
            "entityTypes": {"Agent": {}, "Person": {}, "Resource": {}},
            "actions": {
                action.name: {
                    "appliesTo": {
                        "principalTypes": ["Agent", "Person"],
                        "resourceTypes": ["Resource"],
                        "context": {"type": "Record", "attributes": _context_shape(action)},
                    }
                }
                for manifest in executors
                for action in manifest.actions
            },
        }
    }


def _context_shape(action: ManifestAction) -> dict[str, object]:
    properties: dict[str, object] = action.parameters.get("properties", {})
    required = set(action.parameters.get("required", ()))
    if "reversibility" in action.measures:
        raise PolicyError(f"{action.name}: a measure named reversibility would hide the plan's own; rename it")
    facts = {name: {"type": kind, "required": False} for name, kind in FACTS.items()}
    measures = {name: {"type": _MEASURES[kind], "required": False} for name, kind in action.measures.items()}
    return {
        "properties": {
            "type": "Record",
            "attributes": {
                name: _property_shape(shape, action.name, name) | {"required": name in required}
                for name, shape in properties.items()
            },
        },
        "resource_type": {"type": "String", "required": True},
        "resource_id": {"type": "String", "required": True},
        "facts": {"type": "Record", "attributes": facts},
        "unknown": {"type": "Set", "element": {"type": "String"}, "required": True},
        "hour": {"type": "Long", "required": True},
        "weekday": {"type": "Long", "required": True},
        "plan": {
            "type": "Record",
            "required": False,
            "attributes": {"reversibility": {"type": "String", "required": True}, **measures},
        },
    }


def _property_shape(shape: object, action: str, name: str) -> dict[str, object]:
    given = shape if isinstance(shape, dict) else {}
    match given.get("type"):
        case "string":
            return {"type": "String"}
        case "integer":
            return {"type": "Long"}
        case "boolean":
            return {"type": "Boolean"}
        case "array":
            return {"type": "Set", "element": _property_shape(given.get("items"), action, name)}
        case other:
            raise PolicyError(
                f"{action}: parameter {name!r} has type {other!r}; known: string, integer, boolean, array"
            )


def _parsed(cedar: str) -> tuple[dict[str, Any], cedarpy.PolicySet]:
    try:
        return json.loads(cedarpy.policies_to_json_str(cedar)), cedarpy.PolicySet.from_str(cedar)
    except ValueError as exc:
        raise PolicyError(f"line {_line_of_fault(cedar)}: {exc}") from exc


def _line_of_fault(cedar: str) -> int:
    """Cedar's parser gives no position: where the first statement begins that never parses, however far it reaches."""
    line, begun = 1, ""
    for piece in re.split(r"(?<=;)", cedar):
        # A semicolon inside a text or a comment ends nothing: then the statement goes on in the next piece.
        begun += piece
        try:
            cedarpy.PolicySet.from_str(begun)
        except ValueError:
            continue
        line += begun.count("\n")
        begun = ""
    return line + begun[: len(begun) - len(begun.lstrip())].count("\n")


def _annotations(given: Mapping[str, str | None]) -> dict[str, str]:
    # Cedar reads `@automatic` without a text as null.
    return {name: text or "" for name, text in given.items()}


def _name(annotations: Mapping[str, str], policy_id: str, taken: Collection[str]) -> str:
    name = annotations.get("id", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name):
        raise PolicyError(
            f'{policy_id}: every rule needs @id("…") of lower-case letters, digits, - and _; got {name!r}'
        )
    if name in taken:
        raise PolicyError(f"@id({name!r}) is used twice")
    if unknown := sorted(set(annotations) - _KNOWN):
        raise PolicyError(f"@id({name!r}): unknown annotation @{unknown[0]}; known: {', '.join(sorted(_KNOWN))}")
    return name


def _obligation(name: str, annotations: Mapping[str, str]) -> Obligation:
    """A permit says who approves, or says in so many words that nobody does: forgetting is no permission."""
    if ("approvers" in annotations) == ("automatic" in annotations):
        raise PolicyError(
            f'@id({name!r}): a permit needs either @approvers("group:… oncall:…") or @automatic("why nobody is asked")'
        )
    try:
        return Obligation(
            rule=name,
            risk=Risk(annotations.get("risk", Risk.MEDIUM)),
            seats=_seats(annotations),
            assurance=Assurance(annotations.get("assurance", Assurance.CHANNEL)),
            within=_seconds(annotations.get("within", f"{DEFAULT_WITHIN}s")),
        )
    except ValueError as exc:
        raise PolicyError(f"@id({name!r}): {exc}") from exc


def _seats(annotations: Mapping[str, str]) -> tuple[Seat, ...]:
    groups = annotations.get("approvers", "").split()
    counts = annotations.get("quorum", " ".join("1" for _ in groups)).split()
    if "automatic" in annotations:
        if not annotations["automatic"].strip() or "quorum" in annotations:
            raise ValueError("@automatic says why nobody is asked, and takes no @quorum")
        return ()
    if not groups:
        raise ValueError("@approvers names nobody")
    if len(groups) != len(counts) or len(set(groups)) != len(groups):
        raise ValueError("@quorum gives one number for each distinct group of @approvers, in the same order")
    if not all(re.fullmatch(r"[1-9][0-9]?", count) for count in counts) or sum(map(int, counts)) > MAX_PLACES:
        raise ValueError(f"@quorum takes numbers from 1, {MAX_PLACES} seats together at most")
    return tuple(Seat(of=group, count=int(count)) for group, count in zip(groups, counts, strict=True))


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if match is None:
        raise ValueError(f"@within({text!r}): write a number and s, m, h or d, like 15m")
    return min(int(match[1]) * _UNITS[match[2]], 30 * 86400)


# ---------------------------------------------------------------- evaluating


def evaluate(book: Rulebook, intent: Intent, facts: Iterable[Fact], plan: Plan | None, log_time: int) -> Classification:
    """What these rules say of this intent, with the plan's measures once there is a plan."""
    known = _known_facts(facts)
    unknown = sorted(set(FACTS) - set(known))
    request = {
        "principal": _entity("Agent" if intent.subject.type == "agent" else "Person", intent.subject.id),
        "action": _entity("Action", intent.action.name),
        "resource": _entity("Resource", f"{intent.resource.type}/{intent.resource.id}"),
        "context": _context(intent, known, unknown, plan, log_time),
    }
    found = _answered(book, json.dumps(request, ensure_ascii=False, sort_keys=True))
    return _raised(found, unknown) if unknown and found.effect is not Effect.DENY else found


@lru_cache(maxsize=ANSWERS)
def _answered(book: Rulebook, request: str) -> Classification:
    """The same question gets the same answer: each intent is judged up to four times, a burst asks alike."""
    answer = cedarpy.is_authorized(json.loads(request), book.policies, "[]", schema=book.schema)
    # Cedar skips a policy that errs and may still allow: an error, or no decision, is a deny.
    if answer.diagnostics.errors or answer.decision is cedarpy.Decision.NoDecision:
        errors = "; ".join(sorted(answer.diagnostics.errors))
        return deny("policy_error", f"policy could not be evaluated: {errors[:500]}")
    reasons = sorted(answer.diagnostics.reasons)
    if not answer.allowed:
        if not reasons:
            return deny("no_rule", "no rule permits this")
        return Classification(
            effect=Effect.DENY,
            risk=Risk.CRITICAL,
            rules=tuple(sorted(book.denials[policy_id] for policy_id in reasons))[:MAX_RULES],
            reason="a rule forbids this",
        )
    return _combine(book.obligations[policy_id] for policy_id in reasons)


def _known_facts(facts: Iterable[Fact]) -> dict[str, Json]:
    """What intake knows. A fact that is said twice, and differently, is known by nobody."""
    said: dict[str, set[Json]] = {}
    for fact in facts:
        if fact.value is not None and fact.name in FACTS:
            said.setdefault(fact.name, set()).add(fact.value)
    return {name: values.pop() for name, values in said.items() if len(values) == 1}


def deny(rule: str, reason: str) -> Classification:
    """A denial that rests on no rule of the policy."""
    return Classification(effect=Effect.DENY, risk=Risk.CRITICAL, rules=(rule,), reason=reason)


def stricter(first: Classification, second: Classification) -> Classification:
    """Both at once: the harder effect, all seats, the highest risk, the strongest assurance, the shortest time."""
    asked = [each.requirement for each in (first, second) if each.requirement is not None]
    # Whoever is named is asked, even by a proposal that says nobody need be.
    least = Effect.REQUIRE_APPROVAL if asked else Effect.PERMIT
    effect = max(first.effect, second.effect, least, key=EFFECTS.index)
    return _classification(
        effect,
        max(first.risk, second.risk, key=RISKS.index),
        {*first.rules, *second.rules},
        asked if effect is Effect.REQUIRE_APPROVAL else [],
        next((each.reason for each in (first, second) if each.effect is effect and each.reason), None),
    )


def _combine(obligations: Iterable[Obligation]) -> Classification:
    found = tuple(obligations)
    return _classification(
        Effect.REQUIRE_APPROVAL if any(each.seats for each in found) else Effect.PERMIT,
        max((each.risk for each in found), key=RISKS.index),
        {each.rule for each in found},
        found,
    )


def _classification(
    effect: Effect,
    risk: Risk,
    rules: Collection[str],
    asked: Sequence[Obligation | Requirement],
    reason: str | None = None,
) -> Classification:
    wanted: tuple[Seat, ...] = ()
    for each in asked:
        wanted = seats.combine(wanted, each.seats)
    if effect is Effect.REQUIRE_APPROVAL and not wanted:
        return deny("no_seats", "people are to be asked, and no rule says whom")
    if len(rules) > MAX_RULES or len(wanted) > MAX_GROUPS or sum(seat.count for seat in wanted) > MAX_PLACES:
        return deny("too_much_matches", f"over {MAX_RULES} rules, {MAX_GROUPS} groups or {MAX_PLACES} seats together")
    requirement = None
    if wanted:
        requirement = Requirement(
            seats=wanted,
            assurance=max((each.assurance for each in asked), key=assurance.rank),
            within=min(each.within for each in asked),
        )
    return Classification(effect=effect, risk=risk, rules=tuple(sorted(rules)), requirement=requirement, reason=reason)


def _raised(found: Classification, unknown: list[str]) -> Classification:
    """An unknown fact can only raise the class: nothing runs without people on it, and the risk is high at least."""
    if found.effect is Effect.PERMIT:
        return deny("unknown_fact", f"unknown: {', '.join(unknown)}; no rule asks people in that case")
    return found.model_copy(update={"risk": max(found.risk, Risk.HIGH, key=RISKS.index)})


def _context(
    intent: Intent, known: Mapping[str, Json], unknown: list[str], plan: Plan | None, log_time: int
) -> dict[str, object]:
    context: dict[str, object] = {
        "properties": {
            name: list(value) if isinstance(value, tuple) else value for name, value in intent.action.properties.items()
        },
        "resource_type": intent.resource.type,
        "resource_id": intent.resource.id,
        "facts": dict(known),
        "unknown": unknown,
        # UTC, from the log time of the input (law 5); Monday is 1, as in ISO 8601.
        "hour": log_time // 3_600_000 % 24,
        "weekday": (log_time // 86_400_000 + 3) % 7 + 1,
    }
    if plan is not None:
        context["plan"] = {"reversibility": plan.reversibility.value, **plan.measures}
    return context


def _entity(kind: str, name: str) -> str:
    # Cedar's entity literals take JSON's escapes; identifiers hold no control characters.
    return f"{kind}::{json.dumps(name, ensure_ascii=False)}"
