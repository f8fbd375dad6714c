"""The approvers' API: nothing is swallowed, nothing is called approved before the core said so."""

import asyncio
import json

import pytest

from notifiers.card import Card
from schemas.records import Decision, ListLeaf, Phase, Refusal, Resolution, Verdict
from streams.http.problems import Kind, urn_of
from tests.notifiers import stage
from tests.notifiers.conftest import Api

OTHER = "f" * 64


async def test_the_list_shows_what_waits_newest_first_and_pages_through_it(api: Api) -> None:
    for number in range(1, 6):
        api.desk.put(stage.pending(stage.intent(number, at=stage.T0 + number * 1000)))
    first = (await api.http.get("/v1/approvals", params={"limit": 4}, headers=api.as_("ana"))).json()
    second = (
        await api.http.get("/v1/approvals", params={"limit": 4, "cursor": first["cursor"]}, headers=api.as_("ana"))
    ).json()
    ids = [line["id"] for line in (*first["approvals"], *second["approvals"])]
    assert ids == [stage.intent_id(n, stage.T0 + n * 1000) for n in (5, 4, 3, 2, 1)] + [stage.intent_id()]
    assert "cursor" not in second
    assert first["approvals"][0]["resource"] == "arn:aws:s3:::prod-logs"
    none = await api.http.get("/v1/approvals", params={"phase": "denied"}, headers=api.as_("ana"))
    assert none.json()["approvals"] == []


async def test_an_approval_shows_the_card_the_question_and_what_it_means_for_me(api: Api) -> None:
    response = await api.http.get(f"/v1/approvals/{api.row.intent_id}", headers=api.as_("dev"))
    body = response.json()
    assert api.row.question
    assert response.headers["etag"] == f'"{api.row.question.digest}"'
    assert body["question_digest"] == api.row.question.digest
    shown = Card.model_validate_json(json.dumps(body["card"]))
    assert shown.content_digest() == shown.digest
    assert body["offers_approve"] is True
    assert body["may_not_approve"] == [{"person": "dev", "why": "self_approval"}]
    assert body["you"] == {
        "person": "dev",
        "seats": ["group:sre"],
        "approve": "self_approval",
        "resolve": "wrong_phase",
        "resolves_as": [],
    }
    assert body["requirement"]["seats"] == [{"of": "group:sre"}, {"of": "group:sre"}]
    assert body["expires_at"] == api.row.expires_at


async def test_a_yes_is_recorded_and_counts_when_the_core_says_so(api: Api) -> None:
    api.desk.is_core_up = False
    response = await api.say("ana")
    assert response.status_code == 202
    assert "expected_refusal" not in response.json()
    assert "approved" not in response.text
    location = response.headers["location"]
    waiting = (await api.http.get(location, headers=api.as_("ana"))).json()
    assert waiting["state"] == "deciding"
    api.desk.decide()
    answered = (await api.http.get(location, headers=api.as_("ana"))).json()
    assert (answered["state"], answered["seats_filled"], answered["seats"]) == ("taken", 1, 2)
    said = api.desk.said[0]
    assert isinstance(said, Decision)
    assert (said.person, said.verdict, said.channel) == ("ana", Verdict.APPROVE, "api")
    assert said.account == stage.account("ana", api.issuer.url)
    assert said.evidence.kind == "oidc"
    assert said.evidence.auth_time is not None
    assert said.card == (await api.show())["card"]["digest"]


async def test_two_yeses_fill_the_quorum(api: Api) -> None:
    assert (await api.say("ana", key="ana-00000001")).status_code == 202
    assert (await api.say("ben", key="ben-00000001")).status_code == 202
    assert (await api.show())["phase"] == "approved"


@pytest.mark.parametrize(
    ("person", "verdict", "refusal"),
    [
        ("dev", "approve", Refusal.SELF_APPROVAL),
        ("cho", "approve", Refusal.NO_SEAT),
        ("cho", "deny", Refusal.NO_SEAT),
    ],
)
async def test_a_click_that_will_be_refused_is_still_sent_and_the_core_refuses_it(
    api: Api, person: str, verdict: str, refusal: Refusal
) -> None:
    response = await api.say(person, verdict, reason="because")
    assert response.status_code == 202
    assert response.json()["expected_refusal"] == refusal.value
    assert response.json()["type"] == urn_of(refusal)
    assert len(api.desk.said) == 1
    answer = (await api.http.get(response.headers["location"], headers=api.as_(person))).json()
    assert (answer["state"], answer["refusal"]) == ("refused", refusal.value)


