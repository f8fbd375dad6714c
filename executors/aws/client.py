"""The SDK in our own words: each call sent once, and every error one of two kinds.

Errors:

    ProviderError
    ├── RefusedError       the provider said no: nothing was done
    └── UnansweredError    it may or may not have been done

botocore counts `max_attempts: 1` as one *retry*; `total_max_attempts: 1` is one attempt. Below it aiohttp sends GET,
HEAD, PUT and DELETE again by itself when the connection breaks (RFC 9110, 9.2.2), and CopyObject is a PUT. A
conditional copy sent twice is answered 412 although it took effect, so both are switched off.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.client import INTERNAL_SERVER_ERROR, MULTIPLE_CHOICES
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
)

from executors.contract import ExecutorError


class ProviderError(Exception):
    """A call did not succeed; the text holds no secret."""


class RefusedError(ProviderError):
    """The provider said no, or was never reached: the call had no effect."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        #: 0 when the provider was not reached.
        self.status = status
        self.code = code


class UnansweredError(ProviderError):
    """No answer, or one that leaves open whether the call had its effect."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys to sign with; a minted session has a token, and says when it ends."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """Where S3 and STS are."""

    region: str
    #: None: AWS's own endpoints.
    endpoint: str | None = None


class OneSendSession(AIOHTTPSession):  # type: ignore[misc]
    """An HTTP session that never sends a request twice."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        # There is no public switch. Read first: should the attribute go away, fail here and not later, silently.
        if session._retry_connection:  # noqa: SLF001
            session._retry_connection = False  # noqa: SLF001
        return session


KNOWN: Final = {"region": True, "endpoint": False, "access_key": False, "secret_key": False, "secret_key_file": False}
"""What every executor on AWS may be told, and whether it must be."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where AWS is, and who we are before we assume a role."""

    provider: Provider
    #: May do nothing but assume this executor's roles. None: the identity that the environment gives the process.
    base: Credentials | None = None

    @classmethod
    def parse(cls, executor: str, given: Mapping[str, str], own: Mapping[str, bool]) -> Self:
        """The settings `region`, and if given `endpoint`, `access_key` and `secret_key` or `secret_key_file`.

        `own` are the executor's other settings, and whether each is needed. ExecutorError says what is wrong.
        """
        known = KNOWN | dict(own)
        if unknown := given.keys() - known.keys():
            raise ExecutorError(f"unknown settings: {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
        if missing := sorted({name for name, needed in known.items() if needed} - given.keys()):
            raise ExecutorError(f"set {', '.join(f'KEYTURN_{executor.upper()}_{name.upper()}' for name in missing)}")
        secret = _secret(executor, given)
        if ("access_key" in given) != (secret is not None):
            name = f"KEYTURN_{executor.upper()}"
            raise ExecutorError(
                f"set both {name}_ACCESS_KEY and {name}_SECRET_KEY_FILE (or {name}_SECRET_KEY), or neither"
            )
        base = Credentials(given["access_key"], secret) if secret is not None else None
        return cls(Provider(given["region"], given.get("endpoint")), base)


def _secret(executor: str, given: Mapping[str, str]) -> str | None:
    """From its file if one is named. ExecutorError shows the file's path, never what is in it."""
    if "secret_key_file" not in given:
        return given.get("secret_key")
    try:
        return Path(given["secret_key_file"]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        place = f"KEYTURN_{executor.upper()}_SECRET_KEY_FILE: {given['secret_key_file']}"
        raise ExecutorError(f"{place}: {type(exc).__name__}; it must be a readable text file") from None


class Aws:
    """Opens clients. Keeps the service models, which take a tenth of a second to read."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._models: AioSession = get_session()

    async def assume_role(self, role: str, name: str, policy: str, seconds: int) -> Credentials:
        """A session of `role`, cut by `policy`. `name` becomes the session's name and its source identity."""
        async with self.client("sts", self._account.base, read_timeout=20) as sts:
            with told():
                answer: dict[str, Any] = await sts.assume_role(
                    RoleArn=role, RoleSessionName=name, SourceIdentity=name, Policy=policy, DurationSeconds=seconds
                )
        minted = answer["Credentials"]
        return Credentials(
            minted["AccessKeyId"], minted["SecretAccessKey"], minted["SessionToken"], minted["Expiration"]
        )

    def client(self, service: str, keys: Credentials | None, *, read_timeout: float) -> Any:
        """A client of this service with these keys, to be entered; each of its calls goes inside `told`."""
        there = self._account.provider
        config = AioConfig(
            connect_timeout=5,
            read_timeout=read_timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},
            http_session_cls=OneSendSession,
            # A custom endpoint seldom has a DNS name for each bucket.
            s3={"addressing_style": "path" if there.endpoint else "auto"},
        )
        given = {}
        if keys is not None:
            given = {
                "aws_access_key_id": keys.access_key,
                "aws_secret_access_key": keys.secret_key,
                "aws_session_token": keys.token,
            }
        return self._models.create_client(
            service,
            region_name=self._account.provider.region,
            endpoint_url=self._account.provider.endpoint,
            config=config,
            **given,
        )


@contextmanager
def told() -> Iterator[None]:
    """Turns the SDK's errors into ours: was it refused for certain, or is it open?"""
    try:
        yield
    except ClientError as exc:
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        error = exc.response.get("Error", {})
        code, message = str(error.get("Code", "")), str(error.get("Message", ""))
        # S3 answers SlowDown before it does anything; of any other 5xx nobody knows.
        if MULTIPLE_CHOICES <= status < INTERNAL_SERVER_ERROR or code == "SlowDown":
            raise RefusedError(status, code, message) from exc
        raise UnansweredError(f"the provider answered {status} {code}") from exc
    except (BotoCoreError, OSError) as exc:
        if _is_unsent(exc):
            raise RefusedError(0, "NotSent", f"the request never left ({type(exc).__name__})") from exc
        raise UnansweredError(f"no answer from the provider ({type(exc).__name__})") from exc


def _is_unsent(error: Exception) -> bool:
    """Whether nothing was sent. EndpointConnectionError alone does not say so: a reset one ends in it too."""
    if isinstance(error, EndpointConnectionError):
        return isinstance(error.kwargs.get("error"), aiohttp.ClientConnectorError)
    return isinstance(error, (ConnectTimeoutError, ParamValidationError))
