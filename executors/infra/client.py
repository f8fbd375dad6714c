"""The only module of this executor that knows the SDK: CloudFormation in our own words, each call sent once."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from botocore.handlers import json_decode_template_body

from executors.aws.client import Aws, Credentials, RefusedError, told
from executors.infra.parameters import Named, Wish

REVIEW: Final = "REVIEW_IN_PROGRESS"
"""A stack that is only a name for change sets: it holds nothing yet."""
MISSING: Final = frozenset({"ChangeSetNotFound", "ChangeSetNotFoundException"})


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as it stands."""

    id: str
    name: str
    status: str
    updated: datetime
    is_protected: bool
    #: IN_SYNC, DRIFTED, UNKNOWN or NOT_CHECKED, as of the last detection anybody asked for.
    drift: str
    drift_checked: datetime | None
    #: What people can see of them: values of NoEcho parameters come masked.
    parameters: Mapping[str, str]

    @property
    def is_empty(self) -> bool:
        """Whether it was never created."""
        return self.status == REVIEW

    @property
    def is_busy(self) -> bool:
        """Whether an operation runs on it."""
        return self.status.endswith("_IN_PROGRESS") and not self.is_empty


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """One resource in a change set, in the provider's words."""

    action: str
    logical_id: str
    physical_id: str
    kind: str
    replacement: str
    policy_action: str
    #: What changes of it: properties by name, other attributes (Tags, Metadata, DeletionPolicy) by theirs.
    scope: tuple[str, ...]
    #: JSON texts of the resource before and after, where the provider gives them.
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A change set and everything in it."""

    arn: str
    name: str
    stack_id: str
    description: str
    #: CREATE_PENDING, CREATE_IN_PROGRESS, CREATE_COMPLETE, FAILED, DELETE_...
    status: str
    reason: str
    #: UNAVAILABLE, AVAILABLE, EXECUTE_IN_PROGRESS, EXECUTE_COMPLETE, EXECUTE_FAILED, OBSOLETE
    execution: str
    parameters: Mapping[str, str]
    capabilities: tuple[str, ...]
    changes: tuple[ResourceChange, ...]
    #: Entries that are no change of a resource: of what they are we know nothing.
    strange: int = 0

    @property
    def is_made(self) -> bool:
        """Whether the provider has finished working it out, or given up."""
        return self.status not in {"CREATE_PENDING", "CREATE_IN_PROGRESS"}


@dataclass(frozen=True, slots=True)
class Summary:
    """A change set in a list."""

    arn: str
    name: str
    stack_id: str
    description: str
    execution: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a stack or to a resource of it."""

    at: datetime
    logical_id: str
    physical_id: str
    kind: str
    status: str
    reason: str
    token: str
    is_of_stack: bool


