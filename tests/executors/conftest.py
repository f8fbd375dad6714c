"""One Kafka, one realm with one executor, for all tests of this folder."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from sandbox.kafka import EmbeddedKafka
from streams import documents
from streams.administration import Admin, provision
from streams.realm import Realm, RealmFolder, lay_out
from tests.executors.builders import DIRECTORY, ISSUER
from tests.executors.stage import PARTITIONS, Core, core_of, now


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def core(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Core]:
    """The scripted core of a provisioned realm, with the directory in force."""
    folder = tmp_path_factory.mktemp("realm")
    async with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as address:
        realm = Realm(
            realm="test",
            kafka=address.bootstrap,
            kafka_security="SASL_PLAINTEXT",
            partitions=PARTITIONS,
            replication_factor=1,
            min_insync_replicas=1,
            executors=("lamp",),
            notifiers=("api",),
            agents=("bot",),
        )
        lay_out(folder, realm, ["ada"], secrets.token_bytes, [ISSUER])
        await provision(folder, Admin(address.admin.username, address.admin.password))
        _complete(folder / "directory.yaml")
        admin = RealmFolder(folder).settings("administration")
        await documents.apply_directory(admin, folder / "directory.yaml", now())
        world = await documents.read_world(admin)
        async with core_of(folder, world.versions) as made:
            yield made


def _complete(file: Path) -> None:
    """The people of the builders, with the keys of this realm."""
    draft = yaml.safe_load(file.read_text())
    wanted = DIRECTORY.to_json()
    draft |= {name: wanted[name] for name in ("persons", "agents", "groups", "rotas")}
    file.write_text(yaml.safe_dump(draft))
