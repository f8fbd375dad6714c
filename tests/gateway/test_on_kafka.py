"""The gateway's process on a real Kafka: killed, started again and twice, it answers alike, from the log alone."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest_asyncio
from click.testing import Result
from typer.testing import CliRunner

from cli.main import root_for
from gateway.callers import audience_of
from schemas import canonical, envelope, signing, topics
from schemas.partition import partition_of
from schemas.record import state
from schemas.records import Intent, PendingApproval, Phase, Quarantined, Refusal, Source
from tests.broker.builders import REALM, signer
from tests.house import BOTS, PARTITIONS, House, Process, bot_of, now, until

SEALED = "application/vnd.keyturn.intent.v1+json"
BOT = bot_of(0)


class Rows:
    """Writes rows as the core does, numbered."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._numbers: dict[int, int] = {}

    async def put(self, intent: Intent, phase: Phase, place: Source, **more: Any) -> None:
        classified = self._house.classified(intent).model_copy(update={"source": place})
        row = PendingApproval(
            intent_id=intent.id,
            phase=phase,
            classified=state(classified, signer("intake"), REALM),
            classification=classified.classification,
            asked_at=now(),
            changed=place,
            changed_at=now(),
            **more,
        )
        number = self._numbers[place.partition] = self._numbers.get(place.partition, -1) + 1
        sealed = self._house.sealed(row, intent.id, "core", number=number)
        await self._house.say_raw(topics.PENDING, place.partition, sealed)


def sealed(intent: Intent) -> dict[str, str]:
    by = signer(intent.subject.id)
    sig = signing.sign(by, REALM, Intent.TYPE, intent.to_bytes())
    return {"Content-Type": SEALED, "Keyturn-Keyid": by.keyid, "Keyturn-Sig": sig}


def reading(agent: str) -> dict[str, str]:
    at = int(time.time())
    claims = {"iss": agent, "sub": agent, "aud": audience_of(REALM), "iat": at, "exp": at + 300}
    claims["jti"] = secrets.token_hex(8)
    key = signer(agent)
    return {"Authorization": f"Bearer {jwt.encode(claims, key.key, 'EdDSA', {'kid': key.keyid})}"}


async def a_client(process: Process) -> httpx.AsyncClient:
    await process.ready()
    port = process.logged("listening")[-1]["port"]
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20)


