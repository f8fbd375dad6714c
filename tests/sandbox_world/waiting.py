"""Waiting for what other processes do: a look now and then, with a deadline."""

import asyncio
from collections.abc import Callable

WITHIN = 120.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110 (other processes set no event)
            await asyncio.sleep(0.05)
