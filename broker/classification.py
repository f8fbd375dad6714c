"""The classification of an intent: one pure function of (signed intent, facts, plan, world, log time).

Intake runs it first; the core runs the same one again and takes the stricter answer. No I/O, no clock.
"""

from functools import lru_cache
from typing import Final, Never

import jsonschema_rs

from broker import policy
from schemas import canonical, ids
from schemas.record import RecordError, Statement
from schemas.records import Classification, Fact, Intent, Plan, Refusal
from schemas.snapshots import ManifestAction
from schemas.world import World

MEASURE_TYPES: Final = {"integer": int, "string": str, "boolean": bool}


class Refused(Exception):  # noqa: N818 - an answer, raised only between the lines of one pure module
    """The intent can be attributed but is not admitted; a value for the log, never a fault."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.reason = reason


def admit(statement: Statement, world: World, log_time: int, now: int) -> Intent:
    """The intent of this signed record, if its signature, id, requester, action and parameters are in order.

    `log_time` is when it was asked; `now` the log time of the record that carries it here (law 4: ids expire).
    Raises Refused otherwise.
    """
    refusal = world.authority.refuses(statement, log_time)
    if refusal is not None:
        raise Refused(refusal, "the signature does not fit, or its key may not say this")
    try:
        intent = statement.read(Intent)
    except RecordError as exc:
        raise Refused(Refusal.MALFORMED, str(exc)) from exc
    # That the id is its requester's own is part of the signature's authority.
    if not (ids.is_within_window(intent.id, log_time) and ids.is_within_window(intent.id, now)):
        raise Refused(Refusal.ID_OUT_OF_WINDOW, "the id's time is more than 24 h before or 5 min after the log's")
    _require_requester(intent, world)
    _require_parameters(intent, world)
    return intent


def classify(intent: Intent, facts: tuple[Fact, ...], plan: Plan | None, world: World, log_time: int) -> Classification:
    """What policy says now. Missing policy, a policy that does not fit, an unknown requester: deny (law 6)."""
    try:
        _require_requester(intent, world)
        action = _require_parameters(intent, world)
        if world.policies is None or world.manifests is None:
            return policy.deny("no_policy", "no policy is in force")
        if plan is not None:
            _require_measures(plan, action)
        return policy.evaluate(policy.rulebook(world.policies, world.manifests), intent, facts, plan, log_time)
    except Refused as refused:
        return policy.deny(refused.refusal.value, refused.reason)
    except policy.PolicyError as exc:
        return policy.deny("policy_error", str(exc)[:500])


def _require_requester(intent: Intent, world: World) -> None:
    directory = world.directory
    if directory is None:
        raise Refused(Refusal.UNKNOWN_AGENT, "no directory is in force")
    if intent.subject.type == "agent":
        if not any(agent.id == intent.subject.id and agent.is_active for agent in directory.agents):
            raise Refused(Refusal.UNKNOWN_AGENT, f"{intent.subject.id} is not an active agent of the directory")
    elif not any(person.id == intent.subject.id and person.is_active for person in directory.persons):
        raise Refused(Refusal.UNKNOWN_PERSON, f"{intent.subject.id} is not an active person of the directory")


def _require_parameters(intent: Intent, world: World) -> ManifestAction:
    """The action, if an executor offers it and the parameters fit its schema."""
    action = world.manifests.action(intent.action.name) if world.manifests else None
    if action is None:
        raise Refused(Refusal.UNKNOWN_ACTION, f"no executor offers {intent.action.name}")
    properties = intent.to_json().get("action", {})
    given = properties.get("properties", {}) if isinstance(properties, dict) else {}
    validator = _validator(canonical.encode(action.parameters))
    if validator is None:
        raise Refused(
            Refusal.BAD_PARAMETERS, f"the manifest's JSON Schema of {intent.action.name} is broken; correct it"
        )
    error = next(validator.iter_errors(given), None)
    if error is not None:
        place = "/".join(str(step) for step in error.instance_path)
        raise Refused(Refusal.BAD_PARAMETERS, f"action.properties/{place}: {error.message}"[:500])
    return action


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> jsonschema_rs.Draft202012Validator | None:
    """The validator of one action; none for what is no JSON Schema, or rests on something that is not in it."""
    try:
        return jsonschema_rs.Draft202012Validator(schema.decode(), retriever=_retrieve_nothing)
    except ValueError:
        return None


def _retrieve_nothing(uri: str) -> Never:
    """Pure: left to itself the library would fetch a `$ref` from the network."""
    raise ValueError(f"{uri}: a manifest's schema refers to itself only")


def _require_measures(plan: Plan, action: ManifestAction) -> None:
    """A plan says every measure its manifest declares, with its type, and none else: policy rests on them."""
    for name, kind in action.measures.items():
        value = plan.measures.get(name)
        if type(value) is not MEASURE_TYPES[kind]:
            raise Refused(Refusal.MALFORMED, f"the plan's measure {name} is not the {kind} its manifest declares")
    if extra := sorted(set(plan.measures) - set(action.measures)):
        raise Refused(Refusal.MALFORMED, f"the plan measures {extra[0]}, which its manifest does not declare")