async def events(http: httpx.AsyncClient, agent: str, count: int, last: str | None = None) -> tuple[list[Any], str]:
    """So many events of a stream, and where it was left."""
    headers = reading(agent) | ({"Last-Event-ID": last} if last else {})
    found: list[Any] = []
    at = last or ""
    async with asyncio.timeout(60), http.stream("GET", "/v1/events", headers=headers) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
            if line.startswith("id: "):
                at = line[4:]
            if not line and len(found) >= count and at != last:
                return found, at
    raise AssertionError(f"the stream ended after {found}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rows(realm: House) -> AsyncIterator[Rows]:
    yield Rows(realm)


async def test_killed_started_again_and_run_twice_it_answers_alike(realm: House, rows: Rows) -> None:
    first, second = realm.intents(2, BOT)
    [foreign] = realm.intents(1, next(bot for bot in BOTS if bot != BOT))
    async with realm.run("gateway", KEYTURN_GATEWAY_PORT="0") as process:
        async with await a_client(process) as http:
            told = [
                (await http.post("/v1/intents", content=each.to_bytes(), headers=sealed(each))).json()
                for each in (first, second)
            ]
            [lying] = [r for r in await realm.read(topics.INTENTS) if r.key == first.id.encode()]
            assert lying.value == first.to_bytes()
            assert dict(lying.headers)["sig"].decode() == sealed(first)["Keyturn-Sig"]
            assert (lying.partition, lying.offset) == (told[0]["partition"], told[0]["offset"])
            place = Source(topic="intents", partition=told[0]["partition"], offset=told[0]["offset"])
            await rows.put(first, Phase.PLANNING, place)

            async def is_planning() -> bool:
                shown = await http.get(f"/v1/intents/{first.id}", headers=reading(BOT))
                return bool(shown.json()["phase"] == "planning")

            await until(is_planning)
            seen, at = await events(http, BOT, 2)
            assert {each["phase"] for each in seen} == {"planning", "submitted"}
        await process.kill()
    await rows.put(first, Phase.PENDING, place)
    other = Source(topic="intents", partition=partition_of(foreign.subject.id, PARTITIONS), offset=99)
    await rows.put(foreign, Phase.PENDING, other)
    await realm.say_raw(
        topics.QUARANTINE, place.partition, quarantined(realm, second.id, place.partition, told[1]["offset"])
    )
    variables = {"KEYTURN_GATEWAY_PORT": "0"}
    async with realm.run("gateway", **variables) as one, realm.run("gateway", instance="1", **variables) as two:
        async with await a_client(one) as http, await a_client(two) as same:
            for each in (http, same):
                for intent, before in zip((first, second), told, strict=True):
                    again = await each.post("/v1/intents", content=intent.to_bytes(), headers=sealed(intent))
                    assert (again.status_code, again.json()) == (200, before)
                changed = first.model_copy(update={"ttl": 60})
                clash = await each.post("/v1/intents", content=changed.to_bytes(), headers=sealed(changed))
                assert clash.status_code == 409
                news, _ = await events(each, BOT, 2, at)
                assert {(news_["id"], news_["phase"]) for news_ in news} == {
                    (first.id, "pending"),
                    (second.id, "quarantined"),
                }
                assert (await each.get(f"/v1/intents/{foreign.id}", headers=reading(BOT))).status_code == 404
            # What one of them lets in the other knows, too.
            [third] = realm.intents(1, BOT)
            assert (await http.post("/v1/intents", content=third.to_bytes(), headers=sealed(third))).status_code == 202
            shown = await same.get(f"/v1/intents/{third.id}?wait=10", headers=reading(BOT))
            assert shown.json()["phase"] == "submitted"
        assert await one.stop() == 0
    assert len([r for r in await realm.read(topics.INTENTS) if r.key == first.id.encode()]) == 1


def quarantined(realm: House, intent_id: str, partition: int, offset: int) -> envelope.Sealed:
    found = Quarantined(
        source=Source(topic="intents", partition=partition, offset=offset),
        stage="intake",
        refusal=Refusal.INTERNAL,
        reason="a fault of ours",
        sha256=canonical.digest(b""),
        bytes=0,
        key=base64.b64encode(intent_id.encode()).decode(),
    )
    return realm.sealed(found, f"intents/{partition}/{offset}", "intake")


async def test_the_command_asks_by_kafka_and_by_the_gateway_alike(realm: House, rows: Rows) -> None:
    def keyturn(*words: str) -> Result:
        who = ["--dir", str(realm.folder), "--agent", BOT]
        return CliRunner().invoke(root_for(words), [*words, *who])

    asked = ("submit", "s3.copy", "bucket/reports", "-p", "bucket=reports", "--reason", "because", "--json")
    by_kafka = await asyncio.to_thread(keyturn, *asked)
    assert by_kafka.exit_code == 0, by_kafka.output
    async with realm.run("gateway", KEYTURN_GATEWAY_PORT="0") as process, await a_client(process) as http:
        url = str(http.base_url)
        by_http = await asyncio.to_thread(keyturn, *asked, "--gateway", url)
        assert by_http.exit_code == 0, by_http.output
        for said in (by_kafka, by_http):
            told = json.loads(said.stdout)
            [lying] = [r for r in await realm.read(topics.INTENTS) if r.key == told["id"].encode()]
            assert (lying.partition, lying.offset) == (told["partition"], told["offset"])
            assert canonical.digest(lying.value) == told["digest"]
            intent = Intent.from_bytes(lying.value)
            assert (intent.action.properties, intent.context.reason) == ({"bucket": "reports"}, "because")
        # What was asked by Kafka is read over HTTP, too.
        shown = await http.get(f"/v1/intents/{json.loads(by_kafka.stdout)['id']}", headers=reading(BOT))
        assert shown.json()["phase"] == "submitted"
