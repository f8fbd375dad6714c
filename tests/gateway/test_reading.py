"""What a requester sees of its own: every phase, every refusal and quarantine, and nobody's names."""

import asyncio
import base64
import re
from typing import Any

import httpx
import pytest

from gateway.book import Changes
from gateway.events import event_id, marks_of
from gateway.flood import Crowd, Flood
from gateway.ledger import KEPT_MS, Marks
from schemas import canonical
from schemas.record import state
from schemas.records import Context, Outcome, Phase, Quarantined, Receipt, Refusal, Result, Round, Source
from schemas.snapshots import Directory
from tests.broker import builders
from tests.broker.builders import REALM, T0, signer
from tests.gateway import stage
from tests.gateway.stage import Door, until


def quarantined(intent_id: str, place: Source, refusal: Refusal = Refusal.MALFORMED, **more: Any) -> Quarantined:
    members: dict[str, Any] = {
        "source": place,
        "stage": "intake",
        "refusal": refusal,
        "reason": "not in canonical form",
        "sha256": canonical.digest(b"x"),
        "bytes": 1,
        "key": base64.b64encode(intent_id.encode()).decode(),
    }
    return Quarantined.model_validate(members | more)


async def test_it_is_submitted_until_the_core_has_a_row_and_then_whatever_the_row_says(door: Door) -> None:
    intent = door.intent()
    assert (await door.show(intent.id)).status_code == 404
    await door.submit(intent)
    first = (await door.show(intent.id)).json()
    assert (first["phase"], first["is_final"], first["digest"]) == ("submitted", False, intent.digest)
    door.book.answer(intent, Phase.PENDING, expires_at=T0 + 600_000)
    second = (await door.show(intent.id)).json()
    assert (second["phase"], second["seats"], second["deadline"]) == (
        "pending",
        {"filled": 0, "wanted": 1},
        T0 + 600_000,
    )
    assert second["version"] != first["version"]


