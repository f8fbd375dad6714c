"""The sandbox's issuer, over HTTP and as a process."""

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import httpx
import jwt
import pytest
from pydantic import ValidationError

from sandbox import issuer as oidc
from tests.notifiers.conftest import make_issuer

ROOT = Path(oidc.__file__).parent.parent


def client(issuer: oidc.Issuer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(oidc.make_app(issuer)), base_url=issuer.url)


def verified(issuer: oidc.Issuer, token: str) -> dict:
    keys = jwt.PyJWKSet.from_dict(issuer.jwks())
    return jwt.decode(
        token,
        keys.keys[0],
        audience="keyturn-approvals",
        issuer=issuer.url,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_person_gets_an_access_token_for_the_secret(tmp_path: Path, algorithm: str) -> None:
    issuer = make_issuer(tmp_path, algorithm)
    form = {
        "grant_type": "password",
        "username": "ana",
        "password": "ana-secret-of-the-sandbox",
        "client_id": "keyturn-cli",
    }
    async with client(issuer) as http:
        response = await http.post("/token", data=form)
        assert response.headers["cache-control"] == "no-store"
        claims = verified(issuer, response.json()["access_token"])
        assert (claims["sub"], claims["client_id"], claims["scope"]) == (
            "sub-ana",
            "keyturn-cli",
            "approvals:read approvals:decide",
        )
        assert claims["auth_time"] == claims["iat"]
        assert jwt.get_unverified_header(response.json()["access_token"])["typ"] == "at+jwt"
        less = await http.post("/token", data=form | {"scope": "approvals:read everything"})
        assert verified(issuer, less.json()["access_token"])["scope"] == "approvals:read"


async def test_a_machine_gets_a_token_of_its_own_that_names_no_login(tmp_path: Path) -> None:
    issuer = make_issuer(tmp_path, "ES256")
    async with client(issuer) as http:
        response = await http.post(
            "/token", data={"grant_type": "client_credentials"}, auth=("ci", "ci-secret-of-the-sandbox")
        )
    claims = verified(issuer, response.json()["access_token"])
    assert claims["sub"] == claims["client_id"] == "ci"
    assert "auth_time" not in claims


@pytest.mark.parametrize(
    "form",
    [
        {"grant_type": "password", "username": "ana", "password": "wrong", "client_id": "keyturn-cli"},
        {
            "grant_type": "password",
            "username": "ana",
            "password": "ben-secret-of-the-sandbox",
            "client_id": "keyturn-cli",
        },
        {"grant_type": "password", "username": "ana", "password": "ana-secret-of-the-sandbox"},
        {"grant_type": "password"},
        {"grant_type": "client_credentials", "client_id": "ana", "client_secret": "ana-secret-of-the-sandbox"},
        {"grant_type": "client_credentials", "client_id": "ci"},
        {"grant_type": "authorization_code"},
        {"x": "y" * 9000},
    ],
)
async def test_everything_else_gets_nothing(tmp_path: Path, form: dict[str, str]) -> None:
    async with client(make_issuer(tmp_path, "ES256")) as http:
        response = await http.post("/token", data=form)
        assert response.status_code == 400
        assert "access_token" not in response.json()


def test_the_key_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    first, second = (make_issuer(tmp_path, "ES256") for _ in range(2))
    assert first.kid == second.kid
    (path,) = tmp_path.glob("*.pem")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_name_listed_twice_is_refused(tmp_path: Path) -> None:
    person = oidc.PersonLogin(name="ana", sub="sub-ana", secret="a-secret-of-the-sandbox")
    with pytest.raises(ValidationError, match="twice"):
        oidc.IssuerConfiguration(port=9, folder=tmp_path, persons=(person, person))


async def test_as_a_process_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    person = {"name": "ana", "sub": "sub-ana", "secret": "ana-secret-of-the-sandbox"}
    config = tmp_path / "issuer.json"
    config.write_text(json.dumps({"port": port, "folder": str(tmp_path / "keys"), "persons": [person]}))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox.issuer", "--config", str(config), cwd=ROOT, env=dict(os.environ)
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http, asyncio.timeout(20):
            while True:
                try:
                    discovery = (await http.get("/.well-known/openid-configuration")).json()
                    break
                except httpx.TransportError:
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
            assert discovery["issuer"] == f"http://127.0.0.1:{port}"
            assert (await http.get("/jwks")).json()["keys"][0]["kty"] == "EC"
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
