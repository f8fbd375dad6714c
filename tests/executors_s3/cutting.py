"""A relay to the provider that loses an answer: the request goes through, then the connection breaks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Cut:
    """Where the relay is, and how many matching requests it has seen."""

    endpoint: str
    #: The first request whose answer is lost.
    after: int
    matched: int = 0


@asynccontextmanager
async def cutting(endpoint: str, match: bytes, after: int, inside: bytes = b"") -> AsyncIterator[Cut]:
    """Relay to `endpoint`; lose the answers to requests that start with `match`, from number `after` on.

    `inside`: and that hold this in their body.
    """
    there = urlsplit(endpoint)
    cut = Cut("", after)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(there.hostname, there.port)
        try:
            while head := await _head(reader):
                sent = await reader.readexactly(_length(head))
                is_match = head.startswith(match) and inside in sent
                cut.matched += is_match
                back.write(head + sent)
                answer = await _head(onward)
                if is_match and cut.matched >= cut.after:
                    return
                body = b"" if head.startswith(b"HEAD ") else await _body(onward, answer)
                writer.write(answer + body)
        finally:
            for stream in (writer, back):
                stream.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        cut.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield cut


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in head.lower():
        return await reader.readexactly(_length(head))
    body = b""
    while not body.endswith(b"\r\n0\r\n\r\n"):
        body += await reader.readuntil(b"\r\n")
    return body


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
