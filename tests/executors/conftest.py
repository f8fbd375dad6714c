"""One realm with one executor for all tests of this folder, and new ones for those after which nobody can go on."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from sandbox.kafka_address import KafkaAddress
from streams import documents
from streams.administration import Admin, provision, settings_of
from streams.realm import Realm, RealmFolder, lay_out
from tests.executors.builders import DIRECTORY, ISSUER
from tests.executors.stage import PARTITIONS, Core, core_of, now


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def core(kafka: KafkaAddress, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Core]:
    """The scripted core of a provisioned realm, with the directory in force."""
    async with _provisioned(kafka, tmp_path_factory.mktemp("realm")) as made:
        yield made


@pytest_asyncio.fixture
async def own_core(kafka: KafkaAddress, tmp_path: Path) -> AsyncIterator[Core]:
    """The same, for a story after which nobody can go on there."""
    async with _provisioned(kafka, tmp_path) as made:
        yield made


@asynccontextmanager
async def _provisioned(kafka: KafkaAddress, folder: Path) -> AsyncIterator[Core]:
    # Realms of one name side by side on one Kafka.
    prefix = f"{secrets.token_hex(4)}."
    realm = Realm(
        realm="test",
        kafka=kafka.bootstrap,
        kafka_security="SASL_PLAINTEXT",
        partitions=PARTITIONS,
        replication_factor=1,
        min_insync_replicas=1,
        executors=("lamp",),
        notifiers=("api",),
        agents=("bot",),
        prefix=prefix,
        user_prefix=prefix,
    )
    lay_out(folder, realm, ["ada"], secrets.token_bytes, [ISSUER])
    master = Admin(kafka.admin.username, kafka.admin.password)
    await provision(folder, master)
    _complete(folder / "directory.yaml")
    admin = RealmFolder(folder).settings("administration")
    await documents.apply_directory(admin, folder / "directory.yaml", now())
    world = await documents.read_world(admin)
    async with core_of(folder, settings_of(RealmFolder(folder), master), world.versions) as made:
        yield made


def _complete(file: Path) -> None:
    """The people of the builders, with the keys of this realm."""
    draft = yaml.safe_load(file.read_text())
    wanted = DIRECTORY.to_json()
    draft |= {name: wanted[name] for name in ("persons", "agents", "groups", "rotas")}
    file.write_text(yaml.safe_dump(draft))
