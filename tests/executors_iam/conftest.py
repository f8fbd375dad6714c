"""IAM as its administrator sees it."""

from collections.abc import AsyncIterator

import pytest_asyncio

from sandbox.aws import AwsAddress
from tests.executors_iam.world import Iam
from tests.sandbox_s3.clients import client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def iam(aws: AwsAddress) -> AsyncIterator[Iam]:
    """IAM as its administrator sees it."""
    async with client("iam", aws, aws.admin) as raw:
        yield Iam(raw, aws.account)
