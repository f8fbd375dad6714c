"""Asking over HTTP: what is let in lies on the log byte for byte, and what is not was never written."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas import ids
from schemas.records import Context, Intent, Phase, Refusal, Subject, Withdrawal
from schemas.snapshots import Directory, Manifests, Policies
from streams.facts import Catalog
from tests.broker import builders
from tests.broker.builders import T0
from tests.gateway import stage
from tests.gateway.stage import BODY, SEALED, Door


async def test_a_sealed_intent_lies_on_the_log_byte_for_byte_and_the_answer_says_where(door: Door) -> None:
    intent = door.intent()
    answer = await door.submit(intent)
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["id"], told["digest"], told["content_digest"]) == (intent.id, intent.digest, intent.content_digest)
    [said] = door.book.said
    assert said.value == intent.to_bytes()
    assert said.keyid == builders.signer("bot").keyid
    assert (told["partition"], told["offset"]) == (door.book.place_of("bot"), 1)
    assert answer.headers["location"] == told["links"]["self"] == f"/v1/intents/{intent.id}"


async def test_the_same_bytes_again_have_the_same_answer_and_are_written_once(door: Door) -> None:
    intent = door.intent()
    first = await door.submit(intent)
    again = await door.submit(intent)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    door.book.answer(intent, Phase.PLANNING)
    later = await door.submit(intent)
    assert (later.status_code, later.json()) == (200, first.json())
    assert len(door.book.said) == 1


async def test_what_was_refused_is_answered_and_shown_from_the_little_that_is_kept_of_it(door: Door) -> None:
    intent = door.intent()
    first = await door.submit(intent)
    row = door.book.answer(intent, Phase.REFUSED, refusal=Refusal.OVERLOADED, reason="too many wait", ended_at=T0)
    assert (row.classified, len(row.to_bytes()) < 700) == (None, True)
    later = await door.submit(intent)
    assert (later.status_code, later.json()) == (200, first.json())
    assert (await door.submit(intent.model_copy(update={"ttl": 60}))).status_code == 409
    shown = (await door.http.get(f"/v1/intents/{intent.id}", headers=door.reading("bot"))).json()
    assert (shown["phase"], shown["reason"], shown["digest"]) == ("refused", "too many wait", intent.digest)
    assert shown["action"] == intent.action.name


async def test_a_process_that_restarted_gives_the_same_answers(door: Door, login: Any) -> None:
    intent, other = door.intent(1), door.intent(2)
    first, second = await door.submit(intent), await door.submit(other)
    door.book.answer(other, Phase.PLANNING)
    fresh = stage.over(door.book.restarted(), door.issuer, login)
    async with fresh.http:
        assert (await fresh.submit(intent)).json() == first.json()
        assert (await fresh.submit(other)).json() == second.json()
        changed = other.model_copy(update={"ttl": 60})
        assert (await fresh.submit(changed)).status_code == 409
        assert fresh.book.said == []


@pytest.mark.parametrize("is_answered", [False, True])
async def test_another_body_under_an_id_is_a_conflict_and_is_not_written(door: Door, is_answered: bool) -> None:
    intent = door.intent()
    await door.submit(intent)
    if is_answered:
        door.book.answer(intent, Phase.REFUSED)
    answer = await door.submit(intent.model_copy(update={"ttl": 60}))
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:keyturn:problem:conflict")
    assert len(door.book.said) == 1


async def test_a_strangers_record_under_somebodys_id_pins_nothing(door: Door) -> None:
    intent = door.intent()
    forged = intent.model_copy(update={"ttl": 60})
    door.book.write("intents", intent.id, door.book.seal(forged, intent.id, "twin"))
    door.book.write("intents", intent.id, door.book.seal(forged, intent.id, "bot", realm="staging"))
    assert (await door.submit(intent)).status_code == 202


async def test_after_a_withdrawal_that_came_first_nothing_comes_under_the_id(door: Door) -> None:
    intent = door.intent()
    row = door.book.answer(intent, Phase.WITHDRAWN)
    door.book.put(row.model_copy(update={"classified": None, "classification": None}))
    assert (await door.submit(intent)).status_code == 409


async def test_wrong_parameters_are_named_one_by_one_before_anything_is_written(door: Door) -> None:
    intent = door.intent(properties={"count": "many", "colour": "red", "tags": (1,)})
    answer = await door.submit(intent)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:keyturn:problem:bad-parameters"
    paths = {each["path"] for each in answer.json()["errors"]}
    assert paths == {
        "/action/properties/bucket",
        "/action/properties/count",
        "/action/properties/colour",
        "/action/properties/tags/0",
    }
    assert door.book.said == []


async def test_an_action_that_nobody_offers_is_answered_with_what_there_is(door: Door) -> None:
    answer = await door.submit(door.intent(action="s3.burn"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "/action/name"
    assert "s3.copy, s3.export" in answer.json()["detail"]


async def test_a_person_asks_with_a_form_and_the_gateway_signs(door: Door) -> None:
    answer = await door.ask("ben")
    assert answer.status_code == 202, answer.text
    [said] = door.book.said
    intent = said.read(Intent)
    assert intent.subject == Subject(type="person", id="ben")
    assert ids.requester_of(intent.id) == "ben"
    assert intent.context == Context(reason="the auditors asked")
    assert said.keyid == builders.signer("gateway").keyid
    assert door.book.world.authority.refuses(said, T0) is None


def gateways_key_is(door: Door, **changes: Any) -> None:
    """The directory now says this of the gateway's key."""
    known = door.book.world.directory
    assert known
    keys = tuple(key.model_copy(update=changes) if key.role == "gateway" else key for key in known.keys)
    door.book.world = builders.changed(door.book.world, Directory, keys=keys)


