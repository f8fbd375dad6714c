"""Policy: only what is exactly meant comes into force, and whatever matches can only tighten."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import assurance, policy
from schemas.policy import PolicyError
from schemas.records import (
    Assurance,
    Classification,
    Effect,
    Fact,
    Plan,
    Requirement,
    Resource,
    Reversibility,
    Risk,
    Round,
    Seat,
    Source,
    Subject,
)
from schemas.snapshots import Manifest, Manifests, Policies
from tests.broker.builders import (
    CEDAR,
    DIGEST,
    FACTS,
    MANIFESTS,
    PARAMETERS,
    T0,
    an_intent,
    facts,
    offered,
)

COPY = 'permit (principal, action == Action::"s3.copy", resource)'


def load(*rules: str) -> policy.Rulebook:
    return policy.load("\n".join(rules), MANIFESTS.executors)


def judge(
    *rules: str,
    found: Sequence[Fact] | None = None,
    plan: Plan | None = None,
    at: int = T0,
    **intent: Any,
) -> Classification:
    known = facts() if found is None else found
    return policy.evaluate(load(*rules), an_intent("s3.copy", **intent), known, plan, at)


def a_plan(**measures: Any) -> Plan:
    intent = an_intent()
    opened = Source(topic="classified", partition=0, offset=1)
    return Plan(
        round=Round(intent=intent.id, number=1, opened=opened),
        intent=DIGEST,
        executor="s3",
        manifest=1,
        summary="x",
        measures=measures,
        reversibility=Reversibility.NONE,
        undo="none",
        planned_at=T0,
    )


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (f'@approvers("group:a") {COPY};', "every rule needs @id"),
        (f'@id("Not A Name") @approvers("group:a") {COPY};', "every rule needs @id"),
        (f'@id @approvers("group:a") {COPY};', "every rule needs @id"),
        (f'@id("a") @approvers("group:a") {COPY}; @id("a") @approvers("group:b") {COPY};', r"@id\('a'\) is used twice"),
        (f'@id("a") @approver("group:a") {COPY};', "unknown annotation @approver"),
        (f'@id("a") {COPY};', "needs either @approvers"),
        (f'@id("a") @approvers("group:a") @automatic("both") {COPY};', "needs either @approvers"),
        (f'@id("a") @approvers("") {COPY};', "@approvers names nobody"),
        (f'@id("a") @approvers {COPY};', "@approvers names nobody"),
        (f'@id("a") @automatic("") {COPY};', "@automatic says why"),
        (f'@id("a") @automatic {COPY};', "@automatic says why"),
        (f'@id("a") @automatic("so") @quorum("1") {COPY};', "takes no @quorum"),
        (f'@id("a") @approvers("team:a") {COPY};', "String should match pattern"),
        (f'@id("a") @approvers("group:a group:a") {COPY};', "each distinct group"),
        (f'@id("a") @approvers("group:a group:b") @quorum("1") {COPY};', "one number for each"),
        (f'@id("a") @approvers("group:a") @quorum("0") {COPY};', "numbers from 1"),
        (f'@id("a") @approvers("group:a") @quorum("1_0") {COPY};', "numbers from 1"),
        (f'@id("a") @approvers("group:a") @quorum("٢") {COPY};', "numbers from 1"),
        (f'@id("a") @approvers("group:a group:b group:c") @quorum("16 16 1") {COPY};', "32 seats together"),
        (f'@id("a") @approvers("group:a") @quorum("17") {COPY};', "less than or equal to 16"),
        (f'@id("a") @approvers("group:a") @within("0m") {COPY};', r"@within\('0m'\): write a number"),
        (f'@id("a") @approvers("group:a") @within("5 minutes") {COPY};', "write a number"),
        (f'@id("a") @approvers("group:a") @risk("grave") {COPY};', "grave"),
        (f'@id("a") @approvers("group:a") @assurance("certain") {COPY};', "certain"),
        ('@id("a") @approvers("group:a") forbid (principal, action, resource);', "a forbid asks nobody"),
        ('@id("a") @automatic("x") forbid (principal, action, resource);', "a forbid asks nobody"),
        ('@id("a") @approvers("group:a") permit (principal == ?principal, action, resource);', "template"),
        (f'@id("a") @approvers("group:a") {COPY} when {{ context.properties.bukcet == "x" }};', "bukcet"),
        (f'@id("a") @approvers("group:a") {COPY} when {{ context.properties.count == 1 }};', "count"),
        (f'@id("a") @approvers("group:a") {COPY} when {{ context.facts.environment == "x" }};', "environment"),
        (f'@id("a") @approvers("group:a") {COPY} when {{ context.properties.bucket > 1 }};', r"@id\('a'\)"),
        (
            '@id("a") @approvers("group:a") permit (principal, action == Action::"s3.nothing", resource);',
            "applicable action",
        ),
        ('@id("f") forbid (principal, action == Action::"s3.copy", resource) when { context.nothing };', r"@id\('f'\)"),
    ],
)
def test_what_is_not_exactly_meant_does_not_come_into_force(rule: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        load(rule)


@pytest.mark.parametrize("line", [1, 3, 8])
def test_a_syntax_error_is_named_by_the_line_its_statement_begins_at(line: int) -> None:
    good = f'@id("a") @approvers("group:a") {COPY};'
    before = (good + "\n") * (line - 1)
    with pytest.raises(PolicyError, match=rf"line {line}: "):
        load(before + '@id("b") permit (principal, action resource);\n// the end')


def test_a_semicolon_in_a_text_or_a_comment_ends_nothing() -> None:
    book = load(f'// one; two\n@id("a") @automatic("one; two // three") {COPY} when {{ context.resource_id != ";" }};')
    assert next(iter(book.obligations.values())).rule == "a"
    with pytest.raises(PolicyError):
        load(f'@id("a") @automatic("one; two") {COPY} when {{ nonsense')


def test_an_empty_policy_permits_nothing() -> None:
    assert judge("").rules == ("no_rule",)
    assert judge("// nothing yet\n").effect is Effect.DENY


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"size": {"type": "number"}}, "parameter 'size' has type 'number'"),
        ({"size": True}, "parameter 'size' has type None"),
        ({"list": {"type": "array"}}, "parameter 'list' has type None"),
        ({"list": {"type": "array", "items": {"type": "object"}}}, "has type 'object'"),
    ],
)
def test_a_parameter_that_cedar_cannot_hold_is_named(properties: dict[str, Any], message: str) -> None:
    action = offered("s3.copy", parameters=PARAMETERS | {"properties": properties, "required": []})
    with pytest.raises(PolicyError, match=message):
        policy.load("", [Manifest(executor="s3", version="1", actions=(action,))])


def test_a_measure_cannot_hide_the_plans_own_reversibility() -> None:
    action = offered("s3.copy", measures={"reversibility": "string"})
    with pytest.raises(PolicyError, match="would hide"):
        policy.load("", [Manifest(executor="s3", version="1", actions=(action,))])


def test_a_rulebook_is_parsed_once_and_an_error_is_raised_anew_each_time() -> None:
    good = Policies(version=1, cedar=CEDAR)
    assert policy.rulebook(good, MANIFESTS) is policy.rulebook(good, MANIFESTS)
    bad = Policies(version=1, cedar="nonsense")
    raised = []
    for _ in range(2):
        with pytest.raises(PolicyError) as caught:
            policy.rulebook(bad, MANIFESTS)
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert str(raised[0]) == str(raised[1])


def test_a_policy_that_does_not_fit_the_manifests_in_force_is_an_error() -> None:
    with pytest.raises(PolicyError, match="applicable action"):
        policy.rulebook(Policies(version=1, cedar=CEDAR), Manifests(version=1))


# ---------------------------------------------------------------- judging


def test_a_permit_with_approvers_asks_them() -> None:
    found = judge(f'@id("a") @approvers("group:b group:a") @quorum("2 1") @assurance("identity") @within("2h") {COPY};')
    assert found == Classification(
        effect=Effect.REQUIRE_APPROVAL,
        risk=Risk.MEDIUM,
        rules=("a",),
        requirement=Requirement(
            seats=(Seat(of="group:a", count=1), Seat(of="group:b", count=2)),
            assurance=Assurance.IDENTITY,
            within=7200,
        ),
    )


def test_the_longest_time_is_thirty_days() -> None:
    found = judge(f'@id("a") @approvers("group:a") @within("9000d") {COPY};')
    assert found.requirement is not None
    assert found.requirement.within == 30 * 86400


def test_an_automatic_rule_beside_one_that_asks_takes_nothing_away() -> None:
    found = judge(
        f'@id("a") @approvers("group:a") @within("2h") {COPY};', f'@id("b") @automatic("x") @within("1h") {COPY};'
    )
    assert found.effect is Effect.REQUIRE_APPROVAL
    assert found.requirement is not None
    assert found.requirement.within == 3600


def test_forbids_win_and_are_named() -> None:
    found = judge(
        f'@id("a") @automatic("x") {COPY};',
        '@id("never") @description("why") forbid (principal, action == Action::"s3.copy", resource);',
        '@id("nor") forbid (principal, action == Action::"s3.copy", resource);',
    )
    assert (found.effect, found.rules, found.requirement) == (Effect.DENY, ("never", "nor"), None)


def test_who_asks_and_what_for_can_be_judged() -> None:
    rule = """@id("a") @automatic("x") permit (principal == Agent::"bot", action == Action::"s3.copy",
        resource == Resource::"bucket/with \\"quotes\\" and \\\\") when {
        context.properties.bucket == "reports" && context.resource_type == "bucket" &&
        !(context.properties has count) };"""
    resource = Resource(type="bucket", id='with "quotes" and \\')
    assert judge(rule, resource=resource).effect is Effect.PERMIT
    assert judge(rule).effect is Effect.DENY
    person = Subject(type="person", id="bot")
    assert judge(rule, resource=resource, subject=person).effect is Effect.DENY


@pytest.mark.parametrize(
    "properties", [{"tags": ("a", "b")}, {"force": True}, {"count": 2**53 - 1}, {"count": 1 - 2**53}]
)
def test_every_kind_of_parameter_reaches_the_rules(properties: dict[str, Any]) -> None:
    name, value = next(iter(properties.items()))
    condition = {
        "tags": 'context.properties.tags.containsAll(["b", "a"])',
        "force": "context.properties.force",
        "count": f"context.properties.count == {value}",
    }[name]
    rule = f'@id("a") @automatic("x") {COPY} when {{ context.properties has {name} && {condition} }};'
    assert judge(rule, properties={"bucket": "b"} | properties).effect is Effect.PERMIT


def test_time_is_the_logs_in_utc_with_monday_first() -> None:
    rule = f'@id("a") @automatic("x") {COPY} when {{ context.hour == 16 && context.weekday == 1 }};'
    # T0 is Monday, 24 November 2025, 16:00 UTC.
    assert judge(rule, at=T0).effect is Effect.PERMIT
    assert judge(rule, at=T0 - 1).effect is Effect.DENY
    assert judge(rule, at=T0 + 24 * 3_600_000).effect is Effect.DENY


def test_the_plan_is_judged_once_there_is_one() -> None:
    rules = (
        f'@id("a") @approvers("group:a") {COPY};',
        f'@id("b") @approvers("group:b") {COPY} when {{ context has plan && context.plan.reversibility == "none" }};',
        f"""@id("c") @approvers("group:c") {COPY}
            when {{ context has plan && context.plan has objects && context.plan.objects > 10 }};""",
    )
    assert judge(*rules).rules == ("a",)
    assert judge(*rules, plan=a_plan(objects=10, public=False)).rules == ("a", "b")
    assert judge(*rules, plan=a_plan(objects=11, public=False)).rules == ("a", "b", "c")


@pytest.mark.parametrize("value", ["1", True], ids=["a text", "a boolean"])
def test_a_measure_of_another_type_is_a_denial(value: object) -> None:
    found = judge(f'@id("a") @automatic("x") {COPY};', plan=a_plan(objects=value, public=False))
    assert (found.effect, found.rules) == (Effect.DENY, ("policy_error",))


def test_an_evaluation_error_is_a_denial_though_another_rule_permits() -> None:
    overflow = f"""@id("b") @approvers("group:b") {COPY} when {{
        context.properties has count && context.properties.count * 9223372036854775807 > 5 }};"""
    rules = (f'@id("a") @automatic("x") {COPY};', overflow)
    assert judge(*rules, properties={"bucket": "b", "count": 1}).effect is Effect.REQUIRE_APPROVAL
    found = judge(*rules, properties={"bucket": "b", "count": 3})
    assert (found.effect, found.rules) == (Effect.DENY, ("policy_error",))
    assert found.reason is not None
    assert "overflow" in found.reason


def test_a_fact_of_another_type_than_declared_is_a_denial() -> None:
    found = judge(f'@id("a") @automatic("x") {COPY};', found=facts(environment=5))
    assert (found.effect, found.rules) == (Effect.DENY, ("policy_error",))


# ---------------------------------------------------------------- unknown facts


@pytest.mark.parametrize("unknown", [subset for n in (1, 2, 3) for subset in itertools.combinations(sorted(FACTS), n)])
def test_an_unknown_fact_permits_nothing_without_people_and_raises_the_risk(unknown: tuple[str, ...]) -> None:
    found = facts(**dict.fromkeys(unknown))
    automatic = judge(f'@id("a") @automatic("x") @risk("low") {COPY};', found=found)
    assert (automatic.effect, automatic.rules) == (Effect.DENY, ("unknown_fact",))
    asking = judge(f'@id("a") @approvers("group:a") @risk("low") {COPY};', found=found)
    assert (asking.effect, asking.risk) == (Effect.REQUIRE_APPROVAL, Risk.HIGH)
    grave = judge(f'@id("a") @approvers("group:a") @risk("critical") {COPY};', found=found)
    assert grave.risk is Risk.CRITICAL


def test_a_rule_can_ask_more_people_where_a_fact_is_unknown() -> None:
    rules = (
        f'@id("a") @approvers("group:a") {COPY};',
        f'@id("b") @approvers("group:b") {COPY} when {{ context.unknown.contains("classification") }};',
    )
    assert judge(*rules).rules == ("a",)
    assert judge(*rules, found=facts(classification=None)).rules == ("a", "b")


def test_a_fact_left_out_said_twice_differently_or_undeclared_is_unknown() -> None:
    rule = f'@id("a") @automatic("x") {COPY};'
    assert judge(rule, found=facts()[:2]).rules == ("unknown_fact",)
    assert judge(rule, found=(*facts(), *facts(environment="production"))).rules == ("unknown_fact",)
    assert judge(rule, found=(*facts(), *facts())).effect is Effect.PERMIT
    extra = facts()[0].model_copy(update={"name": "colour"})
    assert judge(rule, found=(*facts(), extra)).effect is Effect.PERMIT


# ---------------------------------------------------------------- combining only tightens

groups = st.sampled_from(["group:a", "group:b", "oncall:c", "group:d"])
seat_lists = st.dictionaries(groups, st.integers(1, 4), min_size=1, max_size=4)


@st.composite
def rules(draw: st.DrawFn, number: int = 0) -> str:
    name = f"r{draw(st.integers(0, 10**6))}-{number}"
    notes = [f'@id("{name}")', f'@risk("{draw(st.sampled_from(["low", "medium", "high", "critical"]))}")']
    if draw(st.booleans()):
        seats = draw(seat_lists)
        notes += [
            f'@approvers("{" ".join(seats)}")',
            f'@quorum("{" ".join(map(str, seats.values()))}")',
            f'@assurance("{draw(st.sampled_from(["channel", "identity", "person"]))}")',
        ]
    else:
        notes.append('@automatic("so")')
    notes.append(f'@within("{draw(st.integers(1, 90))}m")')
    return f"{' '.join(notes)} {COPY};"


def weight(found: Classification) -> dict[str, int]:
    return {seat.of: seat.count for seat in found.requirement.seats} if found.requirement is not None else {}


def require_no_weaker(first: Classification, tighter: Classification) -> None:
    assert policy.EFFECTS.index(tighter.effect) >= policy.EFFECTS.index(first.effect)
    assert policy.RISKS.index(tighter.risk) >= policy.RISKS.index(first.risk)
    if tighter.effect is Effect.DENY or first.requirement is None:
        return
    assert tighter.requirement is not None
    assert all(weight(tighter).get(of, 0) >= count for of, count in weight(first).items())
    assert assurance.rank(tighter.requirement.assurance) >= assurance.rank(first.requirement.assurance)
    assert tighter.requirement.within <= first.requirement.within


@settings(max_examples=100)
@given(st.lists(rules(), min_size=1, max_size=4, unique_by=lambda rule: rule.split('"')[1]), rules(1))
def test_one_more_matching_rule_never_weakens(some: list[str], more: str) -> None:
    require_no_weaker(judge(*some), judge(*some, more))
    forbidden = judge(*some, '@id("f") forbid (principal, action == Action::"s3.copy", resource);')
    assert forbidden.effect is Effect.DENY


@settings(max_examples=60)
@given(
    st.lists(rules(), min_size=1, max_size=3, unique_by=lambda rule: rule.split('"')[1]),
    st.sets(st.sampled_from(sorted(FACTS))),
)
def test_knowing_less_never_weakens_rules_that_rest_on_no_fact(some: list[str], unknown: set[str]) -> None:
    require_no_weaker(judge(*some), judge(*some, found=facts(**dict.fromkeys(unknown))))


requirements = st.none() | st.builds(
    lambda seats, sure, within: Requirement(
        seats=tuple(Seat(of=of, count=count) for of, count in seats.items()), assurance=sure, within=within
    ),
    seat_lists,
    st.sampled_from(list(Assurance)),
    st.integers(1, 7200),
)
classifications = st.builds(
    lambda effect, risk, rules, requirement: Classification(
        effect=effect, risk=risk, rules=tuple(sorted(rules)), requirement=requirement
    ),
    st.sampled_from(list(Effect)),
    st.sampled_from(list(Risk)),
    st.sets(st.sampled_from(["x", "y", "z"])),
    requirements,
)


@settings(max_examples=200)
@given(classifications, classifications)
def test_the_stricter_of_two_is_no_weaker_than_either_in_either_order(
    first: Classification, second: Classification
) -> None:
    found = policy.stricter(first, second)
    if found.effect is not Effect.DENY:
        require_no_weaker(first, found)
        require_no_weaker(second, found)
    turned = policy.stricter(second, first)
    assert (found.effect, found.risk, found.rules, found.requirement) == (
        turned.effect,
        turned.risk,
        turned.rules,
        turned.requirement,
    )
    assert policy.stricter(found, found) == found
    assert (found.requirement is not None) == (found.effect is Effect.REQUIRE_APPROVAL)


def test_more_rules_groups_or_seats_than_a_record_holds_are_a_denial() -> None:
    many_rules = [f'@id("r{n}") @approvers("group:a") {COPY};' for n in range(policy.MAX_RULES + 1)]
    many_groups = [f'@id("r{n}") @approvers("group:g{n}") {COPY};' for n in range(policy.MAX_GROUPS + 1)]
    many_seats = [f'@id("r{n}") @approvers("group:g{n}") @quorum("16") {COPY};' for n in range(3)]
    for rules_ in (many_rules, many_groups, many_seats):
        found = judge(*rules_)
        assert (found.effect, found.rules) == (Effect.DENY, ("too_much_matches",))
    forbids = [
        f'@id("r{n}") forbid (principal, action == Action::"s3.copy", resource);' for n in range(policy.MAX_RULES + 1)
    ]
    assert judge(*forbids).effect is Effect.DENY
