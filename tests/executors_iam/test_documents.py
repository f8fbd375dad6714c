"""Comparing policies errs to one side only: what is called held is held."""

from __future__ import annotations

import fnmatch
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.contract import ExecutorError
from executors.iam.documents import Document, Right, Trust, beyond, grants
from executors.iam.levels import ESCALATING, Level, Levels
from executors.iam.patterns import Effort, matches
from tests.executors_iam.world import all_levels

LEVELS = all_levels()
PATTERNS = st.text(alphabet="ab*?", min_size=1, max_size=5)


def document(*statements: dict[str, object]) -> Document:
    return Document.of({"Version": "2012-10-17", "Statement": list(statements)})


def new(given_: Document, *held: Document) -> dict[str, frozenset[Right]]:
    effort = Effort()
    return beyond(grants([given_], LEVELS, effort), grants(held, LEVELS, effort), effort)


def meaning(pattern: str) -> re.Pattern[str]:
    """A second opinion on what a pattern means."""
    return re.compile(re.escape(pattern).replace(r"\*", "[ab]*").replace(r"\?", "[ab]"))


@settings(max_examples=400)
@given(PATTERNS, PATTERNS, st.text(alphabet="ab", max_size=6))
def test_whatever_a_covered_right_reaches_the_covering_one_reaches_too(ours: str, theirs: str, resource: str) -> None:
    if Right(ours, "").covers(Right(theirs, "")) and meaning(theirs).fullmatch(resource):
        assert meaning(ours).fullmatch(resource)


@pytest.mark.parametrize(
    ("held", "wanted", "is_covered"),
    [
        (Right("*", ""), Right("arn:x", "c"), True),
        (Right("arn:x", ""), Right("arn:x", "c"), True),
        (Right("arn:x", "c"), Right("arn:x", "c"), True),
        (Right("arn:x", "c"), Right("arn:x", "d"), False),
        (Right("arn:x", "c"), Right("arn:x", ""), False),
        (Right("arn:x/*", ""), Right("arn:x/a", ""), True),
        (Right("arn:x/a", ""), Right("arn:x/*", ""), False),
        (Right("arn:x/?", ""), Right("arn:x/*", ""), False),
        (Right("arn:x", ""), Right("*", ""), False),
        (Right("not arn:x", ""), Right("arn:y", ""), False),
        (Right("arn:*", ""), Right("not arn:x", ""), False),
        (Right("not arn:x", ""), Right("not arn:x", ""), True),
    ],
)
def test_a_right_is_held_only_if_it_surely_is(held: Right, wanted: Right, is_covered: bool) -> None:
    assert held.covers(wanted) is is_covered


