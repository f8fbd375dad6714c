"""What people are asked to sign, made one way for everybody: core, executors, cards (laws 1 and 7). No I/O."""

from collections.abc import Iterable

from schemas import canonical
from schemas.record import Statement
from schemas.records import ClassifiedIntent, Fact, Question, Requirement, Source


def ask(
    realm: str,
    intent_id: str,
    classified: ClassifiedIntent,
    plan: Statement,
    requirement: Requirement | None,
    opened: Source,
) -> Question:
    """The question over exactly this intent, plan, facts and requirement, opened at this log position."""
    return Question(
        realm=realm,
        intent_id=intent_id,
        intent=classified.intent.digest,
        plan=plan.digest,
        facts=facts_digest(classified.facts),
        requirement=requirement_digest(requirement),
        opened=opened,
    )


def facts_digest(facts: Iterable[Fact]) -> str:
    """The digest of the facts, in intake's order."""
    return canonical.digest_of([fact.to_json() for fact in facts])


def requirement_digest(requirement: Requirement | None) -> str:
    """The digest of the requirement; of an empty object when policy asks nobody."""
    return canonical.digest_of(requirement.to_json() if requirement is not None else {})
