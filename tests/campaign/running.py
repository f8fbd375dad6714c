"""Many runs, a fresh realm every so many, and what they came to."""

import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sandbox.world import Sandbox
from streams.crashpoints import POINTS
from tests.campaign.play import Judged, staged, verified
from tests.campaign.realm import campaign_realm
from tests.campaign.script import Script, script
from tests.campaign.troupe import Troupe

ENOUGH: Final = 20
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
            self.signals[f"{blow.signal} to {blow.victim}"] += 1

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
        if self.signals:
            lines += ["", "at any moment"]
            lines += [f"{count:>7} {what}" for what, count in sorted(self.signals.items())]
        lines += ["", "ended by itself, because of what died around it"]
        lines += [f"{count:>7} {why}" for why, count in self.fail_stops.most_common()]
        lines += ["", f"a run: p50 {statistics.median(self.seconds):.1f} s, max {max(self.seconds):.1f} s"]
        return [*lines, "", *(self.faults or ["0 lost, 0 done twice, 0 trails broken, every intent ended"])]


async def campaign(runs: int, seed: int, keep: Path | None = None, minutes: float | None = None) -> Tally:
    """All runs, a fresh realm every so many. Ends early when it has seen enough, or after so many minutes."""
    tally = Tally()
    until = time.monotonic() + minutes * 60 if minutes is not None else float("inf")
    while tally.runs < runs and len(tally.faults) < ENOUGH and time.monotonic() < until:
        first, upto = tally.runs, min(tally.runs + RUNS_A_REALM, runs)
        scripts = [script(seed + number) for number in range(first, upto)]
        with tempfile.TemporaryDirectory(prefix="keyturn-campaign-", ignore_cleanup_errors=True) as folder:
            home = keep / f"realm-{first}" if keep is not None else Path(folder)
            await in_one_realm(home, scripts, tally, f"{{}}/{runs}", until)
    return tally


async def in_one_realm(
    folder: Path, scripts: Sequence[Script], tally: Tally, numbered: str = "{}", until: float = float("inf")
) -> None:
    """Play these in a realm of their own, none after `until`, and verify its trail."""
    sandbox = Sandbox(folder)
    began = time.monotonic()
    async with campaign_realm(sandbox) as world, Troupe(world.folder, sandbox.kafka) as troupe:
        async with staged(world, troupe) as stage:
            say(f"a realm, and two of each role, after {time.monotonic() - began:.1f} s")
            for played in scripts:
                if time.monotonic() > until:
                    break
                judged = await stage.play(played)
                tally.take(played, judged)
                say(_line(numbered.format(tally.runs), played, judged))
                if judged.faults:
                    say(troupe.tails())
        is_clean, text = await verified(world)
        tally.trails += 1
        say(text)
        if not is_clean:
            tally.faults.append(f"the trail of seeds {scripts[0].seed} to {scripts[-1].seed} is broken: {text}")
        tally.take_troupe(troupe)


def _line(number: str, played: Script, judged: Judged) -> str:
    ends = " ".join(f"{end}:{count}" for end, count in sorted(judged.ends.items()))
    how = "ok" if not judged.faults else "FAULT " + "; ".join(judged.faults)
    missed = f" ({judged.not_reached} not reached)" if judged.not_reached else ""
    return f"{number:>8} seed {played.seed} {judged.seconds:5.1f} s  {played}{missed}  {ends}  {how}"


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
