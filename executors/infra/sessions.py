"""What each session may do to which stack. No I/O, no clock.

Three roles, so that no credential can both propose and perform: one reads, one leaves and takes away change sets, one
executes. The names of stacks hold no character that a policy would take for a pattern.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from executors.aws.sessions import allow, document, until
from executors.contract import ExecutorError
from executors.infra.client import ChangeSet
from executors.infra.parameters import OWN_NAME, Named

READING = (
    "cloudformation:DescribeChangeSet",
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStacks",
    "cloudformation:GetTemplate",
    "cloudformation:ListChangeSets",
)


@dataclass(frozen=True, slots=True)
class Ground:
    """Partition, region and account, from which ARNs of stacks are made."""

    partition: str
    region: str
    account: str

    @classmethod
    def of(cls, role: str, region: str) -> Self:
        """Those of a role. ExecutorError when it is no ARN of a role."""
        parts = role.split(":")
        if len(parts) != 6 or parts[0] != "arn" or not parts[5].startswith("role/"):  # noqa: PLR2004  arn:aws:iam::1:role/x
            raise ExecutorError(f"{role!r} is not the ARN of a role")
        return cls(parts[1], region, parts[4])

    def stack(self, name: str) -> str:
        """Every stack that ever has this name."""
        return f"arn:{self.partition}:cloudformation:{self.region}:{self.account}:stack/{name}/*"


def reading_policy(ground: Ground, stack: str) -> str:
    """Read one stack and its change sets."""
    return document([allow(READING, [ground.stack(stack)])])


def listing_policy(ground: Ground) -> str:
    """List all stacks and the change sets they have."""
    return document(
        [
            allow(["cloudformation:ListStacks"], ["*"]),
            allow(["cloudformation:ListChangeSets"], [ground.stack("*")]),
        ]
    )


def proposing_policy(ground: Ground, stack: str, named: Named, service_role: str | None, url: str | None) -> str:
    """Leave one change set, under this name, with one stack. It cannot be executed with this."""
    leaving = allow(
        ["cloudformation:CreateChangeSet"],
        [ground.stack(stack)],
        {"StringEquals": {"cloudformation:ChangeSetName": named.name}},
    )
    passing = [allow(["iam:PassRole"], [service_role])] if service_role else []
    # CloudFormation fetches the template in our name.
    fetching = [allow(["s3:GetObject", "s3:GetObjectVersion"], ["*"])] if url else []
    return document([leaving, *passing, *fetching])


def tidying_policy(ground: Ground, stack: str) -> str:
    """Take away change sets of ours from one stack."""
    # An ARN where the call names the set by it.
    own = [f"{OWN_NAME}*", f"arn:{ground.partition}:cloudformation:*:*:changeSet/{OWN_NAME}*"]
    condition: Mapping[str, Mapping[str, list[str]]] = {"StringLike": {"cloudformation:ChangeSetName": own}}
    return document([allow(["cloudformation:DeleteChangeSet"], [ground.stack(stack)], condition)])


def acting_policy(change_set: ChangeSet, dies_at: datetime) -> str:
    """Look at and execute exactly this change set, before `dies_at`."""
    only = {"StringEquals": {"cloudformation:ChangeSetName": [change_set.name, change_set.arn]}}
    actions = ["cloudformation:DescribeChangeSet", "cloudformation:ExecuteChangeSet"]
    return document([allow(actions, [change_set.stack_id], {**only, **until(dies_at)})])
