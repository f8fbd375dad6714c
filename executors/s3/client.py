"""The only module that knows the SDK: S3 and STS in our own words, each call sent once.

Errors:

    ProviderError
    ├── RefusedError       the provider said no: nothing was done
    └── UnansweredError    it may or may not have been done

botocore counts `max_attempts: 1` as one *retry*; `total_max_attempts: 1` is one attempt. Below it aiohttp sends GET,
HEAD, PUT and DELETE again by itself when the connection breaks (RFC 9110, 9.2.2), and CopyObject is a PUT. A
conditional copy sent twice is answered 412 although it took effect, so both are switched off.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.client import INTERNAL_SERVER_ERROR, MULTIPLE_CHOICES
from typing import Any, Final

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
)

PUBLIC_GROUPS: Final = frozenset(
    {
        "http://acs.amazonaws.com/groups/global/AllUsers",
        "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
    }
)
CARRIED: Final = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType")
"""Headers that a copy with replaced metadata must be given again, or it loses them."""


class ProviderError(Exception):
    """A call did not succeed; the text holds no secret."""


class RefusedError(ProviderError):
    """The provider said no, or was never reached: the call had no effect."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        #: 0 when the provider was not reached.
        self.status = status
        self.code = code


class UnansweredError(ProviderError):
    """No answer, or one that leaves open whether the call had its effect."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys to sign with; a minted session has a token, and says when it ends."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """The current version of one object."""

    key: str
    version: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    """What HEAD tells of one object."""

    version: str | None
    etag: str
    size: int
    metadata: Mapping[str, str]
    #: The headers of `CARRIED` that it has.
    carried: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Copied:
    """What the provider said of a copy."""

    version: str | None
    etag: str
    request: str


@dataclass(frozen=True, slots=True)
class Provider:
    """Where S3 and STS are."""

    region: str
    #: None: AWS's own endpoints.
    endpoint: str | None = None


class OneSendSession(AIOHTTPSession):  # type: ignore[misc]
    """An HTTP session that never sends a request twice."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        # There is no public switch. Read first: should the attribute go away, fail here and not later, silently.
        if session._retry_connection:  # noqa: SLF001
            session._retry_connection = False  # noqa: SLF001
        return session


