"""What each session may do, and until when. No I/O, no clock.

A planning session lists; an observing one also reads metadata in the destination; an acting one reads the planned
versions, writes the planned keys, and carries the instant it dies at in every statement (law 5).
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from executors.s3.client import Version
from executors.s3.parameters import Export
from schemas import ids

MAX_POLICY: Final = 2048
"""AWS takes no longer session policy (STS API, AssumeRole, Policy)."""
MIN_SECONDS: Final = 900
"""No session is shorter (STS API, AssumeRole, DurationSeconds)."""
_WILD: Final = frozenset("*?$")


def session_name(intent_id: str) -> str:
    """A session's name and source identity: at most 64 characters, of which the ULID tells intents apart."""
    requester = ids.requester_of(intent_id)
    return f"{requester[:37]}.{intent_id.rpartition('.')[2]}"


def planning_policy(export: Export) -> str:
    """List the source prefix and the destination prefix, and read how both buckets are set up."""
    return _document(_looking(export))


def observing_policy(export: Export) -> str:
    """List the destination prefix, and read what lies below it."""
    readable = _arn(export.destination_bucket, f"{export.destination_prefix}*")
    return _document(
        [
            _listing("s3:ListBucket", export.destination_bucket, export.destination_prefix),
            _allow(["s3:GetObject", "s3:GetObjectVersion"], [readable]),
        ]
    )


def acting_policy(export: Export, objects: Sequence[Version], dies_at: datetime) -> str:
    """Read exactly the planned objects and write exactly their targets, before `dies_at`.

    When the keys do not fit, or one holds a character that a policy would take for a pattern, both sides are cut to
    their prefixes instead; versions and ETags are pinned in each copy either way.
    """
    targets = [export.target_of(item.key) for item in objects]
    exact = _acting(export, [item.key for item in objects], targets, dies_at)
    if len(exact) <= MAX_POLICY and not any(_WILD & set(item.key) for item in objects):
        return exact
    return _acting(export, [f"{export.source_prefix}*"], [f"{export.destination_prefix}*"], dies_at)


def whole_seconds(unix_ms: int) -> datetime:
    """The instant, rounded down: providers compare dates to the second, and a credential may only die early."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC)


def _acting(export: Export, keys: Iterable[str], targets: Iterable[str], dies_at: datetime) -> str:
    dated = {"DateLessThan": {"aws:CurrentTime": dies_at.strftime("%Y-%m-%dT%H:%M:%SZ")}}
    return _document(
        [
            _allow(["s3:GetObject", "s3:GetObjectVersion"], [_arn(export.source_bucket, key) for key in keys], dated),
            _allow(["s3:PutObject"], [_arn(export.destination_bucket, key) for key in targets], dated),
        ]
    )


def _looking(export: Export) -> list[dict[str, object]]:
    buckets = sorted({_arn(export.source_bucket), _arn(export.destination_bucket)})
    return [
        _listing("s3:ListBucketVersions", export.source_bucket, export.source_prefix),
        _listing("s3:ListBucket", export.destination_bucket, export.destination_prefix),
        _allow(["s3:GetBucketVersioning"], buckets),
        _allow(["s3:GetBucketPolicy", "s3:GetBucketAcl"], [_arn(export.destination_bucket)]),
    ]


def _listing(action: str, bucket: str, prefix: str) -> dict[str, object]:
    return _allow([action], [_arn(bucket)], {"StringEquals": {"s3:prefix": prefix}})


def _allow(
    actions: list[str], resources: list[str], condition: dict[str, dict[str, str]] | None = None
) -> dict[str, object]:
    statement: dict[str, object] = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | ({"Condition": condition} if condition else {})


def _arn(bucket: str, key: str | None = None) -> str:
    return f"arn:aws:s3:::{bucket}" if key is None else f"arn:aws:s3:::{bucket}/{key}"


def _document(statements: list[dict[str, object]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
