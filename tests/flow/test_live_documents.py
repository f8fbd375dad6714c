"""Directory, roster and policy are live: in force at once, and nobody slips out between two versions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from sandbox import story
from schemas import policy
from schemas.records import Phase, Refusal, Verdict
from schemas.timing import LEADER_SKEW_MS
from schemas.world import World
from streams import documents
from tests.flow.stage import Stage, clock, names

FROZEN = """
@id("frozen")
forbid (principal, action, resource);
"""


def require(world: World) -> None:
    assert world.policies is not None
    assert world.manifests is not None
    policy.rulebook(world.policies, world.manifests)


@asynccontextmanager
async def directory(stage: Stage, edit: Callable[[dict[str, Any]], None]) -> AsyncIterator[None]:
    """Another directory, and the first one again afterwards."""
    file = stage.world.folder / "directory.yaml"
    members = yaml.safe_load(file.read_text())
    edit(members)
    settings = stage.world.settings("administration")
    other = stage.world.folder / "directory-other.yaml"
    other.write_text(yaml.safe_dump(members))
    await documents.apply_directory(settings, other, clock())
    try:
        yield
    finally:
        await documents.apply_directory(settings, file, clock())
        # Law 2: who stood behind the agent within the leaders' skew before an asking is in its circle.
        since = clock()
        while clock() <= since + 2 * LEADER_SKEW_MS:
            await asyncio.to_thread(time.sleep, 0.1)


@asynccontextmanager
async def policies(stage: Stage, more: str) -> AsyncIterator[None]:
    settings = stage.world.settings("administration")
    file: Path = stage.world.folder / "policy.cedar"
    other = stage.world.folder / "policy-other.cedar"
    other.write_text(file.read_text() + more)
    rest = [stage.world.folder / name for name in ("iam.cedar", "infra.cedar")]
    await documents.apply_policies(settings, [other, *rest], clock(), require)
    try:
        yield
    finally:
        await documents.apply_policies(settings, [file, *rest], clock(), require)


@asynccontextmanager
async def roster(stage: Stage, edit: Callable[[dict[str, Any]], None]) -> AsyncIterator[None]:
    settings = stage.world.settings("administration")
    file: Path = stage.world.folder / "roster.yaml"
    members = yaml.safe_load(file.read_text())
    edit(members)
    other = stage.world.folder / "roster-other.yaml"
    other.write_text(yaml.safe_dump(members))
    await documents.apply_roster(settings, other, clock())
    try:
        yield
    finally:
        await documents.apply_roster(settings, file, clock())


async def test_an_owner_who_leaves_the_agent_while_it_waits_still_cannot_approve(stage: Stage) -> None:
    intent = await stage.asked(await stage.shelf())

    def ana_leaves_and_becomes_a_data_owner(members: dict[str, Any]) -> None:
        members["agents"][0]["owners"] = ["dee"]
        members["agents"][0]["users"] = ["ben"]

    def ana_is_on_call(members: dict[str, Any]) -> None:
        members["rotas"][0]["shifts"][0]["person"] = "ana"

    async with directory(stage, ana_leaves_and_becomes_a_data_owner), roster(stage, ana_is_on_call):
        assert await stage.says("ana", intent, Verdict.APPROVE) is Refusal.SELF_APPROVAL
        assert await stage.says("dee", intent, Verdict.APPROVE) is Refusal.SELF_APPROVAL
    assert await stage.says("cho", intent, Verdict.DENY, "enough") is None


async def test_a_delegate_of_an_owner_cannot_approve(stage: Stage) -> None:
    def cho_stands_in_for_ana(members: dict[str, Any]) -> None:
        next(person for person in members["persons"] if person["id"] == "ana")["delegates"] = ["cho"]

    async with directory(stage, cho_stands_in_for_ana):
        intent = await stage.asked(await stage.shelf())
        assert await stage.says("cho", intent, Verdict.APPROVE) is Refusal.SELF_APPROVAL


async def test_a_policy_that_forbids_after_the_yes_ends_it_at_the_claim(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)
    await stage.roles.stop("executor-s3")
    try:
        assert await stage.says("cho", intent, Verdict.APPROVE) is None
        async with policies(stage, FROZEN):
            await stage.up("executor-s3")
            await stage.agent.until(intent, Phase.DENIED)
    finally:
        await stage.up("executor-s3")

    assert names(await stage.events(intent))[-1] == "claim.denied"
    await stage.assert_nothing_exported(shelf)


async def test_an_approver_who_leaves_the_group_before_the_claim_no_longer_counts(stage: Stage) -> None:
    export = {**story.BIG_EXPORT, "destination_prefix": "flow/twice/"}
    intent = stage.agent.intent("s3.export", ("bucket", story.CUSTOMERS), export, "the whole year", 600)
    await stage.agent.submit(intent)
    await stage.agent.until(intent.id, Phase.PENDING)
    await stage.roles.stop("executor-s3")
    try:
        for person in ("eli", "cho"):
            assert await stage.says(person, intent.id, Verdict.APPROVE) is None
        await stage.agent.until(intent.id, Phase.APPROVED)

        def eli_leaves(members: dict[str, Any]) -> None:
            members["groups"][0]["members"] = ["dee"]

        async with roster(stage, eli_leaves):
            await stage.up("executor-s3")
            trail = await stage.until_trail(intent.id, lambda trail: trail[-1].event == "claim.reopened")
            assert trail[-1].after is Phase.PENDING
            row = await stage.row(intent.id)
            assert row.votes == ()
    finally:
        await stage.up("executor-s3")
    await stage.agent.withdraw(intent.id)
    await stage.agent.until(intent.id, Phase.WITHDRAWN)
