"""The classification of an intent: one pure function of (signed intent, facts, plan, world, log time).

Intake runs it first; the core runs the same one again and takes the stricter answer; the gateway asks it what would be
said, before anything is written (docs/adr/0008). No I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final, Never

import jsonschema_rs

from schemas import canonical, ids, policy
from schemas.record import RecordError, Statement
from schemas.records import Classification, Fact, Intent, Plan, Refusal
from schemas.snapshots import ManifestAction
from schemas.world import World

PROPERTIES: Final = "/action/properties"
MAX_FAULTS: Final = 32
MEASURE_TYPES: Final = {"integer": int, "string": str, "boolean": bool}


class Refused(Exception):  # noqa: N818 - an answer, raised only between the lines of one pure module
    """The intent can be attributed but is not admitted; a value for the log, never a fault."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an intent's parameters, and where in the intent (a JSON Pointer, RFC 6901)."""

    path: str
    message: str


def admit(statement: Statement, world: World, log_time: int, now: int) -> Intent:
    """The intent of this signed record, if its signature, id, requester, action and parameters are in order.

    `log_time` is when it was asked; `now` the log time of the record that carries it here (law 4: ids expire).
    Raises Refused otherwise.
    """
    refusal = world.authority.refuses(statement, log_time)
    if refusal is not None:
        raise Refused(refusal, world.authority.why(statement, refusal))
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
        if intent.subject.id not in directory.active_agents:
            raise Refused(Refusal.UNKNOWN_AGENT, f"{intent.subject.id} is not an active agent of the directory")
    elif intent.subject.id not in directory.active_persons:
        raise Refused(Refusal.UNKNOWN_PERSON, f"{intent.subject.id} is not an active person of the directory")


def parameter_faults(intent: Intent, world: World) -> tuple[Fault, ...]:
    """Everything that `admit` would refuse the parameters for, for whoever asks before anything is written.

    Raises Refused where there is nothing to hold them against: no such action, a broken schema.
    """
    action = _require_action(intent, world)
    errors = _validator_of(action).iter_errors(_given(intent))
    return tuple(islice((fault for error in errors for fault in _faults(error)), MAX_FAULTS))


def _require_parameters(intent: Intent, world: World) -> ManifestAction:
    """The action, if an executor offers it and the parameters fit its schema."""
    action = _require_action(intent, world)
    error = next(_validator_of(action).iter_errors(_given(intent)), None)
    if error is not None:
        place = "/".join(str(step) for step in error.instance_path)
        raise Refused(Refusal.BAD_PARAMETERS, f"action.properties/{place}: {error.message}"[:500])
    return action


def _require_action(intent: Intent, world: World) -> ManifestAction:
    action = world.manifests.action(intent.action.name) if world.manifests else None
    if action is None:
        raise Refused(Refusal.UNKNOWN_ACTION, f"no executor offers {intent.action.name}")
    return action


def _given(intent: Intent) -> dict[str, canonical.Json]:
    action = intent.to_json()["action"]
    properties = action.get("properties", {}) if isinstance(action, dict) else {}
    return properties if isinstance(properties, dict) else {}


def _faults(error: jsonschema_rs.ValidationError) -> Iterator[Fault]:
    """A schema complains of an object about the member that is missing, or is too many: the path names that member."""
    path = PROPERTIES + "".join(f"/{_escaped(str(step))}" for step in error.instance_path)
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            yield Fault(f"{path}/{_escaped(str(name))}", "is missing")
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected=names):
            for name in names:
                yield Fault(f"{path}/{_escaped(str(name))}", "is not a parameter of this action")
        case _:
            yield Fault(path, error.message[:500])


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _validator_of(action: ManifestAction) -> jsonschema_rs.Draft202012Validator:
    validator = _validator(action.parameters_bytes)
    if validator is None:
        raise Refused(Refusal.BAD_PARAMETERS, f"the manifest's JSON Schema of {action.name} is broken; correct it")
    return validator


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