async def test_what_the_gateway_may_not_sign_is_refused_with_the_field_to_fill(door: Door) -> None:
    asked = (await door.ask("ben")).json()["id"]
    gateways_key_is(door, providers=("https://another.example",))
    taken_back = await door.http.post(f"/v1/intents/{asked}/withdraw", json={}, headers=door.as_("ben"))
    checked = await door.http.post("/v1/check", json=BODY, headers=door.as_("ben"))
    for answer in (await door.ask("ben"), taken_back, checked):
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:keyturn:problem:not-entitled"), answer.text
        assert "`providers` of the gateway's key in the directory" in answer.json()["detail"]
    assert len(door.book.said) == 1


async def test_a_gateway_whose_own_key_is_not_in_force_says_so_and_lets_nobody_in(door: Door) -> None:
    gateways_key_is(door, valid_until=1)
    answer = await door.ask("ben")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:keyturn:problem:not-ready")
    assert "own key" in answer.json()["detail"]
    assert door.book.said == []


async def test_an_idempotency_key_stands_for_one_intent_on_every_process(door: Door, login: Any) -> None:
    first = await door.ask("ben", idempotency_key="click-0001")
    again = await door.ask("ben", idempotency_key="click-0001")
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    door.clock[0] += 60_000
    fresh = stage.over(door.book.restarted(), door.issuer, login)
    async with fresh.http:
        assert (await fresh.ask("ben", idempotency_key="click-0001")).json() == first.json()
        other = await fresh.ask("ben", BODY | {"ttl": 60}, idempotency_key="click-0001")
        assert other.status_code == 409
        assert (await fresh.ask("ben", idempotency_key="click-0002")).status_code == 202
        assert (await fresh.ask("eve", idempotency_key="click-0001")).status_code == 202
        assert len(fresh.book.said) == 2


async def test_a_key_keeps_its_intent_though_nobody_knows_whether_it_was_recorded(door: Door) -> None:
    door.book.is_kafka_up = False
    assert (await door.ask("ben", idempotency_key="click-0001")).status_code == 503
    [chosen] = door.gateway._chosen.values()
    door.clock[0] += 5000
    door.book.is_kafka_up = True
    # It was on its way all the time: the repeat must be the same intent, not a second one of another time.
    answer = await door.ask("ben", idempotency_key="click-0001")
    assert (answer.status_code, answer.json()["id"]) == (202, chosen)
    assert door.gateway._chosen == {}
    assert (await door.ask("ben", BODY | {"ttl": 0}, idempotency_key="click-0002")).status_code == 422
    unknown = BODY | {"action": {"name": "s3.burn"}}
    assert (await door.ask("ben", unknown, idempotency_key="click-0003")).status_code == 422
    assert door.gateway._chosen == {}


async def test_an_id_of_ones_own_choice_makes_asking_again_harmless_too(door: Door) -> None:
    body = BODY | {"id": ids.intent_id("ben", T0, b"0123456789")}
    assert (await door.ask("ben", body)).status_code == 202
    assert (await door.ask("ben", body)).status_code == 200
    assert (await door.ask("ben", body | {"ttl": 61})).status_code == 409


