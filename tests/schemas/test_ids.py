import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids
from schemas.ids import IntentIdError

requesters = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)
times = st.integers(0, 2**48 - 1)
entropies = st.binary(min_size=10, max_size=10)
NOW = 1_767_268_800_000
DAY = 24 * 3600 * 1000


@given(requesters, times, entropies)
def test_requester_and_time_can_be_read_off_an_id(requester: str, at_ms: int, entropy: bytes) -> None:
    assert ids.split(ids.intent_id(requester, at_ms, entropy)) == (requester, at_ms)


@given(requesters, times, times, entropies, entropies)
def test_ids_of_one_requester_sort_by_time(requester: str, first: int, second: int, one: bytes, other: bytes) -> None:
    made = [ids.intent_id(requester, first, one), ids.intent_id(requester, second, other)]
    if first != second:
        assert (made[0] < made[1]) == (first < second)


@given(requesters, times, entropies, st.sampled_from(["o", "I", "L", "U", "u", " ", "\n", "."]))
def test_a_letter_that_is_not_crockfords_makes_no_id(requester: str, at_ms: int, entropy: bytes, letter: str) -> None:
    with pytest.raises(IntentIdError):
        ids.split(ids.intent_id(requester, at_ms, entropy)[:-1] + letter)


@pytest.mark.parametrize("requester", ["", "Ada", "a.b", "-ada", "a" * 64, "ädä", "a\n"])
def test_a_requester_that_is_no_name_gets_no_id(requester: str) -> None:
    with pytest.raises(IntentIdError):
        ids.intent_id(requester, NOW, bytes(10))


def test_a_time_beyond_48_bits_gets_no_id() -> None:
    with pytest.raises(IntentIdError):
        ids.intent_id("ada", 2**48, bytes(10))


@pytest.mark.parametrize(
    ("at", "is_fresh"),
    [(NOW - DAY, True), (NOW - DAY - 1, False), (NOW + 300_000, True), (NOW + 300_001, False), (NOW, True)],
)
def test_an_id_is_fresh_from_a_day_before_to_five_minutes_after_its_record(at: int, is_fresh: bool) -> None:
    assert ids.is_within_window(ids.intent_id("ada", at, bytes(10)), NOW) is is_fresh


@given(st.integers(NOW - 3 * DAY, NOW + DAY), st.integers(NOW - 3 * DAY, NOW), st.integers(0, 3_600_000))
def test_what_may_be_forgotten_is_refused_at_the_door_even_if_the_clock_steps_back(
    at: int, ended: int, step: int
) -> None:
    text = ids.intent_id("ada", at, bytes(10))
    if ids.is_forgettable(text, ended, NOW):
        assert not ids.is_within_window(text, NOW - step)


@pytest.mark.parametrize("length", [0, 9, 11])
def test_an_id_needs_ten_random_bytes(length: int) -> None:
    with pytest.raises(IntentIdError, match="10 bytes"):
        ids.intent_id("bot", NOW, bytes(length))


def test_a_restore_reaches_as_far_as_an_id_may_be_ahead_of_either_clock() -> None:
    ahead = ids.WINDOW_AFTER_MS + ids.LEADER_SKEW_MS
    assert ids.restored_to(NOW, NOW - DAY) == ids.restored_to(NOW - DAY, NOW) == NOW + ahead
