"""A card holds every leaf that is signed, or says that it does not; and no two questions have the same card."""

import ast
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifiers import card, terminal, visible
from notifiers.card import Bounds
from schemas import record
from schemas.canonical import Json
from schemas.record import INVISIBLE
from schemas.records import (
    Action,
    Assurance,
    Change,
    Context,
    Fact,
    Fingerprint,
    Intent,
    ListLeaf,
    Outcome,
    PendingApproval,
    Phase,
    Pinned,
    Plan,
    Receipt,
    Requirement,
    Resource,
    Result,
    Reversibility,
    Risk,
    Seat,
    Subject,
)
from schemas.world import World
from tests.notifiers import stage

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORLD = stage.world()

# NFC text of many scripts, with what attackers use over-represented.
_NASTY = sorted(INVISIBLE)[:6] + list("\u202e\u200b\u0430\x1b\n\\{}\"'[]|<!>")
prose = st.text(st.sampled_from(_NASTY) | st.characters(codec="latin-1"), max_size=40).filter(
    str.isprintable
) | st.text(st.sampled_from([*_NASTY, " ", "a", "u"]), max_size=20)
identifiers = st.text(st.characters(codec="ascii", min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=40)
names = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,12}\Z")
members = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,8}\Z")
scalars = st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | prose
properties = st.dictionaries(members, scalars | st.lists(scalars, max_size=3).map(tuple), max_size=4)
details = st.dictionaries(members, scalars, max_size=3)
digests = st.from_regex(r"\A[0-9a-f]{64}\Z")
instants = st.integers(0, 2**53 - 1)

intents = st.builds(
    stage.intent,
    number=st.integers(0, 2**60),
    action=st.builds(Action, name=st.just("s3.delete_prefix"), properties=properties),
    resource=st.builds(Resource, type=names, id=identifiers),
    context=st.builds(
        Context,
        reason=prose,
        on_behalf_of=st.none() | names,
        run=st.none() | identifiers,
        ticket=st.none() | identifiers,
        traceparent=st.none() | st.from_regex(r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"),
    ),
    ttl=st.integers(1, 30 * 24 * 3600),
)
plans = st.fixed_dictionaries(
    {
        "summary": prose,
        "changes": st.lists(
            st.builds(Change, verb=st.sampled_from(["create", "delete"]), target=identifiers, detail=details),
            max_size=3,
        ).map(tuple),
        "lists": st.lists(
            st.builds(ListLeaf, name=members, count=instants, bytes=instants, digest=digests), max_size=2
        ).map(tuple),
        "fingerprints": st.lists(st.builds(Fingerprint, target=identifiers, value=identifiers), max_size=2).map(tuple),
        "measures": details,
        "reversibility": st.sampled_from(Reversibility),
        "undo": prose,
        "planned_at": instants,
        "manifest": st.integers(0, 2**53 - 1),
    }
)
facts = st.lists(
    st.builds(Fact, name=members, value=st.none() | scalars, source=names, observed_at=instants), max_size=3
).map(tuple)
requirements = st.builds(
    Requirement,
    seats=st.lists(
        st.builds(Seat, of=names.map("group:{}".format), count=st.integers(1, 3)), min_size=1, max_size=3
    ).map(tuple),
    assurance=st.sampled_from(Assurance),
    within=st.integers(1, 30 * 24 * 3600),
)
rows = st.builds(
    stage.pending,
    intents,
    signer=st.sampled_from([stage.AGENT, stage.GATEWAY]),
    plan=plans,
    facts=facts,
    requirement=requirements,
    risk=st.sampled_from(Risk),
    rules=st.lists(identifiers, max_size=3).map(tuple),
)


def leaves(value: Json, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], bool | int | str]]:
    if isinstance(value, dict):
        return [leaf for name, one in value.items() for leaf in leaves(one, (*path, name))]
    if isinstance(value, list | tuple):
        return [leaf for index, one in enumerate(value) for leaf in leaves(one, (*path, str(index)))]
    return [(path, value)]


def as_shown(path: tuple[str, ...], value: bool | int | str) -> str:
    """How a leaf reads on a card, by what it is."""
    match path:
        case ("context", "reason") | ("summary",) | ("undo",):
            return visible.prose(str(value))
        case ("planned_at",):
            return card.instant(int(value))
        case ("ttl",):
            return card.duration(int(value) * 1000)
        case ("action", "properties", *_) | ("measures", *_) | ("changes", _, "detail", *_):
            return visible.quoted(value) if isinstance(value, str) else str(value).lower()
        case _:
            return visible.identifier(str(value))