BAD_FORMS: dict[str, tuple[Any, str]] = {
    "another's id": (BODY | {"id": ids.intent_id("eve", T0, b"0123456789")}, "/id"),
    "an old id": (BODY | {"id": ids.intent_id("ben", T0 - 90_000_000, b"0123456789")}, "/id"),
    "an unknown member": (BODY | {"quorum": 1}, "/quorum"),
    "whom it is for": (BODY | {"context": {"reason": "", "on_behalf_of": "ada"}}, "/context/on_behalf_of"),
    "somebody else": (BODY | {"subject": {"type": "person", "id": "eve"}}, "/subject"),
    "no resource": ({"action": BODY["action"]}, "/resource"),
    "a nested parameter": (
        BODY | {"action": {"name": "s3.copy", "properties": {"bucket": {"name": "x"}}}},
        "/action/properties/bucket",
    ),
    "a list": ([1], ""),
    "no time": (BODY | {"ttl": 0}, "/ttl"),
}


@pytest.mark.parametrize("name", BAD_FORMS)
async def test_a_form_that_says_anything_else_is_refused_by_place(door: Door, name: str) -> None:
    body, path = BAD_FORMS[name]
    answer = await door.http.post("/v1/intents", json=body, headers=door.as_("ben"))
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert any(each["path"].startswith(path) for each in answer.json()["errors"]), answer.text
    assert door.book.said == []


async def test_a_member_that_is_there_twice_is_refused(door: Door) -> None:
    raw = json.dumps(BODY).replace('{"bucket": "reports"}', '{"bucket": "dev", "bucket": "prod"}')
    headers = door.as_("ben") | {"Content-Type": "application/json"}
    answer = await door.http.post("/v1/intents", content=raw, headers=headers)
    assert (answer.status_code, "twice" in answer.json()["detail"]) == (400, True)
    twice = door.intent().to_bytes().replace(b'{"bucket":"reports"}', b'{"bucket":"dev","bucket":"prod"}')
    answer = await door.http.post("/v1/intents", content=twice, headers=door.sealed(door.intent(), "bot"))
    assert answer.status_code == 400


