"""Who gets in: each attack on the gateway's doors by name, and that nothing of it reached the log."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest

from schemas import signing
from schemas.records import Intent, Phase, Subject, Withdrawal
from schemas.snapshots import Directory
from tests.broker import builders
from tests.broker.builders import REALM, T0, signer
from tests.gateway.stage import BODY, SEALED, SEALED_WITHDRAWAL, Door

Attack = Callable[[Door, Intent], tuple[bytes, Any]]


def with_headers(intent: Intent, door: Door, *, by: str = "bot", **changed: Any) -> dict[str, str]:
    return door.sealed(intent, by) | {name.replace("_", "-"): value for name, value in changed.items()}


def flipped(intent: Intent, door: Door) -> dict[str, str]:
    headers = door.sealed(intent, "bot")
    sig = bytearray(base64.b64decode(headers["Keyturn-Sig"]))
    sig[5] ^= 1
    return headers | {"Keyturn-Sig": base64.b64encode(sig).decode()}


FORGED: dict[str, tuple[Attack, int]] = {
    "no signature": (lambda _, i: (i.to_bytes(), {"Content-Type": SEALED}), 401),
    "a bit flipped": (lambda d, i: (i.to_bytes(), flipped(i, d)), 401),
    "another spelling of the signature": (
        lambda d, i: (i.to_bytes(), with_headers(i, d, Keyturn_Sig=d.sealed(i, "bot")["Keyturn-Sig"][:-2] + "A=")),
        401,
    ),
    "an unknown key": (lambda d, i: (i.to_bytes(), with_headers(i, d, by="nobody")), 401),
    "another agent's key": (lambda d, i: (i.to_bytes(), d.sealed(i, "twin")), 403),
    "the gateway's own key": (lambda d, i: (i.to_bytes(), d.sealed(i, "gateway")), 401),
    "the core's key": (lambda d, i: (i.to_bytes(), d.sealed(i, "core")), 401),
    "another realm": (lambda d, i: (i.to_bytes(), d.sealed(i, "bot", realm="staging")), 401),
    "another type": (
        lambda d, i: (
            i.to_bytes(),
            with_headers(i, d, Keyturn_Sig=signing.sign(signer("bot"), REALM, Withdrawal.TYPE, i.to_bytes())),
        ),
        401,
    ),
    "other bytes than were signed": (
        lambda d, i: (i.model_copy(update={"ttl": 60}).to_bytes(), d.sealed(i, "bot")),
        401,
    ),
    "a blank more": (lambda d, i: (i.to_bytes() + b" ", d.sealed(i, "bot")), 400),
    "members in another order": (lambda d, i: (json.dumps(i.to_json()).encode(), d.sealed(i, "bot")), 400),
    "nested without end": (lambda d, i: (b'{"a":' * 2000 + b"1" + b"}" * 2000, d.sealed(i, "bot")), 400),
    "no JSON": (lambda d, i: (b"\xff\x00", d.sealed(i, "bot")), 400),
    "too long for an intent": (lambda d, i: (b"{" + b" " * 20_000 + b"}", d.sealed(i, "bot")), 413),
    "too long for the door": (lambda d, i: (b"x" * 40_000, d.sealed(i, "bot")), 413),
    "another media type": (lambda d, i: (i.to_bytes(), with_headers(i, d, Content_Type="text/plain")), 415),
    "a person's intent by an agent's key": (
        lambda d, i: (
            (made := i.model_copy(update={"subject": Subject(type="person", id="bot")})).to_bytes(),
            d.sealed(made, "bot"),
        ),
        403,
    ),
    "two signatures": (
        lambda d, i: (i.to_bytes(), [*d.sealed(i, "bot").items(), ("Keyturn-Sig", d.sealed(i, "twin")["Keyturn-Sig"])]),
        401,
    ),
    "two keys": (
        lambda d, i: (i.to_bytes(), [*d.sealed(i, "bot").items(), ("keyturn-keyid", signer("twin").keyid)]),
        401,
    ),
    "two media types": (
        lambda d, i: (i.to_bytes(), [*d.sealed(i, "bot").items(), ("content-type", "application/json")]),
        415,
    ),
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_record_that_its_agent_did_not_seal_exactly_so_is_not_let_in(door: Door, name: str) -> None:
    attack, status = FORGED[name]
    content, headers = attack(door, door.intent())
    answer = await door.http.post("/v1/intents", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert door.book.said == []


async def test_a_retired_key_and_a_key_of_an_inactive_agent_let_nobody_in(door: Door) -> None:
    world = door.book.world
    door.book.world = builders.changed(world, Directory, agents=builders.agents_with("bot", is_active=False))
    assert (await door.submit(door.intent())).status_code == 403
    assert (await door.http.get("/v1/intents", headers=door.own("bot"))).status_code == 403
    door.book.world = builders.changed(world, Directory, keys=builders.keys_with("bot", valid_until=T0))
    assert (await door.submit(door.intent())).status_code == 401
    assert (await door.http.get("/v1/intents", headers=door.own("bot"))).status_code == 401
    assert door.book.said == []


# ---------------------------------------------------------------- tokens


def unsigned(door: Door) -> dict[str, str]:
    _, claims, _ = door.own("bot")["Authorization"].removeprefix("Bearer ").split(".")
    head = base64.urlsafe_b64encode(
        json.dumps({"alg": "none", "typ": "JWT", "kid": signer("bot").keyid}).encode()
    ).rstrip(b"=")
    return {"Authorization": f"Bearer {head.decode()}.{claims}."}


def by_the_public_key(door: Door) -> dict[str, str]:
    """HS256 with the agent's public key as the secret: the classic confusion."""
    claims = jwt.decode(door.own("bot")["Authorization"][7:], options={"verify_signature": False})
    secret = base64.b64decode(signer("bot").public)
    return {"Authorization": f"Bearer {jwt.encode(claims, secret, 'HS256', {'kid': signer('bot').keyid})}"}


