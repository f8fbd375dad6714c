"""The gateway's side of the wire may be slow, wrong, somebody else's, or gone: no answer of it is worse than none."""

import asyncio
import base64
import gzip
import itertools
import json
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from http_by_hand import Request, Wire, serving

import keyturn
from keyturn import Phase, answers, ids, signing
from keyturn.client import AsyncClient, BearerAuthor, SigningAuthor
from keyturn.http import HttpTransport, base_of

KEY = keyturn.Key.from_seed(bytes(32))
BUCKET = ("bucket", "acme-customers")
REASON = "the partner asked for it"


def now() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def connected(url: str, *, patience: float = 0.3, quiet: float = 5.0) -> AsyncIterator[AsyncClient]:
    async def token() -> str:
        return signing.bearer(KEY, "reporter", "sandbox", int(time.time()), "nonce")

    numbers = itertools.count(1)
    maker = ids.IdMaker("reporter", now, lambda count: next(numbers).to_bytes(count, "big"))
    author = SigningAuthor("reporter", "sandbox", KEY, maker, now)
    async with AsyncClient(HttpTransport(url, token, patience=patience, quiet=quiet), author) as client:
        yield client


async def accept(request: Request, wire: Wire) -> None:
    """As the gateway answers an intent."""
    body = json.loads(request.body)
    answer = {"id": body["id"], "digest": answers_digest(request.body), "links": {"self": "http://elsewhere.example/"}}
    await wire.answer(202, json.dumps(answer).encode())


def answers_digest(value: bytes) -> str:
    from keyturn.canonical import digest

    return digest(value)


def said(intent_id: str, phase: str, at: int = 1, **more: Any) -> bytes:
    return json.dumps({"id": intent_id, "phase": phase, "updated_at": at, **more}).encode()


async def submit(client: AsyncClient) -> keyturn.AsyncIntent:
    return await client.submit("s3.export", BUCKET, {"n": 1}, reason=REASON)


# ---------------------------------------------------------------- what is sent


async def test_an_intent_is_sent_as_the_bytes_that_are_signed_and_without_a_token() -> None:
    async with serving(accept) as heard, connected(heard.url) as client:
        intent = await submit(client)

    (request,) = heard.requests
    assert (request.method, request.path) == ("POST", "/v1/intents")
    assert request.headers["content-type"] == "application/vnd.keyturn.intent.v1+json"
    assert request.headers["keyturn-keyid"] == KEY.keyid
    assert signing.verifies(KEY.public, "sandbox", "keyturn.intent.v1", request.body, request.headers["keyturn-sig"])
    assert json.loads(request.body)["id"] == intent.id
    assert "authorization" not in request.headers


async def test_reading_proves_who_asks_by_a_short_token_for_this_realms_gateway_alone() -> None:
    async def serve(request: Request, wire: Wire) -> None:
        await wire.answer(200, said(request.path.rpartition("/")[2], "pending", seats={"filled": 0, "wanted": 1}))

    intent_id = ids.intent_id("reporter", now(), bytes(10))
    async with serving(serve) as heard, connected(heard.url) as client:
        status = await client.intent(intent_id).status()

    assert status.phase is Phase.PENDING
    head, claims, sig = heard.requests[0].headers["authorization"].removeprefix("Bearer ").split(".")
    decoded = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, claims)]
    assert decoded[0] == {"alg": "EdDSA", "kid": KEY.keyid, "typ": "JWT"}
    assert decoded[1]["aud"] == "keyturn:sandbox:gateway"
    assert decoded[1]["iss"] == decoded[1]["sub"] == "reporter"
    assert 0 < decoded[1]["exp"] - decoded[1]["iat"] <= 300
    raw = base64.urlsafe_b64decode(sig + "==")
    assert KEY.sign(f"{head}.{claims}".encode()) == raw


async def test_an_agent_without_a_key_sends_a_form_with_its_token() -> None:
    intent_id = ids.intent_id("reporter", now(), bytes(10))

    async def serve(request: Request, wire: Wire) -> None:
        await wire.answer(202, json.dumps({"id": intent_id, "digest": "0" * 64}).encode())

    async def token() -> str:
        return "from-the-issuer"

    async with (
        serving(serve) as heard,
        AsyncClient(HttpTransport(heard.url, token, patience=0.3), BearerAuthor(lambda: "key-1")) as client,
    ):
        assert (await submit(client)).id == intent_id

    (request,) = heard.requests
    assert request.headers["authorization"] == "Bearer from-the-issuer"
    assert request.headers["idempotency-key"] == "key-1"
    assert set(json.loads(request.body)) == {"action", "resource", "context", "ttl"}


