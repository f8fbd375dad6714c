"""One value, one sequence of bytes. No I/O.

A record's value on Kafka *is* its canonical JSON: RFC 8785 (JCS) on a profile where it is unambiguous: ASCII
member names, no floats, |int| < 2**53, no null, NFC text. On that profile sorted compact `orjson` equals RFC 8785
byte for byte (the tests hold it against the `rfc8785` package), and hashing needs no second serializer.
"""

import hashlib
import unicodedata
from typing import Final, TypeAlias

import orjson

Json: TypeAlias = "bool | int | str | tuple[Json, ...] | list[Json] | dict[str, Json]"
"""What the profile can say: no null, no float. An absent member is the only way to say nothing."""

MAX_INT: Final = 2**53 - 1
"""RFC 8785 numbers are IEEE 754 doubles; beyond this two integers may print alike (RFC 7493, I-JSON, 2.2)."""
MAX_DEPTH: Final = 16
MAX_BYTES: Final = 512 * 1024
"""No record is larger; single kinds have tighter caps (`schemas.records`)."""


class CanonicalError(ValueError):
    """The value is outside the canonical profile; the message names the place and the rule."""


def encode(value: Json, *, max_depth: int = MAX_DEPTH) -> bytes:
    """The canonical bytes of `value`. Raises CanonicalError, naming the path, for anything outside the profile."""
    try:
        _require_profile(value, max_depth)
    except _Outside as exc:
        raise CanonicalError(f"${exc.path}: {exc.rule}") from None
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def decode(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> dict[str, Json]:
    """The object whose canonical bytes are exactly `data`.

    Anything else is refused: another spelling, duplicate member names (both of which re-encode differently), a
    float, a null, text that is not NFC, a top level that is not an object, more than `max_bytes`, deeper nesting.
    """
    if len(data) > max_bytes:
        raise CanonicalError(f"{len(data)} bytes; at most {max_bytes} are accepted")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise CanonicalError(f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise CanonicalError("the top level must be an object")
    if encode(value, max_depth=max_depth) != data:
        raise CanonicalError(
            "not in canonical form (RFC 8785): members sorted, no blanks, no duplicate names, shortest escapes"
        )
    return value


def spells(value: Json, data: bytes) -> bool:
    """Whether `data`, which is known to be canonical, are the bytes of `value`: cheaper than to encode it anew."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == data
    except TypeError:
        return False


def digest(data: bytes) -> str:
    """SHA-256 of stored bytes, 64 lower-case hexadecimal digits (FIPS 180-4)."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Json) -> str:
    """The digest of a value's canonical bytes."""
    return digest(encode(value))


class _Outside(Exception):  # noqa: N818 - on its way up to `encode`, which says it
    """A rule that a value breaks, and where; the path is put together on the way up, so that nobody pays who is in."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.path = ""


def _require_profile(value: object, depth_left: int) -> None:  # noqa: C901, PLR0912 - one flat match, the hot one
    if depth_left < 0:
        raise _Outside("nested too deep")
    # Exactly these types, and `type(…) is`: everything that is signed or hashed comes by here, several times.
    if type(value) is str:
        if not value.isascii():
            _require_text(value)
    elif type(value) is dict:
        for key, member in value.items():
            if type(key) is not str or not key.isascii() or not key.isprintable() or not key:
                raise _Outside(f"member name {key!a} must be printable ASCII")
            if depth_left and type(member) is str and member.isascii():
                continue  # most members: not worth a call
            try:
                _require_profile(member, depth_left - 1)
            except _Outside as exc:
                exc.path = f".{key}{exc.path}"
                raise
    elif type(value) is list or type(value) is tuple:
        for index, item in enumerate(value):
            try:
                _require_profile(item, depth_left - 1)
            except _Outside as exc:
                exc.path = f"[{index}]{exc.path}"
                raise
    elif type(value) is int:
        if not -MAX_INT <= value <= MAX_INT:
            raise _Outside(f"{value} is beyond 2**53 - 1; write it as a string")
    elif type(value) is float:
        raise _Outside("floats have no one spelling; use an integer or a string")
    elif value is None:
        raise _Outside("null is not accepted; leave the member out")
    elif type(value) is not bool:
        raise _Outside(f"{type(value).__name__} has no canonical form")


def _require_text(text: str) -> None:
    if not unicodedata.is_normalized("NFC", text):
        raise _Outside("text must be in Unicode normal form C")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Outside("a lone surrogate is not text") from None
