"""Where a Kafka is reached, and whether what answers there is the one we mean.

An open port proves nothing, somebody else's broker has one too: ours is the one that lets our admin in and says our
cluster id.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import timedelta

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from sandbox.errors import WrongClusterError

ASK_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True)
class Credentials:
    """A SCRAM-SHA-512 user and its password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class KafkaAddress:
    """All that a client needs: the protocol is SASL_PLAINTEXT, the mechanism SCRAM-SHA-512."""

    #: host:port; of a cluster, those of all nodes, separated by commas
    bootstrap: str
    cluster_id: str
    #: The one super user.
    admin: Credentials
    #: How many nodes there are, all of them brokers.
    nodes: int = 1

    @property
    def copies(self) -> int:
        """How often everything is stored: on three nodes at most."""
        return min(self.nodes, 3)

    @property
    def least(self) -> int:
        """On how many nodes something is stored before it is acknowledged."""
        return max(self.copies - 1, 1)


async def serves(address: KafkaAddress, node: int | None = None) -> bool:
    """Whether the admin can log in and sees the right cluster. Another cluster there is an error, not a "not yet".

    With `node`, whether this node is one of its brokers, too.
    """
    if not await _listens(address):
        # Asked first, because the client logs an error for each attempt at a closed port.
        return False
    client = AIOKafkaAdminClient(
        bootstrap_servers=address.bootstrap,
        request_timeout_ms=int(ASK_WITHIN.total_seconds() * 1000),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_plain_username=address.admin.username,
        sasl_plain_password=address.admin.password,
    )
    try:
        async with asyncio.timeout(ASK_WITHIN.total_seconds()):
            await client.start()
            cluster: dict[str, object] = await client.describe_cluster()
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()
    if cluster["cluster_id"] != address.cluster_id:
        other = cluster["cluster_id"]
        raise WrongClusterError(
            f"{address.bootstrap} is the Kafka cluster {other}, not ours ({address.cluster_id}). Stop that one."
        )
    brokers = cluster["brokers"]
    known = {broker["node_id"] for broker in brokers} if isinstance(brokers, list) else set()
    return bool(known) if node is None else node in known


async def _listens(address: KafkaAddress) -> bool:
    host, port = address.bootstrap.split(",")[0].split(":")
    try:
        async with asyncio.timeout(ASK_WITHIN.total_seconds()):
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