# ---------------------------------------------------------------- no answer, and a no


async def test_what_may_be_lost_is_sent_again_byte_for_byte() -> None:
    async def serve(request: Request, wire: Wire) -> None:
        match len(heard.requests):
            case 1:
                return  # closes without a word: it may have been recorded
            case 2:
                await wire.answer(503, b'{"detail": "starting"}', retry_after="0")
            case 3:
                await wire.answer(429, b"{}", retry_after="0")
            case _:
                await accept(request, wire)

    async with serving(serve) as heard, connected(heard.url, patience=10) as client:
        await submit(client)

    assert len({request.body for request in heard.requests}) == 1
    assert len(heard.requests) == 4


async def test_nobody_there_is_said_after_patience_with_the_id_to_go_on_with() -> None:
    async with serving(accept) as heard:
        url = heard.url
    async with connected(url) as client:
        with pytest.raises(keyturn.NoConnectionError, match="the same again is safe") as caught:
            await submit(client)

    assert caught.value.intent_id is not None
    assert caught.value.intent_id.startswith("reporter.")


async def test_an_outage_is_not_told_as_an_intent_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.client.FIRST_WORD_SECONDS", 0.2)
    async with serving(accept) as heard:
        url = heard.url
    async with connected(url, patience=0.1) as client:
        intent = client.intent("reporter.01M8D9Q5T0ABCDEFGHJKMNPQRS")
        with pytest.raises(keyturn.NoConnectionError) as caught:
            await intent.wait()

    assert caught.value.intent_id == intent.id


async def test_whatever_fails_after_submitting_names_the_intent() -> None:
    async def serve(request: Request, wire: Wire) -> None:
        if request.method == "POST":
            await accept(request, wire)
        else:
            await wire.answer(403, b"{}")

    async with serving(serve) as heard, connected(heard.url) as client:
        with pytest.raises(keyturn.NotAllowedError) as caught:
            await client.ask("s3.export", BUCKET, {"n": 1}, reason=REASON)

    assert caught.value.intent_id == json.loads(heard.requests[0].body)["id"]


