"""The health of a role, asked by the patient, the rude and the silent."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from streams import health as module
from streams.health import Health


@pytest_asyncio.fixture
async def health() -> AsyncIterator[Health]:
    async with Health(0) as made:
        yield made


async def sent(health: Health, request: bytes) -> bytes:
    """The whole answer to these bytes; the client writes no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", health.port)
    writer.write(request)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def asked(health: Health, path: str, method: str = "GET") -> tuple[int, bytes]:
    head, _, body = (await sent(health, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_role_is_live_at_once_and_ready_when_nothing_is_waited_for(health: Health) -> None:
    assert await asked(health, "/livez") == (200, b'{"live":true}')
    status, body = await asked(health, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "waiting_for": {"start": "starting"}})
    health.waits_for("kafka", "connecting")
    health.waits_for("world", "reading")
    health.has("kafka")
    status, body = await asked(health, "/readyz")
    assert (status, json.loads(body)["waiting_for"]) == (503, {"world": "reading"})
    health.has("world")
    status, body = await asked(health, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "waiting_for": {}})
    health.waits_for("partition-3", "restoring")
    assert (await asked(health, "/readyz"))[0] == 503


async def test_a_head_request_gets_the_same_without_the_body(health: Health) -> None:
    assert await asked(health, "/livez", "HEAD") == (200, b"")
    assert await asked(health, "/readyz", "HEAD") == (503, b"")
    answer = await sent(health, b"HEAD /livez HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 13\r\n" in answer


@pytest.mark.parametrize("request_", [("/", "GET"), ("/livez", "POST"), ("/readyz/", "GET"), ("/livez%00", "GET")])
async def test_whatever_else_is_asked_is_not_found(health: Health, request_: tuple[str, str]) -> None:
    assert await asked(health, *request_) == (404, b"{}")


@pytest.mark.parametrize(
    "garbage",
    [b"\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET /livez" + b"x" * 100_000 + b"\r\n\r\n"],
    ids=["nothing", "TLS", "half a line", "a line without end"],
)
async def test_garbage_is_turned_away_and_the_next_is_served(health: Health, garbage: bytes) -> None:
    try:
        answer = await sent(health, garbage)
    except ConnectionError:
        answer = b""
    assert b"200 OK" not in answer
    assert await asked(health, "/livez") == (200, b'{"live":true}')


async def test_slow_clients_delay_nobody_and_are_sent_away(health: Health) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", health.port) for _ in range(20)]
    for _, writer in slow:
        writer.write(b"GET /livez HT")
    assert await asked(health, "/livez") == (200, b'{"live":true}')
    async with asyncio.timeout(3 * module.TIMEOUT_SECONDS):
        assert {await reader.read() for reader, _ in slow} == {b""}
    for _, writer in slow:
        writer.close()
        await writer.wait_closed()


async def test_it_listens_on_loopback_alone_and_lets_go_of_its_port() -> None:
    async with Health(0) as first:
        port = first.port
        assert first._server is not None
        assert {each.getsockname()[0] for each in first._server.sockets} == {"127.0.0.1"}
    async with Health(port) as second:
        assert (await asked(second, "/livez"))[0] == 200
