"""A role's process ends in order when it is told to, and at once when anything fails."""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from sandbox.roles import HOME, environment
from streams import process
from streams.process import JsonLines

ROLE = """
import asyncio, sys
from streams import process
from streams.settings import Settings

async def fails(settings, health, stop):
    raise RuntimeError("no more")

async def ends_by_itself(settings, health, stop):
    async def work():
        pass
    await process.until_stopped(stop, asyncio.create_task(work(), name="work"))

async def fails_inside(settings, health, stop):
    async def work():
        raise LookupError("inside")
    await process.until_stopped(stop, asyncio.create_task(work(), name="work"))

async def is_cancelled(settings, health, stop):
    raise asyncio.CancelledError

async def serves(settings, health, stop):
    print("serving", flush=True)
    await process.until_stopped(stop)
    print("stopped in order", flush=True)

settings = Settings(
    realm="test", kafka="127.0.0.1:1", kafka_username="x", kafka_password="y", root_keys="A" * 43 + "="
)
process.run("role", settings, globals()[sys.argv[1]])
"""


async def started(name: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ROLE,
        name,
        cwd=HOME,
        env=environment({}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("fails", "RuntimeError: no more"),
        ("ends_by_itself", "RuntimeError: work ended by itself"),
        ("fails_inside", "LookupError: inside"),
        ("is_cancelled", "CancelledError: "),
    ],
)
async def test_whatever_fails_ends_the_process_with_70_and_says_why_on_one_line(name: str, error: str) -> None:
    role = await started(name)
    _, said = await role.communicate()
    assert role.returncode == process.FAIL_STOP == os.EX_SOFTWARE
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["message"] for line in lines] == ["started", "fail-stop"]
    assert lines[-1]["error"] == error
    assert lines[-1]["level"] == "critical"
    assert "Traceback" in lines[-1]["trace"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_order(number: signal.Signals) -> None:
    role = await started("serves")
    assert role.stdout is not None
    assert await role.stdout.readline() == b"serving\n"
    role.send_signal(number)
    out, said = await role.communicate()
    assert role.returncode == 0
    assert out == b"stopped in order\n"
    assert [json.loads(line)["message"] for line in said.splitlines()] == ["started", "stopped"]


async def test_a_port_that_is_taken_ends_the_process(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    source = ROLE.replace("settings = Settings(", f"settings = Settings(health={port}, ")
    role = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, "serves", cwd=HOME, env=environment({}), stderr=asyncio.subprocess.PIPE
    )
    _, said = await role.communicate()
    taken.close()
    assert role.returncode == process.FAIL_STOP
    assert str(port) in json.loads(said)["error"]


def line_of(record: logging.LogRecord) -> dict[str, object]:
    text = JsonLines("core").format(record)
    assert "\n" not in text
    found: dict[str, object] = json.loads(text)
    return found


def test_a_log_line_is_one_json_object_with_whatever_the_caller_added() -> None:
    record = logging.LogRecord("keyturn.core", logging.ERROR, __file__, 1, "lost %d\nof %s", (3, "ünï"), None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    vars(record).update(partition=3, source=Path("/x"), other={"a": b"bytes"})
    assert line_of(record) == {
        "at": "2023-11-14T22:13:20.250Z",
        "level": "error",
        "role": "core",
        "logger": "keyturn.core",
        "message": "lost 3\nof ünï",
        "partition": 3,
        "source": "/x",
        "other": {"a": "b'bytes'"},
    }


def test_a_traceback_stays_on_its_line() -> None:
    try:
        int("inside")
    except ValueError:
        record = logging.LogRecord("x", logging.INFO, __file__, 1, "failed", (), sys.exc_info())
    assert "ValueError: invalid literal" in str(line_of(record)["traceback"])
