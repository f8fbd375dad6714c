"""Seeded histories through the shipped core and executors. The long form is `make simulate`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.simulation.expected import OFTEN
from tests.simulation.run import Tally, on_all_cores, report

HISTORIES = 112
ROOT = Path(__file__).parents[2]
DIGESTS = """
from tests.simulation import primitives, run
primitives.install(is_swift={is_swift})
tally = run.tell_many({seeds}, keeps_digest=True)
print(sorted(tally.digests.items()), sorted(tally.wrong.items()))
"""

TWICE = """
from tests.broker.builders import DIRECTORY, REALM
from tests.simulation import primitives
from tests.simulation.history import settings_of
primitives.install()
world = settings_of("core-0").empty_world()
said = primitives.state(DIRECTORY, primitives.signer("root"), REALM)
print([world.with_snapshot(said, at).directories_since for at in (5, 7, 5)])
"""


def test_what_the_simulation_remembers_is_not_the_time_of_another_history() -> None:
    assert python(TWICE, "0") == "[(5,), (7,), (5,)]\n"


def told(seeds: Iterable[int], hash_seed: str, *, is_swift: bool = True) -> str:
    """What these histories left, told in this order by a process of its own."""
    return python(DIGESTS.format(seeds=list(seeds), is_swift=is_swift), hash_seed)


def python(code: str, hash_seed: str) -> str:
    """What a process of its own prints."""
    return subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.timeout(600)
def test_no_history_breaks_a_law_and_they_reach_what_matters() -> None:
    total = Tally()
    for tally in on_all_cores(0, HISTORIES, jobs=2):
        total.add(tally)
    assert not total.wrong, "\n".join(report(total, 1.0, []))
    # `make simulate` demands the whole list; so few histories reach most of it.
    missed = [name for name in OFTEN if not total.reached[name]]
    assert len(missed) < len(OFTEN) / 3, missed
    assert total.reached["grants judged"] > HISTORIES / 2
    assert total.reached["effects judged"] > HISTORIES / 4
    assert sum(total.faults.values()) > 2 * HISTORIES


def test_the_same_seeds_make_the_same_histories_whatever_strings_hash_to_and_whatever_was_told_before() -> None:
    first = told(range(14), "1")
    assert first == told(reversed(range(14)), "2")
    assert first.endswith("[]\n"), first


@pytest.mark.timeout(600)
def test_every_order_of_events_in_two_small_worlds_keeps_the_laws_and_leads_to_an_end() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tests.simulation.exhaust", "--short"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    states, transitions, grants = (
        [int(number) for number in re.findall(r"(\d+) " + what, "\n".join(said))]
        for what in ("states", "transitions", "grants")
    )
    assert sum(states) > 1_000, said
    assert sum(transitions) > 20_000, said
    # Of three seats, two persons with three accounts fill none.
    assert grants[0] > 10, said
    assert grants[1] == 0, said


def test_with_real_signatures_the_laws_hold_too() -> None:
    assert told(range(14, 20), "0", is_swift=False).endswith("[]\n")