@pytest.mark.parametrize("token", ["canary-4711\n", "canary-4711 x", "canary-4711\r\nX: y", "canary-4711é", ""])
async def test_a_token_that_cannot_be_sent_is_refused_and_not_quoted(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    async def source() -> str:
        return token

    async with serving(accept) as heard:
        client = AsyncClient(HttpTransport(heard.url, source, patience=0.1), BearerAuthor(lambda: "k" * 9))
        with pytest.raises(keyturn.ConfigurationError, match="strip") as caught:
            await client.actions()
        await client.aclose()

    assert heard.requests == []
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert "canary" not in caplog.text


async def test_a_refusal_at_the_door_is_a_value_with_places() -> None:
    problem = {
        "type": "urn:keyturn:problem:invalid",
        "status": 422,
        "detail": "the parameters do not fit",
        "errors": [{"path": "/action/properties/n", "message": "is not a string"}],
    }

    async def serve(_: Request, wire: Wire) -> None:
        await wire.answer(422, json.dumps(problem).encode(), "application/problem+json")

    async with serving(serve) as heard, connected(heard.url) as client:
        intent = await submit(client)
        outcome = await intent.wait()
        phases = [status.phase async for status in intent.events()]

    assert isinstance(outcome, keyturn.Refused)
    assert outcome.refusal == "bad_parameters"
    assert outcome.errors == (keyturn.FieldError("/action/properties/n", "is not a string"),)
    assert phases == [Phase.REFUSED]
    assert len(heard.requests) == 1


async def test_a_credential_that_is_not_accepted_says_what_to_check() -> None:
    async def serve(_: Request, wire: Wire) -> None:
        await wire.answer(401, b'{"detail": "kid names no key"}')

    async with serving(serve) as heard, connected(heard.url) as client:
        with pytest.raises(keyturn.NotAllowedError, match=r"kid names no key.*directory"):
            await submit(client)
        with pytest.raises(keyturn.NotAllowedError):
            await client.intent(ids.intent_id("reporter", now(), bytes(10))).wait()


# ---------------------------------------------------------------- waiting


async def test_waiting_goes_on_through_lost_streams_and_answers() -> None:
    intent_id = ids.intent_id("reporter", now(), bytes(10))
    streams = itertools.count(1)
    last_ids: list[str | None] = []

    async def serve(request: Request, wire: Wire) -> None:
        if request.path != "/v1/events":
            await wire.answer(200, said(intent_id, "pending", 1))
            return
        last_ids.append(request.headers.get("last-event-id"))
        match next(streams):
            case 1:
                await wire.stream()
                await wire.raw(b"retry: 10\nid: 3-7\n\ndata: " + said(intent_id, "approved", 2) + b"\nid: 3-8\n\n")
            case 2:
                await wire.answer(502, b"<html>bad gateway</html>")
            case 3:
                return
            case _:
                await wire.stream()
                event = (
                    b": still here\n\nevent: phase\r\ndata: "
                    + said(intent_id, "succeeded", 3, reason="copied")
                    + b"\r\n\r\n"
                )
                for byte in event:
                    await wire.raw(bytes([byte]))
                await asyncio.Event().wait()

    async with serving(serve) as heard, connected(heard.url, patience=10) as client:
        async with asyncio.timeout(60):
            phases = [status.phase async for status in client.intent(intent_id).events()]
            assert await client.intent(intent_id).wait() == keyturn.Succeeded(
                keyturn.Receipt("copied"), intent=intent_id, at=3
            )

    assert phases == [Phase.PENDING, Phase.APPROVED, Phase.SUCCEEDED]
    assert last_ids[:4] == [None, "3-8", "3-8", "3-8"]


async def test_one_stream_serves_all_who_wait() -> None:
    async def serve(request: Request, wire: Wire) -> None:
        if request.path == "/v1/events":
            await wire.stream()
            await released.wait()
            await wire.raw(b"".join(b"data: " + said(each, "denied", 2) + b"\n\n" for each in intent_ids))
            await asyncio.Event().wait()
        else:
            asked.add(request.path.rpartition("/")[2])
            if len(asked) == len(intent_ids):
                released.set()
            await wire.answer(200, said(request.path.rpartition("/")[2], "pending", 1))

    intent_ids = [ids.intent_id("reporter", now(), bytes([number]) * 10) for number in range(20)]
    asked: set[str] = set()
    released = asyncio.Event()
    async with serving(serve) as heard, connected(heard.url) as client, asyncio.timeout(60):
        outcomes = await asyncio.gather(*(client.intent(each).wait() for each in intent_ids))

    assert {type(outcome) for outcome in outcomes} == {keyturn.Denied}
    assert sum(request.path == "/v1/events" for request in heard.requests) == 1


async def test_a_stream_that_is_kept_back_or_refused_does_not_keep_the_news_back() -> None:
    intent_id = ids.intent_id("reporter", now(), bytes(10))
    looks = itertools.count(1)

    async def serve(request: Request, wire: Wire) -> None:
        if request.path == "/v1/events":
            if next(looks) > 1:
                await wire.answer(429, b"{}")
            else:
                await wire.stream()  # and then nothing: a proxy holds it
                await asyncio.Event().wait()
        else:
            await wire.answer(200, said(intent_id, "pending" if next(looks) < 6 else "failed", next(looks)))

    async with serving(serve) as heard, connected(heard.url, quiet=0.05) as client, asyncio.timeout(60):
        assert isinstance(await client.intent(intent_id).wait(), keyturn.Failed)


async def test_news_that_overtakes_is_not_undone_by_what_is_older() -> None:
    intent_id = ids.intent_id("reporter", now(), bytes(10))
    told = asyncio.Event()

    async def serve(request: Request, wire: Wire) -> None:
        if request.path == "/v1/events":
            await wire.stream()
            await wire.raw(b"data: " + said(intent_id, "approved", 5) + b"\n\n")
            await told.wait()
            await wire.raw(b"data: " + said(intent_id, "pending", 4) + b"\n\n")
            await wire.raw(b"data: " + said(intent_id, "denied", 6) + b"\n\n")
            await asyncio.Event().wait()
        else:
            await wire.answer(404, b"{}")

    phases = []
    async with serving(serve) as heard, connected(heard.url) as client, asyncio.timeout(60):
        async for status in client.intent(intent_id).events():
            phases.append(status.phase)
            told.set()

    assert phases == [Phase.APPROVED, Phase.DENIED]


# ---------------------------------------------------------------- a hostile one


HOSTILE = {
    "garbage": b"\x00\xff\xfe not json",
    "another shape": b"[1, 2]",
    "no members": b"{}",
    "a phase nobody knows": b'{"id": "ID", "phase": "executed_twice"}',
    "another's intent": b'{"id": "mallory.01KDWPVNG0000G40R40M30E209", "phase": "succeeded"}',
    "nested beyond reason": b'{"id":' * 100_000,
    "huge": b'{"id": "' + b"x" * (answers.MAX_ANSWER + 1) + b'"}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_an_answer_that_cannot_be_meant_is_not_believed(body: bytes) -> None:
    intent_id = ids.intent_id("reporter", now(), bytes(10))

    async def serve(request: Request, wire: Wire) -> None:
        told = body.replace(b"ID", intent_id.encode())
        if request.path == "/v1/events":
            await wire.stream()
            await wire.raw(b"data: " + told + b"\n\n")
        else:
            await wire.answer(200, told)

    async with serving(serve) as heard, connected(heard.url) as client, asyncio.timeout(60):
        with pytest.raises(keyturn.AnswerError):
            await client.intent(intent_id).status()
        with pytest.raises(keyturn.AnswerError):
            await client.intent(intent_id).wait()
        with pytest.raises(keyturn.AnswerError):
            await submit(client)


async def test_an_event_without_an_end_is_cut_off() -> None:
    async def serve(request: Request, wire: Wire) -> None:
        if request.path == "/v1/events":
            await wire.stream()
            while True:
                await wire.raw(b"data: " + b"x" * 65_536 + b"\n")
        else:
            await wire.answer(404, b"{}")

    async with serving(serve) as heard, connected(heard.url) as client, asyncio.timeout(60):
        with pytest.raises(keyturn.AnswerError, match="more than"):
            await client.intent(ids.intent_id("reporter", now(), bytes(10))).wait()


async def test_a_small_answer_does_not_unpack_into_a_large_one() -> None:
    async def serve(_: Request, wire: Wire) -> None:
        await wire.answer(200, gzip.compress(b" " * 50_000_000), content_encoding="gzip")

    async with serving(serve) as heard, connected(heard.url) as client:
        with pytest.raises(keyturn.AnswerError, match="not JSON"):
            await submit(client)
    assert heard.requests[0].headers["accept-encoding"] == "identity"


async def test_an_answer_that_drips_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.http.ANSWER_SECONDS", 0.2)

    async def serve(_: Request, wire: Wire) -> None:
        await wire.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await wire.raw(b" ")
            await asyncio.sleep(0.01)

    async with serving(serve) as heard, connected(heard.url) as client, asyncio.timeout(60):
        with pytest.raises(keyturn.NoConnectionError):
            await submit(client)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_so_that_no_token_goes_elsewhere(status: int) -> None:
    intent_id = ids.intent_id("reporter", now(), bytes(10))

    async with serving(accept) as elsewhere:

        async def serve(request: Request, wire: Wire) -> None:
            await wire.answer(status, b"", location=f"{elsewhere.url}{request.path}")

        async with serving(serve) as heard, connected(heard.url) as client, asyncio.timeout(60):
            for ask in (client.intent(intent_id).status, client.intent(intent_id).wait, client.actions):
                with pytest.raises(keyturn.AnswerError, match="goes to no other host"):
                    await ask()
            with pytest.raises(keyturn.AnswerError, match="goes to no other host"):
                await submit(client)

        assert elsewhere.requests == []


async def test_a_proxy_never_sees_what_is_not_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(accept) as proxy, serving(accept) as heard:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        async with connected(heard.url) as client:
            await submit(client)

        assert proxy.requests == []


async def test_an_acknowledgement_of_something_else_is_not_believed() -> None:
    async def serve(request: Request, wire: Wire) -> None:
        await wire.answer(202, json.dumps({"id": json.loads(request.body)["id"], "digest": "0" * 64}).encode())

    async with serving(serve) as heard, connected(heard.url) as client:
        with pytest.raises(keyturn.AnswerError, match="another intent"):
            await submit(client)


@pytest.mark.parametrize(
    "url",
    [
        "http://keyturn.example.com",
        "http://10.0.0.1",
        "https://reporter:secret@keyturn.example.com",
        "https://keyturn.example.com?token=secret",
        "https://",
        "ftp://keyturn.example.com",
        "keyturn.example.com",
        "keyturn.example.com?token=secret",
        "reporter:secret@keyturn.example.com",
        "https://reporter:secret@",
        "https://reporter:secret@keyturn.example.com:port",
        "https://reporter:secret@[::1",
        "https://keyturn.example.com:99999",
    ],
)
def test_a_url_that_would_give_a_credential_away_is_refused(url: str) -> None:
    with pytest.raises(keyturn.ConfigurationError) as caught:
        base_of(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_url_may_end_in_a_slash_or_have_a_prefix() -> None:
    assert base_of("https://keyturn.example.com//") == base_of("https://keyturn.example.com")
    assert base_of("https://keyturn.example.com/keyturn").path == "/keyturn/"


async def test_nothing_but_an_id_goes_into_a_path() -> None:
    async with serving(accept) as heard, connected(heard.url) as client:
        with pytest.raises(keyturn.UnknownIntentError):
            await client.transport.status("../../admin")

    assert heard.requests == []
