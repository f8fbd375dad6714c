"""`keyturn sandbox`, as a person types it: up from nothing, alive through accidents, down without a trace."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sandbox.folder import SandboxFolder
from sandbox.roles import environment, keyturn
from sandbox.world import settings_of
from streams import documents
from tests.sandbox_world.waiting import until

ROLES = {"gateway", "intake", "core", "executor-s3", "api"}
SERVICES = {"kafka", "s3-store", "s3-proxy", "issuer"}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Terminal:
    """Types commands."""

    directory: Path
    cache: Path

    async def type(self, *words: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            *keyturn("sandbox", *words, "--dir", str(self.directory)),
            env=environment({"KEYTURN_CACHE": str(self.cache), "HOME": str(Path.home())}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Said(process.returncode or 0, out.decode(), err.decode())

    async def status(self) -> dict[str, dict[str, object]]:
        said = await self.type("status", "--json")
        return {one["name"]: one for one in json.loads(said.out)["processes"]}

    def processes(self) -> list[psutil.Process]:
        """The supervisor and all below it."""
        running = SandboxFolder(self.directory).running()
        assert running is not None
        supervisor = psutil.Process(running.pid)
        return [supervisor, *supervisor.children(recursive=True)]


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


@pytest.fixture(scope="module")
async def terminal(tmp_path_factory: pytest.TempPathFactory, sandbox_cache: Path) -> AsyncIterator[Terminal]:
    """One sandbox that these tests take through its life, in the order they stand here."""
    terminal = Terminal(tmp_path_factory.mktemp("command") / "sandbox", sandbox_cache)
    yield terminal
    if SandboxFolder(terminal.directory).is_ours:
        await terminal.type("down")


async def test_from_an_empty_directory_everything_comes_up_ready(terminal: Terminal) -> None:
    said = await terminal.type("up", "--detach")
    assert said.code == 0, said.err
    assert "Keyturn runs in" in said.out
    standings = await terminal.status()
    assert standings.keys() == ROLES | SERVICES
    assert {name: one["condition"] for name, one in standings.items()} == dict.fromkeys(ROLES | SERVICES, "ready")
    assert (await terminal.type("status")).code == 0


async def test_a_second_start_says_who_runs_it(terminal: Terminal) -> None:
    running = SandboxFolder(terminal.directory).running()
    assert running is not None
    for words in (("up",), ("up", "--detach")):
        said = await terminal.type(*words)
        assert said.code == 1
        assert f"already runs (pid {running.pid})" in said.err


async def test_one_line_makes_a_shell_a_person_or_a_role(terminal: Terminal) -> None:
    person, role, nobody = await asyncio.gather(*(terminal.type("env", who) for who in ("cho", "reporter", "zed")))
    assert [line.split("=")[0] for line in person.out.splitlines()] == [
        "export KEYTURN_API_URL",
        "export KEYTURN_TOKEN",
    ]
    assert f"export KEYTURN_KEY_FILE={terminal.directory / 'keys' / 'agent-reporter.key'}" in role.out
    assert nobody.code == 1
    assert "roles of this folder" in nobody.err


async def test_the_core_comes_back_after_kill_9(terminal: Terminal) -> None:
    before = (await terminal.status())["core"]
    assert isinstance(before["pid"], int)
    os.kill(before["pid"], signal.SIGKILL)
    async with asyncio.timeout(120):
        while (after := (await terminal.status())["core"])["restarts"] != 1 or after["condition"] != "ready":
            pass  # each look takes half a second
    assert after["pid"] != before["pid"]
    assert "core died and was started again" in (await terminal.type("logs", "sandbox")).out


async def test_kill_9_of_the_supervisor_leaves_no_process(terminal: Terminal) -> None:
    processes = terminal.processes()
    assert len(processes) >= len(ROLES | SERVICES) + 1
    processes[0].kill()
    await until(lambda: are_gone(processes))
    assert {one["condition"] for one in (await terminal.status()).values()} == {"stopped"}
    assert (await terminal.type("status")).code == 1


async def test_the_next_start_writes_nothing_anew_and_brings_no_new_version_into_force(terminal: Terminal) -> None:
    kept = sorted(path for path in terminal.directory.glob("*") if path.is_file())
    kept += sorted(path for part in ("env", "keys", "issuer") for path in (terminal.directory / part).iterdir())
    before = {path: path.stat().st_mtime_ns for path in kept}
    said = await terminal.type("up", "--detach", "--services-only")
    assert said.code == 0, said.err
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    world = await documents.read_world(settings_of(terminal.directory, "administration"))
    versions = world.versions
    assert (versions.directory, versions.roster, versions.policies, versions.manifests) == (1, 1, 1, 1)


async def test_down_leaves_no_process_and_reset_no_file(terminal: Terminal) -> None:
    processes = terminal.processes()
    said = await terminal.type("down")
    assert said.code == 0
    assert are_gone(processes)
    assert (await terminal.type("down")).out == "nothing was running\n"
    asked = await terminal.type("reset")
    assert asked.code == 1
    assert terminal.directory.exists()
    assert (await terminal.type("reset", "--yes")).code == 0
    assert not terminal.directory.exists()