NOW = T0 // 1000
TOKENS: dict[str, tuple[Callable[[Door], dict[str, str]], int]] = {
    "none at all": (lambda _: {}, 401),
    "another scheme": (lambda _: {"Authorization": "Basic Ym90OmJvdA=="}, 401),
    "alg none": (unsigned, 401),
    "HS256 with the public key": (by_the_public_key, 401),
    "signed by another agent": (lambda d: d.own("bot", by="twin"), 401),
    "signed with another's key id": (lambda d: d.own("bot", headers={"kid": signer("twin").keyid}), 401),
    "signed by the core": (lambda d: d.own("core", by="core"), 401),
    "signed by the gateway": (lambda d: d.own("gateway", by="gateway"), 401),
    "another realm's": (lambda d: d.own("bot", aud="keyturn:staging:gateway"), 401),
    "another door's": (lambda d: d.own("bot", aud=f"keyturn:{REALM}:api"), 401),
    "for several": (lambda d: d.own("bot", aud=[f"keyturn:{REALM}:gateway", "x"]), 401),
    "for nobody": (lambda d: d.own("bot", aud=None), 401),
    "somebody else's name": (lambda d: d.own("bot", sub="twin"), 401),
    "of five minutes ago": (lambda d: d.own("bot", iat=NOW - 300, exp=NOW), 401),
    "that lives too long": (lambda d: d.own("bot", exp=NOW + 301), 401),
    "that never ends": (lambda d: d.own("bot", exp=None), 401),
    "from the future": (lambda d: d.own("bot", iat=NOW + 60, exp=NOW + 120), 401),
    "with a time that is no number": (lambda d: d.own("bot", iat=True), 401),
    "without a name of its own": (lambda d: d.own("bot", jti=None), 401),
    "with an extension": (lambda d: d.own("bot", headers={"crit": ["b64"], "b64": True}), 401),
    "of another kind": (lambda d: d.own("bot", headers={"typ": "at+jwt"}), 401),
    "endless": (lambda _: {"Authorization": "Bearer " + "a" * 9000 + ".b.c"}, 401),
    "a person's, for approving": (lambda d: d.as_("ben", audience=None), 401),
    "a person's, without the scope": (lambda d: d.as_("ben", scopes=("intents:write",)), 403),
    "a person's, ended": (lambda d: d.as_("ben", life_seconds=-1), 401),
    "a disabled person's": (lambda d: d.as_("jon"), 403),
    "a client's own": (
        lambda d: {
            "Authorization": "Bearer "
            + d.issuer.sign({"sub": "bot", "client_id": "bot", "aud": "keyturn-gateway"}, ("intents:read",), None)
        },
        403,
    ),
}


@pytest.mark.parametrize("name", TOKENS)
async def test_a_token_that_is_not_exactly_right_reads_nothing(door: Door, name: str) -> None:
    await door.submit(door.intent())
    make, status = TOKENS[name]
    for path in ("/v1/intents", f"/v1/intents/{door.intent().id}", "/v1/events", "/v1/actions"):
        answer = await door.http.get(path, headers=make(door))
        assert answer.status_code == status, answer.text
        assert door.intent().id not in answer.text
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_two_authorizations_are_none(door: Door) -> None:
    pairs = [*door.own("bot").items(), *door.own("twin").items()]
    assert (await door.http.get("/v1/intents", headers=pairs)).status_code == 401


