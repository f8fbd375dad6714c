"""One local AWS for all tests of this folder."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from sandbox.aws import AwsAddress, LocalAws
from tests.executors_infra.acts import World


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AwsAddress]:
    """A running local AWS."""
    async with LocalAws(tmp_path_factory.mktemp("aws"), stop_within=timedelta(milliseconds=50)) as address:
        yield address


@pytest.fixture
def world(address: AwsAddress) -> World:
    """The stacks, as their administrator sees them."""
    return World(address)
