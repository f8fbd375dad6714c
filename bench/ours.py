"""Keyturn itself, phase by phase, on one realm: each phase works on what the phase before left on the log."""

import asyncio
import json
import time
from pathlib import Path

from bench.approver import yes
from bench.figures import Board, percentile, rate, spread
from bench.stand import Helper, Stand, burnt, resident
from sandbox.roles import environment, keyturn
from schemas import topics
from schemas.records import JournalEntry, Phase
from streams import connection
from tests.house import until

WITHIN: float = 900
DECIDED = frozenset({"decision.accepted", "approved"})


async def run(stand: Stand, board: Board, count: int, decisions: int, lifecycles: int, folder: Path) -> None:
    """All of it."""
    board.title(f"Keyturn, {count:,} intents, one process a role, acks=all, SCRAM, ACLs, signatures")
    empty = await _empty(stand)
    await _intake(stand, board, count)
    await _core(stand, board, count)
    await _plans(stand, board, count)
    await _recovery(stand, board, count, empty)
    await _release(stand, board, decisions)
    await _lifecycles(stand, board, lifecycles)
    await _trail(stand, board, folder)


async def _intake(stand: Stand, board: Board, count: int) -> None:
    await stand.submit(stand.intents(count))
    begun = await stand.end(topics.CLASSIFIED)
    async with stand.home.run("intake") as intake:
        await intake.ready(120)
        await stand.settled(topics.CLASSIFIED, begun + count, WITHIN)
        cpu = burnt(intake)
        await intake.stop()
    times = (await stand.times(topics.CLASSIFIED, 0))[-count:]
    board.say("intake, one process", rate(count, times[-1] - times[0]), f"{cpu:.1f} s of CPU with the start")


async def _core(stand: Stand, board: Board, count: int) -> None:
    async with stand.home.run("core") as core:
        await core.ready(120)
        await stand.settled(topics.AUDIT, count, WITHIN)
        cpu = burnt(core)
        await core.stop()
    audit = [r for r in await stand.home.read(topics.AUDIT) if b'"event":"intent.' in r.value]
    times = sorted(record.timestamp for record in audit)
    board.say(
        "core: intents admitted, one process", rate(count, times[-1] - times[0]), f"{cpu:.1f} s of CPU with the start"
    )
    commits = len(set(times))
    board.say("core: intents in a transaction", f">= {count // commits:,}", "by distinct log times of the trail")


async def _plans(stand: Stand, board: Board, count: int) -> None:
    begun = await stand.end(topics.REPORTS)
    since = time.time_ns() // 1_000_000
    async with Helper(stand.home, "executor-s3", "bench.executor"):
        await stand.settled(topics.REPORTS, begun + count, WITHIN)
    times = await stand.times(topics.REPORTS, since)
    board.say("executor: plans", rate(count, times[-1] - times[0]), "planning -> signed plan")
    since = time.time_ns() // 1_000_000
    begun = await stand.end(topics.AUDIT)
    async with stand.home.run("core") as core:
        await core.ready(120)
        await stand.settled(topics.AUDIT, begun + count, WITHIN)
        await core.stop()
    times = await stand.times(topics.AUDIT, since)
    board.say(
        "core: questions opened, one process", rate(len(times), times[-1] - times[0]), "plan -> pending, judged again"
    )


async def _empty(stand: Stand) -> int:
    async with stand.home.run("core") as core:
        await core.ready(120)
        held = resident(core)
        await core.stop()
    return held


async def _recovery(stand: Stand, board: Board, count: int, empty: int) -> None:
    async with stand.home.run("core") as core:
        await core.ready(120)
        full = resident(core)
        await core.kill()
    begun = time.monotonic()
    async with stand.home.run("core") as core:
        await core.ready(300)
        took = time.monotonic() - begun
        board.say(
            f"core killed -9 with {count:,} pending", f"{took:.1f} s", "until it serves again, start of Python included"
        )
        await core.stop()
    each = (full - empty) / count / 1024
    held = f"{full / 2**20:.0f} MiB resident, {empty / 2**20:.0f} with none"
    board.say("memory per pending", f"{each:.2f} KiB", held)


