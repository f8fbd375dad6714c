"""The laws of DESIGN §2 as properties of `decide`: for whatever is generated, they hold."""

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import lifecycle
from schemas import canonical, question, signing
from schemas.record import Statement, state
from schemas.records import (
    AccountRef,
    Channel,
    ClassifiedIntent,
    Context,
    Fact,
    ForwardedWithdrawal,
    Grant,
    Intent,
    Phase,
    Refusal,
    Requirement,
    Result,
    Source,
    Verdict,
)
from schemas.snapshots import Agent, Directory, Group, Person, Roster, Rota
from schemas.timing import LEADER_SKEW_MS
from tests.broker.builders import (
    DAY,
    DIGEST,
    DIRECTORY,
    HOUR,
    KEYS,
    MANIFESTS,
    POLICIES,
    REALM,
    ROSTER,
    SECOND,
    T0,
    Story,
    account,
    approved,
    changed,
    classified_of,
    empty_world,
    executing,
    facts,
    groups_with,
    in_phase,
    pending,
    person,
    said_bytes,
    signer,
    unknown,
    with_documents,
)

# ---------------------------------------------------------------- law 1: consent binds to bytes


def changes_of(value: Any) -> Iterator[Any]:
    """The value with one leaf changed, for every leaf; and with one member or item less, or more."""
    match value:
        case dict():
            for name, member in value.items():
                for other in changes_of(member):
                    yield value | {name: other}
                yield {each: value[each] for each in value if each != name}
            yield value | {"zz": "more"}
        case list() | tuple():
            for index, item in enumerate(value):
                for other in changes_of(item):
                    yield [*value[:index], other, *value[index + 1 :]]
                yield [*value[:index], *value[index + 1 :]]
            yield [*value, "more"]
        case bool():
            yield not value
        case int():
            yield value + 1
        case _:
            yield f"{value}x"
            yield ""


def test_any_changed_leaf_of_what_is_asked_changes_the_question() -> None:
    story = pending("s3.export")
    row = story.here
    assert row.classified is not None
    assert row.plan is not None
    assert row.question is not None
    assert row.classification is not None
    classified = row.classified.read(ClassifiedIntent)
    requirement = row.classification.requirement
    assert requirement is not None
    opened = row.question.opened

    def asked(
        realm: str = REALM,
        intent: Statement = classified.intent,
        plan: Statement = row.plan,
        found: tuple[Fact, ...] = classified.facts,
        needed: Requirement | None = requirement,
        at: Source = opened,
    ) -> str:
        about = classified.model_copy(update={"intent": intent, "facts": found})
        return question.ask(realm, row.intent_id, about, plan, needed, at).digest

    def raw(kind: type[Any], members: Any) -> Any:
        return kind.model_construct(**members)

    digests = [row.question.digest, asked(realm="staging"), asked(needed=None)]
    digests += [
        asked(intent=classified.intent.model_copy(update={"body": body})) for body in changes_of(classified.intent.body)
    ]
    digests += [asked(plan=row.plan.model_copy(update={"body": body})) for body in changes_of(row.plan.body)]
    digests += [
        canonical.digest_of(row.question.to_json() | {"facts": canonical.digest_of(found)})
        for found in changes_of([fact.to_json() for fact in classified.facts])
    ]
    digests += [
        canonical.digest_of(row.question.to_json() | {"requirement": canonical.digest_of(needed)})
        for needed in changes_of(requirement.to_json())
    ]
    digests += [
        asked(at=opened.model_copy(update={name: value + 1})) for name, value in (("partition", 0), ("offset", 1))
    ]
    assert asked() == row.question.digest
    assert len(digests) > 100
    assert len(set(digests)) == len(digests)
    for digest in digests[1::25]:
        assert story.approve("dan", question=digest).refusal is Refusal.WRONG_QUESTION
    assert story.voters == set()


