"""Starts and stops the local AWS: one process on 127.0.0.1, from packages of its own.

What it knows (identities, policies, stacks) is kept in its directory when it is stopped in order; killed, it comes
back as it was at the last stop. Keys are made once and stay.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from http.client import OK
from pathlib import Path
from typing import Final

import aiohttp

from sandbox import jars
from sandbox.aws import packages, settings
from sandbox.errors import SandboxError
from sandbox.s3 import KeyPair
from sandbox.s3.settings import write_private
from sandbox.supervise import Child, Places

HOST: Final = "127.0.0.1"
SERVER: Final = Path(__file__).with_name("server.py")
SERVICES: Final = ("cloudformation", "dynamodb", "iam", "s3", "sns", "sqs", "ssm", "sts")
"""What ministack serves: the three, and a few kinds of resources for stacks to hold."""


class AwsStartError(SandboxError):
    """The local AWS cannot be started; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One executor's: its own keys, which may only assume its roles."""

    keys: KeyPair
    read_role: str
    act_role: str
    #: There where planning leaves something with the provider.
    plan_role: str | None = None


@dataclass(frozen=True, slots=True)
class AwsAddress:
    """Where the local AWS is, and who may talk to it."""

    endpoint: str
    region: str
    account: str
    #: May do everything.
    admin: KeyPair
    #: By the executor's name: `iam`, `infra`.
    executors: Mapping[str, Identity]


class LocalAws:
    """One local AWS over one directory. An async context manager that gives the address."""

    def __init__(
        self,
        directory: Path,
        *,
        cache: Path | None = None,
        port: int = 0,
        progress: packages.Progress = packages.silent,
        stop_within: timedelta = timedelta(seconds=10),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Not started. `port` 0: a free one at each start. `progress` hears of the first use's installation."""
        self._directory = directory
        self._cache = cache
        self._port = port
        self._progress = progress
        self._stop_within = stop_within
        self._random_bytes = random_bytes
        self._running = AsyncExitStack()

    async def __aenter__(self) -> AwsAddress:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> AwsAddress:
        """Start it, after installing its packages if need be. When this returns, the endpoint answers."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = await packages.ensure(self._cache or jars.cache_folder(), self._progress)
        keys = self._keys()
        port = self._port or _free_port()
        config = self._directory / "server.json"
        write_private(config, settings.configuration(port, keys))
        await self._running.enter_async_context(self._child(folder, config, port))
        return AwsAddress(
            endpoint=f"http://{HOST}:{port}",
            region=settings.REGION,
            account=settings.ACCOUNT,
            admin=keys["admin"],
            executors={
                name: Identity(
                    keys[name],
                    settings.role_arn(settings.read_role(name)),
                    settings.role_arn(settings.act_role(name)),
                    settings.role_arn(settings.plan_role(name)) if rights.plan else None,
                )
                for name, rights in settings.EXECUTORS.items()
            },
        )

    async def stop(self) -> None:
        """Stop it. When this returns it is gone, and what it knew is on disk."""
        await self._running.aclose()

    def _child(self, folder: Path, config: Path, port: int) -> Child:
        temporary = self._directory / "tmp"
        temporary.mkdir(exist_ok=True, mode=0o700)
        return Child(
            name="aws",
            # Isolated and without our site packages: it sees its own and the standard library.
            argv=[sys.executable, "-I", "-S", str(SERVER), str(folder), str(config)],
            env={
                "PATH": os.defpath,
                "HOME": str(self._directory),
                "TMPDIR": str(temporary),
                "AUTH": "true",
                "SERVICES": ",".join(SERVICES),
                "GATEWAY_PORT": str(port),
                "MINISTACK_ACCOUNT_ID": settings.ACCOUNT,
                "MINISTACK_REGION": settings.REGION,
                "PERSIST_STATE": "1",
                "STATE_DIR": str(self._directory / "state"),
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
                "LOG_LEVEL": "WARNING",
                # No container is ever started or looked for.
                "DOCKER_HOST": f"unix://{self._directory / 'no-docker.sock'}",
            },
            ready=lambda: _answers(port),
            places=Places.under(self._directory),
            stop_within=self._stop_within,
        )

    def _keys(self) -> dict[str, KeyPair]:
        """The users' keys: made once; a user that is new since then gets one."""
        path = self._directory / "keys.json"
        kept = {name: KeyPair(**pair) for name, pair in json.loads(path.read_text()).items()} if path.exists() else {}
        wanted = ("admin", *settings.EXECUTORS)
        if missing := [name for name in wanted if name not in kept]:
            kept |= {name: self._pair(name) for name in missing}
            write_private(path, json.dumps({name: asdict(pair) for name, pair in kept.items()}))
        return kept

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(f"AKIAKT{name.upper()}{self._random_bytes(6).hex().upper()}", self._random_bytes(20).hex())


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as held:
        port: int = held.getsockname()[1]
        return port


async def _answers(port: int) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(f"http://{HOST}:{port}/_ministack/health") as answer,
        ):
            return answer.status == OK
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError):
        return False
