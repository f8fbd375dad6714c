"""One story a test, on a real Kafka, a real S3 and every role as a process of its own."""

import asyncio
import secrets

import pytest

from sandbox import story
from schemas import topics
from schemas.records import (
    AccountRef,
    Channel,
    Decision,
    Evidence,
    Outcome,
    Phase,
    Quarantined,
    Refusal,
    Subject,
    Verdict,
    Withdrawal,
)
from schemas.signing import PrivateKeySigner
from tests.flow.stage import BODY, Stage, names, refusals

REASON = "not now"


async def test_an_approved_export_is_done_once(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)

    assert await stage.says("cho", intent, Verdict.APPROVE) is None
    await stage.agent.until(intent, Phase.SUCCEEDED)

    await stage.assert_exported_once(shelf)
    assert names(await stage.events(intent)) == [
        "intent.classified",
        "plan.reported",
        "decision.recorded",
        "claim.granted",
        "outcome.reported",
    ]


async def test_a_denied_export_does_nothing(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)

    assert await stage.says("cho", intent, Verdict.DENY, REASON) is None
    status = await stage.agent.until(intent, Phase.DENIED)

    assert status.reason == REASON
    await stage.assert_nothing_exported(shelf)


async def test_an_approved_deletion_hides_each_object_once_and_erases_none(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = stage.agent.intent(
        "s3.delete",
        ("bucket", story.CUSTOMERS),
        {"bucket": story.CUSTOMERS, "prefix": f"{shelf.prefix}/"},
        "they asked to be forgotten",
        600,
    )
    await stage.agent.submit(intent)
    await stage.agent.until(intent.id, Phase.PENDING)
    assert await stage.says("ana", intent.id, Verdict.APPROVE) is Refusal.SELF_APPROVAL
    assert await stage.says("cho", intent.id, Verdict.APPROVE) is None
    await stage.agent.until(intent.id, Phase.SUCCEEDED)

    found = await stage.s3.list_object_versions(Bucket=story.CUSTOMERS, Prefix=f"{shelf.prefix}/")
    assert [version["Key"] for version in found["Versions"]] == list(shelf.keys)
    assert sorted((marker["Key"], marker["IsLatest"]) for marker in found["DeleteMarkers"]) == [
        (key, True) for key in shelf.keys
    ]
    outcome = (await stage.row(intent.id)).outcome
    assert outcome is not None
    receipt = outcome.read(Outcome).receipt
    assert receipt is not None
    made = {marker["Key"]: marker["VersionId"] for marker in found["DeleteMarkers"]}
    assert {
        change.target.partition(f"{story.CUSTOMERS}/")[2]: change.detail["marker"] for change in receipt.changes
    } == made


async def test_an_export_that_nobody_decides_expires(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf, ttl=4)

    await stage.agent.until(intent, Phase.EXPIRED)

    await stage.assert_nothing_exported(shelf)


async def test_a_late_yes_is_refused(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf, ttl=4)
    seen = await stage.view("cho", intent, Phase.PENDING)
    await stage.agent.until(intent, Phase.EXPIRED)

    assert await stage.says("cho", intent, Verdict.APPROVE, seen=seen) is Refusal.FINAL
    await stage.assert_nothing_exported(shelf)


async def test_a_withdrawn_export_is_never_done(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)
    seen = await stage.view("cho", intent, Phase.PENDING)

    await stage.agent.withdraw(intent, "no longer needed")
    await stage.agent.until(intent, Phase.WITHDRAWN)

    assert await stage.says("cho", intent, Verdict.APPROVE, seen=seen) is Refusal.FINAL
    await stage.assert_nothing_exported(shelf)


async def test_an_owner_of_the_agent_can_withdraw_and_a_stranger_cannot(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)

    for person in ("dee", "ana"):
        taken_back = Withdrawal(intent=intent, by=Subject(type="person", id=person))
        await stage.say_as("gateway", topics.INTENTS, taken_back, intent)
    await stage.agent.until(intent, Phase.WITHDRAWN)

    assert await stage.events(intent) == [
        ("intent.classified", None),
        ("plan.reported", None),
        ("intent.withdrawn", Refusal.NOT_ENTITLED),
        ("intent.withdrawn", None),
    ]


async def test_a_yes_taken_back_before_the_claim_ends_the_intent(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)
    await stage.roles.stop("executor-s3")
    try:
        assert await stage.says("cho", intent, Verdict.APPROVE) is None
        await stage.agent.until(intent, Phase.APPROVED)
        assert await stage.says("cho", intent, Verdict.REVOKE) is None
        await stage.agent.until(intent, Phase.REVOKED)
    finally:
        await stage.roles.start("executor-s3")

    other = await stage.shelf()
    after = await stage.asked(other)
    assert await stage.says("cho", after, Verdict.APPROVE) is None
    await stage.agent.until(after, Phase.SUCCEEDED)
    await stage.assert_nothing_exported(shelf)


@pytest.mark.parametrize("person", ["ana", "ben"])
async def test_nobody_who_stands_behind_the_agent_can_approve(stage: Stage, person: str) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)

    assert await stage.says(person, intent, Verdict.APPROVE) is Refusal.SELF_APPROVAL

    assert refusals(await stage.events(intent)) == [Refusal.SELF_APPROVAL]
    assert (await stage.row(intent)).phase is Phase.PENDING
    await stage.assert_nothing_exported(shelf)


