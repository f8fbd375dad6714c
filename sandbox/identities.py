"""The story's identities and policies in the local AWS, made by its administrator; what is there is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from sandbox import story
from sandbox.aws import settings

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sandbox.aws import AwsAddress


async def fill(address: AwsAddress) -> None:
    """Make the role and the policies that are missing."""
    client: Any = get_session().create_client(
        "iam",
        region_name=address.region,
        endpoint_url=address.endpoint,
        aws_access_key_id=address.admin.access_key,
        aws_secret_access_key=address.admin.secret_key,
    )
    trust = settings.document({"Effect": "Allow", "Principal": {"Service": story.TRUSTED}, "Action": "sts:AssumeRole"})
    async with client as iam:
        await _unless_there(iam.create_role(RoleName=story.ROLE, AssumeRolePolicyDocument=trust))
        for name, (actions, resource) in story.AWS_POLICIES.items():
            text = settings.document({"Effect": "Allow", "Action": list(actions), "Resource": resource})
            await _unless_there(iam.create_policy(PolicyName=name, PolicyDocument=text))


async def _unless_there(making: Awaitable[object]) -> None:
    try:
        await making
    except ClientError as exc:
        if exc.response["Error"]["Code"] != "EntityAlreadyExists":
            raise
