"""The stories of the golden trail: every honest one of the auditors' tests, and what they leave out.

Between them they take every transition and every refusal that the core can reach; `test_golden` counts.
"""

import hashlib
from collections.abc import Callable

from schemas import envelope, ids
from schemas.record import Record, state
from schemas.records import (
    Action,
    Channel,
    Claim,
    Context,
    Decision,
    Evidence,
    Fact,
    ForwardedWithdrawal,
    Intent,
    Outcome,
    Plan,
    Resource,
    Result,
    Reversibility,
    Round,
    Source,
    Subject,
    Tick,
    Verdict,
    Withdrawal,
)
from schemas.snapshots import Policies
from tests.auditors.builders import CEDAR, HOUR, IDP, START, Trail, account, directory, signer, successor
from tests.auditors.test_honest_trails import STORIES as HONEST

PLAN_FORBIDDEN = CEDAR + '\n@id("much") forbid(principal, action, resource) when { context has plan };\n'


def denied_after_approval(trail: Trail) -> None:
    trail.say(trail.approved(), "carol", Verdict.DENY)


def revoked_while_pending(trail: Trail) -> None:
    intent_id = trail.pending()
    trail.say(intent_id, "bob")
    trail.say(intent_id, "bob", Verdict.REVOKE)


def withdrawn_at_each_step(trail: Trail) -> None:
    trail.withdraw(trail.ask())
    trail.withdraw(trail.pending())
    trail.withdraw(trail.pending(agent="porter"), by=Subject(type="person", id="carol"), key="gateway")


def stopped_while_executing(trail: Trail) -> None:
    denied = trail.executing()
    trail.say(denied, "carol", Verdict.DENY)
    trail.outcome(denied, Result.STALE)
    withdrawn = trail.executing(agent="porter")
    trail.withdraw(withdrawn)
    trail.say(withdrawn, "erin", Verdict.REVOKE)
    trail.outcome(withdrawn, Result.STALE)


def denied_by_its_plan(trail: Trail) -> None:
    first = Policies(version=1, cedar=CEDAR)
    intent_id = trail.ask()
    trail.change(successor(Policies(version=1, cedar=PLAN_FORBIDDEN), first))
    trail.plan(intent_id)


