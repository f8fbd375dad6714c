"""Wrong versions of the shipped code, each of which breaks a law: the simulator must find it, or else the tests it names.

Where a law is held twice, the edits switch the second place off too, so that it can't hide what the first one lost.
"""

from dataclasses import dataclass

from tests.laws.mutating import Edit

LIFE = "broker.lifecycle"
ORDER = "broker.core.order"
DECIDING = "broker.core.deciding"
PARTITION = "broker.core.partition"
CHECKING = "executors.checking"
AUTHORITY = "schemas.authority"
ACTOR = "executors.actor"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong version."""

    name: str
    law: int
    edits: tuple[Edit, ...]
    #: Themes (by number in `THEMES`) whose histories are told first.
    themes: tuple[int, ...] = ()
    #: What else catches it, when the simulator has nothing to do with it: files of tests.
    tests: tuple[str, ...] = ()


NO_INSTANCE_CHECK = Edit(CHECKING, "    if grant.instance != own.instance:\n", "    if False:\n")
NO_CLAIM_CHECK = Edit(
    CHECKING,
    "    if (grant.claim.partition, grant.claim.offset) not in {(own.partition, own.offset) for own in known.claims}:\n",
    "    if False:\n",
)
NO_USED_CHECK = Edit(CHECKING, "    if known.spent is not None:\n", "    if False:\n")
NO_CIRCLE_CHECK = Edit(CHECKING, "    if person in behind:\n", "    if False:\n")
NO_SEATS_CHECK = Edit(CHECKING, "    if not seats.is_filled(requirement, sits):\n", "    if False:\n")
NO_YES_CHECK = Edit(
    CHECKING, "    if authority.refuses(vote.decision, vote.log_time) is not None:\n", "    if False:\n"
)
NO_QUESTION_CHECK = Edit(
    CHECKING,
    "    if decision.intent != grant.question.intent_id or decision.question != grant.question.digest:\n",
    "    if False:\n",
)
NO_TIME_CHECK = Edit(
    CHECKING, "    if grant.granted_at >= _deadline_for_people(grant, classified, intent):\n", "    if False:\n"
)
NO_LATE_YES_CHECK = Edit(
    CHECKING,
    "    if not first <= vote.log_time <= last or vote.log_time >= deadline:\n",
    "    if False:\n",
)

MUTANTS = (
    # ------------------------------------------------------------ law 1
    Mutant(
        "any question",
        1,
        (
            Edit(
                LIFE,
                "    intent = intent_of(row)\n    if decision.question != _question(row).digest:\n",
                "    intent = intent_of(row)\n    if False:\n",
            ),
            NO_QUESTION_CHECK,
        ),
    ),
    Mutant(
        "repin: the last body seen counts",
        1,
        (
            Edit(
                LIFE,
                '    raise _Refused(Refusal.CONFLICT, "another body was seen first under this id; take a new id")\n',
                "    return Step(row.model_copy(update={'classified': case.event.statement}), 'intent.classified')\n",
            ),
            Edit(
                LIFE,
                '"always refused: duplicate or conflict", _again)',
                '"always refused: duplicate or conflict", _again, _ANY)',
            ),
        ),
    ),
    Mutant(
        "a stale plan is asked about under the old yeses",
        1,
        (
            Edit(
                LIFE,
                '            "plan": None,\n            "question": None,\n            "votes": (),\n',
                '            "plan": None,\n            "question": None,\n',
            ),
            Edit(
                LIFE,
                '            "question": asked,\n            "votes": (),\n            "barred": (),\n',
                '            "question": asked,\n            "barred": (),\n',
            ),
            NO_QUESTION_CHECK,
        ),
        themes=(3, 6),
    ),
    # ------------------------------------------------------------ law 2
    Mutant(
        "selfok: who stands behind the requester may say yes",
        2,
        (
            Edit(
                LIFE,
                '    if person in row.circle:\n        raise _Refused(Refusal.SELF_APPROVAL, f"{person} stands behind the requester")\n    if person in row.barred:\n',
                "    if person in row.barred:\n",
            ),
            Edit(LIFE, "    if vote.person in row.circle or world", "    if world"),
            NO_CIRCLE_CHECK,
        ),
        themes=(9,),
    ),
    Mutant(
        "today's circle only",
        2,
        (
            Edit(LIFE, "world.directories_between(row.circle_to + 1, now)", "world.directories_between(now, now)"),
            Edit(
                LIFE, "    everybody = tuple(sorted({*row.circle, *found}))\n", "    everybody = tuple(sorted(found))\n"
            ),
            NO_CIRCLE_CHECK,
        ),
        themes=(9,),
    ),
    Mutant(
        "the circle begins where intake read, not where it was asked",
        2,
        (
            Edit(LIFE, "    begins = case.world.circle_begins(asked_at, cited)\n", "    begins = max(cited, 1)\n"),
            NO_CIRCLE_CHECK,
        ),
        themes=(9,),
    ),
    Mutant(
        "an operator inside the circle says what became of it",
        2,
        (
            Edit(
                LIFE,
                '    if person in row.circle:\n        raise _Refused(Refusal.SELF_APPROVAL, f"{person} stands behind the requester")\n    requirement = ',
                "    requirement = ",
            ),
        ),
        tests=("tests/broker/test_lifecycle_table.py",),
    ),
    Mutant(
        "an account that is nobody's, or somebody else's, counts",
        2,
        (
            Edit(LIFE, "    return person == vote.person and _reaches(", "    return _reaches("),
            Edit(LIFE, "            if claimed is not None and claimed != person.id:\n", "            if False:\n"),
            Edit(
                LIFE,
                '            return person.id\n    raise _Refused(Refusal.UNKNOWN_PERSON, "no person of the directory has this account")\n',
                "            return person.id\n    return 'dan'\n",
            ),
        ),
    ),
    # ------------------------------------------------------------ law 3
    Mutant(
        "dupvote: accounts instead of persons",
        3,
        (
            Edit(
                LIFE,
                "    if person in {vote.person for vote in row.votes}:\n        raise",
                "    if False:\n        raise",
            ),
            Edit(
                LIFE,
                "        vote.person: _seats_of(vote.person, requirement, world, vote.log_time)\n",
                "        vote.decision.digest: _seats_of(vote.person, requirement, world, vote.log_time)\n",
            ),
            Edit(
                LIFE,
                "    votes = tuple(vote for vote in row.votes if sitting.get(vote.person))\n",
                "    votes = row.votes\n",
            ),
        ),
    ),
    Mutant(
        "one seat is enough",
        3,
        (
            Edit(LIFE, "    if len(now) == len(seats.places(requirement)):\n", "    if now:\n"),
            Edit(
                LIFE,
                "    is_filled = requirement is None or seats.is_filled(requirement, sitting)\n",
                "    is_filled = True\n",
            ),
        ),
        themes=(4, 9),
    ),
    Mutant(
        "anybody sits",
        3,
        (
            Edit(
                LIFE,
                "    return [of for of in wanted if directory and seats.may_sit(person, of, directory, world.rosters, log_time)]\n",
                "    return wanted\n",
            ),
            NO_SEATS_CHECK,
        ),
    ),
    Mutant(
        "norecheck: nothing is judged again at the claim",
        3,
        (
            Edit(
                LIFE,
                "    own = _judged_now(row, intent, event, world)\n    found = policy.stricter(_in_force(row), own)\n",
                "    found = _in_force(row)\n",
            ),
            Edit(
                LIFE,
                "    is_filled = requirement is None or seats.is_filled(requirement, sitting)\n",
                "    is_filled = True\n",
            ),
            Edit(
                LIFE,
                "    votes = tuple(vote for vote in row.votes if sitting.get(vote.person))\n",
                "    votes = row.votes\n",
            ),
        ),
        themes=(10, 9),
    ),
    Mutant(
        "policy's later word may loosen",
        3,
        (
            Edit(
                LIFE,
                '    found = policy.stricter(_in_force(row), own)\n    row = row.model_copy(update={"plan"',
                '    found = _in_force(row)\n    row = row.model_copy(update={"plan"',
            ),
            Edit(
                LIFE,
                "    own = _judged_now(row, intent, event, world)\n    found = policy.stricter(_in_force(row), own)\n",
                "    found = _in_force(row)\n",
            ),
        ),
    ),
    # ------------------------------------------------------------ law 4
    Mutant(
        "no barrier for claims",
        4,
        (
            Edit(
                ORDER, "            if not reports[0].is_claim or self._is_passed(REPORTS):\n", "            if True:\n"
            ),
        ),
    ),
    Mutant(
        "no barrier for ticks",
        4,
        (Edit(ORDER, "            if self._is_passed(TICKS):\n", "            if True:\n"),),
        themes=(7, 12),
    ),
    Mutant(
        "cached end offsets",
        4,
        (
            Edit(
                ORDER,
                "        return barrier is not None and self._waiting[topic][0].offset < barrier.upto\n",
                "        return barrier is not None\n",
            ),
        ),
    ),
    Mutant(
        "the world is not waited for",
        4,
        (
            Edit(
                ORDER,
                "BEFORE_CLAIM: Final = (*WORLD, CLASSIFIED, DECISIONS)\n",
                "BEFORE_CLAIM: Final = (CLASSIFIED, DECISIONS)\n",
            ),
            Edit(
                ORDER,
                "        for topic in (OPERATIONS, *BEFORE_CLAIM):\n",
                "        for topic in (OPERATIONS, *WORLD, *BEFORE_CLAIM):\n",
            ),
            # The loop catches up with the world before it offers anything else.
            Edit(
                PARTITION,
                "        if not is_more:\n            return\n",
                "        return\n",
            ),
        ),
        themes=(10, 9),
    ),
    Mutant(
        "another instance acts",
        4,
        (
            Edit(ACTOR, "            elif grant.instance != self._own.instance:\n", "            elif False:\n"),
            NO_INSTANCE_CHECK,
            NO_CLAIM_CHECK,
        ),
    ),
    Mutant(
        "reexec: what was used is used again",
        4,
        (
            Edit(ACTOR, "            elif grant.instance != self._own.instance:\n", "            elif False:\n"),
            Edit(ACTOR, "            elif use is not None:\n", "            elif False:\n"),
            Edit(
                ACTOR,
                "            if use is not None and use.outcome is not None:\n                # It ended",
                "            if False:\n                # It ended",
            ),
            NO_INSTANCE_CHECK,
            NO_CLAIM_CHECK,
            NO_USED_CHECK,
        ),
        themes=(11, 1),
    ),
    Mutant(
        "noclaim: granted twice",
        4,
        (
            Edit(
                LIFE, "    Transition(_to(_P.APPROVED), Claim,", "    Transition(_to(_P.APPROVED, _P.EXECUTING), Claim,"
            ),
            Edit(
                LIFE, "    if row.approved_until is None or event.log_time >= row.approved_until:\n", "    if False:\n"
            ),
        ),
    ),
    Mutant(
        "an outcome need not cite its grant",
        4,
        (Edit(LIFE, "    if outcome.grant != grant.digest:\n", "    if False:\n"),),
        themes=(3,),
    ),
    Mutant(
        "early: others look while the lease runs",
        4,
        (
            Edit(
                ACTOR,
                '                log.info("grant of another instance", extra={"intent_id": intent_id, "instance": grant.instance})\n',
                "                seen, undo = await self._look(grant, digest, ())\n"
                "                ended = outcomes.of_observation(seen)\n"
                "                await self._end(outcomes.outcome(grant, self._own.instance, ended, undo=undo))\n",
            ),
            Edit(
                LIFE,
                '    if outcome.instance != _grant(row).instance:\n        raise _Refused(Refusal.WRONG_INSTANCE, "another instance holds',
                '    if False:\n        raise _Refused(Refusal.WRONG_INSTANCE, "another instance holds',
            ),
        ),
        themes=(11, 1),
    ),
    Mutant(
        "nolease: unknown is said while the lease runs",
        4,
        (
            Edit(
                LIFE,
                "            return row.settled_at + LEADER_SKEW_MS if row.settled_at is not None else None\n",
                "            return row.lease_until - 15_000 if row.lease_until is not None else None\n",
            ),
        ),
        themes=(11, 3),
    ),
    Mutant(
        "an act that is too late to stop forgets who said no",
        4,
        (
            Edit(LIFE, "    if row.remembered is not None:\n", "    if False:\n"),
            Edit(
                LIFE, '        update={"remembered": row.remembered or word, ', '        update={"remembered": None, '
            ),
        ),
        themes=(6,),
    ),
    Mutant(
        "a revoke that overtakes its yes is forgotten",
        4,
        (Edit(LIFE, '    row = row.model_copy(update={"barred": barred})\n', ""),),
        themes=(4,),
    ),
    Mutant(
        "a withdrawal that overtakes its intent is forgotten",
        4,
        (
            Edit(
                LIFE,
                "    if not _may_withdraw(withdrawal, case.world):\n        raise _Refused(Refusal.UNKNOWN_INTENT",
                "    if True:\n        raise _Refused(Refusal.UNKNOWN_INTENT",
            ),
        ),
        themes=(5,),
    ),
    Mutant(
        "no fencing",
        4,
        (
            Edit(
                PARTITION,
                'transactional_id=f"{self._settings.prefix}core-{self._number}")',
                'transactional_id=f"{self._settings.prefix}core-{self._number}-{self._shared.clock()}")',
            ),
        ),
        themes=(1,),
    ),
    Mutant(
        "ids are forgotten early",
        4,
        (
            Edit(
                "schemas.ids", "FORGET_MARGIN_MS: Final = ", "FORGET_MARGIN_MS: Final = 5_000 - WINDOW_BEFORE_MS + 0 * "
            ),
        ),
        themes=(1, 3, 12),
    ),
    # ------------------------------------------------------------ law 5
    Mutant(
        "local clock",
        5,
        (
            Edit(
                DECIDING,
                "                event = Event(source, record.timestamp, statement.read(kind), statement)",
                "                event = Event(source, record.timestamp + 700, statement.read(kind), statement)",
            ),
        ),
    ),
    Mutant(
        "row time: a fast leader's plan makes a timely yes late",
        5,
        (
            Edit(
                LIFE,
                "    if row.expires_at is None or event.log_time >= row.expires_at:\n",
                "    if row.expires_at is None or max(row.changed_at, event.log_time) >= row.expires_at:\n",
            ),
        ),
        themes=(8,),
    ),
    Mutant(
        "a tick does not wait for the leaders' skew",
        5,
        (
            Edit(
                LIFE,
                "            return row.expires_at + LEADER_SKEW_MS if row.expires_at is not None else None\n",
                "            return row.expires_at\n",
            ),
        ),
        themes=(7,),
    ),
    Mutant(
        "noexpiry: a yes is never late",
        5,
        (
            Edit(
                LIFE,
                "    if row.expires_at is None or event.log_time >= row.expires_at:\n",
                "    if row.expires_at is None:\n",
            ),
            NO_LATE_YES_CHECK,
        ),
        themes=(7, 8),
    ),
    Mutant(
        "a claim is never late",
        5,
        (
            Edit(
                LIFE, "    if row.approved_until is None or event.log_time >= row.approved_until:\n", "    if False:\n"
            ),
            NO_TIME_CHECK,
        ),
        themes=(7, 8, 12),
    ),
    Mutant(
        "a credential outlives its lease",
        5,
        (
            Edit(CHECKING, "    margin = 2 * limits.skew_ms + LEADER_SKEW_MS\n", "    margin = -60_000\n"),
            Edit(
                "executors.acting",
                "        self._ends_at = act.deadline.lease_until - skew_ms\n",
                "        self._ends_at = act.deadline.lease_until + 60_000\n",
            ),
        ),
        themes=(11, 3),
    ),
    # ------------------------------------------------------------ law 6
    Mutant(
        "unsigned: whoever signs, or nobody",
        6,
        (
            Edit(
                LIFE,
                "    refusal = case.world.authority.refuses(event.statement, event.log_time)\n",
                "    refusal = None\n",
            ),
        ),
    ),
    Mutant(
        "a forged yes counts",
        6,
        (
            Edit(
                LIFE,
                "    refusal = case.world.authority.refuses(event.statement, event.log_time)\n",
                "    refusal = None if isinstance(event.record, Decision) else case.world.authority.refuses(event.statement, event.log_time)\n",
            ),
            Edit(LIFE, " or world.authority.refuses(vote.decision, vote.log_time) is not None:\n", ":\n"),
            NO_YES_CHECK,
        ),
    ),
    Mutant(
        "a key vouches for logins of every provider",
        6,
        (
            Edit(
                AUTHORITY,
                "    if provider not in key.providers or kind not in EVIDENCE_OF[key.channel]:\n",
                "    if kind not in EVIDENCE_OF[key.channel]:\n",
            ),
        ),
        tests=("tests/schemas/test_authority.py",),
    ),
    Mutant(
        "a gateway signs for agents that do not list it",
        6,
        (
            Edit(
                AUTHORITY,
                "            return key.holder in self._gateways.get(name, frozenset())\n",
                "            return name in self._gateways\n",
            ),
        ),
        tests=("tests/schemas/test_authority.py",),
    ),
    Mutant(
        "a gateway signs for persons whom it cannot have met",
        6,
        (
            Edit(
                AUTHORITY,
                '        return kind == "person" and not self._providers.get(name, frozenset()).isdisjoint(key.providers)\n',
                '        return kind == "person"\n',
            ),
        ),
        tests=("tests/schemas/test_authority.py",),
    ),
    Mutant(
        "a gateway narrows the circle to persons whom it cannot have met",
        2,
        (
            Edit(
                AUTHORITY,
                '        return not self._providers.get(str(context.get("on_behalf_of")), frozenset())'
                ".isdisjoint(key.providers)\n",
                "        return True\n",
            ),
        ),
        tests=("tests/broker/test_lifecycle_table.py",),
    ),
    Mutant(
        "no rule matches, and it is permitted",
        6,
        (
            Edit(
                LIFE,
                "    if found.effect is Effect.DENY:\n        return _ended(base",
                "    if False:\n        return _ended(base",
            ),
            Edit(
                LIFE,
                '    if found.effect is Effect.DENY:\n        return _ended(row, event, Phase.DENIED, "plan.denied"',
                '    if False:\n        return _ended(row, event, Phase.DENIED, "plan.denied"',
            ),
            Edit(LIFE, "    if found.effect is Effect.DENY or action is None:\n", "    if action is None:\n"),
        ),
    ),
    Mutant(
        "a final phase can be left",
        6,
        (
            Edit(
                LIFE,
                "    Transition(_WAITING, Tick, ",
                '    Transition(_WAITING | {_P.DENIED, _P.REVOKED, _P.SUCCEEDED}, Decision, "", '
                "lambda case: Step(case.here.model_copy(update={'phase': _P.PENDING}), 'decision.recorded'), _to(_P.PENDING)),\n"
                "    Transition(_WAITING, Tick, ",
            ),
        ),
    ),
    # ------------------------------------------------------------ law 7
    Mutant(
        "a card that does not fit still offers Approve",
        7,
        (
            Edit(
                "notifiers.card",
                "        return self.phase is Phase.PENDING and self.question is not None and self.fits and self.is_sound\n",
                "        return self.phase is Phase.PENDING and self.question is not None and self.is_sound\n",
            ),
        ),
        tests=("tests/notifiers/test_card.py",),
    ),
    # ------------------------------------------------------------ law 8
    Mutant(
        "everything is called a success",
        8,
        (
            Edit(
                LIFE,
                "    phase = Phase.SUCCEEDED if outcome.result is Result.SUCCEEDED else Phase.FAILED\n",
                "    phase = Phase.SUCCEEDED\n",
            ),
        ),
    ),
    Mutant(
        "what cannot be known is called a failure",
        8,
        (
            Edit(
                "executors.outcomes",
                "            return Ended(Result.UNKNOWN, str(error))\n",
                "            return Ended(Result.FAILED, str(error))\n",
            ),
        ),
        themes=(11, 1),
    ),
    Mutant(
        "a word is said that is not on the trail",
        8,
        (
            Edit(
                DECIDING,
                "        audit = self.chain.of_step(before, event, step, self.world)\n",
                "        audit = self.chain.of_step(before, event, lifecycle.Step(step.row, step.event, step.outputs[1:], step.refusal, step.reason), self.world)\n",
            ),
        ),
    ),
    # ------------------------------------------------------------ law 9
    Mutant(
        "refusals are not audited",
        9,
        (
            Edit(
                DECIDING,
                '        self._audit(audit, step.row or before, str(getattr(event.record, "verdict", "")))\n',
                "        if step.refusal is None:\n"
                '            self._audit(audit, step.row or before, str(getattr(event.record, "verdict", "")))\n',
            ),
        ),
    ),
    # ------------------------------------------------------------ law 10
    Mutant(
        "the chain is not linked",
        10,
        (
            Edit(
                "broker.core.trail",
                "            seq=self.head.seq + 1,\n            prev=self.head.digest,\n            log_time=event.log_time,\n",
                "            seq=self.head.seq + 1,\n            log_time=event.log_time,\n",
            ),
        ),
    ),
    # ------------------------------------------------------------ law 11
    Mutant(
        "commitfirst: positions run ahead of the state",
        11,
        (
            Edit(
                PARTITION,
                "            positions=dict(self._order.positions),\n",
                "            positions={name: self._order.fetched_to(name) for name in self._order.positions},\n",
            ),
        ),
        themes=(1,),
    ),
    Mutant(
        "notxn: positions lag behind the state",
        11,
        (
            Edit(
                PARTITION,
                "            positions=dict(self._order.positions),\n",
                "            positions={name: max(at - 1, 0) for name, at in self._order.positions.items()},\n",
            ),
        ),
        themes=(1,),
    ),
    Mutant(
        "a gap is taken for the next record",
        11,
        (Edit(ORDER, "        if item.offset > expected:\n", "        if False:\n"),),
        themes=(1,),
    ),
    Mutant(
        "numbers begin anew with every process",
        11,
        (Edit(PARTITION, "            self._numbers = dict(progress.numbers)\n", ""),),
        themes=(1,),
    ),
    Mutant(
        "an executor goes on behind a hole: the number is not kept beside the offset",
        11,
        (
            Edit(
                "executors.lanes",
                "            self._mark = Mark(first + 1, self._below)\n",
                "            self._mark = Mark(first + 1)\n",
            ),
        ),
        tests=("tests/executors/test_outcomes.py",),
    ),
    Mutant(
        "an executor goes on behind a hole: it does not begin with the number that was kept",
        11,
        (Edit("executors.lanes", "        self._number = after\n", "        self._number = None\n"),),
        tests=("tests/executors/test_outcomes.py",),
    ),
)
