"""What tests of several rooms share: one real Kafka, one sandbox, one local AWS. Each is started when asked for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox import jars
from sandbox.aws import AwsAddress, LocalAws
from sandbox.kafka import EmbeddedKafka, KafkaAddress
from sandbox.world import Sandbox, SandboxWorld


@pytest.fixture(scope="session")
def sandbox_cache() -> Path:
    """Where Kafka's jars are kept from run to run."""
    return jars.cache_folder()


@pytest.fixture(scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory, sandbox_cache: Path) -> AsyncIterator[KafkaAddress]:
    """A Kafka with nothing on it; each test makes realms of its own."""
    async with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), cache=sandbox_cache) as address:
        yield address


@pytest.fixture(scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory, sandbox_cache: Path) -> AsyncIterator[SandboxWorld]:
    """Kafka, S3, the issuer and the story's realm on them; no role runs. Leave its documents as they are."""
    async with Sandbox(tmp_path_factory.mktemp("sandbox"), cache=sandbox_cache) as world:
        yield world


@pytest.fixture(scope="session")
async def aws(tmp_path_factory: pytest.TempPathFactory, sandbox_cache: Path) -> AsyncIterator[AwsAddress]:
    """A local AWS with nobody in it but its administrator and the executors; each test makes names of its own."""
    async with LocalAws(tmp_path_factory.mktemp("aws"), cache=sandbox_cache) as address:
        yield address
