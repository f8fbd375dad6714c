"""Answers go out signed, and are durable before anything is acked."""

import time
from collections.abc import Awaitable, Callable, Sequence

from broker.intake import answering, metrics
from broker.intake.answering import Admitted, Answer, Raw
from schemas import envelope, topics
from schemas.envelope import Sealed
from schemas.records import Quarantined
from schemas.signing import Signer
from schemas.world import World
from streams import crashpoints, facts
from streams.facts import FactSource
from streams.producing import Speaker
from streams.settings import Settings


class Desk:
    """Answers batches of raw records: the same for the live stream and for the sweep."""

    def __init__(
        self,
        settings: Settings,
        speaker: Speaker,
        world: Callable[[], Awaitable[World]],
        sources: Sequence[FactSource],
        clock: Callable[[], int],
        partitions: int,
    ) -> None:
        """`world()` is the world with everything that was acknowledged before the call; `partitions` the realm's P.

        Asked once a batch was fetched, it holds whatever its requesters had been told is in force.
        """
        self._settings = settings
        self._speaker = speaker
        self._world = world
        self._sources = sources
        self._clock = clock
        self._partitions = partitions
        self._signer: Signer = settings.signer()

    async def answer(self, records: Sequence[Raw]) -> int:
        """Answer each record exactly once; returns how many, genesis records aside. All durable on return."""
        begun = time.perf_counter()
        world = await self._world()
        crashpoints.reached("intake.2-world-read")
        received = [answering.receive(raw, world, self._partitions) for raw in records if not raw.is_genesis]
        intents = [each.intent for each in received if isinstance(each, Admitted)]
        found = iter(await facts.gather(intents, self._sources, self._clock()))
        answers = [
            answering.classify(each, next(found), world) if isinstance(each, Admitted) else each for each in received
        ]
        crashpoints.reached("intake.3-facts-gathered")
        await self._speaker.say_all([self._sealed(answer) for answer in answers])
        crashpoints.reached("intake.4-answers-said")
        metrics.BATCHES.observe(time.perf_counter() - begun)
        metrics.BEHIND.set(max(0, self._clock() - max(raw.log_time for raw in records)) / 1000 if records else 0)
        metrics.count(answers, (each for each in received if isinstance(each, Admitted)), self._clock())
        return len(answers)

    def _sealed(self, answer: Answer) -> tuple[str, int, Sealed]:
        topic = topics.QUARANTINE if isinstance(answer, Quarantined) else topics.CLASSIFIED
        sealed = envelope.seal(answer, answering.key_of(answer), self._signer, self._settings.realm, source="intake")
        # An intent's partition is where it was found: receive() has checked that it belongs there.
        return self._settings.names.of(topic), answer.source.partition, sealed