def test_the_same_action_on_another_resource_or_without_the_condition_is_new() -> None:
    held = document(
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::a/*"},
        {
            "Effect": "Allow",
            "Action": "s3:Put*",
            "Resource": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "true"}},
        },
    )
    wanted = {"Effect": "Allow", "Action": ["s3:getobject", "S3:PutObject"]}
    assert new(document(wanted | {"Resource": "arn:aws:s3:::a/b"}), held).keys() == {"s3:PutObject"}
    assert new(document(wanted | {"Resource": "arn:aws:s3:::b/*"}), held).keys() == {"s3:GetObject", "s3:PutObject"}


def test_a_denial_elsewhere_makes_no_grant_smaller() -> None:
    held = document({"Effect": "Deny", "Action": "*", "Resource": "*"})
    assert new(document({"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"}), held).keys() == {
        "iam:PassRole"
    }


def test_what_is_allowed_by_exception_counts_action_by_action() -> None:
    everything_but = document({"Effect": "Allow", "NotAction": ["iam:*", "sts:*"], "Resource": "*"})
    found = new(everything_but)
    assert len(found) > 19_000
    assert not {action for action in found if action.startswith(("iam:", "sts:"))}


def test_an_action_in_no_list_is_unclassified_and_never_dropped() -> None:
    found = new(document({"Effect": "Allow", "Action": ["brandnew:Launch*", "s3:Frobnicate"], "Resource": "*"}))
    assert {action: LEVELS.of(action) for action in found} == {
        "brandnew:Launch*": Level.UNCLASSIFIED,
        "s3:Frobnicate": Level.UNCLASSIFIED,
    }


def test_an_effect_that_is_not_surely_a_denial_counts_as_a_grant() -> None:
    assert new(document({"Effect": "allow", "Action": "s3:GetObject", "Resource": "*"})).keys() == {"s3:GetObject"}


def test_every_escalating_action_exists_at_aws() -> None:
    assert {action for action in ESCALATING if LEVELS.of(action) is Level.UNCLASSIFIED} == set()


@pytest.mark.parametrize(
    ("principal", "is_open", "is_foreign"),
    [
        ("*", True, False),
        ({"AWS": "*"}, True, False),
        ({"AWS": "arn:aws:iam::111122223333:root"}, False, False),
        ({"AWS": ["111122223333", "arn:aws:iam::444455556666:role/x"]}, False, True),
        ({"Service": "lambda.amazonaws.com"}, False, False),
        ({"Federated": "arn:aws:iam::111122223333:oidc-provider/x"}, False, False),
        ({"Federated": "accounts.google.com"}, False, True),
    ],
)
def test_who_can_assume_a_role_is_told_and_conditions_count_as_if_they_held(
    principal: object, is_open: bool, is_foreign: bool
) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": principal,
        "Action": "sts:AssumeRole",
        "Condition": {"Bool": {"x": "y"}},
    }
    trust = Trust.of({"Statement": statement}, "111122223333")
    assert (trust.is_open, trust.other_accounts) == (is_open, is_foreign)


def test_trusting_all_but_some_is_trusting_anyone() -> None:
    statement = {"Effect": "Allow", "NotPrincipal": {"AWS": "arn:aws:iam::1:user/a"}, "Action": "sts:AssumeRole"}
    assert Trust.of({"Statement": [statement]}, "1").is_open


# ---------------------------------------------------------------- no document may stop the process, or hide a right


@pytest.mark.parametrize("pattern", ["s3:" + "*a" * 11, "*" * 40 + "x", "*?" * 30 + "!"])
def test_a_pattern_of_many_stars_is_answered_at_once(pattern: str) -> None:
    # With backtracking the answer would outlive the machine.
    assert not matches(f"{pattern}\N{BULLET}", "s3:" + "a" * 2000)
    assert matches(f"{pattern}*".replace("x", "*").replace("!", "*"), "s3:" + "a" * 2000)


@settings(max_examples=400)
@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_a_pattern_means_what_another_reading_of_it_means(pattern: str, text: str) -> None:
    assert matches(pattern, text) == (meaning(pattern).fullmatch(text) is not None)


def test_policies_too_big_to_be_compared_have_no_plan() -> None:
    hostile = {"Effect": "Allow", "Action": [f"*:*{number}?*" for number in range(1000)], "Resource": "*"}
    with pytest.raises(ExecutorError, match="too many wildcards"):
        grants([document(hostile)], LEVELS, Effort(100_000))
    many = {"Effect": "Allow", "Action": "*", "Resource": [f"arn:{number}" for number in range(1000)]}
    with pytest.raises(ExecutorError, match="too many wildcards"):
        grants([document(many)], LEVELS, Effort(100_000))
    with pytest.raises(ExecutorError, match="more than 2048 characters"):
        document({"Effect": "Allow", "Action": "*", "Resource": "a" * 2049})


FEW = ("iam:PassRole", "iam:GetRole", "s3:GetObject", "s3:PutObject", "sqs:SendMessage")
NAMES = st.sampled_from(
    [
        "*",
        "s3:*",
        "S3:get*",
        "s?:*Object",
        "iam:passrole",
        "*:Get*",
        "i*m:PassRol?",
        "sqs:SendMessage",
        "*Object",
        "*:*",
    ]
)
RESOURCES = st.sampled_from(["*", "arn:a", "arn:*", "arn:?", "arn:${aws:username}", "arn:${*}"])
STATEMENTS = st.fixed_dictionaries(
    {"Effect": st.sampled_from(["Allow", "Deny"])},
    optional={
        "Action": st.lists(NAMES, max_size=2),
        "NotAction": st.lists(NAMES, max_size=2),
        "Resource": st.lists(RESOURCES, max_size=2),
        "NotResource": st.lists(RESOURCES, max_size=1),
    },
)
SMALL = Levels(dict.fromkeys(FEW, Level.WRITE))


def naively(statements: list[dict[str, object]], action: str, resource: str) -> bool:
    """A second opinion, action by action: does an Allow here surely or possibly reach this?"""

    def any_of(patterns: object, text: str) -> bool:
        assert isinstance(patterns, list)
        return any(fnmatch.fnmatchcase(text.lower(), str(each).lower()) for each in patterns)

    def speaks_of(said: dict[str, object]) -> bool:
        named = any_of(said.get("Action", []), action)
        return named or ("NotAction" in said and not any_of(said["NotAction"], action))

    def reaches(said: dict[str, object]) -> bool:
        if not said.get("Resource") and not said.get("NotResource"):
            return True
        within = any_of(said.get("Resource", []), resource)
        return within or (bool(said.get("NotResource")) and not any_of(said["NotResource"], resource))

    return any(said["Effect"] == "Allow" and speaks_of(said) and reaches(said) for said in statements)


@settings(max_examples=300)
@given(
    st.lists(STATEMENTS, max_size=3),
    st.lists(STATEMENTS, max_size=3),
    st.sampled_from(FEW),
    # What each variable may stand for.
    st.sampled_from(["arn:a", "arn:b", "arn:ab", "x"]),
)
def test_no_action_that_a_naive_reading_finds_newly_allowed_is_left_out(
    given_: list[dict[str, object]], held: list[dict[str, object]], action: str, resource: str
) -> None:
    effort = Effort()
    found = beyond(grants([document(*given_)], SMALL, effort), grants([document(*held)], SMALL, effort), effort)
    if naively(given_, action, resource) and not naively(held, action, resource):
        assert action in found


def test_an_action_is_found_however_it_is_written() -> None:
    grave = Levels(dict.fromkeys(ESCALATING, Level.PERMISSIONS))
    for action in ESCALATING:
        service, _, name = action.partition(":")
        short = f"{service[0]}*:{name}"
        for written in (action.upper(), action.lower(), f"{service}:{name[:3]}*", f"*:{name}", short, "*"):
            said = document({"Effect": "Allow", "Action": written, "Resource": "*"})
            assert action in grants([said], grave, Effort()), written


def test_leaving_nothing_out_allows_everything() -> None:
    assert len(new(document({"Effect": "Allow", "NotAction": [], "Resource": "*"}))) == len(LEVELS.all_but(frozenset()))


def test_a_second_spelling_of_an_action_hides_none() -> None:
    twice = Levels({"s3:GetObject": Level.READ, "s3:Getobject": Level.WRITE})
    assert twice.expand("s3:getobject", Effort()) == twice.expand("s3:*", Effort()) == {"s3:GetObject", "s3:Getobject"}


def test_an_escaped_star_covers_no_variable() -> None:
    assert not Right("arn:${*}", "").covers(Right("arn:${aws:username}", ""))
    assert Right("arn:${aws:username}", "").covers(Right("arn:${aws:username}", ""))


def test_a_variable_is_not_the_same_text_where_there_are_no_variables() -> None:
    said = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:${aws:username}"}
    old = Document.of({"Version": "2008-10-17", "Statement": said})
    assert new(document(said), old).keys() == {"s3:GetObject"}


def test_trust_that_is_not_surely_a_denial_counts_as_trust() -> None:
    statement = {"Effect": "allow", "Principal": {"AWS": "999900001111"}, "Action": "sts:AssumeRole"}
    assert Trust.of({"Statement": statement}, "111122223333").other_accounts


@pytest.mark.parametrize(
    ("principal", "foreign", "whole"),
    [
        ({"AWS": "arn:aws:iam::111122223333:root"}, False, ("111122223333",)),
        ({"AWS": "111122223333"}, False, ("111122223333",)),
        ({"AWS": ["arn:aws:iam::999900001111:root", "999900001111"]}, True, ("999900001111",)),
        ({"AWS": "arn:aws:iam::111122223333:user/root"}, False, ()),
        ({"CanonicalUser": "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"}, True, ()),
        ({"Service": "ec2.amazonaws.com"}, False, ()),
        ({"Invented": "111122223333"}, True, ()),
    ],
)
def test_a_principal_that_cannot_be_told_is_a_stranger_and_an_account_is_more_than_one(
    principal: dict[str, object], foreign: bool, whole: tuple[str, ...]
) -> None:
    trust = Trust.of({"Statement": {"Effect": "Allow", "Principal": principal}}, "111122223333")
    assert (trust.other_accounts, trust.whole_accounts) == (foreign, whole)


def test_what_stands_in_a_policy_beside_the_members_that_are_weighed_is_told() -> None:
    said = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:${aws:username}", "Principal": {"AWS": "*"}}
    assert document(said | {"Sid": "x"}).says() == (
        'Allow s3:GetObject on arn:${aws:username} with {"Principal":{"AWS":"*"}}'
    )
    old = Document.of({"Version": "2008-10-17", "Statement": said})
    assert old.says().endswith("its ${...} are no variables but plain text")


@pytest.mark.parametrize(
    "name",
    [
        "arn:aws:iam::999999999999:role/::111111111111:/x",
        "arn:aws:sts::999999999999:assumed-role/x/::111111111111:",
        "999999999999",
        "arn:aws:iam::999999999999:root",
        "arn",
    ],
)
def test_no_role_of_another_account_is_ours_by_what_its_path_says(name: str) -> None:
    trusted = {"Statement": {"Effect": "Allow", "Principal": {"AWS": name}, "Action": "sts:AssumeRole"}}
    assert Trust.of(trusted, "111111111111").other_accounts
    ours = {"Statement": {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:role/a/b"}}}
    assert not Trust.of(ours, "111111111111").other_accounts


@pytest.mark.parametrize("member", ["Resource", "NotResource"])
def test_one_resource_with_blanks_in_its_name_is_not_told_or_taken_as_two(member: str) -> None:
    two = ["arn:aws:s3:::b/x", "arn:aws:s3:::c/*"]
    for joint in (" ", ", ", '", "'):
        said = [
            document({"Effect": "Allow", "Action": "s3:GetObject", member: named})
            for named in (two, joint.join(two), json.dumps(joint.join(two)))
        ]
        assert len({each.says() for each in said}) == 3
        if member == "NotResource":
            assert new(said[1], said[0])


@pytest.mark.parametrize(
    ("resource", "is_unbounded"),
    [
        ("*", True),
        ("**", True),
        ("arn:*", True),
        ("arn:aws:*:*:*:*", True),
        ("arn:aws-cn:*", True),
        ("*:*", True),
        ("arn:aws:s3:::*", False),
        ("arn:aws:iam::111111111111:role/*", False),
    ],
)
def test_everything_is_everything_however_it_is_spelt(resource: str, is_unbounded: bool) -> None:
    assert Right(resource, "").is_unbounded is is_unbounded
    assert Right(f"not {resource}", "").is_unbounded
