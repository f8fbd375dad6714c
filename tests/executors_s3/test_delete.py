"""The S3 deletion against a real S3 and STS: one marker over each planned version, no version gone, ever."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from executors.aws.client import Account, Aws, Credentials, Provider, RefusedError
from executors.aws.sessions import MAX_POLICY
from executors.contract import ActFailedError, Finding, OutcomeUnknownError, StaleError, TargetMissingError
from executors.s3 import client as s3_client
from executors.s3 import deleting, planning, sessions
from executors.s3.client import Bucket, Expiry, Stand, Version
from executors.s3.deleting import Look
from executors.s3.executor import S3Executor, Settings
from executors.s3.parameters import Delete
from sandbox.s3 import S3Address
from schemas.records import Intent, JournalEntry, Plan, Property, Reversibility
from tests.executors_s3.acts import Buckets, delete_intent, executor, grant, now, planning_round, until
from tests.executors_s3.cutting import cutting
from tests.executors_s3.victims import started_victim
from tests.sandbox_s3.clients import SOURCE, client

THREE = ("a.csv", "b.csv", "c/d.csv")


async def planned(address: S3Address, intent: Intent) -> Plan:
    """The plan of `intent` as the world is now."""
    return await executor(address).plan(intent, planning_round(intent), 1_790_000_000_000)


async def prepared(buckets: Buckets, prefix: str, names: tuple[str, ...] = THREE) -> tuple[Intent, Plan]:
    """Objects below `prefix`, and the plan to delete them."""
    await buckets.put({f"{prefix}{name}": name.encode() for name in names})
    intent = delete_intent(prefix)
    return intent, await planned(buckets.address, intent)


async def test_a_deletion_puts_one_marker_over_each_version_and_undoing_brings_the_same_versions_back(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "d-happy/")
    before = await buckets.versions("d-happy/", SOURCE)
    assert plan.measures == {
        "objects": 3,
        "bytes": 17,
        "largest_bytes": 7,
        "object_lock": False,
        "recoverable_days": 36_500,
    }
    assert (plan.reversibility, [change.verb for change in plan.changes]) == (Reversibility.EXACT, ["delete"] * 3)

    granted = grant(intent, plan)
    receipt = await executor(address).execute(granted.act)

    assert await buckets.versions("d-happy/", SOURCE) == before
    put = [(change.target.removeprefix(f"s3://{SOURCE}/"), change.detail["marker"]) for change in receipt.changes]
    assert await buckets.markers("d-happy/") == put
    assert [(entry.step, entry.entry) for entry in granted.entries][:2] == [(1, "started"), (1, "done")]
    assert granted.entries[1].detail["marker"] == put[0][1]
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, seen.receipt and seen.receipt.changes) == (Finding.APPLIED, receipt.changes)

    with pytest.raises(TargetMissingError, match="deleted already"):
        await planned(address, intent)
    # The recipe of the plan, by hand: exactly our markers.
    async with client("s3", address, address.admin) as s3:
        for key, marker in put:
            await s3.delete_object(Bucket=SOURCE, Key=key, VersionId=marker)
    # The same plan as before, bytes and all: the same versions stand there again.
    assert await planned(address, intent) == plan


@pytest.mark.parametrize("how", ["overwritten", "same bytes", "deleted", "added", "expiring"])
async def test_when_the_world_differs_from_the_plan_nothing_is_deleted(
    address: S3Address, buckets: Buckets, how: str
) -> None:
    prefix = f"d-stale-{how.replace(' ', '-')}/"
    intent, plan = await prepared(buckets, prefix)
    match how:
        case "overwritten":
            await buckets.put({f"{prefix}b.csv": b"other"})
        case "same bytes":
            await buckets.put({f"{prefix}b.csv": b"b.csv"})
        case "deleted":
            await buckets.delete(f"{prefix}b.csv")
        case "added":
            await buckets.put({f"{prefix}z.csv": b"z"})
    markers = await buckets.markers(prefix)
    granted = grant(intent, plan)
    async with _expiring(address, prefix, 30) if how == "expiring" else _unchanged():
        with pytest.raises(StaleError, match="planned"):
            await executor(address).execute(granted.act)
    assert granted.entries == ()
    assert await buckets.markers(prefix) == markers


@asynccontextmanager
async def _unchanged() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _expiring(address: S3Address, prefix: str, days: int) -> AsyncIterator[None]:
    rule = {
        "ID": "clean-up",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
    }
    async with client("s3", address, address.admin) as s3:
        await s3.put_bucket_lifecycle_configuration(Bucket=SOURCE, LifecycleConfiguration={"Rules": [rule]})
        try:
            yield
        finally:
            await s3.delete_bucket_lifecycle(Bucket=SOURCE)


async def test_a_lifecycle_rule_says_until_when_a_deletion_can_be_undone(address: S3Address, buckets: Buckets) -> None:
    await buckets.put({"d-window/a": b"1"})
    async with _expiring(address, "d-window/", 30):
        plan = await planned(address, delete_intent("d-window/"))
    assert (plan.reversibility, plan.measures["recoverable_days"]) == (Reversibility.WINDOW, 30)
    assert "not before 2026-10-21" in plan.summary
    assert "Only within 30 days" in plan.undo


async def test_an_unversioned_bucket_is_refused_at_planning(address: S3Address) -> None:
    async with client("s3", address, address.admin) as s3:
        await s3.put_object(Bucket="plain", Key="in/a", Body=b"1")
    with pytest.raises(TargetMissingError, match="turn versioning on for plain: without it a deletion could never"):
        await planned(address, delete_intent("in/", bucket="plain"))


async def set_versioning(address: S3Address, bucket: str, status: str) -> None:
    """Turn it on, or suspend it, behind everybody's back."""
    async with client("s3", address, address.admin) as s3:
        await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


