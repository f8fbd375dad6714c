"""What the journal says may still be done: at most one act an intent, unless nothing was done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from executors.journal import LONGEST_LIFE_MS, REMEMBERED_MS, Ledger
from executors.outcomes import Ended, outcome
from schemas import ids
from schemas.record import RecordError, Seconds, state
from schemas.records import Grant, JournalEntry, Outcome, Result
from tests.executors.builders import INSTANCE, REALM, Life, signer, wish

LIFE = Life()
GRANT = LIFE.grant(LIFE.yes("grace"))
AGAIN = LIFE.but(number=2)
NEXT = AGAIN.grant(AGAIN.yes("grace"))
UNKNOWN = "3" * 64
NOW = ids.split(LIFE.intent.id)[1] + 1000
DAY = 24 * 60 * 60 * 1000


def used(grant: Grant) -> JournalEntry:
    return entry(grant, "used", detail={"question": grant.question.digest})


def ended(grant: Grant, result: Result, unknown: str | None = None) -> JournalEntry:
    said = outcome(grant, INSTANCE, Ended(result), unknown=unknown)
    return entry(grant, "ended", outcome=state(said, signer("lamp"), REALM))


def entry(grant: Grant, kind: str, step: int = 0, **more: object) -> JournalEntry:
    return JournalEntry.model_validate(
        {
            "intent": grant.question.intent_id,
            "grant": grant.digest,
            "instance": INSTANCE,
            "step": step,
            "entry": kind,
            "what": kind,
        }
        | more
    )


def ledger(*entries: JournalEntry) -> Ledger:
    made = Ledger()
    for one in entries:
        made.note(one, NOW)
    return made


def spent(made: Ledger, grant: Grant) -> str | None:
    return made.spent(grant.question.intent_id, grant.question.digest)


def test_an_unused_intent_may_be_acted_upon() -> None:
    assert spent(ledger(), GRANT) is None


def test_a_used_intent_may_not_be_acted_upon_under_any_question() -> None:
    made = ledger(used(GRANT))
    assert "under this question" in str(spent(made, GRANT))
    assert "open" in str(spent(made, NEXT))


@pytest.mark.parametrize("result", [Result.SUCCEEDED, Result.FAILED, Result.UNKNOWN])
def test_an_intent_that_ended_may_not_be_acted_upon_again(result: Result) -> None:
    assert result.value in str(spent(ledger(used(GRANT), ended(GRANT, result)), NEXT))


def test_only_stale_leaves_room_for_another_question() -> None:
    made = ledger(used(GRANT), ended(GRANT, Result.STALE))
    assert spent(made, NEXT) is None
    assert spent(made, GRANT) is not None


def test_a_refused_grant_spends_its_intent() -> None:
    assert spent(ledger(ended(GRANT, Result.FAILED)), NEXT) is not None


def test_the_first_outcome_is_the_one_that_is_said_again() -> None:
    first, second = ended(GRANT, Result.SUCCEEDED), ended(GRANT, Result.FAILED)
    use = ledger(used(GRANT), first, second).use(LIFE.intent.id, GRANT.digest)
    assert use is not None
    assert use.outcome == first.outcome
    assert use.result is Result.SUCCEEDED


def test_what_was_seen_is_kept_by_the_unknown_it_answers() -> None:
    seen = ended(GRANT, Result.SUCCEEDED, UNKNOWN)
    use = ledger(used(GRANT), ended(GRANT, Result.UNKNOWN), seen).use(LIFE.intent.id, GRANT.digest)
    assert use is not None
    assert use.observed == {UNKNOWN: seen.outcome}
    assert use.result is Result.UNKNOWN


def test_steps_are_kept_until_the_outcome_is_certain() -> None:
    steps = (used(GRANT), entry(GRANT, "started", 1), entry(GRANT, "done", 1))
    use = ledger(*steps, ended(GRANT, Result.UNKNOWN)).use(LIFE.intent.id, GRANT.digest)
    assert use is not None
    assert use.entries == list(steps)
    use = ledger(*steps, ended(GRANT, Result.SUCCEEDED)).use(LIFE.intent.id, GRANT.digest)
    assert use is not None
    assert use.entries == []


def test_an_entry_that_cannot_be_trusted_bars_its_intent_and_no_other() -> None:
    made = ledger()
    made.bar(LIFE.intent.id, NOW)
    assert "cannot be trusted" in str(spent(made, GRANT))
    assert made.spent(ids.intent_id("bot", NOW, bytes(10)), "4" * 64) is None


@pytest.mark.parametrize(
    "wrong",
    [
        entry(GRANT, "ended"),
        used(GRANT).model_copy(update={"outcome": ended(GRANT, Result.FAILED).outcome}),
        ended(GRANT, Result.FAILED).model_copy(update={"grant": NEXT.digest}),
        entry(GRANT, "ended", outcome=LIFE.signed_plan),
    ],
)
def test_an_entry_whose_outcome_does_not_fit_is_not_taken(wrong: JournalEntry) -> None:
    made = ledger()
    with pytest.raises(RecordError):
        made.note(wrong, NOW)
    assert spent(made, GRANT) is None


def test_an_outcome_cites_its_grant() -> None:
    said = ended(GRANT, Result.SUCCEEDED).outcome
    assert said is not None
    assert said.read(Outcome).grant == GRANT.digest


# ---------------------------------------------------------------- what is forgotten


def aged(number: int, at: int, kind: str, **more: object) -> JournalEntry:
    """An entry about another intent, whose id has this time."""
    return entry(GRANT, kind, intent=ids.intent_id("bot", at, number.to_bytes(10)), **more)


def test_a_forgotten_intent_can_never_be_acted_on_again() -> None:
    made = ledger(used(GRANT), ended(GRANT, Result.SUCCEEDED))
    later = NOW + REMEMBERED_MS + 1
    made.note(aged(1, later, "used"), later)
    assert made.remembered == 1
    assert made.use(LIFE.intent.id, GRANT.digest) is None
    assert "older than the ledger remembers" in str(spent(made, GRANT))
    assert "older than the ledger remembers" in str(spent(made, NEXT))


def test_an_intent_that_can_still_be_acted_on_is_remembered() -> None:
    made = ledger(used(GRANT), ended(GRANT, Result.SUCCEEDED))
    later = NOW + ids.WINDOW_BEFORE_MS + LONGEST_LIFE_MS
    made.note(aged(1, later, "used"), later)
    assert "succeeded" in str(spent(made, NEXT))


@pytest.mark.parametrize("entries", [(used(GRANT),), (used(GRANT), ended(GRANT, Result.UNKNOWN))])
def test_what_is_open_or_unknown_is_never_forgotten_before_it_is_certain(entries: tuple[JournalEntry, ...]) -> None:
    made = ledger(*entries)
    later = NOW + 10 * REMEMBERED_MS
    made.note(aged(1, later, "used"), later)
    assert made.use(LIFE.intent.id, GRANT.digest) is not None
    made.note(ended(GRANT, Result.SUCCEEDED, UNKNOWN), later)
    made.note(aged(2, later, "used"), later)
    assert made.use(LIFE.intent.id, GRANT.digest) is None


def test_a_barred_intent_is_forgotten_in_its_time_and_stays_barred() -> None:
    made = Ledger()
    made.bar(LIFE.intent.id, NOW)
    made.bar("no intent at all", NOW)
    assert made.remembered == 1
    made.bar(aged(1, NOW, "used").intent, NOW + REMEMBERED_MS + 1)
    assert spent(made, GRANT) is not None


def test_the_memory_of_a_long_life_is_bounded() -> None:
    made = Ledger()
    for number in range(400):
        at = NOW + number * DAY
        made.note(used(GRANT).model_copy(update={"intent": aged(number, at, "used").intent}), at)
        said = ended(GRANT, Result.SUCCEEDED)
        assert said.outcome is not None
        outcome_ = said.outcome.read(Outcome).model_copy(update={"intent": aged(number, at, "used").intent})
        sealed = state(outcome_, signer("lamp"), REALM)
        made.note(said.model_copy(update={"intent": outcome_.intent, "outcome": sealed}), at)
    assert made.remembered < 40


def test_no_intent_may_live_longer_than_the_ledger_reckons_with() -> None:
    longest = TypeAdapter(Seconds)
    assert longest.validate_python(LONGEST_LIFE_MS // 1000)
    with pytest.raises(ValidationError):
        longest.validate_python(LONGEST_LIFE_MS // 1000 + 1)


@given(days=st.lists(st.integers(-400, 400), min_size=1, max_size=12), ends=st.booleans())
def test_no_log_time_that_steps_or_is_forged_lets_a_used_intent_be_acted_on_again(
    days: list[int], *, ends: bool
) -> None:
    made = ledger(used(GRANT), *([ended(GRANT, Result.FAILED)] if ends else []))
    for number, day in enumerate(days):
        other = LIFE.but(intent=wish(at=NOW, number=100 + number))
        if number % 2:
            made.bar(other.intent.id, max(NOW + day * DAY, 0))
        else:
            made.note(used(other.grant(other.yes("grace"))), max(NOW + day * DAY, 0))
        assert spent(made, GRANT) is not None
        assert spent(made, NEXT) is not None
        assert made.spent(other.intent.id, "0" * 64) is not None