async def test_a_person_without_a_seat_cannot_approve(stage: Stage) -> None:
    intent = await stage.asked(await stage.shelf())

    assert await stage.says("dee", intent, Verdict.APPROVE) is Refusal.NO_SEAT


async def test_one_person_fills_one_seat_however_often_they_click(stage: Stage) -> None:
    intent = stage.agent.intent("s3.export", ("bucket", story.CUSTOMERS), story.BIG_EXPORT, "the whole year", 600)
    await stage.agent.submit(intent)
    await stage.agent.until(intent.id, Phase.PENDING)

    assert await stage.says("cho", intent.id, Verdict.APPROVE) is None
    assert await stage.says("cho", intent.id, Verdict.APPROVE) is Refusal.ALREADY_DECIDED
    row = await stage.row(intent.id)
    assert (row.phase, [vote.person for vote in row.votes]) == (Phase.PENDING, ["cho"])

    assert await stage.says("eli", intent.id, Verdict.APPROVE) is None
    await stage.agent.until(intent.id, Phase.SUCCEEDED)


async def test_another_body_under_the_same_id_is_a_conflict(stage: Stage) -> None:
    shelf, other = await stage.shelf(), await stage.shelf()
    intent = await stage.asked(shelf)
    changed = stage.intent(other).model_copy(update={"id": intent})

    await stage.agent.submit(changed)
    trail = await stage.until_trail(intent, lambda trail: trail[-1].refusal is not None)
    assert trail[-1].refusal is Refusal.CONFLICT

    assert await stage.says("cho", intent, Verdict.APPROVE) is None
    await stage.agent.until(intent, Phase.SUCCEEDED)
    await stage.assert_exported_once(shelf)
    await stage.assert_nothing_exported(other)


