"""`make campaign RUNS=n SEED=s`: kills at every named point and at random, and judges what is left (docs/survival.md).

One line a run. The seed of a run is SEED plus its number: `make campaign RUNS=1 SEED=<it>` plays it again.
"""

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path

from streams import connection
from streams.crashpoints import POINTS
from tests.campaign.running import campaign, say


def main() -> int:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=len(POINTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="A folder to keep the realms in, to look at afterwards.")
    parser.add_argument("--report", type=Path, help="A file for the figures, as JSON.")
    parser.add_argument("--minutes", type=float, help="Begin no run after so many minutes.")
    given = parser.parse_args()
    connection.quiet_client_logs()
    # Deaths are what this is about: each is told in its run's line.
    logging.getLogger("sandbox.supervise").setLevel(logging.CRITICAL)
    tally = asyncio.run(campaign(given.runs, given.seed, given.keep, given.minutes))
    say("\n".join(tally.lines()))
    if given.report is not None:
        figures = {"hits": tally.hits, "struck": tally.struck, "ends": tally.ends, "recoveries": tally.recoveries}
        given.report.write_text(json.dumps(figures | {"faults": tally.faults, "seconds": tally.seconds}))
    if tally.runs >= len(POINTS) and (unreached := tally.unreached):
        say(f"never reached: {', '.join(unreached)}: the campaign proves nothing of them")
        return 1
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
