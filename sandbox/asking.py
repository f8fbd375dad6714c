"""One short question to a server on this machine, over HTTP. What doesn't answer in time has no answer: None."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta

from sandbox.ports import LOOPBACK

WITHIN = timedelta(seconds=1)
MAX_ANSWER = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """A status and a body."""

    status: int
    body: bytes


async def get(port: int, path: str) -> Answer | None:
    """GET a page, if somebody serves it."""
    try:
        async with asyncio.timeout(WITHIN.total_seconds()):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode())
                answer = b""
                while len(answer) < MAX_ANSWER and (piece := await reader.read(MAX_ANSWER)):
                    answer += piece
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        return Answer(int(head.split(b" ", 2)[1]), body)
    except (OSError, ValueError, IndexError):  # TimeoutError is an OSError
        return None


async def listens(port: int) -> bool:
    """Whether anybody takes connections there."""
    try:
        async with asyncio.timeout(WITHIN.total_seconds()):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
