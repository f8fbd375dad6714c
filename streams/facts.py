"""What can be found out about an intent outside the log. A late or failing source is `unknown`, which can only raise.

Intake's findings are the ones that count; the gateway looks the same way when it is asked what policy would say.
"""

import asyncio
import fnmatch
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import yaml
from pydantic import BaseModel, ConfigDict

from schemas import canonical
from schemas.policy import FACTS
from schemas.record import Scalar
from schemas.records import Fact, Intent

log = logging.getLogger("keyturn.facts")
BUDGET_SECONDS: Final = 1.0


class FactsError(Exception):
    """A source of facts cannot be used; the text says why."""


class FactSource(Protocol):
    """Finds some facts about an intent."""

    @property
    def name(self) -> str:
        """Shown on the card beside each fact."""
        ...

    async def find(self, intent: Intent) -> Mapping[str, Scalar]:
        """The facts it knows now; what it doesn't know it leaves out. May raise: its facts are then unknown."""
        ...


class CatalogEntry(BaseModel):
    """What is known of resources whose `<type>/<id>` matches a pattern."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str
    environment: str | None = None
    classification: str | None = None
    owner: str | None = None


class Catalog:
    """A file of resources: patterns and what is known of them; the first match counts. Read again when it changes."""

    name = "catalog"

    def __init__(self, path: Path) -> None:
        """`path`: YAML, a list of entries."""
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: tuple[CatalogEntry, ...] = ()

    async def find(self, intent: Intent) -> Mapping[str, Scalar]:
        """The facts of the first entry that matches the resource."""
        resource = f"{intent.resource.type}/{intent.resource.id}"
        for entry in self._current():
            if fnmatch.fnmatchcase(resource, entry.match):
                return entry.model_dump(exclude={"match"}, exclude_none=True)
        return {}

    def _current(self) -> tuple[CatalogEntry, ...]:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                loaded = yaml.safe_load(self._path.read_text()) or []
                self._entries = tuple(CatalogEntry.model_validate(entry) for entry in loaded)
                self._stamp = stamp
        except (OSError, ValueError, TypeError, yaml.YAMLError) as exc:
            # An old answer could be a lower class than the truth: unknown instead (law 6).
            raise FactsError(f"{self._path}: {exc}") from exc
        return self._entries


async def gather(intents: Sequence[Intent], sources: Sequence[FactSource], now: int) -> list[tuple[Fact, ...]]:
    """The facts of each intent, all sources at once, within the budget. Every declared fact is there, known or not."""
    return list(await asyncio.gather(*(_facts_of(intent, sources, now) for intent in intents)))


async def _facts_of(intent: Intent, sources: Sequence[FactSource], now: int) -> tuple[Fact, ...]:
    found = {name: Fact(name=name, source="nobody", observed_at=now) for name in sorted(FACTS)}
    # The first source that knows a fact counts.
    for known in reversed(await asyncio.gather(*(_ask(source, intent, now) for source in sources))):
        found |= known
    return tuple(found.values())


async def _ask(source: FactSource, intent: Intent, now: int) -> dict[str, Fact]:
    try:
        async with asyncio.timeout(BUDGET_SECONDS):
            answer = await source.find(intent)
        known = {
            name: Fact(name=name, value=value, source=source.name, observed_at=now)
            for name, value in answer.items()
            if name in FACTS
        }
        for fact in known.values():
            canonical.encode(fact.to_json())  # what cannot be said is not known either
    except Exception as exc:  # noqa: BLE001 - whatever a source does, its facts are unknown
        log.warning("facts unknown", extra={"source": source.name, "intent_id": intent.id, "error": str(exc)})
        return {}
    return known