def readable(shown: card.Card) -> str:
    """What a person reads, without any digest of the question."""
    lines = [f"{line.label}: {line.text}" for section in shown.sections[:-1] for line in section.lines]
    return "\n".join([shown.headline, str(shown.risk), *lines])


@QUICK
@given(rows)
def test_every_leaf_of_the_signed_intent_and_of_the_plan_is_on_the_card(row: PendingApproval) -> None:
    assert row.classified
    assert row.plan
    shown = card.card(row, WORLD, stage.T0)
    text = "\n".join(f"{line.label}\t{line.text}" for section in shown.sections for line in section.lines)
    for path, value in [*leaves(row.classified.body["intent"]["body"]), *leaves(row.plan.body)]:
        assert as_shown(path, value) in text, path
    assert shown.is_sound
    assert shown.fits == shown.offers_approve
    # Every leaf stands there by its own words; of a list that is the digest, which is not what it lists.
    plan = Plan.from_json(row.plan.body)
    assert shown.fits == (sum(leaf.count for leaf in plan.lists) <= len(plan.changes))


@QUICK
@given(rows, st.integers(0, 5), st.integers(1, 60), st.integers(1, 4000))
def test_where_approve_is_every_entry_of_every_list_and_every_leaf_is(
    row: PendingApproval, entries: int, lines: int, total: int
) -> None:
    assert row.plan
    assert row.classified
    listed = (ListLeaf(name="keys", count=entries, bytes=9 * entries, digest="d" * 64),)
    body = Plan.from_json(row.plan.body).model_copy(update={"lists": listed})
    wish = Intent.from_json(row.classified.body["intent"]["body"])
    row = stage.pending(wish, plan={"lists": listed, "changes": body.changes})
    for bounds in (Bounds(), Bounds(lines=lines, total=total)):
        shown = card.card(row, WORLD, stage.T0, bounds)
        if not shown.offers_approve:
            continue
        assert row.plan
        assert entries <= len(body.changes)
        text = "\n".join(f"{line.label}\t{line.text}" for section in shown.sections for line in section.lines)
        assert all(as_shown(path, value) in text for path, value in leaves(row.plan.body))


@pytest.mark.parametrize(("first", "second", "offered"), [(2, 0, True), (3, 0, False), (1, 1, True), (2, 2, False)])
def test_a_list_that_nobody_sees_is_approved_by_nobody(first: int, second: int, *, offered: bool) -> None:
    lists = tuple(ListLeaf(name=name, count=n, bytes=n, digest="d" * 64) for name, n in (("a", first), ("b", second)))
    shown = card.card(stage.pending(plan={"lists": lists}), WORLD, stage.T0)
    assert shown.offers_approve is offered
    assert (card.UNSEEN in readable(shown)) is not offered


@QUICK
@given(rows, rows)
def test_two_questions_never_read_the_same(one: PendingApproval, other: PendingApproval) -> None:
    assert one.question
    assert other.question
    first, second = (card.card(row, WORLD, stage.T0) for row in (one, other))
    is_same = one.question == other.question and one.classification == other.classification
    assert (readable(first) == readable(second)) == is_same
    assert (first.digest == second.digest) == is_same


@QUICK
@given(rows, st.data())
def test_changing_one_leaf_changes_what_is_read(row: PendingApproval, data: st.DataObject) -> None:
    assert row.classified
    body = row.classified.body["intent"]["body"]
    wish = Intent.from_json(body)
    name = data.draw(st.sampled_from(["reason", "resource", "property", "ttl"]))
    changed = {
        "reason": lambda: wish.model_copy(
            update={"context": wish.context.model_copy(update={"reason": wish.context.reason + "\u200b"})}
        ),
        "resource": lambda: wish.model_copy(
            update={"resource": Resource(type=wish.resource.type, id=wish.resource.id + " ")}
        ),
        "property": lambda: wish.model_copy(
            update={"action": Action(name=wish.action.name, properties={**wish.action.properties, "zz_added": ""})}
        ),
        "ttl": lambda: wish.model_copy(update={"ttl": wish.ttl % 1000 + 1 + (wish.ttl == wish.ttl % 1000 + 1)}),
    }[name]()
    other = stage.pending(changed)
    base = stage.pending(wish)
    assert readable(card.card(base, WORLD, stage.T0)) != readable(card.card(other, WORLD, stage.T0))


