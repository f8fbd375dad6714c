"""The only module of this executor that knows the SDK: S3 in our own words, each call sent once."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from executors.aws.client import Aws, Credentials, RefusedError, UnansweredError, told

PUBLIC_GROUPS: Final = frozenset(
    {
        "http://acs.amazonaws.com/groups/global/AllUsers",
        "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
    }
)
CARRIED: Final = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType")
"""Headers that a copy with replaced metadata must be given again, or it loses them."""


@dataclass(frozen=True, slots=True)
class Version:
    """The current version of one object."""

    key: str
    version: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Stand:
    """One entry in the history of a key: a version, or a delete marker."""

    version: str
    is_marker: bool
    is_latest: bool
    modified: datetime


@dataclass(frozen=True, slots=True)
class Expiry:
    """A rule that erases versions so many days after they were replaced or deleted."""

    prefix: str
    days: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """What the provider said of a deletion."""

    #: The id of the delete marker.
    marker: str
    request: str


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


class Bucket:
    """S3 through one session. Get it from `Aws.s3`."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def current_versions(self, bucket: str, prefix: str, at_most: int) -> list[Version]:
        """The current objects below `prefix`, by key. One more than `at_most` is returned when there are more."""
        found: list[Version] = []
        more: dict[str, str] = {}
        while True:
            with told():
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
            with told():
                page: dict[str, Any] = await self._raw.list_objects_v2(Bucket=bucket, Prefix=prefix, **more)
            found.update(item["Key"] for item in page.get("Contents", []))
            if not page["IsTruncated"] or len(found) > at_most:
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def is_versioned(self, bucket: str) -> bool:
        """Whether new versions keep the old ones."""
        with told():
            answer: dict[str, Any] = await self._raw.get_bucket_versioning(Bucket=bucket)
        return bool(answer.get("Status") == "Enabled")

    async def needs_mfa(self, bucket: str) -> bool:
        """Whether a version, and so a marker too, can be erased only with a second factor."""
        with told():
            answer: dict[str, Any] = await self._raw.get_bucket_versioning(Bucket=bucket)
        return bool(answer.get("MFADelete") == "Enabled")

    async def expiries(self, bucket: str) -> tuple[Expiry, ...] | None:
        """The rules in force that erase replaced versions; None when they cannot be read."""
        try:
            with told():
                answer: dict[str, Any] = await self._raw.get_bucket_lifecycle_configuration(Bucket=bucket)
        except RefusedError as no:
            return () if no.code == "NoSuchLifecycleConfiguration" else None
        found: list[Expiry] = []
        for rule in answer.get("Rules", []):
            days = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
            if rule["Status"] == "Enabled" and days is not None:
                # Tags and sizes are not weighed: they count as if they matched.
                by = rule.get("Filter", {})
                found.append(
                    Expiry(by.get("Prefix") or by.get("And", {}).get("Prefix") or rule.get("Prefix", ""), days)
                )
        return tuple(found)

    async def is_locked(self, bucket: str) -> bool | None:
        """Whether the bucket has object lock; None when that cannot be read."""
        try:
            with told():
                answer: dict[str, Any] = await self._raw.get_object_lock_configuration(Bucket=bucket)
        except RefusedError as no:
            return False if no.code == "ObjectLockConfigurationNotFoundError" else None
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    async def history(self, bucket: str, key: str, at_most: int = 100) -> list[Stand]:
        """The versions and delete markers of one key, newest first; the oldest are left out past `at_most`."""
        with told():
            page: dict[str, Any] = await self._raw.list_object_versions(Bucket=bucket, Prefix=key, MaxKeys=at_most)
        found = [
            Stand(item["VersionId"], is_marker, item["IsLatest"], item["LastModified"])
            for name, is_marker in (("Versions", False), ("DeleteMarkers", True))
            for item in page.get(name, [])
            if item["Key"] == key
        ]
        # The answer has two lists and dates of whole seconds: only the first place is certain.
        return sorted(found, key=lambda stand: (stand.is_latest, stand.modified, stand.is_marker), reverse=True)

    async def delete(self, bucket: str, planned: Version) -> Deleted:
        """Put a delete marker over an object that still has this ETag. When this returns, the marker stands."""
        with told():
            answer: dict[str, Any] = await self._raw.delete_object(
                Bucket=bucket, Key=planned.key, IfMatch=f'"{planned.etag}"'
            )
        if not answer.get("DeleteMarker") or not answer.get("VersionId"):
            raise UnansweredError("the provider says that it deleted, and names no delete marker")
        return Deleted(answer["VersionId"], answer["ResponseMetadata"].get("RequestId", ""))

    async def is_public(self, bucket: str) -> bool | None:
        """Whether strangers can read the bucket by its policy or its access list; None when that cannot be read."""
        try:
            with told():
                answer: dict[str, Any] = await self._raw.get_bucket_policy(Bucket=bucket)
            by_policy = lets_anyone_in(answer["Policy"])
        except RefusedError as no:
            if no.code != "NoSuchBucketPolicy":
                return None
            by_policy = False
        try:
            with told():
                acl: dict[str, Any] = await self._raw.get_bucket_acl(Bucket=bucket)
        except RefusedError:
            return True if by_policy else None
        return by_policy or any(grant["Grantee"].get("URI") in PUBLIC_GROUPS for grant in acl["Grants"])

    async def head(self, bucket: str, key: str, version: str | None = None) -> Head:
        """What is known of an object without reading it."""
        pinned = {"VersionId": version} if version else {}
        with told():
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
        with told():
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


@asynccontextmanager
async def s3(aws: Aws, credentials: Credentials, read_timeout: float = 60) -> AsyncIterator[Bucket]:
    """S3 with these credentials."""
    async with aws.client("s3", credentials, read_timeout=read_timeout) as raw:
        yield Bucket(raw)


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
