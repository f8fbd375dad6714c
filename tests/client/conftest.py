"""A whole Keyturn, people who click, and an agent that holds nothing but the client."""

from collections.abc import AsyncIterator

import pytest_asyncio

from sandbox.roles import RunningRoles
from sandbox.world import SandboxWorld
from tests.client.people import People


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def people(sandbox: SandboxWorld) -> AsyncIterator[People]:
    """Every role runs as long as tests of this folder do."""
    async with RunningRoles(sandbox.folder) as roles:
        yield People(sandbox, roles)
