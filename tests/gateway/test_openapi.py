"""The published document is true: the routes are those, the parameters are those, and every answer seen fits it."""

import json
import random
from typing import Any

import httpx
import jsonschema_rs
import pytest
from fastapi.routing import APIRoute

from gateway import openapi
from gateway.app import make_app
from schemas.records import Phase
from streams.http.problems import MEDIA_TYPE
from tests.broker.builders import T0
from tests.gateway import stage
from tests.gateway.stage import BODY, Door
from tests.gateway.test_garbage import mutated

DOCUMENT = openapi.document()
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ROUNDS = 150


def fits(schema: dict[str, Any], value: object) -> None:
    whole = {"$schema": DIALECT, **schema, "components": DOCUMENT["components"]}
    jsonschema_rs.validator_for(whole).validate(value)


def template_of(path: str) -> str:
    parts = path.split("/")
    if parts[:3] == ["", "v1", "intents"] and len(parts) > 3:
        parts[3] = "{intent_id}"
    return "/".join(parts)


def assert_as_published(answer: httpx.Response) -> None:
    """This status, media type, body and, of a problem, this type are what the document says of the operation."""
    request = answer.request
    operation = DOCUMENT["paths"][template_of(request.url.path)][request.method.lower()]
    assert str(answer.status_code) in operation["responses"], (request.url, answer.status_code, answer.text)
    told = operation["responses"][str(answer.status_code)].get("content", {})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    assert kind in (set(told) or {""})
    if kind.endswith("json"):
        fits(told[kind]["schema"], answer.json())


def test_every_route_is_published_and_nothing_else(door: Door) -> None:
    routes = {
        (method.lower(), route.path)
        for route in make_app(door.gateway).routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert routes == set(openapi.OPERATIONS)
    assert routes == {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}


def test_the_parameters_published_are_those_that_are_read(door: Door) -> None:
    for route in make_app(door.gateway).routes:
        assert isinstance(route, APIRoute)
        read = {(each.alias, each.field_info.default) for each in route.dependant.query_params}
        told = DOCUMENT["paths"][route.path][next(iter(route.methods)).lower()]["parameters"]
        published = {(each["name"], each["schema"].get("default")) for each in told if each["in"] == "query"}
        assert published == read, route.path
        assert {each["name"] for each in told if each["in"] == "path"} == {
            each.alias for each in route.dependant.path_params
        }


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    text = json.dumps(DOCUMENT)
    for name in set(text.split('"#/components/schemas/')[1:]):
        assert name.partition('"')[0] in DOCUMENT["components"]["schemas"]
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": DIALECT, **schema})


async def test_it_is_published_to_anybody(door: Door) -> None:
    answer = await door.http.get(openapi.PATH)
    assert answer.json() == DOCUMENT
    assert DOCUMENT["openapi"] == "3.1.0"


async def test_what_goes_well_is_as_published(door: Door) -> None:
    intent = door.intent()
    answers = [
        await door.submit(intent),
        await door.submit(intent),
        await door.ask("ben"),
        await door.show(intent.id),
        await door.http.post("/v1/check", json=BODY, headers=door.as_("ben")),
        await door.http.get("/v1/actions", headers=door.own("bot")),
        await door.http.get("/healthz"),
        await door.http.get("/readyz"),
    ]
    door.book.answer(intent, Phase.PENDING)
    answers += [await door.show(intent.id), await door.http.get("/v1/intents", headers=door.own("bot"))]
    answers += [await door.http.post(f"/v1/intents/{intent.id}/withdraw", json={}, headers=door.as_("ada"))]
    door.book.answer(intent, Phase.WITHDRAWN)
    answers += [await door.http.post(f"/v1/intents/{intent.id}/withdraw", json={}, headers=door.as_("ada"))]
    answers += [await door.http.get(f"/v1/intents/{intent.id}/events", headers=door.own("bot"))]
    for answer in answers:
        assert answer.status_code < 300, answer.text
        assert_as_published(answer)


async def test_what_ends_before_it_is_taken_back_is_as_published(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    door.book.answer(intent, Phase.DENIED)
    late = await door.http.post(f"/v1/intents/{intent.id}/withdraw", json={}, headers=door.as_("ada"))
    assert late.json()["type"] == "urn:keyturn:problem:final"
    assert_as_published(late)


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_sent_the_answer_is_as_published(seed: int, issuer: Any, login: Any) -> None:
    chance = random.Random(seed)
    door = stage.a_door(issuer, login, [T0], asks_per_second=3, reads_per_second=3)
    kinds = set()
    async with door.http:
        for turn in range(ROUNDS):
            door.seconds[0] += chance.choice((0, 0, 1))
            door.book.is_kafka_up = chance.random() < 0.8
            intent = door.intent(turn % 40 + 1)
            known = await door.submit(intent) if chance.random() < 0.3 else None
            if known is not None:
                assert_as_published(known)
                if known.is_success and chance.random() < 0.5:
                    door.book.answer(intent, chance.choice((Phase.DENIED, Phase.SUCCEEDED, Phase.PENDING)))
            answer = await _one(door, chance, intent.id)
            assert_as_published(answer)
            if answer.headers.get("content-type") == MEDIA_TYPE:
                kinds.add(answer.json()["type"])
    assert len(kinds) >= 8, kinds


async def _one(door: Door, chance: random.Random, intent_id: str) -> httpx.Response:
    who = {
        **chance.choice((door.as_("ben"), door.as_("ada"), door.as_("jon"), door.own("bot"), door.own("twin"), {})),
        **chance.choice(({}, {}, {"Idempotency-Key": "short"}, {"Idempotency-Key": "long-enough"})),
    }
    if chance.random() < 0.1:
        who = door.as_("ben", scopes=("nothing",))
    if chance.random() < 0.4:
        path = chance.choice(("/v1/intents", f"/v1/intents/{intent_id}", "/v1/intents/x", "/v1/actions"))
        odd = {chance.choice(("wait", "limit", "after", "until", "phase")): chance.choice(("-1", "x", "0", "final"))}
        return await door.http.get(path, headers=who, params=chance.choice(({}, odd)))
    path = chance.choice(("/v1/intents", "/v1/check", f"/v1/intents/{intent_id}/withdraw", "/v1/intents/x/withdraw"))
    good: dict[str, Any] = {} if path.endswith("withdraw") else BODY
    content = json.dumps(chance.choice((good, mutated(BODY, chance), mutated(good, chance)))).encode()
    content = chance.choice((content, content, content, b"{", b"x" * 40_000))
    if chance.random() < 0.3:
        who = {**who, **door.sealed(door.intent(7), chance.choice(("bot", "twin")))}
        content = chance.choice((door.intent(7).to_bytes(), content))
    else:
        who = {**who, "Content-Type": chance.choice(("application/json", "application/json", "text/html"))}
    return await door.http.post(path, content=content, headers=who)
