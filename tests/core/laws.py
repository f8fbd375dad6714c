"""What must hold of a realm whatever happened to its cores. Read from Kafka, read-committed, as any reader would."""

from collections import Counter
from itertools import pairwise

from schemas import topics
from schemas.records import AuditRecord, Progress
from tests.house import PARTITIONS, House, counted


async def assert_whole(house: House) -> list[AuditRecord]:
    """Laws 9 to 11: chains without gap, every input answered once, numbers without gap. Returns the trail."""
    trail = await house.trail()
    progress = await house.progress()
    for number in range(PARTITIONS):
        chain = [record for record in trail if record.chain == f"core-{number}"]
        assert [record.seq for record in chain] == list(range(1, len(chain) + 1))
        assert all(after.prev == before.digest for before, after in pairwise(chain))
        assert (progress[number].head.seq, progress[number].head.digest) == (chain[-1].seq, chain[-1].digest)
        _assert_answered_once(chain, progress[number])
    for topic in (topics.PENDING, topics.STATUS):
        assert_numbered(await house.read(topic))
    for topic in (topics.PLANNING, topics.APPROVED):
        assert_numbered(await house.read(topic, "s3"))
    return trail


def assert_numbered(records: list[object]) -> None:
    for place, numbers in counted(records).items():  # type: ignore[arg-type]
        assert numbers == list(range(len(numbers))), place


def _assert_answered_once(chain: list[AuditRecord], progress: Progress) -> None:
    for topic in (*topics.WORLD, topics.CLASSIFIED, topics.DECISIONS, topics.REPORTS, topics.OPERATIONS):
        answered = Counter(record.source.offset for record in chain if record.source.topic == topic.name)
        # A partition begins with its genesis record, which nobody answers.
        due = range(1 if topic.is_partitioned else 0, progress.positions[topic.name])
        assert answered == Counter(due), topic.name
