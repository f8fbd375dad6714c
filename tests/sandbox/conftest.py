"""Waiting for what must come true, with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture(scope="session")
def until() -> Until:
    """Return when the condition holds; fail when it does not within 20 seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 (conditions of other processes set no event)
                await asyncio.sleep(0.02)

    return wait
