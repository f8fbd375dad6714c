"""What intake answered: each answer by the record of `intents` that it is about."""

from collections.abc import Iterable

from schemas import canonical, topics
from schemas.records import Source
from tests.house import House, until


async def answers(realm: House) -> dict[Source, list[dict[str, object]]]:
    """Every answer by its source: of `classified` and of `quarantine`."""
    found: dict[Source, list[dict[str, object]]] = {}
    for topic in (topics.CLASSIFIED, topics.QUARANTINE):
        for record in await realm.read(topic):
            body = canonical.decode(record.value)
            if "source" in body:
                found.setdefault(Source.model_validate(body["source"]), []).append(body)  # type: ignore[arg-type]
    return found


async def answered(realm: House, sources: Iterable[Source]) -> dict[Source, list[dict[str, object]]]:
    """The same, once each of these has an answer."""
    wanted = set(sources)

    async def are_there() -> bool:
        return wanted <= (await answers(realm)).keys()

    await until(are_there)
    return await answers(realm)
