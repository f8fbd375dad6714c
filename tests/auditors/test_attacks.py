"""Each way to tamper with a trail is found, and named by its law and its record.

First what anybody can do to stored bytes; then what a core with valid keys can write: consistent chain, fitting
signatures, and a law broken.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import root_for
from schemas import envelope
from schemas.record import Statement
from schemas.records import (
    Assurance,
    AuditRecord,
    Channel,
    Effect,
    PendingApproval,
    Phase,
    Refusal,
    Result,
    Said,
    Source,
    Subject,
    Verdict,
)
from schemas.snapshots import Directory, Policies
from schemas.world import World
from tests.auditors.builders import (
    HOUR,
    IDP,
    ROOT,
    START,
    WEAKER,
    Bundle,
    Line,
    Trail,
    directory,
    manifests,
    members_of,
    reforged,
    roster,
    save,
    signer,
    successor,
    value_of,
    with_header,
    with_value,
)


@dataclass(frozen=True)
class Attack:
    """What was done, and what the verifier must say of it."""

    law: int
    code: str
    #: Makes the tampered bundle, and names the record: (chain, seq), (topic, offset), or None.
    make: Callable[[], tuple[Bundle, Any]]
    #: Options of `keyturn audit verify` beside the bundle and the root key.
    options: tuple[str, ...] = ()


ATTACKS: dict[str, Attack] = {}


def attack(law: int, code: str, *options: str) -> Callable[[Callable[[], tuple[Bundle, Any]]], Callable[[], Any]]:
    """Into the suite."""

    def register(make: Callable[[], tuple[Bundle, Any]]) -> Callable[[], Any]:
        ATTACKS[make.__name__] = Attack(law, code, make, options)
        return make

    return register


def honest() -> Trail:
    """A whole life in core-1, and the beginning of one in core-0."""
    trail = Trail().begin()
    trail.outcome(trail.executing())
    trail.pending(agent="porter")
    return trail


def place(line: Line) -> tuple[str, int]:
    members = members_of(line)
    return members["chain"], members["seq"]


def at(record: AuditRecord) -> tuple[str, int]:
    return record.chain, record.seq


def middle(bundle: Bundle, event: str = "decision.recorded") -> int:
    """The index of the first record of this event."""
    return next(i for i, line in enumerate(bundle["audit"]) if members_of(line)["event"] == event)


# ---------------------------------------------------------------- stored bytes


@attack(10, "trail.signature")
def a_byte_is_flipped() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle, "claim.granted")
    line = bundle["audit"][index]
    bundle["audit"][index] = with_value(line, value_of(line).replace(b'"seq":', b'"seq":', 1).replace(b"7", b"8", 1))
    return bundle, None


@attack(10, "trail.malformed")
def a_byte_is_flipped_so_that_it_is_no_json() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    line = bundle["audit"][index]
    value = bytearray(value_of(line))
    value[1] ^= 0x01
    bundle["audit"][index] = with_value(line, bytes(value))
    return bundle, place(line)


@attack(10, "trail.gap")
def a_record_is_dropped() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    after = place(bundle["audit"][index + 1])
    del bundle["audit"][index]
    return bundle, after


@attack(10, "trail.order")
def two_records_change_places() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    lines = bundle["audit"]
    lines[index], lines[index + 1] = lines[index + 1], lines[index]
    return bundle, place(lines[index + 1])


@attack(10, "trail.gap")
def two_records_change_places_and_offsets() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    lines = bundle["audit"]
    first, second = lines[index], lines[index + 1]
    lines[index] = second | {"offset": first["offset"]}
    lines[index + 1] = first | {"offset": second["offset"]}
    return bundle, place(second)


@attack(10, "trail.gap")
def the_middle_is_cut_out() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    after = place(bundle["audit"][index + 3])
    del bundle["audit"][index : index + 3]
    return bundle, after


@attack(10, "trail.repeated")
def a_record_comes_twice() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    line = bundle["audit"][middle(bundle)]
    bundle["audit"].append(line | {"offset": len(bundle["audit"]) + 7})
    return bundle, place(line)


@attack(10, "trail.tombstone")
def a_record_is_erased() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    line = bundle["audit"][index]
    bundle["audit"][index] = with_value(line, None)
    return bundle, place(line)


@attack(10, "trail.malformed")
def a_record_is_spelt_with_blanks() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    line = bundle["audit"][index]
    bundle["audit"][index] = with_value(line, json.dumps(members_of(line), sort_keys=True).encode())
    return bundle, place(line)


@attack(10, "trail.malformed")
def a_member_is_there_twice() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    line = bundle["audit"][index]
    bundle["audit"][index] = with_value(line, value_of(line).replace(b"{", b'{"after":"denied",', 1))
    return bundle, place(line)


@attack(10, "trail.key")
def a_record_lies_under_another_key() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    line = bundle["audit"][index]
    bundle["audit"][index] = line | {"key": base64.b64encode(b"core-1/999").decode()}
    return bundle, place(line)


@attack(10, "trail.signature")
def a_record_carries_two_signatures() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    line = bundle["audit"][index]
    twice = [header for header in line["headers"] if header[0] == "sig"]
    bundle["audit"][index] = line | {"headers": line["headers"] + twice}
    return bundle, place(line)


@attack(10, "trail.signature")
def a_record_is_signed_by_another_role() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    bundle["audit"] = reforged(bundle["audit"], list, key="intake")
    return bundle, ("core-0", 1)


@attack(10, "trail.signature")
def a_signature_is_swapped() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    lines = bundle["audit"]
    other = dict(lines[index + 1]["headers"])["sig"]
    lines[index] = with_header(lines[index], "sig", base64.b64decode(other).decode())
    return bundle, place(lines[index])


@attack(10, "trail.signature")
def a_retired_core_key_goes_on_writing() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    before = directory()
    keys = tuple(
        key.model_copy(update={"valid_until": trail.now}) if key.role == "core" else key for key in before.keys
    )
    trail.change(successor(before, before, keys=keys))
    return trail.bundle(), at(trail.records[-1])


@attack(1, "trail.realm", "--realm", "acme-prod")
def a_whole_trail_is_of_another_realm() -> tuple[Bundle, Any]:
    return honest().bundle(), ("core-0", 1)


@attack(1, "trail.realm")
def one_record_is_of_another_realm() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    where = place(bundle["audit"][index])
    bundle["audit"] = reforged(
        bundle["audit"],
        lambda records: [
            record.model_copy(update={"realm": "acme-staging"}) if i == index else record
            for i, record in enumerate(records)
        ],
    )
    return bundle, where


@attack(10, "trail.head", "--head", f"core-1/11:{'0' * 64}")
def a_remembered_head_was_rewritten() -> tuple[Bundle, Any]:
    return honest().bundle(), ("core-1", 11)


@attack(10, "trail.head", "--head", f"core-1/99:{'0' * 64}")
def the_tail_is_cut_off() -> tuple[Bundle, Any]:
    return honest().bundle(), ("core-1", 99)


@attack(10, "bundle.line")
def a_line_is_garbage() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    bundle["audit"].insert(3, {"garbage": True})
    return bundle, None


@attack(6, "world.snapshot")
def a_directory_version_is_missing_in_its_topic() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    trail.change(successor(directory(), directory()))
    bundle = trail.bundle()
    del bundle["directory"][-1]
    return bundle, at(trail.records[-1])


@attack(6, "world.signature")
def the_first_directory_is_another_roots() -> tuple[Bundle, Any]:
    trail = honest()
    bundle = trail.bundle()
    sealed = envelope.seal(directory(), "1", signer("other-root"), trail.realm, source="administration")
    for name in ("keyid", "sig"):
        bundle["directory"][1] = with_header(bundle["directory"][1], name, dict(sealed.headers)[name].decode())
    return bundle, ("core-0", 1)


@attack(6, "world.snapshot")
def a_directory_is_rewritten_in_its_topic() -> tuple[Bundle, Any]:
    trail = honest()
    bundle = trail.bundle()
    richer = directory(rotas=("payments", "more"))
    sealed = envelope.seal(richer, "1", signer("root"), trail.realm, source="administration")
    line = with_value(bundle["directory"][1], sealed.value)
    bundle["directory"][1] = with_header(line, "sig", dict(sealed.headers)["sig"].decode())
    return bundle, ("core-0", 1)


@attack(11, "input.gap")
def an_input_is_dropped_from_its_topic() -> tuple[Bundle, Any]:
    trail = honest()
    bundle = trail.bundle()
    dropped = next(line for line in bundle["decisions"] if line["offset"] == 2)
    bundle["decisions"].remove(dropped)
    return bundle, ("decisions", 3)


@attack(9, "input.differs")
def an_input_is_altered_in_its_topic() -> tuple[Bundle, Any]:
    trail = honest()
    bundle = trail.bundle()
    index = next(i for i, line in enumerate(bundle["decisions"]) if line["offset"] == 2)
    line = bundle["decisions"][index]
    bundle["decisions"][index] = with_value(line, value_of(line).replace(b"approve", b"revoke"))
    record = next(each for each in trail.records if each.source == Source(topic="decisions", partition=1, offset=2))
    return bundle, at(record)


@attack(9, "input.differs")
def an_input_is_backdated_in_its_topic() -> tuple[Bundle, Any]:
    trail = honest()
    bundle = trail.bundle()
    index = next(i for i, line in enumerate(bundle["decisions"]) if line["offset"] == 2)
    bundle["decisions"][index]["timestamp"] -= 500
    record = next(each for each in trail.records if each.source == Source(topic="decisions", partition=1, offset=2))
    return bundle, at(record)


@attack(9, "input.differs")
def an_intent_is_not_what_intake_says() -> tuple[Bundle, Any]:
    trail = honest()
    bundle = trail.bundle()
    line = next(each for each in bundle["intents"] if each["offset"] == 1 and each["partition"] == 1)
    bundle["intents"][bundle["intents"].index(line)] = with_value(
        line, value_of(line).replace(b"quarterly", b"nightly  ")
    )
    return bundle, next(at(each) for each in trail.records if each.event == "intent.classified")


@attack(4, "output.unaudited")
def an_executor_is_granted_off_the_trail() -> tuple[Bundle, Any]:
    trail = honest()
    bundle = trail.bundle()
    grant = next(line for line in bundle["approved.s3"] if b'"granted_at"' in value_of(line))
    bundle["approved.s3"].append(
        with_header(with_value(grant, value_of(grant).replace(b"s3-a", b"s3-b")), "n", "2") | {"offset": 9}
    )
    return bundle, ("approved.s3", 9)


@attack(11, "output.number")
def a_word_to_the_executor_is_lost() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    del bundle["approved.s3"][0]
    bundle["approved.s3"].insert(0, with_header(bundle["approved.s3"][0], "n", "5") | {"offset": 0})
    return bundle, ("approved.s3", 1)


# ---------------------------------------------------------------- a core that lies: who decides


def without_circle(row: PendingApproval) -> PendingApproval:
    return row.model_copy(update={"circle": (), "circle_to": 99})


@attack(2, "decision.self")
def an_owner_approves_her_own_agents_intent() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    circle = trail.rows[intent_id].circle
    lie = trail.say(
        intent_id, "alice", row=without_circle, audit=lambda record: record.model_copy(update={"circle": circle})
    )
    assert lie.refusal is None
    return trail.bundle(), at(lie)


@attack(2, "decision.self")
def a_delegate_of_the_owner_approves() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    return _after(trail, trail.say(intent_id, "dave", row=without_circle))


def _after(trail: Trail, lie: AuditRecord) -> tuple[Bundle, Any]:
    assert lie.refusal is None
    return trail.bundle(), at(lie)


@attack(2, "circle.differs")
def the_circle_is_shown_smaller() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.ask()
    return _after(
        trail, trail.plan(intent_id, audit=lambda record: record.model_copy(update={"circle": record.circle[1:]}))
    )


@attack(2, "circle.differs")
def an_owner_leaves_the_circle_by_leaving_the_directory() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    before = directory()
    agents = tuple(agent.model_copy(update={"owners": ("gina",)}) for agent in before.agents)
    trail.change(successor(before, before, agents=agents))

    def only_now(row: PendingApproval) -> PendingApproval:
        return row.model_copy(update={"circle": (), "circle_from": 2, "circle_to": 1})

    return _after(trail, trail.say(intent_id, "alice", row=only_now))


@attack(2, "circle.differs")
def the_circle_begins_where_a_late_intake_read() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.asked_of_a_late_intake()

    def as_cited(row: PendingApproval) -> PendingApproval:
        return row.model_copy(update={"circle": (), "circle_from": 2, "circle_to": 1})

    return _after(trail, trail.plan(intent_id, row=as_cited))


@attack(9, "input.differs")
def intake_says_that_it_was_asked_after_an_owner_had_left() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    trail.asked_of_a_late_intake(late_by=60_000)
    return trail.bundle(), next(at(each) for each in trail.records if each.event == "intent.classified")


@attack(2, "person.unknown")
def an_account_of_nobody_decides() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    return _after(trail, trail.say(trail.pending(), "bob-ghost", world=with_ghost))


def with_ghost(world: World) -> World:
    """bob's second login, and a login of nobody, are persons of their own."""
    known = world.directories[-1]
    bob = next(person for person in known.persons if person.id == "bob")
    ghost = bob.model_copy(update={"id": "ghost", "accounts": bob.accounts[1:]})
    other = bob.model_copy(
        update={"id": "other", "accounts": (bob.accounts[0].model_copy(update={"subject": "bob-ghost"}),)}
    )
    persons = tuple(
        person.model_copy(update={"accounts": person.accounts[:1]}) if person.id == "bob" else person
        for person in known.persons
    )
    groups = tuple(
        group.model_copy(update={"members": (*group.members, "ghost", "other")}) if group.id == "sre" else group
        for group in known.groups
    )
    return with_directory(world, known.model_copy(update={"persons": (*persons, ghost, other), "groups": groups}))


