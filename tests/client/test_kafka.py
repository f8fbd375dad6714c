"""The client over a real Kafka, against every role as a process of its own."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

import keyturn
from keyturn import kafka
from sandbox import story
from sandbox.roles import environment
from schemas.records import Verdict
from tests.client.people import BUCKET, WITHIN, People, export

REASON = "the partner asked for it"
CLIENT = Path(keyturn.__file__).parent.parent


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(people: People) -> AsyncIterator[keyturn.AsyncClient]:
    async with keyturn.connect_async(people.world.folder, over="kafka") as connected:
        yield connected


async def pending(intent: keyturn.AsyncIntent) -> keyturn.AsyncIntent:
    async with asyncio.timeout(WITHIN):
        async for status in intent.events():
            if status.phase is keyturn.Phase.PENDING:
                return intent
    raise AssertionError(f"{intent.id} ended before anybody was asked")


async def test_what_people_approve_is_done_and_told(people: People, client: keyturn.AsyncClient) -> None:
    intent = await client.submit("s3.export", BUCKET, export(), reason=REASON)
    waiting = asyncio.create_task(intent.wait(WITHIN))
    await pending(intent)

    assert await people.say("cho", intent.id, Verdict.APPROVE) is None

    outcome = await waiting
    assert isinstance(outcome, keyturn.Succeeded)
    assert outcome.receipt.summary == "Copied 3 objects."


async def test_a_no_a_withdrawal_and_a_refusal_are_told_with_their_reasons(
    people: People, client: keyturn.AsyncClient
) -> None:
    denied = await pending(await client.submit("s3.export", BUCKET, export(), reason=REASON))
    withdrawn = await pending(await client.submit("s3.export", BUCKET, export(), reason=REASON))
    refused = await client.submit("s3.export", BUCKET, {"source_bucket": story.CUSTOMERS}, reason=REASON)
    astray = await client.submit("s3.conjure", BUCKET, {}, reason=REASON)

    await people.say("cho", denied.id, Verdict.DENY, "no contract with them")
    await withdrawn.withdraw("no longer needed")

    said = await asyncio.gather(*(intent.wait(WITHIN) for intent in (denied, withdrawn, refused, astray)))
    assert isinstance(said[0], keyturn.Denied)
    assert said[0].reason == "no contract with them"
    assert isinstance(said[1], keyturn.Withdrawn)
    assert isinstance(said[2], keyturn.Refused)
    assert said[2].refusal == "bad_parameters"
    assert isinstance(said[3], keyturn.Refused)
    assert said[3].refusal == "unknown_action"


async def test_what_ended_long_before_is_found_again_by_its_id(
    people: People, client: keyturn.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = {**export(), "source_bucket": story.BROCHURES, "source_prefix": "2026/"}
    intent = await client.submit("s3.export", ("bucket", story.BROCHURES), public, reason=REASON)
    assert isinstance(await intent.wait(WITHIN), keyturn.Succeeded)

    async with keyturn.connect_async(people.world.folder, over="kafka") as other:
        assert (await other.intent(intent.id).status()).phase is keyturn.Phase.SUCCEEDED
        assert isinstance(await other.intent(intent.id).wait(WITHIN), keyturn.Succeeded)
        never = keyturn.ids.intent_id(story.AGENT, keyturn.ids.split(intent.id)[1], bytes(10))
        with pytest.raises(keyturn.UnknownIntentError):
            await other.intent(never).status()
        with pytest.raises(keyturn.NotAllowedError, match="its own alone"):
            await other.intent(f"ana.{intent.id.partition('.')[2]}").status()

    # One that follows few at a time forgets and reads again.
    monkeypatch.setattr(kafka, "REMEMBERED", 1)
    with pytest.raises(keyturn.UnknownIntentError):
        await client.intent(never).status()
    assert (await client.intent(intent.id).status()).phase is keyturn.Phase.SUCCEEDED


WAITER = """
import sys
from datetime import datetime
import keyturn

properties = dict(zip(sys.argv[3::2], sys.argv[4::2]))
with keyturn.connect(sys.argv[1], over="kafka") as client:
    intent = client.submit(
        "s3.export", ("bucket", properties["source_bucket"]), properties, reason="the partner asked for it",
        idempotency_key="order-7", since=datetime.fromisoformat(sys.argv[2]),
    )
    print(intent.id, flush=True)
    intent.wait()
"""


async def test_one_that_is_killed_while_it_waits_goes_on_where_it_was(
    people: People, client: keyturn.AsyncClient
) -> None:
    properties, began = export(), datetime.now(UTC)
    words = [word for pair in properties.items() for word in pair]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-c",
        WAITER,
        str(people.world.folder),
        began.isoformat(),
        *words,
        env=environment({"PYTHONPATH": str(CLIENT)}),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN):
        intent_id = (await process.stdout.readline()).decode().strip()
    await pending(client.intent(intent_id))
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async with keyturn.connect_async(people.world.folder, over="kafka") as after:
        again = await after.submit(
            "s3.export", BUCKET, properties, reason=REASON, idempotency_key="order-7", since=began
        )
        assert again.id == intent_id
        await people.say("cho", intent_id, Verdict.APPROVE)

        assert isinstance(await again.wait(WITHIN), keyturn.Succeeded)


async def test_a_wrong_password_and_a_wrong_prefix_say_what_to_check(people: People) -> None:
    told = people.world.settings(f"agent-{story.AGENT}")
    login = kafka.KafkaLogin(told.kafka, told.kafka_security, told.kafka_username, "wrong", prefix=told.prefix)
    with pytest.raises(keyturn.NoConnectionError, match="password"):
        await kafka.KafkaTransport(login, story.AGENT, told.realm, patience=5).start()

    elsewhere = kafka.KafkaLogin(
        told.kafka, told.kafka_security, told.kafka_username, told.password, prefix="elsewhere."
    )
    with pytest.raises(keyturn.NotAllowedError, match="KEYTURN_PREFIX"):
        await kafka.KafkaTransport(elsewhere, story.AGENT, told.realm, patience=1).start()
