"""A bundle: raw records as they lie on Kafka, one JSON object a line, one `<topic>.jsonl` a topic. Nothing is decoded.

    {"topic": …, "partition": …, "offset": …, "timestamp": …, "key": …, "headers": [[name, …]…], "value": …}

`key`, `value` and the values of headers are base64, or null. `topic` is the full name; the file's name is without the
installation's prefix. The verifier has its own reader, from `docs/audit.md` and not from here.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from schemas.raw import RawRecord

SUFFIX: Final = ".jsonl"


class BundleError(Exception):
    """The folder cannot be written or read as a bundle; the text says why."""


class Told(RawRecord, Protocol):
    """What a Kafka client hands out: the record, and where it is from."""

    @property
    def topic(self) -> str:
        """The full name."""
        ...


def line_of(record: Told) -> bytes:
    """One line, with its end."""
    members = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": _text(record.key),
        "headers": [[name, _text(value)] for name, value in record.headers],
        "value": _text(record.value),
    }
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def _text(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode() if data is not None else None


@dataclass
class BundleWriter:
    """Writes a new bundle into a folder: `with BundleWriter(folder) as bundle: bundle.take("audit", record)`.

    When the block ends without an error every line is in its file.
    """

    folder: Path
    counts: dict[str, int] = field(default_factory=dict, init=False)
    _files: dict[str, BinaryIO] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise BundleError(f"{self.folder}: {exc.strerror}") from exc
        if any(self.folder.glob(f"*{SUFFIX}")):
            raise BundleError(
                f"{self.folder}: a bundle is there already, and nothing is overwritten; choose another folder"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def expect(self, topic: str) -> None:
        """This topic was read, even if nothing lies on it."""
        if topic not in self._files:
            self._files[topic] = (self.folder / f"{topic}{SUFFIX}").open("xb")
            self.counts[topic] = 0

    def take(self, topic: str, record: Told) -> None:
        """One record of the topic of that name, which is without prefix."""
        self.expect(topic)
        self._files[topic].write(line_of(record))
        self.counts[topic] += 1


@dataclass(frozen=True, slots=True)
class Kept:
    """One record of a bundle, as it lay on Kafka."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


def values(folder: Path, topic: str) -> Iterator[bytes]:
    """The values of a topic in a bundle, in their order; tombstones left out."""
    return (record.value for record in records(folder, topic) if record.value is not None)


def records(folder: Path, topic: str) -> Iterator[Kept]:
    """The records of a topic in a bundle, in their order."""
    file = folder / f"{topic}{SUFFIX}"
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield parse(line, f"{file.name}:{number}")
    except OSError as exc:
        raise BundleError(f"{file}: {exc.strerror}; `keyturn audit export` makes a bundle") from exc


def holds(folder: Path, topic: str) -> bool:
    """Whether this topic was collected."""
    return (folder / f"{topic}{SUFFIX}").is_file()


def parse(line: bytes, where: str) -> Kept:
    """The record of one line. BundleError, with `where` it stands, when it is none."""
    try:
        members = json.loads(line)
        return Kept(
            topic=str(members["topic"]),
            partition=int(members["partition"]),
            offset=int(members["offset"]),
            timestamp=int(members["timestamp"]),
            key=_data(members["key"]),
            headers=tuple((str(name), _data(value)) for name, value in members["headers"]),
            value=_data(members["value"]),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise BundleError(f"{where}: not a record of a bundle; `keyturn audit verify` says more") from exc


def _data(text: str | None) -> bytes | None:
    return base64.b64decode(text, validate=True) if text is not None else None
