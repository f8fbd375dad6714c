"""Many histories, on every core, and what they came to. `python -m tests.simulation --help`.

A history that breaks a law is told again with one command, which is printed. What no history reached is a failure too:
"no violation" means nothing where nothing happened.
"""

import argparse
import gc
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation import primitives
from tests.simulation.expected import missing_of
from tests.simulation.history import OURS, History
from tests.simulation.laws import Judge

CHUNK = 14
MOST_SHOWN = 10


@dataclass
class Tally:
    """What some histories came to."""

    histories: int = 0
    records: int = 0
    seconds: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    #: By seed: what was wrong.
    wrong: dict[int, list[str]] = field(default_factory=dict)
    #: One line a seed when asked for.
    digests: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        self.histories += other.histories
        self.records += other.records
        self.seconds += other.seconds
        self.reached.update(other.reached)
        self.faults.update(other.faults)
        self.wrong.update(other.wrong)
        self.digests.update(other.digests)


def tell(seed: int, *, keeps_digest: bool = False, tells: bool = False) -> tuple[Tally, list[str]]:
    """One history, judged; and its story."""
    begun = time.process_time()
    tally = Tally(histories=1)
    history = History(seed, tells=tells)
    try:
        left = history.run()
        judge = Judge(left.logs, left.effects, OURS, primitives.verifies)
        findings = judge.judge()
        findings += [f"escaped: {error!r}" for error in left.escaped]
        findings += [f"unfinished: {left.unfinished}"] if left.unfinished else []
        tally.reached.update(judge.reached)
        tally.reached.update(left.reached)
        tally.faults.update(left.faults)
        tally.records = sum(map(len, left.logs.values()))
        if keeps_digest:
            tally.digests[seed] = left.digest
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to this seed
        findings = [f"{type(error).__name__}: {error}", *traceback.format_exc().splitlines()[-3:]]
    if findings:
        tally.wrong[seed] = findings
    tally.seconds = time.process_time() - begun
    return tally, history.story


def tell_many(seeds: Iterable[int], *, keeps_digest: bool = False) -> Tally:
    """These histories, one after the other."""
    total = Tally()
    for seed in seeds:
        total.add(tell(seed, keeps_digest=keeps_digest)[0])
    return total


def _begin(is_swift: bool) -> None:
    primitives.install(is_swift=is_swift)
    # Nearly everything dies young; what was imported never does.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def on_all_cores(first: int, histories: int, *, jobs: int, is_swift: bool = True) -> Iterator[Tally]:
    """Tallies as they come; of one job, from this very process."""
    chunks = [range(at, min(at + CHUNK, first + histories)) for at in range(first, first + histories, CHUNK)]
    if jobs == 1:
        _begin(is_swift)
        yield from map(tell_many, chunks)
        return
    with get_context("spawn").Pool(jobs, _begin, (is_swift,), maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(tell_many, chunks)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--histories", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; 1: this one")
    parser.add_argument("--tell", type=int, metavar="SEED", help="this history alone, as a story")
    parser.add_argument("--ed25519", action="store_true", help="real signatures instead of swift ones")
    parser.add_argument("--counts", action="store_true", help="print everything that was counted")
    given = parser.parse_args()
    if given.tell is not None:
        return _retell(given.tell, is_swift=not given.ed25519)
    begun, total = time.monotonic(), Tally()
    shown_at = 0.0
    for tally in on_all_cores(given.seed, given.histories, jobs=given.jobs, is_swift=not given.ed25519):
        total.add(tally)
        now = time.monotonic() - begun
        if now - shown_at >= 1:
            shown_at = now
            _progress(total, given.histories, now)
    _progress(total, given.histories, time.monotonic() - begun)
    sys.stderr.write("\n")
    missing = missing_of(total.histories, total.reached, total.faults)
    sys.stdout.write("\n".join(report(total, time.monotonic() - begun, missing, is_full=given.counts)) + "\n")
    return 1 if total.wrong or missing else 0


def _retell(seed: int, *, is_swift: bool) -> int:
    primitives.install(is_swift=is_swift)
    tally, story = tell(seed, keeps_digest=True, tells=True)
    lines = [*story, "", *(f"WRONG  {text}" for text in tally.wrong.get(seed, ()))]
    lines.append(
        f"seed {seed}: {'broken' if tally.wrong else 'holds'}, {tally.records} records, {tally.digests.get(seed)}"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if tally.wrong else 0


def _progress(total: Tally, of: int, seconds: float) -> None:
    rate = total.histories / max(seconds, 0.001)
    sys.stderr.write(
        f"\r{total.histories}/{of} histories, {rate:.0f}/s, {sum(total.faults.values())} faults, "
        f"{len(total.wrong)} broken "
    )
    sys.stderr.flush()


def report(total: Tally, seconds: float, missing: list[str], *, is_full: bool = False) -> list[str]:
    """What a reader must know, and no more unless asked."""
    reached = total.reached
    lines = [
        (
            f"{total.histories} histories, {total.records} records, {sum(total.faults.values())} faults, "
            f"{reached['grants judged']} grants and {reached['effects judged']} effects judged, in {seconds:.0f} s "
            f"({total.histories / max(total.seconds, 0.001):.0f} histories a CPU second)"
        ),
        "interleavings: " + ", ".join(f"{number}: {reached[f'interleaving {number}']}" for number in range(1, 12)),
    ]
    if is_full:
        lines += ["reached:", *(f"  {count:8} {name}" for name, count in sorted(reached.items()))]
        lines += ["faults:", *(f"  {count:8} {name}" for name, count in sorted(total.faults.items()))]
    lines += [f"NEVER REACHED  {name}" for name in missing]
    for seed, findings in sorted(total.wrong.items())[:MOST_SHOWN]:
        lines += [f"seed {seed} is broken:", *(f"  {text}" for text in findings[:5])]
        lines.append(f"  tell it again: python -m tests.simulation --tell {seed}")
    lines.append("no law is broken" if not total.wrong and not missing else f"{len(total.wrong)} histories are broken")
    return lines