def test_each_opening_asks_another_question_even_about_the_same() -> None:
    story = executing()
    asked = {story.question}
    for _ in range(3):
        story.report(Result.STALE)
        story.plan()
        assert story.question not in asked
        for old in asked:
            assert story.approve("dan", question=old).refusal is Refusal.WRONG_QUESTION
        asked.add(story.question)
        story.approve("dan")
        story.claim()


# ---------------------------------------------------------------- law 2: nobody approves for themselves

NAMES = tuple(f"p{number}" for number in range(6))
people = st.sets(st.sampled_from(NAMES), max_size=3)


def accounts_of(name: str) -> tuple[AccountRef, ...]:
    return (account(name), account(name, "slack"))


@st.composite
def directories(draw: st.DrawFn) -> dict[str, Any]:
    """Members of one directory version: who owns, uses, and acts for whom."""
    return {
        "persons": tuple(
            Person(id=name, name=name, accounts=accounts_of(name), delegates=tuple(sorted(draw(people))))
            for name in NAMES
        ),
        "agents": (
            Agent(
                id="bot",
                owners=tuple(sorted(draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=2)))),
                users=tuple(sorted(draw(people))),
                gateways=("gateway",),
            ),
        ),
        "groups": (Group(id="sre", members=NAMES), Group(id="data", members=NAMES)),
    }


def naive_circle(intent: Intent, versions: Sequence[Mapping[str, Any]], *, is_verified: bool) -> set[str]:
    """Law 2 as DESIGN says it, spelt out."""
    found: set[str] = set()
    for version in versions:
        now: set[str] = set()
        agent = version["agents"][0]
        now |= set(agent.owners)
        stated = intent.context.on_behalf_of
        if stated is not None:
            now.add(stated)
        if stated is None or not is_verified:
            now |= set(agent.users)
        for _ in NAMES:
            for each in version["persons"]:
                if each.id in now:
                    now |= set(each.delegates)
        found |= now
    return found


@settings(max_examples=40)
@given(
    versions=st.lists(directories(), min_size=4, max_size=4),
    when=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    stated=st.none() | st.sampled_from(NAMES),
    is_verified=st.booleans(),
    order=st.permutations(NAMES),
)
def test_nobody_who_ever_stood_behind_the_requester_has_a_yes_that_counts(
    versions: list[dict[str, Any]],
    when: list[int],
    stated: str | None,
    is_verified: bool,
    order: Sequence[str],
) -> None:
    cited, heard, voting, claimed = sorted(when)
    worlds = [with_documents(empty_world(), Directory(version=1, keys=KEYS, **versions[0]), POLICIES, MANIFESTS)]
    for members in versions[1:]:
        worlds.append(changed(worlds[-1], Directory, **members))
    story = Story(world=worlds[cited])
    by = "gateway" if is_verified else "bot"
    story.intent = story.intent.model_copy(update={"context": Context(reason="x", on_behalf_of=stated)})
    signed = state(story.intent, signer(by), REALM)
    said = classified_of(story.world, signed)
    story.world = worlds[heard]
    story.hear(said)
    story.plan(intent=signed.digest)
    story.world = worlds[voting]
    behind = naive_circle(story.intent, versions[cited : voting + 1], is_verified=is_verified)
    for name in order:
        channel = Channel.API if name in order[:3] else Channel.SLACK
        step = story.approve(name, channel=channel)
        if step.refusal is not Refusal.ALREADY_DECIDED:
            assert (step.refusal is Refusal.SELF_APPROVAL) == (name in behind)
    assert not story.voters & behind
    assert (story.phase is Phase.APPROVED) == (behind != set(NAMES))
    story.world = worlds[claimed]
    story.claim()
    behind = naive_circle(story.intent, versions[cited : claimed + 1], is_verified=is_verified)
    granted = {vote.person for grant in story.said(Grant) for vote in grant.votes}
    assert not granted & behind
    if story.phase is Phase.EXECUTING:
        assert set(story.grant.circle) == behind


