"""What each session may do, and until when. No I/O, no clock.

A planning session lists; an observing one also reads metadata in the destination; an acting one reads the planned
versions, writes the planned keys, and carries the instant it dies at in every statement (law 5).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from executors.aws.sessions import MAX_POLICY, WILD, allow, document, until
from executors.s3.client import Version
from executors.s3.parameters import Delete, Export


def planning_policy(export: Export) -> str:
    """List the source prefix and the destination prefix, and read how both buckets are set up."""
    return document(_looking(export))


def observing_policy(export: Export) -> str:
    """List the destination prefix, and read what lies below it."""
    readable = _arn(export.destination_bucket, f"{export.destination_prefix}*")
    return document(
        [
            _listing("s3:ListBucket", export.destination_bucket, export.destination_prefix),
            allow(["s3:GetObject", "s3:GetObjectVersion"], [readable]),
        ]
    )


def acting_policy(export: Export, objects: Sequence[Version], dies_at: datetime) -> str:
    """Read exactly the planned objects and write exactly their targets, before `dies_at`.

    When the keys do not fit, or one holds a character that a policy would take for a pattern, both sides are cut to
    their prefixes instead; versions and ETags are pinned in each copy either way.
    """
    targets = [export.target_of(item.key) for item in objects]
    exact = _acting(export, [item.key for item in objects], targets, dies_at)
    if len(exact) <= MAX_POLICY and not any(WILD & set(item.key) for item in objects):
        return exact
    return _acting(export, [f"{export.source_prefix}*"], [f"{export.destination_prefix}*"], dies_at)


def delete_planning_policy(delete: Delete) -> str:
    """List the prefix, and read how the bucket keeps what is deleted."""
    reading = ["s3:GetBucketVersioning", "s3:GetLifecycleConfiguration", "s3:GetBucketObjectLockConfiguration"]
    return document([_histories(delete), allow(reading, [_arn(delete.bucket)])])


def delete_observing_policy(delete: Delete) -> str:
    """List the histories of the keys below the prefix."""
    return document([_histories(delete)])


def delete_acting_policy(delete: Delete, objects: Sequence[Version], dies_at: datetime) -> str:
    """Put delete markers on exactly the planned keys, and list their histories, before `dies_at`. Erase nothing.

    Cut to the prefix when the keys do not fit, as in `acting_policy`; ETags are pinned in each call either way.
    """
    exact = _deleting(delete, [item.key for item in objects], dies_at)
    if len(exact) <= MAX_POLICY and not any(WILD & set(item.key) for item in objects):
        return exact
    return _deleting(delete, [f"{delete.prefix}*"], dies_at)


def _deleting(delete: Delete, keys: Iterable[str], dies_at: datetime) -> str:
    dated = until(dies_at)
    # s3:DeleteObject alone: without s3:DeleteObjectVersion no version can be erased.
    deleting = allow(["s3:DeleteObject"], [_arn(delete.bucket, key) for key in keys], dated)
    return document([_histories(delete, dated), deleting])


def _histories(delete: Delete, dated: dict[str, dict[str, str]] | None = None) -> dict[str, object]:
    below = {"StringLike": {"s3:prefix": f"{delete.prefix}*"}}
    return allow(["s3:ListBucketVersions"], [_arn(delete.bucket)], below | (dated or {}))


def _acting(export: Export, keys: Iterable[str], targets: Iterable[str], dies_at: datetime) -> str:
    dated = until(dies_at)
    return document(
        [
            allow(["s3:GetObject", "s3:GetObjectVersion"], [_arn(export.source_bucket, key) for key in keys], dated),
            allow(["s3:PutObject"], [_arn(export.destination_bucket, key) for key in targets], dated),
        ]
    )


def _looking(export: Export) -> list[dict[str, object]]:
    buckets = sorted({_arn(export.source_bucket), _arn(export.destination_bucket)})
    return [
        _listing("s3:ListBucketVersions", export.source_bucket, export.source_prefix),
        _listing("s3:ListBucket", export.destination_bucket, export.destination_prefix),
        allow(["s3:GetBucketVersioning"], buckets),
        allow(["s3:GetBucketPolicy", "s3:GetBucketAcl"], [_arn(export.destination_bucket)]),
    ]


def _listing(action: str, bucket: str, prefix: str) -> dict[str, object]:
    return allow([action], [_arn(bucket)], {"StringEquals": {"s3:prefix": prefix}})


def _arn(bucket: str, key: str | None = None) -> str:
    return f"arn:aws:s3:::{bucket}" if key is None else f"arn:aws:s3:::{bucket}/{key}"
