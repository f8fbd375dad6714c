"""What is not known for certain is unknown: late, broken, gone, or not to be said."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from schemas.records import Fact, Intent
from streams import facts
from streams.facts import Catalog, FactSource
from tests.broker.builders import an_intent

NOW = 1_700_000_000_000
INTENT = an_intent()
PROD = "- {match: bucket/reports, environment: production, classification: real, owner: team-a}\n"


class Says:
    """A source with this answer; nobody checked it."""

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self.answer = answer

    async def find(self, intent: Intent) -> Mapping[str, Any]:  # noqa: ARG002
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        found: Mapping[str, Any] = self.answer
        return found


async def found(*sources: FactSource) -> dict[str, Fact]:
    [known] = await facts.gather([INTENT], sources, NOW)
    return {fact.name: fact for fact in known}


def values(known: dict[str, Fact]) -> dict[str, Any]:
    return {name: fact.value for name, fact in known.items()}


def written(file: Path, text: str | bytes, at: int) -> Path:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(file, ns=(at, at))
    return file


UNKNOWN = {"classification": None, "environment": None, "owner": None}


async def test_every_declared_fact_is_there_and_says_who_found_it() -> None:
    known = await found(Says("cmdb", {"owner": "team-b", "colour": "blue"}))
    assert values(known) == UNKNOWN | {"owner": "team-b"}
    assert (known["owner"].source, known["environment"].source) == ("cmdb", "nobody")
    assert {fact.observed_at for fact in known.values()} == {NOW}


async def test_the_first_source_that_knows_a_fact_counts() -> None:
    known = await found(Says("first", {"owner": "a"}), Says("second", {"owner": "b", "environment": "test"}))
    assert values(known) == UNKNOWN | {"owner": "a", "environment": "test"}


@pytest.mark.parametrize(
    "answer",
    [RuntimeError("down"), {"owner": 1.5}, {"owner": "e\u0301"}, {"owner": ["a"]}, "owner", {"owner": 2**60}],
    ids=["it fails", "a float", "text not in normal form", "a list", "no mapping", "a number too large"],
)
async def test_a_source_that_fails_or_cannot_be_quoted_knows_nothing_and_silences_nobody(answer: Any) -> None:
    known = await found(Says("broken", answer), Says("sound", {"environment": "test"}))
    assert values(known) == UNKNOWN | {"environment": "test"}


async def test_a_late_source_costs_a_second_and_its_facts_alone() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    known = await found(Says("late", None), Says("sound", {"environment": "test"}), Says("later", None))
    assert values(known) == UNKNOWN | {"environment": "test"}
    assert loop.time() - began < 3 * facts.BUDGET_SECONDS


async def test_a_catalog_answers_by_its_first_match_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = written(tmp_path / "catalog.yaml", PROD + "- {match: bucket/*, environment: test}\n", 1)
    catalog = Catalog(file)
    assert values(await found(catalog)) == {"classification": "real", "environment": "production", "owner": "team-a"}
    written(file, "- {match: bucket/rep*, environment: staging}\n", 2)
    assert values(await found(catalog)) == UNKNOWN | {"environment": "staging"}
    written(file, "- {match: topic/*, environment: staging}\n", 3)
    assert values(await found(catalog)) == UNKNOWN


@pytest.mark.parametrize(
    "text",
    ["- {match: [", "just text", "42", "- {match: a, colour: red}", "- {environment: test}", b"\xff\xfe\x00", None],
    ids=["no YAML", "a text", "a number", "an unknown member", "no match", "no text at all", "no file"],
)
async def test_a_catalog_that_is_broken_knows_nothing_not_even_what_it_knew(
    tmp_path: Path, text: str | bytes | None
) -> None:
    file = written(tmp_path / "catalog.yaml", PROD, 1)
    catalog = Catalog(file)
    assert values(await found(catalog))["environment"] == "production"
    if text is None:
        file.unlink()
    else:
        written(file, text, 2)
    assert values(await found(catalog)) == UNKNOWN
    written(file, PROD, 3)
    assert values(await found(catalog))["environment"] == "production"
