"""The examples of the property tests are the same in every run: whatever strings hash to, whatever is loaded."""

import os
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.project.test_project import ROOT

DRAWN = """
import hashlib
from hypothesis import given, strategies as st
import tests.conftest
{more}
drawn = hashlib.sha256()

@given(st.integers(), st.text(), st.floats(), st.sets(st.sampled_from("abcdefgh")), st.binary())
def draw(number, text, real, some, data):
    drawn.update(repr((number, text, real, sorted(some), data)).encode())

draw()
print(drawn.hexdigest())
"""
OWN = re.compile(r"@(settings\([^)]*(deadline|derandomize|database|phases)|seed\()|settings\.(register|load)_profile")


def drawn(hash_seed: str, more: str = "") -> str:
    made = subprocess.run(  # noqa: S603 - this Python
        [sys.executable, "-c", DRAWN.format(more=more)],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout


def test_the_same_examples_whatever_strings_hash_to_and_whatever_is_loaded() -> None:
    first = drawn("1")
    assert len(first) == 65
    assert drawn("2") == first
    assert (
        drawn("3", "import broker.lifecycle, auditors.verify, notifiers.card, gateway.views, schemas.contract") == first
    )


@pytest.mark.parametrize("folder", ["tests", "clients/python/tests"])
def test_no_test_has_settings_of_its_own_but_how_many_examples(folder: str) -> None:
    found = {
        str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py") if OWN.search(path.read_text("utf-8"))
    }
    assert found <= {"tests/conftest.py", "clients/python/tests/conftest.py"}


@given(st.none())
def test_one_profile_is_in_force(nothing: None) -> None:
    one = settings.default
    assert one is not None
    assert (one.derandomize, one.deadline, one.database) == (True, None, None)
