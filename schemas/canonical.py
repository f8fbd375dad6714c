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
    _require_profile(value, "$", max_depth)
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


def digest(data: bytes) -> str:
    """SHA-256 of stored bytes, 64 lower-case hexadecimal digits (FIPS 180-4)."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Json) -> str:
    """The digest of a value's canonical bytes."""
    return digest(encode(value))


def _require_profile(value: object, path: str, depth_left: int) -> None:  # noqa: C901, PLR0912 - one flat match
    if depth_left < 0:
        raise CanonicalError(f"{path}: nested too deep")
    match value:
        case bool():
            return
        case int():
            if not -MAX_INT <= value <= MAX_INT:
                raise CanonicalError(f"{path}: {value} is beyond 2**53 - 1; write it as a string")
        case str():
            _require_text(value, path)
        case dict():
            for key, member in value.items():
                if not isinstance(key, str) or not key.isascii() or not key.isprintable() or not key:
                    raise CanonicalError(f"{path}: member name {key!r} must be printable ASCII")
                _require_profile(member, f"{path}.{key}", depth_left - 1)
        case list() | tuple():
            for index, item in enumerate(value):
                _require_profile(item, f"{path}[{index}]", depth_left - 1)
        case float():
            raise CanonicalError(f"{path}: floats have no one spelling; use an integer or a string")
        case None:
            raise CanonicalError(f"{path}: null is not accepted; leave the member out")
        case _:
            raise CanonicalError(f"{path}: {type(value).__name__} has no canonical form")


def _require_text(text: str, path: str) -> None:
    if text.isascii():
        return
    if not unicodedata.is_normalized("NFC", text):
        raise CanonicalError(f"{path}: text must be in Unicode normal form C")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise CanonicalError(f"{path}: a lone surrogate is not text") from exc
