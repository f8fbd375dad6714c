"""What the executors for IAM and CloudFormation rest on: a provider that refuses what AWS refuses."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sandbox.aws import LocalAws, settings
from sandbox.s3 import KeyPair
from tests.sandbox_s3.clients import Refusal, client, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.aws import AwsAddress

DENIED = Refusal(403, "AccessDenied")
MISSING = Refusal(404, "NoSuchEntity")
FULL = Refusal(409, "LimitExceeded")
READ_OBJECTS = settings.document({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
ALL_OF_S3 = settings.document({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})


def statement(actions: str | list[str], resource: str = "*", **condition: dict[str, str]) -> str:
    """A policy of one statement."""
    made: dict[str, object] = {"Effect": "Allow", "Action": actions, "Resource": resource}
    return settings.document(made | ({"Condition": condition} if condition else {}))


def trust(*arns: str, actions: tuple[str, ...] = ("sts:AssumeRole",)) -> str:
    """A trust policy for these principals."""
    return settings.document({"Effect": "Allow", "Principal": {"AWS": list(arns)}, "Action": list(actions)})


async def role(iam: Any, name: str, path: str = "/") -> str:
    """A role that nobody can assume; its ARN."""
    nobody = settings.document({"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"})
    made = await iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=nobody)
    return str(made["Role"]["Arn"])


async def policy(iam: Any, name: str, document: str = READ_OBJECTS) -> str:
    """A managed policy; its ARN."""
    return str((await iam.create_policy(PolicyName=name, PolicyDocument=document))["Policy"]["Arn"])


async def mint(aws: AwsAddress, role_arn: str, session_policy: str | None = None, **more: Any) -> tuple[KeyPair, str]:
    """A session of an executor's role."""
    given = {} if session_policy is None else {"Policy": session_policy}
    async with client("sts", aws, aws.executors["iam"].keys) as sts:
        answer = await sts.assume_role(
            **({"RoleArn": role_arn, "RoleSessionName": "test", "DurationSeconds": 900} | given | more)
        )
    found = answer["Credentials"]
    return KeyPair(found["AccessKeyId"], found["SecretAccessKey"]), found["SessionToken"]


@asynccontextmanager
async def acting(aws: AwsAddress, session_policy: str) -> AsyncIterator[Any]:
    """IAM with a session of the IAM executor's acting role."""
    keys, token = await mint(aws, aws.executors["iam"].act_role, session_policy)
    async with client("iam", aws, keys, token) as iam:
        yield iam


@pytest.fixture
async def admin(aws: AwsAddress) -> AsyncIterator[Any]:
    """IAM as the administrator."""
    async with client("iam", aws, aws.admin) as iam:
        yield iam


async def test_nobody_is_root_and_every_signature_is_verified(aws: AwsAddress) -> None:
    wrong = "0" * 40
    for keys in (
        KeyPair("test", "test"),
        KeyPair(aws.account, "test"),
        KeyPair(aws.admin.access_key, wrong),
        KeyPair(aws.executors["iam"].keys.access_key, wrong),
    ):
        async with client("iam", aws, keys) as iam:
            assert (await refusal(iam.list_users())).status == 403
        async with client("sts", aws, keys) as sts:
            call = sts.assume_role(RoleArn=aws.executors["iam"].act_role, RoleSessionName="test")
            assert (await refusal(call)).status == 403


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/_ministack/reset", 404),
        ("POST", "/_ministack/config", 404),
        ("GET", "/_localstack/init", 404),
        ("GET", "/?Action=ListUsers&Version=2010-05-08", 403),
    ],
)
async def test_an_unsigned_request_gets_nowhere(aws: AwsAddress, method: str, path: str, expected: int) -> None:
    async with aiohttp.ClientSession() as http, http.request(method, aws.endpoint + path) as answer:
        assert answer.status == expected


async def test_an_executors_own_keys_can_only_assume_its_own_roles(aws: AwsAddress) -> None:
    async with client("iam", aws, aws.executors["iam"].keys) as iam:
        assert await refusal(iam.list_roles()) == DENIED
    assert await refusal(mint(aws, aws.executors["infra"].act_role)) == DENIED
    await mint(aws, aws.executors["iam"].read_role)


async def test_a_session_can_do_what_its_role_and_its_policy_both_allow(aws: AwsAddress, admin: Any) -> None:
    target, other = await role(admin, "cut-target"), await role(admin, "cut-other")
    arn = await policy(admin, "cut-policy")
    async with acting(aws, statement("iam:AttachRolePolicy", target)) as iam:
        await iam.attach_role_policy(RoleName="cut-target", PolicyArn=arn)
        assert await refusal(iam.attach_role_policy(RoleName="cut-other", PolicyArn=arn)) == DENIED
        assert await refusal(iam.detach_role_policy(RoleName="cut-target", PolicyArn=arn)) == DENIED
    # The role has no right to delete, whatever a session policy says.
    async with acting(aws, statement("iam:*", other)) as iam:
        assert await refusal(iam.delete_role(RoleName="cut-other")) == DENIED


async def test_a_session_cut_to_one_policy_attaches_no_other(aws: AwsAddress, admin: Any) -> None:
    target = await role(admin, "one-target", path="/team/data/")
    assert target.endswith(":role/team/data/one-target")
    wanted, other = await policy(admin, "one-wanted"), await policy(admin, "one-other", ALL_OF_S3)
    async with acting(aws, statement("iam:AttachRolePolicy", target, ArnEquals={"iam:PolicyARN": wanted})) as iam:
        assert await refusal(iam.attach_role_policy(RoleName="one-target", PolicyArn=other)) == DENIED
        await iam.attach_role_policy(RoleName="one-target", PolicyArn=wanted)