async def test_an_agents_own_token_reads_until_it_ends_and_never_asks(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    headers = door.own("bot")
    for _ in range(2):
        assert (await door.http.get(f"/v1/intents/{intent.id}", headers=headers)).status_code == 200
    # A stolen one says nothing: what an agent asks or takes back it signs.
    form = await door.http.post("/v1/intents", json=BODY, headers=headers)
    back = await door.http.post(f"/v1/intents/{intent.id}/withdraw", json={}, headers=headers)
    assert {form.status_code, back.status_code} == {403}
    assert form.json()["type"] == "urn:keyturn:problem:sign-yourself"
    door.clock[0] += 300_000
    assert (await door.http.get(f"/v1/intents/{intent.id}", headers=headers)).status_code == 401
    assert len(door.book.said) == 1


async def test_whoever_asks_cannot_answer_with_the_same_token_and_the_reverse(door: Door) -> None:
    approving = door.as_("ben", audience=None)
    assert (await door.http.post("/v1/intents", json=BODY, headers=approving)).status_code == 401
    claims = jwt.decode(door.as_("ben")["Authorization"][7:], options={"verify_signature": False})
    assert (claims["aud"], claims["scope"]) == ("keyturn-gateway", "intents:read intents:write")


# ---------------------------------------------------------------- another's


async def test_anothers_intent_is_not_found_by_any_path(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    door.book.answer(intent, Phase.PENDING)
    missing = door.intent(77).id
    for who in ("twin", "ben", "ada"):
        headers = door.reading(who)
        for intent_id in (intent.id, missing):
            alike = [
                await door.http.get(f"/v1/intents/{intent_id}", headers=headers),
                await door.http.get(f"/v1/intents/{intent_id}?wait=0.01&until=final", headers=headers),
                await door.http.get(f"/v1/intents/{intent_id}/events", headers=headers),
            ]
            assert {answer.status_code for answer in alike} == {404}
            assert {answer.json()["detail"] for answer in alike} == {"no intent of yours is known by this id"}
        assert (await door.http.get("/v1/intents", headers=headers)).json()["items"] == []


async def test_a_withdrawal_signed_by_another_agent_is_not_let_in(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    for by in (Subject(type="agent", id="twin"), intent.subject):
        stolen = Withdrawal(intent=intent.id, by=by)
        headers = door.sealed(stolen, "twin") | {"Content-Type": SEALED_WITHDRAWAL}
        path = f"/v1/intents/{intent.id}/withdraw"
        assert (await door.http.post(path, content=stolen.to_bytes(), headers=headers)).status_code == 403
    assert len(door.book.said) == 1


async def test_a_person_who_has_the_name_of_a_former_agent_sees_nothing_of_it(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    door.book.answer(intent, Phase.PENDING)
    directory = door.book.world.directory
    assert directory
    ben = next(person for person in directory.persons if person.id == "ben")
    persons = (*(each for each in directory.persons if each.id != "ben"), ben.model_copy(update={"id": "bot"}))
    members = tuple(group.model_copy(update={"members": ()}) for group in directory.groups)
    door.book.world = builders.changed(
        door.book.world,
        Directory,
        persons=persons,
        groups=members,
        agents=tuple(agent.model_copy(update={"users": ()}) for agent in directory.agents if agent.id != "bot"),
    )
    assert (await door.show(intent.id, "ben")).status_code == 404
    assert (await door.http.get("/v1/intents", headers=door.as_("ben"))).json()["items"] == []


PATHS = (
    "/v1/intents/../../etc/passwd",
    "/v1/intents/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/v1/intents/bot.%00",
    "/v1/intents/bot.01J0000000000000000000000%0a",
    "/v1/intents/BOT.01J00000000000000000000000",
    "/v1/intents/" + "a" * 4000,
    "/v1/intents/%F0%9F%94%91/events",
    "//v1/intents",
    "/v1/intents/",
    "/v1/intents;x=1",
    "/openapi.json",
    "/docs",
)


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_none_of_ours_is_not_found_whoever_asks(door: Door, path: str) -> None:
    for headers in ({}, door.own("bot")):
        answer = await door.http.get(httpx.URL("http://gateway").copy_with(raw_path=path.encode()), headers=headers)
        assert answer.status_code in {401, 404}, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"


async def test_other_methods_and_queries_out_of_bounds_are_problems_and_never_a_fault_of_ours(door: Door) -> None:
    headers = door.own("bot")
    for method, path in (("PUT", "/v1/intents"), ("DELETE", f"/v1/intents/{door.intent().id}"), ("POST", "/v1/events")):
        assert (await door.http.request(method, path, headers=headers)).status_code == 405
    for query in ("wait=-1", "wait=61", "wait=nan", "wait=x", "until=now"):
        answer = await door.http.get(f"/v1/intents/{door.intent().id}?{query}", headers=headers)
        assert answer.status_code == 400, answer.text
    for query in ("limit=0", "limit=201", "phase=nonsense", "after=" + "x" * 200):
        assert (await door.http.get(f"/v1/intents?{query}", headers=headers)).status_code == 400
