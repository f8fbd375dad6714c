"""Rows as bytes: hints are only hints, ticks find each row once, and nothing is forgotten before its time."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import lifecycle
from broker.core.rows import OPEN, TIMED, Rows, Stored
from schemas import ids
from schemas.record import RecordError
from schemas.records import FINAL, PendingApproval, Phase, Pinned, Refusal, Source, Subject
from schemas.timing import LEADER_SKEW_MS
from tests.broker.builders import DAY, HOUR, MINUTE, T0, Story, in_phase


def a_row(
    name: str = "bot", *, phase: Phase = Phase.PENDING, at: int = T0, due: int | None = None, ended: int | None = None
) -> PendingApproval:
    """The bones of a row: what `Rows` looks at."""
    return PendingApproval(
        intent_id=ids.intent_id(name, at, bytes(10)),
        phase=phase,
        asked_at=at,
        expires_at=due if phase is not Phase.EXECUTING else None,
        settled_at=due if phase is Phase.EXECUTING else None,
        ended_at=ended,
        changed=Source(topic="classified", partition=0, offset=1),
        changed_at=at,
    )


def put(rows: Rows, row: PendingApproval) -> str:
    rows.put(row.intent_id, Stored.of(row))
    return row.intent_id


def due(at: int) -> int:
    return at + LEADER_SKEW_MS


# ---------------------------------------------------------------- hints


@pytest.mark.parametrize("phase", list(Phase))
def test_a_row_is_restored_from_its_headers_without_decoding(phase: Phase) -> None:
    stored = Stored.of(in_phase(phase).here)
    assert Stored.read(stored.headers(), stored.value) == stored
    assert stored.row().phase is phase


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("phase", b"nonsense")],
        [("phase", b"\xff")],
        [("phase", b"pending"), ("due", b"soon")],
        [("phase", b"pending")],
        [("phase", b"pending"), ("due", b"5"), ("ended", b"5")],
        [("phase", b"denied")],
        [("phase", b"denied"), ("due", b"5"), ("ended", b"5")],
        [("phase", b"unknown"), ("due", b"5")],
    ],
    ids=str,
)
def test_hints_that_cannot_be_true_are_read_from_the_row(headers: list[tuple[str, bytes]]) -> None:
    stored = Stored.of(a_row(due=T0 + HOUR))
    assert Stored.read(headers, stored.value) == stored


def test_a_value_that_is_no_row_is_an_error_where_it_is_looked_at() -> None:
    with pytest.raises(RecordError):
        Stored.read([], b"{}")


def test_a_lying_hint_makes_nothing_due_and_is_put_right() -> None:
    rows = Rows()
    row = a_row(due=T0 + HOUR)
    stored = Stored.of(row)
    rows.put(row.intent_id, Stored(stored.value, Phase.PENDING, T0, None, row.asked_at))
    assert list(rows.due_before(T0 + 1)) == []
    assert rows.first_due() == due(T0 + HOUR)
    assert list(rows.due_before(due(T0 + HOUR) + 1)) == [row.intent_id]


def test_a_lying_hint_makes_nothing_forgotten() -> None:
    rows = Rows()
    row = a_row(phase=Phase.UNKNOWN)
    stored = Stored.of(row)
    rows.put(row.intent_id, Stored(stored.value, Phase.DENIED, None, T0, row.asked_at))
    assert list(rows.forgettable(T0 + 30 * DAY)) == []
    assert rows.open_of("bot") == 1
    assert list(rows.forgettable(T0 + 60 * DAY)) == []


# ---------------------------------------------------------------- ticks


def test_a_tick_finds_each_due_row_once_however_often_it_was_written() -> None:
    rows = Rows()
    row = a_row(due=T0 + HOUR)
    for offset in range(5):
        put(rows, row.model_copy(update={"changed": Source(topic="decisions", partition=0, offset=offset)}))
    # Nor does the list grow with every answer to a click.
    assert len(rows._due._heap) == 1
    assert list(rows.due_before(due(T0 + HOUR))) == []
    assert list(rows.due_before(due(T0 + HOUR) + 1)) == [row.intent_id]
    assert list(rows.due_before(T0 + DAY)) == []
    assert rows.first_due() is None
    # A row that is written again is on the list again.
    put(rows, row)
    assert rows.first_due() == due(T0 + HOUR)


def test_a_deadline_that_moves_is_due_at_its_last_place_only() -> None:
    rows = Rows()
    for minutes in (30, 10, 20, 30, 10):
        put(rows, a_row(due=T0 + minutes * MINUTE))
    assert rows.first_due() == due(T0 + 10 * MINUTE)
    assert len(list(rows.due_before(T0 + DAY))) == 1
    put(rows, a_row(due=T0 + 10 * MINUTE))
    put(rows, a_row(phase=Phase.DENIED, ended=T0))
    assert rows.first_due() is None


def test_rows_are_due_earliest_first() -> None:
    rows = Rows()
    for name, minutes in (("a", 30), ("b", 10), ("c", 20)):
        put(rows, a_row(name, due=T0 + minutes * MINUTE))
    found = [ids.requester_of(intent_id) for intent_id in rows.due_before(due(T0 + 20 * MINUTE) + 1)]
    assert found == ["b", "c"]


def test_a_dropped_row_is_never_due() -> None:
    rows = Rows()
    name = put(rows, a_row(due=T0 + MINUTE))
    rows.drop(name)
    rows.drop(name)
    assert (rows.first_due(), rows.get(name), len(rows), rows.open_of("bot")) == (None, None, 0, 0)


# ---------------------------------------------------------------- forgetting


KEPT = ids.WINDOW_BEFORE_MS + ids.FORGET_MARGIN_MS


def test_a_final_row_is_forgotten_only_after_window_and_margin() -> None:
    rows = Rows()
    name = put(rows, a_row(phase=Phase.DENIED, ended=T0 + MINUTE))
    assert list(rows.forgettable(T0 + MINUTE + KEPT)) == []
    assert list(rows.forgettable(T0 + MINUTE + KEPT + 1)) == [name]
    assert not ids.is_within_window(name, T0 + MINUTE + KEPT + 1)


def test_an_id_from_the_future_is_remembered_until_it_is_old_too() -> None:
    rows = Rows()
    name = put(rows, a_row(phase=Phase.DENIED, at=T0 + 5 * MINUTE, ended=T0))
    assert list(rows.forgettable(T0 + KEPT + 1)) == []
    assert list(rows.forgettable(T0 + 5 * MINUTE + KEPT + 1)) == [name]


@pytest.mark.parametrize("phase", sorted(OPEN))
def test_what_has_not_ended_is_never_forgotten(phase: Phase) -> None:
    rows = Rows()
    put(rows, a_row(phase=phase, due=T0 if phase in TIMED else None))
    assert list(rows.forgettable(T0 + 365 * DAY)) == []


def test_a_final_row_written_again_is_forgotten_once() -> None:
    rows = Rows()
    for _ in range(3):
        name = put(rows, a_row(phase=Phase.DENIED, ended=T0))
    assert list(rows.forgettable(T0 + DAY * 3)) == [name]


# ---------------------------------------------------------------- against a naive model

names = st.sampled_from(["a", "b", "c"])
acts = st.one_of(
    st.tuples(
        st.just("put"),
        names,
        st.integers(0, 3),
        st.sampled_from(sorted(Phase)),
        st.integers(0, 20),
    ),
    st.tuples(st.just("drop"), names, st.integers(0, 3), st.just(Phase.PENDING), st.just(0)),
    st.tuples(st.just("tick"), names, st.just(0), st.just(Phase.PENDING), st.integers(0, 25)),
    st.tuples(st.just("forget"), names, st.just(0), st.just(Phase.PENDING), st.integers(0, 60)),
)


@settings(max_examples=200)
@given(st.lists(acts, max_size=40))
def test_rows_behave_like_a_plain_dictionary_that_is_searched(
    history: list[tuple[str, str, int, Phase, int]],
) -> None:
    rows = Rows()
    plain: dict[str, PendingApproval] = {}
    listed: set[str] = set()
    for act, name, number, phase, when in history:
        at = T0 + number * MINUTE
        intent_id = ids.intent_id(name, at, bytes(10))
        match act:
            case "put":
                due_at = T0 + when * MINUTE if phase in TIMED else None
                row = a_row(name, phase=phase, at=at, due=due_at, ended=T0 + when * MINUTE if phase in FINAL else None)
                put(rows, row)
                plain[intent_id] = row
                listed.add(intent_id)
            case "drop":
                rows.drop(intent_id)
                plain.pop(intent_id, None)
            case "tick":
                limit = T0 + when * MINUTE
                found = list(rows.due_before(limit))
                expected = {
                    each
                    for each, row in plain.items()
                    if (moment := lifecycle.due_at(row)) is not None and moment < limit and each in listed
                }
                assert len(found) == len(set(found))
                assert set(found) == expected
                listed -= expected
            case _:
                now = T0 + when * HOUR
                for each in list(rows.forgettable(now)):
                    row = plain[each]
                    assert row.ended_at is not None
                    assert ids.is_forgettable(each, row.ended_at, now)
                    rows.drop(each)
                    del plain[each]
                assert not [
                    each
                    for each, row in plain.items()
                    if row.ended_at is not None and ids.is_forgettable(each, row.ended_at, now)
                ]
        assert len(rows) == len(plain)
        for requester in ("a", "b", "c"):
            expected_open = sum(
                1 for each, row in plain.items() if ids.requester_of(each) == requester and row.phase in OPEN
            )
            assert rows.open_of(requester) == expected_open
        dues = [lifecycle.due_at(row) for each, row in plain.items() if each in listed]
        assert rows.first_due() == min((each for each in dues if each is not None), default=None)


def test_an_unreadable_row_with_the_hints_of_an_earlier_version_is_kept_as_it_is() -> None:
    hints = [("phase", b"pending"), ("due", b"5")]
    stored = Stored.read(hints, b"{}")
    assert (stored.phase, stored.due, stored.asked) == (Phase.PENDING, 5, 0)
    with pytest.raises(RecordError):
        stored.row()


# ---------------------------------------------------------------- what never waited (T14)


def refused_at_the_door() -> Story:
    story = Story()
    story.ask("s3.copy", said={"refusal": Refusal.BAD_PARAMETERS, "reason": "no such bucket", "classification": None})
    return story


def denied_at_the_door() -> Story:
    story = Story()
    story.ask("s3.forbidden")
    return story


@pytest.mark.parametrize("story", [refused_at_the_door, denied_at_the_door])
def test_what_never_waited_is_remembered_by_the_digest_of_its_body_alone(story: Callable[[], Story]) -> None:
    told = story()
    whole = told.here
    assert whole.phase in {Phase.REFUSED, Phase.DENIED}
    stored = Stored.of(whole)
    assert len(stored.value) < 700 < len(whole.to_bytes())
    small = stored.row()
    assert small.pinned
    assert (small.pinned.digest, small.pinned.action) == (told.intent.digest, told.intent.action.name)
    assert (small.phase, small.refusal, small.reason) == (whole.phase, whole.refusal, whole.reason)
    assert Stored.of(small) == Stored.read(stored.headers(), stored.value) == stored
    assert Rows().denied_at(told.intent.content_digest) is None


def test_the_largest_row_of_what_never_waited_stays_below_a_kilobyte() -> None:
    most = Source(topic="classified", partition=1023, offset=2**53 - 1)
    row = PendingApproval(
        intent_id=ids.intent_id("a" * 63, T0, bytes(10)),
        phase=Phase.REFUSED,
        refusal=max(Refusal, key=lambda one: len(one.value)),
        pinned=Pinned(
            digest="f" * 64,
            source=most.model_copy(update={"topic": "intents"}),
            subject=Subject(type="person", id="a" * 63),
            action=f"{'a' * 31}.{'a' * 63}",
        ),
        reason="\x01" * 2000,
        circle=("ada",),
        circle_from=1,
        circle_to=1,
        asked_at=T0,
        ended_at=T0,
        changed=most,
        changed_at=T0,
    )
    at_the_door = refused_at_the_door().here.model_copy(
        update={name: getattr(row, name) for name in ("intent_id", "refusal", "reason", "circle", "changed")}
    )
    small = lifecycle.kept(at_the_door)
    assert small.pinned
    assert len(small.model_copy(update={"pinned": row.pinned}).to_bytes()) < 1024
    assert small.reason is not None
    assert small.reason.endswith("...")


@pytest.mark.parametrize("story", [refused_at_the_door, denied_at_the_door])
def test_from_the_digest_alone_the_same_body_is_a_duplicate_and_another_a_conflict(story: Callable[[], Story]) -> None:
    told = story()
    told.row = Stored.of(told.here).row()
    assert told.ask_this(told.intent).refusal is Refusal.DUPLICATE
    assert told.ask_this(told.intent.model_copy(update={"ttl": 61})).refusal is Refusal.CONFLICT
    assert told.row.pinned


def test_of_an_intent_that_nobody_can_read_the_digest_still_pins_the_id() -> None:
    row = refused_at_the_door().here
    assert row.classified is not None
    classified = row.classified.body
    broken = {**classified, "intent": {**classified["intent"], "body": {"id": row.intent_id}}}
    unread = row.model_copy(update={"classified": row.classified.model_copy(update={"body": broken})})
    small = lifecycle.kept(unread)
    assert small.pinned is not None
    assert (small.pinned.action, small.classified) == (None, None)
    assert lifecycle.kept(row).pinned != small.pinned


def test_what_waited_is_remembered_whole() -> None:
    for phase in Phase:
        row = in_phase(phase).here
        if row.round is not None:
            assert lifecycle.kept(row) is row


def test_a_withdrawal_that_came_first_pins_the_id_as_before() -> None:
    row = a_row(phase=Phase.WITHDRAWN, ended=T0)
    assert lifecycle.kept(row) is row


# ---------------------------------------------------------------- what operators see, and a restore


def test_rows_are_counted_and_the_oldest_of_a_phase_is_known() -> None:
    rows = Rows()
    assert rows.oldest(Phase.PENDING) is None
    older, younger = a_row("bot", at=T0, due=T0 + HOUR), a_row("eve", at=T0 + MINUTE, due=T0 + HOUR)
    names = {put(rows, younger), put(rows, older)}
    assert rows.phases[Phase.PENDING] == 2
    assert rows.oldest(Phase.PENDING) == T0
    assert {name for name, _ in rows.all()} == names


def test_what_waits_from_before_a_restore_is_due_at_once_and_what_acts_is_not() -> None:
    rows = Rows()
    waits = put(rows, a_row("bot", at=T0, due=T0 + DAY))
    acts = put(rows, a_row("eve", phase=Phase.EXECUTING, at=T0, due=T0 + DAY))
    later = put(rows, a_row("dan", at=T0 + HOUR, due=T0 + DAY))
    assert list(rows.due_before(T0)) == []
    rows.restored(T0)
    assert list(rows.due_before(T0)) == [waits]
    rows.restored(T0 - HOUR)
    assert list(rows.due_before(T0)) == [waits]
    assert {acts, later} <= set(rows.due_before(T0 + 2 * DAY))
