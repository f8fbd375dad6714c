"""Whatever comes in, the answer is a problem of the caller's and never a fault of ours."""

import json
import random
from typing import Any

import pytest

from tests.broker.builders import T0
from tests.gateway import stage
from tests.gateway.stage import BODY, SEALED, SEALED_WITHDRAWAL, Door

ROUNDS = 150
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**53, 2**64, 10**400, 0.1, "", "x" * 3000, "\u202e", "\ud800", "\x00", [], {}, [[]], {"a": {}},
    [None] * 300, {str(number): number for number in range(300)}, "s3.copy", "bot", "../..",
)  # fmt: skip
TYPES = ("application/json", "application/json; charset=utf-16", SEALED, SEALED_WITHDRAWAL, "text/html", "", "a/b,c/d")


def mutated(value: Any, chance: random.Random) -> Any:
    """The same with something else somewhere."""
    if chance.random() < 0.15:
        return chance.choice(ODD)
    if isinstance(value, dict):
        made = {name: mutated(each, chance) for name, each in value.items() if chance.random() > 0.05}
        if chance.random() < 0.1:
            made[chance.choice(("id", "extra", "on_behalf_of", "é"))] = chance.choice(ODD)
        return made
    return value


def scrambled(raw: bytes, chance: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 9)]
            case _:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 5)))
    return bytes(data)


@pytest.mark.parametrize("seed", [1, 2])
async def test_garbage_is_the_callers_problem(seed: int, issuer: Any, login: Any) -> None:
    chance = random.Random(seed)
    door = stage.a_door(issuer, login, [T0], asks_per_second=100_000, reads_per_second=100_000)
    async with door.http:
        for _ in range(ROUNDS):
            said = len(door.book.said)
            await _one(door, chance)
            # A form may by chance still be a good one; nothing sealed can be.
            for statement in door.book.said[said:]:
                assert door.book.world.authority.refuses(statement, T0) is None


async def _one(door: Door, chance: random.Random) -> None:
    intent = door.intent(chance.randrange(1, 100))
    path = chance.choice(
        ("/v1/intents", "/v1/check", f"/v1/intents/{intent.id}/withdraw", "/v1/intents/x/withdraw", "/v1/events")
    )
    if chance.random() < 0.5:
        content = scrambled(intent.to_bytes(), chance)
        headers = door.sealed(intent, "bot")
    else:
        content = json.dumps(mutated(BODY, chance)).encode()
        headers = door.as_(chance.choice(("ben", "eve")))
    if chance.random() < 0.3:
        headers |= door.own("bot")
    headers["Content-Type"] = chance.choice((headers.get("Content-Type", "application/json"), *TYPES))
    if chance.random() < 0.3:
        name = chance.choice(("Idempotency-Key", "Keyturn-Sig", "Keyturn-Keyid", "Last-Event-ID", "X-Forwarded-For"))
        headers[name] = "".join(chance.choice("ab=+/ \t.%") for _ in range(chance.randint(0, 200)))
    method = chance.choice(("POST", "POST", "POST", "PUT", "PATCH"))
    answer = await door.http.request(method, path, content=content, headers=headers)
    assert answer.status_code < 500, (path, headers, content, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"].startswith("urn:keyturn:problem:")
