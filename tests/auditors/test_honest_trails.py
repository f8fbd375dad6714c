"""What an honest core writes is clean, whatever the story."""

from collections.abc import Callable

import pytest

from schemas.records import Channel, Decision, Evidence, Phase, Refusal, Result, Subject, Verdict
from schemas.snapshots import Policies
from tests.auditors.builders import (
    CEDAR,
    HOUR,
    IDP,
    START,
    Trail,
    account,
    directory,
    manifests,
    roster,
    signer,
    successor,
)

FORBIDDEN = successor(
    Policies(version=1, cedar='@id("none") forbid(principal, action, resource);'), Policies(version=1, cedar=CEDAR)
)


def approved_and_done(trail: Trail) -> str:
    intent_id = trail.executing()
    trail.outcome(intent_id)
    return intent_id


def in_the_other_chain(trail: Trail) -> str:
    trail.pending()
    intent_id = trail.executing(agent="porter")
    trail.outcome(intent_id, Result.FAILED)
    return intent_id


def automatic(trail: Trail) -> str:
    intent_id = trail.ask(action="s3.list")
    trail.plan(intent_id)
    trail.claim(intent_id)
    trail.outcome(intent_id)
    return intent_id


def on_call(trail: Trail) -> str:
    intent_id = trail.pending(action="s3.page")
    trail.say(intent_id, "erin")  # not yet on call
    trail.say(intent_id, "bob")
    trail.claim(intent_id)
    trail.outcome(intent_id)
    return intent_id


def denied(trail: Trail) -> str:
    intent_id = trail.pending()
    trail.say(intent_id, "bob")
    trail.say(intent_id, "carol", Verdict.DENY)
    return intent_id


def denied_by_policy(trail: Trail) -> str:
    trail.change(
        successor(
            Policies(version=1, cedar='@id("none") forbid(principal, action, resource);'),
            Policies(version=1, cedar=CEDAR),
        )
    )
    return trail.ask()


def expired(trail: Trail) -> str:
    intent_id = trail.pending()
    trail.tick(trail.partition(intent_id), trail.now + 60_000)  # nothing is due: not on the trail
    trail.tick(trail.partition(intent_id), trail.now + 2 * HOUR)
    trail.say(intent_id, "bob")
    return intent_id


def expired_while_planning(trail: Trail) -> str:
    intent_id = trail.ask()
    trail.tick(trail.partition(intent_id), trail.now + 3 * HOUR)
    return intent_id


def expired_after_approval(trail: Trail) -> str:
    intent_id = trail.approved()
    trail.tick(trail.partition(intent_id), trail.now + 3 * HOUR)
    trail.claim(intent_id)
    return intent_id


def withdrawn(trail: Trail) -> str:
    intent_id = trail.approved()
    trail.withdraw(intent_id, by=Subject(type="person", id="carol"), key="gateway")  # nobody of theirs
    trail.withdraw(intent_id, by=Subject(type="person", id="alice"), key="gateway")
    return intent_id


def withdrawn_before_it_came(trail: Trail) -> str:
    intent = trail.intent()
    trail.withdraw(intent.id, by=Subject(type="person", id="carol"), key="gateway")  # nobody of theirs
    trail.withdraw(intent.id, by=Subject(type="person", id="alice"), key="gateway")
    trail.feed("classified", trail.classified(intent), "intake")
    return intent.id


def revoked(trail: Trail) -> str:
    intent_id = trail.approved()
    trail.say(intent_id, "bob", Verdict.REVOKE)
    trail.claim(intent_id)
    return intent_id


def barred(trail: Trail) -> str:
    intent_id = trail.pending()
    trail.say(intent_id, "bob", Verdict.REVOKE)
    trail.say(intent_id, "bob")
    return intent_id


def stale(trail: Trail) -> str:
    intent_id = trail.executing()
    trail.outcome(intent_id, Result.STALE)
    trail.plan(intent_id)
    for person in ("carol", "bob", "erin"):
        trail.say(intent_id, person)
    trail.claim(intent_id, instance="s3-b")
    trail.outcome(intent_id)
    return intent_id


def stopped_by_a_stale(trail: Trail) -> str:
    intent_id = trail.executing()
    trail.say(intent_id, "bob", Verdict.REVOKE)
    trail.withdraw(intent_id)
    trail.outcome(intent_id, Result.UNKNOWN)
    trail.outcome(intent_id, Result.STALE)
    return intent_id


