"""Who is who in the local AWS: an administrator, and for each executor a user that may assume two roles. Data only.

An executor's own keys can do nothing but assume its roles; the one reads, the other acts. What each may do is what
`docs/executors.md` tells an operator to allow.
"""

import json
from dataclasses import dataclass
from typing import Final

from sandbox.s3 import KeyPair

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
ADMIN: Final = "keyturn-admin"

Rights = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """What an executor's roles may do, as actions; on which resources is for the session policies to say."""

    read: Rights
    act: Rights
    #: Of an executor whose plans leave something with the provider: to do that, and nothing else.
    plan: Rights = ()


EXECUTORS: Final[dict[str, Roles]] = {
    "iam": Roles(
        read=(
            "iam:GetGroup",
            "iam:GetGroupPolicy",
            "iam:GetPolicy",
            "iam:GetPolicyVersion",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:GetUser",
            "iam:GetUserPolicy",
            "iam:ListAttachedGroupPolicies",
            "iam:ListAttachedRolePolicies",
            "iam:ListAttachedUserPolicies",
            "iam:ListGroupPolicies",
            "iam:ListGroupsForUser",
            "iam:ListRolePolicies",
            "iam:ListUserPolicies",
        ),
        act=(
            "iam:AttachGroupPolicy",
            "iam:AttachRolePolicy",
            "iam:AttachUserPolicy",
            "iam:DetachGroupPolicy",
            "iam:DetachRolePolicy",
            "iam:DetachUserPolicy",
            "iam:ListAttachedGroupPolicies",
            "iam:ListAttachedRolePolicies",
            "iam:ListAttachedUserPolicies",
        ),
    ),
    "infra": Roles(
        read=(
            "cloudformation:DescribeChangeSet",
            "cloudformation:DescribeStackEvents",
            "cloudformation:DescribeStacks",
            "cloudformation:GetTemplate",
            "cloudformation:ListChangeSets",
            "cloudformation:ListStacks",
        ),
        plan=("cloudformation:CreateChangeSet", "cloudformation:DeleteChangeSet", "s3:GetObject"),
        act=("cloudformation:DescribeChangeSet", "cloudformation:ExecuteChangeSet"),
    ),
}


def user_of(executor: str) -> str:
    """The user whose keys an executor's process holds."""
    return f"keyturn-{executor}"


def read_role(executor: str) -> str:
    """The role an executor plans and observes with."""
    return f"keyturn-{executor}-read"


def plan_role(executor: str) -> str:
    """The role an executor leaves proposals with, if it has one."""
    return f"keyturn-{executor}-plan"


def act_role(executor: str) -> str:
    """The role an executor assumes for a grant, and for nothing else."""
    return f"keyturn-{executor}-act"


def role_arn(role: str) -> str:
    """The ARN of a role."""
    return f"arn:aws:iam::{ACCOUNT}:role/{role}"


def user_arn(user: str) -> str:
    """The ARN of a user."""
    return f"arn:aws:iam::{ACCOUNT}:user/{user}"


def document(*statements: dict[str, object]) -> str:
    """A policy of these statements."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def configuration(port: int, keys: dict[str, KeyPair]) -> str:
    """What the server is told: its port, users with their keys (`admin` and one for each executor), and roles."""
    assume = ["sts:AssumeRole", "sts:SetSourceIdentity"]
    users = [_user(ADMIN, keys["admin"], document({"Effect": "Allow", "Action": "*", "Resource": "*"}))]
    roles: list[dict[str, str]] = []
    for executor, rights in EXECUTORS.items():
        both = {read_role(executor): rights.read, act_role(executor): rights.act}
        if rights.plan:
            both[plan_role(executor)] = rights.plan
        own = document({"Effect": "Allow", "Action": assume, "Resource": [role_arn(name) for name in both]})
        users.append(_user(user_of(executor), keys[executor], own))
        trust = document({"Effect": "Allow", "Principal": {"AWS": user_arn(user_of(executor))}, "Action": assume})
        roles += [
            {
                "name": name,
                "trust": trust,
                "policy": document({"Effect": "Allow", "Action": list(actions), "Resource": "*"}),
            }
            for name, actions in both.items()
        ]
    return json.dumps({"port": port, "users": users, "roles": roles})


def _user(name: str, pair: KeyPair, policy: str) -> dict[str, str]:
    return {"name": name, "access_key": pair.access_key, "secret_key": pair.secret_key, "policy": policy}
