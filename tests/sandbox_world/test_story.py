"""The story's data do what the story says: its policy asks whom it should, its buckets are as big as they must be."""

import time
from pathlib import Path

import pytest
import yaml

from executors import s3 as s3_executor
from sandbox import story
from schemas import ids, policy
from schemas.records import (
    Action,
    Assurance,
    Classification,
    Context,
    Effect,
    Intent,
    Plan,
    Property,
    Resource,
    Reversibility,
    Round,
    Source,
    Subject,
)
from streams.facts import Catalog, gather

NOW = 1_790_000_000_000


def intent(properties: dict[str, Property]) -> Intent:
    return Intent(
        id=ids.intent_id(story.AGENT, NOW, bytes(10)),
        subject=Subject(type="agent", id=story.AGENT),
        action=Action(name="s3.export", properties=properties),
        resource=Resource(type="bucket", id=str(properties["source_bucket"])),
        context=Context(reason="the partner asked for it"),
        ttl=600,
    )


def plan(asked: Intent, size: int) -> Plan:
    return Plan(
        round=Round(intent=asked.id, number=1, opened=Source(topic="keyturn.classified", partition=0, offset=1)),
        intent=asked.digest,
        executor="s3",
        manifest=1,
        summary="copy",
        measures={
            "objects": 2,
            "bytes": size,
            "largest_bytes": size,
            "destination_public": False,
            "destination_versioned": True,
        },
        reversibility=Reversibility.COMPENSATING,
        undo="delete what was made",
        planned_at=NOW,
    )


async def classified(properties: dict[str, Property], folder: Path, size: int | None = None) -> Classification:
    (folder / "catalog.yaml").write_text(story.CATALOG)
    book = policy.load(story.POLICY, [story.manifest(s3_executor.plugin.manifest)])
    asked = intent(properties)
    facts = (await gather([asked], [Catalog(folder / "catalog.yaml")], NOW))[0]
    return policy.evaluate(book, asked, facts, plan(asked, size) if size is not None else None, NOW)


def seats(found: Classification) -> set[str]:
    assert found.requirement is not None
    assert found.requirement.assurance is Assurance.IDENTITY
    return {seat.of for seat in found.requirement.seats}


async def test_an_export_of_customers_needs_whoever_is_on_call_for_the_data(tmp_path: Path) -> None:
    assert seats(await classified(story.EXPORT, tmp_path)) == {"oncall:data"}
    assert seats(await classified(story.EXPORT, tmp_path, story.BIG_BYTES)) == {"oncall:data"}


async def test_a_bigger_one_needs_a_data_owner_too_once_the_plan_has_measured_it(tmp_path: Path) -> None:
    assert seats(await classified(story.BIG_EXPORT, tmp_path)) == {"oncall:data"}
    measured = await classified(story.BIG_EXPORT, tmp_path, story.BIG_BYTES + 1)
    assert seats(measured) == {"oncall:data", "group:data-owners"}


async def test_what_is_public_already_needs_nobody_however_big(tmp_path: Path) -> None:
    found = await classified(story.PUBLIC_EXPORT, tmp_path, story.BIG_BYTES + 1)
    assert (found.effect, found.rules) == (Effect.PERMIT, ("export-of-public-data",))


@pytest.mark.parametrize("source", [story.EXPORT, story.PUBLIC_EXPORT])
async def test_nothing_ever_goes_to_the_website(source: dict[str, Property], tmp_path: Path) -> None:
    found = await classified({**source, "destination_bucket": story.WEBSITE}, tmp_path)
    assert (found.effect, found.rules) == (Effect.DENY, ("nothing-to-the-website",))
    assert story.FORBIDDEN_EXPORT["destination_bucket"] == story.WEBSITE


def test_the_small_export_is_small_and_the_big_one_big() -> None:
    def size(export: dict[str, Property]) -> int:
        objects = story.objects()[str(export["source_bucket"])]
        found = [len(body) for key, body in objects.items() if key.startswith(str(export["source_prefix"]))]
        assert found
        return sum(found)

    assert size(story.EXPORT) <= story.BIG_BYTES < size(story.BIG_EXPORT)
    assert size(story.PUBLIC_EXPORT) > 0
    assert str(story.BIG_BYTES) in story.POLICY


def test_somebody_is_on_call_today_and_stands_in_no_circle() -> None:
    directory = story.directory("http://127.0.0.1:1", [])
    assert isinstance(agents := directory["agents"], list)
    assert isinstance(agent := agents[0], dict)
    assert agent["owners"] == ["ana"]
    assert agent["users"] == ["ana", "ben"]
    rota = yaml.safe_load(yaml.safe_dump(dict(story.ROSTER)))["rotas"][0]
    assert (rota["id"], [shift["person"] for shift in rota["shifts"]]) == ("data", ["cho"])
    assert rota["shifts"][0]["starts_at"] < time.strftime("%Y-%m-%d") < rota["shifts"][0]["ends_at"]


async def test_a_deletion_needs_whoever_is_on_call_for_the_data_though_the_data_are_public(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(story.CATALOG)
    book = policy.load(story.POLICY, [story.manifest(s3_executor.plugin.manifest)])
    asked = Intent(
        id=ids.intent_id(story.AGENT, NOW, bytes(10)),
        subject=Subject(type="agent", id=story.AGENT),
        action=Action(name="s3.delete", properties={"bucket": story.BROCHURES, "prefix": "2026/"}),
        resource=Resource(type="bucket", id=story.BROCHURES),
        context=Context(reason="nobody reads them"),
        ttl=600,
    )
    facts = (await gather([asked], [Catalog(tmp_path / "catalog.yaml")], NOW))[0]
    assert seats(policy.evaluate(book, asked, facts, None, NOW)) == {"oncall:data"}
