"""From a grant to an outcome, and from an `unknown` to what is seen. At most one act an intent (law 4).

The order is everything: verify, write `used`, act, write how it ended (signed), say it. A crash after any of these
leaves a journal from which the next process knows what it may still do: say the same bytes again, or only look.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from executors import checking, metrics, outcomes
from executors.acting import ActJournal, Clock, Execution
from executors.checking import Known, Own, Verified
from executors.claims import Made
from executors.contract import Act, Executor, ExecutorError, Finding, Observation
from executors.hearing import Hearing, Said
from executors.journal import Journal
from executors.outcomes import Ended
from executors.planner import action_of
from executors.saying import Voice
from schemas import ids
from schemas.record import RecordError
from schemas.records import (
    ClassifiedIntent,
    Grant,
    Intent,
    JournalEntry,
    Outcome,
    OutcomeUnknown,
    Plan,
    Result,
)
from schemas.snapshots import Manifest, ManifestAction
from streams import crashpoints

log = logging.getLogger("keyturn.executor")


class Actor:
    """Acts and observes for one instance."""

    def __init__(
        self,
        own: Own,
        manifest: Manifest,
        plugin: Executor,
        journal: Journal,
        hearing: Hearing,
        voice: Voice,
        made: Made,
        clock: Clock,
        observations: int,
    ) -> None:
        """`observations`: how many unknown outcomes may be looked at once."""
        self._own = own
        self._manifest = manifest
        self._plugin = plugin
        self._journal = journal
        self._hearing = hearing
        self._voice = voice
        self._made = made
        self._clock = clock
        self._observing = asyncio.Semaphore(observations)
        self._running: dict[str, Execution] = {}
        self._waiting: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def act(self, said: Said, grant: Grant) -> None:
        """Handle one grant. When this returns, whatever it led to is durable and said."""
        intent_id, digest = grant.question.intent_id, said.statement.digest
        crashpoints.reached("executor.act.1-granted")
        async with self._alone_with(intent_id):
            ledger = await self._journal.caught_up(said.partition)
            use = ledger.use(intent_id, digest)
            if use is not None and use.outcome is not None:
                # It ended, and perhaps nobody heard: the same bytes again.
                await self._voice.report_signed(use.outcome, intent_id)
            elif grant.instance != self._own.instance:
                # Another life's. If that one is over, the core will say `unknown`, and then anybody may look.
                log.info("grant of another instance", extra={"intent_id": intent_id, "instance": grant.instance})
            elif use is not None:
                log.error("grant used before; it is not acted upon again", extra={"intent_id": intent_id})
            else:
                question = grant.question.digest
                claims = await self._made.places(intent_id, question)
                await self._judge(said, grant, Known(claims, ledger.spent(intent_id, question)))
                self._made.forget(intent_id, question)
        said.handled()

    async def observe(self, said: Said, unknown: OutcomeUnknown) -> None:
        """Handle one `unknown`: look, and say what is there. The same `unknown` again gets the same answer."""
        grant, digest, name = unknown.grant, unknown.grant.digest, said.statement.digest
        intent_id = grant.question.intent_id
        crashpoints.reached("executor.unknown.1-heard")
        if unknown.intent != intent_id:
            log.critical("an `unknown` of two intents is not looked at", extra={"intent_id": unknown.intent})
            said.handled()
            return
        if (running := self._running.get(digest)) is not None:
            running.end("the core says that the lease is over")
        async with self._alone_with(intent_id):
            use = (await self._journal.caught_up(said.partition)).use(intent_id, digest)
            if use is not None and name in use.observed:
                await self._voice.report_signed(use.observed[name], intent_id)
            elif use is not None and use.outcome is not None and use.result is not Result.UNKNOWN:
                # The actor knew; only its word was lost.
                await self._voice.report_signed(use.outcome, intent_id)
            else:
                async with self._observing:
                    seen, undo = await self._look(grant, digest, tuple(use.entries) if use is not None else ())
                crashpoints.reached("executor.unknown.2-seen")
                ended = outcomes.of_observation(seen)
                await self._end(outcomes.outcome(grant, self._own.instance, ended, undo=undo, unknown=name))
        said.handled()

    # ------------------------------------------------------------ acting

    async def _judge(self, said: Said, grant: Grant, known: Known) -> None:
        world = await self._hearing.world_of(grant.versions)
        match checking.judge(said.statement, said.log_time, self._own, world, self._clock(), known):
            case checking.Refused() as no:
                await self._refuse(grant, f"{no.check.value}: {no.reason}")
            case Verified() as verified:
                try:
                    action = action_of(self._manifest, verified.intent)
                except ExecutorError as exc:
                    await self._refuse(grant, str(exc))
                else:
                    await self._perform(verified, action)

    async def _refuse(self, grant: Grant, reason: str) -> None:
        """DESIGN §8: its own refusal of a grant is `failed` with the reason, and an alarm."""
        log.critical("grant refused; nothing was done", extra={"intent_id": grant.question.intent_id, "reason": reason})
        await self._end(outcomes.outcome(grant, self._own.instance, Ended(Result.FAILED, f"refused: {reason}")))

    async def _perform(self, verified: Verified, action: ManifestAction) -> None:
        intent, digest, began_at = verified.intent, verified.digest, self._clock()
        crashpoints.reached("executor.act.2-verified")
        await self._write(_used(verified, self._own.instance))
        crashpoints.reached("executor.act.3-used")
        journal = ActJournal(intent.id, digest, self._own.instance, verified.deadline, self._write, self._clock)
        act = Act(intent, verified.plan, verified.grant, digest, verified.deadline, journal)
        execution = Execution(self._plugin, act, journal, self._own.limits.skew_ms, action.timeout)
        self._running[digest] = execution
        log.info("acting", extra={"intent_id": intent.id, "grant": digest, "approvers": verified.approvers})
        try:
            with metrics.RUNNING.track_inprogress():
                ended = await execution.run(self._clock)
        finally:
            del self._running[digest]
        outcome = outcomes.outcome(verified.grant, self._own.instance, ended, undo=verified.plan.undo)
        await self._end(outcome)
        metrics.acted(intent, outcome, began_at, self._clock())

    async def _end(self, outcome: Outcome) -> None:
        """Signed once; in the journal before it is said, so that a crash in between says the same bytes later."""
        crashpoints.reached("executor.act.8-ended")
        statement = self._voice.sign(outcome)
        await self._write(
            JournalEntry(
                intent=outcome.intent,
                grant=outcome.grant,
                instance=self._own.instance,
                step=0,
                entry="ended",
                what=outcome.reason or outcome.result.value,
                outcome=statement,
            )
        )
        crashpoints.reached("executor.act.9-end-journalled")
        await self._voice.report_signed(statement, outcome.intent)
        crashpoints.reached("executor.act.10-end-said")
        metrics.ended(outcome)
        log.info(
            "ended",
            extra={"intent_id": outcome.intent, "result": outcome.result.value, "observed": outcome.observed},
        )

    async def _write(self, entry: JournalEntry) -> None:
        await self._journal.write(ids.requester_of(entry.intent), entry)

    # ------------------------------------------------------------ observing

    async def _look(
        self, grant: Grant, digest: str, entries: tuple[JournalEntry, ...]
    ) -> tuple[Observation, str | None]:
        """What the plugin sees, and how it could be undone. Total: not to have seen is `unknown`."""
        try:
            intent, plan = _intent_of(grant), grant.plan.read(Plan)
            async with asyncio.timeout(action_of(self._manifest, intent).timeout):
                return await self._plugin.observe(intent, plan, digest, entries), plan.undo
        except ExecutorError as exc:
            reason = str(exc)
        except TimeoutError:
            reason = "looking took longer than the manifest allows"
        except RecordError as exc:
            reason = f"the grant cannot be read: {exc}"
        except Exception as exc:
            log.exception("observing failed", extra={"intent_id": grant.question.intent_id})
            reason = f"internal: {type(exc).__name__}"
        return Observation(Finding.UNKNOWN, reason), None

    @contextlib.asynccontextmanager
    async def _alone_with(self, intent_id: str) -> AsyncIterator[None]:
        """One thing at a time for each intent: nobody looks while it is acted upon."""
        self._waiting[intent_id] = self._waiting.get(intent_id, 0) + 1
        lock = self._locks.setdefault(intent_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            self._waiting[intent_id] -= 1
            if not self._waiting[intent_id]:
                del self._waiting[intent_id], self._locks[intent_id]


def _intent_of(grant: Grant) -> Intent:
    return grant.classified.read(ClassifiedIntent).intent.read(Intent)


def _used(verified: Verified, instance: str) -> JournalEntry:
    approvers = ", ".join(verified.approvers)
    return JournalEntry(
        intent=verified.intent.id,
        grant=verified.digest,
        instance=instance,
        step=0,
        entry="used",
        what=outcomes.prose(verified.note or f"approved by {approvers}"),
        detail={"question": verified.grant.question.digest},
    )
