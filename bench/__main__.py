"""`make bench`: every figure in one run, with the commit and the machine it was taken on."""

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bench import floors, ours, postgres
from bench.figures import Board
from bench.stand import ROOT, stand


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--intents", type=int, default=20_000, help="how many go through each phase, and are pending then"
    )
    parser.add_argument("--decisions", type=int, default=300, help="how many are decided one by one")
    parser.add_argument("--lifecycles", type=int, default=5_000, help="how many go the whole way at once")
    parser.add_argument("--only", choices=("ours", "floors", "postgres"), action="append", help="parts; default: all")
    told = parser.parse_args()
    asyncio.run(_run(told, told.only or ["ours", "floors", "postgres"]))


async def _run(told: argparse.Namespace, parts: list[str]) -> None:
    print(_machine(), flush=True)
    board, begun = Board(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as name:
        if {"ours", "floors"} & set(parts):
            async with stand(Path(name)) as made:
                if "floors" in parts:
                    await floors.run(made, board, told.intents, told.decisions)
                if "ours" in parts:
                    await ours.run(made, board, told.intents, told.decisions, told.lifecycles, Path(name))
        if "postgres" in parts:
            await postgres.run(board, told.lifecycles, told.decisions)
    print(f"\nall of it in {time.monotonic() - begun:.0f} s", flush=True)


def _machine() -> str:
    commit = subprocess.run(  # noqa: S603 - our own words
        [shutil.which("git") or "git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    told = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    cpu = next((value.strip() for name, _, value in told if name.strip() == "model name"), platform.processor())
    load = os.getloadavg()[0]
    return (
        f"keyturn {commit or 'unknown'}, Python {platform.python_version()}, {os.cpu_count()} x {cpu}, "
        f"{platform.system()} {platform.release()}, load before {load:.1f}"
    )


if __name__ == "__main__":
    main()
