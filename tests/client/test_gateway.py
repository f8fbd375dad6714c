"""The client over HTTP: the real gateway as a process of its own, and everything behind it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

import keyturn
from cli.sandbox import agent_snippet
from sandbox import story
from sandbox.issuer import GATEWAY
from sandbox.roles import environment
from schemas.records import Verdict
from tests.client.people import BUCKET, WITHIN, People, export
from tests.client.test_kafka import CLIENT, REASON, pending


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(people: People) -> AsyncIterator[keyturn.AsyncClient]:
    async with keyturn.connect_async(people.world.folder, over="http") as connected:
        yield connected


async def test_what_people_approve_is_done_and_told_through_a_gateway_that_dies_meanwhile(
    people: People, client: keyturn.AsyncClient
) -> None:
    intent = await client.submit("s3.export", BUCKET, export(), reason=REASON)
    waiting = asyncio.create_task(intent.wait(WITHIN))
    await pending(intent)

    await people.roles.crash("gateway")
    assert await people.say("cho", intent.id, Verdict.APPROVE) is None

    outcome = await waiting
    assert isinstance(outcome, keyturn.Succeeded)
    assert outcome.receipt.summary == "Copied 3 objects."
    assert outcome.receipt.details


async def test_every_no_is_told_with_its_reason_and_its_places(people: People, client: keyturn.AsyncClient) -> None:
    denied = await pending(await client.submit("s3.export", BUCKET, export(), reason=REASON))
    withdrawn = await client.submit("s3.export", BUCKET, export(), reason=REASON)
    expired = await client.submit("s3.export", BUCKET, export(), reason=REASON, ttl=2)
    refused = await client.submit("s3.export", BUCKET, {"source_bucket": story.CUSTOMERS}, reason=REASON)
    astray = await client.submit("s3.conjure", BUCKET, {}, reason=REASON)
    await withdrawn.withdraw("no longer needed")
    await people.say("cho", denied.id, Verdict.DENY, "no contract with them")

    said = await asyncio.gather(*(each.wait(WITHIN) for each in (denied, withdrawn, expired, refused, astray)))

    assert [type(each).__name__ for each in said] == ["Denied", "Withdrawn", "Expired", "Refused", "Refused"]
    assert str(said[0]) == "denied, nothing was done: no contract with them"
    assert isinstance(said[3], keyturn.Refused)
    assert said[3].refusal == "bad_parameters"
    assert said[3].errors
    assert all(error.path.startswith("/action/properties") for error in said[3].errors)
    assert isinstance(said[4], keyturn.Refused)
    assert said[4].refusal == "unknown_action"
    await denied.withdraw()  # too late, and no harm


async def test_what_policy_would_say_and_what_there_is_can_be_asked(client: keyturn.AsyncClient) -> None:
    found = await client.check("s3.export", BUCKET, export())
    wrong = await client.check("s3.export", BUCKET, {})
    offers = await client.actions()

    assert found.effect == "require_approval"
    assert wrong.effect == "refused"
    assert wrong.errors
    assert [offer.parameters["required"] for offer in offers if offer.name == "s3.export"]


async def test_a_person_asks_with_a_token_and_finds_the_intent_again(people: People) -> None:
    public = {**export(), "source_bucket": story.BROCHURES, "source_prefix": "2026/"}
    token = await people.world.token("ana", GATEWAY)
    async with keyturn.connect_async(people.world.gateway, token=token) as ana:
        intent = await ana.submit("s3.export", ("bucket", story.BROCHURES), public, reason=REASON)
        assert intent.id.startswith("ana.")
        assert isinstance(await intent.wait(WITHIN), keyturn.Succeeded)
        assert (await ana.intent(intent.id).status()).phase is keyturn.Phase.SUCCEEDED


async def test_what_the_sandbox_prints_runs_as_printed(people: People, tmp_path: Path) -> None:
    folder = Path(os.path.relpath(people.world.folder, tmp_path))
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        agent_snippet(folder),
        cwd=tmp_path,
        env=environment(
            {
                "PYTHONPATH": str(CLIENT),
                "PYTHONUNBUFFERED": "1",
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            }
        ),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN):
        intent_id = (await process.stdout.readline()).decode().split()[-1]
        async with keyturn.connect_async(people.world.folder) as client:
            await pending(client.intent(intent_id))
        await people.say("cho", intent_id, Verdict.APPROVE)

        assert await process.stdout.read() == b"done: Copied 3 objects.\n"
        assert await process.wait() == 0
