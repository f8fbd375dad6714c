"""One local S3 for all tests of this folder."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox.s3 import LocalS3, S3Address
from tests.executors_s3.acts import Buckets
from tests.sandbox_s3.clients import DESTINATION, SOURCE, client


@pytest.fixture(scope="session")
def s3_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the local S3 keeps its files."""
    return tmp_path_factory.mktemp("s3")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def address(s3_directory: Path) -> AsyncIterator[S3Address]:
    """A running local S3 with two versioned buckets and one without versions."""
    async with LocalS3(s3_directory, stop_within=timedelta(milliseconds=50)) as address:
        async with client("s3", address, address.admin) as s3:
            for bucket in (SOURCE, DESTINATION, "plain"):
                await s3.create_bucket(Bucket=bucket)
            for bucket in (SOURCE, DESTINATION):
                await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        yield address


@pytest.fixture
def buckets(address: S3Address) -> Buckets:
    """The buckets, as their administrator sees them."""
    return Buckets(address)
