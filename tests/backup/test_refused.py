"""A backup that would not come to lie as it was, or that is not this realm's, is not written back."""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from auditors.bundle import Kept
from cli.restore import RestoreError, kept_in, require_fit
from schemas.records import ChainHead, Progress, Versions
from streams.cluster import Cluster
from streams.findings import TopicState
from streams.realm import Realm, RealmFolder, lay_out
from streams.restoring import RestoringError, Written, heard, require_empty, require_whole
from tests.auditors.builders import PARTITIONS, REALM, ROOT, START, Trail, save

INPUT = {0: (2, 5), 1: (0, 0)}


def kept(partition: int, offset: int) -> Kept:
    return Kept("keyturn.ticks", partition, offset, START, b"k", (), b"{}")


def test_an_input_that_is_whole_is_taken_wherever_its_log_began() -> None:
    require_whole("ticks", [kept(0, 2), kept(0, 3), kept(0, 4)], INPUT)


@pytest.mark.parametrize("offsets", [(3, 4), (2, 4), (2, 3), ()], ids=["first", "middle", "last", "all"])
def test_an_input_of_which_a_record_is_missing_is_not_written(offsets: tuple[int, ...]) -> None:
    with pytest.raises(RestoringError, match="what is signed names offsets"):
        require_whole("ticks", [kept(0, offset) for offset in offsets], INPUT)


def test_a_word_of_operators_that_the_core_had_not_heard_is_left_out() -> None:
    progress = Progress(
        partition=1,
        positions={"operations": 3},
        head=ChainHead(),
        numbers={},
        versions=Versions(directory=1, roster=1, policies=1, manifests=1, rules="rules-1"),
        log_time=START,
    )
    written = Written()
    records = [kept(partition, offset) for partition in (0, 1) for offset in range(4)]
    taken = [(record.partition, record.offset) for record in heard(records, {1: progress}, written)]
    assert taken == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert written.unheard == 4


@dataclass
class Holding:
    """A cluster that has these topics."""

    found: dict[str, TopicState]

    async def topics(self, _wanted: Iterable[str]) -> dict[str, TopicState]:
        return self.found


@pytest.mark.parametrize(
    ("kind", "says"),
    [("LogAppendTime", "nothing was done"), ("CreateTime", "was not finished, and cannot be resumed")],
)
async def test_a_kafka_that_has_a_topic_of_the_realm_is_left_alone(kind: str, says: str) -> None:
    held = Holding({"keyturn.audit": TopicState(1, 1, {"message.timestamp.type": kind})})
    with pytest.raises(RestoringError, match=says):
        await require_empty(cast("Cluster", held), ["keyturn.audit"])
    await require_empty(cast("Cluster", Holding({})), ["keyturn.audit"])


# ---------------------------------------------------------------- whose backup it is

OURS = Realm(realm=REALM, kafka="127.0.0.1:1", partitions=PARTITIONS, executors=("s3",), agents=("builder",))


@pytest.fixture
def home(tmp_path: Path) -> RealmFolder:
    """The folder of the realm that made the trails of the builders."""
    folder = tmp_path / "realm"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys/root.key").write_text(base64.b64encode(hashlib.sha256(b"root").digest()).decode())
    lay_out(folder, OURS, ["ada"], secrets.token_bytes)
    return RealmFolder(folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A backup of that realm."""
    trail = Trail().begin()
    trail.executing()
    folder = save(trail.topics, tmp_path / "kept")
    spans: dict[str, Any] = {}
    for name, topic, _ in OURS.names.all(OURS.executors):
        plain = OURS.names.plain(name)
        (folder / f"{plain}.jsonl").touch()
        spans[plain] = {str(number): [0, 0] for number in range(PARTITIONS if topic.is_partitioned else 1)}
    told = {
        "realm": REALM,
        "partitions": PARTITIONS,
        "executors": ["s3"],
        "at": START,
        "heads": {},
        "intake": {},
        "spans": spans,
    }
    (folder / "backup.json").write_text(json.dumps(told))
    return folder


def test_a_sound_backup_of_this_realm_is_taken(home: RealmFolder, source: Path) -> None:
    require_fit(home, source, kept_in(source), ROOT.keyid)


def test_a_key_that_no_role_pins_declares_nothing(home: RealmFolder, source: Path) -> None:
    with pytest.raises(RestoreError, match="its word would count nowhere"):
        require_fit(home, source, kept_in(source), "another")


def says(**lies: Any) -> Callable[[Path], None]:
    def tell(source: Path) -> None:
        file = source / "backup.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | lies))

    return tell


def loses_a_topic(source: Path) -> None:
    (source / "journal.s3.jsonl").unlink()


def loses_a_record(source: Path) -> None:
    lines = (source / "audit.jsonl").read_text().splitlines(keepends=True)
    (source / "audit.jsonl").write_text("".join([*lines[:2], *lines[3:]]))


def loses_what_it_says_of_itself(source: Path) -> None:
    (source / "backup.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (says(realm="another"), "is of the realm another"),
        (says(partitions=3), "has 3 partitions"),
        (says(executors=["s3", "iam"]), "lacks the executors iam"),
        (says(heads={"core-0": {"seq": 7}}), "end elsewhere"),
        (says(spans={}), "does not hold intents whole"),
        (says(intake=7), "not as `keyturn backup` writes it"),
        (loses_a_topic, "does not hold journal.s3 whole"),
        (loses_a_record, "does not verify"),
        (loses_what_it_says_of_itself, "can be written back"),
    ],
)
def test_any_other_backup_is_refused_before_anything_is_written(
    home: RealmFolder, source: Path, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(source)
    with pytest.raises(RestoreError, match=why):
        require_fit(home, source, kept_in(source), ROOT.keyid)
