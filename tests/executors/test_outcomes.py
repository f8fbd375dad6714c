"""What cannot be known is unknown; what was not begun was not done."""

import pytest

from executors import outcomes
from executors.contract import ActFailedError, ExecutorError, Finding, Observation, OutcomeUnknownError, StaleError
from executors.lanes import Lane, Mark
from executors.outcomes import Ended
from schemas.records import Change, Outcome, Receipt, Result
from streams.errors import NumberGapError
from tests.executors.builders import INSTANCE, Life

LIFE = Life()
GRANT = LIFE.grant(LIFE.yes("grace"))
RECEIPT = Receipt(summary="done")


@pytest.mark.parametrize(
    ("error", "has_started", "result"),
    [
        (StaleError("moved"), False, Result.STALE),
        (StaleError("moved"), True, Result.UNKNOWN),
        (ActFailedError("no"), False, Result.FAILED),
        (ActFailedError("no", RECEIPT), True, Result.FAILED),
        (OutcomeUnknownError("?"), False, Result.UNKNOWN),
        (OutcomeUnknownError("?"), True, Result.UNKNOWN),
        (ExecutorError("no"), False, Result.FAILED),
        (ExecutorError("no"), True, Result.UNKNOWN),
        (ZeroDivisionError(), False, Result.FAILED),
        (ZeroDivisionError(), True, Result.UNKNOWN),
        (TimeoutError(), True, Result.UNKNOWN),
    ],
)
def test_an_error_means(error: Exception, has_started: bool, result: Result) -> None:
    assert outcomes.of_error(error, has_started=has_started).result is result


def test_what_kept_an_executor_from_looking_is_told_in_its_own_words() -> None:
    ended = outcomes.of_error(ExecutorError("the role may not list"), has_started=False)
    assert ended.reason == "the role may not list; nothing was begun"


def test_a_certain_failure_keeps_its_receipt() -> None:
    assert outcomes.of_error(ActFailedError("no", RECEIPT), has_started=True).receipt == RECEIPT


@pytest.mark.parametrize(
    ("finding", "result"),
    [
        (Finding.APPLIED, Result.SUCCEEDED),
        (Finding.NOT_APPLIED, Result.FAILED),
        (Finding.PARTIAL, Result.FAILED),
        (Finding.CONFLICT, Result.FAILED),
        (Finding.UNKNOWN, Result.UNKNOWN),
    ],
)
def test_a_finding_means(finding: Finding, result: Result) -> None:
    ended = outcomes.of_observation(Observation(finding, "looked", RECEIPT))
    assert ended == Ended(result, f"{finding.value}: looked", RECEIPT)


def test_an_observation_cites_the_unknown_it_answers() -> None:
    made = outcomes.outcome(GRANT, INSTANCE, Ended(Result.FAILED, "gone"), unknown="3" * 64)
    assert made.observed
    assert made.unknown == "3" * 64
    assert not outcomes.outcome(GRANT, INSTANCE, Ended(Result.FAILED, "gone")).observed


def test_the_undo_is_told_only_when_something_was_done() -> None:
    assert outcomes.outcome(GRANT, INSTANCE, Ended(Result.FAILED, "no"), undo="Switch it off.").undo is None
    done = Ended(Result.SUCCEEDED, None, RECEIPT)
    assert outcomes.outcome(GRANT, INSTANCE, done, undo="Switch it off.").undo == "Switch it off."


def test_a_receipt_that_is_too_long_is_bound_by_digest() -> None:
    changes = tuple(Change(verb="create", target=f"{number}-{'x' * 900}") for number in range(200))
    made = outcomes.outcome(GRANT, INSTANCE, Ended(Result.SUCCEEDED, None, Receipt(summary="many", changes=changes)))
    assert Outcome.from_bytes(made.to_bytes()) == made
    assert made.receipt is not None
    assert made.receipt.lists[0].count == 200


def test_a_receipt_with_names_that_no_record_can_carry_is_cut_to_its_summary() -> None:
    changes = (Change(verb="create", target="caf\u0065\u0301"),)
    receipt = Receipt(summary="e\u0301", changes=changes)
    made = outcomes.outcome(GRANT, INSTANCE, Ended(Result.SUCCEEDED, None, receipt))
    assert Outcome.from_bytes(made.to_bytes()) == made
    assert made.receipt == Receipt(summary="é")