async def bucket_of(address: S3Address, bucket: str, count: int, *, versioned_after: bool = False) -> Intent:
    """A versioned bucket with so many objects, there before versioning was or after; the wish to delete them."""
    async with client("s3", address, address.admin) as s3:
        await s3.create_bucket(Bucket=bucket)
        if not versioned_after:
            await set_versioning(address, bucket, "Enabled")
        for number in range(count):
            await s3.put_object(Bucket=bucket, Key=f"in/{number:02}", Body=b"1")
    await set_versioning(address, bucket, "Enabled")
    return delete_intent("in/", bucket=bucket)


async def test_a_bucket_whose_versioning_is_suspended_is_refused_at_planning(address: S3Address) -> None:
    intent = await bucket_of(address, "suspended", 1)
    await set_versioning(address, "suspended", "Suspended")
    with pytest.raises(TargetMissingError, match="turn versioning on for suspended"):
        await planned(address, intent)


async def test_versioning_suspended_after_the_yes_is_stale_and_nothing_is_deleted(
    address: S3Address, buckets: Buckets
) -> None:
    intent = await bucket_of(address, "suspended-later", 2)
    plan = await planned(address, intent)
    await set_versioning(address, "suspended-later", "Suspended")
    with pytest.raises(StaleError, match="not as it was planned"):
        await executor(address).execute(grant(intent, plan).act)
    assert await buckets.markers("in/", "suspended-later") == []


async def test_versioning_suspended_between_the_look_and_the_first_deletion_is_stale(
    address: S3Address, buckets: Buckets
) -> None:
    intent = await bucket_of(address, "suspended-then", 2)
    plan = await planned(address, intent)
    granted = grant(intent, plan)

    def clock() -> int:
        # It is asked for the first time when the session is minted: after the look.
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(asyncio.run, set_versioning(address, "suspended-then", "Suspended")).result()
        return now()

    with pytest.raises(StaleError, match="versioning is not on any more"):
        await executor(address, clock=clock).execute(granted.act)
    assert granted.entries == ()
    assert await buckets.markers("in/", "suspended-then") == []