async def test_a_secret_is_refused_before_it_reaches_any_log(door: Door) -> None:
    secret = "AKIA" + "A" * 16
    for answer in (
        await door.submit(door.intent(context=Context(reason=secret))),
        await door.ask("ben", BODY | {"context": {"reason": secret}}),
        await door.http.post("/v1/check", json=BODY | {"context": {"reason": secret}}, headers=door.as_("ben")),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:keyturn:problem:secret-found")
        assert secret not in answer.text
    assert door.book.said == []


async def test_a_flood_is_told_to_wait_and_others_are_let_in(issuer: Any, login: Any) -> None:
    door = stage.a_door(issuer, login, [T0], asks_per_second=2)
    async with door.http:
        answers = [await door.submit(door.intent(number)) for number in range(1, 13)]
        assert [each.status_code for each in answers] == [202] * 10 + [429] * 2
        assert answers[-1].headers["retry-after"] == "1"
        assert (await door.submit(door.intent(1, "twin"), "twin")).status_code == 202
        # A flood of forgeries in somebody's name takes nothing from that somebody.
        door.seconds[0] += 1
        for number in range(20, 60):
            assert (await door.submit(door.intent(number), "twin")).status_code == 403
        assert (await door.submit(door.intent(99))).status_code == 202
        # Nor do its own bytes, sent again by whoever has seen them.
        for _ in range(30):
            await door.submit(door.intent(99))
        assert (await door.submit(door.intent(98))).status_code == 202


async def test_what_kafka_did_not_take_is_said_to_be_unrecorded_and_may_be_sent_again(door: Door) -> None:
    door.book.is_kafka_up = False
    answer = await door.submit(door.intent())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    door.book.is_kafka_up = True
    assert (await door.submit(door.intent())).status_code == 202


@pytest.mark.parametrize("kind", [Directory, Policies, Manifests])
async def test_without_a_whole_world_nobody_is_let_in(issuer: Any, login: Any, kind: type) -> None:
    documents = (builders.DIRECTORY, builders.ROSTER, builders.POLICIES, builders.MANIFESTS)
    missing = [each for each in documents if not isinstance(each, kind)]
    book = stage.MemoryBook(builders.with_documents(builders.empty_world(), *missing), [T0])
    door = stage.over(book, issuer, login)
    async with door.http:
        assert (await door.submit(door.intent())).status_code in {401, 503}
        assert (await door.http.get("/readyz")).status_code == 503
        assert (await door.http.get("/healthz")).status_code == 200
    assert book.said == []


# ---------------------------------------------------------------- taking back


async def test_an_agent_takes_its_intent_back_with_a_sealed_withdrawal(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    withdrawal = Withdrawal(intent=intent.id, by=intent.subject, reason="a typing error")
    path = f"/v1/intents/{intent.id}/withdraw"
    answer = await door.http.post(path, content=withdrawal.to_bytes(), headers=door.sealed(withdrawal, "bot"))
    assert answer.status_code == 202, answer.text
    assert door.book.said[-1].value == withdrawal.to_bytes()
    other = f"/v1/intents/{door.intent(7).id}/withdraw"
    answer = await door.http.post(other, content=withdrawal.to_bytes(), headers=door.sealed(withdrawal, "bot"))
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "/intent")


async def test_an_owner_takes_an_agents_intent_back_and_nobody_else_hears_of_it(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    path = f"/v1/intents/{intent.id}/withdraw"
    for stranger in ("ben", "eve"):
        assert (await door.http.post(path, json={}, headers=door.as_(stranger))).status_code == 404
    answer = await door.http.post(path, json={"reason": "not today"}, headers=door.as_("ada"))
    assert answer.status_code == 202
    said = door.book.said[-1].read(Withdrawal)
    assert (said.by, said.reason) == (Subject(type="person", id="ada"), "not today")
    unknown = f"/v1/intents/{door.intent(9).id}/withdraw"
    assert (await door.http.post(unknown, json={}, headers=door.as_("ada"))).status_code == 404


async def test_what_has_ended_is_not_taken_back_and_a_second_withdrawal_is_the_first(door: Door) -> None:
    made = (await door.ask("ben")).json()
    intent = door.book.said[-1].read(Intent)
    path = f"/v1/intents/{made['id']}/withdraw"
    door.book.answer(intent, Phase.SUCCEEDED)
    answer = await door.http.post(path, json={}, headers=door.as_("ben"))
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:keyturn:problem:final")
    door.book.answer(intent, Phase.WITHDRAWN)
    assert (await door.http.post(path, json={}, headers=door.as_("ben"))).status_code == 200
    assert len(door.book.said) == 1


# ---------------------------------------------------------------- what policy would say


async def test_a_check_says_what_policy_would_say_and_writes_nothing(door: Door) -> None:
    answer = await door.http.post("/v1/check", json=BODY, headers=door.own("bot"))
    told = answer.json()
    assert (told["effect"], told["rules"], told["executor"]) == ("require_approval", ["copy"], "s3")
    assert told["requirement"] == {"seats": 1, "assurance": "channel", "within": 600}
    assert told["unknown_facts"] == ["classification", "environment", "owner"]
    assert any("plan" in caveat for caveat in told["caveats"])
    locked = BODY | {"action": {"name": "s3.copy", "properties": {"bucket": "locked"}}}
    denied = (await door.http.post("/v1/check", json=locked, headers=door.as_("ben"))).json()
    assert (denied["effect"], denied["rules"]) == ("deny", ["locked"])
    assert door.book.said == []


async def test_a_check_of_wrong_parameters_names_them(door: Door) -> None:
    wrong = BODY | {"action": {"name": "s3.copy", "properties": {"count": 1}}}
    told = (await door.http.post("/v1/check", json=wrong, headers=door.as_("ben"))).json()
    assert (told["effect"], told["refusal"]) == ("refused", "bad_parameters")
    assert [each["path"] for each in told["errors"]] == ["/action/properties/bucket"]


async def test_a_check_takes_the_bytes_that_would_be_sealed(door: Door) -> None:
    headers = door.own("bot") | {"Content-Type": SEALED}
    told = await door.http.post("/v1/check", content=door.intent().to_bytes(), headers=headers)
    assert told.json()["effect"] == "require_approval"
    foreign = await door.http.post("/v1/check", content=door.intent(1, "twin").to_bytes(), headers=headers)
    assert foreign.status_code == 422


async def test_what_executors_offer_is_told_with_its_schemas(door: Door) -> None:
    told = (await door.http.get("/v1/actions", headers=door.own("bot"))).json()
    by_name = {each["name"]: each for each in told["actions"]}
    assert by_name["s3.copy"]["parameters"] == builders.PARAMETERS
    assert by_name["iam.grant"]["executor"] == "iam"
    assert by_name["s3.copy"]["resource"]["required"] == ["type", "id"]


async def test_a_check_looks_for_facts_where_intake_does_and_says_which_nobody_knew(
    issuer: Any, login: Any, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text("- {match: bucket/reports, classification: internal, environment: production}\n")
    door = stage.a_door(issuer, login, [T0], sources=(Catalog(catalog),))
    async with door.http:
        told = (await door.http.post("/v1/check", json=BODY, headers=door.as_("ben"))).json()
        assert told["unknown_facts"] == ["owner"]
        catalog.write_text("not a list")
        told = (await door.http.post("/v1/check", json=BODY, headers=door.as_("ben"))).json()
        assert told["unknown_facts"] == ["classification", "environment", "owner"]
