"""Executes an intent in a process of its own and hangs in the journal of its step, so that it can be killed there."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from executors.infra.executor import open_executor
from schemas.records import Intent, JournalEntry, Plan
from tests.executors_s3.acts import grant

if TYPE_CHECKING:
    from collections.abc import Mapping


async def main(settings: Mapping[str, str], intent: Intent, plan: Plan, hangs_in: str, written: Path) -> None:
    """Execute until the journal hangs."""

    async def write(entry: JournalEntry) -> None:
        with written.open("ab") as file:
            file.write(entry.to_bytes() + b"\n")
        if (entry.step, entry.entry) == (1, hangs_in):
            print("hanging", flush=True)  # noqa: T201  the parent waits for it
            await asyncio.Event().wait()

    await (await open_executor(settings)).execute(grant(intent, plan, after=write).act)


if __name__ == "__main__":
    asyncio.run(
        main(
            json.loads(sys.argv[1]),
            Intent.from_bytes(sys.argv[2].encode()),
            Plan.from_bytes(sys.argv[3].encode()),
            sys.argv[4],
            Path(sys.argv[5]),
        )
    )
