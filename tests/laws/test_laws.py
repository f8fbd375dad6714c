"""Each law of the design has lines that enforce it, tests that name it, and wrong versions that something catches."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.laws.guards import MODULES, TESTS, UNREACHABLE, guards_of
from tests.laws.mutants import MUTANTS
from tests.laws.mutating import ROOT, AnchorError, Edit
from tests.laws.trial import all_mutants

ROOMS = ("schemas", "streams", "broker", "executors", "notifiers", "gateway", "auditors")
CITED = re.compile(r"\b[Ll]aws? (\d+(?:(?:, | and | to )\d+)*)")
LAWS = {
    1: (
        "consent binds to bytes",
        "tests/broker/test_laws.py::test_any_changed_leaf_of_what_is_asked_changes_the_question",
        "tests/executors/test_checking.py::test_a_changed_plan_is_refused",
    ),
    2: (
        "nobody approves for themselves",
        "tests/broker/test_laws.py::test_nobody_who_ever_stood_behind_the_requester_has_a_yes_that_counts",
        "tests/broker/test_interleavings.py::test_7_who_joins_and_leaves_between_two_checks_stays_in_the_circle",
    ),
    3: (
        "a quorum is distinct persons in distinct seats",
        "tests/broker/test_laws.py::test_an_approval_rests_on_distinct_persons_in_distinct_seats_in_whatever_order_they_click",
        "tests/executors/test_checking.py::test_one_person_cannot_fill_two_seats_by_a_second_account",
    ),
    4: (
        "done at most once",
        "tests/broker/test_laws.py::test_one_grant_a_question_and_only_its_instance_ends_it",
        "tests/broker/test_interleavings.py::test_10_no_interleaving_of_appends_fetches_and_decisions_blocks_or_overtakes",
        "tests/executors/test_runner.py::test_a_process_that_dies_while_it_acts_is_not_continued_only_looked_at",
    ),
    5: (
        "time is the log's",
        "tests/broker/test_laws.py::test_a_yes_is_timely_or_late_by_its_own_log_time_whatever_came_before",
        "tests/broker/test_interleavings.py::test_5_a_tick_of_a_leader_that_is_ahead_does_not_beat_a_timely_yes",
    ),
    6: (
        "fail closed",
        "tests/broker/test_laws.py::test_what_is_missing_from_the_world_approves_nothing",
        "tests/broker/test_laws.py::test_any_valid_record_in_any_phase_gets_one_answer",
    ),
    7: (
        "what you see is what you sign",
        "tests/notifiers/test_card.py::test_approve_is_offered_only_when_the_whole_card_is_there",
        "tests/notifiers/test_card.py::test_changing_one_leaf_changes_what_is_read",
    ),
    8: (
        "nothing says approved before the core decided, nor done before an outcome",
        "tests/broker/test_lifecycle_table.py::test_the_requester_or_an_owner_may_withdraw",
        "tests/simulation/test_simulation.py::test_no_history_breaks_a_law_and_they_reach_what_matters",
    ),
    9: (
        "every input ends as exactly one thing",
        "tests/broker/test_laws.py::test_garbage_inside_a_signed_record_is_answered_and_moves_nothing",
        "tests/simulation/test_simulation.py::test_no_history_breaks_a_law_and_they_reach_what_matters",
    ),
    10: (
        "the trail only grows",
        "tests/broker/test_trail.py::test_records_are_numbered_without_a_gap_and_each_names_the_one_before",
    ),
    11: (
        "nothing is lost in silence",
        "tests/broker/test_order.py::test_any_history_is_decided_whole_in_turn_and_behind_its_barriers",
        "tests/executors/test_outcomes.py::test_a_number_that_is_not_the_next_is_a_gap",
    ),
}
"""Each law in a few words, and tests that would fail without it."""


def cited(text: str) -> Iterator[int]:
    """The laws that a text names: "law 4", "laws 2, 3 and 5", "laws 1 to 5"."""
    for found in CITED.finditer(text):
        numbers = [int(number) for number in re.findall(r"\d+", found[1])]
        yield from range(numbers[0], numbers[1] + 1) if " to " in found[1] else numbers


@cache
def citations() -> dict[int, list[str]]:
    """Where shipped code names each law."""
    places: dict[int, list[str]] = defaultdict(list)
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                for law in cited(line):
                    places[law].append(f"{path.relative_to(ROOT)}:{number}")
    return places


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("law", LAWS)
def test_a_law_is_cited_beside_what_enforces_it_tested_and_broken_on_purpose(law: int) -> None:
    _, *tests = LAWS[law]
    assert citations()[law], f"no line of the rooms cites law {law}"
    for test in tests:
        file, _, name = test.partition("::")
        assert name in functions_of(ROOT / file), f"{test} is not there any more"
    assert any(mutant.law == law for mutant in MUTANTS), f"no mutant breaks law {law}"


def test_nobody_cites_a_law_that_is_not_there() -> None:
    assert set(citations()) == set(LAWS)


def test_every_mutant_still_finds_its_place_and_loads() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    for mutant in all_mutants().values():
        sources: dict[Path, str] = {}
        for edit in mutant.edits:
            sources[edit.path] = edit.applied(sources.get(edit.path, edit.path.read_text(encoding="utf-8")))
        for path, source in sources.items():
            compile(source, str(path), "exec")


def test_every_guard_has_a_mutant_and_a_file_of_tests_that_must_catch_it() -> None:
    found = [guard for module in MODULES for guard in guards_of(module)]
    assert len(found) > 80
    names = {f"{guard.module}.{guard.name}" for guard in found}
    assert UNREACHABLE.keys() <= names
    assert names - UNREACHABLE.keys() <= all_mutants().keys()
    for tests in TESTS.values():
        assert all((ROOT / file).is_file() for file in tests)


def test_an_edit_whose_place_is_gone_is_an_error() -> None:
    with pytest.raises(AnchorError):
        Edit("broker.lifecycle", "nobody wrote this", "").applied("something else")
    with pytest.raises(AnchorError):
        Edit("broker.lifecycle", "twice", "").applied("twice, twice")
