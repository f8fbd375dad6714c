"""Every intent's life, replayed: phases connect, nothing moves after the end, each step is what its input makes of it.

Where a step broke a law the replay goes on from what the trail says, so that one fault is not told a hundred times.
"""

from collections.abc import Iterable
from typing import Final

from . import canonical, judging, people, saying
from .canonical import Members
from .findings import Fault, Report
from .judging import CLAIM, CLASSIFIED, DECISION, PLAN, Case, Objection
from .life import MAX_BARRED, MAX_ROUNDS, Life, Vote, admitted
from .shapes import (
    EFFECTS,
    FINAL,
    RISKS,
    Audit,
    ShapeError,
    Statement,
    maybe_part,
    maybe_text,
    part,
    parts,
    require_form,
    require_requirement,
    text,
    texts,
    time_of,
    whole,
)
from .world import ChainWorld

GROWS: Final = frozenset({PLAN, DECISION, CLAIM})
"""What makes a row grow may be refused when the row is full; how full it is cannot be seen from outside."""
AT_THE_DOOR: Final = "intent.refused"
SHOWS_QUESTION: Final = frozenset(
    {"plan.reported", "claim.reopened", "decision.recorded", "decision.barred", "claim.granted"}
)
WIDENS: Final = SHOWS_QUESTION | {"intent.classified", "outcome.stale"}
"""Events after which the core has looked at every directory version for the circle."""


