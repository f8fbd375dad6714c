"""Gateways over a log in memory, and one over a real Kafka."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sandbox import issuer as oidc
from tests.broker.builders import PERSONS, T0
from tests.gateway import stage
from tests.gateway.stage import Door
from tests.house import new_realm, realm


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> oidc.Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"), lambda: T0 / 1000)


def make_issuer(folder: Path, now: object, port: int = 9) -> oidc.Issuer:
    persons = tuple(
        oidc.PersonLogin(name=person.id, sub=f"sub-{person.id}", secret=f"{person.id}-secret-of-the-sandbox")
        for person in PERSONS
    )
    machine = oidc.Machine(client_id="bot", secret="bot-secret-of-the-sandbox")
    configuration = oidc.IssuerConfiguration(port=port, folder=folder, persons=persons, machines=(machine,))
    return oidc.Issuer(configuration, now=now)  # type: ignore[arg-type]


@pytest.fixture
async def login(issuer: oidc.Issuer) -> AsyncIterator[httpx.AsyncClient]:
    """The issuer over HTTP."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(oidc.make_app(issuer)), base_url=issuer.url) as http:
        yield http


@pytest.fixture
async def door(issuer: oidc.Issuer, login: httpx.AsyncClient) -> AsyncIterator[Door]:
    made = stage.a_door(issuer, login, [T0])
    async with made.http:
        yield made


__all__ = ["new_realm", "realm"]
