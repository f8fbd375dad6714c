"""`python -m cli.replaying BUNDLE`: one replay of a bundle, in this process, whose hash seed its parent chose.

`keyturn audit replay` starts it. What is read is streamed: in memory are the live documents and what is open; rows of
ended intents and the bytes of unreadable inputs lie in a scratch file.
"""

import argparse
import itertools
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from auditors import bundle as bundles
from auditors.bundle import BundleError, Kept
from auditors.verify.signatures import RootKeyError, keyid_of
from broker import replay
from broker.core.rows import OPEN, Stored
from broker.replay import Diverged, Replay, ReplayError, Snapshots
from schemas import ids, topics
from schemas.records import Source
from schemas.world import World

if TYPE_CHECKING:
    from schemas.canonical import Json

SAME: Final = 0
UNREADABLE: Final = 1
DIVERGED: Final = 6
TOLD_EVERY_SECONDS: Final = 5.0


class Places:
    """Inputs that a trail does not show, by place; and ended rows, by intent. In a scratch file, not in memory."""

    def __init__(self, folder: Path) -> None:
        """The file is removed with its folder."""
        self._base = sqlite3.connect(folder / "scratch.sqlite", isolation_level=None)
        self._base.execute("PRAGMA journal_mode=OFF")
        self._base.execute("PRAGMA synchronous=OFF")
        self._base.execute("CREATE TABLE kept (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def put(self, key: str, value: bytes) -> None:
        """Keep it."""
        self._base.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, value))

    def get(self, key: str) -> bytes | None:
        """What was kept."""
        found = self._base.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        return found[0] if found is not None else None

    def drop(self, key: str) -> None:
        """Keep it no longer."""
        self._base.execute("DELETE FROM kept WHERE key = ?", (key,))

    def close(self) -> None:
        """Before the folder goes."""
        self._base.close()