# ---------------------------------------------------------------- law 3: distinct persons in distinct seats


def can_be_seated(places: Sequence[str], may: Mapping[str, set[str]]) -> bool:
    """Brute force: some arrangement of distinct persons fills every place."""
    return any(
        all(place in may[name] for place, name in zip(places, chosen, strict=True))
        for chosen in itertools.permutations(may, len(places))
    )


@settings(max_examples=40)
@given(
    sre=st.sets(st.sampled_from(["dan", "eve", "fay", "gus"])),
    data=st.sets(st.sampled_from(["dan", "eve", "fay", "gus"])),
    voters=st.sets(st.sampled_from(["dan", "eve", "fay", "gus"])),
    orders=st.randoms(use_true_random=False),
)
def test_an_approval_rests_on_distinct_persons_in_distinct_seats_in_whatever_order_they_click(
    sre: set[str], data: set[str], voters: set[str], orders: Any
) -> None:
    groups = tuple(
        each.model_copy(update={"members": tuple(sorted(sre if each.id == "sre" else data))})
        if each.id in {"sre", "data"}
        else each
        for each in DIRECTORY.groups
    )
    story = pending("s3.export")
    story.becomes(Directory, groups=groups)
    before = story.row
    may = {
        name: ({"group:sre"} if name in sre else set()) | ({"group:data"} if name in data else set()) for name in voters
    }
    expected = can_be_seated(["group:sre", "group:sre", "group:data"], may)
    clicks = sorted(voters)
    for _ in range(3):
        orders.shuffle(clicks)
        story.row = before
        for name in clicks:
            story.approve(name)
            assert len(story.voters) == len(story.here.votes)
        assert (story.phase is Phase.APPROVED) == expected


# ---------------------------------------------------------------- law 4: done at most once


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["claim", "report", "observe", "old", "tick"]),
            st.sampled_from(["a", "b"]),
            st.sampled_from(list(Result)),
        ),
        max_size=12,
    )
)
def test_one_grant_a_question_and_only_its_instance_ends_it(acts: list[tuple[str, str, Result]]) -> None:
    story = approved()
    grants: dict[str, Grant] = {}
    old: list[Any] = []
    for act, instance, result in acts:
        before = story.here
        match act:
            case "claim":
                story.claim(instance)
                for grant in story.said(Grant):
                    assert grant.question.digest not in grants, "a second right to act"
                    assert grant.instance == instance
                    grants[grant.question.digest] = grant
            case "report" | "observe":
                record = story.an_outcome(result, instance, observed=act == "observe", unknown=before.unknown)
                old.append(record)
                step = story.hear(record)
                if step.refusal is None:
                    assert before.grant is not None
                    assert act == "observe" or instance == before.grant.instance
                    assert act == "report" or before.phase is Phase.UNKNOWN
            case "old":
                for record in old:
                    if before.grant is None or record.grant != before.grant.digest:
                        assert story.hear(record).refusal is not None
            case _:
                story.tick(T0 + 5 * 60 * SECOND)
        if story.phase is Phase.PLANNING:
            story.plan()
            story.approve("eve")
    assert len({grant.claim for grant in grants.values()}) == len(grants)


# ---------------------------------------------------------------- law 5: time is the log's


@settings(max_examples=60)
@given(
    said_at=st.integers(-2 * HOUR, 2 * HOUR),
    ticks=st.lists(st.integers(-2 * HOUR, LEADER_SKEW_MS), max_size=3),
    planned_at=st.integers(-HOUR, 2 * HOUR),
)
def test_a_yes_is_timely_or_late_by_its_own_log_time_whatever_came_before(
    said_at: int, ticks: list[int], planned_at: int
) -> None:
    story = in_phase(Phase.PLANNING)
    deadline = story.here.expires_at
    assert deadline is not None
    story.plan(at=T0 + planned_at)
    for tick in ticks:
        # No leader that is within the allowed skew can end it before a timely yes.
        assert story.tick(deadline + tick).refusal is not None
    evidence = story.a_decision(Verdict.APPROVE, "dan", at=deadline + said_at)
    step = story.hear(evidence, at=deadline + said_at)
    assert step.refusal is (None if said_at < 0 else Refusal.LATE)
    assert (story.phase is Phase.APPROVED) == (said_at < 0)


