"""Where records are missing: what an owned position waits for in vain, and where the log goes on."""

from typing import Final

from aiokafka import TopicPartition

from streams import connection
from streams.reading import Surveyor
from streams.settings import Settings

POLL_MS: Final = 100


async def end_of(settings: Settings, surveyor: Surveyor, place: TopicPartition, position: int) -> int:
    """The offset where the log goes on after the hole at `position`; `position` itself when there is no hole.

    Below it when the log ends before it: its end was cut, and what comes next will have these offsets again.
    """
    start, end = (await surveyor.starts([place]))[place], (await surveyor.ends([place]))[place]
    if position < start:
        return start
    if position >= end:
        return end
    consumer = connection.reader(settings, fetch_max_wait_ms=POLL_MS)
    await connection.start(consumer, settings)
    try:
        consumer.assign([place])
        consumer.seek(place, position)
        while await consumer.position(place) < end:
            for record in (await consumer.getmany(place, timeout_ms=POLL_MS, max_records=1)).get(place, ()):
                return int(record.offset)
    finally:
        await consumer.stop()
    return end
