"""From an approval to a claim and its answer. A claim is made only when there is a free place to act in.

The place is held until the act is over, or will not be: a grant that had to wait for a place would spend its lease
waiting.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from executors.acting import Clock
from executors.checking import Own
from executors.hearing import Said
from executors.journal import Journal
from executors.saying import Voice
from schemas.records import ApprovalEnded, ApprovedIntent, Claim, ClaimRefused, Grant, Source
from streams import crashpoints

log = logging.getLogger("keyturn.executor")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
"""Starts a task whose failure ends the process."""


class Made:
    """Where the claims of this life stand on the log, for the whole process: a grant must answer one of them."""

    def __init__(self) -> None:
        """None yet."""
        self._claims: dict[tuple[str, str], list[asyncio.Future[Source]]] = {}

    def begin(self, intent: str, question: str) -> "asyncio.Future[Source]":
        """A claim is about to be said. A grant may come before its place is known here."""
        place: asyncio.Future[Source] = asyncio.get_running_loop().create_future()
        self._claims.setdefault((intent, question), []).append(place)
        return place

    async def places(self, intent: str, question: str) -> tuple[Source, ...]:
        """Of every claim to this question."""
        begun = tuple(self._claims.get((intent, question), ()))
        if begun:
            await asyncio.wait(begun)
        return tuple(place.result() for place in begun if not place.cancelled())

    def forget(self, intent: str, question: str) -> None:
        """It was answered for good."""
        self._claims.pop((intent, question), None)


@dataclass(slots=True, eq=False)
class _Pursuit:
    """One approval on its way to an act."""

    said: Said
    question: str
    #: The running act, or None when there will be none.
    answer: "asyncio.Future[asyncio.Task[None] | None]"
    has_claimed: bool = False
    task: "asyncio.Task[None] | None" = None


class Claims:
    """The approvals of one partition that this instance is after."""

    def __init__(
        self,
        own: Own,
        journal: Journal,
        voice: Voice,
        clock: Clock,
        places: asyncio.Semaphore,
        answer_seconds: float,
        made: Made,
        spawn: Spawn,
    ) -> None:
        """`places` and `made` are shared by all partitions of the process."""
        self._own = own
        self._journal = journal
        self._voice = voice
        self._clock = clock
        self._places = places
        self._answer_seconds = answer_seconds
        self._made = made
        self._spawn = spawn
        self._pursuits: dict[str, _Pursuit] = {}

    @property
    def are_out(self) -> bool:
        """Whether a claim waits for its answer, or its act runs."""
        return any(pursuit.has_claimed for pursuit in self._pursuits.values())

    def approved(self, said: Said, approved: ApprovedIntent) -> None:
        """Go after this approval."""
        before = self._pursuits.get(approved.intent)
        if before is not None and before.question == approved.question:
            said.handled()
            return
        if before is not None:
            self._give_up(approved.intent, before)
        pursuit = _Pursuit(said, approved.question, asyncio.get_running_loop().create_future())
        self._pursuits[approved.intent] = pursuit
        pursuit.task = self._spawn(self._pursue(pursuit, approved), f"claim {approved.intent}")

    def granted(self, grant: Grant, act: "asyncio.Task[None]") -> None:
        """The claim was granted; `act` runs."""
        if grant.instance == self._own.instance:
            self._answer(grant.question.intent_id, grant.question.digest, act)

    def refused(self, said: Said, refused: ClaimRefused) -> None:
        """The claim was refused. Noted; there is nothing to do."""
        if refused.instance == self._own.instance:
            log.info("claim refused", extra={"intent_id": refused.intent, "refusal": refused.refusal.value})
            self._answer(refused.intent, refused.question, None)
        said.handled()

    def ended(self, said: Said, ended: ApprovalEnded) -> None:
        """The approval is no longer to be claimed."""
        pursuit = self._pursuits.get(ended.intent)
        if pursuit is not None and pursuit.question == ended.question:
            log.info("approval ended", extra={"intent_id": ended.intent})
            self._give_up(ended.intent, pursuit)
        said.handled()

    def claim_no_more(self) -> None:
        """The process stops: what was not claimed yet is left to the next one, uncommitted."""
        for pursuit in self._pursuits.values():
            if not pursuit.has_claimed and pursuit.task is not None:
                pursuit.task.cancel()

    async def _pursue(self, pursuit: _Pursuit, approved: ApprovedIntent) -> None:
        try:
            async with self._places:
                if await self._claim(pursuit, approved):
                    await self._answered(pursuit)
        finally:
            if self._pursuits.get(approved.intent) is pursuit:
                del self._pursuits[approved.intent]

    async def _claim(self, pursuit: _Pursuit, approved: ApprovedIntent) -> bool:
        ledger = await self._journal.caught_up(pursuit.said.partition)
        why_not = ledger.spent(approved.intent, approved.question)
        if self._clock() >= approved.approved_until:
            why_not = "too late"
        if approved.executor != self._own.executor:
            why_not = f"for the executor {approved.executor}"
        if why_not is not None:
            log.info("not claimed", extra={"intent_id": approved.intent, "reason": why_not})
            pursuit.said.handled()
            return False
        pursuit.has_claimed = True
        claim = Claim(
            intent=approved.intent,
            question=approved.question,
            executor=self._own.executor,
            instance=self._own.instance,
        )
        place = self._made.begin(approved.intent, approved.question)
        crashpoints.reached("executor.claim.1-due")
        try:
            place.set_result(await self._voice.report(claim, approved.intent))
        finally:
            place.cancel()
        crashpoints.reached("executor.claim.2-said")
        pursuit.said.handled()
        return True

    async def _answered(self, pursuit: _Pursuit) -> None:
        try:
            async with asyncio.timeout(self._answer_seconds):
                act = await pursuit.answer
        except TimeoutError:
            # The place is needed. A grant that comes yet is judged as any other.
            log.warning("claim not answered", extra={"question": pursuit.question})
            return
        if act is not None:
            await asyncio.wait({act})

    def _answer(self, intent: str, question: str, act: "asyncio.Task[None] | None") -> None:
        pursuit = self._pursuits.get(intent)
        if pursuit is not None and pursuit.question == question and not pursuit.answer.done():
            pursuit.answer.set_result(act)

    def _give_up(self, intent: str, pursuit: _Pursuit) -> None:
        if pursuit.has_claimed:
            self._answer(intent, pursuit.question, None)
        else:
            if pursuit.task is not None:
                pursuit.task.cancel()
            pursuit.said.handled()
        del self._pursuits[intent]
