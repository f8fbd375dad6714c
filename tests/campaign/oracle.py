"""Judges what was really done, by the versions that lie in S3. Imports nothing of ours, and runs as its own process.

    python -P oracle.py        one case a line of JSON on stdin, one judgement a line on stdout

A case is what an agent asked for, whether anybody (or a rule) ever said yes, and what the agent was told in the end:

    {"endpoint", "region", "access_key", "secret_key",
     "intents": [{"id", "bucket", "prefix", "objects": {key: SHA-256 of its body}, "consented": true, "told": phase}]}

The judgement is {"checked", "done", "faults": [..]}. It is a fault when an object was written twice, deleted, has other
bytes or was never asked for; when anything was done without a yes, or though the agent was told that nothing was; when
something is missing though the agent was told it succeeded; and when the agent was told no end at all.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import botocore.config
import botocore.session

NOTHING_DONE = frozenset({"refused", "denied", "withdrawn", "revoked", "expired"})
ENDS = NOTHING_DONE | {"succeeded", "failed"}


def judge(case: dict[str, Any]) -> dict[str, Any]:
    client = botocore.session.Session().create_client(
        "s3",
        region_name=case["region"],
        endpoint_url=case["endpoint"],
        aws_access_key_id=case["access_key"],
        aws_secret_access_key=case["secret_key"],
        config=botocore.config.Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    faults: list[str] = []
    done = 0
    for intent in case["intents"]:
        found, deleted = versions(client, intent["bucket"], intent["prefix"])
        done += bool(found)
        faults += [f"{intent['id']}: {fault}" for fault in faults_of(client, intent, found, deleted)]
    return {"checked": len(case["intents"]), "done": done, "faults": faults}


def versions(client: Any, bucket: str, prefix: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Every version below the prefix, as (key, version id), and every key with a delete marker."""
    found: list[tuple[str, str]] = []
    deleted: list[str] = []
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        found += [(each["Key"], each["VersionId"]) for each in page.get("Versions", ())]
        deleted += [each["Key"] for each in page.get("DeleteMarkers", ())]
    return found, deleted


def faults_of(client: Any, intent: dict[str, Any], found: list[tuple[str, str]], deleted: list[str]) -> Iterator[str]:
    asked: dict[str, str] = intent["objects"]
    for key, count in Counter(key for key, _ in found).items():
        if count > 1:
            yield f"done twice: {count} versions of {key}"
        if key not in asked:
            yield f"never asked for: {key}"
    for key in deleted:
        yield f"deleted: {key}"
    for key, version in found:
        body = client.get_object(Bucket=intent["bucket"], Key=key, VersionId=version)["Body"].read()
        if hashlib.sha256(body).hexdigest() != asked.get(key):
            yield f"other bytes: {key}"
    yield from against_what_was_told(intent, {key for key, _ in found})


def against_what_was_told(intent: dict[str, Any], found: set[str]) -> Iterator[str]:
    told = intent["told"]
    if told not in ENDS:
        yield f"lost: told {told!r}, which is no end"
    if found and not intent["consented"]:
        yield f"done without a yes: {len(found)} objects"
    if found and told in NOTHING_DONE:
        yield f"done, though the agent was told {told}"
    if told == "succeeded" and (missing := set(intent["objects"]) - found):
        yield f"lost: {len(missing)} objects are missing, though it succeeded"


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(judge(json.loads(line))) + "\n")
        sys.stdout.flush()
