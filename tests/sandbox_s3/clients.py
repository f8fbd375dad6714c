"""AWS clients for the tests of the local S3, and what a provider's refusal looks like to them."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from sandbox.s3 import KeyPair, S3Address

SOURCE, DESTINATION = "finance", "partner"


@dataclass(frozen=True)
class Refusal:
    """An AWS error: its HTTP status and code."""

    status: int
    code: str


async def refusal(call: Awaitable[object]) -> Refusal:
    """The refusal that `call` ends with; it must end with one."""
    with pytest.raises(ClientError) as caught:
        await call
    answer = caught.value.response
    return Refusal(answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"])


@cache
def _models() -> Any:  # one for all: reading the service models takes a tenth of a second
    return get_session()


@asynccontextmanager
async def client(
    service: str, address: S3Address, keys: KeyPair, token: str | None = None
) -> AsyncIterator[Any]:  # aiobotocore has no types
    """A client of the local S3 or STS that never tries twice."""
    config = AioConfig(
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "path"},
        signature_version="s3v4" if service == "s3" else None,
    )
    async with _models().create_client(
        service,
        region_name=address.region,
        endpoint_url=address.endpoint,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=token,
        config=config,
    ) as opened:
        yield opened


def policy(prefix: str, *, condition: dict[str, Any] | None = None) -> str:
    """A session policy: read below `prefix` of the source, write below it in the destination."""
    dated = {"Condition": condition} if condition else {}
    listed = (condition or {}) | {"StringLike": {"s3:prefix": [f"{prefix}*"]}}
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:GetObject", "s3:GetObjectVersion"],
                    "Resource": [f"arn:aws:s3:::{SOURCE}/{prefix}*"],
                    **dated,
                },
                {
                    "Effect": "Allow",
                    "Action": ["s3:PutObject"],
                    "Resource": [f"arn:aws:s3:::{DESTINATION}/{prefix}*"],
                    **dated,
                },
                {
                    "Effect": "Allow",
                    "Action": ["s3:ListBucketVersions"],
                    "Resource": [f"arn:aws:s3:::{SOURCE}"],
                    "Condition": listed,
                },
            ],
        }
    )
