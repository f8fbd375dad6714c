"""A real Apache Kafka on this machine: KRaft, loopback only, closed to everyone without a password.

The laws:
1. What serves is ours or nothing: `start` returns when our admin has been served by our cluster, and not before.
2. Nobody gets in without SCRAM, and nobody but the admin does anything that no ACL allows.

Topics, ACLs and other users are not made here: that is administration's, here as in production. One node is not highly
available; three on one machine (`KafkaCluster`) survive the death of a process, and of nothing else.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from sandbox import jars, ports, quickstart
from sandbox.errors import SandboxError
from sandbox.kafka_address import Credentials, KafkaAddress, serves
from sandbox.kafka_directory import Identity, KafkaDirectory
from sandbox.supervise import Child, Places

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

__all__ = ["Credentials", "EmbeddedKafka", "KafkaAddress", "KafkaCluster", "quicken"]

START_WITHIN = timedelta(seconds=90)
STOP_WITHIN = timedelta(seconds=15)


@dataclass
class EmbeddedKafka:
    """One Kafka in one directory. As an async context manager it gives its address, and stops at the end.

    `start` may be called again after `stop` or `kill`: the data are kept.
    """

    directory: Path
    cache: Path = field(default_factory=jars.cache_folder)
    #: Where its log and pid file lie; by default in `logs/` and `run/` of the directory.
    places: Places | None = None
    progress: jars.Progress = jars.silent
    token: Callable[[int], bytes] = secrets.token_bytes
    name: str = "kafka"
    #: All nodes of its cluster, itself included; none when there is no other.
    cluster: tuple[Identity, ...] = ()
    #: The supervised process, while it is started: its pid, state and log.
    child: Child | None = field(default=None, init=False)
    #: Where it is, once started: the same for as long as the directory is kept.
    address: KafkaAddress | None = field(default=None, init=False)

    async def __aenter__(self) -> KafkaAddress:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def children(self) -> dict[str, Child]:
        """Its processes, by name."""
        return {self.name: self.child} if self.child is not None else {}

    def ports(self) -> frozenset[int]:
        """Say which ports it keeps, choosing them if it is new."""
        identity = self._identity()
        return frozenset({identity.broker_port, identity.controller_port})

    async def start(self) -> KafkaAddress:
        """Start it, making it first if it is new. When this returns, our cluster has served our admin."""
        if self.child is not None:
            raise SandboxError(f"the Kafka in {self.directory} is started already: stop it before starting it again")
        folder = self.directory.absolute()
        identity = self._identity()
        class_path = await _class_path(self.cache, self.progress)
        home = KafkaDirectory(folder, quickstart.flags(_archives(self.cache), class_path))
        child = Child(
            self.name,
            home.argv(class_path, "kafka.Kafka", str(home.settings)),
            home.env(),
            ready=partial(serves, identity.address, identity.node_id),
            places=self.places or Places.under(folder),
            preflight=partial(_require_ports, identity),
            start_within=START_WITHIN,
            stop_within=STOP_WITHIN,
        )
        child.claim()
        try:
            await home.prepare(identity, class_path, self.cluster)
        except BaseException:
            await child.kill()
            raise
        await child.start()
        self.child, self.address = child, identity.address
        return identity.address

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if it takes too long. When this returns no process of it is left."""
        if self.child is not None:
            await self.child.stop()
            self.child = None

    async def kill(self) -> None:
        """SIGKILL at once, as a power cut would: for tests of what survives."""
        if self.child is not None:
            await self.child.kill()
            self.child = None

    def _identity(self) -> Identity:
        return KafkaDirectory(self.directory.absolute()).identity(jars.kafka_version(jars.locked()), self.token)


@dataclass
class KafkaCluster:
    """Several nodes of one Kafka, each a process in a folder of its own. Used as `EmbeddedKafka` is."""

    directory: Path
    cache: Path = field(default_factory=jars.cache_folder)
    #: Where the nodes' logs and pid files lie; by default in `logs/` and `run/` of the directory.
    places: Places | None = None
    progress: jars.Progress = jars.silent
    token: Callable[[int], bytes] = secrets.token_bytes
    count: int = 3
    #: By node id, once started.
    nodes: dict[int, EmbeddedKafka] = field(default_factory=dict, init=False)
    address: KafkaAddress | None = field(default=None, init=False)

    async def __aenter__(self) -> KafkaAddress:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def children(self) -> dict[str, Child]:
        """Its processes, by name."""
        return {name: child for node in self.nodes.values() for name, child in node.children.items()}

    def ports(self) -> frozenset[int]:
        """Say which ports its nodes keep, choosing them if it is new."""
        return frozenset(port for one in self._identities() for port in (one.broker_port, one.controller_port))

    async def start(self) -> KafkaAddress:
        """Start every node. When this returns, each has served our admin."""
        identities = self._identities()
        places = self.places or Places.under(self.directory.absolute())
        # Had once for all: the nodes start at the same time.
        await _class_path(self.cache, self.progress)
        for one in identities:
            self.nodes[one.node_id] = EmbeddedKafka(
                self._folder(one.node_id), self.cache, places, token=self.token, name=f"kafka-{one.node_id}"
            )
            self.nodes[one.node_id].cluster = identities
        try:
            async with asyncio.TaskGroup() as group:
                for node in self.nodes.values():
                    group.create_task(node.start())
        except BaseException:
            await self.stop()
            raise
        bootstrap = ",".join(one.address.bootstrap for one in identities)
        first = identities[0].address
        self.address = KafkaAddress(bootstrap, first.cluster_id, first.admin, len(identities))
        return self.address

    async def stop(self) -> None:
        """SIGTERM to every node, and SIGKILL to those that take too long."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes.values():
                group.create_task(node.stop())

    async def kill(self) -> None:
        """SIGKILL to every node at once."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes.values():
                group.create_task(node.kill())

    def _folder(self, node_id: int) -> Path:
        return self.directory.absolute() / f"node-{node_id}"

    def _identities(self) -> tuple[Identity, ...]:
        version = jars.kafka_version(jars.locked())
        first = KafkaDirectory(self._folder(1)).identity(version, self.token)
        others = (
            KafkaDirectory(self._folder(number)).identity(version, self.token, partial(first.peer, number, self.token))
            for number in range(2, self.count + 1)
        )
        return (first, *others)


async def quicken(cache: Path) -> None:
    """Make later starts quicker: some ten seconds of one core, once, at the lowest priority. May be cancelled."""
    await quickstart.train(_archives(cache), await _class_path(cache, jars.silent))


async def _class_path(cache: Path, progress: jars.Progress) -> tuple[Path, ...]:
    return await jars.ensure(_jars(cache), progress=progress)


def _jars(cache: Path) -> Path:
    return cache.absolute() / "jars"


def _archives(cache: Path) -> Path:
    return cache.absolute() / "aot"


def _require_ports(identity: Identity) -> None:
    ports.require_free(identity.broker_port, "Kafka's clients")
    ports.require_free(identity.controller_port, "Kafka's controller")
