"""What people are told before a policy is attached or detached: all of it, and from the real IAM."""

from __future__ import annotations

import re

import pytest

from executors.aws.client import RefusedError
from executors.contract import ExecutorError
from executors.iam import plugin
from executors.iam.executor import Settings
from executors.iam.parameters import Attachment
from sandbox.aws import AwsAddress
from schemas.record import Scalar
from tests.executors_iam.world import ADMINISTRATOR, Iam, allow, deny, document, executor, planned, settings, wish


async def test_a_plan_names_each_new_action_by_level_and_leaves_out_what_is_held_already(
    aws: AwsAddress, iam: Iam
) -> None:
    role = await iam.role("report-reader", f"arn:aws:iam::{iam.account}:user/cron", path="/jobs/")
    await iam.attach(role, await iam.policy("report-lists", allow(["s3:ListBucket", "s3:GetObject"])))
    await iam.raw.put_role_policy(
        RoleName="report-reader",
        PolicyName="own",
        PolicyDocument=document(allow("s3:PutObject", "arn:aws:s3:::mine/*")),
    )
    policy = await iam.policy(
        "report-more",
        allow(["s3:GetObject", "s3:PutObject", "s3:TagResource"], "arn:aws:s3:::reports/*"),
        allow(["iam:PassRole", "iam:ListRoles"]),
    )

    plan = await planned(aws, wish("attach", role, policy))

    assert plan.measures == {
        "actions": 4,
        "list_actions": 1,
        "read_actions": 0,
        "tagging_actions": 1,
        "write_actions": 1,
        "permissions_actions": 1,
        "unclassified_actions": 0,
        "services": 2,
        "escalations": 1,
        "denies": 0,
        "beyond_boundary": 0,
        "holders": 1,
        "pass_role": True,
        "all_resources": True,
        "has_boundary": False,
        "aws_managed": False,
        "trusts_anyone": False,
        "trusts_other_accounts": False,
    }
    change = plan.changes[0]
    assert (change.verb, change.target, change.detail["policy"], change.detail["version"]) == (
        "attach",
        role,
        policy,
        "v1",
    )
    assert change.detail["permissions_actions"] == "1: iam:PassRole"
    assert change.detail["write_actions"] == "1: s3:PutObject"
    assert "Allow s3:GetObject, s3:PutObject, s3:TagResource on arn:aws:s3:::reports/*" in change.detail["says"]
    assert f"AWS arn:aws:iam::{iam.account}:user/cron" in change.detail["holders"]
    assert "WAYS TO MORE RIGHTS: iam:PassRole" in plan.summary
    assert plan.undo.startswith("iam.detach_policy with the same identity and policy")
    declared = next(action.measures for action in plugin.manifest.actions if action.name == "iam.attach_policy")
    assert declared.keys() == plan.measures.keys()


async def test_planning_twice_gives_the_same_bytes_and_changes_nothing(aws: AwsAddress, iam: Iam) -> None:
    role, policy = await iam.role("twice"), await iam.policy("twice", allow("s3:GetObject"))
    first = await planned(aws, wish("attach", role, policy))
    assert (await planned(aws, wish("attach", role, policy))).to_bytes() == first.to_bytes()
    assert await iam.attached(role) == []


async def test_administrator_access_is_told_in_full_numbers_and_still_fits(aws: AwsAddress, iam: Iam) -> None:
    role = await iam.role("soon-admin", AWS="*")
    plan = await planned(aws, wish("attach", role, ADMINISTRATOR))
    assert plan.measures["actions"] > 20_000
    assert plan.measures["permissions_actions"] > 500
    assert plan.measures["escalations"] > 30
    assert plan.measures["trusts_anyone"] is True
    assert plan.measures["aws_managed"] is True
    assert "ANYONE" in plan.summary
    assert "AWS writes this policy" in plan.summary
    assert plan.lists == ()
    told = str(plan.changes[0].detail["by_service"]).partition(": ")[2]
    assert sum(int(number) for number in re.findall(r" [LRTWUP](\d+)", told)) == plan.measures["actions"]
    assert len(told.split(", ")) == plan.measures["services"]
    assert len(plan.to_bytes()) < 24_000


async def test_a_boundary_is_told_beside_the_numbers_and_makes_none_smaller(aws: AwsAddress, iam: Iam) -> None:
    role = await iam.role("bounded")
    boundary = await iam.policy("boundary", allow("s3:*"))
    await iam.raw.put_role_permissions_boundary(RoleName="bounded", PermissionsBoundary=boundary)
    policy = await iam.policy("bounded-more", allow(["s3:GetObject", "sqs:SendMessage"]))
    plan = await planned(aws, wish("attach", role, policy))
    assert {name: plan.measures[name] for name in ("actions", "beyond_boundary", "has_boundary")} == {
        "actions": 2,
        "beyond_boundary": 1,
        "has_boundary": True,
    }
    assert f"The permissions boundary {boundary} leaves 1 of 2 without effect" in plan.summary


async def test_a_users_groups_count_as_held_and_a_groups_users_as_holders(aws: AwsAddress, iam: Iam) -> None:
    group = await iam.group("readers")
    user = await iam.user("rita", "readers")
    await iam.user("ron", "readers")
    await iam.attach(group, await iam.policy("readers", allow("s3:GetObject")))
    policy = await iam.policy("readers-more", allow(["s3:GetObject", "s3:ListBucket"]))
    assert (await planned(aws, wish("attach", user, policy))).measures["actions"] == 1
    plan = await planned(aws, wish("attach", group, policy))
    assert (plan.measures["actions"], plan.measures["holders"]) == (1, 2)
    assert "2 users are in the group: rita, ron" in plan.summary