def test_a_number_is_not_a_text_and_a_list_of_one_is_not_its_item() -> None:
    seen = set()
    for value in (5, "5", True, "true", ("true",), (), "", ("a", "b"), ('a", "b',), "empty list"):
        row = stage.pending(stage.intent(action=Action(name="s3.delete_prefix", properties={"x": value})))
        seen.add(readable(card.card(row, WORLD, stage.T0)))
    assert len(seen) == 10


def test_an_unknown_fact_is_said_in_so_many_words_and_is_not_the_text_unknown() -> None:
    def fact(value: str | None) -> str:
        row = stage.pending(facts=(Fact(name="freeze", value=value, source="calendar", observed_at=stage.T0),))
        return readable(card.card(row, WORLD, stage.T0))

    assert "fact freeze: unknown (source: calendar, 2023-11-14 22:13:20.000 UTC)" in fact(None)
    assert 'fact freeze: "unknown" (source' in fact("unknown")


def test_on_behalf_of_is_verified_only_where_the_gateway_signed() -> None:
    wish = stage.intent(context=Context(reason="r", on_behalf_of="ana"))
    by_agent = readable(card.card(stage.pending(wish, signer=stage.AGENT), WORLD, stage.T0))
    by_gateway = readable(card.card(stage.pending(wish, signer=stage.GATEWAY), WORLD, stage.T0))
    assert "acts for: ana (Ana Lima): only stated, not verified" in by_agent
    assert "acts for: ana (Ana Lima): verified by a token" in by_gateway


def test_the_time_left_and_who_sat_down_since_are_shown_but_not_signed() -> None:
    row = stage.pending()
    later = row.model_copy(update={"votes": (stage.vote(row, "ana"),)})
    before, after = card.card(row, WORLD, stage.T0), card.card(later, WORLD, stage.T0 + 60_000)
    assert before.left == "30 min"
    assert after.left == "29 min"
    assert before.progress != after.progress
    assert any("ana (Ana Lima)" in line.text for line in after.progress.lines)
    assert before.digest == after.digest


def test_a_yes_of_somebody_who_came_into_the_circle_since_fills_no_seat() -> None:
    row = stage.pending()
    row = row.model_copy(update={"votes": (stage.vote(row, "ana"),), "circle": ("ana", "dev")})
    assert card.filled(row, WORLD) == {}


@pytest.mark.parametrize("bounds", [Bounds(lines=10), Bounds(total=300), Bounds(text=5)])
def test_what_does_not_fit_takes_approve_away_and_says_how_much_is_missing(bounds: Bounds) -> None:
    shown = card.card(stage.pending(), WORLD, stage.T0, bounds)
    assert not shown.fits
    assert not shown.offers_approve
    assert "not shown" in readable(shown) + str(shown.sections[-1])


@QUICK
@given(rows, st.integers(1, 60), st.integers(1, 4000), st.integers(1, 200))
def test_approve_is_offered_only_when_the_whole_card_is_there(
    row: PendingApproval, lines: int, total: int, text: int
) -> None:
    whole = card.card(row, WORLD, stage.T0)
    shown = card.card(row, WORLD, stage.T0, Bounds(text=text, lines=lines, total=total))
    assert shown.offers_approve == (whole.offers_approve and shown.sections == whole.sections)
    assert not shown.offers_approve or shown.digest == whole.digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"realm": "other"}, "realm"),
        ({"intent": "0" * 64}, "intent"),
        ({"plan": "0" * 64}, "plan"),
        ({"facts": "0" * 64}, "facts"),
        ({"requirement": "0" * 64}, "requirement"),
    ],
)
def test_a_question_that_names_anything_but_what_is_shown_is_not_put_to_anybody(
    change: dict[str, str], says: str
) -> None:
    row = stage.pending()
    assert row.question
    row = row.model_copy(update={"question": row.question.model_copy(update=change)})
    shown = card.card(row, WORLD, stage.T0)
    assert any(says in contradiction for contradiction in shown.contradictions)
    assert not shown.offers_approve


def test_a_plan_made_for_another_intent_is_a_contradiction() -> None:
    row = stage.pending(plan={"intent": "0" * 64})
    assert "the plan was made for another intent" in card.card(row, WORLD, stage.T0).contradictions


