"""Agents without keys: their OAuth client's own token lets them ask and read, in their own name and nobody else's."""

import pytest

from gateway import callers
from schemas.records import Intent, Subject, Withdrawal
from schemas.snapshots import Directory
from tests.broker import builders
from tests.gateway.stage import BODY, Door, named


async def test_an_agent_without_a_key_asks_reads_and_takes_back_by_its_clients_token(door: Door) -> None:
    headers = door.client("courier")
    asked = await door.http.post("/v1/intents", json=BODY, headers=headers)
    assert asked.status_code == 202, asked.text
    intent_id = asked.json()["id"]
    assert intent_id.startswith("courier.")
    statement = door.book.said[-1]
    intent = statement.read(Intent)
    assert (intent.subject, intent.context.on_behalf_of) == (Subject(type="agent", id="courier"), None)
    # The directory lets this gateway sign for it, so that intake will admit it.
    assert door.book.world.authority.refuses(statement, door.clock[0]) is None

    shown = await door.http.get(f"/v1/intents/{intent_id}", headers=headers)
    assert shown.status_code == 200
    assert [each["id"] for each in (await door.http.get("/v1/intents", headers=headers)).json()["items"]] == [intent_id]

    back = await door.http.post(f"/v1/intents/{intent_id}/withdraw", json={}, headers=headers)
    assert back.status_code == 202, back.text
    assert door.book.said[-1].read(Withdrawal).by == Subject(type="agent", id="courier")


async def test_what_another_asked_is_not_there_for_it(door: Door) -> None:
    await door.submit(door.intent())
    theirs = door.intent().id
    headers = door.client("courier")
    assert (await door.http.get(f"/v1/intents/{theirs}", headers=headers)).status_code == 404
    assert (await door.http.post(f"/v1/intents/{theirs}/withdraw", json={}, headers=headers)).status_code == 404
    named_so = await door.http.post("/v1/intents", json=BODY | {"id": theirs}, headers=headers)
    assert named_so.status_code == 422
    assert len(door.book.said) == 1


async def test_an_agent_that_lists_no_gateway_is_told_what_to_fill_and_nothing_is_written(door: Door) -> None:
    answer = await door.http.post("/v1/intents", json=BODY, headers=door.client("mule"))
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:keyturn:problem:not-entitled")
    assert "`gateways`" in answer.json()["detail"]
    assert door.book.said == []


@pytest.mark.parametrize(
    ("agent", "claims"),
    [
        ("retired", {}),
        ("stranger", {}),
        # Somebody logged in by the agent's account: not the client itself.
        ("courier", {"client_id": "keyturn-cli", "auth_time": builders.T0 // 1000}),
        # Another client, with a user whose `sub` is the agent's.
        ("courier", {"client_id": "portal"}),
        # Somebody logged in, or the client acts for somebody.
        ("courier", {"auth_time": builders.T0 // 1000}),
        ("courier", {"amr": ["pwd"]}),
        ("courier", {"act": {"sub": "sub-ben"}}),
        # A client's own token that carries a person's account.
        ("courier", {"sub": "sub-ben", "client_id": "sub-ben"}),
    ],
)
async def test_whose_token_it_is_not_exactly_gets_nothing(door: Door, agent: str, claims: dict[str, object]) -> None:
    headers = door.client(agent, **claims)
    answer = await door.http.post("/v1/intents", json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:keyturn:problem:unknown-caller"), answer.text
    assert (await door.http.get("/v1/intents", headers=headers)).status_code == 403
    assert door.book.said == []


async def test_a_login_taken_from_its_holder_ends_what_is_held_open(door: Door) -> None:
    world = door.book.world
    assert world.directory is not None
    courier = next(agent for agent in world.directory.agents if agent.id == "courier")
    ben = named(world, "ben")
    now = door.clock[0]
    for holder, token in ((courier, door.client("courier")), (ben, door.as_("ben"))):
        login = await door.login(token)
        caller = callers.by_account(login, world.directory)
        assert caller.subject.id == holder.id
        assert callers.is_still(caller, world, now)
        assert not callers.is_still(caller, world, 1000 * login.expires_at)
        bare = holder.model_copy(update={"accounts": ()})
        agents = tuple(bare if each.id == bare.id else each for each in world.directory.agents)
        persons = tuple(bare if each.id == bare.id else each for each in world.directory.persons)
        then = builders.changed(world, Directory, agents=agents, persons=persons)
        assert not callers.is_still(caller, then, now)