@pytest.mark.parametrize(("bucket", "at", "versioned_after"), [("batch", 10, False), ("before", 1, True)])
async def test_versioning_suspended_between_deletions_stops_them_before_anything_is_erased(
    address: S3Address, buckets: Buckets, bucket: str, at: int, versioned_after: bool
) -> None:
    intent = await bucket_of(address, bucket, 12, versioned_after=versioned_after)
    plan = await planned(address, intent)
    assert {change.detail["version"] == "null" for change in plan.changes} == {versioned_after}
    before = await buckets.versions("in/", bucket)

    async def suspend(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (at, "done"):
            await set_versioning(address, bucket, "Suspended")

    with pytest.raises(ActFailedError, match=f"after {at} deletions: versioning is not on any more") as failed:
        await executor(address).execute(grant(intent, plan, after=suspend).act)
    assert failed.value.receipt is not None
    assert len(failed.value.receipt.changes) == at
    assert await buckets.versions("in/", bucket) == before
    assert len(await buckets.markers("in/", bucket)) == at


async def test_under_object_lock_a_marker_is_put_and_the_locked_version_stays(
    address: S3Address, buckets: Buckets
) -> None:
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    async with client("s3", address, address.admin) as s3:
        await s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        await s3.put_object_lock_configuration(
            Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
    await buckets.put({"in/a": b"1"}, "locked")
    before = await buckets.versions("in/", "locked")
    intent = delete_intent("in/", bucket="locked")
    plan = await planned(address, intent)
    assert plan.measures["object_lock"] is True
    receipt = await executor(address).execute(grant(intent, plan).act)
    assert await buckets.versions("in/", "locked") == before
    assert await buckets.markers("in/", "locked") == [("in/a", receipt.changes[0].detail["marker"])]


async def test_a_deletion_whose_answer_is_lost_is_sent_once_and_known_by_its_time(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "d-lost/")
    granted = grant(intent, plan)
    async with cutting(address.endpoint, b"DELETE /", after=2) as cut:
        with pytest.raises(OutcomeUnknownError, match="step 2, after 1 deletions"):
            await executor(address, endpoint=cut.endpoint).execute(granted.act)
    assert cut.matched == 2
    markers = await buckets.markers("d-lost/")
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.PARTIAL
    assert seen.reason.startswith("2 of 3 objects below s3://finance/d-lost/ carry our delete marker, 1 of them known")
    assert seen.receipt is not None
    assert [change.detail["marker"] for change in seen.receipt.changes] == [marker for _, marker in markers]


@pytest.mark.parametrize(("hangs_in", "deleted"), [("started", 1), ("done", 2)])
async def test_killed_while_deleting_the_observation_lists_exactly_what_is_gone_and_nothing_is_repeated(
    address: S3Address, buckets: Buckets, tmp_path: Path, hangs_in: str, deleted: int
) -> None:
    prefix = f"d-killed-{hangs_in}/"
    intent, plan = await prepared(buckets, prefix)
    written = tmp_path / "journal"
    process = await started_victim(address, intent, plan, hangs_in, written)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    entries = tuple(JournalEntry.from_bytes(line) for line in written.read_bytes().splitlines())
    assert (entries[-1].step, entries[-1].entry) == (2, hangs_in)

    seen = await executor(address).observe(intent, plan, entries[0].grant, entries)

    gone = [key for key, _ in await buckets.markers(prefix)]
    assert gone == [f"{prefix}{name}" for name in THREE[:deleted]]
    assert seen.finding is Finding.PARTIAL
    assert seen.receipt is not None
    assert [change.target for change in seen.receipt.changes] == [f"s3://{SOURCE}/{key}" for key in gone]
    # Approving the old plan again does nothing: what stands there is not what was planned.
    with pytest.raises(StaleError):
        await executor(address).execute(grant(intent, plan).act)
    assert len(await buckets.markers(prefix)) == deleted


@pytest.mark.parametrize("how", ["written", "deleted"])
async def test_a_key_that_changes_while_others_are_deleted_is_left_alone(
    address: S3Address, buckets: Buckets, how: str
) -> None:
    prefix = f"d-race-{how}/"
    intent, plan = await prepared(buckets, prefix)

    async def step_in(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (2, "started"):
            await (buckets.put({f"{prefix}b.csv": b"theirs"}) if how == "written" else buckets.delete(f"{prefix}b.csv"))

    granted = grant(intent, plan, after=step_in)
    with pytest.raises(ActFailedError, match="PreconditionFailed") as failed:
        await executor(address).execute(granted.act)
    assert failed.value.receipt is not None
    assert [change.target for change in failed.value.receipt.changes] == [f"s3://{SOURCE}/{prefix}a.csv"]


async def test_a_key_rewritten_with_the_same_bytes_between_two_steps_is_left_alone(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "d-same/")

    async def step_in(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (1, "done"):
            await buckets.put({"d-same/b.csv": b"b.csv"})

    with pytest.raises(ActFailedError, match=r"'d-same/b\.csv' is not the planned version any more"):
        await executor(address).execute(grant(intent, plan, after=step_in).act)
    assert len(await buckets.markers("d-same/")) == 1


async def test_past_its_deadline_the_provider_refuses_the_rest(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "d-late/")

    async def wait(entry: JournalEntry) -> None:
        if (entry.step, entry.entry) == (2, "started"):
            await until(granted.act.deadline.credential_dies_at)

    granted = grant(intent, plan, seconds=12, after=wait)
    slow = executor(address, clock=lambda: now() - 60_000)
    with pytest.raises(ActFailedError, match="stopped at step 2, after 1 deletions: AccessDenied"):
        await slow.execute(granted.act)
    assert len(await buckets.markers("d-late/")) == 1


async def test_somebody_writing_over_our_marker_later_leaves_it_ours(address: S3Address, buckets: Buckets) -> None:
    intent, plan = await prepared(buckets, "d-after/")
    granted = grant(intent, plan)
    await executor(address).execute(granted.act)
    await buckets.put({"d-after/a.csv": b"new"})
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.APPLIED
    seen = await executor(address).observe(intent, plan, "0" * 64, ())
    assert (seen.finding, seen.receipt) == (Finding.NOT_APPLIED, None)


async def test_the_deleting_session_can_touch_nothing_outside_the_plan_and_erase_nothing(
    address: S3Address, buckets: Buckets
) -> None:
    intent, plan = await prepared(buckets, "d-cut/")
    versions = await buckets.versions("d-cut/", SOURCE)
    objects = [Version(key, version, "", 1) for key, version in versions if "a.csv" in key]
    policy = sessions.delete_acting_policy(Delete.of(intent), objects, datetime.now(UTC) + timedelta(minutes=1))
    async with _session(address, address.delete_role, policy) as s3:
        assert (await s3.history(SOURCE, "d-cut/a.csv"))[0].version == objects[0].version
        for call in (
            s3._raw.delete_object(Bucket=SOURCE, Key="d-cut/b.csv"),
            s3._raw.delete_object(Bucket=SOURCE, Key="d-cut/a.csv", VersionId=objects[0].version),
            s3._raw.get_object(Bucket=SOURCE, Key="d-cut/a.csv"),
            s3._raw.put_object(Bucket=SOURCE, Key="d-cut/a.csv", Body=b"x"),
        ):
            await _is_denied(call)
    async with _session(address, address.read_role, sessions.delete_planning_policy(Delete.of(intent))) as s3:
        assert await s3.expiries(SOURCE) == ()
        with pytest.raises(RefusedError, match="AccessDenied"):
            await s3.delete(SOURCE, Version("d-cut/a.csv", "", str(plan.changes[0].detail["etag"]), 1))
        with pytest.raises(RefusedError, match="AccessDenied"):
            await s3.history(SOURCE, "other/a.csv")


async def _is_denied(call: Any) -> None:
    with pytest.raises(Exception, match="AccessDenied"):
        await call


@asynccontextmanager
async def _session(address: S3Address, role: str, policy: str) -> AsyncIterator[Bucket]:
    base = Credentials(address.executor.access_key, address.executor.secret_key)
    aws = Aws(Account(Provider(address.region, address.endpoint), base))
    async with s3_client.s3(aws, await aws.assume_role(role, "test", policy, 900)) as s3:
        yield s3


async def test_where_no_role_to_delete_with_is_set_there_is_no_plan(address: S3Address) -> None:
    account = Account(Provider(address.region, address.endpoint))
    without = S3Executor(Settings(account, address.read_role, address.export_role), now)
    with pytest.raises(TargetMissingError, match="KEYTURN_S3_DELETE_ROLE is not set"):
        await without.validate(delete_intent("in/"))


@pytest.mark.parametrize(
    "changed", [{"prefix": "in"}, {"prefix": "in*/"}, {"prefix": ""}, {"bucket": ""}, {"max_objects": True}]
)
def test_parameters_that_cannot_be_meant_are_refused(changed: dict[str, Property]) -> None:
    with pytest.raises(TargetMissingError):
        Delete.of(delete_intent("in/", **changed))


# ---------------------------------------------------------------- without any S3

LOOK = Look((Version("in/a", "v1", "e", 1),), is_versioned=True, needs_mfa=False, expiries=(), is_locked=False)


def plan_of(look: Look) -> Plan:
    intent = delete_intent("in/")
    return deleting.plan(Delete.of(intent), look, intent, planning_round(intent), 1_790_000_000_000)


@pytest.mark.parametrize(
    ("expiries", "days"),
    [
        ((), None),
        ((Expiry("out/", 3),), None),
        ((Expiry("", 30), Expiry("in/deep/", 7)), 7),
        (None, 0),
    ],
)
def test_how_long_versions_stay_is_told_by_the_strictest_rule_that_can_touch_them(
    expiries: tuple[Expiry, ...] | None, days: int | None
) -> None:
    plan = plan_of(replace(LOOK, expiries=expiries))
    assert plan.measures["recoverable_days"] == (36_500 if days is None else days)
    assert (plan.reversibility is Reversibility.EXACT) is (days is None)


def test_any_changed_leaf_of_the_look_is_a_difference() -> None:
    delete, plan = Delete.of(delete_intent("in/")), plan_of(LOOK)
    assert deleting.difference(delete, LOOK, plan) is None
    item = LOOK.objects[0]
    for other in (
        replace(LOOK, objects=(replace(item, version="v2"),)),
        replace(LOOK, objects=(replace(item, etag="f"),)),
        replace(LOOK, objects=(replace(item, size=2),)),
        replace(LOOK, needs_mfa=True),
        replace(LOOK, expiries=None),
        replace(LOOK, is_locked=None),
        replace(LOOK, is_versioned=False),
    ):
        assert deleting.difference(delete, other, plan)


def test_a_marker_is_ours_by_its_id_or_by_its_time_above_the_planned_version_alone() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ms = int(at.timestamp() * 1000)
    step = deleting.Step(1, LOOK.objects[0], ms, ms + 10_000, None)
    planned, marker = Stand("v1", False, False, at - timedelta(hours=1)), Stand("m1", True, True, at)
    assert deleting.marker_of(step, [marker, planned]) == "m1"
    assert deleting.marker_of(step, [planned]) is None
    assert deleting.marker_of(step, [replace(marker, modified=at - timedelta(minutes=1)), planned]) is None
    assert deleting.marker_of(step, [replace(marker, modified=at + timedelta(minutes=1)), planned]) is None
    assert deleting.marker_of(step, [marker, replace(marker, version="m2", is_latest=False), planned]) is None
    named = replace(step, marker="m2")
    assert deleting.marker_of(named, [marker, planned]) is None
    assert deleting.marker_of(named, [marker, replace(marker, version="m2"), planned]) == "m2"


def test_a_long_list_is_bound_by_digest_and_its_policy_cut_to_the_prefix() -> None:
    objects = tuple(Version(f"in/{number:03}", "v", "e", 1) for number in range(300))
    plan = plan_of(replace(LOOK, objects=objects))
    assert (plan.changes, plan.lists[0].count) == ((), 300)
    assert planning.UNSEEN in plan.summary
    assert len(plan_of(replace(LOOK, objects=objects[:120])).changes) == 120
    assert Plan.from_bytes(plan.to_bytes()) == plan
    policy = sessions.delete_acting_policy(Delete.of(delete_intent("in/")), objects, datetime(2026, 1, 1, tzinfo=UTC))
    assert len(policy) <= MAX_POLICY
    assert '"arn:aws:s3:::finance/in/*"' in policy
    assert policy.count("2026-01-01T00:00:00Z") == 2
    receipt = deleting.receipt(
        Delete.of(delete_intent("in/")), {item: s3_client.Deleted("m", "r") for item in objects}, "Deleted."
    )
    assert (receipt.changes, receipt.lists[0].count, len(receipt.requests)) == ((), 300, 64)


def test_the_manifest_says_what_the_code_does() -> None:
    (found,) = entry_points(group="keyturn.executors", name="s3")
    action = found.load().manifest.actions[1]
    schema = jsonschema_rs.validator_for(action.parameters)
    properties = delete_intent("in/").action.properties
    assert schema.is_valid(properties | {"max_objects": 5})
    for wrong in ({"extra": 1}, {"prefix": "in"}, {"prefix": "a*/"}, {"max_objects": 0}):
        assert not schema.is_valid(properties | wrong)
    kinds = {int: "integer", bool: "boolean", str: "string"}
    measured = plan_of(LOOK).measures
    assert {name: kinds[type(value)] for name, value in measured.items()} == dict(action.measures)
    assert action.timeout < action.lease


async def test_deletions_run_beside_each_other(address: S3Address, buckets: Buckets) -> None:
    made = [await prepared(buckets, f"d-beside-{number}/") for number in range(3)]
    await asyncio.gather(*(executor(address).execute(grant(*each).act) for each in made))
    assert len(await buckets.markers("d-beside-")) == 9