async def test_an_old_login_is_told_to_log_in_afresh_and_is_sent_all_the_same(api: Api) -> None:
    old = api.as_("ana", login_seconds_ago=2 * 3600)
    response = await api.say("ana", headers=old)
    assert response.json()["expected_refusal"] == "assurance_too_low"
    assert len(api.desk.said) == 1


async def test_a_second_yes_of_one_person_is_sent_and_refused(api: Api) -> None:
    await api.say("ana", key="ana-00000001")
    response = await api.say("ana", key="ana-00000002")
    assert response.json()["expected_refusal"] == "already_decided"
    assert len(api.desk.said) == 2


async def test_a_click_on_what_has_ended_is_sent_and_refused(api: Api) -> None:
    await api.say("ana", "deny", reason="no", key="ana-00000001")
    assert (await api.show())["phase"] == "denied"
    response = await api.say("ben", key="ben-00000001")
    assert response.json()["expected_refusal"] == "final"
    answer = (await api.http.get(response.headers["location"], headers=api.as_("ben"))).json()
    assert answer["refusal"] == "final"


async def test_a_click_on_an_old_question_is_sent_and_the_client_hears_412(api: Api) -> None:
    response = await api.say("ana", question=OTHER)
    assert response.status_code == 412
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == Kind.WRONG_QUESTION.urn == urn_of(Refusal.WRONG_QUESTION)
    assert body["expected_refusal"] == "wrong_question"
    assert len(api.desk.said) == 1
    answer = (await api.http.get(body["location"], headers=api.as_("ana"))).json()
    assert answer["refusal"] == "wrong_question"


async def test_a_click_on_an_intent_not_known_here_is_sent_for_the_view_may_lag(api: Api) -> None:
    unseen = stage.intent_id(99)
    response = await api.http.post(
        f"/v1/approvals/{unseen}/decisions",
        json={"verdict": "revoke", "card": OTHER},
        headers={**api.as_("ana"), "If-Match": f'"{OTHER}"', "Idempotency-Key": "key-00000001"},
    )
    assert (response.status_code, response.json()["expected_refusal"]) == (202, "unknown_intent")
    assert len(api.desk.said) == 1


async def test_a_yes_to_another_card_is_nobodys_yes(api: Api) -> None:
    response = await api.say("ana", card=OTHER)
    assert (response.status_code, response.json()["type"]) == (422, Kind.OTHER_CARD.urn)
    assert response.json()["card"] == (await api.show())["card"]["digest"]
    assert api.desk.said == []


async def test_a_list_that_nobody_sees_is_approved_by_nobody_and_may_be_denied(api: Api) -> None:
    hidden = ListLeaf(name="keys", count=3, bytes=60, digest=OTHER)
    api.row = stage.pending(plan={"lists": (hidden,)})
    api.desk.put(api.row)
    body = await api.show()
    assert body["offers_approve"] is False
    response = await api.say("ana", card=body["card"]["digest"])
    assert (response.status_code, response.json()["type"]) == (422, Kind.NOT_WHOLE.urn)
    assert api.desk.said == []
    assert (await api.say("ana", "deny", reason="who knows", key="key-00000002")).status_code == 202


@pytest.mark.parametrize("verdict", ["deny", "revoke"])
async def test_a_no_needs_no_right_card(api: Api, verdict: str) -> None:
    assert (await api.say("ana", verdict, card=OTHER, reason="no")).status_code == 202
    assert len(api.desk.said) == 1


async def test_a_row_the_core_did_not_sign_is_shown_to_nobody_and_approved_by_nobody(api: Api) -> None:
    shown = (await api.show())["card"]["digest"]
    api.desk.put(api.row, is_verified=False)
    response = await api.http.get(f"/v1/approvals/{api.row.intent_id}", headers=api.as_("ana"))
    assert (response.status_code, response.json()["type"]) == (502, Kind.INTEGRITY.urn)
    assert (await api.say("ana", card=shown)).status_code == 502
    assert api.desk.said == []
    listed = await api.http.get("/v1/approvals", headers=api.as_("ana"))
    assert listed.json()["approvals"] == []
    assert (await api.say("ana", "deny", card=shown, reason="odd")).status_code == 202


async def test_a_row_that_contradicts_itself_is_approved_by_nobody(api: Api) -> None:
    assert api.row.question
    twisted = api.row.question.model_copy(update={"plan": OTHER})
    api.row = api.row.model_copy(update={"question": twisted})
    api.desk.put(api.row)
    body = await api.show()
    assert body["offers_approve"] is False
    response = await api.say("ana", card=body["card"]["digest"])
    assert (response.status_code, response.json()["type"]) == (502, Kind.INTEGRITY.urn)
    assert response.json()["contradictions"]
    assert api.desk.said == []


