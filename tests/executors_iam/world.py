"""Identities and policies for the IAM executor, as their administrator makes them, and intents about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from executors.aws.client import Account, Credentials, Provider
from executors.iam import levels
from executors.iam.executor import IamExecutor, Settings
from schemas import ids
from schemas.records import Action, Context, Intent, Resource
from tests.executors_s3.acts import now, planning_round

if TYPE_CHECKING:
    from collections.abc import Callable

    from executors.iam.levels import Levels
    from sandbox.aws import AwsAddress
    from schemas.records import Plan

ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"


@cache
def all_levels() -> Levels:
    """Every action of AWS's; read once for all tests."""
    return levels.installed()


def settings(address: AwsAddress, endpoint: str | None = None) -> dict[str, str]:
    """What the executor's process would be told."""
    own = address.executors["iam"]
    return {
        "region": address.region,
        "endpoint": endpoint or address.endpoint,
        "read_role": own.read_role,
        "act_role": own.act_role,
        "access_key": own.keys.access_key,
        "secret_key": own.keys.secret_key,
    }


@cache
def _executor(endpoint: str, own: tuple[str, ...], clock: Callable[[], int]) -> IamExecutor:
    # One for all tests: reading the service models takes a tenth of a second.
    region, read_role, act_role, access_key, secret_key = own
    account = Account(Provider(region, endpoint), Credentials(access_key, secret_key))
    return IamExecutor(Settings(account, read_role, act_role), all_levels(), clock)


def executor(address: AwsAddress, *, endpoint: str | None = None, clock: Callable[[], int] = now) -> IamExecutor:
    """The executor over a local AWS, as its base identity."""
    own = address.executors["iam"]
    told = (address.region, own.read_role, own.act_role, own.keys.access_key, own.keys.secret_key)
    return _executor(endpoint or address.endpoint, told, clock)


def wish(verb: str, identity: str, policy: str, **changed: str) -> Intent:
    """The wish to attach `policy` to `identity`, or to detach it."""
    kind = identity.split(":")[5].partition("/")[0]
    resource = Resource(type=changed.get("type", kind), id=changed.get("id", identity))
    return Intent(
        id=ids.intent_id("reporter", 1_790_000_000_000, bytes(10)),
        subject={"type": "agent", "id": "reporter"},
        action=Action(name=f"iam.{verb}_policy", properties={"identity": identity, "policy": policy}),
        resource=resource,
        context=Context(reason="The nightly report needs it."),
        ttl=3600,
    )


async def planned(address: AwsAddress, intent: Intent) -> Plan:
    """The plan of `intent` as IAM is now."""
    return await executor(address).plan(intent, planning_round(intent), 1_790_000_000_000)


def allow(actions: str | list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    """A statement."""
    return {"Effect": "Allow", "Action": actions, "Resource": resource, **more}


def deny(actions: str | list[str], resource: str = "*") -> dict[str, Any]:
    """A statement that forbids."""
    return {"Effect": "Deny", "Action": actions, "Resource": resource}


def document(*statements: dict[str, Any]) -> str:
    """A policy's text."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@dataclass(frozen=True)
class Iam:
    """IAM as its administrator sees it."""

    raw: Any
    account: str

    async def role(self, name: str, *trusted: str, path: str = "/", **principals: str) -> str:
        """A role that these principals, or the account's root, can assume."""
        principal = principals or {"AWS": list(trusted) or [f"arn:aws:iam::{self.account}:root"]}
        trust = document({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})
        made = await self.raw.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=trust)
        return str(made["Role"]["Arn"])

    async def user(self, name: str, *groups: str) -> str:
        """A user in these groups."""
        made = await self.raw.create_user(UserName=name)
        for group in groups:
            await self.raw.add_user_to_group(GroupName=group, UserName=name)
        return str(made["User"]["Arn"])

    async def group(self, name: str) -> str:
        """A group."""
        return str((await self.raw.create_group(GroupName=name))["Group"]["Arn"])

    async def policy(self, name: str, *statements: dict[str, Any]) -> str:
        """A managed policy."""
        made = await self.raw.create_policy(PolicyName=name, PolicyDocument=document(*statements))
        return str(made["Policy"]["Arn"])

    async def attached(self, identity: str) -> list[str]:
        """The ARNs of what is attached, sorted."""
        kind = identity.split(":")[5].partition("/")[0]
        listing = getattr(self.raw, f"list_attached_{kind}_policies")
        answer = await listing(**{f"{kind.capitalize()}Name": identity.rpartition("/")[2]})
        return sorted(each["PolicyArn"] for each in answer["AttachedPolicies"])

    async def attach(self, identity: str, policy: str, verb: str = "attach") -> None:
        """Attach (or detach) behind everybody's back."""
        kind = identity.split(":")[5].partition("/")[0]
        call = getattr(self.raw, f"{verb}_{kind}_policy")
        await call(**{f"{kind.capitalize()}Name": identity.rpartition("/")[2], "PolicyArn": policy})