def test_words_of_a_provider_always_fit_into_a_record() -> None:
    for text in ("e\u0301" * 3000, "\ud800", "x" * 5000, "é" * 2001):
        made = outcomes.outcome(GRANT, INSTANCE, Ended(Result.FAILED, text))
        assert Outcome.from_bytes(made.to_bytes()) == made


def test_a_lane_commits_up_to_the_last_record_below_which_all_is_handled() -> None:
    lane = Lane("topic", 0)
    assert lane.committable is None
    assert [lane.take(offset) for offset in (4, 5, 7)] == [True, True, True]
    lane.finish(5)
    assert lane.committable is None
    lane.finish(4)
    assert lane.committable == Mark(6)
    lane.committed(Mark(6))
    assert lane.committable is None
    lane.finish(7)
    assert lane.committable == Mark(8)


def test_what_stands_behind_a_hole_is_not_committed_before_it_is_counted() -> None:
    lane = Lane("topic", 0)
    lane.take(4)
    lane.count(4, 1)
    lane.finish(4)
    assert lane.committable == Mark(5, 1)
    # 5 was never given; 6 is taken, and 7 put aside, before anybody looks at the number of 6.
    lane.take(6)
    lane.take(7)
    lane.finish(7)
    assert lane.committable == Mark(5, 1)
    with pytest.raises(NumberGapError):
        lane.count(6, 3)
    assert lane.committable == Mark(5, 1)


def test_with_the_offset_goes_the_number_that_was_counted_last_below_it() -> None:
    lane = Lane("topic", 0, after=6)
    for offset, number in ((10, 7), (11, None), (12, 8), (13, 9)):
        lane.take(offset)
        if number is not None:
            lane.count(offset, number)
    # 11 was put aside: nobody counts what the core did not sign.
    for offset, mark in ((10, Mark(11, 7)), (11, Mark(12, 7)), (13, Mark(12, 7)), (12, Mark(14, 9))):
        lane.finish(offset)
        assert lane.committable == mark


def test_who_goes_on_from_a_mark_sees_a_hole_right_behind_it() -> None:
    mark = Mark.read(5, Mark(5, 0).metadata)
    assert mark == Mark(5, 0)
    lane = Lane("topic", 0, mark.number)
    lane.take(5)
    with pytest.raises(NumberGapError, match="topic/0: number 2 at offset 5 comes after number 0"):
        lane.count(5, 2)


@pytest.mark.parametrize("metadata", ["", "-1", "seven", "7 ", "\u0667", "\u00b2"])
def test_of_a_mark_that_somebody_else_wrote_no_number_is_known(metadata: str) -> None:
    assert Mark.read(5, metadata) == Mark(5)
    assert Mark(5).metadata == ""


def test_what_a_lane_never_took_cannot_be_finished() -> None:
    lane = Lane("topic", 0)
    lane.finish(3)
    assert lane.committable is None


def test_a_lane_takes_no_record_twice() -> None:
    lane = Lane("topic", 0)
    assert lane.take(4)
    assert not lane.take(4)
    assert not lane.take(3)


@pytest.mark.parametrize("number", [6, 7, 9])
def test_a_number_that_is_not_the_next_is_a_gap(number: int) -> None:
    lane = Lane("topic", 0)
    for offset in (1, 2, 3):
        lane.take(offset)
    lane.count(1, 6)
    lane.count(2, 7)
    with pytest.raises(NumberGapError):
        lane.count(3, number)


def test_a_proof_is_a_success() -> None:
    assert outcomes.succeeded(RECEIPT) == Ended(Result.SUCCEEDED, None, RECEIPT)


@pytest.mark.parametrize("text", ["\x00" * 2000, "e\u0301" * 1000, "\ud800", "\u0344" * 1500, "x" * 3000])
def test_however_a_plugin_words_it_an_act_that_was_done_can_be_said(text: str) -> None:
    receipt = Receipt.model_construct(summary=text, changes=(Change.model_construct(verb=text, target=text),) * 300)
    made = outcomes.outcome(GRANT, INSTANCE, Ended(Result.SUCCEEDED, text, receipt), undo=text)
    assert Outcome.from_bytes(made.to_bytes()).receipt is not None
