"""An agent asks for rights, people say yes, and a role has them: on a real Kafka, a real IAM, every role a process."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from sandbox import story
from schemas.records import Intent, Phase, Plan, Refusal, Verdict
from tests.executors_iam.world import Iam, allow, document
from tests.flow.stage import Stage, names
from tests.sandbox_s3.clients import client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

READ = "acme-read-exports"
RUN_ANYTHING = "acme-run-anything"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def iam(stage: Stage) -> AsyncIterator[Iam]:
    """IAM as its administrator sees it."""
    assert stage.world.aws is not None
    async with client("iam", stage.world.aws, stage.world.aws.admin) as raw:
        yield Iam(raw, stage.world.aws.account)


def wish(stage: Stage, iam: Iam, verb: str, policy: str) -> Intent:
    """What the agent wants of the reports' role."""
    properties = story.attachment(iam.account, policy)
    resource = ("role", str(properties["identity"]))
    return stage.agent.intent(f"iam.{verb}_policy", resource, properties, "the nightly report needs it", 600)


async def asked(stage: Stage, intent: Intent) -> str:
    """Submit it, and wait for its question."""
    await stage.agent.submit(intent)
    await stage.agent.until(intent.id, Phase.PENDING)
    return intent.id


async def attached(iam: Iam) -> list[str]:
    """The names of what the reports' role has."""
    return [arn.rpartition("/")[2] for arn in await iam.attached(f"arn:aws:iam::{iam.account}:role/{story.ROLE}")]


async def test_rights_are_asked_for_approved_given_and_taken_back(stage: Stage, iam: Iam) -> None:
    intent = await asked(stage, wish(stage, iam, "attach", READ))
    view = await stage.view("dee", intent, Phase.PENDING)
    card = view.model_dump_json()
    assert "s3:GetObject, s3:ListBucket" in card
    assert f"Service {story.TRUSTED}" in card
    assert await attached(iam) == []

    assert await stage.says("ana", intent, Verdict.APPROVE) is Refusal.SELF_APPROVAL
    assert await stage.says("dee", intent, Verdict.APPROVE) is None
    await stage.agent.until(intent, Phase.SUCCEEDED)

    assert await attached(iam) == [READ]
    assert names(await stage.events(intent)) == [
        "intent.classified",
        "plan.reported",
        "decision.recorded",
        "claim.granted",
        "outcome.reported",
    ]

    back = await asked(stage, wish(stage, iam, "detach", READ))
    assert await stage.says("dee", back, Verdict.APPROVE) is None
    await stage.agent.until(back, Phase.SUCCEEDED)
    assert await attached(iam) == []


async def test_ways_to_more_rights_need_another_seat_once_the_plan_has_found_them(stage: Stage, iam: Iam) -> None:
    intent = await asked(stage, wish(stage, iam, "attach", RUN_ANYTHING))
    view = (await stage.view("dee", intent, Phase.PENDING)).model_dump_json()
    assert "WAYS TO MORE RIGHTS: iam:PassRole" in view

    assert await stage.says("dee", intent, Verdict.APPROVE) is None
    row = await stage.row(intent)
    assert (row.phase, [vote.person for vote in row.votes]) == (Phase.PENDING, ["dee"])
    assert await stage.says("eli", intent, Verdict.DENY, "too much") is None
    await stage.agent.until(intent, Phase.DENIED)
    assert await attached(iam) == []


async def test_a_policy_written_anew_after_the_question_voids_every_yes(stage: Stage, iam: Iam) -> None:
    policy = await iam.policy("acme-changing", allow("s3:GetObject", f"arn:aws:s3:::{story.EXPORTS}/*"))
    intent = await asked(stage, wish(stage, iam, "attach", "acme-changing"))
    first = await stage.row(intent)
    await iam.raw.create_policy_version(PolicyArn=policy, PolicyDocument=document(allow("s3:*")), SetAsDefault=True)

    assert await stage.says("dee", intent, Verdict.APPROVE) is None
    await stage.until_trail(intent, lambda trail: [each.event for each in trail].count("plan.reported") == 2)

    second = await stage.row(intent)
    assert (second.phase, second.votes) == (Phase.PENDING, ())
    assert second.question != first.question
    assert second.plan is not None
    assert int(second.plan.read(Plan).measures["actions"]) > 100
    assert await attached(iam) == []
    await stage.agent.withdraw(intent)
    await stage.agent.until(intent, Phase.WITHDRAWN)


@pytest.fixture(params=["executor-iam", "executor-s3"])
def held(request: pytest.FixtureRequest, stage: Stage) -> Iterator[str]:
    """An executor that hangs: its process is stopped, its connections stay."""
    name: str = request.param
    pid = stage.roles.child(name).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield name
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_an_executor_that_hangs_holds_up_no_other(stage: Stage, iam: Iam, held: str) -> None:
    shelf = await stage.shelf()
    export, rights = stage.intent(shelf), wish(stage, iam, "attach", READ)
    waits, goes = (rights, export) if held == "executor-iam" else (export, rights)
    # The one that must wait is first in the same partition: one agent's intents meet in one.
    await stage.agent.submit(waits)
    await asked(stage, goes)
    assert await stage.says("cho" if goes is export else "dee", goes.id, Verdict.APPROVE) is None
    await stage.agent.until(goes.id, Phase.SUCCEEDED)
    if goes is export:
        await stage.assert_exported_once(shelf)
    else:
        assert await attached(iam) == [READ]

    waiting = await stage.agent.status(waits.id)
    assert waiting is not None
    assert waiting.phase is Phase.PLANNING
    pid = stage.roles.child(held).pid
    assert pid is not None
    os.kill(pid, signal.SIGCONT)
    await stage.agent.until(waits.id, Phase.PENDING)
    assert await stage.says("dee" if waits is rights else "cho", waits.id, Verdict.APPROVE) is None
    await stage.agent.until(waits.id, Phase.SUCCEEDED)
    assert stage.roles.child(held).deaths == 0
    if waits is rights:
        await iam.attach(
            f"arn:aws:iam::{iam.account}:role/{story.ROLE}", str(rights.action.properties["policy"]), "detach"
        )