async def test_a_refusal_is_shown_with_its_reason(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    door.book.answer(intent, Phase.REFUSED, refusal=Refusal.OVERLOADED, reason="too many wait already", ended_at=T0)
    shown = (await door.show(intent.id)).json()
    assert (shown["phase"], shown["is_final"]) == ("refused", True)
    assert (shown["refusal"], shown["reason"]) == ("overloaded", "too many wait already")


async def test_an_outcome_is_shown_with_its_receipt(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    outcome = Outcome(
        intent=intent.id,
        grant="0" * 64,
        instance="i-1",
        executor="s3",
        result=Result.SUCCEEDED,
        receipt=Receipt(summary="Copied 3 objects.", requests=("req-1",)),
        undo="delete them",
    )
    door.book.answer(intent, Phase.SUCCEEDED, outcome=state(outcome, signer("s3"), REALM), ended_at=T0)
    shown = (await door.show(intent.id)).json()["outcome"]
    assert (shown["result"], shown["summary"], shown["undo"]) == ("succeeded", "Copied 3 objects.", "delete them")
    assert shown["receipt"]["requests"] == ["req-1"]


async def test_nobody_who_may_be_asked_or_said_yes_is_named(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    door.book.answer(intent, Phase.PENDING, circle=("ada", "ben", "cat"))
    text = (await door.show(intent.id)).text
    check = await door.http.post("/v1/check", json=stage.BODY, headers=door.own("bot"))
    for name in ("ada", "ben", "cat", "dan", "sre", "group"):
        assert not re.search(rf"\b{name}\b", text + check.text), name


async def test_a_quarantine_is_shown_to_whose_id_it_came_under_and_to_nobody_else(door: Door) -> None:
    intent = door.intent()
    made = (await door.submit(intent)).json()
    place = Source(topic="intents", partition=made["partition"], offset=made["offset"])
    door.book.quarantine(quarantined(intent.id, place))
    shown = (await door.show(intent.id)).json()
    assert (shown["phase"], shown["is_final"], shown["refusal"]) == ("quarantined", True, "malformed")
    assert shown["quarantined"][0]["offset"] == made["offset"]
    assert (await door.show(intent.id, "twin")).status_code == 404


async def test_a_record_that_never_came_through_here_is_shown_too(door: Door) -> None:
    intent = door.intent()
    partition = door.book.place_of("bot")
    door.book.quarantine(quarantined(intent.id, Source(topic="intents", partition=partition, offset=9)))
    assert (await door.show(intent.id)).json()["phase"] == "quarantined"
    # It pins nothing: the requester may still ask under this id, and then that is what counts.
    assert (await door.submit(intent)).status_code == 202
    later = (await door.show(intent.id)).json()
    assert (later["phase"], len(later["quarantined"])) == ("submitted", 1)
    door.book.answer(intent, Phase.PLANNING)
    assert (await door.show(intent.id)).json()["phase"] == "planning"


async def test_a_quarantine_that_no_stage_signed_or_that_names_no_intent_shows_nothing(door: Door) -> None:
    intent, place = door.intent(), Source(topic="intents", partition=door.book.place_of("bot"), offset=9)
    door.book.quarantine(quarantined(intent.id, place), by="twin")
    door.book.quarantine(quarantined(intent.id, place, key=None))
    door.book.quarantine(quarantined(intent.id, place.model_copy(update={"topic": "reports"})))
    door.book.quarantine(quarantined(intent.id, place, key=base64.b64encode(b"\xff\x00").decode()))
    assert (await door.show(intent.id)).status_code == 404


async def test_a_row_that_the_core_did_not_sign_is_never_shown_as_one(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    row = door.book.answer(intent, Phase.PENDING)
    door.book.put(row.model_copy(update={"phase": Phase.SUCCEEDED}), by="intake")
    answer = await door.show(intent.id)
    assert (answer.status_code, answer.json()["type"]) == (502, "urn:keyturn:problem:integrity")
    # Its neighbours are shown all the same.
    await door.submit(door.intent(2))
    listed = (await door.http.get("/v1/intents", headers=door.own("bot"))).json()["items"]
    assert [each["id"] for each in listed] == [door.intent(2).id]
    assert [door.intent(2).id in event["data"] for event in await told(door, "/v1/events") if "data" in event] == [True]


async def test_the_list_is_ones_own_newest_first_by_phase_and_page(door: Door) -> None:
    for number in range(1, 6):
        door.clock[0] += 1000
        intent = door.intent(number)
        await door.submit(intent)
        door.book.answer(intent, Phase.PENDING if number % 2 else Phase.DENIED)
    await door.submit(door.intent(1, "twin"), "twin")
    headers = door.own("bot")
    whole = (await door.http.get("/v1/intents", headers=headers)).json()
    assert [each["id"][-2:] for each in whole["items"]] == ["05", "04", "03", "02", "01"]
    assert "next" not in whole
    first = (await door.http.get("/v1/intents?limit=2&phase=pending", headers=headers)).json()
    rest = (await door.http.get(f"/v1/intents?phase=pending&after={first['next']}", headers=headers)).json()
    assert [each["id"][-2:] for each in (*first["items"], *rest["items"])] == ["05", "03", "01"]


async def test_a_long_poll_answers_when_the_phase_changes_or_it_has_ended(door: Door) -> None:
    intent = door.intent()
    waiting = asyncio.ensure_future(door.show(intent.id, wait="20"))
    await asyncio.sleep(0)
    await door.submit(intent)
    assert (await waiting).json()["phase"] == "submitted"
    polls = [asyncio.ensure_future(door.show(intent.id, wait="20", **more)) for more in ({}, {"until": "final"})]
    await until(lambda: door.gateway._crowd._held.get("bot") == 2)
    door.book.answer(intent, Phase.PENDING)
    assert (await polls[0]).json()["phase"] == "pending"
    assert not polls[1].done()
    door.book.answer(intent, Phase.DENIED)
    assert (await polls[1]).json()["phase"] == "denied"
    version = (await door.show(intent.id)).json()["version"]
    assert (await door.show(intent.id, wait="0.01", after=version)).json()["version"] == version
    assert door.gateway._crowd._held == {}


# ---------------------------------------------------------------- events


def parsed(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")) for block in blocks]


async def told(door: Door, path: str, who: str = "bot", last: str | None = None) -> list[dict[str, str]]:
    """The events of a stream that ends when the process does."""
    headers = door.reading(who) | ({"Last-Event-ID": last} if last else {})
    reading = asyncio.ensure_future(door.http.get(path, headers=headers))
    await until(lambda: reading.done() or door.book.changes._watchers)
    door.book.changes.close()
    answer = await reading
    door.book.changes = Changes()
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parsed(answer.text)


async def test_a_stream_tells_what_is_open_and_goes_on_exactly_where_its_reader_left_off(door: Door) -> None:
    first, second, ended = (door.intent(number) for number in (1, 2, 3))
    for each in (first, second, ended):
        await door.submit(each)
    door.book.answer(ended, Phase.DENIED)
    begun = await told(door, "/v1/events")
    assert "data" not in begun[0]
    assert [first.id in begun[1]["data"], second.id in begun[2]["data"]] == [True, True]
    assert len(begun) == 3
    # Of several at once only the last says where to go on from.
    assert ("id" in begun[1], "id" in begun[2]) == (False, True)
    at = begun[2]["id"]
    assert [event for event in await told(door, "/v1/events", last=at) if "data" in event] == []
    door.book.answer(second, Phase.PENDING)
    await door.submit(door.intent(4, "twin"), "twin")
    [event] = [event for event in await told(door, "/v1/events", last=at) if "data" in event]
    assert (event["event"], second.id in event["data"], '"phase":"pending"' in event["data"]) == ("phase", True, True)


async def test_a_restarted_process_and_another_one_go_on_where_the_first_was(
    door: Door, login: httpx.AsyncClient
) -> None:
    intent, other = door.intent(1), door.intent(2)
    for each in (intent, other):
        await door.submit(each)
        door.book.answer(each, Phase.PLANNING)
    at = (await told(door, "/v1/events"))[-1]["id"]
    door.book.answer(intent, Phase.PENDING)
    door.book.answer(intent, Phase.APPROVED)
    fresh = stage.over(door.book.restarted(), door.issuer, login)
    async with fresh.http:
        events = [event for event in await told(fresh, "/v1/events", last=at) if "data" in event]
        assert len(events) == 1
        assert '"phase":"approved"' in events[0]["data"]
        # Whoever is further on than this process hears nothing twice.
        assert [e for e in await told(fresh, "/v1/events", last=events[0]["id"]) if "data" in e] == []


async def test_the_stream_of_one_intent_ends_with_it_and_is_not_asked_for_again(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    reading = asyncio.ensure_future(door.http.get(f"/v1/intents/{intent.id}/events", headers=door.own("bot")))
    await until(lambda: door.book.changes._watchers)
    door.book.answer(intent, Phase.DENIED)
    events = parsed((await reading).text)
    assert '"phase":"denied"' in events[-1]["data"]
    headers = door.own("bot") | {"Last-Event-ID": events[-1]["id"]}
    again = await door.http.get(f"/v1/intents/{intent.id}/events", headers=headers)
    assert again.status_code == 204
    assert door.gateway._crowd._held == {}


async def test_a_last_event_id_that_is_nobodys_begins_anew(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    other = (door.book.place_of("bot") + 1) % stage.PARTITIONS
    for last in ("nonsense", f"{other}-9-9-9", "-1-1-1-1", "9" * 400, f"{door.book.place_of('bot')}-1-1"):
        events = await told(door, "/v1/events", last=last)
        assert any(intent.id in event.get("data", "") for event in events), last


async def test_a_stream_ends_when_its_token_does_or_its_caller_is_no_longer_let_in(door: Door) -> None:
    async def reading() -> asyncio.Future[httpx.Response]:
        task = asyncio.ensure_future(door.http.get("/v1/events", headers=door.own("bot")))
        await until(lambda: door.book.changes._watchers)
        return task

    stream = await reading()
    door.clock[0] += 300_000
    door.book.changes.tell(door.intent().id)
    assert (await stream).status_code == 200
    stream = await reading()
    await door.submit(door.intent(5))
    door.book.world = builders.changed(
        door.book.world, Directory, agents=builders.agents_with("bot", is_active=False), keys=builders.KEYS
    )
    door.book.answer(door.intent(5), Phase.PENDING)
    assert '"phase":"pending"' not in (await stream).text


async def test_streams_are_bounded_each_and_together(issuer: Any, login: httpx.AsyncClient) -> None:
    door = stage.a_door(issuer, login, [T0], streams_each=2, streams=3)
    async with door.http:
        held = [
            asyncio.ensure_future(door.http.get("/v1/events", headers=door.reading(who)))
            for who in ("bot", "bot", "ben")
        ]
        await until(lambda: door.gateway._crowd._sum == 3)
        mine = await door.http.get("/v1/events", headers=door.own("bot"))
        assert (mine.status_code, mine.headers["retry-after"]) == (429, "5")
        assert (await door.http.get("/v1/events", headers=door.own("twin"))).status_code == 503
        door.book.changes.close()
        await asyncio.gather(*held)
        assert door.gateway._crowd._sum == 0


# ---------------------------------------------------------------- small parts


def test_an_event_id_is_a_place_on_the_log_and_reads_back() -> None:
    marks = Marks(pending=7, intents=3, quarantine=0)
    assert marks_of(event_id(2, marks), 2) == marks
    assert marks_of(event_id(2, marks), 1) is None
    assert marks.joined(Marks(1, 9, 2)) == Marks(7, 9, 2)
    assert not marks.is_within(Marks(7, 2, 0))


def test_a_bucket_fills_again_and_a_crowd_empties() -> None:
    now = [0.0]
    flood = Flood(1, lambda: now[0])
    assert [flood.wait_for("a") for _ in range(5)] == [0.0] * 5
    assert flood.wait_for("a") == 1.0
    assert flood.wait_for("b") == 0.0
    now[0] = 2.0
    assert [flood.wait_for("a") for _ in range(3)] == [0.0, 0.0, 1.0]
    crowd = Crowd(1, 2)
    crowd.enter("a")
    assert (crowd.admits("a"), crowd.admits("b"), crowd.is_full) == (False, True, False)
    crowd.leave("a")
    assert crowd.admits("a")


async def test_what_never_got_a_row_is_forgotten_after_the_window_and_no_row_ever_is(door: Door) -> None:
    lost, kept = door.intent(1), door.intent(2)
    await door.submit(lost)
    await door.submit(kept)
    door.book.answer(kept, Phase.PENDING)
    door.book.ledger.forget_before(T0 + 1)
    assert (await door.show(lost.id)).status_code == 404
    assert (await door.show(kept.id)).status_code == 200
    assert KEPT_MS > 24 * 3600 * 1000


@pytest.mark.parametrize("reason", ["\u202eevil", "<script>", "a" * 2000])
async def test_a_requesters_own_words_come_back_as_json_and_nothing_else(door: Door, reason: str) -> None:
    intent = door.intent(context=Context(reason=reason))
    assert (await door.submit(intent)).status_code == 202
    asked = Round(intent=intent.id, number=1, opened=Source(topic="classified", partition=0, offset=1))
    door.book.answer(intent, Phase.DENIED, reason=reason, round=asked)
    answer = await door.show(intent.id)
    assert answer.json()["reason"] == reason
    assert answer.headers["x-content-type-options"] == "nosniff"
