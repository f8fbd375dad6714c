"""From what one is told to a client: the one place that reads the environment, a clock and randomness."""

import inspect
import os
import secrets
import time

from keyturn import ids, kafka, settings, signing
from keyturn.blocking import Client
from keyturn.client import AsyncClient, Author, BearerAuthor, SigningAuthor
from keyturn.errors import ConfigurationError
from keyturn.http import HttpTransport
from keyturn.kafka import KafkaTransport
from keyturn.settings import Over, Settings, TokenSource
from keyturn.signing import Signer
from keyturn.transport import Transport


def connect(
    target: str | os.PathLike[str] | None = None,
    *,
    agent: str | None = None,
    realm: str | None = None,
    key: Signer | str | os.PathLike[str] | None = None,
    token: TokenSource | None = None,
    over: Over | None = None,
) -> Client:
    """A client of Keyturn, connected: `with keyturn.connect() as client`.

    `target` is the gateway's URL (`https://…`), Kafka's address (`kafka://host:port`), the folder that `keyturn init`
    or `keyturn sandbox up` made, or nothing, when `KEYTURN_…` variables say it (see `keyturn.settings`). An agent
    with a `key` signs its intents itself; with a `token` the gateway does. `over` chooses when both ways are known;
    the gateway otherwise.

    >>> connect("ftp://keyturn.example.com")
    Traceback (most recent call last):
    keyturn.errors.ConfigurationError: give https://… (a gateway), kafka://host:port, or a folder, not ftp://
    """
    return Client(connect_async(target, agent=agent, realm=realm, key=key, token=token, over=over))


def connect_async(
    target: str | os.PathLike[str] | None = None,
    *,
    agent: str | None = None,
    realm: str | None = None,
    key: Signer | str | os.PathLike[str] | None = None,
    token: TokenSource | None = None,
    over: Over | None = None,
) -> AsyncClient:
    """The same to await: `async with keyturn.connect_async() as client`."""
    told = settings.read(target, os.environ, agent=agent, realm=realm, key=key, token=token, over=over)
    return AsyncClient(_transport(told), _author(told))


def _author(told: Settings) -> Author:
    if told.signer is None or told.agent is None or told.realm is None:
        return BearerAuthor(ids.IdMaker("key", milliseconds, secrets.token_bytes).next)
    maker = ids.IdMaker(told.agent, milliseconds, secrets.token_bytes)
    return SigningAuthor(told.agent, told.realm, told.signer, maker, milliseconds)


def _transport(told: Settings) -> Transport:
    if told.kafka is not None:
        if told.agent is None or told.realm is None:
            raise ConfigurationError("Kafka needs to know who asks: agent= and realm=")
        return KafkaTransport(told.kafka, told.agent, told.realm)
    if told.url is None:
        raise ConfigurationError("nobody said where Keyturn is: connect('https://…')")
    authority = kafka.tls(told.authority) if told.authority else None

    async def token() -> str:
        source = told.token
        if isinstance(source, str):
            return source
        if source is not None:
            given = source()
            return await given if inspect.isawaitable(given) else given
        if told.signer is None or told.agent is None or told.realm is None:
            raise ConfigurationError("nobody said who asks: give key= or token=")
        return signing.bearer(told.signer, told.agent, told.realm, int(time.time()), secrets.token_hex(16))

    return HttpTransport(told.url, token, authority=authority)


def milliseconds() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000_000
