"""What the executors rest on: conditional copies, cut sessions, and credentials that die at their instant."""

import gzip
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError
from yarl import URL

from sandbox.s3 import KeyPair, LocalS3, S3Address
from tests.sandbox_s3.clients import DESTINATION, SOURCE, Refusal, client, policy, refusal

DENIED = Refusal(403, "AccessDenied")
PRECONDITION_FAILED = Refusal(412, "PreconditionFailed")


async def mint(
    address: S3Address, session_policy: str | None, *, role: str | None = None, keys: KeyPair | None = None, **more: Any
) -> tuple[KeyPair, str]:
    """A session of the export role, or another."""
    given = {} if session_policy is None else {"Policy": session_policy}
    async with client("sts", address, keys or address.executor) as sts:
        answer = await sts.assume_role(
            RoleArn=role or address.export_role, RoleSessionName="test", DurationSeconds=900, **given, **more
        )
    found = answer["Credentials"]
    return KeyPair(found["AccessKeyId"], found["SecretAccessKey"]), found["SessionToken"]


@asynccontextmanager
async def session(address: S3Address, session_policy: str | None, *, role: str | None = None) -> AsyncIterator[Any]:
    """An S3 client with a minted session."""
    keys, token = await mint(address, session_policy, role=role)
    async with client("s3", address, keys, token) as s3:
        yield s3


async def put(address: S3Address, key: str, body: bytes = b"one", bucket: str = SOURCE) -> dict[str, Any]:
    """Put an object as the administrator."""
    async with client("s3", address, address.admin) as s3:
        answer: dict[str, Any] = await s3.put_object(Bucket=bucket, Key=key, Body=body)
    return answer


def copy(s3: Any, key: str, version: str | None = None, to: str | None = None, **conditions: str) -> Awaitable[Any]:
    """Copy `key` from the source to the destination."""
    source = {"Bucket": SOURCE, "Key": key} | ({"VersionId": version} if version else {})
    answer: Awaitable[Any] = s3.copy_object(Bucket=DESTINATION, Key=to or key, CopySource=source, **conditions)
    return answer


async def read(s3: Any, key: str, bucket: str = SOURCE) -> bytes:
    """The body of an object."""
    answer = await s3.get_object(Bucket=bucket, Key=key)
    body: bytes = await answer["Body"].read()
    return body


async def test_a_copy_with_the_wrong_source_etag_is_refused_and_copies_nothing(address: S3Address) -> None:
    await put(address, "cond/etag")
    async with client("s3", address, address.admin) as s3:
        assert await refusal(copy(s3, "cond/etag", CopySourceIfMatch='"dead"')) == PRECONDITION_FAILED
        assert (await refusal(s3.head_object(Bucket=DESTINATION, Key="cond/etag"))).status == 404


async def test_a_copy_onto_an_existing_key_is_refused_and_overwrites_nothing(address: S3Address) -> None:
    await put(address, "cond/new")
    await put(address, "cond/new", b"theirs", DESTINATION)
    async with client("s3", address, address.admin) as s3:
        assert await refusal(copy(s3, "cond/new", IfNoneMatch="*")) == PRECONDITION_FAILED
        assert await read(s3, "cond/new", DESTINATION) == b"theirs"


async def test_a_pinned_version_is_copied_though_a_newer_one_exists(address: S3Address) -> None:
    first = await put(address, "cond/pin", b"first")
    await put(address, "cond/pin", b"second")
    async with client("s3", address, address.admin) as s3:
        copied = await copy(s3, "cond/pin", first["VersionId"], CopySourceIfMatch=first["ETag"], IfNoneMatch="*")
        assert copied["VersionId"]
        assert await read(s3, "cond/pin", DESTINATION) == b"first"


async def test_versions_are_listed_with_the_latest_and_the_deletion_marked(address: S3Address) -> None:
    old, new = await put(address, "ver/a", b"1"), await put(address, "ver/a", b"22")
    async with client("s3", address, address.admin) as s3:
        listed = await s3.list_object_versions(Bucket=SOURCE, Prefix="ver/")
        assert {v["VersionId"]: v["IsLatest"] for v in listed["Versions"]} == {
            old["VersionId"]: False,
            new["VersionId"]: True,
        }
        await s3.delete_object(Bucket=SOURCE, Key="ver/a")
        listed = await s3.list_object_versions(Bucket=SOURCE, Prefix="ver/")
        assert [v["IsLatest"] for v in listed["Versions"]] == [False, False]
        assert [m["IsLatest"] for m in listed["DeleteMarkers"]] == [True]


