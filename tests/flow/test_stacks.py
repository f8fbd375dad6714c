"""An agent asks for a stack, people see what CloudFormation would do, and it does that: every role a process."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from executors.infra.parameters import execution_token
from schemas.records import Outcome, Phase, Plan, Refusal, Verdict
from tests.executors_infra.acts import FAILING, World, queue, table, template, topic
from tests.flow.stage import names

if TYPE_CHECKING:
    from schemas.records import Intent, Property
    from tests.flow.stage import Stage


def world_of(stage: Stage) -> World:
    """The stacks as their administrator sees them."""
    assert stage.world.aws is not None
    return World(stage.world.aws)


def wish(stage: Stage, stack: str, body: str, **more: Property) -> Intent:
    """What the agent wants of a stack."""
    properties = {"stack": stack, "template_body": body, **more}
    return stage.agent.intent("infra.change_set", ("stack", stack), properties, "the release needs it", 600)


async def asked(stage: Stage, intent: Intent) -> str:
    """Submit it, and wait for its question."""
    await stage.agent.submit(intent)
    await stage.agent.until(intent.id, Phase.PENDING)
    return intent.id


async def test_a_stack_is_asked_for_approved_created_changed_and_never_more_than_was_shown(stage: Stage) -> None:
    world, stack = world_of(stage), f"acme-{secrets.token_hex(4)}"
    intent = await asked(stage, wish(stage, stack, template(Q=queue(stack))))
    card = (await stage.view("dee", intent, Phase.PENDING)).model_dump_json()
    assert f"Create the stack {stack}: 1 created" in card
    assert await world.status(stack) == "REVIEW_IN_PROGRESS"

    assert await stage.says("ana", intent, Verdict.APPROVE) is Refusal.SELF_APPROVAL
    assert await stage.says("dee", intent, Verdict.APPROVE) is None
    await stage.agent.until(intent, Phase.SUCCEEDED)

    row = await stage.row(intent)
    assert row.grant is not None
    assert (await world.status(stack), (await world.resources(stack)).keys()) == ("CREATE_COMPLETE", {"Q"})
    assert await world.tokens(stack) == {execution_token(row.grant.digest)}
    assert row.outcome is not None
    receipt = row.outcome.read(Outcome).receipt
    assert receipt is not None
    assert [(change.target, change.verb) for change in receipt.changes] == [(f"{stack}/Q", "create")]

    # Somebody changes the stack after the question: every yes is void, and what would happen now is asked.
    second = await asked(stage, wish(stage, stack, template(Q=queue(stack), N=topic(stack))))
    first_question = (await stage.row(second)).question
    await world.bring(stack, template(Q=queue(stack), T=table(stack)))
    assert await stage.says("dee", second, Verdict.APPROVE) is None
    await stage.until_trail(second, lambda trail: [each.event for each in trail].count("plan.reported") == 2)

    row = await stage.row(second)
    assert (row.phase, row.votes, row.question != first_question) == (Phase.PENDING, (), True)
    assert row.plan is not None
    plan = row.plan.read(Plan)
    # The table that somebody made would go: the data's owner is asked too, and says no.
    assert (plan.measures["stateful_losses"], plan.reversibility.value) == (1, "none")
    assert await stage.says("dee", second, Verdict.APPROVE) is None
    assert (await stage.row(second)).phase is Phase.PENDING
    assert await stage.says("eli", second, Verdict.DENY, "not that table") is None
    await stage.agent.until(second, Phase.DENIED)
    assert (await world.resources(stack)).keys() == {"Q", "T"}


async def test_a_stack_that_cannot_be_created_is_rolled_back_and_failed(stage: Stage) -> None:
    world, stack = world_of(stage), f"acme-{secrets.token_hex(4)}"
    body = template(Q=queue(stack), P={**FAILING, "DependsOn": "Q"})
    intent = await asked(stage, wish(stage, stack, body, capabilities=("CAPABILITY_IAM",)))
    assert await stage.says("dee", intent, Verdict.APPROVE) is None
    status = await stage.agent.until(intent, Phase.FAILED)
    assert status.reason is not None
    assert status.reason.startswith("rolled back, ROLLBACK_COMPLETE: P: ")
    assert await world.status(stack) == "ROLLBACK_COMPLETE"
    assert names(await stage.events(intent))[-2:] == ["claim.granted", "outcome.reported"]