# ---------------------------------------------------------------- law 6: fail closed


@pytest.mark.parametrize("action", ["s3.list", "s3.copy", "s3.erase", "s3.guard"])
@pytest.mark.parametrize(
    "missing",
    [each for n in range(1, 5) for each in itertools.combinations(["people", "roster", "policies", "manifests"], n)],
    ids="+".join,
)
def test_what_is_missing_from_the_world_approves_nothing(missing: tuple[str, ...], action: str) -> None:
    directory = Directory(version=1, keys=KEYS, agents=()) if "people" in missing else DIRECTORY
    documents = {"roster": ROSTER, "policies": POLICIES, "manifests": MANIFESTS}
    world = with_documents(empty_world(), directory, *(each for name, each in documents.items() if name not in missing))
    story = Story(world=world)
    story.ask(action)
    if story.phase is Phase.PLANNING:
        story.plan()
    for name in ("dan", "eve", "gus", "hal", "ivy", "kim"):
        story.approve(name)
    needs_roster = action in {"s3.erase", "s3.guard"}
    is_enough = missing == ("roster",) and not needs_roster
    assert (story.phase is Phase.APPROVED) == is_enough


def test_a_requirement_that_nobody_can_meet_is_never_met() -> None:
    story = pending()
    story.becomes(Directory, groups=groups_with("sre"))
    for name in ("ada", "dan", "eve", "fay", "gus", "jon"):
        assert story.approve(name).refusal is not None
    story.tick(T0 + DAY)
    assert story.phase is Phase.EXPIRED
    story = pending("s3.guard")
    story.becomes(Roster, rotas=(Rota(id="night"),))
    assert story.approve("ivy").refusal is Refusal.NO_SEAT
    story.becomes(Directory, rotas=())
    assert story.approve("kim").refusal is Refusal.NO_SEAT


# ---------------------------------------------------------------- law 9: total

json_values = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="ascii"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8), inner, max_size=3
        )
    ),
    max_leaves=6,
)
bodies = st.dictionaries(
    st.sampled_from(["id", "subject", "action", "resource", "context", "ttl", "intent", "by", "reason", "zz"]),
    json_values,
    max_size=6,
)


@settings(max_examples=100)
@given(
    body=bodies,
    is_rooted=st.booleans(),
    is_signed=st.booleans(),
    kind=st.sampled_from(["intent", "withdrawal"]),
    phase=st.sampled_from([None, Phase.PLANNING, Phase.PENDING, Phase.EXECUTING, Phase.DENIED]),
)
def test_garbage_inside_a_signed_record_is_answered_and_moves_nothing(
    body: dict[str, Any],
    is_rooted: bool,
    is_signed: bool,
    kind: str,
    phase: Phase | None,
) -> None:
    story = Story(row=STORIES[phase].row, world=STORIES[phase].world)
    template = state(story.intent, signer("bot"), REALM) if kind == "intent" else story.a_withdrawal().withdrawal
    whole = {**template.body, **body} if is_rooted else body
    if phase is not None:
        whole = whole | {("id" if kind == "intent" else "intent"): story.intent.id}
    sig = signing.sign(signer("bot"), REALM, template.type, canonical.encode(whole)) if is_signed else template.sig
    forged = template.model_copy(update={"body": whole, "sig": sig})
    before = story.row
    if kind == "intent":
        base = classified_of(story.world, state(story.intent, signer("bot"), REALM))
        step = story.hear(base.model_copy(update={"intent": forged}))
    else:
        step = story.hear(story.a_withdrawal().model_copy(update={"withdrawal": forged}))
    assert step.refusal is not Refusal.INTERNAL
    if step.refusal is not None and phase is not None:
        assert story.row == before


