"""A provisioned environment holds what the story says, by production's own rules; roles run on it as anywhere."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest
from aiobotocore.session import get_session

from sandbox import story
from sandbox.errors import AlreadyRunningError, PortTakenError, SandboxError, StaleDirectoryError
from sandbox.folder import SandboxFolder
from sandbox.foreground import until_told
from sandbox.roles import RunningRoles, UnknownRoleError, environment, is_ready, keyturn
from sandbox.standing import Condition, look, remove
from sandbox.supervise import State
from sandbox.world import Sandbox, SandboxWorld, TokenRefusedError, log_in
from streams import administration, documents
from tests.sandbox_world.waiting import until


def list_of(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_the_storys_documents_are_in_force_each_in_its_first_version(sandbox: SandboxWorld) -> None:
    world = await documents.read_world(sandbox.settings("administration"))
    versions = world.versions
    assert (versions.directory, versions.roster, versions.policies, versions.manifests) == (1, 1, 1, 1)
    assert world.directory is not None
    assert {person.id for person in world.directory.persons} == {"ana", "ben", "cho", "dee", "eli"}
    assert {account.provider for person in world.directory.persons for account in person.accounts} == {sandbox.issuer}
    assert world.manifests is not None
    action = world.manifests.action("s3.export")
    assert action is not None
    assert (action.lease, action.settle) == (story.LEASE_SECONDS, story.SETTLE_SECONDS)


async def test_kafka_is_exactly_as_the_realm_needs_it(sandbox: SandboxWorld) -> None:
    findings = await administration.examine(sandbox.folder, sandbox.admin)
    assert [str(finding) for finding in findings if not finding.is_ok] == []


async def test_the_buckets_have_versions_and_the_storys_objects(sandbox: SandboxWorld) -> None:
    client = get_session().create_client(
        "s3",
        region_name=sandbox.s3.region,
        endpoint_url=sandbox.s3.endpoint,
        aws_access_key_id=sandbox.s3.admin.access_key,
        aws_secret_access_key=sandbox.s3.admin.secret_key,
    )
    async with client as s3:
        for bucket, objects in story.objects().items():
            assert (await s3.get_bucket_versioning(Bucket=bucket))["Status"] == "Enabled"
            found = await s3.list_objects_v2(Bucket=bucket)
            assert objects.keys() <= {item["Key"] for item in found.get("Contents", ())}


async def test_everybody_in_the_story_can_log_in_and_nobody_else(sandbox: SandboxWorld) -> None:
    for person in story.PERSONS:
        assert (await sandbox.token(person.id)).count(".") == 2
    with pytest.raises(TokenRefusedError, match="there are ana, ben, cho, dee, eli"):
        await sandbox.token("mallory")


async def test_roles_run_from_their_environment_files_and_come_back_when_they_die(sandbox: SandboxWorld) -> None:
    announced: list[str] = []
    async with RunningRoles(sandbox.folder, only=("core", "api"), announce=announced.append) as roles:
        assert sorted(announced) == ["api", "core"]
        async with httpx.AsyncClient() as stranger:
            assert (await stranger.get(f"{sandbox.api}/v1/approvals")).status_code == 401
        core = roles.child("core")
        first = core.pid
        await roles.crash("core")
        assert core.pid not in {None, first}
        assert core.deaths == 1
        assert await is_ready(roles.health("core"))
        await roles.kill("core")
        assert (core.pid, core.state) == (None, State.STOPPED)
        standings = {one.name: one for one in await look(SandboxFolder(sandbox.folder))}
        assert standings["core"].condition is Condition.STOPPED
        assert standings["api"].is_ready
        assert standings["kafka"].is_ready
        await roles.restart("core")
        assert await is_ready(roles.health("core"))
        pids = [child.pid for child in (core, roles.child("api"))]
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)


async def test_sigterm_ends_keyturn_up_and_its_roles_in_order(sandbox: SandboxWorld) -> None:
    process = await asyncio.create_subprocess_exec(
        *keyturn("up", "--dir", str(sandbox.folder), "--only", "core"),
        env=environment({}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(150):
        assert (await process.stdout.readline()).startswith(b"core           ready after ")
        assert (await process.stdout.readline()).startswith(b"all ready: core.")
    roles = psutil.Process(process.pid).children(recursive=True)
    assert len(roles) == 1
    process.send_signal(signal.SIGTERM)
    said, _ = await process.communicate()
    assert (process.returncode, said) == (0, b"stopping\n")
    assert not any(role.is_running() for role in roles)
    assert '"message": "stopped"' in (sandbox.folder / "logs" / "core.log").read_text().splitlines()[-1]


async def test_a_role_that_the_realm_does_not_have_is_named(sandbox: SandboxWorld) -> None:
    with pytest.raises(
        UnknownRoleError, match=r"no role is called cor; this realm has gateway, intake, core, executor-s3, api"
    ):
        RunningRoles(sandbox.folder, only=("cor",))


async def test_a_sandbox_that_runs_is_not_started_twice_nor_removed(sandbox: SandboxWorld) -> None:
    with pytest.raises(AlreadyRunningError, match=f"already runs .pid {os.getpid()}.*sandbox down"):
        await Sandbox(sandbox.folder).start()
    with pytest.raises(AlreadyRunningError, match="down` first"):
        remove(SandboxFolder(sandbox.folder))


async def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    with pytest.raises(StaleDirectoryError, match=r"no sandbox\.json.*nothing in it was touched"):
        await Sandbox(tmp_path).start()
    with pytest.raises(StaleDirectoryError, match="is no sandbox's"):
        remove(SandboxFolder(tmp_path))
    assert list_of(tmp_path) == [thesis]


async def test_a_sandbox_of_another_story_is_refused_and_can_be_removed(tmp_path: Path) -> None:
    folder = SandboxFolder(tmp_path / "old")
    folder.open()
    folder.marker.write_text('{"story": 0}')
    with pytest.raises(StaleDirectoryError, match=r"tells story 0.*sandbox reset"):
        await Sandbox(folder.path).start()
    remove(folder)
    assert not folder.path.exists()


async def test_nobody_can_log_in_before_there_was_a_first_start(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no issuer yet"):
        await log_in(SandboxFolder(tmp_path), "cho")


async def test_a_port_that_somebody_took_is_named_and_nothing_stays_behind(tmp_path: Path, sandbox_cache: Path) -> None:
    directory = tmp_path / "sandbox"
    sandbox = Sandbox(directory, cache=sandbox_cache)
    folder = SandboxFolder(directory)
    folder.open()
    taken = folder.keep_ports((), os.urandom).issuer
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", taken):
        with pytest.raises(PortTakenError, match=f"port {taken}.*the issuer.*pid {os.getpid()}"):
            await sandbox.start()
    assert folder.running() is None
    children = psutil.Process().children(recursive=True)
    assert [child for child in children if str(directory) in " ".join(child.cmdline())] == []


async def test_a_variable_of_this_shell_that_would_win_over_the_sandboxs_is_refused(sandbox: SandboxWorld) -> None:
    other = Sandbox(sandbox.folder, environ={"KEYTURN_KAFKA": "kafka.example.com:9092", "KEYTURN_REALM": story.REALM})
    with pytest.raises(SandboxError, match=r"KEYTURN_KAFKA: set in this shell.*unset KEYTURN_KAFKA"):
        other.require_own_settings()


async def test_ctrl_c_while_things_start_is_enough(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(until_told(start()))
    await begun.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await running
    await until(ended.is_set)
