"""Realms on one real Kafka that don't know of one another."""

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.kafka import KafkaAddress
from streams.administration import Admin, provision
from streams.realm import Realm, RealmFolder, lay_out

PARTITIONS = 2


@dataclass(frozen=True)
class Place:
    """A realm's folder, and who may administer its Kafka."""

    folder: Path
    admin: Admin

    @property
    def home(self) -> RealmFolder:
        return RealmFolder(self.folder)

    @property
    def realm(self) -> Realm:
        return self.home.realm()

    def topic(self, name: str) -> str:
        return self.realm.prefix + name


NewRealm = Callable[[], Place]


@pytest.fixture(scope="session")
def new_realm(kafka: KafkaAddress, tmp_path_factory: pytest.TempPathFactory) -> NewRealm:
    numbers = itertools.count(1)

    def make() -> Place:
        prefix = f"r{next(numbers)}."
        folder = tmp_path_factory.mktemp("realm") / "keyturn"
        realm = Realm(
            realm="example",
            prefix=prefix,
            user_prefix=prefix,
            kafka=kafka.bootstrap,
            kafka_security="SASL_PLAINTEXT",
            partitions=PARTITIONS,
            replication_factor=1,
            min_insync_replicas=1,
            executors=("s3",),
            agents=("bot",),
        )
        lay_out(folder, realm, ["ada"], secrets.token_bytes)
        return Place(folder, Admin(kafka.admin.username, kafka.admin.password))

    return make


@pytest.fixture(scope="module")
async def place(new_realm: NewRealm) -> Place:
    """A provisioned realm, shared by the tests of a module."""
    made = new_realm()
    await provision(made.folder, made.admin)
    return made
