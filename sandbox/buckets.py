"""The story's buckets, filled by the S3 administrator. What is there already is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from sandbox import story

if TYPE_CHECKING:
    from sandbox.s3 import S3Address


async def fill(address: S3Address) -> None:
    """Make the buckets, with versions, and put the objects that are missing."""
    config = AioConfig(s3={"addressing_style": "path"}, signature_version="s3v4")
    client: Any = get_session().create_client(
        "s3",
        region_name=address.region,
        endpoint_url=address.endpoint,
        aws_access_key_id=address.admin.access_key,
        aws_secret_access_key=address.admin.secret_key,
        config=config,
    )
    async with client as s3:
        there = {bucket["Name"] for bucket in (await s3.list_buckets())["Buckets"]}
        for bucket, objects in story.objects().items():
            if bucket not in there:
                await s3.create_bucket(Bucket=bucket)
            await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            found = await s3.list_objects_v2(Bucket=bucket)
            keys = {item["Key"] for item in found.get("Contents", ())}
            for key, body in objects.items():
                if key not in keys:
                    await s3.put_object(Bucket=bucket, Key=key, Body=body)
