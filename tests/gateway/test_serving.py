"""The gateway on real sockets: who keeps it waiting, sends two meanings, or does not read, is cut off, alone."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.app import make_app
from gateway.settings import GatewaySettings
from schemas.records import Phase
from streams.http import guards, serving
from streams.http.serving import BoundedProtocol
from tests.gateway.stage import Door


@contextlib.asynccontextmanager
async def listening(door: Door) -> AsyncIterator[int]:
    """The port."""
    ports: list[int] = []
    stop = asyncio.Event()
    server = serving.server(make_app(door.gateway), GatewaySettings(port=0), ports.append)
    task = asyncio.create_task(serving.serve(server, stop, asyncio.Event().wait(), door.book.changes.close))  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        while not ports:  # noqa: ASYNC110 - a server says when it listens
            await asyncio.sleep(0.01)
    try:
        yield ports[0]
    finally:
        stop.set()
        await task


@pytest.fixture
async def port(door: Door) -> AsyncIterator[int]:
    async with listening(door) as number:
        yield number


async def sent(port: int, *pieces: bytes) -> bytes:
    """What comes back for these bytes, until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


def head(door: Door, *lines: str) -> bytes:
    seal = door.sealed(door.intent(), "bot")
    usual = [f"{name}: {value}" for name, value in seal.items()]
    return "\r\n".join(["POST /v1/intents HTTP/1.1", "Host: gateway", *usual, *lines, "", ""]).encode()


async def test_a_head_that_never_ends_is_cut_off_and_others_are_served(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.2)
    async with listening(door) as port:
        dripping = [asyncio.create_task(sent(port, b"GET /healthz HTTP/1.1\r\nX-A: ")) for _ in range(20)]
        silent = asyncio.create_task(sent(port))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/healthz")).status_code == 200
            for ended in await asyncio.gather(*dripping, silent, return_exceptions=True):
                assert ended == b"" or isinstance(ended, ConnectionError)
            assert (await http.get("/healthz")).status_code == 200


async def test_a_body_that_does_not_come_is_answered_and_the_door_stays_open(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards.Guard.__init__, "__defaults__", (*guards.Guard.__init__.__defaults__[:-1], 0.2))
    async with listening(door) as port:
        answer = await sent(port, head(door, "Content-Length: 400"), b'{"action"')
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"urn:keyturn:problem:too-slow" in answer


async def test_two_lengths_are_a_smuggled_request_and_nothing_of_it_is_read(door: Door, port: int) -> None:
    body = door.intent().to_bytes()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for lines in (
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", f"Content-Length: {len(chunked)}"),
        ("Content-Length: 4", "Content-Length: 5"),
        ("Content-Length: -1",),
        ("Content-Length: 4, 5",),
        ("Transfer-Encoding: xchunked",),
        ("Content-Length: 99999999999999999999",),
    ):
        answer = await sent(port, head(door, "Connection: close", *lines), chunked)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 501")), (lines, answer[:200])
    for line in (b"Keyturn-Sig : x", b"Keyturn-Sig\t: x", b"X\x00: y", b"X: y\x00z", b": x", b"no colon"):
        answer = await sent(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + line + b"\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400"), (line, answer[:100])
    assert door.book.said == []


async def test_a_huge_body_is_refused_before_it_is_read(door: Door, port: int) -> None:
    declared = await sent(port, head(door, "Content-Length: 1000000000", "Connection: close"))
    assert declared.startswith(b"HTTP/1.1 413")
    piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    undeclared = await sent(port, head(door, "Transfer-Encoding: chunked", "Connection: close"), piece, piece, piece)
    assert undeclared.startswith(b"HTTP/1.1 413")
    assert door.book.said == []


async def test_a_head_that_is_too_long_is_refused(port: int) -> None:
    # What is still on its way may reset the connection under the answer.
    with contextlib.suppress(ConnectionError):
        answer = await sent(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 400_000 + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")


async def test_whoever_does_not_read_its_stream_is_cut_off_and_others_go_on(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "unread_seconds", 0.3)
    door.gateway._reads = type(door.gateway._reads)(10_000, lambda: 0.0)
    async with listening(door) as port:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stalled, ("127.0.0.1", port))
        asked = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {door.own('bot')['Authorization']}\r\n\r\n"
        await loop.sock_sendall(stalled, asked.encode())
        await until_real(lambda: door.gateway._crowd._held.get("bot") == 1)
        intent = door.intent()
        door.book.answer(intent, Phase.PENDING)
        async with asyncio.timeout(60):
            # It never reads: what it is told piles up in its own connection, and that ends.
            while door.gateway._crowd._held.get("bot"):
                door.book.answer(intent, Phase.PENDING, reason="x" * 2000)
                await asyncio.sleep(0.0005)
        stalled.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            shown = await http.get(f"/v1/intents/{intent.id}", headers=door.own("bot"))
            assert shown.json()["phase"] == "pending"


async def until_real(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - a socket sets no event
            await asyncio.sleep(0.01)


async def test_a_stream_over_a_socket_tells_at_once_and_ends_when_the_process_does(door: Door) -> None:
    intent = door.intent()
    await door.submit(intent)
    async with listening(door) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        async with http.stream("GET", f"/v1/intents/{intent.id}/events", headers=door.own("bot")) as stream:
            lines = stream.aiter_lines()
            seen: list[str] = []
            async for line in lines:
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:])["phase"])
                    if seen == ["submitted"]:
                        door.book.answer(intent, Phase.PENDING)
                    if seen == ["submitted", "pending"]:
                        door.book.answer(intent, Phase.DENIED)
        assert seen == ["submitted", "pending", "denied"]
