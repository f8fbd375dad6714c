"""Bundles on disk: a folder with one `<topic>.jsonl` each, or one such file with everything. Read as a stream."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from .check import Head, Verification
from .findings import Report
from .lines import Line, LineError, Unreadable, map_name, parse

MAX_LINE: Final = 4 * 1024 * 1024
"""Longer than any record with its headers; a file without line ends must not fill the memory."""


class BundleError(Exception):
    """There is nothing to check here; the text says what was expected."""


class Bundle:
    """The lines of one bundle, as often as they are asked for."""

    def __init__(self, path: Path) -> None:
        """`path`: the folder or the file."""
        self._path = path
        if path.is_dir():
            self._files = sorted(file for file in path.glob("*.jsonl") if map_name(file.stem) and file.is_file())
            if not any(file.stem == "audit" for file in self._files):
                raise BundleError(f"{path}: no audit.jsonl in it; `keyturn audit export` makes a bundle")
            if not any(file.stem == "directory" for file in self._files):
                raise BundleError(f"{path}: no directory.jsonl in it: without it no signature can be checked")
        elif path.is_file():
            self._files = [path]
        else:
            raise BundleError(f"{path}: neither a folder nor a file")

    def lines(self, *, audit: bool) -> Iterator[Line | Unreadable]:
        """The lines of the trail, or all others."""
        for file in self._files:
            topic = map_name(file.stem) if self._path.is_dir() else None
            if topic is None or (topic == "audit") == audit:
                yield from (line for line in _lines_of(file, topic) if (line.topic == "audit") == audit)


def verify(bundle: Bundle, root_keys: Iterable[str], *, realm: str | None = None, heads: Iterable[Head] = ()) -> Report:
    """Check a whole bundle."""
    verification = Verification(root_keys, realm=realm, heads=heads)
    for line in bundle.lines(audit=False):
        verification.take(line)
    for line in bundle.lines(audit=True):
        verification.take_audit(line)
    report = verification.finish()
    if not report.records:
        raise BundleError("no audit record in it: either nothing happened yet, or this is no bundle")
    return report


def spooled(stream: BinaryIO, folder: Path) -> Bundle:
    """A bundle that comes as a stream, kept in `folder` so that it can be read twice."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".jsonl", delete=False) as kept:
        while chunk := stream.read(1 << 20):
            kept.write(chunk)
    return Bundle(Path(kept.name))


def _lines_of(file: Path, topic: str | None) -> Iterator[Line | Unreadable]:
    try:
        with file.open("rb") as stream:
            for number, raw in enumerate(_raw_lines(stream), 1):
                yield _parsed(raw, f"{file.name}:{number}", topic)
    except OSError as exc:
        raise BundleError(f"{file}: {exc.strerror}") from exc


def _raw_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines without their ends; None for one that is longer than any record."""
    while raw := stream.readline(MAX_LINE):
        if len(raw) < MAX_LINE or raw.endswith(b"\n"):
            yield raw
            continue
        while rest := stream.readline(MAX_LINE):
            if rest.endswith(b"\n"):
                break
        yield None


def _parsed(raw: bytes | None, where: str, topic: str | None) -> Line | Unreadable:
    if raw is None:
        return Unreadable(where, f"longer than {MAX_LINE} bytes", topic)
    try:
        line = parse(raw)
    except LineError as exc:
        return Unreadable(where, str(exc), topic)
    if topic is not None and line.topic != topic:
        return Unreadable(where, f"a record of {line.topic}", topic)
    return line
