"""One value, one sequence of bytes: what is signed and hashed. No I/O.

RFC 8785 (JCS) on the profile that Keyturn accepts: ASCII member names, no floats, |int| < 2**53, no null, NFC text. On
that profile sorted compact JSON of the standard library is RFC 8785 byte for byte; the project's vectors hold it to
that.

>>> encode({"b": 1, "a": "ü"}).decode()
'{"a":"ü","b":1}'
>>> encode({"share": 0.5})
Traceback (most recent call last):
keyturn.canonical.CanonicalError: /share: floats have no one spelling; use an integer or a string
"""

import hashlib
import json
import unicodedata
from typing import Final, TypeAlias

Json: TypeAlias = "bool | int | str | tuple[Json, ...] | list[Json] | dict[str, Json]"
"""What can be said: no null, no float. An absent member is the only way to say nothing."""

MAX_INT: Final = 2**53 - 1
MAX_DEPTH: Final = 16


class CanonicalError(ValueError):
    """The value has no canonical form. `path` is a JSON pointer to the place, `rule` what is wrong there."""

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(f"{path or '/'}: {rule}")
        self.path = path
        self.rule = rule


def encode(value: object, *, max_depth: int = MAX_DEPTH) -> bytes:
    """The canonical bytes of `value`; CanonicalError, naming the place, for anything outside the profile."""
    _require_profile(value, max_depth, "")
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> dict[str, Json]:
    """The object whose canonical bytes are exactly `data`; CanonicalError for any other bytes."""
    if len(data) > max_bytes:
        raise CanonicalError("", f"{len(data)} bytes; at most {max_bytes} are accepted")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise CanonicalError("", f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise CanonicalError("", "the top level must be an object")
    if encode(value, max_depth=max_depth) != data:
        raise CanonicalError("", "not in canonical form (RFC 8785): sorted, no blanks, no duplicate names")
    return value


def digest(data: bytes) -> str:
    """SHA-256, 64 lower-case hexadecimal digits.

    >>> digest(b"{}")[:16]
    '44136fa355b3678a'
    """
    return hashlib.sha256(data).hexdigest()


def _require_profile(value: object, depth_left: int, path: str) -> None:  # noqa: C901 - one flat match
    if depth_left < 0:
        raise CanonicalError(path, "nested too deep")
    # Exactly these types: a subclass (an enum, a numpy number) may print as something else than it equals.
    kind = type(value)
    if kind is str:
        _require_text(str(value), path)
    elif isinstance(value, dict) and kind is dict:
        for name, member in value.items():
            if type(name) is not str or not name.isascii() or not name.isprintable() or not name:
                raise CanonicalError(path, f"member name {name!a} must be printable ASCII")
            _require_profile(member, depth_left - 1, f"{path}/{name}")
    elif isinstance(value, list | tuple) and kind in {list, tuple}:
        for index, item in enumerate(value):
            _require_profile(item, depth_left - 1, f"{path}/{index}")
    elif isinstance(value, int) and kind is int:
        if not -MAX_INT <= value <= MAX_INT:
            raise CanonicalError(path, f"{value} is beyond 2**53 - 1; write it as a string")
    elif kind is float:
        raise CanonicalError(path, "floats have no one spelling; use an integer or a string")
    elif value is None:
        raise CanonicalError(path, "null is not accepted; leave the member out")
    elif kind is not bool:
        raise CanonicalError(path, f"{kind.__name__} has no canonical form; use str, int, bool or a list of these")


def _require_text(text: str, path: str) -> None:
    if text.isascii():
        return
    if not unicodedata.is_normalized("NFC", text):
        raise CanonicalError(path, "text must be in Unicode normal form C: unicodedata.normalize('NFC', text)")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CanonicalError(path, "a lone surrogate is not text") from None
