"""`make campaign RUNS=n SEED=s`: kills at every named point and at random, and judges what is left (docs/survival.md).

One line a run. The seed of a run is SEED plus its number: `make campaign RUNS=1 SEED=<it>` plays it again.
"""

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sandbox.world import Sandbox
from streams import connection
from streams.crashpoints import POINTS
from tests.campaign.play import Judged, staged, verified
from tests.campaign.realm import campaign_realm
from tests.campaign.script import Script, script
from tests.campaign.troupe import Troupe

RUNS_A_REALM: Final = 25
"""Then a fresh one: verifying a trail takes longer the longer it is."""


@dataclass
class Tally:
    """What the runs came to."""

    runs: int = 0
    faults: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    trails: int = 0
    seconds: list[float] = field(default_factory=list)
    fail_stops: Counter[str] = field(default_factory=Counter)

    def take(self, played: Script, judged: Judged) -> None:
        self.runs += 1
        self.seconds.append(judged.seconds)
        self.ends += judged.ends
        self.faults += [f"seed {played.seed}: {fault}" for fault in judged.faults]
        for blow in played.blows:
            self.signals[f"{blow.signal} to {blow.victim} at random"] += 1

    def take_troupe(self, troupe: Troupe) -> None:
        troupe.look()
        self.hits += troupe.hits
        self.struck += troupe.struck
        self.fail_stops += troupe.fail_stops()
        for kind, found in troupe.recoveries.items():
            self.recoveries[kind] += found

    @property
    def unreached(self) -> list[str]:
        return [point for point in POINTS if not self.hits[point]]

    def lines(self) -> list[str]:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        lines = [f"{self.runs} runs, {self.ends.total()} intents: {ends}; {self.trails} trails verified", ""]
        lines += [f"{'point':<34}{'hits':>7}{'struck':>8}"]
        lines += [f"{point:<34}{self.hits[point]:>7}{self.struck[point]:>8}" for point in POINTS]
        lines += ["", f"{'serves again, seconds':<34}{'deaths':>7}{'p50':>8}{'max':>8}"]
        for kind, found in sorted(self.recoveries.items()):
            lines.append(f"{kind:<34}{len(found):>7}{statistics.median(found):>8.1f}{max(found):>8.1f}")
        lines += ["", "ended by itself, because of what died around it"]
        lines += [f"{count:>7} {why}" for why, count in self.fail_stops.most_common()]
        lines += ["", f"a run: p50 {statistics.median(self.seconds):.1f} s, max {max(self.seconds):.1f} s"]
        return [*lines, "", *(self.faults or ["0 lost, 0 done twice, 0 trails broken, every intent ended"])]


async def campaign(runs: int, seed: int, keep: Path | None, a_realm: int = RUNS_A_REALM) -> Tally:
    """All runs, a fresh realm every so many."""
    tally = Tally()
    number = 0
    while number < runs and len(tally.faults) < 20:
        upto = min(number + a_realm, runs)
        with tempfile.TemporaryDirectory(prefix="keyturn-campaign-", ignore_cleanup_errors=True) as folder:
            home = keep / f"realm-{number}" if keep is not None else Path(folder)
            await _one_realm(home, range(number, upto), runs, seed, tally)
        number = upto
    return tally


async def _one_realm(folder: Path, numbers: range, runs: int, seed: int, tally: Tally) -> None:
    sandbox = Sandbox(folder)
    began = time.monotonic()
    async with campaign_realm(sandbox) as world, Troupe(world.folder, sandbox.kafka) as troupe:
        async with staged(world, troupe) as stage:
            _say(f"a realm, and two of each role, after {time.monotonic() - began:.1f} s")
            for number in numbers:
                played = script(seed + number)
                judged = await stage.play(played)
                tally.take(played, judged)
                _say(_line(number, runs, played, judged))
                if judged.faults:
                    _say(troupe.tails())
        is_clean, text = await verified(world)
        tally.trails += 1
        _say(text)
        if not is_clean:
            tally.faults.append(f"the trail of seeds {seed + numbers.start} to {seed + numbers[-1]} is broken: {text}")
        tally.take_troupe(troupe)


def _line(number: int, runs: int, played: Script, judged: Judged) -> str:
    ends = " ".join(f"{end}:{count}" for end, count in sorted(judged.ends.items()))
    how = "ok" if not judged.faults else "FAULT " + "; ".join(judged.faults)
    missed = f" ({judged.not_reached} not reached)" if judged.not_reached else ""
    return f"{number + 1:>4}/{runs} seed {played.seed} {judged.seconds:5.1f} s  {played}{missed}  {ends}  {how}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=len(POINTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="A folder to keep the realms in, to look at afterwards.")
    parser.add_argument("--report", type=Path, help="A file for the figures, as JSON.")
    given = parser.parse_args()
    connection.quiet_client_logs()
    # Deaths are what this is about: each is told in its run's line.
    logging.getLogger("sandbox.supervise").setLevel(logging.CRITICAL)
    tally = asyncio.run(campaign(given.runs, given.seed, given.keep))
    _say("\n".join(tally.lines()))
    if given.report is not None:
        figures = {"hits": tally.hits, "struck": tally.struck, "ends": tally.ends, "recoveries": tally.recoveries}
        given.report.write_text(json.dumps(figures | {"faults": tally.faults, "seconds": tally.seconds}))
    if given.runs >= len(POINTS) and (unreached := tally.unreached):
        _say(f"never reached: {', '.join(unreached)}: the campaign proves nothing of them")
        return 1
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