def with_directory(world: World, instead: Directory) -> World:
    return replace(world, directories=(*world.directories[:-1], instead))


@attack(3, "decision.twice")
def one_person_takes_two_seats_by_two_logins() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    trail.say(intent_id, "bob")
    return _after(trail, trail.say(intent_id, "bob-admin", world=with_ghost))


@attack(3, "quorum.short")
def two_logins_of_one_person_fill_a_quorum() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    for login in ("erin", "bob"):
        trail.say(intent_id, login)
    lie = trail.say(intent_id, "bob-admin", world=with_ghost)
    assert lie.after is Phase.APPROVED
    return _after(trail, lie)


@attack(3, "decision.seat")
def somebody_without_a_seat_decides() -> tuple[Bundle, Any]:
    trail = Trail().begin()

    def erin_on_call(world: World) -> World:
        rota = world.rosters[-1].rotas[0]
        shifts = tuple(shift.model_copy(update={"person": "erin"}) for shift in rota.shifts)
        lied = world.rosters[-1].model_copy(update={"rotas": (rota.model_copy(update={"shifts": shifts}),)})
        return replace(world, rosters=(*world.rosters[:-1], lied))

    return _after(trail, trail.say(trail.pending(action="s3.page"), "erin", world=erin_on_call))


@attack(3, "quorum.short")
def it_is_approved_with_a_seat_empty() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    lie = trail.say(intent_id, "bob", row=with_one_seat, audit=asking_for(trail, intent_id))
    assert lie.after is Phase.APPROVED
    return _after(trail, lie)


