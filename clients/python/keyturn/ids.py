"""An intent id is `<requester>.<ULID>`: nobody can squat on another's, and its age shows.

Keyturn accepts an id only while its time is at most 24 hours old and at most 5 minutes ahead; later it may have
forgotten what became of it, so that an older one could be done twice.

>>> from datetime import UTC, datetime
>>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
>>> made = derived("reporter", "invoice-4711", noon, b"{}")
>>> made == derived("reporter", "invoice-4711", noon, b"{}"), split(made) == ("reporter", milliseconds(noon))
(True, True)
"""

import hashlib
import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {char: value for value, char in enumerate(_CROCKFORD)}
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_INTENT_ID: Final = re.compile(r"(?P<requester>[a-z0-9][a-z0-9_-]{0,62})\.(?P<ulid>[0-7][0-9A-HJKMNP-TV-Z]{25})")

ENTROPY_BYTES: Final = 10
_ENTROPY_BITS: Final = 8 * ENTROPY_BYTES
OLDEST: Final = timedelta(hours=24)
"""How old an id may be when it is submitted."""
NEWEST: Final = timedelta(minutes=5)
"""How far ahead of Kafka's clock an id may be."""
HELD_BACK_MS: Final = 60_000
"""A clock that steps back by less than this goes unnoticed: ids go on rising."""


class IntentIdError(ValueError):
    """The text is not an intent id."""


def intent_id(requester: str, at_ms: int, entropy: bytes) -> str:
    """The id of an intent of `requester` at `at_ms` (Unix milliseconds); `entropy` is 10 random bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise IntentIdError(f"entropy must be {ENTROPY_BYTES} bytes")
    return _spelt(requester, (at_ms << _ENTROPY_BITS) | int.from_bytes(entropy, "big"))


def derived(requester: str, key: str, since: datetime, body: bytes) -> str:
    """The same id for the same key, moment and body: a process that starts again finds its intent again."""
    about = b"keyturn idempotency key\0%s\0%s\0%s" % (requester.encode(), hashlib.sha256(key.encode()).digest(), body)
    return intent_id(requester, milliseconds(since), hashlib.sha256(about).digest()[:ENTROPY_BYTES])


def split(text: str) -> tuple[str, int]:
    """(requester, Unix milliseconds) of an intent id; IntentIdError if it is none."""
    match = _INTENT_ID.fullmatch(text)
    if match is None:
        raise IntentIdError(f"{text!r} is not an intent id: <requester>.<ULID>")
    at_ms = 0
    for char in match["ulid"][:10]:
        at_ms = (at_ms << 5) | _VALUES[char]
    return match["requester"], at_ms


def milliseconds(moment: datetime) -> int:
    """Unix milliseconds of an aware moment."""
    if moment.tzinfo is None:
        raise IntentIdError("the moment must be aware: datetime.now(UTC)")
    return int(moment.timestamp() * 1000)


class IdMaker:
    """Makes ids that rise, within a millisecond too (ULID specification, monotonicity). Safe to share by threads."""

    def __init__(self, requester: str, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        """`clock` gives Unix milliseconds, `entropy` that many unpredictable bytes."""
        self._requester = requester
        self._clock = clock
        self._entropy = entropy
        self._last = -1
        self._turn = threading.Lock()

    def next(self) -> str:
        """A fresh id, greater than every one before."""
        with self._turn:
            now = self._clock()
            last_ms = self._last >> _ENTROPY_BITS
            if now <= last_ms <= now + HELD_BACK_MS:
                self._last += 1  # an overflow of the random part moves to the next millisecond, which is as good
            else:
                self._last = (now << _ENTROPY_BITS) | int.from_bytes(self._entropy(ENTROPY_BYTES), "big")
            return _spelt(self._requester, self._last)


def _spelt(requester: str, number: int) -> str:
    ulid = "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))
    made = f"{requester}.{ulid}"
    split(made)
    return made
