"""The short form of the campaign: a few kills, judged as the long one judges (docs/survival.md)."""

from collections import Counter
from pathlib import Path

import pytest

from streams.crashpoints import POINTS
from tests.campaign.running import Tally, in_one_realm
from tests.campaign.script import KINDS, dense, kind_of, script

SEED = 153


@pytest.mark.timeout(300)
async def test_of_each_role_somebody_is_killed_twice_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    tally = Tally()
    played = dense(SEED)
    await in_one_realm(tmp_path / "realm", [played], tally)
    assert tally.faults == []
    assert tally.trails == 1
    assert tally.struck == Counter(order.point for order in played.orders)
    assert tally.ends.total() == len(played.asks)
    assert tally.ends["expired"] == tally.ends["denied"] == 1


def test_as_many_seeds_as_there_are_points_strike_each_and_a_seed_is_always_the_same_run() -> None:
    scripts = [script(seed) for seed in range(1000, 1000 + len(POINTS))]
    assert Counter(played.point for played in scripts) == Counter(POINTS)
    assert scripts == [script(played.seed) for played in scripts]
    assert {kind_of(point) for point in POINTS} == set(KINDS)