def test_a_row_without_an_intent_still_has_a_card() -> None:
    row = PendingApproval(
        intent_id=stage.intent_id(),
        phase=Phase.WITHDRAWN,
        asked_at=stage.T0,
        changed=stage.pending().changed,
        changed_at=stage.T0,
    )
    shown = card.card(row, WORLD, stage.T0)
    assert not shown.offers_approve
    assert "not here" in shown.headline


def test_what_was_refused_at_the_door_says_that_the_trail_alone_has_it() -> None:
    row = PendingApproval(
        intent_id=stage.intent_id(),
        phase=Phase.REFUSED,
        pinned=Pinned(digest="0" * 64, source=stage.pending().changed, action="s3.export"),
        asked_at=stage.T0,
        changed=stage.pending().changed,
        changed_at=stage.T0,
    )
    shown = card.card(row, WORLD, stage.T0)
    assert not shown.offers_approve
    assert "s3.export never waited" in shown.headline


def test_policy_that_gives_no_reason_is_shown_without_one() -> None:
    row = stage.pending()
    assert row.classification is not None
    for reason in (None, "too many objects"):
        said = row.classification.model_copy(update={"reason": reason})
        shown = card.card(row.model_copy(update={"classification": said}), WORLD, stage.T0)
        texts = [line.text for section in shown.sections for line in section.lines if line.label == "policy's reason"]
        assert texts == ([] if reason is None else [reason])


def test_an_unreadable_plan_is_said_and_takes_approve_away() -> None:
    row = stage.pending()
    assert row.plan
    broken = row.plan.model_copy(update={"body": {"summary": "trust me"}})
    shown = card.card(row.model_copy(update={"plan": broken}), WORLD, stage.T0)
    assert any("plan cannot be read" in text for text in shown.contradictions)
    assert not shown.offers_approve


@QUICK
@given(rows)
def test_a_card_survives_json_and_tells_whether_it_was_altered(row: PendingApproval) -> None:
    shown = card.card(row, WORLD, stage.T0)
    again = card.Card.model_validate_json(shown.model_dump_json(exclude_none=True))
    assert again == shown
    assert again.content_digest() == again.digest
    altered = again.model_copy(update={"headline": again.headline + "."})
    assert altered.content_digest() != altered.digest


@QUICK
@given(rows)
def test_a_plain_terminal_shows_every_word_of_the_card_at_80_columns(row: PendingApproval) -> None:
    shown = card.card(row, WORLD, stage.T0)
    out = io.StringIO()
    terminal.show(shown, terminal.console(out))
    text = out.getvalue()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    flat = "".join(text.split())
    for section in (*shown.sections, shown.progress):
        assert "".join(section.title.split()) in flat


def test_markup_in_an_agents_words_stays_brackets() -> None:
    wish = stage.intent(context=Context(reason="[red]approved[/red] :tick: [link=http://x]y[/link]"))
    out = io.StringIO()
    terminal.show(card.card(stage.pending(wish), WORLD, stage.T0), terminal.console(out))
    flat = " ".join(out.getvalue().split())
    assert "requester says: [red]approved[/red] :tick:" in flat


def test_card_imports_nothing_that_does_anything() -> None:
    source = Path(card.__file__).read_text(encoding="utf-8")
    names = {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)} | {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
    }
    forbidden = {"os", "time", "socket", "logging", "random", "asyncio", "aiokafka", "httpx", "secrets"}
    assert not {name.partition(".")[0] for name in names} & forbidden


def test_the_ordinary_card_reads_from_verb_to_digest_in_order() -> None:
    shown = card.card(stage.pending(), WORLD, stage.T0)
    assert shown.headline == "s3.delete_prefix on bucket arn:aws:s3:::prod-logs"
    assert [section.title for section in shown.sections] == [
        "Who",
        "What exactly",
        "Where",
        "Why you are asked",
        "In the requester's own words, not verified",
        "Facts, as intake found them",
        "Can it be undone",
        "Who may approve",
        "Until",
        "How the plan was read",
        "This question",
    ]


def progress(row: PendingApproval) -> str:
    return "\n".join(f"{line.label}: {line.text}" for line in card.card(row, WORLD, stage.T0).progress.lines)