def resolved_as_done(trail: Trail) -> None:
    intent_id = trail.executing()
    trail.tick(trail.partition(intent_id), trail.now + HOUR // 2)
    trail.resolve(intent_id, "erin", "succeeded")


def unclear_for_long(trail: Trail) -> None:
    intent_id = trail.executing()
    trail.outcome(intent_id, Result.UNKNOWN)
    trail.tick(trail.partition(intent_id), trail.now + HOUR // 2)
    trail.outcome(intent_id, Result.UNKNOWN)
    trail.outcome(intent_id)


def nothing_to_revoke(trail: Trail) -> None:
    intent_id = trail.approved()
    trail.say(intent_id, "gina", Verdict.REVOKE)
    trail.claim(intent_id)
    trail.say(intent_id, "gina", Verdict.REVOKE)


def wrong_rounds(trail: Trail) -> None:
    intent_id = trail.ask()
    row = trail.rows[intent_id]
    assert row.round is not None
    trail.plan(intent_id, changes={"round": row.round.model_copy(update={"number": 7})})
    trail.plan(intent_id, changes={"intent": "0" * 64})


def refused_by_name(trail: Trail) -> None:
    """An action nobody offers, parameters nobody accepts, a key that is another agent's."""
    wish = trail.intent()
    for changed in (
        wish.model_copy(update={"id": trail.intent().id, "action": Action(name="s3.melt", properties={})}),
        wish.model_copy(update={"id": trail.intent().id, "action": Action(name="s3.export", properties={"n": 1})}),
    ):
        trail.feed("classified", trail.classified(changed, classification=None), "intake")
    trail.feed("classified", trail.classified(trail.intent("porter"), by="builder", classification=None), "intake")


def an_agent_that_was_retired(trail: Trail) -> None:
    before = directory()
    agents = tuple(agent.model_copy(update={"is_active": agent.id != "porter"}) for agent in before.agents)
    trail.change(successor(before, before, agents=agents))
    trail.feed("classified", trail.classified(trail.intent("porter"), classification=None), "intake")


def too_many_at_once(trail: Trail) -> None:
    before = directory()
    agents = tuple(agent.model_copy(update={"max_open": 2}) for agent in before.agents)
    trail.change(successor(before, before, agents=agents))
    for _ in range(3):
        trail.ask()


def asked_again_after_a_no(trail: Trail) -> None:
    trail.say(trail.pending(), "bob", Verdict.DENY)
    trail.ask()


def about_nobody_knows_what(trail: Trail) -> None:
    """Everything that names an intent which never came."""
    intent_id = ids.intent_id("builder", trail.now, (999).to_bytes(10, "big"))
    digest = hashlib.sha256(b"").hexdigest()
    number = trail.partition(intent_id)
    said: tuple[tuple[str, str, Record], ...] = (
        (
            "decisions",
            "api",
            Decision(
                intent=intent_id,
                question=digest,
                verdict=Verdict.APPROVE,
                account=account("bob"),
                channel=Channel.API,
                evidence=Evidence(kind="oidc", digest=digest, issuer=IDP, auth_time=trail.now // 1000),
                card=digest,
            ),
        ),
        ("reports", "s3", Claim(intent=intent_id, question=digest, executor="s3", instance="s3-a")),
        (
            "reports",
            "s3",
            Outcome(
                intent=intent_id, grant=digest, instance="s3-a", executor="s3", result=Result.FAILED, reason="because"
            ),
        ),
        (
            "reports",
            "s3",
            Plan(
                round=Round(intent=intent_id, number=1, opened=Source(topic="classified", partition=number, offset=1)),
                intent=digest,
                executor="s3",
                manifest=1,
                summary="nothing",
                reversibility=Reversibility.EXACT,
                undo="nothing",
                planned_at=trail.now,
            ),
        ),
    )
    for topic, by, record in said:
        trail.feed(topic, record, by)
    somebody = Withdrawal(intent=intent_id, by=Subject(type="person", id="carol"))
    statement = state(somebody, signer("gateway"), trail.realm)
    source = trail.write("intents", number, envelope.reseal(statement, intent_id, trail.realm, source="gateway"))
    forwarded = ForwardedWithdrawal(
        withdrawal=statement, source=source, asked_at=trail.now, versions=trail.worlds[number].versions
    )
    trail.feed("classified", forwarded, "intake")


def unreadable(trail: Trail) -> None:
    """Bytes that are nothing, under a wrong key, in a wrong partition, of a wrong type; a tick by somebody else."""
    intent_id = trail.pending()
    number = trail.partition(intent_id)
    for value in (b"", b"{}", b'{"b":1,"a":2}', b"\xff" * 40, b"[" * 200):
        trail.write("decisions", number, envelope.Sealed(intent_id.encode(), value, (("ce_type", b"what"),)))
    intent = trail.intent()
    sealed = envelope.seal(trail.classified(intent), intent.id, signer("intake"), trail.realm, source="intake")
    trail.write("classified", number, envelope.Sealed(b"another", sealed.value, sealed.headers))
    trail.write("classified", 1 - number, sealed)
    trail.write("reports", number, sealed)
    trail.write("decisions", number, envelope.Sealed(sealed.key, sealed.value, (*sealed.headers, sealed.headers[-1])))
    for tick, by in ((Tick(partition=number, number=1), "s3"), (Tick(partition=1 - number, number=2), "core")):
        trail.write("ticks", number, envelope.seal(tick, "tick", signer(by), trail.realm, source="core"))
    trail.say(intent_id, "bob")


def a_document_on_anothers_topic(trail: Trail) -> None:
    """The core sets it aside; whoever takes it into force reads another world."""
    before = directory()
    fired = tuple(person for person in before.persons if person.id != "erin")
    sealed = envelope.seal(successor(before, before, persons=fired), "2", signer("root"), trail.realm, source="x")
    trail.write("manifests", 0, sealed)
    trail.say(trail.pending(), "erin")


def several_at_one_tick(trail: Trail) -> None:
    for _ in range(3):
        trail.pending()
    waiting = trail.pending(agent="porter")
    number = trail.partition("builder.01JXT21TX00000000000000001")
    trail.tick(number, trail.now + 2 * HOUR)
    trail.tick(trail.partition(waiting), trail.now + 1_000)


def forgotten_by_a_tick(trail: Trail) -> None:
    """The rows of ended intents go with a tick that ends another one; what still comes about them is too old."""
    intent_id = trail.pending()
    trail.say(intent_id, "bob", Verdict.DENY)
    asked = trail.rows[intent_id].question
    trail.now += 30 * HOUR
    trail.ask(ttl=60)
    trail.tick(trail.partition(intent_id), trail.now + HOUR)
    assert asked is not None
    row = trail.rows.pop(intent_id)
    late = Decision(
        intent=intent_id,
        question=asked.digest,
        verdict=Verdict.APPROVE,
        account=account("carol"),
        channel=Channel.API,
        evidence=Evidence(kind="oidc", digest="e" * 64, issuer=IDP, auth_time=trail.now // 1000),
        card="c" * 64,
    )
    trail.feed("decisions", late, "api")
    trail.rows[intent_id] = row


def words_of_every_script(trail: Trail) -> None:
    """Reasons and facts that are not ASCII come out in the same bytes."""
    intent = trail.intent().model_copy(update={"context": Context(reason="Übergabe an 東京, ≠ \U0001f511")})
    facts = (Fact(name="owner", value="Zoë", source="tags", observed_at=START),)
    trail.feed("classified", trail.classified(intent, facts=facts), "intake")
    trail.plan(intent.id, changes={"summary": "копировать 12 объектов"})


def asked_by_a_person(trail: Trail) -> None:
    trail.ids_made += 1
    intent = Intent(
        id=ids.intent_id("gina", trail.now, trail.ids_made.to_bytes(10, "big")),
        subject=Subject(type="person", id="gina"),
        action=Action(name="s3.export", properties={"prefix": "reports/"}),
        resource=Resource(type="bucket", id="acme-data"),
        context=Context(reason="for the audit"),
        ttl=3600,
    )
    trail.feed("classified", trail.classified(intent, by="gateway"), "intake")
    trail.plan(intent.id)
    trail.say(intent.id, "gina")
    trail.say(intent.id, "bob")


def restored_from_a_backup(trail: Trail) -> None:
    """What waited only ends, what was asked before is refused, what is asked long enough after is new."""
    pending, approved = trail.pending(), trail.approved()
    running = trail.executing()
    trail.restore(trail.partition(pending))
    trail.say(pending, "bob")
    trail.claim(approved)
    trail.ask()
    trail.outcome(running, Result.STALE)
    trail.plan(running)
    trail.tick(trail.partition(pending), trail.now + 1_000, intents=sorted([pending, approved, running]))
    trail.say(pending, "bob")
    trail.now += HOUR
    trail.executing()


MORE: tuple[Callable[[Trail], object], ...] = (
    restored_from_a_backup,
    denied_after_approval,
    revoked_while_pending,
    withdrawn_at_each_step,
    stopped_while_executing,
    denied_by_its_plan,
    resolved_as_done,
    unclear_for_long,
    nothing_to_revoke,
    wrong_rounds,
    refused_by_name,
    an_agent_that_was_retired,
    too_many_at_once,
    asked_again_after_a_no,
    about_nobody_knows_what,
    unreadable,
    a_document_on_anothers_topic,
    several_at_one_tick,
    forgotten_by_a_tick,
    words_of_every_script,
    asked_by_a_person,
)


STORIES: dict[str, Callable[[Trail], object]] = {story.__name__: story for story in (*HONEST, *MORE)}
