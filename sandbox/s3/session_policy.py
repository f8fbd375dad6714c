"""Takes the dates out of a session policy, and says when the credential must die instead. No I/O, no clock.

What is not understood is refused, never dropped: a member or condition that the store behind would overlook must not
make the session wider than its author wrote it.
"""

import json
from datetime import UTC, datetime
from typing import Final

MEMBERS: Final = frozenset({"Sid", "Effect", "Action", "Resource", "Condition"})
"""What a statement may say. The store knows no more of a session policy that both sides read alike."""
STORE_CONDITIONS: Final = frozenset({"StringEquals", "StringLike"})
"""Conditions the store judges itself, for `s3:prefix` alone."""


class PolicyRefusedError(ValueError):
    """The session policy cannot be kept as it is written."""


def take_deadline(document: str) -> tuple[str, datetime | None]:
    """The policy without its `DateLessThan aws:CurrentTime` conditions, and the earliest of their instants.

    The session dies whole at that instant, undated statements included: that is stricter than the policy, never
    wider. Raises PolicyRefusedError for a policy that says anything else about dates, or anything not understood.
    """
    try:
        policy = json.loads(document, object_pairs_hook=_once)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise PolicyRefusedError(f"the policy is not JSON: {exc}") from exc
    if not isinstance(policy, dict) or not set(policy) <= {"Version", "Id", "Statement"}:
        raise PolicyRefusedError("a policy has Version, Id and Statement, and nothing else")
    statements = policy.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise PolicyRefusedError("a policy needs at least one Statement")
    deadlines: list[datetime] = []
    kept = [_undated(statement, deadlines) for statement in statements]
    return json.dumps(policy | {"Statement": kept}), min(deadlines, default=None)


def _undated(statement: object, deadlines: list[datetime]) -> dict[str, object]:
    if not isinstance(statement, dict) or not set(statement) <= MEMBERS:
        raise PolicyRefusedError(f"a statement of a session policy has only {', '.join(sorted(MEMBERS))}")
    condition = statement.get("Condition", {})
    if not isinstance(condition, dict):
        raise PolicyRefusedError("a Condition is an object")
    kept: dict[str, object] = {}
    for operator, block in condition.items():
        if not isinstance(block, dict) or not block:
            raise PolicyRefusedError(f"{operator}: a condition names keys and values")
        if operator == "DateLessThan":
            # A date on a Deny would widen the session when it passes; that is not a deadline.
            if statement.get("Effect") != "Allow":
                raise PolicyRefusedError("DateLessThan is understood in an Allow only")
            deadlines.append(_instant(block))
        elif operator in STORE_CONDITIONS and set(block) == {"s3:prefix"}:
            kept[operator] = block
        else:
            raise PolicyRefusedError(f"the condition {operator} of {', '.join(block)} is not understood here")
    rest: dict[str, object] = {name: value for name, value in statement.items() if name != "Condition"}
    return rest | ({"Condition": kept} if kept else {})


def _instant(block: dict[object, object]) -> datetime:
    if set(block) != {"aws:CurrentTime"}:
        raise PolicyRefusedError("DateLessThan is understood of aws:CurrentTime only")
    value = block["aws:CurrentTime"]
    # Several values mean "any of them", which is the latest: nobody needs that, so it is refused.
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise PolicyRefusedError("aws:CurrentTime takes one date")
    try:
        instant = datetime.fromisoformat(value)
    except ValueError as exc:
        raise PolicyRefusedError(f"{value!r} is not an ISO 8601 date") from exc
    if instant.tzinfo is None:
        raise PolicyRefusedError(f"{value!r} names no time zone; write it with Z")
    return instant.astimezone(UTC)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise PolicyRefusedError("a member is named twice")
    return members