class Stacks:
    """CloudFormation through one session. Get it from `stacks`."""

    def __init__(self, raw: Any) -> None:
        # Templates as they were handed in, byte for byte: their digest is compared.
        raw.meta.events.unregister("after-call.cloudformation.GetTemplate", json_decode_template_body)
        self._raw = raw

    async def stack(self, stack: str) -> Stack | None:
        """The stack of this name or id; None when there is none."""
        try:
            with told():
                answer: dict[str, Any] = await self._raw.describe_stacks(StackName=stack)
        except RefusedError as no:
            if no.code == "ValidationError" and "does not exist" in str(no):
                return None
            raise
        found = answer["Stacks"][0]
        drift = found.get("DriftInformation", {})
        return Stack(
            id=found["StackId"],
            name=found["StackName"],
            status=found["StackStatus"],
            updated=found.get("LastUpdatedTime") or found["CreationTime"],
            is_protected=bool(found.get("EnableTerminationProtection")),
            drift=drift.get("StackDriftStatus", "NOT_CHECKED"),
            drift_checked=drift.get("LastCheckTimestamp"),
            parameters={each["ParameterKey"]: each.get("ParameterValue", "") for each in found.get("Parameters", [])},
        )

    async def template(self, stack: str, change_set: str | None = None) -> str:
        """The template of a stack, or the one that a change set of it would bring, as it was handed in."""
        of = {"ChangeSetName": change_set} if change_set else {}
        with told():
            answer: dict[str, Any] = await self._raw.get_template(StackName=stack, TemplateStage="Original", **of)
        return str(answer["TemplateBody"])

    async def create_change_set(self, wish: Wish, named: Named, *, is_new: bool, service_role: str | None) -> str:
        """Have a change set worked out; its ARN. Changes nothing, and the same token makes no second one."""
        template = {"TemplateURL": wish.url} if wish.body is None else {"TemplateBody": wish.body}
        parameters: list[dict[str, str | bool]] = [
            {"ParameterKey": name, "ParameterValue": value} for name, value in wish.parameters
        ]
        parameters += [{"ParameterKey": name, "UsePreviousValue": True} for name in wish.keep]
        given = {"RoleARN": service_role} if service_role else {}
        with told():
            answer: dict[str, Any] = await self._raw.create_change_set(
                StackName=wish.stack,
                ChangeSetName=named.name,
                ChangeSetType="CREATE" if is_new else "UPDATE",
                ClientToken=named.token,
                Description=named.description,
                Parameters=parameters,
                Capabilities=list(wish.capabilities),
                **template,
                **given,
            )
        return str(answer["Id"])

    async def change_set(self, name: str, stack: str) -> ChangeSet | None:
        """A change set by name or ARN, all pages of it; None when there is none."""
        changes: list[ResourceChange] = []
        more: dict[str, str] = {}
        strange = 0
        while True:
            try:
                with told():
                    page: dict[str, Any] = await self._raw.describe_change_set(
                        ChangeSetName=name, StackName=stack, IncludePropertyValues=True, **more
                    )
            except RefusedError as no:
                if no.code in MISSING:
                    return None
                raise
            entries = page.get("Changes", [])
            changes += [_change(each["ResourceChange"]) for each in entries if "ResourceChange" in each]
            strange += sum("ResourceChange" not in each for each in entries)
            if not (token := page.get("NextToken")):
                break
            more = {"NextToken": token}
        return ChangeSet(
            arn=page["ChangeSetId"],
            name=page["ChangeSetName"],
            stack_id=page["StackId"],
            description=page.get("Description", ""),
            status=page["Status"],
            reason=page.get("StatusReason", ""),
            execution=page["ExecutionStatus"],
            parameters={each["ParameterKey"]: each.get("ParameterValue", "") for each in page.get("Parameters", [])},
            capabilities=tuple(page.get("Capabilities", ())),
            changes=tuple(changes),
            strange=strange,
        )

    async def execute(self, change_set: ChangeSet, token: str) -> str:
        """Begin the change; the request's id. When this returns the provider has begun, and goes on by itself."""
        with told():
            answer: dict[str, Any] = await self._raw.execute_change_set(
                ChangeSetName=change_set.arn, StackName=change_set.stack_id, ClientRequestToken=token
            )
        return str(answer["ResponseMetadata"].get("RequestId", ""))

    async def change_sets(self, stack: str) -> list[Summary]:
        """The change sets that a stack has."""
        found: list[Summary] = []
        more: dict[str, str] = {}
        while True:
            with told():
                page: dict[str, Any] = await self._raw.list_change_sets(StackName=stack, **more)
            found += [
                Summary(
                    each["ChangeSetId"],
                    each["ChangeSetName"],
                    each["StackId"],
                    each.get("Description", ""),
                    each["ExecutionStatus"],
                    each["CreationTime"],
                )
                for each in page.get("Summaries", [])
            ]
            if not (token := page.get("NextToken")):
                return found
            more = {"NextToken": token}

    async def delete_change_set(self, change_set: Summary | ChangeSet) -> None:
        """Take one away. When this returns it can be executed no more."""
        with told():
            await self._raw.delete_change_set(ChangeSetName=change_set.arn, StackName=change_set.stack_id)

    async def names(self) -> list[str]:
        """Every stack of this region that is there."""
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            with told():
                page: dict[str, Any] = await self._raw.list_stacks(**more)
            found += [each["StackName"] for each in page["StackSummaries"] if each["StackStatus"] != "DELETE_COMPLETE"]
            if not (token := page.get("NextToken")):
                return found
            more = {"NextToken": token}

    async def events(self, stack_id: str, token: str, not_before: datetime) -> list[Event]:
        """The events that carry this token, oldest first. Reads back no further than `not_before`."""
        found: list[Event] = []
        more: dict[str, str] = {}
        while True:
            with told():
                page: dict[str, Any] = await self._raw.describe_stack_events(StackName=stack_id, **more)
            events = page["StackEvents"]
            found += [_event(each) for each in events if each.get("ClientRequestToken") == token]
            if not page.get("NextToken") or (events and events[-1]["Timestamp"] < not_before):
                return found[::-1]
            more = {"NextToken": page["NextToken"]}


@asynccontextmanager
async def stacks(aws: Aws, credentials: Credentials, read_timeout: float = 60) -> AsyncIterator[Stacks]:
    """CloudFormation with these credentials."""
    async with aws.client("cloudformation", credentials, read_timeout=read_timeout) as raw:
        yield Stacks(raw)


def _change(raw: Mapping[str, Any]) -> ResourceChange:
    targets = [each["Target"] for each in raw.get("Details", []) if "Target" in each]
    names = {each.get("Name") or each.get("Attribute", "") for each in targets}
    return ResourceChange(
        action=raw["Action"],
        logical_id=raw["LogicalResourceId"],
        physical_id=raw.get("PhysicalResourceId", ""),
        kind=raw["ResourceType"],
        replacement=raw.get("Replacement", ""),
        policy_action=raw.get("PolicyAction", ""),
        scope=tuple(sorted(names - {""})) or tuple(sorted(raw.get("Scope", []))),
        before=raw.get("BeforeContext", ""),
        after=raw.get("AfterContext", ""),
    )


def _event(raw: Mapping[str, Any]) -> Event:
    return Event(
        at=raw["Timestamp"],
        logical_id=raw["LogicalResourceId"],
        physical_id=raw.get("PhysicalResourceId", ""),
        kind=raw.get("ResourceType", ""),
        status=raw.get("ResourceStatus", ""),
        reason=raw.get("ResourceStatusReason", ""),
        token=raw["ClientRequestToken"],
        is_of_stack=raw.get("PhysicalResourceId") == raw["StackId"],
    )