async def test_taking_a_denial_away_is_told_as_what_it_is(aws: AwsAddress, iam: Iam) -> None:
    role = await iam.role("fenced")
    policy = await iam.policy("fence", deny("s3:DeleteBucket"), allow("s3:GetObject"))
    await iam.attach(role, policy)
    plan = await planned(aws, wish("detach", role, policy))
    assert (plan.changes[0].verb, plan.measures["actions"], plan.measures["denies"]) == ("detach", 2, 1)
    assert "It takes away 1 actions" in plan.summary
    assert "WHAT THEY FORBADE MAY BECOME ALLOWED: 1 actions, s3:DeleteBucket" in plan.summary
    assert plan.changes[0].detail["freed"] == "1: s3:DeleteBucket"
    assert plan.undo.startswith("iam.attach_policy")


async def test_a_text_that_does_not_fit_has_no_plan_and_is_never_cut(aws: AwsAddress, iam: Iam) -> None:
    role = await iam.role("long")
    fits = [f"arn:aws:s3:::{number:0100}" for number in range(50)]
    policy = await iam.policy("long", allow("s3:GetObject", fits))
    said = str((await planned(aws, wish("attach", role, policy))).changes[0].detail["says"])
    assert all(each in said for each in fits)
    # Each of these is one character in the policy and six in a plan.
    odd = await iam.policy(
        "longer", allow("s3:GetObject", ["arn:aws:s3:::" + "\u202e" * 900 + str(number) for number in range(3)])
    )
    with pytest.raises(ExecutorError, match="whole: split the policy"):
        await planned(aws, wish("attach", role, odd))


async def test_a_plan_has_no_list_that_nobody_sees_however_much_it_grants(aws: AwsAddress, iam: Iam) -> None:
    role = await iam.role("seen")
    policy = await iam.policy("seen", allow(["s3:*", "sqs:SendMessage"]), deny("ec2:*"))
    await iam.attach(role, policy)
    plan = await planned(aws, wish("detach", role, policy))
    detail = plan.changes[0].detail
    assert plan.lists == ()
    assert (
        detail["read_actions"]
        == f"{int(plan.measures['read_actions']) - _freed(detail, 'R')}: counted under by_service"
    )
    assert "s3 R" in str(detail["by_service"])
    assert "ec2 L" in str(detail["freed"])
    assert "Allow s3:*, sqs:SendMessage on *; Deny ec2:* on *" in str(detail["says"])
    assert "the organization's policies were not read" in plan.summary
    assert "unknown" in str(detail["unread"])


def _freed(detail: dict[str, Scalar], letter: str) -> int:
    return sum(int(number) for number in re.findall(rf" {letter}(\d+)", str(detail["freed"])))


async def test_odd_text_in_a_policy_reaches_nobody_as_anything_but_ascii(aws: AwsAddress, iam: Iam) -> None:
    role = await iam.role("odd")
    policy = await iam.policy("odd", allow("s3:GetObject", "arn:aws:s3:::\u202egnp.exe\u3164/*"))
    plan = await planned(aws, wish("attach", role, policy))
    assert plan.to_bytes().isascii()
    assert "\\u202e" in plan.changes[0].detail["says"]


async def test_there_is_no_plan_for_what_makes_no_sense(aws: AwsAddress, iam: Iam) -> None:
    role, policy = await iam.role("sense", path="/a/"), await iam.policy("sense", allow("s3:GetObject"))
    there = await iam.policy("sense-there", allow("s3:GetObject"))
    await iam.attach(role, there)
    own = aws.executors["iam"].act_role
    account = f"arn:aws:iam::{iam.account}"
    cases = {
        "attached to .* already": wish("attach", role, there),
        "is not attached": wish("detach", role, policy),
        "path and all": wish("attach", f"{account}:role/sense", policy),
        "is not there: .*nobody": wish("attach", f"{account}:role/nobody", policy),
        "is not there: .*nothing": wish("attach", role, f"{account}:policy/nothing"),
        "own role; it never changes its own rights": wish("attach", own, policy),
        "must be the role": wish("attach", role, policy, id=f"{account}:role/harmless"),
        "must be the role arn": wish("attach", role, policy, type="user"),
        "of another account": wish("attach", role, "arn:aws:iam::999900001111:policy/x"),
    }
    for reason, intent in cases.items():
        with pytest.raises(ExecutorError, match=reason):
            await planned(aws, intent)


async def test_planning_can_change_nothing_whatever_it_tries(aws: AwsAddress, iam: Iam) -> None:

    role, policy = await iam.role("looking"), await iam.policy("looking", allow("s3:GetObject"))
    other = await iam.role("looking-other")
    intent = wish("attach", role, policy)
    wanted = Attachment.of(intent)
    async with executor(aws)._looking(wanted, intent.id) as looking:
        with pytest.raises(RefusedError, match="AccessDenied"):
            await looking.change(wanted)
        with pytest.raises(RefusedError, match="AccessDenied"):
            await looking.attached("role", other.rpartition("/")[2])


def test_settings_say_what_is_missing_unknown_or_half_given(aws: AwsAddress) -> None:
    whole = settings(aws)
    assert Settings.parse(whole).act_role == whole["act_role"]
    with pytest.raises(ExecutorError, match="KEYTURN_IAM_ACT_ROLE"):
        Settings.parse({name: text for name, text in whole.items() if name != "act_role"})
    with pytest.raises(ExecutorError, match="unknown settings: export_role"):
        Settings.parse(whole | {"export_role": "x"})
    with pytest.raises(ExecutorError, match="KEYTURN_IAM_SECRET_KEY"):
        Settings.parse({name: text for name, text in whole.items() if name != "secret_key"})
