"""Attaching and detaching against a real IAM and STS: exactly the plan, once, or the truth about what happened."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from executors.aws.client import Account, Aws, Credentials, Provider, RefusedError
from executors.contract import (
    ActFailedError,
    ExecutorError,
    Finding,
    Observation,
    OutcomeUnknownError,
    StaleError,
)
from executors.iam import client, sessions
from executors.iam.parameters import Attachment
from sandbox.aws import AwsAddress
from schemas.records import Intent, JournalEntry, Plan
from tests.executors_iam.world import Iam, allow, document, executor, planned, settings, wish
from tests.executors_s3.acts import Granted, grant, now, until
from tests.executors_s3.cutting import cutting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KINDS = ("role", "user", "group")


@dataclass(frozen=True)
class Case:
    """An identity, a policy, and the plan to attach the one to the other."""

    identity: str
    policy: str
    intent: Intent
    plan: Plan


async def prepared(aws: AwsAddress, iam: Iam, name: str, *, kind: str = "role", verb: str = "attach") -> Case:
    """An identity and a policy of this name, and a plan."""
    identity = await {"role": iam.role, "user": iam.user, "group": iam.group}[kind](name)
    policy = await iam.policy(name, allow("s3:GetObject"))
    if verb == "detach":
        await iam.attach(identity, policy)
    intent = wish(verb, identity, policy)
    return Case(identity, policy, intent, await planned(aws, intent))


async def observed(aws: AwsAddress, case: Case, granted: Granted) -> Observation:
    """What another life of the executor sees."""
    return await executor(aws).observe(case.intent, case.plan, granted.act.grant_digest, granted.entries)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_policy_is_attached_once_and_the_inverse_restores_every_fingerprint(
    aws: AwsAddress, iam: Iam, kind: str
) -> None:
    case = await prepared(aws, iam, f"round-{kind}", kind=kind)
    granted = grant(case.intent, case.plan)

    receipt = await executor(aws).execute(granted.act)

    assert await iam.attached(case.identity) == [case.policy]
    assert [(entry.step, entry.entry) for entry in granted.entries] == [(1, "started"), (1, "done")]
    assert receipt.changes[0].detail["undo"] == "iam.detach_policy"
    assert receipt.requests
    assert receipt.requests[0] == granted.entries[1].detail["request"]
    assert (await observed(aws, case, granted)).finding is Finding.APPLIED

    back = wish("detach", case.identity, case.policy)
    await executor(aws).execute(grant(back, await planned(aws, back)).act)
    assert await iam.attached(case.identity) == []
    assert (await planned(aws, case.intent)).fingerprints == case.plan.fingerprints


async def _attach_another(iam: Iam, case: Case) -> None:
    await iam.attach(case.identity, await iam.policy(f"{case.policy.rpartition('/')[2]}-2", allow("sqs:*")))


async def _write_inline(iam: Iam, case: Case) -> None:
    text = document(allow("sqs:SendMessage"))
    await iam.raw.put_role_policy(RoleName=case.identity.rpartition("/")[2], PolicyName="x", PolicyDocument=text)


async def _change_version(iam: Iam, case: Case) -> None:
    await iam.raw.create_policy_version(PolicyArn=case.policy, PolicyDocument=document(allow("*")))
    await iam.raw.set_default_policy_version(PolicyArn=case.policy, VersionId="v2")


async def _set_boundary(iam: Iam, case: Case) -> None:
    name = case.identity.rpartition("/")[2]
    await iam.raw.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=case.policy)


async def _trust_all(iam: Iam, case: Case) -> None:
    everybody = document({"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"})
    name = case.identity.rpartition("/")[2]
    await iam.raw.update_assume_role_policy(RoleName=name, PolicyDocument=everybody)


async def _make_again(iam: Iam, case: Case) -> None:
    name = case.identity.rpartition("/")[2]
    await iam.raw.delete_role(RoleName=name)
    await iam.role(name)


async def _delete(iam: Iam, case: Case) -> None:
    await iam.raw.delete_role(RoleName=case.identity.rpartition("/")[2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_attach_another, "other policies are attached to it"),
        (_write_inline, "its policies say something else"),
        (_change_version, r"has another default version or text \(v2\)"),
        (_set_boundary, "its permissions boundary is another"),
        (_trust_all, "others can use it"),
        (_make_again, "another identity of the same name"),
        (_delete, "is not there"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_whatever_changed_since_the_plan_makes_it_stale_and_nothing_is_done(
    aws: AwsAddress, iam: Iam, change: Callable[[Iam, Case], Awaitable[None]], reason: str
) -> None:
    case = await prepared(aws, iam, f"drift-{change.__name__.strip('_').replace('_', '-')}")
    await change(iam, case)
    granted = grant(case.intent, case.plan)
    with pytest.raises(StaleError, match=reason):
        await executor(aws).execute(granted.act)
    assert granted.entries == ()
    if change is not _delete:
        assert case.policy not in await iam.attached(case.identity)


@pytest.mark.parametrize("verb", ["attach", "detach"])
async def test_a_lost_answer_is_observed_and_the_call_never_repeated(aws: AwsAddress, iam: Iam, verb: str) -> None:
    case = await prepared(aws, iam, f"lost-{verb}", verb=verb)
    granted = grant(case.intent, case.plan)
    call = f"Action={verb.capitalize()}RolePolicy&".encode()
    async with cutting(aws.endpoint, b"POST / ", after=1, inside=call) as cut:
        with pytest.raises(OutcomeUnknownError, match="whether it took effect is not known"):
            await executor(aws, endpoint=cut.endpoint).execute(granted.act)
        assert cut.matched == 1
    assert [entry.entry for entry in granted.entries] == ["started"]
    assert await iam.attached(case.identity) == ([case.policy] if verb == "attach" else [])
    seen = await observed(aws, case, granted)
    assert (seen.finding, "foreign" in seen.reason) == (Finding.APPLIED, False)
    assert seen.receipt is not None
    assert seen.receipt.changes[0].detail["policy"] == case.policy


async def test_a_policy_that_got_another_version_after_a_lost_answer_is_told_as_foreign(
    aws: AwsAddress, iam: Iam
) -> None:
    case = await prepared(aws, iam, "lost-version")
    granted = grant(case.intent, case.plan)
    async with cutting(aws.endpoint, b"POST / ", after=1, inside=b"Action=AttachRolePolicy&") as cut:
        with pytest.raises(OutcomeUnknownError):
            await executor(aws, endpoint=cut.endpoint).execute(granted.act)
    await _change_version(iam, case)
    await _attach_another(iam, case)
    seen = await observed(aws, case, granted)
    assert seen.finding is Finding.APPLIED
    assert "another default version or text than the one approved" in seen.reason
    assert "other policies were attached or detached" in seen.reason


async def test_the_session_attaches_nothing_but_the_planned_policy_to_the_planned_identity(
    aws: AwsAddress, iam: Iam
) -> None:
    case = await prepared(aws, iam, "cut")
    other, more = await iam.role("cut-stranger"), await iam.policy("cut-more", allow("*"))
    wanted = Attachment.of(case.intent)
    own = aws.executors["iam"]
    base = Credentials(own.keys.access_key, own.keys.secret_key)
    account = Aws(Account(Provider(aws.region, aws.endpoint), base))

    async def refused(attempt: Attachment, policy: str) -> str:
        session = await account.assume_role(own.act_role, "reporter.x", policy, 900)
        async with client.iam(account, session) as acting:
            with pytest.raises(RefusedError) as no:
                await acting.change(attempt)
        return no.value.code

    exact = sessions.acting_policy(wanted, datetime.now(UTC) + timedelta(minutes=1))
    for attempt in (
        Attachment.of(wish("attach", case.identity, more)),
        Attachment.of(wish("attach", other, case.policy)),
        Attachment.of(wish("detach", case.identity, case.policy)),
    ):
        assert await refused(attempt, exact) == "AccessDenied"
    dead = sessions.acting_policy(wanted, datetime.now(UTC) - timedelta(seconds=1))
    assert await refused(wanted, dead) == "AccessDenied"


async def test_what_the_role_may_not_do_fails_for_certain_and_nothing_is_done(aws: AwsAddress, iam: Iam) -> None:
    case = await prepared(aws, iam, "denied")
    role = aws.executors["iam"].act_role.rpartition("/")[2]
    # Nobody may hand out this policy, not even this executor.
    fence = document({"Effect": "Deny", "Action": "iam:Attach*", "Resource": case.identity})
    await iam.raw.put_role_policy(RoleName=role, PolicyName="fence", PolicyDocument=fence)
    granted = grant(case.intent, case.plan)
    try:
        with pytest.raises(ActFailedError, match=r"AttachRolePolicy was refused: AccessDenied.*nothing was done"):
            await executor(aws).execute(granted.act)
    finally:
        await iam.raw.delete_role_policy(RoleName=role, PolicyName="fence")
    assert await iam.attached(case.identity) == []
    assert (await observed(aws, case, granted)).finding is Finding.NOT_APPLIED


async def test_the_eleventh_policy_is_refused_for_certain(aws: AwsAddress, iam: Iam) -> None:
    case = await prepared(aws, iam, "full")
    for number in range(10):
        await iam.attach(case.identity, await iam.policy(f"full-{number}", allow("s3:GetObject")))
    plan = await planned(aws, case.intent)
    with pytest.raises(ActFailedError, match="LimitExceeded"):
        await executor(aws).execute(grant(case.intent, plan).act)


async def test_what_was_detached_in_the_last_moment_is_done(aws: AwsAddress, iam: Iam) -> None:
    case = await prepared(aws, iam, "gone-meanwhile", verb="detach")

    async def detach_first(entry: JournalEntry) -> None:
        if entry.entry == "started":
            await iam.attach(case.identity, case.policy, "detach")

    receipt = await executor(aws).execute(grant(case.intent, case.plan, after=detach_first).act)
    assert "was detached already when the call was made" in receipt.summary
    assert await iam.attached(case.identity) == []


@pytest.mark.parametrize(
    ("hangs_in", "is_attached", "finding"), [("started", False, Finding.NOT_APPLIED), ("done", True, Finding.APPLIED)]
)
async def test_killed_before_or_after_the_call_the_next_life_sees_what_happened(
    aws: AwsAddress, iam: Iam, tmp_path: Path, hangs_in: str, is_attached: bool, finding: Finding
) -> None:
    case = await prepared(aws, iam, f"killed-{hangs_in}")
    written = tmp_path / "journal"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.executors_iam.victim", json.dumps(settings(aws))),
        *(case.intent.to_bytes().decode(), case.plan.to_bytes().decode(), hangs_in, str(written)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"hanging\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    entries = tuple(JournalEntry.from_bytes(line) for line in written.read_bytes().splitlines())
    assert (await iam.attached(case.identity) == [case.policy]) is is_attached
    seen = await executor(aws).observe(case.intent, case.plan, entries[0].grant, entries)
    assert seen.finding is finding


async def test_an_attachment_of_somebody_elses_is_not_taken_for_ours(aws: AwsAddress, iam: Iam) -> None:
    case = await prepared(aws, iam, "foreign")
    granted = grant(case.intent, case.plan)
    await iam.attach(case.identity, case.policy)
    never_called = await observed(aws, case, granted)
    assert (never_called.finding, never_called.receipt) == (Finding.CONFLICT, None)
    assert "somebody else did it" in never_called.reason

    await iam.attach(case.identity, case.policy, "detach")
    granted = grant(case.intent, case.plan)
    await executor(aws).execute(granted.act)
    await iam.attach(case.identity, case.policy, "detach")
    assert "changed it back" in (await observed(aws, case, granted)).reason
    await _make_again(iam, case)
    assert "made again under the same name" in (await observed(aws, case, granted)).reason
    await _delete(iam, case)
    seen = await observed(aws, case, granted)
    assert (seen.finding, "is gone" in seen.reason) == (Finding.CONFLICT, True)


async def test_past_its_deadline_the_provider_refuses_though_the_executors_clock_is_slow(
    aws: AwsAddress, iam: Iam
) -> None:
    case = await prepared(aws, iam, "slow-clock")

    async def wait(_entry: JournalEntry) -> None:
        await until(granted.act.deadline.credential_dies_at)

    granted = grant(case.intent, case.plan, seconds=8, after=wait)
    slow = executor(aws, clock=lambda: now() - 60_000)
    with pytest.raises(ActFailedError, match="AccessDenied"):
        await slow.execute(granted.act)
    with pytest.raises(ActFailedError, match="nothing was done"):
        await executor(aws).execute(grant(case.intent, case.plan, seconds=-1).act)
    assert await iam.attached(case.identity) == []


async def test_what_cannot_be_read_is_unknown(aws: AwsAddress, iam: Iam) -> None:
    case = await prepared(aws, iam, "unreadable")
    granted = grant(case.intent, case.plan)
    away = executor(aws, endpoint="http://127.0.0.1:9")
    seen = await away.observe(case.intent, case.plan, granted.act.grant_digest, ())
    assert seen.finding is Finding.UNKNOWN
    with pytest.raises(ExecutorError, match="IAM cannot be read"):
        await away.execute(granted.act)
    assert granted.entries == ()
