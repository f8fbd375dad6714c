"""Starts a process that executes and hangs, to be killed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from sandbox.s3 import S3Address
    from schemas.records import Intent, Plan


async def started_victim(address: S3Address, intent: Intent, plan: Plan, hangs_in: str, written: Path) -> Process:
    """A process that executes `plan`, once it hangs in the journal of step 2; what it journalled is in `written`."""
    task = {
        "endpoint": address.endpoint,
        "region": address.region,
        "read_role": address.read_role,
        "export_role": address.export_role,
        "delete_role": address.delete_role,
        "access_key": address.executor.access_key,
        "secret_key": address.executor.secret_key,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.executors_s3.victim",
        json.dumps(task),
        intent.to_bytes().decode(),
        plan.to_bytes().decode(),
        hangs_in,
        str(written),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"hanging\n"
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process