def with_one_seat(row: PendingApproval) -> PendingApproval:
    """A requirement that one yes fulfils."""
    assert row.classification is not None
    assert row.classification.requirement is not None
    requirement = row.classification.requirement
    seat = next(seat for seat in requirement.seats if seat.of == "group:sre").model_copy(update={"count": 1})
    weaker = requirement.model_copy(update={"seats": (seat,)})
    return row.model_copy(update={"classification": row.classification.model_copy(update={"requirement": weaker})})


def asking_for(trail: Trail, intent_id: str) -> Callable[[AuditRecord], AuditRecord]:
    """Shows the requirement that was asked for, whatever was judged by."""
    classification = trail.rows[intent_id].classification
    assert classification is not None
    return lambda record: record.model_copy(update={"requirement": classification.requirement})


@attack(3, "quorum.short")
def it_is_granted_with_a_seat_no_longer_held() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.approved()
    trail.change(successor(roster(groups=()), roster()))
    lie = trail.claim(intent_id, world=lambda world: replace(world, rosters=(roster(), roster())))
    assert lie.after is Phase.EXECUTING
    return _after(trail, lie)


@attack(3, "quorum.short")
def old_yeses_fill_a_new_question() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    old = trail.rows[intent_id].votes
    trail.outcome(intent_id, Result.STALE)
    trail.plan(intent_id)
    trail.say(intent_id, "bob")

    def with_old(row: PendingApproval) -> PendingApproval:
        return row.model_copy(update={"votes": old[:2]})

    lie = trail.say(intent_id, "erin", row=with_old)
    assert lie.after is Phase.APPROVED
    return _after(trail, lie)


