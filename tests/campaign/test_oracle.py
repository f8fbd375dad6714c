"""The oracle of the campaign finds what it must find, knows nothing of ours, and is silent when all is well."""

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from sandbox.s3 import LocalS3, S3Address
from tests.campaign.play import ORACLE

BUCKET = "effects"
BODY = b"one thing"


@dataclass
class Shelf:
    address: S3Address
    s3: Any

    async def put(self, *keys: str, body: bytes = BODY) -> None:
        for key in keys:
            await self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    async with LocalS3(tmp_path_factory.mktemp("s3"), stop_within=timedelta(milliseconds=50)) as address:
        client: Any = get_session().create_client(
            "s3",
            region_name=address.region,
            endpoint_url=address.endpoint,
            aws_access_key_id=address.admin.access_key,
            aws_secret_access_key=address.admin.secret_key,
            config=AioConfig(s3={"addressing_style": "path"}, signature_version="s3v4"),
        )
        async with client as s3:
            await s3.create_bucket(Bucket=BUCKET)
            await s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
            yield Shelf(address, s3)


def judged(shelf: Shelf, *intents: dict[str, Any]) -> list[str]:
    case = {
        "endpoint": shelf.address.endpoint,
        "region": shelf.address.region,
        "access_key": shelf.address.admin.access_key,
        "secret_key": shelf.address.admin.secret_key,
        "intents": intents,
    }
    done = subprocess.run(  # noqa: S603 - our own oracle
        [sys.executable, "-I", str(ORACLE)],
        input=json.dumps(case).encode(),
        capture_output=True,
        check=True,
        timeout=30,
    )
    verdict = json.loads(done.stdout)
    assert verdict["checked"] == len(intents)
    faults: list[str] = verdict["faults"]
    return faults


def asked(prefix: str, told: str | None, *, consented: bool = True) -> dict[str, Any]:
    digest = hashlib.sha256(BODY).hexdigest()
    objects = {f"{prefix}a": digest, f"{prefix}b": digest}
    return {
        "id": prefix.rstrip("/"),
        "bucket": BUCKET,
        "prefix": prefix,
        "objects": objects,
        "consented": consented,
        "told": told,
    }


async def test_what_was_done_once_as_asked_and_what_was_not_done_at_all_is_well(shelf: Shelf) -> None:
    await shelf.put("well/a", "well/b", "half/a")
    nothing = [asked(f"nothing-{told}/", told, consented=False) for told in ("denied", "expired", "refused")]
    assert judged(shelf, asked("well/", "succeeded"), asked("half/", "failed"), *nothing) == []


async def test_every_kind_of_wrong_is_found(shelf: Shelf) -> None:
    await shelf.put("twice/a", "twice/b", "twice/a")
    await shelf.put("foreign/a", "foreign/b", "foreign/c")
    await shelf.put("other/a", body=b"something else")
    await shelf.put("other/b", "missing/a", "denied/a", "unasked/a", "unasked/b", "gone/a", "gone/b")
    await shelf.s3.delete_object(Bucket=BUCKET, Key="gone/a")
    assert judged(
        shelf,
        asked("twice/", "succeeded"),
        asked("foreign/", "succeeded"),
        asked("other/", "succeeded"),
        asked("missing/", "succeeded"),
        asked("denied/", "denied"),
        asked("unasked/", "succeeded", consented=False),
        asked("gone/", "succeeded"),
        asked("open/", "executing"),
        asked("unheard/", None),
    ) == [
        "twice: done twice: 2 versions of twice/a",
        "foreign: never asked for: foreign/c",
        "foreign: other bytes: foreign/c",
        "other: other bytes: other/a",
        "missing: lost: 1 objects are missing, though it succeeded",
        "denied: done, though the agent was told denied",
        "unasked: done without a yes: 2 objects",
        "gone: deleted: gone/a",
        "open: lost: told 'executing', which is no end",
        "unheard: lost: told None, which is no end",
    ]


def test_it_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(ORACLE).read_bytes())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == {"botocore"}
