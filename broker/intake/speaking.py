"""Answers go out signed, and are durable before anything is acked."""

from collections.abc import Callable, Sequence

from broker.intake import answering, facts
from broker.intake.answering import Admitted, Answer, Raw
from broker.intake.facts import FactSource
from schemas import envelope, topics
from schemas.envelope import Sealed
from schemas.records import Quarantined
from schemas.signing import Signer
from schemas.world import World
from streams.producing import Speaker
from streams.settings import Settings


class Desk:
    """Answers batches of raw records: the same for the live stream and for the sweep."""

    def __init__(
        self,
        settings: Settings,
        speaker: Speaker,
        world: Callable[[], World],
        sources: Sequence[FactSource],
        clock: Callable[[], int],
        partitions: int,
    ) -> None:
        """`world()` is what is in force when a batch is answered; `partitions` the realm's P."""
        self._settings = settings
        self._speaker = speaker
        self._world = world
        self._sources = sources
        self._clock = clock
        self._partitions = partitions
        self._signer: Signer = settings.signer()

    async def answer(self, records: Sequence[Raw]) -> int:
        """Answer each record exactly once; returns how many, genesis records aside. All durable on return."""
        world = self._world()
        received = [answering.receive(raw, world, self._partitions) for raw in records if not raw.is_genesis]
        admitted = [each for each in received if isinstance(each, Admitted)]
        found = await facts.gather([each.intent for each in admitted], self._sources, self._clock())
        with_facts = dict(zip((id(each) for each in admitted), found, strict=True))
        answers = [
            answering.classify(each, with_facts[id(each)], world) if isinstance(each, Admitted) else each
            for each in received
        ]
        await self._speaker.say_all([self._sealed(answer) for answer in answers])
        return len(answers)

    def _sealed(self, answer: Answer) -> tuple[str, int, Sealed]:
        topic = topics.QUARANTINE if isinstance(answer, Quarantined) else topics.CLASSIFIED
        sealed = envelope.seal(answer, answering.key_of(answer), self._signer, self._settings.realm, source="intake")
        # An intent's partition is where it was found: receive() has checked that it belongs there.
        return self._settings.names.of(topic), answer.source.partition, sealed
