"""Somebody who says yes to every question as soon as it is there, with a notifier's own key and rights."""

import asyncio
import os
import sys
from pathlib import Path

from schemas import topics
from schemas.envelope import seal
from schemas.records import Channel, Decision, PendingApproval, Phase, Verdict
from schemas.topics import PROGRESS_KEY
from streams import connection, process, reading
from streams.health import Health
from streams.producing import Speaker
from streams.realm import RealmFolder, settings_for
from streams.settings import Settings
from tests.broker.builders import DIGEST, account, evidence
from tests.house import now


def yes(row: PendingApproval) -> Decision:
    """What the person on call says."""
    if row.question is None:
        raise ValueError(f"{row.intent_id} has no question")
    return Decision(
        intent=row.intent_id,
        question=row.question.digest,
        verdict=Verdict.APPROVE,
        account=account("dan"),
        channel=Channel.API,
        evidence=evidence(Channel.API, now()),
        card=DIGEST,
    )


async def serve(settings: Settings, _: Health, stop: asyncio.Event) -> None:
    """Follow the rows from here on."""
    consumer = connection.reader(settings)
    signer = settings.signer()
    await connection.start(consumer, settings)
    try:
        name = settings.names.of(topics.PENDING)
        count = (await connection.require_partitions(consumer, [name]))[name]
        places = connection.places(name, count)
        reading.assign_at(consumer, await consumer.end_offsets(places))
        async with Speaker(settings) as speaker:
            while not stop.is_set():
                for place, records in (await consumer.getmany(timeout_ms=50)).items():
                    rows = [
                        PendingApproval.from_bytes(record.value)
                        for record in records
                        if record.value is not None and record.key != PROGRESS_KEY.encode()
                    ]
                    await speaker.say_all(
                        (
                            settings.names.of(topics.DECISIONS),
                            place.partition,
                            seal(yes(row), row.intent_id, signer, settings.realm, source="bench"),
                        )
                        for row in rows
                        if row.phase is Phase.PENDING and row.question is not None and not row.votes
                    )
    finally:
        await consumer.stop()


def main() -> None:
    """Run as the realm's notifier."""
    folder = Path(sys.argv[1])
    for name, value in RealmFolder(folder).environment("notifier-api").items():
        os.environ.setdefault(name, value)
    process.run("notifier-api", settings_for(folder, "notifier-api"), serve)


if __name__ == "__main__":
    main()