def _unknown(trail: Trail) -> str:
    intent_id = trail.executing()
    trail.tick(trail.partition(intent_id), trail.now + HOUR // 2)
    return intent_id


def unknown_and_observed(trail: Trail) -> str:
    intent_id = _unknown(trail)
    row = trail.rows[intent_id]
    trail.outcome(intent_id, Result.UNKNOWN, changes={"observed": True, "unknown": row.unknown, "instance": "s3-b"})
    trail.outcome(intent_id, changes={"observed": True, "unknown": "0" * 64, "instance": "s3-b"})
    trail.outcome(intent_id, changes={"observed": True, "unknown": row.unknown, "instance": "s3-b"})
    return intent_id


def unknown_and_a_late_word(trail: Trail) -> str:
    intent_id = _unknown(trail)
    trail.outcome(intent_id, Result.STALE)
    return intent_id


def unknown_and_resolved(trail: Trail) -> str:
    intent_id = _unknown(trail)
    trail.resolve(intent_id, "alice")
    trail.resolve(intent_id, "bob", "failed")
    return intent_id


def unknown_and_resolved_by_an_operator(trail: Trail) -> str:
    intent_id = trail.ask(action="s3.list")
    trail.plan(intent_id)
    trail.claim(intent_id)
    trail.tick(trail.partition(intent_id), trail.now + HOUR // 2)
    trail.resolve(intent_id, "alice")
    trail.resolve(intent_id, "carol")
    trail.resolve(intent_id, "erin", "failed")
    return intent_id


def not_planned(trail: Trail) -> str:
    intent_id = trail.ask()
    trail.no_plan(intent_id)
    return intent_id


def reopened_at_the_claim(trail: Trail) -> str:
    """carol leaves the group, so her seat is no longer held."""
    intent_id = trail.approved()
    trail.change(successor(roster(groups=()), roster()))
    trail.claim(intent_id)
    return intent_id


def denied_at_the_claim(trail: Trail) -> str:
    intent_id = trail.approved()
    trail.change(
        successor(
            Policies(version=1, cedar='@id("none") forbid(principal, action, resource);'),
            Policies(version=1, cedar=CEDAR),
        )
    )
    trail.claim(intent_id)
    return intent_id


def every_refusal(trail: Trail) -> str:
    intent_id = trail.pending()
    trail.say(intent_id, "alice")  # herself
    trail.say(intent_id, "dave")  # her delegate
    trail.say(intent_id, "gina")  # whom the agent may act for
    trail.say(intent_id, "hugo")  # inactive
    trail.say(intent_id, "nobody")
    trail.say(intent_id, "bob", by="console", channel=Channel.CONSOLE)  # a channel worth less
    trail.say(intent_id, "bob", by="console")  # a key that may not vouch for this channel
    trail.say(intent_id, "bob", question="0" * 64)
    trail.say(intent_id, "bob", by="core")
    trail.say(intent_id, "bob", by="stranger")
    trail.say(intent_id, "bob", sealed_in="acme-staging")
    trail.say(intent_id, "erin", Verdict.REVOKE, at=trail.now + 1)
    trail.say(intent_id, "erin")
    trail.say(intent_id, "bob")
    trail.say(intent_id, "bob")
    trail.say(intent_id, "bob-admin")  # the same person by another login
    trail.claim(intent_id)
    trail.outcome(intent_id)
    trail.plan(intent_id)
    return intent_id


def refused_claims_and_outcomes(trail: Trail) -> str:
    intent_id = trail.approved()
    trail.claim(intent_id, question="0" * 64)
    trail.claim(intent_id)
    trail.claim(intent_id, instance="s3-b")
    trail.say(intent_id, "bob")
    trail.outcome(intent_id, changes={"instance": "s3-b"})
    trail.outcome(intent_id, changes={"grant": "0" * 64})
    trail.outcome(intent_id, changes={"observed": True, "unknown": "0" * 64})
    trail.resolve(intent_id, "bob")
    trail.outcome(intent_id)
    trail.outcome(intent_id)
    return intent_id


def late(trail: Trail) -> str:
    intent_id = trail.pending()
    trail.say(intent_id, "bob", at=trail.now + 2 * HOUR)
    return intent_id


def again(trail: Trail) -> str:
    intent = trail.intent()
    first = trail.classified(intent)
    trail.feed("classified", first, "intake")
    trail.feed("classified", trail.classified(intent), "intake")
    trail.feed("classified", trail.classified(intent.model_copy(update={"ttl": 60})), "intake")
    return intent.id


def refused_at_the_door(trail: Trail) -> str:
    stranger = trail.intent(agent="stranger")
    trail.feed("classified", trail.classified(stranger), "intake")
    old = trail.intent()
    trail.now += 30 * HOUR
    trail.feed("classified", trail.classified(old), "intake")
    forged = trail.intent()
    trail.feed("classified", trail.classified(forged, by="porter"), "intake")
    by_intake = trail.intent()
    trail.feed(
        "classified",
        trail.classified(by_intake, classification=None, refusal=Refusal.BAD_PARAMETERS, reason="no"),
        "intake",
    )
    return by_intake.id


def a_growing_circle(trail: Trail) -> str:
    """bob becomes an owner after his yes: it counts no more."""
    intent_id = trail.approved()
    before = directory()
    agents = tuple(agent.model_copy(update={"owners": ("alice", "bob")}) for agent in before.agents)
    trail.change(successor(before, before, agents=agents))
    trail.claim(intent_id)
    trail.say(intent_id, "bob")
    return intent_id


def an_owner_who_left(trail: Trail) -> str:
    """alice stops being an owner, and stays in the circle."""
    intent_id = trail.pending()
    before = directory()
    agents = tuple(agent.model_copy(update={"owners": ("gina",)}) for agent in before.agents)
    trail.change(successor(before, before, agents=agents))
    trail.say(intent_id, "alice")
    for person in ("bob", "carol", "erin"):
        trail.say(intent_id, person)
    trail.claim(intent_id)
    return intent_id


def an_owner_who_left_while_intake_was_behind(trail: Trail) -> str:
    """alice owned the agent when it asked; intake reads, and cites, a directory that no longer says so."""
    intent_id = trail.asked_of_a_late_intake()
    trail.plan(intent_id)
    assert trail.say(intent_id, "alice").refusal is Refusal.SELF_APPROVAL
    for person in ("bob", "carol", "erin"):
        trail.say(intent_id, person)
    trail.claim(intent_id)
    return intent_id


def forgotten(trail: Trail) -> str:
    """The row of an old end is dropped; what still comes about it is told that its id is too old."""
    intent_id = trail.pending()
    trail.say(intent_id, "bob", Verdict.DENY)
    trail.now += 30 * HOUR
    row = trail.rows.pop(intent_id)
    asked = row.question
    assert asked is not None
    record = Decision(
        intent=intent_id,
        question=asked.digest,
        verdict=Verdict.APPROVE,
        account=account("bob"),
        channel=Channel.API,
        evidence=Evidence(kind="oidc", digest="e" * 64, issuer=IDP, auth_time=trail.now // 1000),
        card="c" * 64,
    )
    answer = trail.feed("decisions", record, "api")
    assert (answer.before, answer.refusal) == (None, Refusal.ID_OUT_OF_WINDOW)
    trail.rows[intent_id] = row
    return intent_id


def a_deferred_roster(trail: Trail) -> str:
    """A roster signed by a key that only the next directory lists waits for it."""
    before = directory()
    fresh = signer("sync-2")
    listed = next(key for key in before.keys if key.role == "roster")
    new = listed.model_copy(update={"keyid": fresh.keyid, "public": fresh.public})
    trail.change(successor(roster(groups=()), roster()), by="sync-2")
    assert {record.event for record in trail.records[-2:]} == {"world.deferred"}
    trail.change(successor(before, before, keys=(*before.keys, new)))
    assert trail.worlds[1].versions.roster == 2
    return trail.pending()


def a_rotated_key(trail: Trail) -> str:
    before = directory()
    trail.change(successor(roster(rotas=()), roster()), by="sync")
    keys = tuple(
        key.model_copy(update={"valid_until": trail.now + 500}) if key.role == "core" else key for key in before.keys
    )
    new = next(key for key in directory().keys if key.role == "core")
    fresh = signer("core-2")
    new = new.model_copy(update={"keyid": fresh.keyid, "public": fresh.public, "valid_from": START})
    trail.core = "core-2"
    trail.change(successor(before, before, keys=(*keys, new)))
    return trail.pending()


def refused_snapshots(trail: Trail) -> str:
    trail.change(successor(directory(), directory()), by="sync")
    trail.change(directory(version=5, previous="0" * 64))
    trail.change(successor(manifests(), manifests(), previous="1" * 64))
    return trail.pending()


STORIES: dict[Callable[[Trail], str], Phase] = {
    approved_and_done: Phase.SUCCEEDED,
    in_the_other_chain: Phase.FAILED,
    automatic: Phase.SUCCEEDED,
    on_call: Phase.SUCCEEDED,
    denied: Phase.DENIED,
    denied_by_policy: Phase.DENIED,
    expired: Phase.EXPIRED,
    expired_while_planning: Phase.EXPIRED,
    expired_after_approval: Phase.EXPIRED,
    withdrawn: Phase.WITHDRAWN,
    withdrawn_before_it_came: Phase.WITHDRAWN,
    revoked: Phase.REVOKED,
    barred: Phase.PENDING,
    stale: Phase.SUCCEEDED,
    stopped_by_a_stale: Phase.REVOKED,
    unknown_and_observed: Phase.SUCCEEDED,
    unknown_and_a_late_word: Phase.FAILED,
    unknown_and_resolved: Phase.FAILED,
    unknown_and_resolved_by_an_operator: Phase.FAILED,
    not_planned: Phase.REFUSED,
    reopened_at_the_claim: Phase.PENDING,
    denied_at_the_claim: Phase.DENIED,
    every_refusal: Phase.PENDING,
    refused_claims_and_outcomes: Phase.SUCCEEDED,
    late: Phase.PENDING,
    again: Phase.PLANNING,
    refused_at_the_door: Phase.REFUSED,
    a_growing_circle: Phase.PENDING,
    an_owner_who_left: Phase.EXECUTING,
    an_owner_who_left_while_intake_was_behind: Phase.EXECUTING,
    a_rotated_key: Phase.PENDING,
    a_deferred_roster: Phase.PENDING,
    forgotten: Phase.DENIED,
    refused_snapshots: Phase.PENDING,
}


@pytest.mark.parametrize(("story", "phase"), STORIES.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_an_honest_story_is_clean(story: Callable[[Trail], str], phase: Phase) -> None:
    trail = Trail().begin()
    intent_id = story(trail)
    report = trail.check()
    assert report.faults == []
    assert trail.rows[intent_id].phase is phase
    assert report.records == len(trail.records)
