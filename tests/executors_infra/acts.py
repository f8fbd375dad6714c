"""Intents for the infrastructure executor, and the stacks it acts on."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from executors.aws.client import Account, Credentials, Provider
from executors.infra.executor import Chance, InfraExecutor, Settings
from schemas import ids
from schemas.records import Action, Context, Intent, Plan, Property, Resource, Round, Subject
from tests.executors_s3.acts import PLACE, now
from tests.sandbox_s3.clients import client

if TYPE_CHECKING:
    from sandbox.aws import AwsAddress

POLL_SECONDS = 0.02

Template = dict[str, Any]


def settings_of(address: AwsAddress, endpoint: str | None = None) -> dict[str, str]:
    """What the executor is told."""
    own = address.executors["infra"]
    assert own.plan_role is not None
    return {
        "endpoint": endpoint or address.endpoint,
        "region": address.region,
        "read_role": own.read_role,
        "plan_role": own.plan_role,
        "act_role": own.act_role,
        "access_key": own.keys.access_key,
        "secret_key": own.keys.secret_key,
    }


def _chance() -> bytes:
    return secrets.token_bytes(16)


@cache
def _executor(given: tuple[tuple[str, str], ...], chance: Chance) -> InfraExecutor:
    told = dict(given)
    account = Account(Provider(told["region"], told["endpoint"]), Credentials(told["access_key"], told["secret_key"]))
    settings = Settings(account, told["read_role"], told["plan_role"], told["act_role"], poll_seconds=POLL_SECONDS)
    return InfraExecutor(settings, now, chance)


def executor(address: AwsAddress, *, endpoint: str | None = None, chance: Chance = _chance) -> InfraExecutor:
    """The executor over a local AWS, as its base identity."""
    return _executor(tuple(settings_of(address, endpoint).items()), chance)


def queue(name: str, **properties: object) -> Template:
    """A queue."""
    return {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name, **properties}}


def topic(name: str) -> Template:
    """A topic."""
    return {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name}}


def table(name: str, **attributes: object) -> Template:
    """A table."""
    return {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        },
        **attributes,
    }


def template(**resources: Template) -> str:
    """A template of these resources."""
    return json.dumps({"Resources": resources})


FAILING = {
    "Type": "AWS::IAM::Policy",
    "Properties": {
        "PolicyName": "p",
        "Roles": ["nobody-is-called-that"],
        "PolicyDocument": {"Version": "2012-10-17", "Statement": []},
    },
}
"""A resource that no stack can create."""


def change_intent(stack: str, body: str | None, *, number: int = 0, **more: Property) -> Intent:
    """The wish to bring a stack to where a template says it is."""
    properties: dict[str, Property] = {"stack": stack, **({} if body is None else {"template_body": body}), **more}
    return Intent(
        id=ids.intent_id("deployer", 1_790_000_000_000, number.to_bytes(10)),
        subject=Subject(type="agent", id="deployer"),
        action=Action(name="infra.change_set", properties=properties),
        resource=Resource(type="stack", id=stack),
        context=Context(reason="The release needs it."),
        ttl=3600,
    )


def planning_round(intent: Intent, number: int = 1) -> Round:
    """A round of planning."""
    return Round(intent=intent.id, number=number, opened=PLACE)


async def planned(address: AwsAddress, intent: Intent, number: int = 1) -> Plan:
    """The plan of `intent` as the world is now."""
    return await executor(address).plan(intent, planning_round(intent, number), now())


@dataclass(frozen=True)
class World:
    """The stacks, as their administrator sees them."""

    address: AwsAddress

    async def call(self, name: str, **given: Any) -> Any:
        """One call of CloudFormation's API."""
        async with client("cloudformation", self.address, self.address.admin) as raw:
            return await getattr(raw, name)(**given)

    async def status(self, stack: str) -> str:
        """The status of a stack."""
        found = await self.call("describe_stacks", StackName=stack)
        return str(found["Stacks"][0]["StackStatus"])

    async def change_sets(self, stack: str) -> dict[str, str]:
        """The execution status of each change set, by name."""
        found = await self.call("list_change_sets", StackName=stack)
        return {each["ChangeSetName"]: each["ExecutionStatus"] for each in found["Summaries"]}

    async def tokens(self, stack: str) -> set[str]:
        """With which tokens the stack was ever changed."""
        found = await self.call("describe_stack_events", StackName=stack)
        return {each["ClientRequestToken"] for each in found["StackEvents"] if "ClientRequestToken" in each}

    async def resources(self, stack: str) -> dict[str, str]:
        """What the stack holds: status by logical id."""
        found = await self.call("describe_stack_resources", StackName=stack)
        return {each["LogicalResourceId"]: each["ResourceStatus"] for each in found["StackResources"]}

    async def stacks(self) -> set[str]:
        """Every stack's name."""
        return {each["StackName"] for each in (await self.call("list_stacks"))["StackSummaries"]}

    async def bring(self, stack: str, body: str) -> None:
        """Create or update a stack past Keyturn."""
        how = "update_stack" if stack in await self.stacks() else "create_stack"
        await self.call(how, StackName=stack, TemplateBody=body)
        await self.settled(stack)

    async def settled(self, stack: str) -> str:
        """Wait until nothing runs on a stack; its status."""
        async with asyncio.timeout(20):
            while (status := await self.status(stack)).endswith("_IN_PROGRESS"):  # noqa: ASYNC110  it raises no event
                await asyncio.sleep(POLL_SECONDS)
        return status