@attack(3, "decision.assurance")
def a_click_counts_as_a_login() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()

    def lenient(row: PendingApproval) -> PendingApproval:
        assert row.classification is not None
        assert row.classification.requirement is not None
        requirement = row.classification.requirement.model_copy(update={"assurance": Assurance.CHANNEL})
        return row.model_copy(
            update={"classification": row.classification.model_copy(update={"requirement": requirement})}
        )

    lie = trail.say(
        intent_id, "bob", by="console", channel=Channel.CONSOLE, row=lenient, audit=asking_for(trail, intent_id)
    )
    return _after(trail, lie)


@attack(3, "decision.barred")
def a_yes_counts_after_its_revoke() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    trail.say(intent_id, "bob", Verdict.REVOKE)
    return _after(trail, trail.say(intent_id, "bob", row=lambda row: row.model_copy(update={"barred": ()})))


@attack(3, "requirement.weaker")
def the_requirement_is_weakened() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.ask()

    def forgetful(row: PendingApproval) -> PendingApproval:
        assert row.classification is not None
        permit = row.classification.model_copy(update={"effect": Effect.PERMIT, "requirement": None, "rules": ()})
        return row.model_copy(update={"classification": permit})

    def weaker(world: World) -> World:
        return replace(world, policies=Policies(version=1, cedar=WEAKER))

    return _after(trail, trail.plan(intent_id, row=forgetful, world=weaker))


@attack(3, "requirement.weaker")
def a_question_asks_for_less_than_policy() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.ask()

    def fewer(record: AuditRecord) -> AuditRecord:
        assert record.requirement is not None
        return record.model_copy(
            update={"requirement": record.requirement.model_copy(update={"seats": record.requirement.seats[:1]})}
        )

    return _after(trail, trail.plan(intent_id, audit=fewer))


# ---------------------------------------------------------------- law 1


@attack(1, "question.differs")
def the_question_rests_on_other_facts() -> tuple[Bundle, Any]:
    trail = Trail().begin()

    def other(record: AuditRecord) -> AuditRecord:
        assert record.question is not None
        return record.model_copy(update={"question": record.question.model_copy(update={"facts": "f" * 64})})

    return _after(trail, trail.plan(trail.ask(), audit=other))


@attack(1, "decision.question")
def a_yes_to_another_question_counts() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    old = trail.rows[trail.pending(action="s3.page")].question
    assert old is not None
    intent_id = trail.pending()
    right = trail.rows[intent_id].question
    lie = trail.say(
        intent_id,
        "bob",
        question=old.digest,
        row=lambda row: row.model_copy(update={"question": old}),
        audit=lambda record: record.model_copy(update={"question": right}),
    )
    return _after(trail, lie)


@attack(1, "question.missing")
def an_executor_acts_without_a_question() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    other = trail.rows[trail.approved()]
    intent_id = trail.ask()
    borrowed = {
        name: getattr(other, name)
        for name in ("phase", "question", "plan", "votes", "approved_until", "classification")
    }
    assert other.question is not None
    lie = trail.claim(intent_id, question=other.question.digest, row=lambda row: row.model_copy(update=borrowed))
    assert lie.after is Phase.EXECUTING
    return _after(trail, lie)


@attack(1, "claim.question")
def a_claim_on_another_question_is_granted() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    old = trail.rows[trail.pending(action="s3.page")].question
    assert old is not None
    intent_id = trail.approved()
    lie = trail.claim(intent_id, question=old.digest, row=lambda row: row.model_copy(update={"question": old}))
    return _after(trail, lie)


@attack(1, "plan.body")
def a_plan_of_another_body_counts() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    other = trail.rows[trail.ask(action="s3.list")].classified
    intent_id = trail.ask()
    own = trail.rows[intent_id].classified
    assert other is not None
    assert own is not None
    digest = _inner(other)
    lie = trail.plan(
        intent_id,
        changes={"intent": digest},
        row=lambda row: row.model_copy(update={"classified": other, "intent_id": row.intent_id}),
    )
    return _after(trail, lie)


def _inner(classified: Statement) -> str:
    return Statement.model_validate(classified.body["intent"]).digest


