"""Children are ready when they say so, and never outlive their supervisor."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from sandbox.errors import AlreadyRunningError, ChildDiedError, NotReadyError
from sandbox.pidfile import PidFile, Running
from sandbox.supervise import Backoff, Child, Leash, Places, State

Until = Callable[[Callable[[], bool]], Awaitable[None]]

ENV = {"PATH": os.defpath}
QUICK = Backoff(first=timedelta(milliseconds=10))
LEASHES: list[Leash] = ["kernel", "watchdog"] if sys.platform == "linux" else ["watchdog"]

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from sandbox.supervise import Child, Places

async def ready():
    return True

async def main(folder, leash):
    async with Child("sleeper", ["sleep", "600"], {}, ready, Places.under(Path(folder)), leash=leash) as child:
        print(child.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


def shell(script: str, folder: Path, ready: Callable[[], bool] = lambda: True, **more: object) -> Child:
    async def is_ready() -> bool:
        return ready()

    return Child("child", ["sh", "-c", script], ENV, is_ready, Places.under(folder), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("leash", LEASHES)
async def test_a_child_is_ready_inside_and_gone_outside(tmp_path: Path, leash: Leash) -> None:
    said = tmp_path / "said"
    async with shell(f"echo hello; touch {said}; exec sleep 600", tmp_path, said.exists, leash=leash) as child:
        found = child.pid_file.running()
        assert found is not None
        assert (found.pid, found.supervisor) == (child.pid, os.getpid())
        assert child.state is State.READY
    assert not found.is_alive
    assert child.pid_file.running() is None
    assert child.tail().endswith("hello")


async def test_a_child_that_dies_before_it_is_ready_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = shell("echo old; exit 1", tmp_path, lambda: False)
    with pytest.raises(ChildDiedError):
        await child.start()
    child = shell("echo the disk is full >&2; exit 3", tmp_path, lambda: False)
    with pytest.raises(ChildDiedError, match=r"exit status 3[\s\S]*the disk is full") as death:
        await child.start()
    assert "old" not in str(death.value)


async def test_a_child_that_is_not_ready_in_time_is_killed_and_reported(tmp_path: Path) -> None:
    child = shell("echo thinking; exec sleep 600", tmp_path, lambda: False, start_within=timedelta(milliseconds=300))
    with pytest.raises(NotReadyError, match=r"within 0\.3 s[\s\S]*thinking"):
        await child.start()
    assert child.pid is None
    assert child.pid_file.running() is None


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    child = shell("", tmp_path, lambda: False)
    child.argv = ["no-such-program"]
    with pytest.raises(ChildDiedError, match="no-such-program: No such file"):
        await child.start()


async def test_a_child_that_dies_by_itself_is_started_again_and_one_that_was_stopped_is_not(
    tmp_path: Path, until: Until
) -> None:
    async with shell("exec sleep 600", tmp_path, restart=QUICK) as child:
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.state is State.READY and child.pid not in {None, first})
        assert child.deaths == 1
        second = child.pid
        assert second is not None
    assert child.state is State.STOPPED
    assert not psutil.pid_exists(second)


async def test_a_child_that_cannot_come_back_is_tried_again_until_it_can(tmp_path: Path, until: Until) -> None:
    broken = tmp_path / "broken"
    async with shell(f"test ! -e {broken} && exec sleep 600", tmp_path, restart=QUICK) as child:
        broken.touch()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: child.deaths > 2)
        broken.unlink()
        await until(lambda: child.state is State.READY and child.pid is not None)


async def test_a_death_may_be_final(tmp_path: Path, until: Until) -> None:
    async with shell("exec sleep 600", tmp_path, restart=None) as child:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: child.state is State.STOPPED)
        assert child.pid is None


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    trapped = tmp_path / "trapped"
    child = shell(
        f"trap '' TERM; touch {trapped}; while :; do sleep 0.05; done",
        tmp_path,
        trapped.exists,
        stop_within=timedelta(milliseconds=200),
    )
    await child.start()
    found = child.pid_file.running()
    assert found is not None
    await child.stop()
    assert not found.is_alive


async def test_a_second_supervisor_is_told_who_runs_the_child(tmp_path: Path) -> None:
    async with shell("exec sleep 600", tmp_path) as child:
        with pytest.raises(AlreadyRunningError, match=f"pid {child.pid}") as refusal:
            await shell("exec sleep 600", tmp_path).start()
        assert refusal.value.pid == child.pid
        with pytest.raises(AlreadyRunningError):
            await child.start()
    async with shell("exec sleep 600", tmp_path):
        pass


@pytest.mark.parametrize("leash", LEASHES)
async def test_a_child_dies_when_its_supervisor_is_killed(tmp_path: Path, until: Until, leash: Leash) -> None:
    argv = (sys.executable, "-c", SUPERVISOR, str(tmp_path), leash)
    supervisor = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    pid = int(await supervisor.stdout.readline())
    found = PidFile(tmp_path / "run" / "sleeper.pid").running()
    assert found is not None
    assert found.pid == pid
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: not found.is_alive)


async def test_what_a_dead_supervisor_left_behind_is_ended_first(tmp_path: Path) -> None:
    orphan = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        file = PidFile(tmp_path / "run" / "child.pid")
        assert file.claim()
        file.write(orphan.pid)
        file.release()
        found = file.running()
        assert found is not None
        async with shell("exec sleep 600", tmp_path) as child:
            assert child.pid not in {None, orphan.pid}
            assert not found.is_alive
    finally:
        with contextlib.suppress(ProcessLookupError):
            orphan.kill()
        await orphan.wait()


def test_a_reused_pid_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "child.pid"
    started = psutil.Process().create_time()
    path.write_text(json.dumps({"pid": os.getpid(), "started": started, "supervisor": 1}))
    assert PidFile(path).running() == Running(os.getpid(), started, 1)
    path.write_text(json.dumps({"pid": os.getpid(), "started": started - 60, "supervisor": 1}))
    assert PidFile(path).running() is None


async def test_a_log_that_has_grown_is_set_aside_at_the_start(tmp_path: Path) -> None:
    said = tmp_path / "said"
    async with shell(f"echo first; touch {said}; exec sleep 600", tmp_path, said.exists, log_cap=10):
        pass
    async with shell("exec sleep 600", tmp_path, log_cap=10) as child:
        assert "first" not in child.tail()
        assert "first" in child.log_path.with_suffix(".log.1").read_text()


def test_each_death_in_a_row_doubles_the_wait_up_to_the_last() -> None:
    backoff = Backoff(first=timedelta(seconds=1), last=timedelta(seconds=5))
    assert [backoff.delay(deaths).total_seconds() for deaths in (1, 2, 3, 4, 1000)] == [1, 2, 4, 5, 5]
