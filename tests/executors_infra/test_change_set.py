"""Changing stacks on a CloudFormation that enforces IAM: exactly the change set that was shown, once, or the truth."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from executors.aws.client import RefusedError
from executors.aws.sessions import MAX_POLICY, session_name, whole_seconds
from executors.contract import (
    ActFailedError,
    ExecutorError,
    Finding,
    OutcomeUnknownError,
    StaleError,
    TargetMissingError,
)
from executors.infra import client as infra_client
from executors.infra import planning, sessions
from executors.infra.client import ChangeSet
from executors.infra.parameters import Named, Wish, execution_token
from sandbox.aws import AwsAddress
from schemas.records import Intent, JournalEntry, Plan, Reversibility
from tests.executors_infra.acts import (
    FAILING,
    World,
    change_intent,
    executor,
    planned,
    planning_round,
    queue,
    settings_of,
    table,
    template,
    topic,
)
from tests.executors_s3.acts import grant, now
from tests.executors_s3.cutting import cutting
from tests.sandbox_s3.clients import client

HOUR_MS = 3600 * 1000


async def prepared(address: AwsAddress, world: World, stack: str) -> tuple[Intent, Plan]:
    """A stack with one queue, and the plan to make it wait longer and add a topic."""
    await world.bring(stack, template(Q=queue(stack)))
    intent = change_intent(stack, template(Q=queue(stack, VisibilityTimeout=60), N=topic(stack)))
    return intent, await planned(address, intent)


def change_set_of(plan: Plan) -> ChangeSet:
    """The change set of a plan, as far as a session policy names it."""
    arn = planning.change_set_of(plan)
    name = arn.split("/")[1]
    return ChangeSet(arn, name, planning.stack_of(plan), "", "CREATE_COMPLETE", "", "AVAILABLE", {}, (), ())


async def test_a_plan_shows_what_is_created_changed_replaced_and_destroyed(address: AwsAddress, world: World) -> None:
    kept = table("kept", DeletionPolicy="Retain")
    await world.bring("shown", template(Q=queue("shown"), T=table("shown"), N=topic("shown"), K=kept))
    await world.call("update_termination_protection", StackName="shown", EnableTerminationProtection=True)
    await world.call("detect_stack_drift", StackName="shown")
    before, tokens = await world.resources("shown"), await world.tokens("shown")

    after = template(Q=queue("shown", VisibilityTimeout=60), T=table("other"), P=topic("new"))
    plan = await planned(address, change_intent("shown", after))

    changes = {change.target: change for change in plan.changes}
    assert {target: change.verb for target, change in changes.items()} == {
        "shown/P": "create",
        "shown/Q": "update",
        "shown/T": "replace",
        "shown/N": "delete",
        "shown/K": "delete",
    }
    changed = changes["shown/Q"].detail
    assert (changed["changed"], changed["before"], changed["after"]) == (
        "VisibilityTimeout",
        "{}",
        '{"VisibilityTimeout":60}',
    )
    lost = changes["shown/T"].detail
    assert (lost["replacement"], lost["policy_action"], lost["loses_state"]) == ("True", "ReplaceAndDelete", True)
    assert (lost["before"], lost["after"]) == ('{"TableName":"shown"}', '{"TableName":"other"}')
    assert changes["shown/K"].detail["policy_action"] == "Retain"
    assert "loses_state" not in changes["shown/K"].detail
    assert plan.measures == {
        "creates": 1,
        "updates": 1,
        "replaces": 1,
        "destroys": 2,
        "stateful_losses": 1,
        "iam_changes": 0,
        # All but the queue.
        "not_ordinary": 4,
        "late_values": 0,
        "is_new_stack": False,
        "termination_protection": True,
        "drift": "in_sync",
    }
    assert plan.reversibility is Reversibility.NONE
    assert "WHAT THESE HOLD IS LOST: T." in plan.summary
    assert "Termination protection is on." in plan.summary
    assert plan.fingerprints[0].target.startswith("arn:aws:cloudformation:us-east-1:000000000000:changeSet/keyturn-")
    assert Plan.from_bytes(plan.to_bytes()) == plan
    # Nothing happened to the stack by planning.
    assert (await world.resources("shown"), await world.tokens("shown")) == (before, tokens)


async def test_a_new_stack_is_created_once_by_its_arn_and_a_second_run_is_refused(
    address: AwsAddress, world: World
) -> None:
    intent = change_intent("fresh", template(Q=queue("fresh"), N=topic("fresh")))
    plan = await planned(address, intent)
    assert (plan.measures["is_new_stack"], plan.measures["creates"]) == (True, 2)
    assert await world.status("fresh") == "REVIEW_IN_PROGRESS"

    granted = grant(intent, plan)
    receipt = await executor(address).execute(granted.act)

    token = execution_token(granted.act.grant_digest)
    assert (await world.status("fresh"), await world.tokens("fresh")) == ("CREATE_COMPLETE", {token})
    assert [(change.target, change.verb, change.detail["status"]) for change in receipt.changes] == [
        ("fresh/N", "create", "CREATE_COMPLETE"),
        ("fresh/Q", "create", "CREATE_COMPLETE"),
    ]
    assert receipt.measures == {"resources": 2}
    assert [(entry.step, entry.entry) for entry in granted.entries] == [(1, "started"), (1, "done")]
    assert granted.entries[0].detail["token"] == token

    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, seen.receipt and seen.receipt.changes) == (Finding.APPLIED, receipt.changes)

    again = grant(intent, plan, seconds=61)
    with pytest.raises(StaleError, match="EXECUTE_COMPLETE"):
        await executor(address).execute(again.act)
    assert again.entries == ()
    assert await world.tokens("fresh") == {token}
    seen = await executor(address).observe(intent, plan, again.act.grant_digest, ())
    assert seen.finding is Finding.CONFLICT


async def test_an_update_keeps_what_undoing_it_needs_in_the_journal(address: AwsAddress, world: World) -> None:
    intent, plan = await prepared(address, world, "kept")
    assert (plan.reversibility, plan.measures["updates"]) == (Reversibility.COMPENSATING, 1)
    granted = grant(intent, plan)
    await executor(address).execute(granted.act)
    assert await world.status("kept") == "UPDATE_COMPLETE"
    previous = str(granted.entries[0].detail["previous_template"])
    assert previous == template(Q=queue("kept"))
    assert hashlib.sha256(previous.encode()).hexdigest() in plan.undo
    # The recipe: a new intent with that template. It brings the stack to where it was.
    back = change_intent("kept", previous, number=1)
    await executor(address).execute(grant(back, await planned(address, back)).act)
    found = await world.call("get_template", StackName="kept")
    assert json.dumps(found["TemplateBody"]) == previous
    assert (await world.resources("kept")).keys() == {"Q"}


async def test_planning_again_makes_another_change_set_and_a_new_round_takes_the_old_ones_away(
    address: AwsAddress, world: World
) -> None:
    intent, plan = await prepared(address, world, "again")
    repeated = await planned(address, intent)
    assert repeated.fingerprints[0].target != plan.fingerprints[0].target
    assert repeated.changes == plan.changes
    # The first may be the one that people are asked about: it stays.
    assert len(await world.change_sets("again")) == 2

    second = await planned(address, intent, 2)
    assert list(await world.change_sets("again")) == [change_set_of(second).name]


async def test_a_change_set_whose_answer_was_lost_is_never_taken_for_ours(address: AwsAddress, world: World) -> None:
    await world.bring("twice", template(Q=queue("twice")))
    intent = change_intent("twice", template(Q=queue("twice"), N=topic("twice")))
    # Session, stack, list, session; the fifth call is the one that makes it.
    async with cutting(address.endpoint, b"POST /", after=5) as cut:
        with pytest.raises(ExecutorError, match="cannot be asked"):
            await executor(address, endpoint=cut.endpoint).plan(intent, planning_round(intent), now())
    (lost,) = await world.change_sets("twice")
    plan = await planned(address, intent)
    assert (await world.change_sets("twice")).keys() == {lost, change_set_of(plan).name}
    assert change_set_of(plan).name != lost
    await executor(address).tidy(now() + 4 * HOUR_MS)
    assert await world.change_sets("twice") == {}


async def test_another_change_set_executed_meanwhile_voids_the_plan(address: AwsAddress, world: World) -> None:
    intent, plan = await prepared(address, world, "voided")
    other = change_intent("voided", template(Q=queue("voided", VisibilityTimeout=90)), number=1)
    first = grant(other, await planned(address, other))
    await executor(address).execute(first.act)
    granted = grant(intent, plan)
    with pytest.raises(StaleError, match="the change set is gone"):
        await executor(address).execute(granted.act)
    assert granted.entries == ()
    assert execution_token(granted.act.grant_digest) not in await world.tokens("voided")


async def test_a_stack_changed_past_keyturn_voids_the_plan(address: AwsAddress, world: World) -> None:
    intent, plan = await prepared(address, world, "past")
    await world.bring("past", template(Q=queue("past", VisibilityTimeout=33)))
    with pytest.raises(StaleError, match=r"is not as it was planned|is gone"):
        await executor(address).execute(grant(intent, plan).act)
    assert (await world.resources("past")).keys() == {"Q"}


async def test_a_creation_that_fails_is_rolled_back_and_failed_with_the_reason(
    address: AwsAddress, world: World
) -> None:
    body = template(Q=queue("failing"), P={**FAILING, "DependsOn": "Q"})
    intent = change_intent("failing", body, capabilities=("CAPABILITY_IAM",))
    plan = await planned(address, intent)
    assert plan.measures["iam_changes"] == 1
    assert "CAPABILITY_IAM" in plan.summary
    granted = grant(intent, plan)
    with pytest.raises(ActFailedError, match="rolled back, ROLLBACK_COMPLETE: P: The role with name") as failed:
        await executor(address).execute(granted.act)
    assert failed.value.receipt is None
    assert await world.status("failing") == "ROLLBACK_COMPLETE"
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, seen.reason[:11]) == (Finding.NOT_APPLIED, "rolled back")
    with pytest.raises(TargetMissingError, match="ROLLBACK_COMPLETE: it can't be changed"):
        await planned(address, change_intent("failing", body, number=1))


async def test_an_update_that_fails_leaves_the_stack_as_it_was(address: AwsAddress, world: World) -> None:
    await world.bring("unhurt", template(Q=queue("unhurt")))
    body = template(Q=queue("unhurt", VisibilityTimeout=60), P={**FAILING, "DependsOn": "Q"})
    intent = change_intent("unhurt", body, capabilities=("CAPABILITY_IAM",))
    with pytest.raises(ActFailedError, match="rolled back, UPDATE_ROLLBACK_COMPLETE: P: "):
        await executor(address).execute(grant(intent, await planned(address, intent)).act)
    found = await world.call("get_template", StackName="unhurt")
    assert json.dumps(found["TemplateBody"]) == template(Q=queue("unhurt"))


async def test_an_execution_whose_answer_is_lost_is_sent_once_left_open_and_observed(
    address: AwsAddress, world: World
) -> None:
    intent, plan = await prepared(address, world, "lost")

    async with cutting(address.endpoint, b"POST /", after=10_000) as cut:

        async def cut_off(entry: JournalEntry) -> None:
            assert entry.entry == "started"
            # From here on answers are lost: the next request is the execution.
            cut.after = cut.matched + 1

        granted = grant(intent, plan, after=cut_off)
        with pytest.raises(OutcomeUnknownError, match="whether the change set is being executed is not known"):
            await executor(address, endpoint=cut.endpoint).execute(granted.act)
        assert cut.matched == cut.after
    assert [entry.entry for entry in granted.entries] == ["started"]
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert seen.finding is Finding.APPLIED
    assert execution_token(granted.act.grant_digest) in await world.tokens("lost")


@pytest.mark.parametrize(("hangs_in", "finding"), [("started", Finding.NOT_APPLIED), ("done", Finding.APPLIED)])
async def test_killed_around_the_call_the_observation_says_whether_it_was_made(
    address: AwsAddress, world: World, tmp_path: Path, hangs_in: str, finding: Finding
) -> None:
    intent, plan = await prepared(address, world, f"killed-{hangs_in}")
    written = tmp_path / "journal"
    await _killed(address, intent, plan, hangs_in, written)
    entries = tuple(JournalEntry.from_bytes(line) for line in written.read_bytes().splitlines())
    assert (entries[-1].step, entries[-1].entry) == (1, hangs_in)

    seen = await executor(address).observe(intent, plan, entries[0].grant, entries)

    assert seen.finding is finding
    is_made = execution_token(entries[0].grant) in await world.tokens(f"killed-{hangs_in}")
    assert is_made is (finding is Finding.APPLIED)


async def _killed(address: AwsAddress, intent: Intent, plan: Plan, hangs_in: str, written: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.executors_infra.victim",
        json.dumps(settings_of(address)),
        intent.to_bytes().decode(),
        plan.to_bytes().decode(),
        hangs_in,
        str(written),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"hanging\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()


async def test_somebody_who_executes_our_change_set_first_is_not_us(address: AwsAddress, world: World) -> None:
    intent, plan = await prepared(address, world, "theirs")

    async def step_in(entry: JournalEntry) -> None:
        if entry.entry == "started":
            arn = planning.change_set_of(plan)
            await world.call("execute_change_set", ChangeSetName=arn, ClientRequestToken="theirs")
            await world.settled("theirs")

    granted = grant(intent, plan, after=step_in)
    with pytest.raises(ActFailedError, match="InvalidChangeSetStatus"):
        await executor(address).execute(granted.act)
    seen = await executor(address).observe(intent, plan, granted.act.grant_digest, granted.entries)
    assert (seen.finding, "somebody executed it" in seen.reason) == (Finding.CONFLICT, True)


async def test_each_credential_can_do_its_own_part_and_no_other(address: AwsAddress, world: World) -> None:
    intent, plan = await prepared(address, world, "parts")
    other = change_intent("parts", template(Q=queue("parts", VisibilityTimeout=5)), number=1)
    theirs = planning.change_set_of(await planned(address, other))
    mine, stack_id = planning.change_set_of(plan), planning.stack_of(plan)
    subject = executor(address)
    own, ground, wish = address.executors["infra"], subject._ground, Wish.of(intent)
    named = Named.of(intent, planning_round(intent, 5), b"c" * 16)
    living, dead = (sessions.acting_policy(change_set_of(plan), whole_seconds(now() + ms)) for ms in (60_000, -60_000))
    policies = {
        "reads": (own.read_role, sessions.reading_policy(ground, "parts")),
        "proposes": (own.plan_role, sessions.proposing_policy(ground, "parts", named, None, None)),
        "tidies": (own.plan_role, sessions.tidying_policy(ground, "parts")),
        "acts": (own.act_role, living),
        "dead": (own.act_role, dead),
    }
    created = {"StackName": "parts", "TemplateBody": wish.body}
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "describe mine": ("describe_change_set", {"ChangeSetName": mine, "StackName": stack_id}),
        "describe theirs": ("describe_change_set", {"ChangeSetName": theirs, "StackName": stack_id}),
        "execute theirs": ("execute_change_set", {"ChangeSetName": theirs, "StackName": stack_id}),
        "delete stack": ("delete_stack", {"StackName": "parts"}),
        "update stack": ("update_stack", created),
        "other stack": ("describe_stacks", {"StackName": "elsewhere"}),
        "other name": ("create_change_set", {**created, "ChangeSetName": "mine"}),
        "own name": ("create_change_set", {**created, "ChangeSetName": named.name}),
    }
    allowed: dict[str, set[str]] = {}
    for who, (role, policy) in policies.items():
        assert role is not None
        assert len(policy) <= MAX_POLICY
        minted = await subject._aws.assume_role(role, session_name(intent.id), policy, 900)
        async with subject._aws.client("cloudformation", minted, read_timeout=10) as raw:
            allowed[who] = {name for name, call in calls.items() if await _may(raw, *call)}
    assert allowed == {
        "reads": {"describe mine", "describe theirs"},
        "proposes": {"own name"},
        "tidies": set(),
        "acts": {"describe mine"},
        "dead": set(),
    }


async def _may(raw: Any, name: str, given: dict[str, Any]) -> bool:
    try:
        await getattr(raw, name)(**given)
    except Exception as no:
        if "AccessDenied" in str(no):
            return False
        raise
    return True


async def test_past_its_instant_the_provider_itself_refuses_the_session(address: AwsAddress, world: World) -> None:
    _, plan = await prepared(address, world, "over")
    subject, made = executor(address), change_set_of(plan)
    policy = sessions.acting_policy(made, whole_seconds(now() - 1000))
    minted = await subject._aws.assume_role(address.executors["infra"].act_role, "test", policy, 900)
    async with infra_client.stacks(subject._aws, minted) as stacks:
        with pytest.raises(RefusedError, match="AccessDenied"):
            await stacks.execute(made, "token")
    assert "token" not in await world.tokens("over")


async def test_what_planning_left_is_taken_away_once_its_intent_is_over_and_nothing_else(
    address: AwsAddress, world: World
) -> None:
    _, plan = await prepared(address, world, "tidied")
    mine = change_set_of(plan).name
    body = template(Q=queue("tidied", VisibilityTimeout=7))
    await world.call("create_change_set", StackName="tidied", ChangeSetName="keyturn-but-not-ours", TemplateBody=body)
    # The intent lives for an hour; whoever was granted it in the last moment may act for another.
    await executor(address).tidy(now() + 2 * HOUR_MS)
    assert (await world.change_sets("tidied")).keys() == {mine, "keyturn-but-not-ours"}
    await executor(address).tidy(now() + 4 * HOUR_MS)
    assert (await world.change_sets("tidied")).keys() == {"keyturn-but-not-ours"}


@pytest.mark.parametrize(
    ("body", "more", "why"),
    [
        (template(Q=queue("refused")), {}, "nothing would change"),
        ('{"Resources": [', {}, "CloudFormation refuses"),
        (template(Q=queue("refused"), P=FAILING), {}, "CAPABILITY"),
        (template(S={"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "x"}}), {}, "nested stack"),
    ],
)
async def test_what_the_provider_will_not_make_a_change_set_of_leaves_no_plan_and_no_change_set(
    address: AwsAddress, world: World, body: str, more: dict[str, tuple[str, ...]], why: str
) -> None:
    if "refused" not in await world.stacks():
        await world.bring("refused", template(Q=queue("refused")))
    with pytest.raises(TargetMissingError, match=why):
        await planned(address, change_intent("refused", body, **more))
    assert await world.change_sets("refused") == {}


async def test_a_change_set_that_somebody_prepared_under_our_name_is_never_adopted(
    address: AwsAddress, world: World
) -> None:
    await world.bring("squatted", template(Q=queue("squatted")))
    body = template(Q=queue("squatted"), N=topic("harmless"))
    intent = change_intent("squatted", body)
    chance = b"foreseen" * 2
    named = Named.of(intent, planning_round(intent), chance)
    # The same template, name, description and token: only what a template's digest does not tell is another.
    await world.call(
        "create_change_set",
        StackName="squatted",
        ChangeSetName=named.name,
        TemplateBody=body,
        Description=named.description,
        RoleARN="arn:aws:iam::000000000000:role/theirs",
    )
    with pytest.raises(TargetMissingError, match="AlreadyExists"):
        await executor(address, chance=lambda: chance).plan(intent, planning_round(intent), now())
    # Under a name that cannot be foreseen nobody is in the way.
    plan = await planned(address, intent)
    assert change_set_of(plan).name != named.name


async def test_a_change_set_made_again_under_the_same_name_after_the_yes_is_stale(
    address: AwsAddress, world: World
) -> None:
    intent, plan = await prepared(address, world, "swapped")
    ours = change_set_of(plan)
    await world.call("delete_change_set", StackName="swapped", ChangeSetName=ours.name)
    body = template(Q=queue("swapped", VisibilityTimeout=60), N=topic("swapped"))
    await world.call("create_change_set", StackName="swapped", ChangeSetName=ours.name, TemplateBody=body)
    granted = grant(intent, plan)
    with pytest.raises(StaleError):
        await executor(address).execute(granted.act)
    assert granted.entries == ()
    assert execution_token(granted.act.grant_digest) not in await world.tokens("swapped")


async def test_a_template_in_a_bucket_is_taken_by_its_digest_alone(address: AwsAddress, world: World) -> None:
    body = template(**{f"N{number}": topic(f"bucket-{number}") for number in range(100)})
    async with client("s3", address, address.admin) as s3:
        await s3.create_bucket(Bucket="templates")
        await s3.put_object(Bucket="templates", Key="big.json", Body=body.encode())
    url = f"{address.endpoint}/templates/big.json"
    digest = hashlib.sha256(body.encode()).hexdigest()
    with pytest.raises(TargetMissingError, match="what lies at template_url is another"):
        await planned(address, change_intent("bucket", None, template_url=url, template_sha256="0" * 64))
    assert await world.change_sets("bucket") == {}
    intent = change_intent("bucket", None, template_url=url, template_sha256=digest)
    plan = await planned(address, intent)
    assert (len(plan.changes), plan.lists[0].count, plan.measures["creates"]) == (100, 100, 100)
    assert len(plan.to_bytes()) <= Plan.MAX_BYTES
    receipt = await executor(address).execute(grant(intent, plan).act)
    assert (receipt.changes, receipt.lists[0].count) == ((), 100)


async def test_what_cannot_be_read_is_unknown(address: AwsAddress, world: World, unused_tcp_port: int) -> None:
    intent, plan = await prepared(address, world, "away")
    nobody = executor(address, endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    seen = await nobody.observe(intent, plan, "0" * 64, ())
    assert seen.finding is Finding.UNKNOWN
    with pytest.raises(TargetMissingError, match="refuses: NotSent"):
        await nobody.plan(intent, planning_round(intent), 0)


async def test_a_deadline_that_has_passed_leaves_everything_as_it_is(address: AwsAddress, world: World) -> None:
    intent, plan = await prepared(address, world, "late")
    granted = grant(intent, plan, seconds=-1)
    with pytest.raises(ActFailedError, match="nothing was done"):
        await executor(address).execute(granted.act)
    assert granted.entries == ()
    assert (await world.resources("late")).keys() == {"Q"}


async def test_no_secret_reaches_the_plan_the_journal_or_the_receipt(address: AwsAddress, world: World) -> None:
    def body(value: str) -> str:
        return json.dumps(
            {
                "Parameters": {"Password": {"Type": "String", "NoEcho": True}},
                "Resources": {"P": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}}},
            }
        )

    password = [{"ParameterKey": "Password", "ParameterValue": "hunter2"}]
    await world.call("create_stack", StackName="secret", TemplateBody=body("x"), Parameters=password)
    await world.settled("secret")
    intent = change_intent("secret", body("y"), keep_parameters=("Password",))
    plan = await planned(address, intent)
    granted = grant(intent, plan)
    receipt = await executor(address).execute(granted.act)
    told = plan.to_bytes().decode() + repr(receipt) + "".join(each.to_bytes().decode() for each in granted.entries)
    for secret in ("hunter2", address.executors["infra"].keys.secret_key, "ASIA"):
        assert secret not in told
