"""What a caller does never fills the log: no traceback, no 5xx, and of broken requests one calm line a while."""

import asyncio
import base64
import contextlib
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from streams.http import guards, serving
from tests.broker.builders import signer
from tests.gateway.stage import BODY, Door
from tests.gateway.test_serving import head, listening, sent, until_real

DEEP = 1500
"""Deeper than JSON is read here, within what a token may be long."""


@pytest.fixture
async def port(door: Door, caplog: pytest.LogCaptureFixture) -> AsyncIterator[int]:
    """A gateway on a real socket; when it has ended, its log is calm."""
    caplog.set_level(logging.INFO)
    async with listening(door) as number:
        yield number
    assert_calm(caplog)


def assert_calm(caplog: pytest.LogCaptureFixture) -> None:
    said = [*caplog.get_records("call"), *caplog.records]
    loud = [(each.name, each.getMessage(), each.exc_text) for each in said if each.levelno > logging.WARNING]
    assert loud == []
    assert [each.getMessage() for each in said if each.exc_info] == []
    statuses = [each.__dict__["status"] for each in said if each.name == guards.log.name]
    assert [status for status in statuses if status >= 500] == []


def requests(caplog: pytest.LogCaptureFixture) -> int:
    return sum(each.name == guards.log.name for each in caplog.records)


async def gone(port: int, asked: bytes) -> None:
    """Say this and break the connection: no goodbye, a reset."""
    raw = socket.socket()
    raw.setblocking(False)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(raw, asked)
    await asyncio.sleep(0)
    raw.close()


async def test_whoever_leaves_in_the_middle_of_a_body_leaves_no_traceback(
    door: Door, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    for turn in range(1, 4):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(door, "Content-Length: 400") + b'{"action"')
        await writer.drain()
        writer.close()
        await until_real(lambda turn=turn: requests(caplog) == turn)
    await gone(port, head(door, "Transfer-Encoding: chunked") + b"9\r\n{")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/healthz")).status_code == 200


async def test_whoever_leaves_a_stream_or_a_long_poll_leaves_no_traceback(door: Door, port: int) -> None:
    intent = door.intent()
    await door.submit(intent)
    token = door.own("bot")["Authorization"]
    for path in ("/v1/events", f"/v1/intents/{intent.id}/events", f"/v1/intents/{intent.id}?wait=60"):
        asked = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked)
        await writer.drain()
        await until_real(lambda: door.gateway._crowd._held.get("bot") == 1)
        writer.close()
        if "wait" not in path:
            await until_real(lambda: not door.gateway._crowd._held.get("bot"))
        await gone(port, asked)


async def test_a_stream_is_not_begun_for_whom_sends_a_body_with_its_question(door: Door, port: int) -> None:
    token = door.own("bot")["Authorization"]
    intent = door.intent()
    await door.submit(intent)
    for lines in ("Content-Length: 400", "Transfer-Encoding: chunked"):
        for path in ("/v1/events", f"/v1/intents/{intent.id}/events"):
            asked = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{lines}\r\n\r\n".encode()
            answer = await sent(port, asked)
            assert answer.startswith(b"HTTP/1.1 400"), answer
            assert b"a GET has no body" in answer


def odd_tokens() -> list[str]:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    key = signer("bot")
    headers: list[Any] = [
        {"alg": "EdDSA", "typ": "JWT", "kid": key.keyid},
        {"alg": "EdDSA", "typ": "JWT", "kid": "\ud800"},
        {"alg": "EdDSA", "typ": [], "kid": {}},
        {"alg": ["EdDSA"]},
        {"alg": None},
        {"alg": "RS256", "typ": "at+jwt", "kid": "x", "crit": ["b64"], "b64": False},
        {"alg": "RS256", "typ": "at+jwt", "kid": "\ud800"},
        {"alg": "none", "typ": "at+jwt", "kid": "x"},
        [],
        None,
        1,
    ]
    heads = [part(json.dumps(each).encode()) for each in headers]
    heads += [
        part(b"[" * DEEP),
        part(b'{"a":' * DEEP),
        part(b"\xff\xfe"),
        part(b'{"alg":"EdDSA","n":' + b"9" * 2000 + b"}"),
    ]
    texts = [f"{each}.{payload}.{part(b'x' * 64)}" for each in heads for payload in ("e30", part(b"[" * DEEP))]
    # Its own agent can sign anything.
    for payload in (b"[" * DEEP, b"[]", b"null", b'{"exp":1e999,"iat":NaN}', b'{"iss":"\\ud800"}', b"\xff"):
        signed = f"{heads[0]}.{part(payload)}"
        texts.append(f"{signed}.{part(key.key.sign(signed.encode()))}")
    return [*texts, "a", ".", "..", "...", "a.b.c", "é.é.é", "\xff" * 50, "x" * 9000, "e30.e30.", "a b"]


