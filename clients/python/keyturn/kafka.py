"""To Keyturn over Kafka itself: write to `intents`, read `status`, with an agent's own rights. Needs `keyturn[kafka]`.

One reader of the one partition of `status` on which all of this agent's intents lie. It stands at the end; for an
intent that was asked for earlier it steps back to where the id's time lies, so that nothing is read from the beginning.
"""

import asyncio
import copy
import logging
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn import canonical, ids
from keyturn.canonical import CanonicalError, Json
from keyturn.errors import ConfigurationError, NoConnectionError, NotAllowedError
from keyturn.intents import Sealed, Unsigned
from keyturn.outcomes import Phase, Status
from keyturn.partition import partition_of
from keyturn.transport import ActionOffer, Check, Submitted

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("keyturn")

SCRAM: Final = "SCRAM-SHA-512"
MAX_STATUS: Final = 16 * 1024
POLL_MS: Final = 200
BEFORE_ID_MS: Final = 6 * 60 * 1000
"""An id may be 5 minutes ahead of Kafka's clock; nothing about it is earlier than that."""
REMEMBERED: Final = 10_000
"""How many intents are followed at once; for one more the oldest is forgotten, and read again when asked about."""
KEPT: Final = 64
"""Statuses of one intent that are kept for who has not looked yet."""
PATIENCE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class KafkaLogin:
    """Where Kafka is, and as whom."""

    #: host:port, several separated by commas.
    servers: str
    security: str = "SASL_SSL"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    authority: "Path | None" = None
    certificate: "Path | None" = None
    #: Starts the name of every topic of the installation.
    prefix: str = "keyturn."

    def arguments(self) -> dict[str, Any]:
        """What every aiokafka client is given."""
        arguments: dict[str, Any] = {"bootstrap_servers": self.servers.split(","), "security_protocol": self.security}
        if self.security.startswith("SASL"):
            if not self.username or not self.password:
                raise ConfigurationError(
                    "Kafka needs a login: KEYTURN_KAFKA_USERNAME and KEYTURN_KAFKA_PASSWORD_FILE, as `keyturn "
                    "init` wrote "
                    "them for this agent"
                )
            arguments |= {
                "sasl_mechanism": SCRAM,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        if self.security.endswith("SSL"):
            arguments["ssl_context"] = tls(self.authority, self.certificate)
        return arguments


def tls(authority: "Path | None", certificate: "Path | None" = None) -> ssl.SSLContext:
    """Whom to believe, and who we are."""
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            context.load_cert_chain(certificate)
    except OSError as exc:
        raise ConfigurationError(f"{certificate or authority}: {exc}: a PEM file is expected") from exc
    return context


@dataclass
class _Heard:
    """What was heard of one intent."""

    statuses: deque[tuple[int, Status]] = field(default_factory=lambda: deque(maxlen=KEPT))
    #: How many wait for more: it is not forgotten meanwhile.
    watchers: int = 0

    @property
    def offset(self) -> int:
        """Of the newest; -1 before there is one."""
        return self.statuses[-1][0] if self.statuses else -1


class KafkaTransport:
    """Speaks to one Kafka, for one agent."""

    def __init__(self, login: KafkaLogin, agent: str, realm: str, *, patience: float = PATIENCE_SECONDS) -> None:
        """`patience`: seconds for which Kafka is tried before NoConnectionError."""
        try:
            import aiokafka
        except ImportError:
            raise ConfigurationError(
                "writing to Kafka itself needs aiokafka: pip install 'keyturn[kafka]'; or connect to the gateway's URL"
            ) from None
        self._kafka = aiokafka
        self._login = login
        self._agent = agent
        self._realm = realm
        self._patience = patience
        self._heard: dict[str, _Heard] = {}
        self._news = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None
        self._failed: Exception | None = None
        self._producer: Any = None
        self._reader: Any = None
        self._place: Any = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Connect, and stand at the end of `status`."""
        from aiokafka.errors import KafkaConnectionError

        # Two errors every 100 ms from each dead broker; what matters comes as an exception.
        for name in ("aiokafka", "kafka"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        arguments = self._login.arguments()
        self._producer = self._kafka.AIOKafkaProducer(
            acks="all", enable_idempotence=True, request_timeout_ms=int(self._patience * 1000), **arguments
        )
        self._reader = self._kafka.AIOKafkaConsumer(
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=100,
            **arguments,
        )
        try:
            await self._producer.start()
            await self._reader.start()
            topic = f"{self._login.prefix}status"
            self._place = self._kafka.TopicPartition(topic, partition_of(self._agent, await self._partitions(topic)))
            end = (await self._reader.end_offsets([self._place]))[self._place]
            self._reader.assign([self._place])
            self._reader.seek(self._place, end)
        except KafkaConnectionError as exc:
            await self.aclose()
            raise NoConnectionError(
                f"no connection to Kafka at {self._login.servers} as {self._login.username}: check that it runs, the "
                f"password, and KEYTURN_KAFKA_SECURITY ({self._login.security}): {exc}"
            ) from exc
        except BaseException:
            await self.aclose()
            raise
        self._reading = asyncio.create_task(self._read(), name="keyturn status")

    async def aclose(self) -> None:
        """Stop reading and writing."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        for client in (self._reader, self._producer):
            if client is not None:
                await client.stop()

    # ---------------------------------------------------------------- saying

    async def submit(self, asked: Sealed | Unsigned, traceparent: str | None) -> Submitted:
        """Write the intent to `intents`; the trace is in its body already."""
        del traceparent
        if isinstance(asked, Unsigned):
            raise ConfigurationError(
                "who writes to Kafka signs: give key=, or connect to the gateway's URL with a token"
            )
        self._follow(asked.intent)
        await self._say(asked)
        return Submitted(asked.intent)

    async def withdraw(self, intent_id: str, said: Sealed | None, reason: str | None) -> None:
        """Write the withdrawal to `intents`."""
        del reason
        if said is None:
            raise ConfigurationError(f"who writes to Kafka signs: {intent_id} cannot be withdrawn without key=")
        await self._say(said)

    async def _say(self, sealed: Sealed) -> None:
        from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

        topic = f"{self._login.prefix}intents"
        try:
            async with asyncio.timeout(self._patience):
                partition = partition_of(self._agent, len(await self._producer.partitions_for(topic)))
                await self._producer.send_and_wait(
                    topic,
                    sealed.value,
                    key=sealed.intent.encode(),
                    partition=partition,
                    headers=_headers(sealed, self._realm, self._agent),
                )
        except TopicAuthorizationFailedError as exc:
            raise NotAllowedError(
                f"{self._login.username} may not write {topic}: `keyturn topics check` compares its rights"
            ) from exc
        except (KafkaError, TimeoutError) as exc:
            raise NoConnectionError(
                f"Kafka at {self._login.servers} did not acknowledge {sealed.intent} ({exc!r}); it may have "
                "arrived or not: the same again is safe",
                sealed.intent,
            ) from exc

    # ---------------------------------------------------------------- hearing

    async def watch(self, intent_id: str) -> AsyncGenerator[Status, None]:
        """What was heard, then what is heard."""
        with self._answering(intent_id):
            heard = await self._reach(intent_id)
        heard.watchers += 1
        told = -1
        try:
            while True:
                async with self._news:
                    while self._failed is None and heard.offset <= told:
                        await self._news.wait()
                if self._failed is not None:
                    raise copy.copy(self._failed) from self._failed  # each who waits gets one of their own
                fresh = [(offset, status) for offset, status in heard.statuses if offset > told]
                for offset, status in fresh:
                    told = offset
                    yield status
        finally:
            heard.watchers -= 1

    async def status(self, intent_id: str) -> Status | None:
        """The newest that Kafka holds now."""
        with self._answering(intent_id):
            async with asyncio.timeout(self._patience):
                heard = await self._reach(intent_id)
                end = (await self._reader.end_offsets([self._place]))[self._place]
                while self._failed is None and await self._reader.position(self._place) < end:  # noqa: ASYNC110 - Kafka's reader sets no event
                    await asyncio.sleep(POLL_MS / 1000 / 10)
        if self._failed is not None:
            raise copy.copy(self._failed) from self._failed
        return heard.statuses[-1][1] if heard.statuses else None

    @contextmanager
    def _answering(self, intent_id: str) -> Iterator[None]:
        """A Kafka that does not answer is no answer about the intent."""
        from aiokafka.errors import KafkaError

        try:
            yield
        except (KafkaError, TimeoutError) as exc:
            raise NoConnectionError(
                f"Kafka at {self._login.servers} does not say what became of {intent_id} ({exc!r}): it goes on, ask "
                "again once Kafka answers",
                intent_id,
            ) from exc

    def _follow(self, intent_id: str) -> _Heard:
        if len(self._heard) >= REMEMBERED and intent_id not in self._heard:
            oldest = next((name for name, heard in self._heard.items() if not heard.watchers), None)
            if oldest is not None:
                del self._heard[oldest]
        return self._heard.setdefault(intent_id, _Heard())

    async def _reach(self, intent_id: str) -> _Heard:
        """Follow an intent from its beginning."""
        if intent_id in self._heard:
            return self._heard[intent_id]
        requester, at_ms = ids.split(intent_id)
        if requester != self._agent:
            raise NotAllowedError(
                f"{intent_id} is not an intent of {self._agent}: over Kafka an agent hears of its own alone"
            )
        async with self._turn:
            found = await self._reader.offsets_for_times({self._place: max(0, at_ms - BEFORE_ID_MS)})
            start = found[self._place]
            heard = self._follow(intent_id)
            if start is not None and start.offset < await self._reader.position(self._place):
                self._reader.seek(self._place, start.offset)
            return heard

    async def _read(self) -> None:
        try:
            while True:
                batch = await self._reader.getmany(self._place, timeout_ms=POLL_MS)
                for record in batch.get(self._place, ()):
                    self._hear(record.key, record.value, record.offset)
                if batch:
                    async with self._news:
                        self._news.notify_all()
        except Exception as exc:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            self._failed = NoConnectionError(f"{self._place.topic} can no longer be read: {exc!r}")
            self._failed.__cause__ = exc
            async with self._news:
                self._news.notify_all()

    def _hear(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        heard = self._heard.get(key.decode("ascii", "replace")) if key is not None else None
        if heard is None or value is None or offset <= heard.offset:
            return
        status = status_of(value)
        if status is None or status.intent.encode() != key:
            _log.warning("%s/%s is no status this client can read: update keyturn", self._place, offset)
            return
        heard.statuses.append((offset, status))

    async def _partitions(self, topic: str) -> int:
        """How many the topic has. aiokafka shows a topic that may not be described as empty, without a word."""
        client = self._reader._client  # noqa: SLF001 - there is no public way to ask for a topic one isn't subscribed to
        client.add_topic(topic)
        deadline = time.monotonic() + self._patience
        while not (found := self._reader.partitions_for_topic(topic)):
            await client.force_metadata_update()
            if time.monotonic() > deadline:
                raise NotAllowedError(
                    f"{topic} is not there, or {self._login.username} may not see it: check KEYTURN_PREFIX "
                    f"({self._login.prefix}), and the rights with `keyturn topics check`"
                )
        return len(found)

    # ---------------------------------------------------------------- what only the gateway answers

    async def check(self, members: Mapping[str, Json], asked: Sealed | None) -> Check:
        """Nobody answers questions on Kafka."""
        del members, asked
        raise ConfigurationError("only the gateway says what policy would say: connect to its URL")

    async def actions(self) -> tuple[ActionOffer, ...]:
        """Nobody answers questions on Kafka."""
        raise ConfigurationError("only the gateway lists actions: connect to its URL")


def status_of(value: bytes) -> Status | None:
    """A record of `status`; None for what is none."""
    try:
        members = canonical.decode(value, max_bytes=MAX_STATUS)
        phase = Phase(str(members["phase"]))
    except (CanonicalError, KeyError, ValueError):
        return None
    reason, refusal, at = members.get("reason"), members.get("refusal"), members.get("at")
    return Status(
        intent=str(members.get("intent")),
        phase=phase,
        reason=reason if isinstance(reason, str) else None,
        refusal=refusal if isinstance(refusal, str) else None,
        at=at if isinstance(at, int) else None,
    )


def _headers(sealed: Sealed, realm: str, agent: str) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0, binary mode; one `keyid`, one `sig`."""
    named = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_type": sealed.type,
        "ce_source": f"/keyturn/{realm}/{agent}",
        "ce_id": sealed.digest[:32],
        "ce_subject": sealed.intent,
        "keyid": sealed.keyid,
        "sig": sealed.sig,
    }
    return [(name, value.encode()) for name, value in named.items()]
