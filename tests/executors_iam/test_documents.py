"""Comparing policies errs to one side only: what is called held is held."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.iam.documents import Document, Right, Trust, beyond, grants
from executors.iam.levels import ESCALATING, Level
from tests.executors_iam.world import all_levels

LEVELS = all_levels()
PATTERNS = st.text(alphabet="ab*?", min_size=1, max_size=5)


def document(*statements: dict[str, object]) -> Document:
    return Document.of({"Version": "2012-10-17", "Statement": list(statements)})


def new(given_: Document, *held: Document) -> dict[str, frozenset[Right]]:
    return beyond(grants([given_], LEVELS), grants(held, LEVELS))


def meaning(pattern: str) -> re.Pattern[str]:
    """A second opinion on what a pattern means."""
    return re.compile(re.escape(pattern).replace(r"\*", "[ab]*").replace(r"\?", "[ab]"))


@settings(max_examples=400, deadline=None)
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
