"""Realms of one real Kafka, each with its documents in force and no role running."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest
import pytest_asyncio

from sandbox.kafka import KafkaAddress
from schemas.snapshots import Snapshot
from tests.house import DOCUMENTS, House, house


class NewRealm(Protocol):
    def __call__(self, documents: tuple[Snapshot, ...] = DOCUMENTS) -> AbstractAsyncContextManager[House]: ...


@pytest.fixture(scope="session")
def new_realm(kafka: KafkaAddress, tmp_path_factory: pytest.TempPathFactory) -> NewRealm:
    """For tests that leave a realm broken."""

    def make(documents: tuple[Snapshot, ...] = DOCUMENTS) -> AbstractAsyncContextManager[House]:
        return house(tmp_path_factory.mktemp("realm"), kafka, documents)

    return make


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def realm(new_realm: NewRealm) -> AsyncIterator[House]:
    """The module's own."""
    async with new_realm() as made:
        yield made