async def test_the_base_identity_can_neither_read_nor_write(address: S3Address) -> None:
    await put(address, "base/a")
    async with client("s3", address, address.executor) as s3:
        assert await refusal(s3.get_object(Bucket=SOURCE, Key="base/a")) == DENIED
        assert await refusal(s3.list_object_versions(Bucket=SOURCE)) == DENIED
        assert await refusal(s3.put_object(Bucket=SOURCE, Key="base/b", Body=b"")) == DENIED


async def test_a_session_cut_to_a_prefix_does_nothing_outside_it(address: S3Address) -> None:
    await put(address, "cut/in")
    await put(address, "other/out")
    async with session(address, policy("cut/")) as s3:
        assert await read(s3, "cut/in") == b"one"
        await copy(s3, "cut/in")
        await s3.list_object_versions(Bucket=SOURCE, Prefix="cut/")
        assert await refusal(s3.get_object(Bucket=SOURCE, Key="other/out")) == DENIED
        assert await refusal(copy(s3, "other/out", to="cut/stolen")) == DENIED
        assert await refusal(copy(s3, "cut/in", to="other/in")) == DENIED
        assert await refusal(s3.list_object_versions(Bucket=SOURCE, Prefix="other/")) == DENIED
        assert await refusal(s3.list_object_versions(Bucket=SOURCE)) == DENIED
        assert await refusal(s3.delete_object(Bucket=DESTINATION, Key="cut/in")) == DENIED


async def test_a_session_policy_gives_no_more_than_its_role(address: S3Address) -> None:
    await put(address, "role/a")
    async with session(address, policy("role/"), role=address.read_role) as s3:
        assert await read(s3, "role/a") == b"one"
        assert await refusal(copy(s3, "role/a")) == DENIED


async def test_a_role_that_does_not_trust_the_caller_is_not_assumed(address: S3Address) -> None:
    unknown = address.export_role.replace("export", "unheard-of")
    assert await refusal(mint(address, policy("x/"), role=unknown)) == DENIED
    assert await refusal(mint(address, policy("x/"), keys=address.admin)) == DENIED


async def test_a_credential_lives_until_its_instant_and_dies_at_it(address: S3Address) -> None:
    await put(address, "dies/a")
    dies_at = datetime.now(UTC) + timedelta(seconds=2)
    dated = policy("dies/", condition={"DateLessThan": {"aws:CurrentTime": dies_at.isoformat()}})
    async with session(address, dated) as s3:
        lived, seen = 0, None
        while seen is None and datetime.now(UTC) < dies_at + timedelta(seconds=5):
            asked_at = datetime.now(UTC)
            try:
                await read(s3, "dies/a")
                assert asked_at < dies_at
                lived += 1
            except ClientError:
                assert datetime.now(UTC) >= dies_at
                seen = await refusal(s3.get_object(Bucket=SOURCE, Key="dies/a"))
        assert lived > 10
        assert seen == DENIED
        assert await refusal(copy(s3, "dies/a")) == DENIED


async def test_a_credential_stays_dead_and_a_living_one_alive_when_the_provider_restarts(tmp_path: Path) -> None:
    def dated(seconds: int) -> str:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        return policy("r/", condition={"DateLessThan": {"aws:CurrentTime": at.isoformat(timespec="seconds")}})

    local = LocalS3(tmp_path / "s3", stop_within=timedelta(milliseconds=50))
    address = await local.start()
    try:
        async with client("s3", address, address.admin) as s3:
            await s3.create_bucket(Bucket=SOURCE)
        await put(address, "r/a")
        async with session(address, dated(-1)) as dead, session(address, dated(600)) as living:
            await local.restart_proxy()
            assert await refusal(dead.get_object(Bucket=SOURCE, Key="r/a")) == DENIED
            assert await read(living, "r/a") == b"one"
        await local.stop()
        again = await local.start()
        assert again.executor == address.executor
        async with client("s3", again, again.admin) as s3:
            assert await read(s3, "r/a") == b"one"
    finally:
        await local.stop()


async def test_a_forged_assume_role_is_refused(address: S3Address) -> None:
    forged = KeyPair(address.executor.access_key, "0" * 40)
    assert await refusal(mint(address, policy("x/"), keys=forged)) == DENIED
    assert await refusal(mint(address, policy("x/"), keys=KeyPair("KTNOBODY", "0" * 40))) == DENIED


