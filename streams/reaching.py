"""Why there is no connection: Kafka is not there yet, or it does not let us in. The client says the same of both.

So each bootstrap address is asked directly: where nobody listens, Kafka is not there; whoever listens has refused.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

from streams.errors import ConnectionRefusedByKafkaError, KafkaAbsentError, KafkaHangsUpError
from streams.settings import Settings

CONNECT_SECONDS: Final = 5.0
ANSWER_MS: Final = 10_000
NOT_OF_A_CONNECTION: Final = frozenset({"bootstrap_servers", "retry_backoff_ms"})


async def why_not(
    settings: Settings, arguments: dict[str, Any]
) -> KafkaAbsentError | ConnectionRefusedByKafkaError | None:
    """Why none of the addresses lets us in; None when one does. `arguments` are those of the client."""
    own = {name: value for name, value in arguments.items() if name not in NOT_OF_A_CONNECTION}
    addresses = settings.kafka.split(",")
    reasons = await asyncio.gather(*(_why_not_at(settings, address, own) for address in addresses))
    if None in reasons:
        return None
    refused = [why for why in reasons if isinstance(why, ConnectionRefusedByKafkaError)]
    if refused:
        # A word says more than silence.
        return min(refused, key=lambda why: isinstance(why, KafkaHangsUpError))
    absent = "; ".join(f"{address}: {why}" for address, why in zip(addresses, reasons, strict=True))
    return KafkaAbsentError(f"nobody listens where Kafka should be ({absent}): check that it runs, and KEYTURN_KAFKA")


async def _why_not_at(
    settings: Settings, address: str, arguments: dict[str, Any]
) -> str | ConnectionRefusedByKafkaError | None:
    """A text: nobody listens there."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    absence = await _why_nobody_listens(host, int(port))
    return await _why_not_let_in(settings, address, host, int(port), arguments) if absence is None else absence


async def _why_nobody_listens(host: str, port: int) -> str | None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "no answer"
    except ConnectionRefusedError:
        return "connection refused"
    except OSError as exc:
        return exc.strerror or str(exc)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None


async def _why_not_let_in(
    settings: Settings, address: str, host: str, port: int, arguments: dict[str, Any]
) -> ConnectionRefusedByKafkaError | None:
    try:
        connection = await create_conn(host, port, request_timeout_ms=ANSWER_MS, **arguments)
    except (KafkaError, OSError) as exc:
        is_silent = isinstance(exc, KafkaConnectionError | OSError) and not isinstance(exc, ssl.SSLError)
        kind = KafkaHangsUpError if is_silent else ConnectionRefusedByKafkaError
        return kind(
            f"Kafka at {address} does not let {settings.kafka_username or 'us'} in: check the password, and "
            f"KEYTURN_KAFKA_SECURITY ({settings.kafka_security}): {type(exc).__name__}: {exc}"
        )
    connection.close()
    return None