@pytest.mark.parametrize("header", [None, "*", "W/" + f'"{OTHER}"', OTHER, '"ab"', f'"{OTHER}", "{OTHER}"'])
async def test_a_click_that_names_no_question_is_told_to(api: Api, header: str | None) -> None:
    headers = {**api.as_("ana"), "Idempotency-Key": "key-00000001"} | ({"If-Match": header} if header else {})
    response = await api.http.post(
        f"/v1/approvals/{api.row.intent_id}/decisions", json={"verdict": "approve", "card": OTHER}, headers=headers
    )
    assert (response.status_code, response.json()["type"]) == (428, Kind.QUESTION_REQUIRED.urn)
    assert api.desk.said == []


@pytest.mark.parametrize("key", ["", "short", "with blank", "x" * 129])
async def test_a_click_without_an_idempotency_key_is_told_to_bring_one(api: Api, key: str) -> None:
    response = await api.say("ana", key=key)
    assert (response.status_code, response.json()["type"]) == (400, Kind.IDEMPOTENCY_KEY_REQUIRED.urn)
    assert api.desk.said == []


async def test_the_same_key_and_body_give_the_same_answer_once(api: Api) -> None:
    first, second = await asyncio.gather(api.say("ana"), api.say("ana"))
    third = await api.say("ana")
    assert first.json() == second.json() == third.json()
    assert len(api.desk.said) == 1


async def test_the_same_key_with_another_request_is_an_error_and_not_a_second_act(api: Api) -> None:
    await api.say("ana")
    for other in (await api.say("ana", "deny", reason="no"), await api.say("ana", question=OTHER)):
        assert (other.status_code, other.json()["type"]) == (422, Kind.IDEMPOTENCY_KEY_REUSED.urn)
    assert len(api.desk.said) == 1


async def test_keys_belong_to_a_caller_and_are_forgotten_after_their_time(api: Api) -> None:
    await api.say("ana")
    await api.say("ben")
    assert len(api.desk.said) == 2
    api.monotonic[0] += 3601
    await api.say("ana")
    assert len(api.desk.said) == 3


async def test_without_kafka_nothing_is_called_recorded_and_the_same_key_may_try_again(api: Api) -> None:
    api.desk.is_kafka_up = False
    response = await api.say("ana")
    assert (response.status_code, response.json()["type"]) == (503, Kind.NOT_RECORDED.urn)
    assert response.headers["retry-after"]
    api.desk.is_kafka_up = True
    assert (await api.say("ana")).status_code == 202


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{}", "application/json", 422),
        (b'{"verdict":"approve","verdict":"deny","card":"%s"}' % OTHER.encode(), "application/json", 400),
        (b'{"verdict":"yes","card":"%s"}' % OTHER.encode(), "application/json", 422),
        (b'{"verdict":"approve","card":"%s","person":"ben"}' % OTHER.encode(), "application/json", 422),
        (b'{"verdict":"deny","card":"%s"}' % OTHER.encode(), "application/json", 422),
        (b'{"verdict":"deny","card":"%s","reason":"  "}' % OTHER.encode(), "application/json", 422),
        (f'{{"verdict":"deny","card":"{OTHER}","reason":"e\u0301"}}'.encode(), "application/json", 422),
        (b"[" * 5000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"verdict=approve", "application/x-www-form-urlencoded", 415),
        (b"x" * 20_000, "application/json", 413),
    ],
)
async def test_a_body_that_is_not_exactly_a_decision_is_a_problem_and_nothing_is_sent(
    api: Api, content: bytes, media_type: str, status: int
) -> None:
    headers = {**api.as_("ana"), "If-Match": f'"{OTHER}"', "Idempotency-Key": "key-00000001"}
    response = await api.http.post(
        f"/v1/approvals/{api.row.intent_id}/decisions", content=content, headers={**headers, "Content-Type": media_type}
    )
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert api.desk.said == []


