"""What each session may do, and until when. No I/O, no clock.

A looking session reads the one identity and whatever policies it has; an acting one makes one kind of call, to one
identity, with one policy, before the instant it dies at (law 5). It can also list what is attached to that identity,
so that its twin can be seen to be refused.
"""

from datetime import datetime

from executors.aws.sessions import allow, document, until
from executors.iam.parameters import Attachment


def looking_policy(wanted: Attachment) -> str:
    """Read the identity, the policies of its account and of AWS, and, for a user, its groups."""
    kind = wanted.kind.capitalize()
    partition = wanted.identity.split(":")[1]
    policies = [f"arn:{partition}:iam::{owner}:policy/*" for owner in (wanted.account, "aws")]
    reads = [f"iam:Get{kind}", f"iam:Get{kind}Policy", f"iam:List{kind}Policies", f"iam:ListAttached{kind}Policies"]
    statements = [
        allow(reads + (["iam:ListGroupsForUser"] if wanted.kind == "user" else []), [wanted.identity]),
        allow(["iam:GetPolicy", "iam:GetPolicyVersion"], policies),
    ]
    if wanted.kind == "user":
        groups = ["iam:GetGroupPolicy", "iam:ListGroupPolicies", "iam:ListAttachedGroupPolicies"]
        statements.append(allow(groups, [f"arn:{partition}:iam::{wanted.account}:group/*"]))
    return document(statements)


def acting_policy(wanted: Attachment, dies_at: datetime) -> str:
    """Attach or detach exactly the planned policy, to or from exactly the planned identity."""
    exactly = until(dies_at) | {"ArnEquals": {"iam:PolicyARN": wanted.policy}}
    return document(
        [
            allow([f"iam:{wanted.call}"], [wanted.identity], exactly),
            allow([f"iam:ListAttached{wanted.kind.capitalize()}Policies"], [wanted.identity], until(dies_at)),
        ]
    )