class Bucket:
    """S3 through one session. Get it from `Aws.s3`."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def current_versions(self, bucket: str, prefix: str, at_most: int) -> list[Version]:
        """The current objects below `prefix`, by key. One more than `at_most` is returned when there are more."""
        found: list[Version] = []
        more: dict[str, str] = {}
        while True:
            with _told():
                page: dict[str, Any] = await self._raw.list_object_versions(Bucket=bucket, Prefix=prefix, **more)
            for item in page.get("Versions", []):
                if item["IsLatest"]:
                    found.append(Version(item["Key"], item["VersionId"], unquoted(item["ETag"]), item["Size"]))
                if len(found) > at_most:
                    return sorted(found, key=_key)
            if not page["IsTruncated"]:
                return sorted(found, key=_key)
            more = {"KeyMarker": page["NextKeyMarker"]}
            if marker := page.get("NextVersionIdMarker"):
                more["VersionIdMarker"] = marker

    async def keys(self, bucket: str, prefix: str, at_most: int) -> set[str]:
        """The keys of the current objects below `prefix`; more than `at_most` of them when there are more."""
        found: set[str] = set()
        more: dict[str, str] = {}
        while True:
            with _told():
                page: dict[str, Any] = await self._raw.list_objects_v2(Bucket=bucket, Prefix=prefix, **more)
            found.update(item["Key"] for item in page.get("Contents", []))
            if not page["IsTruncated"] or len(found) > at_most:
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def is_versioned(self, bucket: str) -> bool:
        """Whether new versions keep the old ones."""
        with _told():
            answer: dict[str, Any] = await self._raw.get_bucket_versioning(Bucket=bucket)
        return bool(answer.get("Status") == "Enabled")

    async def is_public(self, bucket: str) -> bool | None:
        """Whether strangers can read the bucket by its policy or its access list; None when that cannot be read."""
        try:
            with _told():
                answer: dict[str, Any] = await self._raw.get_bucket_policy(Bucket=bucket)
            by_policy = lets_anyone_in(answer["Policy"])
        except RefusedError as no:
            if no.code != "NoSuchBucketPolicy":
                return None
            by_policy = False
        try:
            with _told():
                acl: dict[str, Any] = await self._raw.get_bucket_acl(Bucket=bucket)
        except RefusedError:
            return True if by_policy else None
        return by_policy or any(grant["Grantee"].get("URI") in PUBLIC_GROUPS for grant in acl["Grants"])

    async def head(self, bucket: str, key: str, version: str | None = None) -> Head:
        """What is known of an object without reading it."""
        pinned = {"VersionId": version} if version else {}
        with _told():
            answer: dict[str, Any] = await self._raw.head_object(Bucket=bucket, Key=key, **pinned)
        return Head(
            version=answer.get("VersionId"),
            etag=unquoted(answer["ETag"]),
            size=answer["ContentLength"],
            metadata=answer.get("Metadata", {}),
            carried={name: answer[name] for name in CARRIED if name in answer},
        )

    async def copy(
        self,
        source: tuple[str, Version],
        target: tuple[str, str],
        metadata: Mapping[str, str],
        carried: Mapping[str, str],
    ) -> Copied:
        """Copy one pinned version onto a key that must not exist yet. When this returns, the copy is stored."""
        bucket, pinned = source
        with _told():
            answer: dict[str, Any] = await self._raw.copy_object(
                Bucket=target[0],
                Key=target[1],
                CopySource={"Bucket": bucket, "Key": pinned.key, "VersionId": pinned.version},
                CopySourceIfMatch=f'"{pinned.etag}"',
                IfNoneMatch="*",
                MetadataDirective="REPLACE",
                # Tags would need rights of their own on both sides: they are left behind.
                TaggingDirective="REPLACE",
                Metadata=dict(metadata),
                **carried,
            )
        etag = unquoted(answer["CopyObjectResult"]["ETag"])
        return Copied(answer.get("VersionId"), etag, answer["ResponseMetadata"].get("RequestId", ""))


class Aws:
    """Opens clients. Keeps the service models, which take a tenth of a second to read."""

    def __init__(self, provider: Provider, base: Credentials | None) -> None:
        self._provider = provider
        #: None: whatever identity the environment gives the process (an instance or pod role).
        self._base = base
        self._models: AioSession = get_session()

    async def assume_role(self, role: str, name: str, policy: str, seconds: int) -> Credentials:
        """A session of `role`, cut by `policy`. `name` becomes the session's name and its source identity."""
        async with self._client("sts", self._base, read_timeout=20) as sts:
            with _told():
                answer: dict[str, Any] = await sts.assume_role(
                    RoleArn=role, RoleSessionName=name, SourceIdentity=name, Policy=policy, DurationSeconds=seconds
                )
        minted = answer["Credentials"]
        return Credentials(
            minted["AccessKeyId"], minted["SecretAccessKey"], minted["SessionToken"], minted["Expiration"]
        )

    @asynccontextmanager
    async def s3(self, credentials: Credentials, read_timeout: float = 60) -> AsyncIterator[Bucket]:
        """S3 with these credentials."""
        async with self._client("s3", credentials, read_timeout=read_timeout) as raw:
            yield Bucket(raw)

    def _client(self, service: str, keys: Credentials | None, *, read_timeout: float) -> Any:
        config = AioConfig(
            connect_timeout=5,
            read_timeout=read_timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},
            http_session_cls=OneSendSession,
            # A custom endpoint seldom has a DNS name for each bucket.
            s3={"addressing_style": "path" if self._provider.endpoint else "auto"},
        )
        given = {}
        if keys is not None:
            given = {
                "aws_access_key_id": keys.access_key,
                "aws_secret_access_key": keys.secret_key,
                "aws_session_token": keys.token,
            }
        return self._models.create_client(
            service, region_name=self._provider.region, endpoint_url=self._provider.endpoint, config=config, **given
        )


def lets_anyone_in(policy: str) -> bool:
    """Whether a bucket policy allows anything to anyone. Conditions are not weighed: they count as if they held."""
    document: dict[str, Any] = json.loads(policy)
    statements = document["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal")
        named = principal.values() if isinstance(principal, dict) else [principal]
        anyone = any("*" in (names if isinstance(names, list) else [names]) for names in named)
        if statement["Effect"] == "Allow" and (anyone or "NotPrincipal" in statement):
            return True
    return False


def unquoted(etag: str) -> str:
    """An ETag without the quotes that some answers have and some have not."""
    return etag.strip('"')


def _key(version: Version) -> str:
    return version.key


@contextmanager
def _told() -> Iterator[None]:
    """Turns the SDK's errors into ours: was it refused for certain, or is it open?"""
    try:
        yield
    except ClientError as exc:
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        error = exc.response.get("Error", {})
        code, message = str(error.get("Code", "")), str(error.get("Message", ""))
        # S3 answers SlowDown before it does anything; of any other 5xx nobody knows.
        if MULTIPLE_CHOICES <= status < INTERNAL_SERVER_ERROR or code == "SlowDown":
            raise RefusedError(status, code, message) from exc
        raise UnansweredError(f"the provider answered {status} {code}") from exc
    except (BotoCoreError, OSError) as exc:
        if _is_unsent(exc):
            raise RefusedError(0, "NotSent", f"the request never left ({type(exc).__name__})") from exc
        raise UnansweredError(f"no answer from the provider ({type(exc).__name__})") from exc


def _is_unsent(error: Exception) -> bool:
    """Whether nothing was sent. EndpointConnectionError alone does not say so: a reset one ends in it too."""
    if isinstance(error, EndpointConnectionError):
        return isinstance(error.kwargs.get("error"), aiohttp.ClientConnectorError)
    return isinstance(error, (ConnectTimeoutError, ParamValidationError))
