"""Every mutant on trial: `make mutants`. One that nothing catches is a missing test, or code that does nothing."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from random import Random

from tests.laws.mutating import ROOT
from tests.laws.trial import all_mutants


def tried(name: str) -> dict[str, object]:
    """What came of one mutant."""
    ended = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-m", "tests.laws.trial", name],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ended.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return {"by": None, "what": f"its trial broke: {ended.stderr.strip()[-300:]}", "seconds": 0.0}
    found: dict[str, object] = json.loads(lines[-1])
    return found


def trials(names: Sequence[str], jobs: int) -> Iterator[tuple[str, dict[str, object]]]:
    """As they end."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(tried, name): name for name in names}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def line_of(name: str, found: dict[str, object]) -> str:
    """For people."""
    verdict = "caught  " if found["by"] else "SURVIVED"
    many = f" after {found['histories']} histories" if "histories" in found else ""
    return f"{verdict} {name}: {found['by'] or 'nothing'}{many}, {found['seconds']} s: {found.get('what', '')}"


def chosen(count: int, seed: int) -> list[str]:
    """So many of those that a simulation catches, others for another seed."""
    names = [name for name, mutant in all_mutants().items() if not mutant.tests]
    return Random(seed).sample(names, min(count, len(names)))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.laws", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these (parts of names)")
    parser.add_argument("--some", type=int, help="only so many")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    names = chosen(given.some, given.seed) if given.some else list(all_mutants())
    if given.names:
        names = [name for name in names if any(part in name for part in given.names)]
    begun, survived = time.monotonic(), []
    for number, (name, found) in enumerate(trials(names, given.jobs), 1):
        sys.stdout.write(f"{number:3}/{len(names)} {line_of(name, found)}\n")
        sys.stdout.flush()
        if not found["by"]:
            survived.append(name)
    sys.stdout.write(f"{len(names) - len(survived)} of {len(names)} caught in {time.monotonic() - begun:.0f} s\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