@attack(1, "life.body")
def a_second_body_takes_a_pinned_id() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent = trail.intent()
    trail.feed("classified", trail.classified(intent), "intake")
    second = trail.classified(intent.model_copy(update={"ttl": 60}))
    lie = trail.feed("classified", second, "intake", row=lambda _: None)  # type: ignore[arg-type,return-value]
    assert lie.after is Phase.PLANNING
    return _after(trail, lie)


# ---------------------------------------------------------------- law 4


def as_approved(row: PendingApproval) -> PendingApproval:
    return row.model_copy(update={"phase": Phase.APPROVED, "approved_until": row.expires_at, "grant": None})


@attack(4, "grant.second")
def two_instances_are_granted() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    lie = trail.claim(intent_id, instance="s3-b", row=as_approved)
    assert lie.after is Phase.EXECUTING
    return _after(trail, lie)


@attack(4, "grant.second")
def a_grant_comes_after_the_end() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    trail.outcome(intent_id)
    return _after(trail, trail.claim(intent_id, instance="s3-b", row=as_approved))


@attack(4, "grant.differs")
def the_grant_said_is_another() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.approved()

    def more(row: PendingApproval) -> PendingApproval:
        return row.model_copy(update={"votes": row.votes[:3], "circle": row.circle[:1], "circle_to": 99})

    circle = trail.rows[intent_id].circle
    return _after(
        trail,
        trail.claim(intent_id, row=more, audit=lambda record: record.model_copy(update={"circle": circle})),
    )


@attack(4, "outcome.instance")
def another_instance_reports() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    row = trail.rows[intent_id]
    assert row.grant is not None
    grant = row.grant
    other = grant.model_copy(update={"instance": "s3-b"})
    lie = trail.outcome(
        intent_id,
        changes={"instance": "s3-b", "grant": other.digest},
        row=lambda row: row.model_copy(update={"grant": other}),
    )
    return _after(trail, lie)


@attack(4, "outcome.grant")
def an_outcome_of_another_grant_counts() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    other = trail.rows[trail.executing(agent="porter")].grant
    assert other is not None
    intent_id = trail.executing()
    lie = trail.outcome(
        intent_id, changes={"grant": other.digest}, row=lambda row: row.model_copy(update={"grant": other})
    )
    return _after(trail, lie)


@attack(4, "outcome.observed")
def somebody_observes_before_the_unknown() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    lie = trail.outcome(
        intent_id,
        changes={"observed": True, "unknown": "a" * 64},
        row=lambda row: row.model_copy(update={"phase": Phase.UNKNOWN, "unknown": "a" * 64}),
        audit=lambda record: record.model_copy(update={"before": Phase.EXECUTING}),
    )
    return _after(trail, lie)


@attack(4, "outcome.unproven")
def a_failure_is_told_as_a_success() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    lie = trail.outcome(
        intent_id, Result.FAILED, audit=lambda record: record.model_copy(update={"after": Phase.SUCCEEDED})
    )
    return _after(trail, lie)


@attack(4, "plan.round")
def a_plan_of_the_last_round_is_used_again() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    first = trail.rows[intent_id].round
    trail.outcome(intent_id, Result.STALE)
    lie = trail.plan(intent_id, changes={"round": first}, row=lambda row: row.model_copy(update={"round": first}))
    return _after(trail, lie)


@attack(4, "life.chain")
def one_requester_lives_in_two_chains() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    trail.ask()
    before = trail.partition
    trail.partition = lambda _: 0  # type: ignore[method-assign,assignment]
    intent = trail.intent()
    classified = trail.classified(intent)
    trail.partition = before  # type: ignore[method-assign]
    from broker.lifecycle import Event
    from schemas.record import state

    statement = state(classified, signer("intake"), trail.realm)
    source = trail.write("classified", 0, envelope.reseal(statement, intent.id, trail.realm, source="intake"))
    return _after(trail, trail._decide(intent.id, 0, Event(source, trail.now, classified, statement)))


@attack(10, "trail.chain")
def a_chain_answers_anothers_input() -> tuple[Bundle, Any]:
    bundle = honest().bundle()
    index = middle(bundle)
    bundle["audit"] = reforged(
        bundle["audit"],
        lambda records: [
            record.model_copy(update={"chain": "core-0"}) if i == index else record for i, record in enumerate(records)
        ],
    )
    return bundle, place(bundle["audit"][index])


@attack(4, "input.overtaken")
def a_revoke_is_never_answered() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.approved()
    unanswered(trail, lambda: trail.say(intent_id, "bob", Verdict.REVOKE))
    trail.now += 60_000
    trail.claim(intent_id)
    return trail.bundle(), ("decisions", 4)


def unanswered(trail: Trail, step: Callable[[], AuditRecord]) -> None:
    """An input that the core leaves where it is."""
    rows, chains, records = dict(trail.rows), dict(trail.chains), list(trail.records)
    lines = {topic: list(trail.topics.get(topic, [])) for topic in ("audit", "approved.s3")}
    numbers = dict(trail.numbers)
    step()
    trail.rows, trail.chains, trail.records, trail.numbers = rows, chains, records, numbers
    trail.topics.update(lines)


@attack(4, "input.overtaken")
def a_new_directory_is_never_read() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.approved()
    trail.change(successor(directory(), directory()), chains=[0])
    trail.now += 60_000
    trail.claim(intent_id)
    return trail.bundle(), ("directory", 2)


# ---------------------------------------------------------------- laws 9 and 11


