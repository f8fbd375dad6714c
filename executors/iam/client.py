"""IAM in our own words: one identity with everything that gives it rights, and the two calls that change it.

Whatever is read is read to its last page: a right that was not seen would be a right that nobody is told of.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from executors.aws.client import Aws, Credentials, told
from executors.iam.documents import Document, Trust
from executors.iam.parameters import Attachment, Kind

T = TypeVar("T")
AT_ONCE: Final = 8
"""Reads under way at once: IAM throttles a whole account, not only us."""


@dataclass(frozen=True, slots=True)
class Managed:
    """A managed policy in its default version, which is the one that counts."""

    arn: str
    version: str
    document: Document


@dataclass(frozen=True, slots=True)
class Inline:
    """A policy that is part of its identity."""

    name: str
    document: Document


@dataclass(frozen=True, slots=True)
class Held:
    """What one identity has of policies."""

    attached: tuple[Managed, ...]
    inline: tuple[Inline, ...]

    @property
    def documents(self) -> tuple[Document, ...]:
        """All of them."""
        return (*(each.document for each in self.attached), *(each.document for each in self.inline))


@dataclass(frozen=True, slots=True)
class Identity:
    """A role, user or group as it is now."""

    arn: str
    #: The provider's own id, which no other identity ever gets, not even one of the same name.
    unique_id: str
    held: Held
    #: Caps whatever is attached. None: there is no boundary.
    boundary: Managed | None
    #: Of a role.
    trust: Trust | None
    #: Of a group: its users. Of a user: its groups.
    related: tuple[str, ...]
    #: Of a user: what its groups have.
    through_groups: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What a plan rests on, as it was read."""

    identity: Identity
    policy: Managed

    @property
    def is_attached(self) -> bool:
        """Whether the policy is attached now."""
        return any(each.arn == self.policy.arn for each in self.identity.held.attached)


class Iam:
    """IAM through one session. Get it from `iam`."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def look(self, wanted: Attachment) -> Look:
        """Everything that a plan rests on. RefusedError with `NoSuchEntity` when identity or policy is not there."""
        read = {"role": self._role, "user": self._user, "group": self._group}[wanted.kind]
        identity, policy = await asyncio.gather(read(wanted.name, wanted.account), self.managed(wanted.policy))
        return Look(identity, policy)

    async def managed(self, arn: str) -> Managed:
        """A managed policy with the text of its default version."""
        found = (await self._ask("get_policy", PolicyArn=arn))["Policy"]
        version = found["DefaultVersionId"]
        said = (await self._ask("get_policy_version", PolicyArn=arn, VersionId=version))["PolicyVersion"]
        return Managed(found["Arn"], version, Document.of(said["Document"]))

    async def attached(self, kind: Kind, name: str) -> tuple[str, ...]:
        """The ARNs of the policies attached to an identity, sorted."""
        call, key = f"list_attached_{kind}_policies", f"{kind.capitalize()}Name"
        return tuple(sorted([each["PolicyArn"] async for each in self._pages(call, "AttachedPolicies", {key: name})]))

    async def unique_id(self, kind: Kind, name: str) -> str:
        """The provider's own id of the identity that has this name now."""
        key = kind.capitalize()
        answer = await self._ask(f"get_{kind}", **{f"{key}Name": name})
        return str(answer[key][f"{key}Id"])

    async def change(self, wanted: Attachment) -> str:
        """Attach or detach, once. When this returns it is done; the provider's id of the request."""
        call = f"{wanted.verb}_{wanted.kind}_policy"
        key = f"{wanted.kind.capitalize()}Name"
        answer = await self._ask(call, **{key: wanted.name, "PolicyArn": wanted.policy})
        return str(answer["ResponseMetadata"].get("RequestId", ""))

    async def _role(self, name: str, account: str) -> Identity:
        found = (await self._ask("get_role", RoleName=name))["Role"]
        held, boundary = await asyncio.gather(self._held("role", name), self._boundary(found))
        trust = Trust.of(found["AssumeRolePolicyDocument"], account)
        return Identity(found["Arn"], found["RoleId"], held, boundary, trust, (), ())

    async def _user(self, name: str, _account: str) -> Identity:
        found = (await self._ask("get_user", UserName=name))["User"]
        groups = sorted(
            [each["GroupName"] async for each in self._pages("list_groups_for_user", "Groups", {"UserName": name})]
        )
        held, boundary, through = await asyncio.gather(
            self._held("user", name),
            self._boundary(found),
            asyncio.gather(*(self._held("group", group) for group in groups)),
        )
        documents = tuple(document for each in through for document in each.documents)
        return Identity(found["Arn"], found["UserId"], held, boundary, None, tuple(groups), documents)

    async def _group(self, name: str, _account: str) -> Identity:
        # The group comes with each page of its users.
        found = (await self._ask("get_group", GroupName=name))["Group"]
        users = sorted([each["UserName"] async for each in self._pages("get_group", "Users", {"GroupName": name})])
        return Identity(found["Arn"], found["GroupId"], await self._held("group", name), None, None, tuple(users), ())

    async def _boundary(self, entity: Mapping[str, Any]) -> Managed | None:
        boundary = entity.get("PermissionsBoundary")
        return None if boundary is None else await self.managed(boundary["PermissionsBoundaryArn"])

    async def _held(self, kind: Kind, name: str) -> Held:
        arns, inline = await asyncio.gather(self.attached(kind, name), self._inline_names(kind, name))
        attached, texts = await asyncio.gather(
            asyncio.gather(*(self.managed(arn) for arn in arns)),
            asyncio.gather(*(self._inline(kind, name, policy) for policy in inline)),
        )
        return Held(tuple(attached), tuple(texts))

    async def _inline_names(self, kind: Kind, name: str) -> list[str]:
        key = f"{kind.capitalize()}Name"
        return sorted([str(each) async for each in self._pages(f"list_{kind}_policies", "PolicyNames", {key: name})])

    async def _inline(self, kind: Kind, name: str, policy: str) -> Inline:
        key = f"{kind.capitalize()}Name"
        answer = await self._ask(f"get_{kind}_policy", **{key: name, "PolicyName": policy})
        return Inline(policy, Document.of(answer["PolicyDocument"]))

    async def _pages(self, call: str, member: str, given: Mapping[str, str]) -> AsyncIterator[Any]:
        more: dict[str, str] = {}
        while True:
            page = await self._ask(call, **given, **more)
            for each in page.get(member, []):
                yield each
            if not page.get("IsTruncated"):
                return
            more = {"Marker": page["Marker"]}

    async def _ask(self, call: str, **given: str) -> dict[str, Any]:
        # The SDK makes its methods from the service's model; the names above are all that are ever called.
        method: Callable[..., Awaitable[dict[str, Any]]] = getattr(self._raw, call)
        async with self._slots:
            with told():
                return await method(**given)


@asynccontextmanager
async def iam(aws: Aws, credentials: Credentials, read_timeout: float = 30) -> AsyncIterator[Iam]:
    """IAM with these credentials."""
    async with aws.client("iam", credentials, read_timeout=read_timeout) as raw:
        yield Iam(raw)
