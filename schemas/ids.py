"""An intent id is `<requester>.<ULID>`: nobody can squat on another's, and its age shows. No clock, no randomness."""

import re
from typing import Final

from schemas.timing import LEADER_SKEW_MS

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {char: value for value, char in enumerate(_CROCKFORD)}
_INTENT_ID: Final = re.compile(r"(?P<requester>[a-z0-9][a-z0-9_-]{0,62})\.(?P<ulid>[0-7][0-9A-HJKMNP-TV-Z]{25})")

ENTROPY_BYTES: Final = 10
WINDOW_BEFORE_MS: Final = 24 * 60 * 60 * 1000
"""An id's time may be this much before the log time of its record; the ledgers of used ids are kept longer."""
WINDOW_AFTER_MS: Final = 5 * 60 * 1000
FORGET_MARGIN_MS: Final = 60 * 60 * 1000
"""How much longer than the window a final row and a used id are remembered; exceeds the worst clock step allowed."""


class IntentIdError(ValueError):
    """The text is not an intent id."""


def intent_id(requester: str, at_ms: int, entropy: bytes) -> str:
    """The id of an intent of `requester` at `at_ms` (Unix milliseconds); `entropy` is 10 random bytes (ULID spec)."""
    if len(entropy) != ENTROPY_BYTES:
        raise IntentIdError(f"entropy must be {ENTROPY_BYTES} bytes")
    number = (at_ms << 80) | int.from_bytes(entropy)
    ulid = "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))
    made = f"{requester}.{ulid}"
    split(made)
    return made


def split(text: str) -> tuple[str, int]:
    """(requester, Unix milliseconds) of an intent id; IntentIdError if it is none."""
    match = _INTENT_ID.fullmatch(text)
    if match is None:
        raise IntentIdError(f"{text!r} is not an intent id: <requester>.<ULID>")
    at_ms = 0
    for char in match["ulid"][:10]:
        at_ms = (at_ms << 5) | _VALUES[char]
    return match["requester"], at_ms


def requester_of(text: str) -> str:
    """The agent or person whose intent this is."""
    return split(text)[0]


def is_within_window(text: str, log_time: int) -> bool:
    """Whether an id is fresh at the log time of its record (DESIGN: 24 h before to 5 min after)."""
    at_ms = split(text)[1]
    return log_time - WINDOW_BEFORE_MS <= at_ms <= log_time + WINDOW_AFTER_MS


def restored_to(log_time: int, said_at: int) -> int:
    """Up to which id time everything may be from before a restore of that log time, said at that time (law 4).

    An id may be ahead of the log by the window, and partition leaders may differ.
    """
    return max(log_time, said_at) + WINDOW_AFTER_MS + LEADER_SKEW_MS


def is_forgettable(text: str, ended_at: int, now: int) -> bool:
    """Whether a final row can be dropped: its end and its id's time both lie before the window and its margin.

    An id that old is refused at the door, so that forgetting it opens no second life (law 4).
    """
    horizon = now - WINDOW_BEFORE_MS - FORGET_MARGIN_MS
    return ended_at < horizon and split(text)[1] < horizon