async def test_a_session_cannot_mint_another(address: S3Address) -> None:
    keys, token = await mint(address, policy("x/"))
    async with client("sts", address, keys, token) as sts:
        call = sts.assume_role(RoleArn=address.export_role, RoleSessionName="test", DurationSeconds=900)
        assert await refusal(call) == DENIED


async def test_a_key_is_worth_nothing_without_its_own_token(address: S3Address) -> None:
    await put(address, "token/a")
    keys, token = await mint(address, policy("token/"))
    others = (await mint(address, policy("token/")))[1]
    for wrong in (None, others, token + "x"):
        async with client("s3", address, keys, wrong) as s3:
            assert await refusal(s3.get_object(Bucket=SOURCE, Key="token/a")) == DENIED
    async with client("s3", address, address.admin, token) as s3:
        assert await refusal(s3.get_object(Bucket=SOURCE, Key="token/a")) == DENIED


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", f"/{SOURCE}/a", {}),
        ("GET", f"/{SOURCE}/a", {"Authorization": "Bearer abc"}),
        ("GET", f"/{SOURCE}/a", {"Authorization": "AWS KTADM:c2lnbmF0dXJl"}),
        ("GET", f"/{SOURCE}/a?X-Amz-Credential=KTNOBODY%2F20260101%2Fus-east-1%2Fs3%2Faws4_request", {}),
        ("POST", "/?Action=AssumeRole", {}),
        ("GET", "/?Action=ListUsers", {}),
        ("POST", "//", {}),
    ],
)
async def test_who_signs_with_no_known_key_gets_no_further(
    address: S3Address, method: str, path: str, headers: dict[str, str]
) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, address.endpoint + path, headers=headers) as answer,
    ):
        assert answer.status in {400, 403}
        assert "<Code>" in await answer.text()


@pytest.mark.parametrize(
    "condition",
    [
        {"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}},
        {"DateLessThan": {"aws:TokenIssueTime": "2099-01-01T00:00:00Z"}},
        {"DateLessThan": {"aws:CurrentTime": ["2099-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]}},
        {"DateLessThan": {"aws:CurrentTime": "2099-01-01T00:00:00"}},
        {"DateLessThanIfExists": {"aws:CurrentTime": "2099-01-01T00:00:00Z"}},
        {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
    ],
)
async def test_a_condition_that_is_not_understood_is_refused_and_never_dropped(
    address: S3Address, condition: dict[str, Any]
) -> None:
    answer = await refusal(mint(address, policy("x/", condition=condition)))
    assert answer == Refusal(400, "MalformedPolicyDocument")


async def test_a_parameter_the_store_would_overlook_is_refused(address: S3Address) -> None:
    answer = await refusal(mint(address, policy("x/"), ExternalId="abc"))
    assert answer == Refusal(400, "InvalidParameterValue")


@pytest.mark.parametrize("key", ["odd/a b+c=d&e%2Ff.txt", "odd/über/ß", "odd/a//b", "odd/(1)*~'!$;,@:"])
async def test_odd_keys_pass_through_with_their_signature(address: S3Address, key: str) -> None:
    await put(address, key, b"odd")
    async with client("s3", address, address.admin) as s3:
        assert await read(s3, key) == b"odd"
        await copy(s3, key)
        assert await read(s3, key, DESTINATION) == b"odd"
        url = await s3.generate_presigned_url("get_object", Params={"Bucket": SOURCE, "Key": key}, ExpiresIn=60)
    async with aiohttp.ClientSession() as http, http.get(URL(url, encoded=True)) as answer:
        assert (answer.status, await answer.read()) == (200, b"odd")


async def test_large_and_packed_bodies_pass_through_as_they_are(address: S3Address) -> None:
    large, packed = bytes(range(256)) * 40_000, gzip.compress(b"words" * 1000)
    async with client("s3", address, address.admin) as s3:
        await s3.put_object(Bucket=SOURCE, Key="body/large", Body=large)
        await s3.put_object(Bucket=SOURCE, Key="body/packed", Body=packed, ContentEncoding="gzip")
        await s3.put_object(Bucket=SOURCE, Key="body/empty", Body=b"")
        assert await read(s3, "body/large") == large
        assert await read(s3, "body/packed") == packed
        assert await read(s3, "body/empty") == b""
        head = await s3.head_object(Bucket=SOURCE, Key="body/packed")
        assert (head["ContentLength"], head["ContentEncoding"]) == (len(packed), "gzip")
