"""One value, one sequence of bytes: RFC 8785 on a profile without floats, nulls and big integers. No I/O.

Written from the specification, over the standard library's json: what the checked program does is no argument here.
"""

import hashlib
import json
import unicodedata
from typing import Final, NoReturn, TypeAlias

Json: TypeAlias = "bool | int | str | list[Json] | dict[str, Json]"
Members: TypeAlias = dict[str, "Json"]

MAX_INT: Final = 2**53 - 1
MAX_DEPTH: Final = 16
MAX_BYTES: Final = 512 * 1024


class NotCanonicalError(ValueError):
    """The bytes are not the one spelling of a value; the text says why."""


def encode(value: Json) -> bytes:
    """The canonical bytes. Member names are ASCII, so code points sort as UTF-16 units do (RFC 8785, 3.2.3)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Members:
    """The object whose canonical bytes are exactly `data`; NotCanonicalError for anything else."""
    if len(data) > MAX_BYTES:
        raise NotCanonicalError(f"{len(data)} bytes, more than any record has")
    try:
        value = json.loads(data.decode(), parse_float=_no_float, parse_constant=_no_float)
        _require_profile(value, 0)
        again = encode(value)
    except (ValueError, RecursionError) as exc:
        raise NotCanonicalError(f"not canonical JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise NotCanonicalError("the top level is no object")
    if again != data:
        raise NotCanonicalError("another spelling: encoding it again gives other bytes")
    return value


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Json) -> str:
    """The digest of a value's canonical bytes."""
    return digest(encode(value))


def _no_float(text: str) -> NoReturn:
    raise NotCanonicalError(f"{text[:40]}: numbers are integers")


def _require_profile(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonicalError(f"nested deeper than {MAX_DEPTH}")
    match value:
        case bool():
            return
        case int() | str():
            _require_scalar(value)
        case list():
            for item in value:
                _require_profile(item, depth + 1)
        case dict():
            _require_names(value)
            for member in value.values():
                _require_profile(member, depth + 1)
        case _:
            raise NotCanonicalError("null: an absent member is the only way to say nothing")


def _require_scalar(value: int | str) -> None:
    if isinstance(value, int):
        if abs(value) > MAX_INT:
            raise NotCanonicalError("an integer beyond 2**53 - 1")
    elif not value.isascii() and not unicodedata.is_normalized("NFC", value):
        raise NotCanonicalError("text that is not in Unicode normal form C")


def _require_names(members: dict[str, object]) -> None:
    for name in members:
        if not name or not name.isascii() or not name.isprintable():
            raise NotCanonicalError(f"member name {name[:40]!r} is not printable ASCII")