async def test_a_long_body_without_a_length_is_cut_off(api: Api) -> None:
    async def endless():
        for _ in range(100):
            yield b"x" * 1024

    headers = {**api.as_("ana"), "If-Match": f'"{OTHER}"', "Idempotency-Key": "key-00000001"}
    response = await api.http.post(
        f"/v1/approvals/{api.row.intent_id}/decisions",
        content=endless(),
        headers={**headers, "Content-Type": "application/json"},
    )
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/approvals/no-such-id", 404),
        ("GET", "/v1/approvals/bot.01HF7YAT00000000000000ZZZZ", 404),
        ("GET", "/v1/approvals?limit=0", 400),
        ("GET", "/v1/approvals?phase=maybe", 400),
        ("GET", "/v1/approvals?wait=61&after=x", 400),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("PUT", "/v1/approvals", 405),
        ("GET", "/v1/approvals/x/decisions", 405),
        ("GET", "/v1/approvals/x/decisions/latest", 404),
    ],
)
async def test_everything_else_is_a_problem_in_one_form(api: Api, method: str, path: str, status: int) -> None:
    response = await api.http.request(method, path, headers=api.as_("ana"))
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["type"].startswith("urn:keyturn:problem:")


async def test_every_answer_says_what_may_not_be_done_with_it(api: Api) -> None:
    for response in (
        await api.http.get("/v1/approvals", headers=api.as_("ana")),
        await api.http.get("/v1/approvals"),
        await api.http.get("/nowhere"),
    ):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "access-control-allow-origin" not in response.headers


async def test_the_log_has_a_line_a_request_without_token_or_reason(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await api.say("ana", "deny", reason="sesame")
    lines = [record for record in caplog.records if record.name == "keyturn.api.access"]
    assert [line.status for line in lines] == [200, 202]
    everything = " ".join(str(vars(record)) for record in caplog.records)
    assert "sesame" not in everything
    assert "Bearer" not in everything


async def test_a_long_poll_returns_when_the_row_changes(api: Api) -> None:
    before = await api.show()
    path = f"/v1/approvals/{api.row.intent_id}"
    query = {"wait": "20", "after": before["version"]}
    waiting = asyncio.create_task(api.http.get(path, params=query, headers=api.as_("ana")))
    await asyncio.sleep(0)
    assert (await api.say("ben")).status_code == 202
    async with asyncio.timeout(5):
        after = (await waiting).json()
    assert after["version"] != before["version"]
    assert after["requirement"]["seats"][0]["person"] == "ben"


async def test_a_long_poll_without_news_returns_what_there_is(api: Api) -> None:
    before = await api.show()
    query = {"wait": "0.01", "after": before["version"]}
    after = await api.http.get(f"/v1/approvals/{api.row.intent_id}", params=query, headers=api.as_("ana"))
    assert after.json()["version"] == before["version"]


async def test_the_list_can_be_waited_on_too(api: Api) -> None:
    before = (await api.http.get("/v1/approvals", headers=api.as_("ana"))).json()
    query = {"wait": "20", "after": before["version"]}
    waiting = asyncio.create_task(api.http.get("/v1/approvals", params=query, headers=api.as_("ana")))
    await asyncio.sleep(0)
    api.desk.put(stage.pending(stage.intent(7)))
    async with asyncio.timeout(5):
        assert len((await waiting).json()["approvals"]) == 2


async def test_waiting_ends_when_the_process_ends(api: Api) -> None:
    before = await api.show()
    query = {"wait": "20", "after": before["version"]}
    path = f"/v1/approvals/{api.row.intent_id}"
    waiting = asyncio.create_task(api.http.get(path, params=query, headers=api.as_("ana")))
    await asyncio.sleep(0)
    api.desk.close()
    async with asyncio.timeout(5):
        assert (await waiting).status_code == 200


async def test_what_people_found_out_about_an_unknown_ends_it(api: Api) -> None:
    row = stage.unknown()
    api.desk.put(row)
    assert row.grant
    path = f"/v1/approvals/{row.intent_id}/resolutions"
    body = {"grant": row.grant.digest, "found": "succeeded", "card": OTHER, "reason": "seen in the provider's log"}
    headers = {**api.as_("ana"), "Idempotency-Key": "key-00000001"}
    response = await api.http.post(path, json=body, headers=headers)
    assert (response.status_code, "expected_refusal" in response.json()) == (202, False)
    assert isinstance(api.desk.said[0], Resolution)
    held = api.desk.row(row.intent_id)
    assert held
    assert (held.row.phase, held.row.flagged) == (Phase.SUCCEEDED, True)
    by_owner = {**api.as_("dev"), "Idempotency-Key": "key-00000002"}
    api.desk.put(row)
    refused = await api.http.post(path, json=body, headers=by_owner)
    assert refused.json()["expected_refusal"] == "self_approval"
