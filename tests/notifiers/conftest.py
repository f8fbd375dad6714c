"""An API over the memory desk, with tokens of a real issuer; no sockets."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from notifiers.api.app import Approvals, make_app
from sandbox import issuer as oidc
from schemas.records import PendingApproval
from streams.http.oidc import Keys, Verifier
from tests.notifiers import stage

NOW = stage.T0 + 5_000
AUDIENCE = "keyturn-approvals"


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> oidc.Issuer:
    return make_issuer(tmp_path_factory.mktemp("issuer"), "ES256")


def make_issuer(folder: Path, algorithm: str, now_ms: int = NOW) -> oidc.Issuer:
    persons = tuple(
        oidc.PersonLogin(name=name, sub=f"sub-{name}", secret=f"{name}-secret-of-the-sandbox")
        for name in ("ana", "ben", "cho", "dev", "eve", "fay")
    )
    machine = oidc.Machine(client_id="ci", secret="ci-secret-of-the-sandbox")
    configuration = oidc.IssuerConfiguration(
        port=9, folder=folder, algorithm=algorithm, persons=persons, machines=(machine,)
    )
    return oidc.Issuer(configuration, now=lambda: now_ms / 1000)


@dataclass
class Api:
    """What a test holds of one API."""

    desk: stage.MemoryDesk
    http: httpx.AsyncClient
    issuer: oidc.Issuer
    row: PendingApproval
    monotonic: list[float] = field(default_factory=lambda: [0.0])

    def as_(self, person: str, **more: object) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.issuer.token_for(person, **more)}"}

    async def show(self, person: str = "ana") -> dict:
        response = await self.http.get(f"/v1/approvals/{self.row.intent_id}", headers=self.as_(person))
        assert response.status_code == 200, response.text
        return response.json()

    async def say(
        self,
        person: str,
        verdict: str = "approve",
        *,
        question: str | None = None,
        card: str | None = None,
        key: str = "key-00000001",
        reason: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        shown = (await self.show())["card"]["digest"] if card is None else card
        assert self.row.question
        body = {"verdict": verdict, "card": shown} | ({"reason": reason} if reason is not None else {})
        asked = {"If-Match": f'"{question or self.row.question.digest}"', "Idempotency-Key": key}
        return await self.http.post(
            f"/v1/approvals/{self.row.intent_id}/decisions",
            json=body,
            headers={**self.as_(person), **asked, **(headers or {})},
        )


@pytest.fixture
async def api(issuer: oidc.Issuer) -> AsyncIterator[Api]:
    desk = stage.MemoryDesk(stage.world(issuer.url), itertools.count(NOW, 10))
    row = stage.pending()
    desk.put(row)
    clock = [0.0]
    issuer_http = httpx.AsyncClient(transport=httpx.ASGITransport(oidc.make_app(issuer)))
    keys = Keys(issuer.url, issuer_http, lambda: clock[0])
    approvals = Approvals(
        desk,
        Verifier(issuer.url, AUDIENCE, keys, lambda: NOW / 1000),
        now=lambda: NOW,
        monotonic=lambda: clock[0],
        keep_seconds=3600,
    )
    http = httpx.AsyncClient(transport=httpx.ASGITransport(make_app(approvals)), base_url="http://api")
    async with issuer_http, http:
        yield Api(desk, http, issuer, row, clock)