STORIES: Mapping[Phase | None, Story] = {
    phase: in_phase(phase) for phase in (None, Phase.PLANNING, Phase.PENDING, Phase.EXECUTING, Phase.DENIED)
}


@settings(max_examples=60)
@given(st.data())
def test_any_valid_record_in_any_phase_gets_one_answer(data: st.DataObject) -> None:
    # Every field that a sender is free to choose, chosen freely: valid records that mean nothing, or the wrong thing.
    phase = data.draw(st.sampled_from([None, *Phase]))
    story = in_phase(phase)
    digest = data.draw(st.sampled_from([DIGEST, story.question, "f" * 64]))
    name = data.draw(st.sampled_from(["ada", "dan", "gus", "jon", "nobody"]))
    words = data.draw(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=50).map(_nfc))
    match data.draw(st.integers(0, 5)):
        case 0:
            verdict = data.draw(st.sampled_from(list(Verdict)))
            story.says(verdict, name, question=digest, reason=words, person=data.draw(st.sampled_from([None, name])))
        case 1:
            story.claim(data.draw(st.sampled_from(["one", "x" * 127])), question=digest)
        case 2:
            grant = data.draw(
                st.sampled_from([DIGEST, story.row.grant.digest if story.row and story.row.grant else DIGEST])
            )
            story.report(data.draw(st.sampled_from(list(Result))), grant=grant, reason=words, undo=words)
        case 3:
            story.resolve(name, data.draw(st.sampled_from(["succeeded", "failed"])), reason=words or "")
        case 4:
            story.tick(data.draw(st.integers(0, 2**50)))
        case _:
            story.withdraw(data.draw(st.sampled_from(["bot", "old"])), reason=words)
    assert story.steps[-1].refusal is not Refusal.INTERNAL


def _nfc(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", text)


# ---------------------------------------------------------------- the same inputs, the same bytes


@cache
def whole_stories() -> str:
    """A digest of everything that is said in a handful of stories, faults and broken policies included."""
    found = hashlib.sha256()
    stories = [in_phase(phase) for phase in (None, *Phase)]
    much = approved("s3.export", ("dan", "eve", "gus"))
    much.becomes(Directory, persons=(*DIRECTORY.persons, person("zoe")), groups=groups_with("sre", "zoe", "eve", "fay"))
    much.claim()
    broken = Story(world=with_documents(empty_world(), DIRECTORY, ROSTER, MANIFESTS))
    broken.becomes(
        type(POLICIES), cedar=POLICIES.cedar.replace("context.properties.bucket", "context.properties.bukcet")
    )
    broken.ask(said={"classification": None})
    odd = Story()
    odd.ask("s3.copy", found=facts(environment=5, owner=7), said={"classification": None})
    for story in (*stories, much, broken, odd, unknown("s3.erase", ("gus",))):
        for step in story.steps:
            for data in said_bytes(step):
                found.update(data)
        found.update((story.chain.head.digest or "").encode())
    return found.hexdigest()


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_another_hash_seed_says_the_same_bytes(seed: str) -> None:
    root = Path(__file__).resolve().parents[2]
    there = subprocess.run(
        [sys.executable, "-c", "from tests.broker import test_laws; print(test_laws.whole_stories())"],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert there.stdout.strip() == whole_stories()


def test_forwarded_withdrawals_and_intents_name_what_they_are_about() -> None:
    story = pending()
    assert lifecycle.intent_id_of(story.a_withdrawal()) == story.intent.id
    assert isinstance(story.a_withdrawal(), ForwardedWithdrawal)