async def test_the_same_intent_twice_is_a_duplicate(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = stage.intent(shelf)
    await stage.agent.submit(intent)
    await stage.agent.submit(intent)
    await stage.agent.until(intent.id, Phase.PENDING)

    trail = await stage.until_trail(intent.id, lambda trail: any(record.refusal for record in trail))
    assert [record.refusal for record in trail if record.refusal] == [Refusal.DUPLICATE]


async def test_an_object_that_changes_after_the_yes_is_asked_about_again(stage: Stage) -> None:
    shelf = await stage.shelf()
    intent = await stage.asked(shelf)
    first = await stage.view("cho", intent, Phase.PENDING)
    await stage.roles.stop("executor-s3")
    try:
        assert await stage.says("cho", intent, Verdict.APPROVE) is None
        await stage.s3.put_object(Bucket=story.CUSTOMERS, Key=shelf.keys[0], Body=BODY + b"changed")
    finally:
        await stage.roles.start("executor-s3")

    await stage.until_trail(intent, lambda trail: names_of(trail).count("plan.reported") == 2)
    await stage.assert_nothing_exported(shelf)
    assert await stage.says("cho", intent, Verdict.APPROVE, seen=first) is Refusal.WRONG_QUESTION

    assert await stage.says("cho", intent, Verdict.APPROVE, seen=await second_question(stage, intent, first)) is None
    await stage.agent.until(intent, Phase.SUCCEEDED)
    await stage.assert_exported_once(shelf)


async def test_a_forged_yes_is_refused_and_moves_nothing(stage: Stage) -> None:
    intent = await stage.asked(await stage.shelf())
    row = await stage.row(intent)
    assert row.question is not None
    yes = Decision(
        intent=intent,
        question=row.question.digest,
        verdict=Verdict.APPROVE,
        account=AccountRef(provider=stage.world.issuer, subject="cho@acme.example"),
        channel=Channel.API,
        evidence=Evidence(
            kind="oidc", digest="0" * 64, issuer=stage.world.issuer, auth_time=int(row.changed_at / 1000)
        ),
        card="0" * 64,
    )
    stranger = PrivateKeySigner.from_seed(secrets.token_bytes(32))
    agents_own = stage.realm.signer(f"agent-{story.AGENT}")
    for signer in (stranger, agents_own):
        await stage.say_as("notifier-api", topics.DECISIONS, yes, intent, signer)

    trail = await stage.until_trail(intent, lambda trail: len([each for each in trail if each.refusal]) == 2)
    assert [record.refusal for record in trail if record.refusal] == [Refusal.BAD_SIGNATURE] * 2
    assert (await stage.row(intent)).votes == ()


async def test_an_intent_signed_by_a_stranger_goes_to_quarantine(stage: Stage) -> None:
    intent = stage.intent(await stage.shelf())
    stranger = PrivateKeySigner.from_seed(secrets.token_bytes(32))
    sent = await stage.say_as(f"agent-{story.AGENT}", topics.INTENTS, intent, intent.id, stranger)

    place = f"intents/{sent.partition}/{sent.offset}".encode()
    async with asyncio.timeout(120):
        while not (found := [each for each in await stage.read(topics.QUARANTINE) if each.key == place]):
            pass  # each round reads Kafka to its end
    assert Quarantined.from_bytes(found[0].value).refusal is Refusal.BAD_SIGNATURE
    assert await stage.trail(intent.id) == []


async def test_an_unknown_executor_is_refused(stage: Stage) -> None:
    intent = stage.agent.intent("teleport.person", ("person", "ana"), {}, "beam me up", 60)
    await stage.agent.submit(intent)

    status = await stage.agent.until(intent.id, Phase.REFUSED)

    assert status.refusal is Refusal.UNKNOWN_ACTION


async def test_a_forbidden_destination_is_denied_without_asking_anybody(stage: Stage) -> None:
    intent = stage.agent.intent("s3.export", ("bucket", story.CUSTOMERS), story.FORBIDDEN_EXPORT, "publish", 60)
    await stage.agent.submit(intent)

    await stage.agent.until(intent.id, Phase.DENIED)

    (record,) = await stage.trail(intent.id)
    assert record.classification is not None
    assert "nothing-to-the-website" in record.classification.rules


async def test_a_public_export_runs_without_people_and_is_on_the_trail_all_the_same(stage: Stage) -> None:
    intent = stage.agent.intent("s3.export", ("bucket", story.BROCHURES), story.PUBLIC_EXPORT, "the brochure", 600)
    await stage.agent.submit(intent)

    await stage.agent.until(intent.id, Phase.SUCCEEDED)

    assert names(await stage.events(intent.id)) == [
        "intent.classified",
        "plan.reported",
        "claim.granted",
        "outcome.reported",
    ]


async def test_a_withdrawal_that_overtakes_its_intent_pins_the_id(stage: Stage) -> None:
    intent = stage.intent(await stage.shelf())

    await stage.agent.withdraw(intent.id)
    await stage.agent.until(intent.id, Phase.WITHDRAWN)
    await stage.agent.submit(intent)

    trail = await stage.until_trail(intent.id, lambda trail: len(trail) == 2)
    assert trail[-1].refusal is Refusal.FINAL


async def test_a_record_that_nobody_can_read_goes_to_quarantine_and_stops_nothing(stage: Stage) -> None:
    settings = stage.world.settings(f"agent-{story.AGENT}")
    from aiokafka import AIOKafkaProducer

    from streams import connection

    raw: AIOKafkaProducer = connection.producer(settings)
    await connection.start(raw, settings)
    try:
        sent = await raw.send_and_wait(settings.names.of(topics.INTENTS), b"{not json", key=b"x", partition=0)
    finally:
        await raw.stop()
    place = f"intents/0/{sent.offset}".encode()
    async with asyncio.timeout(120):
        while place not in {record.key for record in await stage.read(topics.QUARANTINE)}:
            pass  # each round reads Kafka to its end

    await stage.asked(await stage.shelf())


def names_of(trail: list) -> list[str]:
    return [record.event for record in trail if record.refusal is None]


async def second_question(stage: Stage, intent: str, first: object):
    async with asyncio.timeout(120):
        while (view := await stage.view("cho", intent, Phase.PENDING)).question_digest == first.question_digest:
            pass  # each round asks the API
    return view
