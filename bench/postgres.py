"""The same lifecycle as rows of a raw PostgreSQL queue: SKIP LOCKED, LISTEN/NOTIFY, one process a role, an audit row in
the transaction of every step, commits synced to disk as PostgreSQL does by default.

It is given every advantage: no signature is made or checked, no policy is read, no plan is judged, its roles trust one
another and its trail is a table that its writer may change. What it shows is the floor of a queue in a database.
"""

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg

from bench.figures import Board, rate, spread
from bench.stand import AGENTS, ROOT
from tests.broker.builders import an_intent

BATCH: Final = 200
STEPS: Final = {
    "intake": ("submitted", "planning"),
    "planner": ("planning", "pending"),
    "approver": ("pending", "decided"),
    "core": ("decided", "approved"),
    "executor": ("approved", "granted"),
    "actor": ("granted", "succeeded"),
}
"""Who moves a row from where to where."""
ROLES: Final = {
    "intake": ("intake",),
    "core": ("core",),
    "notifier": ("approver",),
    "executor": ("planner", "executor", "actor"),
}
SCHEMA: Final = """
create table intents (id text primary key, phase text not null, body jsonb not null,
  decided_at timestamptz, entered_at timestamptz, submitted_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz);
create index on intents (phase) where phase <> 'succeeded';
create table audit (seq bigserial primary key, id text not null, event text not null,
  at timestamptz not null default clock_timestamp());
"""
MOVE: Final = """
with found as (select id from intents where phase = $1 limit $3 for update skip locked),
     moved as (update intents set phase = $2{also} from found where intents.id = found.id returning intents.id),
     said as (insert into audit (id, event) select id, $2 from moved)
select count(*) from moved
"""
WAITED: Final = "select extract(epoch from entered_at - decided_at) * 1000 from intents where id = $1"
INSERT: Final = "insert into intents (id, phase, body) values ($1, $2, $3)"
ALSO: Final = {
    "approver": ", decided_at = clock_timestamp()",
    "executor": "",
    "actor": ", entered_at = clock_timestamp(), ended_at = clock_timestamp()",
}


def binaries() -> Path | None:
    """Where the server's programs are, if anywhere."""
    places = [Path(found).resolve().parent for name in ("initdb",) if (found := shutil.which(name))]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


@asynccontextmanager
async def server(place: Path) -> AsyncIterator[str]:
    """A server of its own on a free loopback port; as nobody when we are root, which it refuses."""
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="keyturn-bench-pg-"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(  # noqa: ASYNC221, S603 - nothing else runs yet, and these are our own words
        [place / "initdb", "-D", data, "-U", "bench", "--auth=trust", "--encoding=UTF8", "--locale=C"],
        user=user,
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    process = await asyncio.create_subprocess_exec(
        place / "postgres",
        "-D",
        data,
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
        "-k",
        folder,
        "-c",
        "shared_buffers=512MB",
        user=user,
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def run(board: Board, count: int, singles: int) -> None:
    """The lifecycle, in bulk and one by one."""
    place = binaries()
    board.title(f"raw PostgreSQL queue, {count:,} intents through the same phases, one process a role")
    if place is None:
        board.say(
            "PostgreSQL", "not run", "no initdb on PATH or in /usr/lib/postgresql: install the postgresql package"
        )
        return
    async with server(place) as url:
        connection = await _connected(url)
        await connection.execute(SCHEMA)
        workers = [
            await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.postgres", url, role, cwd=ROOT)
            for role in ROLES
        ]
        try:
            begun = time.monotonic()
            await _submit(connection, count)
            await _done(connection, "select count(*) = 0 from intents where phase <> 'succeeded'", None, 0.2)
            took = time.monotonic() - begun
            board.say("whole lifecycles", rate(count, 1000 * took), "no signatures, no policy, trail not protected")
            waits = []
            for _ in range(singles):
                [name] = await _submit(connection, 1)
                await _done(connection, "select ended_at is not null from intents where id = $1", name, 0.002)
                waits.append(float(await connection.fetchval(WAITED, name) or 0))
            board.say("decision -> executor entered", spread(waits), f"{singles} one by one, woken by NOTIFY")
        finally:
            for worker in workers:
                worker.terminate()
                await worker.wait()
            await connection.close()


async def _submit(connection: "asyncpg.Connection", count: int) -> list[str]:
    rows = []
    for number in range(count):
        unique = int.from_bytes(secrets.token_bytes(8))
        intent = an_intent("s3.copy", requester=AGENTS[number % len(AGENTS)], number=unique)
        rows.append((intent.id, "submitted", intent.to_bytes().decode()))
    for start in range(0, count, BATCH):
        await connection.executemany(INSERT, rows[start : start + BATCH])
        await connection.execute("select pg_notify('submitted', '')")
    return [row[0] for row in rows]


async def _done(connection: "asyncpg.Connection", question: str, about: str | None, pause: float) -> None:
    words = (question,) if about is None else (question, about)
    while not await connection.fetchval(*words):  # noqa: ASYNC110 - another process does it
        await asyncio.sleep(pause)


async def _connected(url: str) -> "asyncpg.Connection":
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncpg.connect(url)
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.1)


async def work(url: str, role: str) -> None:
    """Move rows until terminated."""
    connection = await _connected(url)
    woken = asyncio.Event()
    for step in ROLES[role]:
        await connection.add_listener(STEPS[step][0], lambda *_: woken.set())
    while True:
        moved = 0
        for step in ROLES[role]:
            source, target = STEPS[step]
            count = int(await connection.fetchval(MOVE.format(also=ALSO.get(step, "")), source, target, BATCH) or 0)
            if count:
                await connection.execute(f"select pg_notify('{target}', '')")
            moved += count
        if not moved:
            woken.clear()
            try:
                async with asyncio.timeout(1):
                    await woken.wait()
            except TimeoutError:
                continue


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