async def test_a_credential_dies_at_the_instant_its_policy_names(aws: AwsAddress, admin: Any) -> None:
    target, arn = await role(admin, "dies-target"), await policy(admin, "dies-policy")

    def dated(seconds: int) -> str:
        at = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return statement("iam:AttachRolePolicy", target, DateLessThan={"aws:CurrentTime": at})

    async with acting(aws, dated(-1)) as dead, acting(aws, dated(60)) as living:
        assert await refusal(dead.attach_role_policy(RoleName="dies-target", PolicyArn=arn)) == DENIED
        await living.attach_role_policy(RoleName="dies-target", PolicyArn=arn)
    async with acting(aws, dated(1)) as short:
        dies_at, seen = datetime.now(UTC) + timedelta(seconds=1), None
        while seen is None and datetime.now(UTC) < dies_at + timedelta(seconds=5):
            try:
                await short.attach_role_policy(RoleName="dies-target", PolicyArn=arn)
            except short.exceptions.ClientError as error:
                seen = error.response["Error"]["Code"]
        assert seen == "AccessDenied"


async def test_a_session_keeps_the_roles_limits(aws: AwsAddress, admin: Any) -> None:
    too_long = mint(aws, aws.executors["iam"].act_role, DurationSeconds=3601)
    assert await refusal(too_long) == Refusal(400, "ValidationError")
    await mint(aws, aws.executors["iam"].act_role, SourceIdentity="reporter.01")
    user = settings.user_arn(settings.user_of("iam"))
    # The caller may not set a source identity on this one, and its trust does not say so either.
    await admin.create_role(RoleName="no-identity", AssumeRolePolicyDocument=trust(user))
    arn = settings.role_arn("no-identity")
    own = settings.document({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": arn})
    await admin.put_user_policy(UserName=settings.user_of("iam"), PolicyName="test", PolicyDocument=own)
    await mint(aws, arn)
    assert await refusal(mint(aws, arn, SourceIdentity="reporter.01")) == DENIED
    await admin.delete_user_policy(UserName=settings.user_of("iam"), PolicyName="test")


@pytest.mark.parametrize("kind", ["Role", "User", "Group"])
async def test_what_cannot_be_attached_is_refused_and_attaching_twice_is_no_error(admin: Any, kind: str) -> None:
    name = f"quota-{kind.lower()}"
    if kind == "Role":
        await role(admin, name)
    else:
        await (admin.create_user(UserName=name) if kind == "User" else admin.create_group(GroupName=name))
    attach, detach = (getattr(admin, f"{verb}_{kind.lower()}_policy") for verb in ("attach", "detach"))
    missing = f"arn:aws:iam::{settings.ACCOUNT}:policy/nobody-made-it"
    assert await refusal(attach(**{f"{kind}Name": name, "PolicyArn": missing})) == MISSING
    arns = [await policy(admin, f"{name}-{number}") for number in range(11)]
    for arn in (*arns[:10], arns[0]):
        await attach(**{f"{kind}Name": name, "PolicyArn": arn})
    assert await refusal(attach(**{f"{kind}Name": name, "PolicyArn": arns[10]})) == FULL
    await detach(**{f"{kind}Name": name, "PolicyArn": arns[0]})
    assert await refusal(detach(**{f"{kind}Name": name, "PolicyArn": arns[0]})) == MISSING
    await attach(**{f"{kind}Name": name, "PolicyArn": arns[10]})


async def test_the_default_version_of_a_policy_is_what_counts(aws: AwsAddress, admin: Any) -> None:
    arn = await policy(admin, "versions")
    await admin.create_policy_version(PolicyArn=arn, PolicyDocument=ALL_OF_S3)
    assert (await admin.get_policy(PolicyArn=arn))["Policy"]["DefaultVersionId"] == "v1"
    await admin.set_default_policy_version(PolicyArn=arn, VersionId="v2")
    assert (await admin.get_policy(PolicyArn=arn))["Policy"]["DefaultVersionId"] == "v2"
    versions = (await admin.list_policy_versions(PolicyArn=arn))["Versions"]
    assert {each["VersionId"]: each["IsDefaultVersion"] for each in versions} == {"v1": False, "v2": True}
    assert await refusal(admin.set_default_policy_version(PolicyArn=arn, VersionId="v9")) == MISSING
    found = (await admin.get_policy_version(PolicyArn=arn, VersionId="v2"))["PolicyVersion"]["Document"]
    assert json.loads(json.dumps(found)) == json.loads(ALL_OF_S3)


async def test_what_it_knows_and_its_keys_are_there_again_after_a_stop(tmp_path: Path, sandbox_cache: Path) -> None:
    local = LocalAws(tmp_path / "aws", cache=sandbox_cache)
    async with local as first, client("iam", first, first.admin) as iam:
        await policy(iam, "kept")
    async with local as second, client("iam", second, second.admin) as iam:
        assert (second.admin, second.executors) == (first.admin, first.executors)
        assert await refusal(policy(iam, "kept")) == Refusal(409, "EntityAlreadyExists")
    assert (tmp_path / "aws" / "keys.json").stat().st_mode & 0o077 == 0
