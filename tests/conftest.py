"""What tests of several rooms share: one real Kafka, one sandbox, one local AWS. Each is started when asked for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from sandbox import jars
from sandbox.aws import AwsAddress, LocalAws
from sandbox.kafka import KafkaAddress
from sandbox.world import Sandbox, SandboxWorld
from tests import kafkas

# Every run draws the same examples, on a machine of any speed: what fails once fails for everybody.
settings.register_profile(
    "same-every-run",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("same-every-run")
# Else hypothesis strews in constants of those of our modules that happen to be loaded: a test run alone, or by another
# worker, would draw other examples.
assert callable(providers._get_local_constants)
providers._get_local_constants = lambda: providers._local_constants

ROOMS = Path(__file__).parent
#: Those that take longest, in that order.
LONG = ("flow", "campaign", "core", "hostility", "broker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: with several workers the end is early then. A file stays with one worker."""
    rank = {room: number for number, room in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(_room(item), len(LONG)))


def pytest_report_header() -> str:
    """Which Kafka, and why."""
    return kafkas.chosen()


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(ROOMS).parts[0] if item.path.is_relative_to(ROOMS) else item.path.parts[-2]


@pytest.fixture(scope="session")
def sandbox_cache() -> Path:
    """Where Kafka's jars are kept from run to run."""
    return jars.cache_folder()


@pytest.fixture(scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory, sandbox_cache: Path) -> AsyncIterator[KafkaAddress]:
    """A Kafka with nothing on it; each test makes realms of its own."""
    async with kafkas.running(tmp_path_factory.mktemp("kafka"), sandbox_cache) as address:
        yield address


@pytest.fixture(scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory, sandbox_cache: Path) -> AsyncIterator[SandboxWorld]:
    """Kafka, S3, the issuer and the story's realm on them; no role runs. Leave its documents as they are."""
    async with Sandbox(tmp_path_factory.mktemp("sandbox"), cache=sandbox_cache) as world:
        yield world


@pytest.fixture(scope="session")
async def aws(tmp_path_factory: pytest.TempPathFactory, sandbox_cache: Path) -> AsyncIterator[AwsAddress]:
    """A local AWS with nobody in it but its administrator and the executors; names must differ across folders."""
    async with LocalAws(tmp_path_factory.mktemp("aws"), cache=sandbox_cache) as address:
        yield address
