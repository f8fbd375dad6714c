"""The trail: every input is one record, chained, and shows what people were asked where that matters."""

from broker.core import trail
from broker.core.trail import Chain
from schemas import canonical, examples
from schemas.record import state
from schemas.records import AuditRecord, ChainHead, Phase, Refusal, Source
from schemas.snapshots import Directory
from tests.broker.builders import DIRECTORY, REALM, T0, Story, a_world, approved, in_phase, signer

HERE = Source(topic="decisions", partition=0, offset=7)


def start() -> Chain:
    return Chain(REALM, "core-0", ChainHead())


def trail_of(story: Story) -> list[AuditRecord]:
    chain, found, before = start(), [], None
    for event, step in zip(story.events, story.steps, strict=True):
        found.append(chain.of_step(before, event, step, story.world))
        chain = chain.after(found[-1])
        before = step.row
    return found


def test_records_are_numbered_without_a_gap_and_each_names_the_one_before() -> None:
    records = trail_of(approved("s3.export", ("dan", "eve", "gus")))
    assert [record.seq for record in records] == [1, 2, 3, 4, 5]
    assert [record.prev for record in records] == [None, *(record.digest for record in records[:-1])]
    assert [trail.key_of(record) for record in records][:2] == ["core-0/1", "core-0/2"]
    assert [record.after for record in records] == [Phase.PLANNING, *[Phase.PENDING] * 3, Phase.APPROVED]
    assert [record.before for record in records] == [None, Phase.PLANNING, *[Phase.PENDING] * 3]


def test_the_question_and_the_circle_stand_beside_every_yes_and_every_grant() -> None:
    story = approved()
    story.claim()
    planned, voted, granted = trail_of(story)[1:]
    for record in (planned, voted, granted):
        assert record.question == story.here.question
        assert record.circle == ("ada", "ben", "cat")
        assert record.requirement is not None
    assert [said.type for said in granted.said] == ["keyturn.grant.v1", "keyturn.intent-status.v1"]
    assert [said.topic for said in granted.said] == ["approved.s3", "status"]
    assert granted.said[0].digest == story.grant.digest
    assert granted.until == story.grant.lease_until


def test_a_refusal_stands_on_the_trail_with_what_was_refused() -> None:
    story = in_phase(Phase.PENDING)
    story.approve("ada")
    record = trail_of(story)[-1]
    assert (record.refusal, record.before, record.after) == (Refusal.SELF_APPROVAL, Phase.PENDING, Phase.PENDING)
    assert record.statement == story.events[-1].statement
    assert record.intent == story.intent.id


def test_an_input_about_nothing_that_is_an_id_names_no_intent() -> None:
    story = Story()
    signed = state(story.intent, signer("bot"), REALM)
    odd = story.a_withdrawal()
    body = {**odd.withdrawal.body, "intent": "nobody"}
    story.hear(odd.model_copy(update={"withdrawal": signed.model_copy(update={"body": body})}))
    assert trail_of(story)[-1].intent is None
    story.tick()
    assert trail_of(story)[-1].intent is None
    story.claim()
    assert trail_of(story)[-1].intent == story.intent.id


def test_a_change_of_the_world_and_an_unreadable_input_stand_there_by_digest() -> None:
    statement = state(DIRECTORY, signer("root"), REALM)
    deferred = start().of_world(HERE, T0, statement, a_world(), is_deferred=True)
    assert deferred.event == "world.deferred"
    record = start().of_world(HERE, T0, statement, a_world(), is_deferred=False)
    assert (record.event, record.reason, record.sha256) == ("world.changed", Directory.TYPE, statement.digest)
    assert record.versions == a_world().versions
    value = b"\xff" * 10
    record = start().of_refused_input(HERE, T0, value, Refusal.MALFORMED, "x" * 5000, a_world())
    assert (record.event, record.refusal, record.bytes) == ("input.quarantined", Refusal.MALFORMED, 10)
    assert record.sha256 == canonical.digest(value)
    assert len(record.reason or "") == 2000
    assert record.to_bytes()


def test_what_an_operator_did_stands_on_the_trail_with_its_statement() -> None:
    said = state(examples.SKIP, signer("root"), REALM)
    record = start().of_operation(HERE, T0, "operation.skip", said, None, "lost", a_world())
    assert (record.event, record.statement, record.sha256, record.bytes) == ("operation.skip", said, None, None)
    assert record.intent is None