def outcome(**more: object) -> Outcome:
    members: dict[str, object] = {
        "intent": stage.intent_id(),
        "grant": "a" * 64,
        "instance": "s3-0-1",
        "executor": "s3",
        "result": Result.SUCCEEDED,
    }
    return Outcome(**{**members, **more})


def test_what_happened_since_is_shown_whole() -> None:
    base = stage.unknown()
    assert base.grant
    reported = outcome(receipt=Receipt(summary="deleted 2"), reason="all done", undo="restore both")
    row = base.model_copy(
        update={
            "votes": tuple(stage.vote(base, name) for name in ("ana", "ben", "cho")),
            "barred": ("cho",),
            "approved_until": stage.T0 + 1,
            "lease_until": stage.T0 + 2,
            "remembered": "revoked",
            "outcome": record.state(reported, stage.S3, stage.REALM),
            "flagged": True,
            "reason": "seen in the provider's log",
            "ended_at": stage.T0 + 3,
        }
    )
    text = progress(row)
    for expected in (
        "of 2, group:sre: ana (Ana Lima), 2023-11-14 22:13:20.000 UTC",
        "also said yes: cho (Cho Ji-woo)",
        "barred on this question: cho (Cho Ji-woo)",
        "approved until: 2023-11-14 22:13:20.001 UTC",
        f"grant: {base.grant.digest}",
        "lease until: 2023-11-14 22:13:20.002 UTC",
        "too late to stop, remembered: revoked",
        "outcome: succeeded, reported by s3-0-1",
        "receipt: deleted 2",
        "outcome's reason: all done",
        "to undo it: restore both",
        "flagged: the end was found out, not reported by the one who acted",
        "because: seen in the provider's log",
        "ended: 2023-11-14 22:13:20.003 UTC",
    ):
        assert expected in text


def test_an_observed_outcome_says_so_and_an_unreadable_one_too() -> None:
    row = stage.unknown()
    observed = record.state(outcome(observed=True), stage.S3, stage.REALM)
    assert "succeeded, observed by s3-0-1" in progress(row.model_copy(update={"outcome": observed}))
    broken = observed.model_copy(update={"body": {}})
    assert "outcome: cannot be read" in progress(row.model_copy(update={"outcome": broken}))


def test_a_persons_own_wish_and_people_nobody_knows_are_named_as_such() -> None:
    wish = stage.intent(subject=Subject(type="person", id="zoe"), context=Context(reason="r", on_behalf_of="yan"))
    text = readable(card.card(stage.pending(wish), WORLD, stage.T0))
    assert "requester: person zoe (not in the directory)" in text
    assert "acts for: yan (not in the directory): only stated" in text
    stranger = stage.intent(subject=Subject(type="agent", id="stranger"))
    assert "agent stranger (not in the directory)" in readable(card.card(stage.pending(stranger), WORLD, stage.T0))


def test_before_a_plan_there_is_none_and_without_a_directory_there_is_still_a_card() -> None:
    row = stage.pending().model_copy(update={"phase": Phase.PLANNING, "plan": None, "question": None})
    shown = card.card(row, World(stage.REALM, ()), stage.T0)
    assert "plan: none yet" in readable(shown)
    assert "question: none is open" in "\n".join(f"{line.label}: {line.text}" for line in shown.sections[-1].lines)
    assert card.filled(row, World(stage.REALM, ())) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"question": None},
        {"plan": None},
        {"classified": None},
        {"intent_id": stage.intent_id(5)},
    ],
)
def test_a_row_that_waits_without_all_it_asks_about_is_not_put_to_anybody(change: dict[str, object]) -> None:
    shown = card.card(stage.pending().model_copy(update=change), WORLD, stage.T0)
    assert not shown.is_sound
    assert not shown.offers_approve


def test_an_unreadable_intent_is_said_and_takes_approve_away() -> None:
    row = stage.pending()
    assert row.classified
    broken = row.classified.model_copy(update={"body": {"intent": "trust me"}})
    shown = card.card(row.model_copy(update={"classified": broken}), WORLD, stage.T0)
    assert any("the intent cannot be read" in text for text in shown.contradictions)
    assert not shown.offers_approve


def test_instants_beyond_the_calendar_and_lengths_of_time_have_words() -> None:
    assert card.instant(2**53) == f"{2**53} ms after 1970-01-01 UTC"
    assert card.duration(0) == "0 s"
    assert card.duration(90_061_000) == "1 d 1 h 1 min 1 s"
