from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox.roles import RunningRoles
from sandbox.world import Sandbox
from tests.flow.stage import Stage, set_up


@pytest_asyncio.fixture(scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    directory: Path = tmp_path_factory.mktemp("flow")
    sandbox = Sandbox(directory, has_aws=True)
    async with sandbox as world, RunningRoles(directory) as roles, set_up(sandbox, world, roles) as stage:
        yield stage
