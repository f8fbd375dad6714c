"""From accounts to persons, and what to expect: held against the core itself."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import lifecycle
from notifiers import answers, identity
from schemas import record
from schemas.records import (
    AccountRef,
    Answer,
    Channel,
    Context,
    PendingApproval,
    Phase,
    Refusal,
    Resolution,
    Source,
    Verdict,
)
from schemas.snapshots import Group
from tests.notifiers import stage

WORLD = stage.world()
KEY = WORLD.authority.key(stage.API.keyid)


def test_an_account_leads_to_its_person() -> None:
    person = identity.resolve(stage.account("ana"), WORLD.directory)
    assert not isinstance(person, identity.Unknown)
    assert person.id == "ana"


@pytest.mark.parametrize(
    "account",
    [
        AccountRef(provider=stage.ISSUER, subject="sub-nobody"),
        AccountRef(provider="https://elsewhere.example", subject="sub-ana"),
        AccountRef(provider=stage.ISSUER, subject="SUB-ANA"),
        stage.account("eve"),
    ],
)
def test_whoever_is_unknown_or_inactive_is_nobody_and_hears_why(account: AccountRef) -> None:
    found = identity.resolve(account, WORLD.directory)
    assert isinstance(found, identity.Unknown)
    assert found.refusal is Refusal.UNKNOWN_PERSON
    assert found.reason


def test_before_there_is_a_directory_nobody_is_known() -> None:
    found = identity.resolve(stage.account("ana"), None)
    assert isinstance(found, identity.Unknown)


def test_the_circle_is_the_rows_and_the_directorys_together() -> None:
    row = stage.pending(stage.intent(context=Context(reason="r", on_behalf_of="ben"))).model_copy(
        update={"circle": ("cho",)}
    )
    assert identity.circle_of(row, WORLD) == {"ben", "cho", "dev"}
    assert identity.disqualified(row, WORLD)["cho"] is Refusal.SELF_APPROVAL


def test_the_seats_a_person_may_take() -> None:
    assert identity.seats_of("ana", stage.pending(), WORLD, stage.T0) == ("group:sre",)
    assert identity.seats_of("cho", stage.pending(), WORLD, stage.T0) == ()
    assert identity.seats_of("eve", stage.pending(), WORLD, stage.T0) == ()


words = st.tuples(
    st.sampled_from(["ana", "ben", "cho", "dev", "eve", "fay"]),
    st.sampled_from(Verdict),
    st.sampled_from([None, "f" * 64]),
    st.sampled_from([0, 2 * 3600]),
    st.sampled_from([1_000, 1_800_000]),
)


@settings(max_examples=150)
@given(st.lists(words, min_size=1, max_size=6), st.sampled_from([None, Phase.PLANNING, Phase.EXECUTING, Phase.UNKNOWN]))
def test_what_is_expected_is_what_the_core_answers(
    said: list[tuple[str, Verdict, str | None, int, int]], phase: Phase | None
) -> None:
    row = stage.pending()
    if phase is not None:
        row = row.model_copy(update={"phase": phase})
    for offset, (name, verdict, question, login_ago, after) in enumerate(said):
        now = stage.T0 + after
        evidence = stage.evidence(now).model_copy(update={"auth_time": now // 1000 - login_ago})
        word = stage.decision(row, name, verdict, evidence=evidence, **({"question": question} if question else {}))
        expected = identity.expected(row, word, WORLD, KEY, now)
        source = Source(topic="t.decisions", partition=0, offset=offset)
        event = lifecycle.Event(source, now, word, record.state(word, stage.API, stage.REALM))
        step = lifecycle.decide(row, event, WORLD, lifecycle.Local())
        assert step.refusal is expected
        assert step.row is not None
        row = step.row
        found = answers.find(row, source)
        assert (found.state, found.refusal) == ("taken" if expected is None else "refused", expected)


@pytest.mark.parametrize("name", ["ana", "cho", "dev", "fay"])
@pytest.mark.parametrize("is_right_grant", [True, False])
@pytest.mark.parametrize("is_unknown", [True, False])
def test_what_is_expected_of_a_resolution_is_what_the_core_answers(
    name: str, *, is_right_grant: bool, is_unknown: bool
) -> None:
    row = stage.unknown() if is_unknown else stage.pending()
    word = Resolution(
        intent=row.intent_id,
        grant=row.grant.digest if row.grant and is_right_grant else "f" * 64,
        found="failed",
        account=stage.account(name),
        channel=Channel.API,
        evidence=stage.evidence(),
        reason="looked",
        card="c" * 64,
    )
    source = Source(topic="t.decisions", partition=0, offset=0)
    event = lifecycle.Event(source, stage.T0, word, record.state(word, stage.API, stage.REALM))
    step = lifecycle.decide(row, event, WORLD, lifecycle.Local())
    assert step.refusal is identity.expected(row, word, WORLD, KEY, stage.T0)


def found_out(row: PendingApproval, name: str) -> Resolution:
    """This person looked, and says that nothing was done."""
    assert row.grant
    return Resolution(
        intent=row.intent_id,
        grant=row.grant.digest,
        found="failed",
        account=stage.account(name),
        channel=Channel.API,
        evidence=stage.evidence(),
        reason="looked",
        card="c" * 64,
    )


def without_asking(row: PendingApproval) -> PendingApproval:
    """The same, as if policy had permitted it without people."""
    assert row.classification
    return row.model_copy(update={"classification": row.classification.model_copy(update={"requirement": None})})


@pytest.mark.parametrize("name", ["ana", "cho", "dev"])
def test_what_is_expected_of_a_resolution_of_an_automatic_act_is_what_the_core_answers(name: str) -> None:
    known = WORLD.directory
    assert known
    operators = Group(id="operators", members=("cho", "dev"))
    led = replace(WORLD, directories=(known.model_copy(update={"groups": (*known.groups, operators)}),))
    row = without_asking(stage.unknown())
    word = found_out(row, name)
    source = Source(topic="t.decisions", partition=0, offset=0)
    event = lifecycle.Event(source, stage.T0, word, record.state(word, stage.API, stage.REALM))
    expected = {"ana": Refusal.NO_SEAT, "cho": None, "dev": Refusal.SELF_APPROVAL}[name]
    assert identity.expected(row, word, led, KEY, stage.T0) is expected
    assert lifecycle.decide(row, event, led, lifecycle.Local()).refusal is expected
    assert bool(identity.resolves_as(name, row, led, stage.T0)) == (name != "ana")
    key = KEY.model_copy(update={"providers": ("https://another.example",)}) if KEY else None
    assert identity.expected(row, word, led, key, stage.T0) is Refusal.NOT_ENTITLED


def test_a_row_that_is_not_known_here_is_expected_to_be_unknown_there() -> None:
    row = stage.pending()
    assert identity.expected(None, stage.decision(row, "ana"), WORLD, KEY, stage.T0) is Refusal.UNKNOWN_INTENT


def test_every_refusal_has_its_sentence() -> None:
    assert set(answers.MEANING) == set(Refusal)


def test_an_answer_that_fell_off_the_row_is_forgotten_not_awaited_for_ever() -> None:
    def at(offset: int, partition: int = 0) -> Source:
        return Source(topic="t.decisions", partition=partition, offset=offset)

    row = stage.pending().model_copy(update={"answers": (Answer(source=at(8)),)})
    assert answers.find(row, at(7)).state == "forgotten"
    assert answers.find(row, at(9)).state == "deciding"
    assert answers.find(row, at(7, partition=1)).state == "deciding"
    assert answers.find(None, at(7)).state == "deciding"


def test_of_a_row_that_cannot_be_read_only_the_rows_own_circle_is_known() -> None:
    row = stage.pending()
    assert row.classified
    broken = row.classified.model_copy(update={"body": {}})
    for changed in ({"classified": None}, {"classified": broken}):
        assert identity.circle_of(row.model_copy(update=changed), WORLD) == {"dev"}


def test_where_policy_asks_nobody_there_is_no_seat_and_no_yes_to_give() -> None:
    row = stage.pending().model_copy(update={"classification": None})
    assert identity.seats_of("ana", row, WORLD, stage.T0) == ()
    assert identity.expected(row, stage.decision(row, "ana"), WORLD, KEY, stage.T0) is Refusal.ALREADY_DECIDED


def test_a_key_that_the_directory_does_not_list_vouches_for_nothing() -> None:
    row = stage.pending()
    assert identity.expected(row, stage.decision(row, "ana"), WORLD, None, stage.T0) is Refusal.ASSURANCE_TOO_LOW


def test_a_yes_is_found_though_its_answer_fell_off_the_row() -> None:
    row = stage.pending()
    vote = stage.vote(row, "ana")
    assert answers.find(row.model_copy(update={"votes": (vote,)}), vote.source).state == "taken"


@pytest.mark.parametrize(("name", "refusal"), [("ana", None), ("dev", Refusal.SELF_APPROVAL), ("cho", Refusal.NO_SEAT)])
def test_who_may_say_what_was_found_out(name: str, refusal: Refusal | None) -> None:
    row = stage.unknown()
    word = found_out(row, name)
    assert identity.expected(row, word, WORLD, KEY, stage.T0) is refusal
    if refusal is None:
        late = stage.T0 + 2 * 3600 * 1000
        assert identity.expected(row, word, WORLD, KEY, late) is Refusal.ASSURANCE_TOO_LOW