async def test_no_token_is_a_fault_of_ours(door: Door, port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for token in odd_tokens():
            answer = await http.get("/v1/intents", headers=[(b"Authorization", b"Bearer " + token.encode("latin-1"))])
            assert answer.status_code == 401, (token, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"


NAMES = ("\ud800", "a\ud800/~", "\x00", "\u202e", "x" * 3000, "", "é", "\U0001f600")


def odd_bodies() -> list[bytes]:
    made: list[Any] = [None, [], 1, "\ud800"]
    for name in NAMES:
        made += [
            {**BODY, name: 1},
            {**BODY, "action": {"name": "s3.copy", "properties": {"bucket": "reports", name: "x"}}},
            {**BODY, "action": {"name": name, "properties": {}}},
            {**BODY, "action": {"name": "s3.copy", "properties": {"bucket": name}}},
            {**BODY, "resource": {"type": name, "id": name}},
            {**BODY, "context": {"reason": name}},
            {**BODY, "id": name},
        ]
    return [
        *(json.dumps(each).encode() for each in made),
        b"[" * 20_000,
        b'{"a":' * 5000,
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"1" * 9000,
    ]


async def test_no_body_is_a_fault_of_ours(door: Door, port: int) -> None:
    door.gateway._asks = type(door.gateway._asks)(100_000, lambda: 0.0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for body in odd_bodies():
            for path in ("/v1/intents", "/v1/check", f"/v1/intents/{door.intent().id}/withdraw"):
                kinds = [door.as_("ben") | {"Content-Type": "application/json"}, door.sealed(door.intent(), "bot")]
                for headers in kinds:
                    answer = await http.post(path, content=body, headers=headers)
                    assert answer.status_code < 500, (path, body[:200], answer.text)
                    if answer.status_code >= 400:
                        assert answer.json()["type"].startswith("urn:keyturn:problem:")


TARGETS = (
    b"/v1/intents/%ff%00",
    b"/v1/intents/%ed%a0%80/events",
    b"/v1/intents?phase=%ed%a0%80",
    b"/v1/intents?after=%00",
    b"/v1/intents?limit=" + b"9" * 5000,
    b"/v1/intents/x?wait=nan",
    b"/v1/intents/x?wait=1e999",
    b"/v1/intents?&&=&",
    b"*",
    b"http://other/v1/intents",
    b"//",
    b"/v1/intents/" + b"x" * 9000,
    b"/%0d%0a",
)


async def test_no_path_or_query_is_a_fault_of_ours(door: Door, port: int) -> None:
    token = door.own("bot")["Authorization"].encode()
    for target in TARGETS:
        for method in (b"GET", b"POST", b"OPTIONS", b"HEAD", b"BREW"):
            asked = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + token
            answer = await sent(port, asked + b"\r\nLast-Event-ID: \xff-\xfe\r\nIdempotency-Key: \xff\r\n\r\n")
            assert answer[:12] < b"HTTP/1.1 500", (method, target, answer[:300])


BROKEN = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
)


async def test_of_many_requests_that_are_no_http_one_line_is_written(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    for garbage in BROKEN * 10:
        with contextlib.suppress(ConnectionError):
            await sent(port, garbage)
    warned = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert warned == ["Invalid HTTP request received."]


async def test_what_is_no_websocket_here_is_not_warned_of_each_time(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (
        b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    )
    for _ in range(10):
        answer = await sent(port, b"GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lines + b"\r\n")
        assert answer[:12] < b"HTTP/1.1 500"
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) <= 2


def test_a_warning_is_said_again_after_a_while_with_how_many_were_left_out() -> None:
    clock = [0.0]
    seldom = serving.Seldom(lambda: clock[0])

    def said(level: int, text: str) -> str | None:
        record = logging.LogRecord("uvicorn.error", level, "", 0, text, None, None)
        return record.getMessage() if seldom.filter(record) else None

    assert [said(logging.WARNING, "broken") for _ in range(3)] == ["broken", None, None]
    assert said(logging.WARNING, "full") == "full"
    assert [said(logging.ERROR, "ours") for _ in range(2)] == ["ours", "ours"]
    clock[0] = serving.CALM_SECONDS
    assert [said(logging.WARNING, "broken") for _ in range(2)] == ["broken (2 more since this was said last)", None]
