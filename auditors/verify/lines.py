"""One raw record as it lay on Kafka, read from one line of a bundle. No I/O."""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Final

WORLD: Final = ("directory", "roster", "policies", "manifests")
INPUTS: Final = ("classified", "decisions", "reports", "ticks", "operations")
_MAP_NAME: Final = re.compile(
    r"(?:^|\.)(?P<name>approved\.[a-z0-9][a-z0-9_-]*|audit|directory|roster|policies|manifests"
    r"|intents|classified|decisions|reports|ticks|operations|quarantine)$"
)


class LineError(ValueError):
    """The line is no record of a bundle."""


@dataclass(frozen=True, slots=True)
class Line:
    """One record. `topic` is its name without the installation's prefix."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None

    def header(self, name: str) -> str | None:
        """The header of that name, if there is exactly one and it is ASCII."""
        found = [value for key, value in self.headers if key == name]
        if len(found) != 1 or found[0] is None:
            return None
        try:
            return found[0].decode("ascii")
        except UnicodeDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that could not be read, and where it stands."""

    where: str
    reason: str
    topic: str | None = None


def map_name(topic: str) -> str | None:
    """The name of a topic without its installation's prefix; None for topics that are not checked."""
    match = _MAP_NAME.search(topic)
    return match["name"] if match else None


def parse(line: bytes) -> Line:
    """The record of one line. LineError says what is wrong with it."""
    try:
        members = json.loads(line.decode())
    except (ValueError, RecursionError) as exc:
        raise LineError(f"not JSON: {exc}") from exc
    if not isinstance(members, dict):
        raise LineError("not an object")
    name = members.get("topic")
    topic = map_name(name) if isinstance(name, str) else None
    if topic is None:
        raise LineError(f"topic {str(name)[:80]!r} is none of a bundle")
    return Line(
        topic,
        _whole(members, "partition"),
        _whole(members, "offset"),
        _whole(members, "timestamp"),
        _bytes(members.get("key"), "key"),
        _headers(members.get("headers")),
        _bytes(members.get("value"), "value"),
    )


def _whole(members: dict[str, object], name: str) -> int:
    value = members.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise LineError(f"{name} is no offset, partition or time")
    return value


def _bytes(value: object, name: str) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise LineError(f"{name} is neither base64 nor null")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise LineError(f"{name} is not base64: {exc}") from exc


def _headers(value: object) -> tuple[tuple[str, bytes | None], ...]:
    if not isinstance(value, list):
        raise LineError("headers are no list")
    headers: list[tuple[str, bytes | None]] = []
    for pair in value:
        match pair:
            case [str() as name, data]:
                headers.append((name, _bytes(data, f"header {name[:40]}")))
            case _:
                raise LineError("a header is no [name, base64]")
    return tuple(headers)
