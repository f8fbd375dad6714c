"""One act: the plugin does it, within its lease, and the journal knows each step before it is taken (laws 4 and 5)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

from executors import outcomes
from executors.contract import Act, ActFailedError, Deadline, Executor, ExecutorError, OutcomeUnknownError
from executors.errors import RunawayActError
from executors.outcomes import Ended
from schemas.record import Scalar
from schemas.records import JournalEntry, Receipt, Result
from streams import crashpoints

log = logging.getLogger("keyturn.executor")

GRACE_SECONDS: Final = 2.0
"""How long a plugin may take to stop when it is told to."""

Clock = Callable[[], int]
"""Unix milliseconds of this machine."""
Write = Callable[[JournalEntry], Awaitable[None]]
"""When it returns the entry is durable."""


class ActJournal:
    """The journal as one act sees it (`executors.contract.Journal`)."""

    def __init__(self, intent: str, grant: str, instance: str, deadline: Deadline, write: Write, clock: Clock) -> None:
        self._intent = intent
        self._grant = grant
        self._instance = instance
        self._deadline = deadline
        self._write = write
        self._clock = clock
        self.has_started = False
        #: What kept an entry from being durable: the process must stop, whatever the plugin makes of it.
        self.broken: Exception | None = None

    async def started(self, step: int, what: str, detail: Mapping[str, Scalar] | None = None) -> None:
        """Step `step` is about to be taken. Raises when there is no time left for it: before and after writing."""
        self._require_time(step)
        entry = self._entry("started", step, what, detail)
        self.has_started = True
        crashpoints.reached("executor.act.4-step-due")
        await self._say(entry)
        crashpoints.reached("executor.act.5-step-journalled")
        # A slow write must not carry the step past the end of the credentials.
        self._require_time(step)

    async def done(self, step: int, what: str, detail: Mapping[str, Scalar] | None = None) -> None:
        """Step `step` had its effect."""
        crashpoints.reached("executor.act.6-step-taken")
        await self._say(self._entry("done", step, what, detail))
        crashpoints.reached("executor.act.7-step-noted")

    def _require_time(self, step: int) -> None:
        if self._clock() < self._deadline.credential_dies_at:
            return
        if not self.has_started:
            raise ActFailedError(f"the lease ended before step {step}; nothing was done")
        raise OutcomeUnknownError(f"the lease ended at step {step}")

    def _entry(
        self, entry: Literal["started", "done"], step: int, what: str, detail: Mapping[str, Scalar] | None
    ) -> JournalEntry:
        made = JournalEntry(
            intent=self._intent,
            grant=self._grant,
            instance=self._instance,
            step=step,
            entry=entry,
            what=outcomes.prose(what),
            detail=dict(detail or {}),
        )
        # What cannot be written is the plugin's fault, and told it before anything is done.
        made.to_bytes()
        return made

    async def _say(self, entry: JournalEntry) -> None:
        try:
            await self._write(entry)
        except Exception as exc:
            self.broken = exc
            raise


class Execution:
    """One run of `execute`. It ends by itself, by its time, or because somebody ended it."""

    def __init__(
        self,
        plugin: Executor,
        act: Act,
        journal: ActJournal,
        skew_ms: int,
        timeout_seconds: float,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Not begun. It is cut off `skew_ms` before the lease ends, or after `timeout_seconds`."""
        self._plugin = plugin
        self._act = act
        self._journal = journal
        self._ends_at = act.deadline.lease_until - skew_ms
        self._timeout = timeout_seconds
        self._grace = grace_seconds
        self._cut: str | None = None
        self._told = asyncio.Event()

    def end(self, why: str) -> None:
        """Stop acting: the right to is over."""
        self._cut = self._cut or why
        self._told.set()

    async def run(self, clock: Clock) -> Ended:
        """How it ended. Raises what kept the journal from being written, and RunawayActError."""
        task = asyncio.create_task(self._plugin.execute(self._act), name=f"act {self._act.intent.id}")
        told = asyncio.create_task(self._told.wait())
        seconds = min(self._timeout, max(0.0, (self._ends_at - clock()) / 1000))
        try:
            await asyncio.wait({task, told}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.end("its time was over")
                await self._stop(task)
        finally:
            told.cancel()
            if not task.done():
                task.cancel()
        if self._journal.broken is not None:
            raise self._journal.broken
        return self._ended(task)

    async def _stop(self, task: asyncio.Task[Receipt]) -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=self._grace)
        if not task.done():
            raise RunawayActError(f"{self._act.intent.id}: the plugin went on after it was stopped")

    def _ended(self, task: asyncio.Task[Receipt]) -> Ended:
        if task.cancelled():
            # Law 4: a call may be on its way; whether it had its effect is for an observation to say.
            return Ended(Result.UNKNOWN, f"stopped: {self._cut or 'cancelled'}")
        error = task.exception()
        if error is None:
            return outcomes.succeeded(task.result())
        ended = outcomes.of_error(error, has_started=self._journal.has_started)
        is_expected = isinstance(error, ExecutorError)
        log.log(
            logging.WARNING if is_expected else logging.ERROR,
            "act did not succeed",
            extra={"intent_id": self._act.intent.id, "result": ended.result.value, "reason": ended.reason},
            exc_info=None if is_expected else error,
        )
        return ended
