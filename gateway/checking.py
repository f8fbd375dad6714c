"""What policy would say, before anything is asked. It binds nobody: intake and core judge what really comes."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from gateway import admission
from gateway.contract import Actions, ActionView, CheckView, FaultView, RequirementView
from schemas import canonical, classification, policy
from schemas.canonical import CanonicalError
from schemas.record import RecordError
from schemas.records import Classification, Fact, Intent, Refusal, Resource
from schemas.world import World
from streams.facts import FactSource, gather
from streams.http.problems import Kind, ProblemError

PLAN: Final = "rules about what the executor's plan measures are judged once there is a plan, and can only tighten this"
FACTS: Final = "facts that nobody could tell are judged as unknown; when the intent is asked they are looked up again"
LIVE: Final = "policy, directory and facts may change before the intent is asked"


class Checker:
    """Answers with the function that intake and core apply, on facts from the same kind of source (ADR 0008)."""

    def __init__(self, sources: Sequence[FactSource] = ()) -> None:
        """Without a source every fact is unknown, and the answer says so."""
        self._sources = sources

    async def check(self, intent: Intent, world: World, now: int) -> CheckView:
        """The answer for this intent, asked now."""
        try:
            wrong = classification.parameter_faults(intent, world)
        except classification.Refused as refused:
            return _refused(refused.refusal, refused.reason, intent, world)
        if wrong:
            return _refused(Refusal.BAD_PARAMETERS, "the parameters do not fit the executor's manifest", intent, world)
        [facts] = await gather([intent], self._sources, now)
        found = classification.classify(intent, facts, None, world, now)
        return _answer(found, intent, facts)


def _answer(found: Classification, intent: Intent, facts: tuple[Fact, ...]) -> CheckView:
    known = {fact.name for fact in facts if fact.value is not None}
    unknown = tuple(sorted(set(policy.FACTS) - known))
    requirement = found.requirement
    return CheckView(
        effect=found.effect.value,
        risk=found.risk,
        rules=found.rules,
        requirement=RequirementView(
            seats=sum(seat.count for seat in requirement.seats),
            assurance=requirement.assurance,
            within=min(requirement.within, intent.ttl),
        )
        if requirement
        else None,
        executor=intent.executor,
        reason=found.reason,
        unknown_facts=unknown,
        caveats=(PLAN, *((FACTS,) if unknown else ()), LIVE),
    )


def _refused(refusal: Refusal, reason: str, intent: Intent, world: World) -> CheckView:
    problem = admission.refusal_problem(classification.Refused(refusal, reason), intent, world)
    errors = problem.members.get("errors")
    return CheckView(
        effect="refused",
        refusal=refusal,
        reason=reason,
        errors=tuple(FaultView.model_validate(each) for each in errors) if isinstance(errors, list) else (),
        caveats=(LIVE,),
    )


def intent_in(raw: bytes) -> Intent:
    """The intent in canonical bytes, whoever signed them."""
    try:
        canonical.decode(raw, max_bytes=Intent.MAX_BYTES, max_depth=Intent.MAX_DEPTH)
        return Intent.from_bytes(raw)
    except (CanonicalError, RecordError) as exc:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST, Kind.MALFORMED, f"the body is not the canonical JSON of {Intent.TYPE}: {exc}"
        ) from exc


def offered(world: World) -> Actions:
    """What executors offer, with the JSON Schema of each action's parameters."""
    resource = Resource.model_json_schema()
    executors = world.manifests.executors if world.manifests else ()
    return Actions(
        actions=tuple(
            ActionView(
                name=action.name,
                executor=manifest.executor,
                title=action.title,
                reversibility=action.reversibility.value,
                parameters=action.parameters,
                resource=resource,
            )
            for manifest in executors
            for action in manifest.actions
        )
    )