class RowsOnDisk(MutableMapping[str, Stored]):
    """Rows of one partition: open ones in memory, ended ones in the scratch file."""

    def __init__(self, places: Places, name: str) -> None:
        """`name` keeps partitions apart."""
        self._places = places
        self._name = name
        self._open: dict[str, Stored] = {}
        self._ended: set[str] = set()

    def __getitem__(self, key: str) -> Stored:
        if key in self._ended:
            value = self._places.get(f"{self._name}/{key}")
            if value is not None:
                return Stored.read((), value)
        return self._open[key]

    def __setitem__(self, key: str, stored: Stored) -> None:
        if stored.phase in OPEN:
            self._open[key] = stored
            self._ended.discard(key)
        else:
            self._open.pop(key, None)
            self._ended.add(key)
            self._places.put(f"{self._name}/{key}", stored.value)

    def __delitem__(self, key: str) -> None:
        if key in self._ended:
            self._ended.remove(key)
            self._places.drop(f"{self._name}/{key}")
        else:
            del self._open[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._open
        yield from self._ended

    def __len__(self) -> int:
        return len(self._open) + len(self._ended)


@dataclass(slots=True)
class Survey:
    """What one look over a bundle tells before the replay."""

    realm: str = ""
    records: int = 0
    #: At least so many.
    partitions: int = 1
    #: Requester -> partition.
    requesters: dict[str, int] = field(default_factory=dict)
    #: Places of inputs that the trail does not show.
    unshown: set[str] = field(default_factory=set)

    def take(self, members: dict[str, Any]) -> None:
        """One record of the trail, not read closely: the replay does that."""
        self.records += 1
        self.realm = self.realm or str(members.get("realm"))
        source = members.get("source")
        if "statement" not in members and isinstance(source, dict):
            self.unshown.add(f"{source.get('topic')}/{source.get('partition')}/{source.get('offset')}")
        number = str(members.get("chain")).removeprefix(replay.PREFIX)
        if number.isdecimal():
            self.partitions = max(self.partitions, int(number) + 1)
            try:
                self.requesters.setdefault(ids.requester_of(str(members.get("intent"))), int(number))
            except ids.IntentIdError:
                return  # a record about no intent


def run(folder: Path, roots: Sequence[str], realm: str | None, *, tells: bool) -> "tuple[int, dict[str, Json]]":
    """Replay a bundle: exit code and report."""
    with tempfile.TemporaryDirectory() as scratch:
        places = Places(Path(scratch))
        try:
            return _run(folder, roots, realm, places, tells=tells)
        finally:
            places.close()


def _run(
    folder: Path, roots: Sequence[str], realm: str | None, places: Places, *, tells: bool
) -> "tuple[int, dict[str, Json]]":
    survey = _survey(folder, places)
    world = World(realm or survey.realm, tuple((keyid_of(key), key) for key in roots))
    partitions = replay.partitions_of(survey.requesters, survey.partitions)
    snapshots = Snapshots()
    if bundles.holds(folder, topics.PENDING.name):
        for record in bundles.records(folder, topics.PENDING.name):
            snapshots.take(record)
    again = Replay(world, _find(places), partitions, snapshots, _storage(places))
    begun = told = time.monotonic()
    divergence = None
    try:
        for value in bundles.values(folder, topics.AUDIT.name):
            again.take(value)
            if tells and time.monotonic() - told > TOLD_EVERY_SECONDS:
                told = time.monotonic()
                speed = again.result.records / (told - begun)
                sys.stderr.write(f"replay: {again.result.records} of {survey.records} records, {speed:.0f}/s\n")
        again.finish()
    except Diverged as diverged:
        divergence = diverged.divergence
    found = again.result
    report: dict[str, Json] = {
        "is_same": divergence is None,
        "realm": world.realm,
        "records": found.records,
        "records_per_second": round(found.records / max(time.monotonic() - begun, 0.001)),
        "chains": {name: {"seq": head.seq, "digest": head.digest or ""} for name, head in sorted(found.heads.items())},
        "rows": found.rows,
        "rows_older": found.rows_older,
        "rows_skipped": found.rows_skipped,
        "at_its_word": found.at_its_word,
        "forgotten": found.forgotten,
        "partitions": partitions,
    }
    if divergence is not None:
        report["divergence"] = {name: getattr(divergence, name) for name in ("chain", "seq", "path", "expected", "got")}
    return (SAME if divergence is None else DIVERGED), report


def _survey(folder: Path, places: Places) -> Survey:
    """One look over the trail, and over the inputs that it does not show."""
    found = Survey()
    for value in bundles.values(folder, topics.AUDIT.name):
        try:
            members = json.loads(value)
        except ValueError:
            members = None
        found.take(members if isinstance(members, dict) else {})
    if not found.records:
        raise ReplayError("no audit record in it: either nothing happened yet, or this is no bundle")
    for topic in (*topics.WORLD, *topics.CORE_INPUTS):
        for line in bundles.records(folder, topic.name) if bundles.holds(folder, topic.name) else ():
            found.partitions = max(found.partitions, line.partition + 1)
            place = f"{topic.name}/{line.partition}/{line.offset}"
            if place in found.unshown:
                places.put(place, bundles.line_of(line))
    return found


def _find(places: Places) -> replay.Find:
    def find(source: Source) -> Kept | None:
        place = f"{source.topic}/{source.partition}/{source.offset}"
        found = places.get(place)
        return bundles.parse(found, place) if found is not None else None

    return find


def _storage(places: Places) -> Callable[[], RowsOnDisk]:
    number = itertools.count()
    return lambda: RowsOnDisk(places, f"rows-{next(number)}")


def main(arguments: Sequence[str]) -> int:
    """Run once; returns the exit code. The report is one JSON value on stdout."""
    parser = argparse.ArgumentParser(prog="replaying")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--root-key", action="append", required=True)
    parser.add_argument("--realm")
    parser.add_argument("--quiet", action="store_true")
    given = parser.parse_args(arguments)
    try:
        code, report = run(given.bundle, given.root_key, given.realm, tells=not given.quiet)
    except (BundleError, ReplayError, RootKeyError) as exc:
        sys.stderr.write(f"replay: {exc}\n")
        return UNREADABLE
    sys.stdout.write(json.dumps(report) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