@attack(11, "input.omitted")
def an_input_is_left_out_of_the_trail() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    unanswered(trail, lambda: trail.say(intent_id, "bob", Verdict.DENY))
    return _after(trail, trail.say(intent_id, "carol"))


@attack(9, "input.repeated")
def an_input_is_answered_twice() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    once = trail.say(intent_id, "bob")
    again = once.model_copy(update={"refusal": Refusal.ALREADY_DECIDED, "said": (), "until": None})
    head = trail.chains[1].head
    return _after_refusal(trail, trail.audit(again.model_copy(update={"seq": head.seq + 1, "prev": head.digest}), 1))


def _after_refusal(trail: Trail, lie: AuditRecord) -> tuple[Bundle, Any]:
    return trail.bundle(), at(lie)


@attack(9, "refusal.unfounded")
def a_revoke_is_refused_for_nothing() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.approved()
    row = trail.rows[intent_id]

    def refused(record: AuditRecord) -> AuditRecord:
        changes = {"after": record.before, "refusal": Refusal.NOTHING_TO_REVOKE, "said": (), "reason": None}
        return record.model_copy(update=changes)

    lie = trail.say(intent_id, "bob", Verdict.REVOKE, audit=refused)
    trail.rows[intent_id] = row
    return _after_refusal(trail, lie)


# ---------------------------------------------------------------- law 5


@attack(5, "decision.late")
def a_late_yes_counts() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    lie = trail.say(
        intent_id,
        "bob",
        at=trail.now + 2 * HOUR,
        row=lambda row: row.model_copy(update={"expires_at": START + 9 * HOUR}),
    )
    return _after(trail, lie)


@attack(5, "tick.early")
def time_runs_out_early() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    lie = trail.tick(
        1,
        trail.now + 5_000,
        intents=[intent_id],
        row=lambda row: row.model_copy(update={"expires_at": START}),
    )[0]
    return _after(trail, lie)


@attack(5, "tick.early")
def an_unknown_is_said_while_the_lease_runs() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    lie = trail.tick(
        1,
        trail.now + 5_000,
        intents=[intent_id],
        row=lambda row: row.model_copy(update={"settled_at": START}),
    )[0]
    return _after(trail, lie)


@attack(5, "claim.late")
def a_late_claim_is_granted() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.approved()
    lie = trail.claim(
        intent_id,
        at=trail.now + 2 * HOUR,
        row=lambda row: row.model_copy(update={"approved_until": START + 9 * HOUR}),
    )
    return _after(trail, lie)


@attack(5, "deadline.differs")
def a_lease_is_longer_than_the_manifest_says() -> tuple[Bundle, Any]:
    trail = Trail().begin()

    def longer(world: World) -> World:
        known = manifests()
        manifest = known.executors[0]
        actions = tuple(action.model_copy(update={"lease": 9_999}) for action in manifest.actions)
        lied = known.model_copy(update={"executors": (manifest.model_copy(update={"actions": actions}),)})
        return replace(world, manifests=lied)

    return _after(trail, trail.claim(trail.approved(), world=longer))


@attack(5, "deadline.differs")
def a_deadline_is_moved() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.ask()

    def later(record: AuditRecord) -> AuditRecord:
        return record.model_copy(update={"until": (record.until or 0) + HOUR})

    return _after(trail, trail.plan(intent_id, audit=later))


@attack(5, "trail.time")
def an_input_is_backdated() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    trail.say(intent_id, "bob", at=trail.now + 50_000)
    return _after(trail, trail.say(intent_id, "carol", at=trail.now - 40_000))


# ---------------------------------------------------------------- law 6


def with_sound_signatures(world: World) -> World:
    """Nobody's signature is looked at: the key that signed is listed as the one that may."""
    known = world.directories[-1]
    api = next(key for key in known.keys if key.role == "notifier")
    forger = signer("forger")
    listed = api.model_copy(update={"keyid": forger.keyid, "public": forger.public})
    return with_directory(world, known.model_copy(update={"keys": (*known.keys, listed)}))


@attack(6, "statement.signature")
def a_vote_is_forged_with_a_strangers_key() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    return _after(trail, trail.say(trail.pending(), "bob", by="forger", world=with_sound_signatures))


@attack(6, "statement.signature")
def a_votes_signature_is_anothers() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    trail.say(intent_id, "bob")
    first = trail.records[-1].statement
    assert first is not None
    lie = trail.say(
        intent_id,
        "carol",
        audit=lambda record: record.model_copy(
            update={"statement": record.statement.model_copy(update={"sig": first.sig})}  # type: ignore[union-attr]
        ),
    )
    return _after(trail, lie)


@attack(6, "statement.signature")
def a_retired_notifiers_key_vouches() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    before = directory()
    intent_id = trail.pending()
    keys = tuple(
        key.model_copy(update={"valid_until": trail.now}) if key.holder == "api" else key for key in before.keys
    )
    trail.change(successor(before, before, keys=keys))
    return _after(trail, trail.say(intent_id, "bob", world=lambda world: with_directory(world, before)))


@attack(6, "statement.signature")
def a_vote_of_another_realm_counts() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    lie = trail.say(
        trail.pending(), "bob", sealed_in="acme-staging", world=lambda world: replace(world, realm="acme-staging")
    )
    return _after(trail, lie)


