"""A few mutants on trial, other ones every day. All of them: `make mutants`."""

import os
from datetime import UTC, datetime

import pytest

from tests.laws.__main__ import chosen, line_of, trials

SOME = 4


@pytest.mark.timeout(600)
def test_some_wrong_versions_are_found_by_the_simulator() -> None:
    seed = int(os.environ.get("KEYTURN_MUTANTS_SEED") or datetime.now(UTC).toordinal())
    tried = dict(trials(chosen(SOME, seed), jobs=2))
    survived = [line_of(name, found) for name, found in tried.items() if not found["by"]]
    assert not survived, f"KEYTURN_MUTANTS_SEED={seed}: {survived}"
