"""What a door says for others, each once while it is under way, and no longer waited for than people wait.

What was handed to the producer is not taken back: it is sent until Kafka has it. So what is said again meanwhile is the
same word, not a second one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiokafka.errors import KafkaError, KafkaTimeoutError

from schemas.records import Source

log = logging.getLogger("keyturn.sayings")

SAY_SECONDS: Final = 10.0
"""How long somebody waits for Kafka before hearing "not recorded"."""


class NotRecordedError(Exception):
    """It is not on the log, or nobody can tell. Saying it again is safe: the core answers a repeat."""


class Sayings:
    """What is under way, by name."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Source]] = {}
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    async def once(self, name: str, send: Callable[[], Awaitable[Source]]) -> Source:
        """Where it stands on the log, once it is durable. NotRecordedError when that is not known in time."""
        saying = self._under_way.get(name)
        if saying is None:
            saying = asyncio.ensure_future(_awaited(send))
            self._under_way[name] = saying
            saying.add_done_callback(lambda done: self._sent(name, done))
        try:
            async with asyncio.timeout(SAY_SECONDS):
                return await asyncio.shield(saying)
        except (TimeoutError, KafkaError) as exc:
            log.warning("not recorded", extra={"word": name, "error": repr(exc)})
            raise NotRecordedError("Kafka did not acknowledge it") from exc

    async def failed(self) -> None:
        """Waits until nothing can be said any more; raises why."""
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    def _sent(self, name: str, saying: "asyncio.Future[Source]") -> None:
        """An idempotent producer that met an error which does not pass never sends again: the process must end."""
        del self._under_way[name]
        error = None if saying.cancelled() else saying.exception()
        if error is not None and not _is_passing(error) and self._failure is None:
            self._failure = error
            self._failed.set()


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, KafkaTimeoutError) or (isinstance(error, KafkaError) and bool(error.retriable))


async def _awaited(send: Callable[[], Awaitable[Source]]) -> Source:
    return await send()