@attack(6, "statement.signature")
def a_channel_vouches_for_anothers_click() -> tuple[Bundle, Any]:
    trail = Trail().begin()

    def any_channel(world: World) -> World:
        known = world.directories[-1]
        keys = tuple(
            key.model_copy(update={"channel": Channel.API, "max_assurance": Assurance.IDENTITY})
            if key.holder == "console"
            else key
            for key in known.keys
        )
        return with_directory(world, known.model_copy(update={"keys": keys}))

    return _after(trail, trail.say(trail.pending(), "bob", by="console", world=any_channel))


def where_everybody_vouches_for_every_login(world: World) -> World:
    known = world.directories[-1]
    keys = tuple(
        key.model_copy(update={"providers": (IDP,)}) if key.role in {"notifier", "gateway"} else key
        for key in known.keys
    )
    return with_directory(world, known.model_copy(update={"keys": keys}))


@attack(6, "statement.signature")
def a_chats_key_vouches_for_an_identity_providers_account() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending(action="s3.page")
    lie = trail.say(
        intent_id,
        "bob",
        by="slack",
        channel=Channel.SLACK,
        kind="chat",
        world=where_everybody_vouches_for_every_login,
    )
    assert lie.refusal is None
    return _after(trail, lie)


@attack(6, "statement.signature")
def a_gateways_key_asks_in_the_name_of_an_agent_that_does_not_list_it() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    before = directory()
    agents = tuple(agent.model_copy(update={"gateways": ()}) for agent in before.agents)
    trail.change(successor(before, before, agents=agents))
    classified = trail.classified(trail.intent(), by="gateway")
    lie = trail.feed("classified", classified, "intake", world=lambda world: with_directory(world, before))
    assert lie.refusal is None
    return _after(trail, lie)


@attack(6, "statement.signature")
def a_gateways_key_asks_in_the_name_of_a_person_whose_login_it_cannot_see() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    before = directory()
    keys = tuple(key.model_copy(update={"providers": ()}) if key.role == "gateway" else key for key in before.keys)
    trail.change(successor(before, before, keys=keys))
    wish = trail.intent(agent="carol").model_copy(update={"subject": Subject(type="person", id="carol")})
    classified = trail.classified(wish, by="gateway")
    lie = trail.feed("classified", classified, "intake", world=where_everybody_vouches_for_every_login)
    assert lie.refusal is None
    return _after(trail, lie)


