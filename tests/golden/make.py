"""`make golden`: the golden trail anew. Seeded keys, ids and log times: the same stories give the same bytes.

What the stories write on the topics is decided by the core's own judgement, partition by partition, and sealed as the
core seals it. If the answers to the old inputs changed and the version of the rules did not, nothing is written.
"""

import base64
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from auditors import bundle
from broker.core.deciding import Deciding, Word
from broker.core.order import INPUTS, WORLD
from broker.replay import OtherRulesError
from cli import replaying
from schemas import envelope
from schemas.records import AuditRecord, PendingApproval, Progress, Source
from schemas.topics import PROGRESS_KEY, Names
from schemas.world import RULES, World
from tests.auditors.builders import PARTITIONS, PREFIX, REALM, ROOT, ROOTS, Bundle, Line, Trail, save, signer
from tests.golden.stories import STORIES

GOLDEN = Path(__file__).with_name("trails.tar.xz")
KEPT = ("audit", "directory", "roster", "policies", "manifests", "pending")


@dataclass
class Written(Trail):
    """A realm that remembers in which order its topics were written."""

    order: list[tuple[str, int, int, str]] = field(default_factory=list)

    def write(self, topic: str, number: int, sealed: envelope.Sealed, at: int | None = None) -> Source:
        source = super().write(topic, number, sealed, at)
        if topic in INPUTS:
            self.order.append((topic, number, source.offset, self.core))
        return source


def told(story: Callable[[Trail], object]) -> Bundle:
    """A story's topics, and what the core makes of them: the trail, what executors are told, the rows."""
    realm = Written()
    realm.begin()
    story(realm)
    at = {
        (line["topic"], line["partition"], line["offset"]): line
        for name in INPUTS
        for line in realm.topics.get(name, ())
    }
    made: Bundle = {name: lines for name, lines in realm.topics.items() if name in {"intents", *INPUTS}}
    made |= {"audit": [], "pending": []}
    cores = [Deciding(World(REALM, ROOTS), Names(PREFIX), number, PARTITIONS) for number in range(PARTITIONS)]
    for topic, number, offset, key in realm.order:
        line = at[PREFIX + topic, number, offset]
        for core in cores if topic in WORLD else (cores[number],):
            core.decide(topic, bundle.parse(json.dumps(line).encode(), "golden"))
            _say(made, core.taken().words, line["timestamp"], key)
    for number, core in enumerate(cores):
        made["pending"].extend(_rows(core, number, realm.now, realm.core))
    return made


def _say(made: Bundle, words: list[Word], at: int, by: str) -> None:
    for word in words:
        name = word.topic.removeprefix(PREFIX)
        if name == "audit" or name.startswith("approved."):
            lines = made.setdefault(name, [])
            offset = sum(1 for line in lines if line["partition"] == word.partition)
            counted = None if name == "audit" else offset
            place = (word.topic, word.partition, offset, at + 5)
            lines.append(_line(place, word.key, word.type, word.value or b"", counted, by))


def _rows(core: Deciding, number: int, at: int, by: str) -> Iterator[Line]:
    topic = f"{PREFIX}pending"
    for offset, (intent_id, stored) in enumerate(sorted(core.rows.all())):
        place = (topic, number, offset, at)
        yield _line(place, intent_id, PendingApproval.TYPE, stored.value, offset, by)
    progress = Progress(
        partition=number, positions={}, head=core.chain.head, numbers={}, versions=core.world.versions, log_time=at
    )
    end = len(core.rows)
    yield _line((topic, number, end, at), PROGRESS_KEY, progress.TYPE, progress.to_bytes(), end, by)


def _line(place: tuple[str, int, int, int], key: str, kind: str, value: bytes, counted: int | None, by: str) -> Line:
    topic, number, offset, at = place
    sealed = envelope.seal_bytes(kind, value, key, signer(by), REALM, source="core", number=counted)
    return {
        "topic": topic,
        "partition": number,
        "offset": offset,
        "timestamp": at,
        "key": base64.b64encode(sealed.key).decode(),
        "headers": [[name, base64.b64encode(data).decode()] for name, data in sealed.headers],
        "value": base64.b64encode(sealed.value).decode(),
    }


def kept(made: Bundle) -> Bundle:
    """What is committed: inputs that the trail shows need not lie there twice; the others' topics are whole."""
    unshown = {
        record.source.topic
        for line in made["audit"]
        if (record := AuditRecord.from_bytes(base64.b64decode(line["value"]))).statement is None
    }
    return {name: lines for name, lines in made.items() if name in {*KEPT, *unshown}}


def pack(file: Path) -> None:
    """Every story, into one file: they have much in common, and one stream says that once."""
    bundles = {name: kept(told(story)) for name, story in STORIES.items()}
    with tarfile.open(file, "w:xz") as packed:
        for name, made in bundles.items():
            for topic, lines in sorted(made.items()):
                text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
                entry = tarfile.TarInfo(f"{name}/{topic}.jsonl")
                entry.size = len(text)
                packed.addfile(entry, io.BytesIO(text))


def unpack(folder: Path) -> list[Path]:
    """The committed bundles, one a story."""
    with tarfile.open(GOLDEN, "r:xz") as packed:
        packed.extractall(folder, filter="data")
    return sorted(path for path in folder.iterdir() if path.is_dir())


def changed() -> list[str]:
    """Stories of the committed trail that this version answers otherwise. OtherRulesError: it has other rules."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for story in unpack(Path(folder)):
            code, report = replaying.run(story, [ROOT.public], None, tells=False)
            if code:
                found.append(f"{story.name}: {report['divergence']}")
        return found


def main() -> int:
    """Replay the old one, write the new one."""
    try:
        different = changed() if GOLDEN.exists() else []
    except OtherRulesError:
        different = []
    if different:
        sys.stderr.write(
            "golden: this version answers the same inputs otherwise, under the same rules:\n  "
            + "\n  ".join(different)
            + f"\nIf that is meant, raise RULES in schemas/world.py (now {RULES}), say what changed in CHANGELOG.md, "
            "and run `make golden` again.\n"
        )
        return 1
    pack(GOLDEN)
    sys.stdout.write(f"{GOLDEN.name}: {len(STORIES)} stories, {GOLDEN.stat().st_size} bytes, {RULES}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["GOLDEN", "changed", "kept", "pack", "save", "told", "unpack"]