class Lives:
    """All intents of a trail."""

    def __init__(self, report: Report) -> None:
        """Faults and figures go to `report`."""
        self._report = report
        self._lives: dict[str, Life] = {}
        self._chains: dict[str, str] = {}

    def doubt(self, chain: str) -> None:
        """Records of this chain are missing: its open intents can no longer be judged by their history."""
        for life in self._lives.values():
            if life.chain == chain:
                life.is_certain = False

    def count(self) -> None:
        """Into the report: where every intent is."""
        for life in self._lives.values():
            self._report.phases[life.phase] += 1

    def take(self, audit: Audit, world: ChainWorld, realm: str, *, is_whole: bool) -> None:
        """Judge one answered input. `is_whole`: no record of its chain is missing so far."""
        statement = audit.statement
        if statement is None:
            self._fault(audit, "statement.malformed", f"{audit.event} without the statement it answers")
            return
        try:
            require_form(statement)
            named = judging.intent_named(statement)
        except ShapeError as exc:
            self._fault(audit, "statement.malformed", str(exc))
            return
        if audit.source.topic != judging.TOPIC_OF[statement.type]:
            self._fault(audit, "statement.malformed", f"{statement.type} does not come by {audit.source.topic}")
        if audit.intent is None or named not in {None, audit.intent}:
            self._fault(audit, "life.before", f"the record says {audit.intent}, its statement {named}")
            return
        self._require_one_chain(audit, audit.intent)
        life = self._known(audit)
        if life is None and not is_whole and audit.before is not None:
            # Its beginning is among what is missing.
            life = Life(audit.intent, audit.chain, audit.before, is_certain=False)
            self._lives[audit.intent] = life
        try:
            self._judge(Case(audit, statement, life, world, realm))
        except ShapeError as exc:
            self._fault(audit, "statement.malformed", str(exc))
            if (broken := self._lives.get(audit.intent)) is not None:
                broken.is_certain = False

    # ------------------------------------------------------------ judging

    def _judge(self, case: Case) -> None:
        audit, life = case.audit, case.life
        if life is not None and not life.is_certain:
            self._follow(case, life)
            return
        before = case.phase
        if audit.before != before:
            self._fault(audit, "life.before", f"it was {before}, the record says {audit.before}")
        if life is not None and before not in FINAL and case.statement.type != CLASSIFIED:
            life.widen(case.world)
        if audit.refusal is not None and audit.event != AT_THE_DOOR:
            self._refused(case, judging.objections(case))
            return
        if audit.event == AT_THE_DOOR:
            self._refused_at_the_door(case)
        else:
            self._object(audit, judging.objections(case))
        self._require_listed(case, before)
        if audit.event in judging.EVENTS[case.statement.type]:
            self._counted(case, before)
        elif life is not None:
            life.is_certain = False
            self._follow(case, life)

    def _object(self, audit: Audit, found: Iterable[Objection]) -> None:
        for each in found:
            self._fault(audit, each.code, each.what)

    def _refused(self, case: Case, found: list[Objection]) -> None:
        """Law 9: refused, with a reason that holds; nothing moved."""
        audit, refusal = case.audit, case.audit.refusal or ""
        self._report.refusals[refusal] += 1
        if audit.before != audit.after:
            self._fault(audit, "life.transition", f"refused, and yet from {audit.before} to {audit.after}")
        if audit.event != judging.NAME_WHEN_REFUSED[case.statement.type]:
            self._fault(audit, "life.transition", f"a refused {case.statement.type} is no {audit.event}")
        if refusal == "internal" or (refusal == "overloaded" and case.statement.type in GROWS):
            self._report.note(f"{audit.chain}/{audit.seq}: refused as `{refusal}`: {(audit.reason or '')[:200]}")
        elif all(each.refusal != refusal for each in found):
            what = f"refused as {refusal}; " + (
                f"what speaks against it is {sorted({each.refusal for each in found})}" if found else "nothing does"
            )
            self._fault(audit, "refusal.unfounded", what)
        if case.life is not None:
            asked = case.life.question if case.statement.type == DECISION else None
            self._require_shown(case, is_due=asked is not None, circle=case.life.circle_shown)
        is_heard = not any(each.code == "statement.signature" for each in found)
        self._require_said(case, audit.before, None, is_told=is_heard)

    def _refused_at_the_door(self, case: Case) -> None:
        """An admission that was refused pins its id all the same: intake's word for it must count."""
        audit, refusal = case.audit, case.audit.refusal
        self._report.refusals[refusal or "none"] += 1
        if case.statement.type != CLASSIFIED or case.life is not None:
            return  # told as a step that is not listed
        self._object(audit, judging.outright(case))
        by_intake = maybe_text(case.statement.body, "refusal")
        is_founded = refusal == by_intake or any(each.refusal == refusal for each in judging.objections(case))
        if not is_founded and (by_intake is not None or refusal not in judging.UNCHECKABLE):
            self._fault(audit, "refusal.unfounded", f"refused as {refusal}; intake said {by_intake or 'yes'}")

    def _require_listed(self, case: Case, before: str | None) -> None:
        audit = case.audit
        listed = judging.TRANSITIONS.get((before, case.statement.type), frozenset())
        if (audit.event, audit.after) not in listed and (listed or audit.event == AT_THE_DOOR):
            self._fault(
                audit, "life.transition", f"{case.statement.type} while {before}: {audit.event} to {audit.after}"
            )

    def _counted(self, case: Case, before: str | None) -> None:
        """The step happened: what it makes of the intent, and whether the record shows and says that."""
        audit = case.audit
        ended_question = case.life.question_digest if case.life is not None else None
        case = self._moved(case)
        life = case.life
        if life is None:
            return
        life.phase = audit.after or life.phase
        self._require_shown(case, is_due=audit.event in SHOWS_QUESTION, circle=frozenset(life.circle))
        if audit.event in WIDENS:
            life.circle_shown = frozenset(life.circle)
        self._require_said(case, before, ended_question, is_told=True)
        if life.phase in FINAL:
            life.end(audit.log_time)

    def _follow(self, case: Case, life: Life) -> None:
        """Records before are missing: only what this record can be held against by itself."""
        audit = case.audit
        if case.life is not None and life.phase in FINAL and audit.after != life.phase:
            self._fault(audit, "life.final", f"it was {life.phase} and is {audit.after}")
        if audit.refusal is not None:
            self._report.refusals[audit.refusal] += 1
        elif case.statement.type == DECISION:
            self._report.decisions[text(case.statement.body, "verdict")] += 1
        if audit.refusal is None and audit.event != AT_THE_DOOR:
            refusal = case.world.directory.refuses(case.statement, audit.log_time, case.realm)
            if refusal is not None:
                self._fault(audit, "statement.signature", f"{case.statement.type} is {refusal}")
        life.phase = audit.after or life.phase
        if life.phase in FINAL and life.ended_at is None:
            life.end(audit.log_time)

    # ------------------------------------------------------------ moving

    def _moved(self, case: Case) -> Case:
        """The case with the life after this step."""
        audit, life = case.audit, case.life
        if life is None:
            return self._born(case)
        match audit.event:
            case "plan.reported" | "claim.reopened":
                life.plan = case.statement if audit.event == "plan.reported" else life.plan
                self._ask(case, life)
            case "plan.denied" | "claim.denied":
                self._require_judgement(case, life)
            case "decision.recorded" | "decision.barred" | "decision.remembered":
                self._decided(case, life)
            case "claim.granted":
                self._granted(case, life)
            case "outcome.reported" | "outcome.stale" | "outcome.unclear":
                self._reported(case, life)
            case "outcome.unknown":
                life.unknown = canonical.digest_of(saying.unknown(life, audit.log_time))
            case "outcome.resolved":
                self._require_end(case, text(case.statement.body, "found"))
            case "intent.remembered":
                life.remembered = life.remembered or "withdrawn"
            case _:
                pass
        return case

    def _born(self, case: Case) -> Case:
        audit, statement = case.audit, case.statement
        if audit.intent is None or audit.after is None:
            return case
        if statement.type == CLASSIFIED:
            life = admitted(audit, statement, case.world, audit.after)
            if audit.event != AT_THE_DOOR:
                life.widen(case.world)
            if audit.event != AT_THE_DOOR:
                self._require_judgement(case, life)
            if audit.after == "planning":
                self._require_deadline(case, life)
        else:
            life = Life(audit.intent, audit.chain, audit.after)
            if audit.after not in FINAL:
                life.is_certain = False
        self._lives[audit.intent] = life
        return Case(audit, statement, life, case.world, case.realm)

    def _require_judgement(self, case: Case, life: Life) -> None:
        """Laws 3 and 6: what the core found is shown, and no weaker than anything said before: rules only tighten."""
        audit, found, floor = case.audit, case.audit.classification, life.judgement
        if found is None:
            self._fault(audit, "policy.missing", audit.event)
            return
        effect = text(found, "effect")
        if (effect == "require_approval") != ("requirement" in found):
            self._fault(audit, "requirement.differs", f"{effect} goes with a requirement exactly when people are asked")
        if floor is None:
            # Intake said nothing: that is a denial.
            if effect != "deny":
                self._fault(audit, "policy.denied", "intake proposed nothing")
        else:
            self._require_no_weaker(audit, found, floor)
        if audit.after != "denied" and effect == "deny":
            self._fault(audit, "policy.denied", f"{audit.event} to {audit.after}, though policy denies")
        if audit.after == "denied" and effect != "deny" and case.world.action(life.action) is not None:
            self._fault(audit, "policy.denied", f"{audit.event}, though policy says {effect}")
        life.judgement = found

    def _require_no_weaker(self, audit: Audit, found: Members, floor: Members) -> None:
        effect, was = text(found, "effect"), text(floor, "effect")
        asked, before = maybe_part(found, "requirement"), maybe_part(floor, "requirement")
        if EFFECTS.index(effect) < EFFECTS.index(was):
            self._fault(audit, "policy.denied" if was == "deny" else "requirement.weaker", f"{effect} after {was}")
        is_weaker = before is not None and (asked is None or not people.is_at_least(asked, before))
        if effect == was == "require_approval" and is_weaker:
            shown, due = canonical.encode(asked or {}).decode(), canonical.encode(before or {}).decode()
            self._fault(audit, "requirement.weaker", f"{shown} where {due} was asked for"[:900])
        if RISKS.index(text(found, "risk")) < RISKS.index(text(floor, "risk")):
            self._fault(audit, "policy.weaker", f"risk {text(found, 'risk')} after {text(floor, 'risk')}")
        lost = sorted(set(texts(floor, "rules")) - set(texts(found, "rules")))
        if lost and effect != "deny":
            self._fault(audit, "policy.weaker", f"rules {lost} fired before"[:400])

    def _require_deadline(self, case: Case, life: Life) -> None:
        """Law 5: the requester's own time, shortened by policy, from when it was asked."""
        audit = case.audit
        seconds = whole(life.body, "ttl")
        if life.judgement is not None and (requirement := maybe_part(life.judgement, "requirement")) is not None:
            seconds = min(seconds, whole(requirement, "within"))
        due = life.asked_at + 1000 * seconds
        if audit.until != due:
            self._fault(audit, "deadline.differs", f"until {audit.until} where {due} is due")
        life.expires_at = due

    def _ask(self, case: Case, life: Life) -> None:
        """Laws 1 and 3: the question over what is in force; every earlier yes is void."""
        audit = case.audit
        if audit.requirement is not None:
            require_requirement(audit.requirement)
        self._require_judgement(case, life)
        in_force = maybe_part(life.judgement, "requirement") if life.judgement is not None else None
        if audit.requirement != in_force:
            self._fault(audit, "requirement.weaker", "the question asks for something else than policy does")
        life.requirement = audit.requirement
        classified = life.classified.body if life.classified is not None else {}
        question: Members = {
            "realm": case.realm,
            "intent_id": life.intent,
            "intent": life.body_digest or "",
            "plan": life.plan.digest if life.plan is not None else "",
            "facts": canonical.digest_of([*parts(classified, "facts")]),
            "requirement": canonical.digest_of(audit.requirement if audit.requirement is not None else {}),
            "opened": audit.source.to_json(),
        }
        life.question, life.question_digest = question, canonical.digest_of(question)
        life.votes, life.barred = [], set()
        deadline = life.expires_at if life.expires_at is not None else audit.log_time
        if audit.requirement is not None:
            deadline = min(deadline, life.asked_at + 1000 * whole(audit.requirement, "within"))
        if audit.until != deadline:
            self._fault(audit, "deadline.differs", f"until {audit.until} where {deadline} is due")
        life.expires_at = deadline
        life.approved_until = deadline if audit.after == "approved" else None
        if audit.after == "approved" and audit.requirement is not None:
            self._fault(audit, "quorum.short", "approved as soon as it was asked")
        if audit.after == "pending" and audit.requirement is None:
            self._fault(audit, "requirement.differs", "pending without anybody to ask")

    def _decided(self, case: Case, life: Life) -> None:
        audit, verdict = case.audit, text(case.statement.body, "verdict")
        self._report.decisions[verdict] += 1
        person = people.decider(case.statement, case.world.directory) or ""
        due: tuple[str, str]
        match verdict, life.phase:
            case "approve", _:
                due = ("decision.recorded", self._voted(case, life, person))
            case "deny", "executing":
                life.remembered = life.remembered or "denied"
                due = ("decision.remembered", "executing")
            case "deny", _:
                due = ("decision.recorded", "denied")
            case _, "executing":
                life.remembered = life.remembered or "revoked"
                due = ("decision.remembered", "executing")
            case _ if person in life.voters:
                due = ("decision.recorded", "revoked")
            case _:
                life.barred.add(person)
                is_crowd = len(life.barred) > MAX_BARRED
                due = ("decision.recorded", "revoked") if is_crowd else ("decision.barred", "pending")
        if (audit.event, audit.after) != due and verdict != "approve":
            what = f"a {verdict} is {due[0]} to {due[1]}, not {audit.event} to {audit.after}"
            self._fault(audit, "life.transition", what)

    def _voted(self, case: Case, life: Life, person: str) -> str:
        """Law 3: approved exactly when every seat is filled."""
        audit = case.audit
        if life.requirement is None:
            self._fault(audit, "question.missing", "a yes without a question")
            return "pending"
        life.votes.append(Vote(person, case.statement, audit.log_time, audit.source))
        is_filled = life.is_filled(case.world)
        if is_filled and audit.after == "pending":
            self._fault(audit, "quorum.ignored", f"{sorted(life.voters)} fill every seat")
        if not is_filled and audit.after == "approved":
            self._fault(
                audit, "quorum.short", f"{sorted(life.voters)} do not fill {people.places(life.requirement)}"[:400]
            )
        if audit.after == "approved":
            life.approved_until = life.expires_at
            if audit.until != life.expires_at:
                self._fault(audit, "deadline.differs", f"approved until {audit.until} where {life.expires_at} is due")
        return "approved" if is_filled else "pending"

    def _granted(self, case: Case, life: Life) -> None:
        """Laws 1, 3, 4: everything is judged again, and the right to act is exactly this."""
        audit = case.audit
        self._report.grants += 1
        if life.is_granted:
            self._fault(audit, "grant.second", f"granted before: {life.grant_digest}")
        if life.question is None or audit.question is None:
            self._fault(audit, "question.missing", "a grant without a question")
        self._require_requester(case, life)
        sitting = life.counting(case.world)
        if life.question is not None and not life.is_filled(case.world):
            wanted = people.places(life.requirement) if life.requirement is not None else []
            self._fault(audit, "quorum.short", f"{sorted(life.voters)} do not fill {wanted} at the claim"[:400])
        action = case.world.action(life.action)
        if action is None:
            self._fault(audit, "requirement.differs", f"no executor offers {life.action} any more")
        lease_until = audit.until or 0
        if action is not None and lease_until != audit.log_time + action.lease_ms:
            self._fault(
                audit, "deadline.differs", f"the lease ends at {audit.until}, not {audit.log_time + action.lease_ms}"
            )
        life.settled_at = lease_until + (action.settle_ms if action is not None else 0)
        life.instance = text(case.statement.body, "instance")
        life.is_granted = True
        life.grant = saying.grant(life, audit, case.statement, lease_until, sitting)
        life.grant_digest = canonical.digest_of(life.grant)

    def _require_requester(self, case: Case, life: Life) -> None:
        """Law 6: nobody acts for a requester whose key was taken away, as of when it asked."""
        if life.classified is not None:
            asked = Statement.read(part(life.classified.body, "intent"))
            refusal = case.world.directory.refuses(asked, whole(life.classified.body, "asked_at"), case.realm)
            if refusal is not None:
                self._fault(case.audit, "statement.signature", f"the intent is {refusal} at the claim")

    def _reported(self, case: Case, life: Life) -> None:
        audit, result = case.audit, text(case.statement.body, "result")
        due: tuple[str, str]
        match result, life.phase:
            case "succeeded", _:
                due = ("outcome.reported", "succeeded")
            case "unknown", phase:
                due = ("outcome.unclear", phase)
            case "stale", "executing" if life.remembered is not None or life.round_number < MAX_ROUNDS:
                due = ("outcome.stale", life.remembered or "planning")
            case _:
                due = ("outcome.reported", "failed")
        if (audit.event, audit.after) != due:
            self._fault(
                audit,
                "outcome.unproven",
                f"`{result}` is {due[0]} to {due[1]}, not {audit.event} to {audit.after}",
            )
        if audit.after == "planning":
            life.round_number += 1
            life.round_opened = audit.source
            life.plan = life.question = life.question_digest = life.grant = life.grant_digest = None
            life.instance = life.settled_at = life.approved_until = None
            life.votes, life.barred, life.is_granted = [], set(), False

    def _require_end(self, case: Case, found: str) -> None:
        if case.audit.after != found:
            self._fault(case.audit, "outcome.unproven", f"people found {found!r}, the record says {case.audit.after}")

    # ------------------------------------------------------------ shown and said

    def _require_shown(self, case: Case, *, is_due: bool, circle: frozenset[str]) -> None:
        """The question, the requirement and the circle as the record shows them."""
        audit, life = case.audit, case.life
        if life is None or life.ended_at is not None:
            return
        if audit.question is None:
            if is_due:
                self._fault(audit, "question.missing", f"{audit.event} does not show what was asked")
            return
        if audit.question != life.question:
            self._fault(audit, "question.differs", _difference(audit.question, life.question))
        if audit.requirement != life.requirement:
            self._fault(audit, "requirement.differs", "not the one the question was opened with")
        if [*audit.circle] != sorted(circle):
            missing, more = sorted(circle - set(audit.circle)), sorted(set(audit.circle) - circle)
            self._fault(audit, "circle.differs", f"without {missing}, with {more}"[:400])

    def _require_said(self, case: Case, before: str | None, ended_question: str | None, *, is_told: bool) -> None:
        due = saying.expected(case, before, ended_question, is_told)
        what = saying.differs(case.audit.said, due)
        if what is not None:
            code = "grant.differs" if any(saying.GRANT in each.type for each in case.audit.said) else "said.differs"
            self._fault(case.audit, code, what)

    # ------------------------------------------------------------ small pieces

    def _known(self, audit: Audit) -> Life | None:
        """The life, unless the core may have forgotten it and answers as if it had never been."""
        life = self._lives.get(audit.intent or "")
        if life is None or audit.intent is None:
            return None
        if (
            audit.before is None
            and audit.refusal is not None
            and life.is_forgettable(audit.log_time, time_of(audit.intent))
        ):
            return None
        return life

    def _require_one_chain(self, audit: Audit, intent: str) -> None:
        """Law 4: all intents of a requester meet in one partition; two chains could grant twice."""
        requester = intent.partition(".")[0]
        chain = self._chains.setdefault(requester, audit.chain)
        if chain != audit.chain:
            self._fault(audit, "life.chain", f"{requester} lives in {chain}")

    def _fault(self, audit: Audit, code: str, what: str) -> None:
        place = audit.source
        self._report.fault(
            Fault(code, what, audit.chain, audit.seq, place.topic, place.partition, place.offset, audit.intent)
        )


def _difference(shown: Members, due: Members | None) -> str:
    if due is None:
        return "no question is open"
    wrong = sorted(name for name in {*shown, *due} if shown.get(name) != due.get(name))
    return f"{', '.join(wrong)}: {[shown.get(name) for name in wrong]} where {[due.get(name) for name in wrong]}"[:600]