@attack(2, "decision.self")
def an_owner_who_is_an_operator_resolves_her_agents_automatic_act() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.ask(action="s3.list")
    trail.plan(intent_id)
    trail.claim(intent_id)
    trail.tick(trail.partition(intent_id), trail.now + HOUR // 2)
    return _after(trail, trail.resolve(intent_id, "alice", row=without_circle))


@attack(6, "statement.signature")
def an_intent_of_a_forged_agent_is_admitted() -> tuple[Bundle, Any]:
    trail = Trail().begin()

    def porter_is_builder(world: World) -> World:
        known = world.directories[-1]
        keys = tuple(
            key.model_copy(update={"holder": "builder"}) if key.holder == "porter" else key for key in known.keys
        )
        return with_directory(world, known.model_copy(update={"keys": keys}))

    classified = trail.classified(trail.intent(), by="porter")
    return _after(trail, trail.feed("classified", classified, "intake", world=porter_is_builder))


@attack(6, "world.successor")
def a_directory_version_is_skipped() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    trail.change(directory(version=3, previous="0" * 64), skips=True)
    return trail.bundle(), at(trail.records[-1])


@attack(6, "world.signature")
def a_directory_that_no_root_signed_comes_into_force() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    trail.change(successor(directory(), directory()), by="sync", skips=True)
    return trail.bundle(), at(trail.records[-1])


@attack(6, "world.predecessor")
def a_forked_directory_comes_into_force() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    trail.change(directory(version=2, previous="0" * 64), skips=True)
    return trail.bundle(), at(trail.records[-1])


@attack(6, "world.versions")
def a_record_rests_on_a_world_that_is_not() -> tuple[Bundle, Any]:
    trail = Trail().begin()

    def newer(record: AuditRecord) -> AuditRecord:
        return record.model_copy(update={"versions": record.versions.model_copy(update={"directory": 2})})

    intent_id = trail.ask()
    return _after(trail, trail.plan(intent_id, audit=newer))


@attack(6, "world.ignored")
def a_new_directory_is_refused_for_nothing() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    trail.change(successor(directory(), directory()), chains=[0])
    statement = trail.records[-1]
    chain = trail.chains[1]
    lie = statement.model_copy(
        update={
            "event": "input.quarantined",
            "refusal": Refusal.STALE_WORLD,
            "chain": chain.name,
            "seq": chain.head.seq + 1,
            "prev": chain.head.digest,
            "versions": trail.worlds[1].versions,
        }
    )
    return _after_refusal(trail, trail.audit(lie, 1))


@attack(6, "life.final")
def a_denied_intent_goes_on() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    before = trail.rows[intent_id]
    trail.say(intent_id, "bob", Verdict.DENY)
    return _after(trail, trail.say(intent_id, "carol", row=lambda _: before))


@attack(6, "life.before")
def a_phase_is_jumped() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    lie = trail.claim(intent_id, row=as_approved)
    return trail.bundle(), at(lie)


@attack(6, "life.transition")
def a_tick_approves() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()

    def approves(record: AuditRecord) -> AuditRecord:
        return record.model_copy(update={"event": "decision.recorded", "after": Phase.APPROVED})

    trail.tick(1, trail.now + 2 * HOUR, intents=[intent_id])
    bundle = trail.bundle()
    bundle["audit"] = reforged(bundle["audit"], lambda records: [*records[:-1], approves(records[-1])])
    return bundle, place(bundle["audit"][-1])


@attack(6, "policy.denied")
def a_denied_proposal_goes_on() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent = trail.intent()
    honest_answer = trail.classified(intent)
    from schemas import policy

    lying = trail.classified(intent, classification=policy.deny("a_rule", "no"))
    assert honest_answer.classification is not None

    def goes_on(record: AuditRecord) -> AuditRecord:
        expires = lying.asked_at + 3_600_000
        return record.model_copy(
            update={
                "event": "intent.classified",
                "after": Phase.PLANNING,
                "classification": honest_answer.classification,
                "until": expires,
                "said": (Said(topic="planning.s3", type="keyturn.plan-request.v1", digest="0" * 64), *record.said),
            }
        )

    return _after(trail, trail.feed("classified", lying, "intake", audit=goes_on))


@attack(6, "policy.weaker")
def a_rule_that_fired_is_forgotten() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.ask()

    def forgets(record: AuditRecord) -> AuditRecord:
        assert record.classification is not None
        return record.model_copy(
            update={"classification": record.classification.model_copy(update={"rules": ("another",)})}
        )

    return _after(trail, trail.plan(intent_id, audit=forgets))


@attack(6, "statement.malformed")
def a_word_counts_without_its_statement() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    return _after(
        trail, trail.say(intent_id, "bob", audit=lambda record: record.model_copy(update={"statement": None}))
    )


@attack(6, "requester.unknown")
def an_agent_nobody_knows_is_admitted() -> tuple[Bundle, Any]:
    trail = Trail().begin()

    def with_stranger(world: World) -> World:
        known = world.directories[-1]
        stranger = known.agents[0].model_copy(update={"id": "stranger"})
        key = next(key for key in known.keys if key.holder == "builder")
        made = signer("stranger")
        listed = key.model_copy(update={"keyid": made.keyid, "public": made.public, "holder": "stranger"})
        return with_directory(
            world,
            known.model_copy(update={"agents": (*known.agents, stranger), "keys": (*known.keys, listed)}),
        )

    intent = trail.intent(agent="stranger")
    known = trail.worlds[trail.partition(intent.id)]
    from schemas import classification

    classified = trail.classified(intent)
    found = classification.classify(intent, classified.facts, None, with_stranger(known), trail.now)
    return _after(
        trail,
        trail.feed(
            "classified", classified.model_copy(update={"classification": found}), "intake", world=with_stranger
        ),
    )


# ---------------------------------------------------------------- laws 2 and 8, what is left


@attack(8, "said.differs")
def approved_is_said_before_it_is() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()

    def says(record: AuditRecord) -> AuditRecord:
        word = Said(topic="approved.s3", type="keyturn.approved-intent.v1", digest="0" * 64)
        return record.model_copy(update={"said": (word, *record.said)})

    return _after(trail, trail.say(intent_id, "bob", audit=says))


@attack(2, "withdrawal.stranger")
def a_stranger_withdraws() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.pending()
    trail.withdraw(intent_id, by=Subject(type="person", id="carol"), key="gateway")
    bundle = trail.bundle()
    status = Said(topic="status", type="keyturn.intent-status.v1", digest="0" * 64)

    def withdrawn(records: list[AuditRecord]) -> list[AuditRecord]:
        changes = {"refusal": None, "after": Phase.WITHDRAWN, "said": (status,), "reason": None}
        return [*records[:-1], records[-1].model_copy(update=changes)]

    bundle["audit"] = reforged(bundle["audit"], withdrawn)
    return bundle, place(bundle["audit"][-1])


@attack(2, "decision.self")
def an_owner_resolves_her_own_unknown() -> tuple[Bundle, Any]:
    trail = Trail().begin()
    intent_id = trail.executing()
    trail.tick(1, trail.now + HOUR // 2)
    return _after(trail, trail.resolve(intent_id, "alice", row=without_circle))


def require_found(done: Attack, folder: Path) -> None:
    """`keyturn audit verify` exits with 6, and names the law, the code and the record."""
    bundle, where = done.make()
    words = ["audit", "verify", "--bundle", str(save(bundle, folder)), "--root-key", ROOT.public, *done.options]
    ended = CliRunner().invoke(root_for(["audit"]), [*words, "--json"])
    assert ended.exit_code == 6, ended.output
    faults = json.loads(ended.stdout)["faults"]
    named = [fault for fault in faults if fault["code"] == done.code]
    assert named, faults
    assert named[0]["law"] == done.law
    if where is not None:
        places = {
            place
            for fault in named
            for place in ((fault.get("chain"), fault.get("seq")), (fault.get("topic"), fault.get("offset")))
        }
        assert where in places, named


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_found_and_named(name: str, tmp_path: Path) -> None:
    require_found(ATTACKS[name], tmp_path / "bundle")


def test_there_are_enough_attacks_and_every_law_a_trail_can_show_is_among_them() -> None:
    assert len(ATTACKS) >= 25
    assert {each.law for each in ATTACKS.values()} == {1, 2, 3, 4, 5, 6, 8, 9, 10, 11}


def test_the_trail_that_the_attacks_start_from_is_clean() -> None:
    assert honest().check().faults == []
