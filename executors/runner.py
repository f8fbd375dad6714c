"""The runner: hears the core, plans when asked, claims, lets act, and commits what is handled. It never sees an SDK.

An offset is committed only when what its record asked for is durable. Planning and acting are two lanes of each
partition, and each record is a task of its own, so that nothing waits behind a long act. Any failure of Kafka is
raised: the process ends, and the next one acts upon no grant that this one was given (law 4).
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import ConsumerRecord, TopicPartition

from executors import metrics
from executors.acting import Clock
from executors.actor import Actor
from executors.checking import Own
from executors.claims import Claims, Made
from executors.contract import Executor
from executors.errors import PartitionsError
from executors.feed import Feed
from executors.hearing import Hearing, Said
from executors.journal import Journal
from executors.lanes import Lane
from executors.planner import Planner
from executors.saying import Voice
from executors.settings import ExecutorSettings
from schemas import topics
from schemas.records import ApprovalEnded, ApprovedIntent, ClaimRefused, Grant, OutcomeUnknown, PlanRequest
from schemas.signing import Signer
from schemas.snapshots import Manifest
from streams import crashpoints
from streams.errors import NumberGapError
from streams.health import Health
from streams.producing import Speaker
from streams.settings import Settings
from streams.worlds import WorldView

log = logging.getLogger("keyturn.executor")

QUEUED_PLANS: Final = 200
LOOK_SECONDS: Final = 0.2


@dataclass(slots=True, eq=False)
class _Share:
    """One owned partition."""

    claims: Claims
    planning: Lane
    approved: Lane
    plans: "asyncio.Queue[ConsumerRecord]" = field(default_factory=asyncio.Queue)
    words: "asyncio.Queue[ConsumerRecord]" = field(default_factory=asyncio.Queue)


class _Tasks:
    """Tasks whose failure is the process's. Those that serve a partition end with it; acts do not."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], int | None] = {}
        self._failure: BaseException | None = None

    def spawn(self, work: Coroutine[Any, Any, None], name: str, partition: int | None = None) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = partition
        task.add_done_callback(self._over)
        return task

    @property
    def work(self) -> bool:
        """Whether anything runs beside what serves partitions."""
        return None in self._tasks.values()

    def require_alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    def forgive(self) -> None:
        """What failed is known; from here on the next failure counts."""
        self._failure = None

    def cancel(self, partition: int) -> None:
        for task, of in self._tasks.items():
            if of == partition:
                task.cancel()

    async def cancel_all(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and self._failure is None:
            self._failure = task.exception()


class Runner:
    """One life of one executor process: one instance."""

    def __init__(
        self,
        settings: Settings,
        own_settings: ExecutorSettings,
        manifest: Manifest,
        plugin: Executor,
        signer: Signer,
        clock: Clock,
        instance: str,
    ) -> None:
        """`instance` names this life alone: it must never have been used before (law 4)."""
        self._settings = settings
        self._own_settings = own_settings
        self._manifest = manifest
        self._plugin = plugin
        self._signer = signer
        self._clock = clock
        self._own = Own(manifest.executor, instance, own_settings.limits)
        self._view = WorldView(settings)
        self._speaker = Speaker(settings)
        self._tasks = _Tasks()
        self._shares: dict[int, _Share] = {}
        self._places = asyncio.Semaphore(own_settings.acts)
        self._planning = asyncio.Semaphore(own_settings.plans)
        self._made = Made()
        self._is_stopping = False

    async def run(self, health: Health, stop: asyncio.Event) -> None:
        """Serve until `stop`; then let what runs end, within bounds. Raises whatever Kafka says."""
        health.waits_for("kafka", "connecting")
        async with self._view, self._speaker:
            health.has("kafka")
            if not await self._is_known(health, stop):
                return
            health.waits_for("partitions", "joining the group")
            self._feed = Feed(self._settings, self._own.executor)
            self._journal = Journal(
                self._settings, self._own.executor, self._signer, self._speaker, lambda: self._view.world.authority
            )
            async with self._journal, self._feed:
                partitions = await self._number_of_partitions()
                self._voice = Voice(self._settings, self._own.executor, self._signer, self._speaker, partitions)
                self._hearing = Hearing(self._view, self._voice, partitions, self._own_settings.world_seconds)
                self._planner = Planner(
                    self._manifest, self._plugin, self._clock, lambda: self._view.world.versions.manifests
                )
                self._actor = Actor(
                    self._own,
                    self._manifest,
                    self._plugin,
                    self._journal,
                    self._hearing,
                    self._voice,
                    self._made,
                    self._clock,
                    self._own_settings.observations,
                )
                log.info("executor serves", extra={"executor": self._own.executor, "instance": self._own.instance})
                tidying = asyncio.create_task(self._tidy(), name="tidy")
                try:
                    while not stop.is_set():
                        await self._turn(health)
                    await self._end_in_order(health)
                except NumberGapError:
                    # Law 11: people must look. Nothing new begins; what runs is whole, and may end.
                    self._tasks.forgive()
                    await self._end_in_order(health)
                    raise
                finally:
                    tidying.cancel()
                    await self._tasks.cancel_all()
                    await asyncio.wait({tidying})

    async def _is_known(self, health: Health, stop: asyncio.Event) -> bool:
        """Wait until the directory lists our key: before that nothing we say counts, and no word can be verified."""
        name = self._own.executor
        health.waits_for("key", f"the directory lists no valid key {self._signer.keyid} of the executor {name}")
        while not stop.is_set():
            self._view.require_alive()
            key = self._view.world.authority.key(self._signer.keyid)
            if key is not None and (key.role, key.holder) == ("executor", name):
                health.has("key")
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await stop.wait()
        return False

    async def _number_of_partitions(self) -> int:
        reports = self._settings.names.of(topics.REPORTS)
        found = {
            "approved": self._feed.partitions,
            "journal": self._journal.partitions,
            "reports": await self._speaker.partitions(reports),
        }
        if len(set(found.values())) != 1:
            raise PartitionsError(f"{found}: not the same number of partitions; run `keyturn topics check`")
        return self._feed.partitions

    # ------------------------------------------------------------ the loop

    async def _turn(self, health: Health) -> None:
        """Fetch, hand out, commit what is handled, notice what failed."""
        full = [
            TopicPartition(self._feed.planning, number)
            for number, share in self._shares.items()
            if share.plans.qsize() >= QUEUED_PLANS
        ]
        fetched = await self._feed.fetch(full)
        await self._share_out(health)
        for place, records in fetched.items():
            share = self._shares[place.partition]
            is_plan = place.topic == self._feed.planning
            lane, queue = (share.planning, share.plans) if is_plan else (share.approved, share.words)
            for record in records:
                if lane.take(record.offset):
                    queue.put_nowait(record)
        await self._commit()
        self._view.require_alive()
        self._tasks.require_alive()

    async def _share_out(self, health: Health) -> None:
        owned = self._feed.owned
        if owned == self._shares.keys():
            return
        for lost in self._shares.keys() - owned:
            # Acts go on: the grant is this instance's. Whatever waits is for the next owner.
            del self._shares[lost]
            self._tasks.cancel(lost)
            health.has(f"partition-{lost}")
        await self._journal.keep(owned)
        for number in sorted(owned - self._shares.keys()):
            health.waits_for(f"partition-{number}", "reading the journal")
            share = self._shares[number] = self._share(number)
            self._tasks.spawn(self._serve_plans(share), f"plans-{number}", number)
            self._tasks.spawn(self._serve_words(share, health), f"words-{number}", number)
        health.has("partitions")

    def _share(self, number: int) -> _Share:
        planning, approved = (
            Lane(topic, number, self._feed.after.get(TopicPartition(topic, number)))
            for topic in (self._feed.planning, self._feed.approved)
        )
        claims = Claims(
            self._own,
            self._journal,
            self._voice,
            self._clock,
            self._places,
            self._own_settings.answer_seconds,
            self._made,
            lambda work, name: self._tasks.spawn(work, name, number),
        )
        return _Share(claims, planning, approved)

    async def _commit(self) -> None:
        lanes = {
            TopicPartition(lane.topic, lane.partition): lane
            for share in self._shares.values()
            for lane in (share.planning, share.approved)
        }
        reached = {place: lane.committable for place, lane in lanes.items()}
        marks = {place: mark for place, mark in reached.items() if mark is not None}
        if not marks:
            return
        crashpoints.reached("executor.offsets.1-due")
        if committed := await self._feed.commit(marks):
            crashpoints.reached("executor.offsets.2-committed")
            # Only these: a partition that is gone for a moment and comes back still has its word to say.
            for place, mark in committed.items():
                lanes[place].committed(mark)

    async def _end_in_order(self, health: Health) -> None:
        """SIGTERM: nothing new; what was claimed or runs may end, for a while. The rest becomes `unknown` (law 4)."""
        self._is_stopping = True
        health.waits_for("stop", "ending what runs")
        for share in self._shares.values():
            share.claims.claim_no_more()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._own_settings.stop_seconds
        while loop.time() < until and (
            self._tasks.work or any(share.claims.are_out for share in self._shares.values())
        ):
            await self._turn(health)
        await self._commit()

    async def _tidy(self) -> None:
        """Now and then, for as long as this process serves. Not to have tidied harms nobody: it is tried again."""
        while True:
            try:
                await self._plugin.tidy(self._clock())
            except Exception:
                log.exception("what planning left could not be taken away; tried again later")
            await asyncio.sleep(self._own_settings.tidy_seconds)

    # ------------------------------------------------------------ two lanes

    async def _serve_plans(self, share: _Share) -> None:
        while True:
            record = await share.plans.get()
            if self._is_stopping:
                return
            said = await self._hearing.hear(share.planning, record, topics.PLANNING)
            if said is not None and isinstance(said.record, PlanRequest):
                await self._planning.acquire()
                self._tasks.spawn(self._plan(said, said.record), f"plan {said.record.round.intent}")

    async def _plan(self, said: Said, request: PlanRequest) -> None:
        try:
            if self._clock() < request.expires_at:
                crashpoints.reached("executor.plan.1-asked")
                plan = await self._planner.plan(request)
                crashpoints.reached("executor.plan.2-made")
                await self._voice.report(plan, request.round.intent)
                crashpoints.reached("executor.plan.3-said")
                metrics.planned(request, plan, said.log_time, self._clock())
        finally:
            self._planning.release()
        said.handled()

    async def _serve_words(self, share: _Share, health: Health) -> None:
        number = share.approved.partition
        await self._journal.caught_up(number)
        health.has(f"partition-{number}")
        while True:
            record = await share.words.get()
            said = await self._hearing.hear(share.approved, record, topics.APPROVED)
            if said is not None:
                self._answer(share, said)

    def _answer(self, share: _Share, said: Said) -> None:
        match said.record:
            case ApprovedIntent() as approved:
                # When stopping it stays unhandled: the next process claims it.
                if not self._is_stopping:
                    share.claims.approved(said, approved)
            case Grant() as grant:
                act = self._tasks.spawn(self._actor.act(said, grant), f"act {grant.question.intent_id}")
                share.claims.granted(grant, act)
            case ClaimRefused() as refused:
                share.claims.refused(said, refused)
            case ApprovalEnded() as ended:
                share.claims.ended(said, ended)
            case OutcomeUnknown() as unknown:
                self._tasks.spawn(self._actor.observe(said, unknown), f"observe {unknown.intent}")
            case _:
                raise AssertionError(f"{said.statement.type} is not a word of `approved`")