async def _release(stand: Stand, board: Board, decisions: int) -> None:
    """One at a time, so that nothing queues: what the approver and the agent feel."""
    waiting = [
        row for row in (await stand.home.rows()).values() if row.phase is Phase.PENDING and row.question is not None
    ][:decisions]
    said: dict[str, int] = {}
    names = {row.intent_id for row in waiting}
    home = stand.home
    heard: dict[str, int] = {}
    consumer = connection.reader(home.master, fetch_max_wait_ms=20)
    await connection.start(consumer, home.master)
    try:
        places = stand.places(topics.JOURNAL, "s3")
        consumer.assign(places)
        for place, end in (await stand.surveyor.ends(places)).items():
            consumer.seek(place, end)
        async with home.run("core") as core, Helper(home, "executor-s3", "bench.executor"):
            await core.ready(120)
            for row in waiting:
                await home.say(topics.DECISIONS, yes(row), by="api")
                async with asyncio.timeout(60):
                    while row.intent_id not in heard:
                        for records in (await consumer.getmany(timeout_ms=50)).values():
                            for record in records:
                                entry = JournalEntry.from_bytes(record.value or b"")
                                if entry.entry == "started":
                                    heard[entry.intent] = record.timestamp
            await core.stop()
    finally:
        await consumer.stop()
    for record in await home.read(topics.DECISIONS):
        if record.key is not None and (name := record.key.decode()) in names:
            said[name] = record.timestamp
    warm = [row.intent_id for row in waiting][len(waiting) // 10 :]
    took = [float(heard[name] - said[name]) for name in warm]
    board.say("decision -> executor entered", spread(took), f"log time to log time, {len(took)} one by one")


async def _lifecycles(stand: Stand, board: Board, count: int) -> None:
    home = stand.home
    async with (
        home.run("intake") as intake,
        home.run("core") as core,
        Helper(home, "executor-s3", "bench.executor", KEYTURN_EXECUTOR_ACTS="64"),
        Helper(home, "notifier-api", "bench.approver"),
    ):
        await intake.ready(120)
        await core.ready(120)
        intents = stand.intents(count)
        names = {each.id for each in intents}
        since = time.time_ns() // 1_000_000
        await stand.submit(intents)

        async def is_done() -> bool:
            return len(await _ended(stand, names, since)) == count

        before = await stand.end(topics.STATUS)
        await stand.settled(topics.STATUS, before, WITHIN)
        await until(is_done, WITHIN)
        ended = await _ended(stand, names, since)
        first = min(record.timestamp for record in await home.read(topics.INTENTS) if record.timestamp >= since)
        await intake.stop()
        await core.stop()
    board.say(
        "whole lifecycles, everything on two cores",
        rate(count, max(ended.values()) - first),
        "submit -> plan -> yes -> grant -> done, 64 acts at once",
    )
    board.say(
        "  of these the median waited",
        f"{percentile([t - first for t in ended.values()], 0.5) / 1000:.1f} s",
        "a burst, all at once",
    )


async def _ended(stand: Stand, names: set[str], since: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in await stand.home.read(topics.STATUS):
        name = record.key.decode()
        if record.timestamp >= since and record.value is not None and name in names:
            found |= {name: record.timestamp} if json.loads(record.value)["phase"] == "succeeded" else {}
    return found


async def _trail(stand: Stand, board: Board, folder: Path) -> None:
    count = len(await stand.home.read(topics.AUDIT))
    target = folder / "bundle"
    took = await _command("audit", "export", str(target), "--dir", str(stand.home.folder))
    board.say("audit export", f"{count / took:,.0f} records/s", f"{count:,} records in {took:.1f} s")
    told = ("--dir", str(stand.home.folder))
    for verb, words in (("verify", ("--bundle", str(target))), ("replay", (str(target),))):
        took = await _command("audit", verb, *words, *told)
        board.say(f"audit {verb}", f"{count / took:,.0f} records/s", f"{took:.1f} s, start of Python included")


async def _command(*words: str) -> float:
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *keyturn(*words),
        env=environment({"NO_COLOR": "1"}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"keyturn {' '.join(words)}: exit {process.returncode}: {text.decode()[-1500:]}")
    return time.monotonic() - begun
