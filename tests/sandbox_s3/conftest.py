"""One local S3 for all tests of this folder, with two versioned buckets."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from sandbox.s3 import LocalS3, S3Address
from tests.sandbox_s3.clients import DESTINATION, SOURCE, client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[S3Address]:
    """A running local S3."""
    async with LocalS3(tmp_path_factory.mktemp("s3"), stop_within=timedelta(milliseconds=50)) as address:
        async with client("s3", address, address.admin) as s3:
            for bucket in (SOURCE, DESTINATION):
                await s3.create_bucket(Bucket=bucket)
                await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield address
