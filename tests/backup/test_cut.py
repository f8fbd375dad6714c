"""What a backup holds fits together although the core ran on, and what a restore takes away can never be used again."""

from dataclasses import dataclass, field

from schemas import topics
from schemas.records import ChainHead, Progress, Versions
from schemas.topics import PROGRESS_KEY
from streams.copies import Cut
from tests.auditors.builders import START

NOW = START + 10_000_000


@dataclass(frozen=True)
class Record:
    key: bytes | None
    topic: str = "keyturn.audit"
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    value: bytes | None = field(default=b"{}")


def cut() -> Cut:
    progress = Progress(
        partition=1,
        positions={},
        head=ChainHead(seq=7, digest="a" * 64),
        numbers={"keyturn.status": 3},
        versions=Versions(directory=1, roster=1, policies=1, manifests=1, rules="rules-1"),
        log_time=START,
    )
    made = Cut("keyturn.")
    made.take(Record(PROGRESS_KEY.encode(), "keyturn.pending", 1, value=progress.to_bytes()))
    return made


def test_the_trail_ends_where_the_rows_do() -> None:
    made = cut()
    held = [made.holds(topics.AUDIT, Record(f"core-1/{seq}".encode())) for seq in (1, 7, 8)]
    assert held == [True, True, False]
    assert not made.holds(topics.AUDIT, Record(b"core-0/1")), "a chain of which no row is known"
    assert made.later == 2


def test_words_end_where_the_rows_do() -> None:
    made = cut()
    words = [Record(b"x", "keyturn.status", 1, (("n", str(number).encode()),)) for number in (0, 2, 3)]
    assert [made.holds(topics.STATUS, word) for word in words] == [True, True, False]
    assert not made.holds(topics.STATUS, Record(b"x", "keyturn.status", 0, (("n", b"0"),)))
    assert not made.holds(topics.STATUS, Record(b"x", "keyturn.status", 1)), "without a number it is not the core's"
