"""What an attachment is asked to be, and which requests make no sense. No I/O."""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self, cast

from executors.aws.sessions import WILD
from executors.contract import TargetMissingError
from schemas.records import Intent

Kind = Literal["role", "user", "group"]
Verb = Literal["attach", "detach"]

ACTIONS: Final[dict[str, Verb]] = {"iam.attach_policy": "attach", "iam.detach_policy": "detach"}
_IDENTITY: Final = re.compile(
    r"arn:(?P<partition>[a-z-]+):iam::(?P<account>\d{12}):(?P<kind>role|user|group)/(?P<name>.+)"
)
_POLICY: Final = re.compile(r"arn:(?P<partition>[a-z-]+):iam::(?P<account>\d{12}|aws):policy/(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Attachment:
    """The parameters of both actions: which policy is, or is no longer, to be attached to which identity."""

    verb: Verb
    kind: Kind
    #: The identity's ARN.
    identity: str
    #: The account that the identity is in.
    account: str
    #: The policy's ARN.
    policy: str

    @classmethod
    def of(cls, intent: Intent) -> Self:
        """The attachment that `intent` asks for; TargetMissingError when it cannot be meant."""
        verb = ACTIONS.get(intent.action.name)
        if verb is None:
            raise TargetMissingError(f"this executor performs {' and '.join(ACTIONS)}, not {intent.action.name}")
        identity, policy = (intent.action.properties.get(name) for name in ("identity", "policy"))
        if not isinstance(identity, str) or not isinstance(policy, str):
            raise TargetMissingError("the parameters do not fit the manifest's schema")
        who, what = _IDENTITY.fullmatch(identity), _POLICY.fullmatch(policy)
        if who is None or what is None or WILD & set(identity + policy):
            raise TargetMissingError("identity is the ARN of a role, user or group, and policy that of a policy")
        kind = cast("Kind", who["kind"])
        # Policy judges the resource, and the card shows it: it must be what is really changed.
        if (intent.resource.type, intent.resource.id) != (kind, identity):
            raise TargetMissingError(f"the resource of this intent must be the {kind} {identity}")
        if what["account"] not in {"aws", who["account"]} or what["partition"] != who["partition"]:
            raise TargetMissingError("a policy of another account or partition cannot be attached")
        return cls(verb, kind, identity, who["account"], policy)

    @property
    def name(self) -> str:
        """The identity's name, as the API wants it: without its path."""
        return self.identity.rpartition("/")[2]

    @property
    def call(self) -> str:
        """The API's own name of the change."""
        return f"{self.verb.capitalize()}{self.kind.capitalize()}Policy"

    @property
    def is_aws_managed(self) -> bool:
        """Whether AWS writes the policy, and may write it anew at any time."""
        return ":iam::aws:" in self.policy

    @property
    def inverse(self) -> str:
        """The action that undoes this one."""
        return "iam.detach_policy" if self.verb == "attach" else "iam.attach_policy"
