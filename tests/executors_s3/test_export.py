"""The S3 export against a real S3 and STS: exactly the plan, once, or the truth about what happened instead."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from executors.aws.client import Account, Aws, Credentials, Provider, RefusedError
from executors.contract import (
    ActFailedError,
    ExecutorError,
    Finding,
    OutcomeUnknownError,
    StaleError,
    TargetMissingError,
)
from executors.s3 import client as s3_client
from executors.s3 import sessions
from executors.s3.client import Bucket, Version
from executors.s3.parameters import Export
from sandbox.s3 import S3Address
from sandbox.s3 import proxy as provider
from sandbox.s3.minted import Minted
from sandbox.s3.settings import ProxySettings
from schemas.records import Intent, JournalEntry, Plan, Property
from tests.executors_s3.acts import Buckets, executor, export_intent, grant, now, planning_round, until
from tests.executors_s3.cutting import cutting
from tests.executors_s3.victims import started_victim
from tests.sandbox_s3.clients import DESTINATION, SOURCE, client

THREE = ("a.csv", "b.csv", "c/d.csv")


async def planned(address: S3Address, intent: Intent) -> Plan:
    """The plan of `intent` as the world is now."""
    return await executor(address).plan(intent, planning_round(intent), 1_790_000_000_000)


async def prepared(buckets: Buckets, prefix: str, names: tuple[str, ...] = THREE) -> tuple[Intent, Plan]:
    """Objects below `prefix`, and the plan to export them."""
    await buckets.put({f"{prefix}{name}": name.encode() for name in names})
    intent = export_intent(prefix)
    return intent, await planned(buckets.address, intent)


def target(prefix: str, name: str = "") -> str:
    """Where an object of the source goes."""
    return f"from-finance/{prefix}{name}"


async def test_an_export_copies_each_pinned_version_exactly_once_and_observing_agrees(
    address: S3Address, buckets: Buckets
) -> None:
    await buckets.put({"happy/a.csv": b"old"})
    pinned = await buckets.put(
        {"happy/a.csv": b"new", "happy/b.csv": b"b"}, ContentType="text/csv", Metadata={"owner": "finance"}
    )
    await buckets.put({"happy/gone.csv": b"gone"})
    await buckets.delete("happy/gone.csv")
    intent = export_intent("happy/")
    plan = await planned(address, intent)
    assert plan.measures == {
        "objects": 2,
        "bytes": 4,
        "largest_bytes": 3,
        "destination_public": False,
        "destination_versioned": True,
    }
    assert [change.detail["version"] for change in plan.changes] == [pinned["happy/a.csv"], pinned["happy/b.csv"]]

    granted = grant(intent, plan)
    receipt = await executor(address).execute(granted.act)

    made = [
        (change.target.removeprefix(f"s3://{DESTINATION}/"), change.detail["version"]) for change in receipt.changes
    ]
    assert await buckets.versions(target("happy/")) == made
    assert len(receipt.requests) == 2
    body, head = await buckets.read(target("happy/a.csv"))
    assert (body, head["ContentType"], head["Metadata"]["owner"]) == (b"new", "text/csv", "finance")
    assert head["Metadata"]["keyturn-intent"] == intent.id
    assert [(entry.step, entry.entry) for entry in granted.entries] == [
        (1, "started"),
        (1, "done"),
        (2, "started"),
        (2, "done"),
    ]
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, seen.receipt and seen.receipt.changes) == (Finding.APPLIED, receipt.changes)


async def test_planning_twice_in_the_same_world_gives_the_same_bytes_and_writes_nothing(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "twice/")
    assert (await planned(address, intent)).to_bytes() == plan.to_bytes()
    assert await buckets.versions(target("twice/")) == []
    assert len(await buckets.versions("twice/", SOURCE)) == 3


async def test_a_second_execution_changes_nothing(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "again/")
    await executor(address).execute(grant(intent, plan).act)
    before = await buckets.versions(target("again/"))
    with pytest.raises(StaleError, match="exist by now"):
        await executor(address).execute(grant(intent, plan).act)
    assert await buckets.versions(target("again/")) == before


@pytest.mark.parametrize("how", ["overwritten", "deleted", "added", "taken"])
async def test_when_the_world_differs_from_the_plan_nothing_is_done(
    address: S3Address, buckets: Buckets, how: str
) -> None:
    prefix = f"stale-{how}/"
    intent, plan = await prepared(buckets, prefix)
    match how:
        case "overwritten":
            await buckets.put({f"{prefix}b.csv": b"b.csv"})
        case "deleted":
            await buckets.delete(f"{prefix}b.csv")
        case "added":
            await buckets.put({f"{prefix}z.csv": b"z"})
        case _:
            await buckets.put({target(prefix, "b.csv"): b"theirs"}, DESTINATION)
    before = await buckets.versions(target(prefix))
    granted = grant(intent, plan)
    with pytest.raises(StaleError):
        await executor(address).execute(granted.act)
    assert granted.entries == ()
    assert await buckets.versions(target(prefix)) == before


async def test_a_destination_made_public_after_the_plan_voids_it(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "public/")
    anyone_reads = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{DESTINATION}/*"],
    }
    async with client("s3", address, address.admin) as s3:
        document = json.dumps({"Version": "2012-10-17", "Statement": [anyone_reads]})
        await s3.put_bucket_policy(Bucket=DESTINATION, Policy=document)
        try:
            assert (await planned(address, intent)).measures["destination_public"] is True
            with pytest.raises(StaleError, match=f"s3://{DESTINATION} is not as it was planned"):
                await executor(address).execute(grant(intent, plan).act)
        finally:
            await s3.delete_bucket_policy(Bucket=DESTINATION)
    assert await buckets.versions(target("public/")) == []


async def test_an_existing_key_at_planning_time_leaves_no_plan(address: S3Address, buckets: Buckets) -> None:
    await buckets.put({"clash/a.csv": b"ours"})
    await buckets.put({target("clash/a.csv"): b"theirs"}, DESTINATION)
    with pytest.raises(TargetMissingError, match="1 of the keys exist"):
        await planned(address, export_intent("clash/"))


async def test_a_key_that_appears_while_copying_is_not_overwritten_and_seen_as_a_conflict(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "race/")

    async def step_in(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (2, "started"):
            await buckets.put({target("race/b.csv"): b"theirs"}, DESTINATION)

    granted = grant(intent, plan, after=step_in)
    with pytest.raises(ActFailedError, match="PreconditionFailed") as failed:
        await executor(address).execute(granted.act)
    assert failed.value.receipt is not None
    assert [change.target for change in failed.value.receipt.changes] == [f"s3://{DESTINATION}/{target('race/a.csv')}"]
    assert (await buckets.read(target("race/b.csv")))[0] == b"theirs"
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.CONFLICT
    assert "'from-finance/race/b.csv'" in seen.reason


@pytest.mark.parametrize(("hangs_in", "copied"), [("started", 1), ("done", 2)])
async def test_killed_while_copying_the_observation_lists_exactly_what_is_there(
    address: S3Address, buckets: Buckets, tmp_path: Path, hangs_in: str, copied: int
) -> None:
    prefix = f"killed-{hangs_in}/"
    intent, plan = await prepared(buckets, prefix)
    written = await _victim(address, intent, plan, hangs_in, tmp_path)
    entries = tuple(JournalEntry.from_bytes(line) for line in written)
    assert (entries[-1].step, entries[-1].entry) == (2, hangs_in)

    seen = await executor(address).observe(intent, plan, entries[0].grant, entries)

    there = [key for key, _ in await buckets.versions(target(prefix))]
    assert there == [target(prefix, name) for name in THREE[:copied]]
    assert seen.finding is Finding.PARTIAL
    assert seen.receipt is not None
    assert [change.target for change in seen.receipt.changes] == [f"s3://{DESTINATION}/{key}" for key in there]


async def _victim(address: S3Address, intent: Intent, plan: Plan, hangs_in: str, folder: Path) -> list[bytes]:
    """Let another process execute, kill it when it hangs in the journal of step 2; what it journalled."""
    written = folder / "journal"
    process = await started_victim(address, intent, plan, hangs_in, written)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    return written.read_bytes().splitlines()


async def test_past_its_deadline_the_provider_refuses_the_rest_though_the_executors_clock_is_slow(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "deadline/")

    async def wait(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (3, "started"):
            await until(granted.act.deadline.credential_dies_at)

    granted = grant(intent, plan, seconds=12, after=wait)
    slow = executor(address, clock=lambda: now() - 60_000)
    with pytest.raises(ActFailedError, match="stopped at step 3, after 2 copies: AccessDenied") as failed:
        await slow.execute(granted.act)
    assert failed.value.receipt is not None
    assert len(failed.value.receipt.changes) == 2
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, len(await buckets.versions(target("deadline/")))) == (Finding.PARTIAL, 2)


async def test_past_its_deadline_the_executor_stops_by_itself(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "stops/")

    async def wait(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (1, "done"):
            await until(granted.act.deadline.credential_dies_at)

    granted = grant(intent, plan, seconds=12, after=wait)
    with pytest.raises(ActFailedError, match="after 1 copies: the deadline has passed"):
        await executor(address).execute(granted.act)
    too_late = grant(*await prepared(buckets, "late/"), seconds=-1)
    with pytest.raises(ActFailedError, match="nothing was done"):
        await executor(address).execute(too_late.act)
    assert await buckets.versions(target("late/")) == []


async def test_a_provider_that_overlooks_the_date_gets_its_credential_thrown_away_unused(
    address: S3Address, buckets: Buckets, s3_directory: Path, tmp_path: Path
) -> None:
    class Forgetful(Minted):
        def add(self, access_key: str, token: str, dies_at: datetime | None) -> None:  # noqa: ARG002
            super().add(access_key, token, None)

    intent, plan = await prepared(buckets, "forgetful/")
    settings = ProxySettings.from_file(s3_directory / "proxy.json")
    granted = grant(intent, plan)
    with Forgetful(tmp_path / "minted") as minted:
        async with _served(settings, minted) as endpoint:
            careless = executor(address, endpoint=endpoint)
            with pytest.raises(ActFailedError, match="does not honour a date"):
                await careless.execute(granted.act)
    assert granted.entries == ()
    assert await buckets.versions(target("forgetful/")) == []


@asynccontextmanager
async def _served(settings: ProxySettings, minted: Minted) -> AsyncIterator[str]:
    async with provider.open_store() as store:
        app = web.Application()
        app.router.add_route(
            "*", "/{any:.*}", provider.Provider(settings, minted, store, lambda: datetime.now(UTC)).handle
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_a_copy_whose_answer_is_lost_is_sent_once_and_left_open(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "lost/")
    granted = grant(intent, plan)
    async with cutting(address.endpoint, b"PUT /", after=2) as cut:
        with pytest.raises(OutcomeUnknownError, match="step 2, after 1 copies"):
            await executor(address, endpoint=cut.endpoint).execute(granted.act)
    assert cut.matched == 2
    assert [(entry.step, entry.entry) for entry in granted.entries][-1] == (2, "started")
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.PARTIAL
    assert len(await buckets.versions(target("lost/"))) == 2


async def test_the_stand_in_for_the_provider_does_not_send_a_copy_twice_either(
    address: S3Address, buckets: Buckets, s3_directory: Path, tmp_path: Path
) -> None:
    intent, plan = await prepared(buckets, "behind/")
    settings = ProxySettings.from_file(s3_directory / "proxy.json")
    granted = grant(intent, plan)
    with Minted(tmp_path / "minted") as minted:
        async with (
            cutting(f"http://{settings.upstream}", b"PUT /", after=1) as cut,
            _served(replace(settings, upstream=cut.endpoint.removeprefix("http://")), minted) as endpoint,
        ):
            remote = executor(address, endpoint=endpoint)
            with pytest.raises(OutcomeUnknownError, match="500 InternalError"):
                await remote.execute(granted.act)
    assert cut.matched == 1
    assert len(await buckets.versions(target("behind/"))) == 1


async def test_the_acting_session_can_touch_nothing_outside_the_plan(address: S3Address, buckets: Buckets) -> None:
    intent, _ = await prepared(buckets, "cut/")
    made = await buckets.put({"other/a.csv": b"secret", "cut/later.csv": b"unplanned"})
    listed = await buckets.versions("cut/", SOURCE)
    export = Export.of(intent)
    objects = [Version(key, version, "", 1) for key, version in listed if "later" not in key]
    policy = sessions.acting_policy(export, objects, datetime.now(UTC) + timedelta(minutes=1))
    async with _session(address, address.export_role, policy) as s3:
        await s3.head(SOURCE, "cut/a.csv", objects[0].version)
        inside, outside = (SOURCE, objects[0]), (SOURCE, Version("other/a.csv", made["other/a.csv"], "", 1))
        for source, key in (
            (outside, target("cut/a.csv")),
            (inside, target("cut/later.csv")),
            (inside, "elsewhere/a.csv"),
        ):
            with pytest.raises(RefusedError, match="AccessDenied"):
                await s3.copy(source, (DESTINATION, key), {}, {})
        for bucket, key in ((SOURCE, "other/a.csv"), (SOURCE, "cut/later.csv"), (DESTINATION, "x")):
            with pytest.raises(RefusedError) as no:
                await s3.head(bucket, key)
            assert no.value.status == 403
        with pytest.raises(RefusedError, match="AccessDenied"):
            await s3.keys(DESTINATION, "", 10)


async def test_the_planning_session_can_list_and_nothing_else(address: S3Address, buckets: Buckets) -> None:
    intent, _ = await prepared(buckets, "look/")
    versions = await buckets.versions("look/", SOURCE)
    async with _session(address, address.read_role, sessions.planning_policy(Export.of(intent))) as s3:
        assert len(await s3.current_versions(SOURCE, "look/", 10)) == 3
        with pytest.raises(RefusedError):
            await s3.current_versions(SOURCE, "other/", 10)
        with pytest.raises(RefusedError):
            await s3.head(SOURCE, *versions[0])
        with pytest.raises(RefusedError, match="AccessDenied"):
            await s3.copy((SOURCE, Version(*versions[0], "", 1)), (DESTINATION, target("look/a.csv")), {}, {})


@asynccontextmanager
async def _session(address: S3Address, role: str, policy: str) -> AsyncIterator[Bucket]:
    base = Credentials(address.executor.access_key, address.executor.secret_key)
    aws = Aws(Account(Provider(address.region, address.endpoint), base))
    async with s3_client.s3(aws, await aws.assume_role(role, "test", policy, 900)) as s3:
        yield s3


async def test_a_long_list_is_bound_by_digest_and_exported_and_observed_all_the_same(
    address: S3Address, buckets: Buckets
) -> None:
    names = tuple(f"{'y' * 200}/{number:03}.csv" for number in range(70))
    intent, plan = await prepared(buckets, "long/", names)
    assert plan.changes == ()
    assert [(leaf.name, leaf.count) for leaf in plan.lists] == [("objects", 70)]
    granted = grant(intent, plan)
    receipt = await executor(address).execute(granted.act)
    assert (receipt.changes, receipt.lists[0].count, receipt.measures["objects"]) == ((), 70, 70)
    assert len(await buckets.versions(target("long/"))) == 70
    observer = executor(address)
    seen = await observer.observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, seen.receipt and seen.receipt.lists) == (Finding.APPLIED, receipt.lists)


async def test_a_long_export_that_loses_its_journal_stops_and_is_observed_as_far_as_it_came(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "half/", tuple(f"{'y' * 200}/{number:03}.csv" for number in range(70)))
    assert plan.changes == ()

    async def break_off(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (11, "started"):
            raise ConnectionError("the journal is gone")

    granted = grant(intent, plan, after=break_off)
    with pytest.raises(ConnectionError):
        await executor(address).execute(granted.act)
    assert len(await buckets.versions(target("half/"))) == 10
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.PARTIAL
    assert seen.reason.startswith("10 of 70 objects")


async def test_an_act_that_never_began_is_observed_as_not_applied(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "never/")
    seen = await executor(address).observe(intent, plan, grant(intent, plan).act.grant_digest, ())
    assert (seen.finding, seen.receipt) == (Finding.NOT_APPLIED, None)


async def test_a_copy_of_ours_that_somebody_overwrote_later_still_counts_as_applied(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "later/")
    granted = grant(intent, plan)
    await executor(address).execute(granted.act)
    await buckets.put({target("later/a.csv"): b"theirs"}, DESTINATION)
    await buckets.delete(target("later/b.csv"), DESTINATION)
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.APPLIED


async def test_a_copy_of_ours_that_is_gone_for_good_is_observed_as_missing(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "erased/")
    granted = grant(intent, plan)
    await executor(address).execute(granted.act)
    ((key, version),) = await buckets.versions(target("erased/a.csv"))
    async with client("s3", address, address.admin) as s3:
        await s3.delete_object(Bucket=DESTINATION, Key=key, VersionId=version)
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, seen.reason[:6]) == (Finding.PARTIAL, "2 of 3")


async def test_copies_of_another_grant_are_foreign(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "foreign/")
    granted = grant(intent, plan)
    await executor(address).execute(granted.act)
    seen = await executor(address).observe(intent, plan, "0" * 64, ())
    assert seen.finding is Finding.CONFLICT


async def test_what_cannot_be_read_is_unknown(address: S3Address, buckets: Buckets, unused_tcp_port: int) -> None:
    intent, plan = await prepared(buckets, "away/")
    nobody = executor(address, endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    seen = await nobody.observe(intent, plan, "0" * 64, ())
    assert seen.finding is Finding.UNKNOWN
    with pytest.raises(ExecutorError, match="cannot be read"):
        await nobody.plan(intent, planning_round(intent), 0)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"source_bucket": "plain"}, "turn versioning on"),
        ({"source_bucket": "nowhere"}, "a bucket is missing"),
        ({"destination_bucket": "nowhere"}, "a bucket is missing"),
        ({"source_prefix": "empty/"}, "no object below"),
        ({"max_objects": 2}, "more than 2 objects"),
    ],
)
async def test_where_there_is_nothing_sensible_to_do_there_is_no_plan(
    address: S3Address, buckets: Buckets, changed: dict[str, Property], why: str
) -> None:
    await buckets.put({f"none/{name}": b"1" for name in THREE})
    with pytest.raises(TargetMissingError, match=why):
        await planned(address, export_intent("none/", **changed))


async def test_an_unversioned_destination_is_exported_to_and_the_undo_says_so(
    address: S3Address, buckets: Buckets
) -> None:
    await buckets.put({"flat/a.csv": b"1"})
    intent = export_intent("flat/", destination_bucket="plain")
    plan = await planned(address, intent)
    assert plan.measures["destination_versioned"] is False
    assert "keeps no versions" in plan.undo
    granted = grant(intent, plan)
    await executor(address).execute(granted.act)
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.APPLIED


async def test_no_secret_reaches_the_journal_the_receipt_or_a_repr(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "secret/")
    granted = grant(intent, plan)
    receipt = await executor(address).execute(granted.act)
    told = "".join(entry.to_bytes().decode() for entry in granted.entries) + repr(receipt) + repr(plan)
    told += repr(Credentials(address.executor.access_key, address.executor.secret_key, "token"))
    for secret in (address.executor.access_key, address.executor.secret_key, "token", "ASIA"):
        assert secret not in told
