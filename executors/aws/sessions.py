"""What a session policy says, and until when. No I/O, no clock.

Every policy is written by the executor from its plan; a statement that lets something change carries the instant it
dies at (law 5).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from schemas import ids

MAX_POLICY: Final = 2048
"""AWS takes no longer session policy (STS API, AssumeRole, Policy)."""
MIN_SECONDS: Final = 900
"""No session is shorter (STS API, AssumeRole, DurationSeconds)."""
WILD: Final = frozenset("*?$")
"""These mean something in a policy's resource: what holds one cannot be named exactly."""

Condition = Mapping[str, Mapping[str, str | Sequence[str]]]


def session_name(intent_id: str) -> str:
    """A session's name and source identity: at most 64 characters, of which the ULID tells intents apart."""
    requester = ids.requester_of(intent_id)
    return f"{requester[:37]}.{intent_id.rpartition('.')[2]}"


def whole_seconds(unix_ms: int) -> datetime:
    """The instant, rounded down: providers compare dates to the second, and a credential may only die early."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC)


def until(dies_at: datetime) -> dict[str, dict[str, str]]:
    """The condition that ends a statement at this instant."""
    return {"DateLessThan": {"aws:CurrentTime": dies_at.strftime("%Y-%m-%dT%H:%M:%SZ")}}


def allow(actions: Sequence[str], resources: Sequence[str], condition: Condition | None = None) -> dict[str, object]:
    """One statement."""
    statement: dict[str, object] = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return statement | ({"Condition": condition} if condition else {})


def document(statements: Sequence[Mapping[str, object]]) -> str:
    """The policy of these statements."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, separators=(",", ":"))
