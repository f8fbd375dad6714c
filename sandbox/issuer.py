"""A small, real OpenID Connect issuer for one machine: discovery, keys, RFC 9068 access tokens. For the sandbox only.

Persons get a token for a secret from its configuration (the resource owner password grant, which OAuth 2.1 drops: no
browser, no consent, no second factor; that is why it must never face people). Machines get one by client
credentials; the approvers' API refuses those for deciding, and the sandbox shows it. It listens on loopback only.

    python -m sandbox.issuer --config FILE

The signing key is made once and kept in the configured folder, 0600.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import jwt
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sandbox.errors import SandboxError
from streams.http.serving import Server

APPROVALS: Final = "keyturn-approvals"
GATEWAY: Final = "keyturn-gateway"
SCOPES: Final = ("approvals:read", "approvals:decide")
ASKING: Final = ("intents:read", "intents:write")
AUDIENCES: Final[Mapping[str, tuple[str, ...]]] = {GATEWAY: ASKING}
"""Other doors than the one this issuer is configured for, and what a token for one of them may do there."""
MAX_FORM: Final = 8192
RSA_BITS: Final = 2048
Subject = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._@-]{1,128}$")]
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
T = TypeVar("T", bound="_Closed")


class IssuerError(SandboxError):
    """The issuer cannot start; the text says what to change."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PersonLogin(_Closed):
    """Somebody who can log in: `sub` is the subject of the directory's account with this issuer as provider."""

    name: Subject
    sub: Subject
    secret: str = Field(min_length=16)
    scopes: tuple[str, ...] = SCOPES


class Machine(_Closed):
    """A client that gets tokens for itself: nobody's login."""

    client_id: Subject
    secret: str = Field(min_length=16)
    scopes: tuple[str, ...] = SCOPES


class IssuerConfiguration(_Closed):
    """The configuration file, JSON."""

    #: Loopback port. It is part of the issuer's name, so it stays.
    port: int = Field(ge=1, le=65535)
    #: Where the signing key is kept.
    folder: Path
    audience: str = APPROVALS
    algorithm: Literal["ES256", "RS256"] = "ES256"
    #: How long a token lives.
    life_seconds: int = Field(3600, ge=1, le=86_400)
    acr: str = "urn:keyturn:sandbox:password"
    amr: tuple[str, ...] = ("pwd",)
    persons: tuple[PersonLogin, ...] = ()
    machines: tuple[Machine, ...] = ()
    #: The client that persons use: the command line. It has no secret.
    public_client: Subject = "keyturn-cli"

    @model_validator(mode="after")
    def _names_are_unique(self) -> "IssuerConfiguration":
        names = [person.name for person in self.persons] + [machine.client_id for machine in self.machines]
        if len(set(names)) != len(names) or self.public_client in names:
            raise ValueError("a person or client is listed twice")
        return self

    @property
    def url(self) -> str:
        """The issuer's name, as `iss` spells it."""
        return f"http://127.0.0.1:{self.port}"


class Issuer:
    """Signs tokens. `now` gives Unix seconds."""

    def __init__(self, configuration: IssuerConfiguration, now: Callable[[], float] = time.time) -> None:
        self.configuration = configuration
        self._now = now
        self._key = _kept_key(configuration.folder, configuration.algorithm)
        self.kid = _thumbprint(self._public_jwk())

    @property
    def url(self) -> str:
        """The issuer's name."""
        return self.configuration.url

    def token_for(
        self,
        person: str,
        *,
        scopes: tuple[str, ...] | None = None,
        life_seconds: int | None = None,
        login_seconds_ago: int = 0,
        audience: str | None = None,
    ) -> str:
        """A token of this person, as after a login that long ago. KeyError when nobody has that name."""
        found = {login.name: login for login in self.configuration.persons}[person]
        claims: dict[str, object] = {
            "sub": found.sub,
            "client_id": self.configuration.public_client,
            "auth_time": int(self._now()) - login_seconds_ago,
            "acr": self.configuration.acr,
            "amr": list(self.configuration.amr),
        }
        allowed = found.scopes if audience is None else AUDIENCES[audience]
        if audience is not None:
            claims["aud"] = audience
        return self.sign(claims, allowed if scopes is None else scopes, life_seconds)

    def token_for_machine(self, client_id: str) -> str:
        """A client's own token (RFC 9068, 2.2: `sub` is the client; nobody logged in, so no auth_time)."""
        machine = {machine.client_id: machine for machine in self.configuration.machines}[client_id]
        return self.sign({"sub": client_id, "client_id": client_id}, machine.scopes, None)

    def sign(self, claims: Mapping[str, object], scopes: tuple[str, ...], life_seconds: int | None) -> str:
        """An access token with these claims over the usual ones."""
        now = int(self._now())
        life = self.configuration.life_seconds if life_seconds is None else life_seconds
        usual = {
            "iss": self.url,
            "aud": self.configuration.audience,
            "iat": now,
            "nbf": now,
            "exp": now + life,
            "jti": secrets.token_hex(16),
            "scope": " ".join(scopes),
        }
        headers = {"typ": "at+jwt", "kid": self.kid}
        return jwt.encode({**usual, **claims}, self._key, self.configuration.algorithm, headers)

    def discovery(self) -> dict[str, object]:
        """OpenID Connect Discovery 1.0, 3."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint": f"{self.url}/token",
            "grant_types_supported": ["password", "client_credentials"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "scopes_supported": list(SCOPES),
            "id_token_signing_alg_values_supported": [self.configuration.algorithm],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        }

    def jwks(self) -> dict[str, object]:
        """The public key (RFC 7517)."""
        return {"keys": [self._public_jwk() | {"kid": self.kid, "use": "sig", "alg": self.configuration.algorithm}]}

    def granted(self, form: Mapping[str, str]) -> str | None:
        """The token for this grant, or None when it does not count."""
        wanted = tuple(form.get("scope", "").split())
        match form.get("grant_type"):
            case "password":
                person = _who(self.configuration.persons, "name", form.get("username"), form.get("password"))
                is_ours = form.get("client_id") == self.configuration.public_client
                if person is None or not is_ours:
                    return None
                audience = form.get("audience", self.configuration.audience)
                if audience == self.configuration.audience:
                    scopes = tuple(scope for scope in wanted or person.scopes if scope in person.scopes)
                    return self.token_for(person.name, scopes=scopes)
                # A token is for one door: who asks can't answer with it.
                return self.token_for(person.name, audience=audience) if audience in AUDIENCES else None
            case "client_credentials":
                machine = _who(
                    self.configuration.machines, "client_id", form.get("client_id"), form.get("client_secret")
                )
                return self.token_for_machine(machine.client_id) if machine else None
            case _:
                return None

    def _public_jwk(self) -> dict[str, object]:
        algorithm = jwt.get_algorithm_by_name(self.configuration.algorithm)
        jwk = dict(algorithm.to_jwk(self._key.public_key(), as_dict=True))
        return {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}


def _who(known: tuple[T, ...], field: str, name: str | None, secret: str | None) -> T | None:
    found = None
    for one in known:
        # Every entry is compared, so that the time taken tells nobody which names there are.
        fits = hmac.compare_digest(str(getattr(one, "secret")).encode(), (secret or "").encode())  # noqa: B009
        if getattr(one, field) == name and fits:
            found = one
    return found


def _thumbprint(jwk: Mapping[str, object]) -> str:
    """RFC 7638."""
    text = "{" + ",".join(f'"{name}":"{jwk[name]}"' for name in sorted(jwk)) + "}"
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _kept_key(folder: Path, algorithm: str) -> PrivateKey:
    path = folder / f"issuer-{algorithm.lower()}.pem"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        made: PrivateKey = generate_ec(SECP256R1()) if algorithm == "ES256" else generate_rsa(65537, RSA_BITS)
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise IssuerError(f"{path} is not a key for {algorithm}; remove it, and a new one is made")
    return key


def make_app(issuer: Issuer) -> Starlette:
    """The issuer over HTTP."""

    async def discovery(_: Request) -> JSONResponse:
        return JSONResponse(issuer.discovery())

    async def jwks(_: Request) -> JSONResponse:
        return JSONResponse(issuer.jwks())

    async def token(request: Request) -> JSONResponse:
        # RFC 6749, 5.1: nobody keeps a token on the way.
        headers = {"Cache-Control": "no-store"}
        try:
            form = _credentials(request) | await _form(request)
        except ValueError:
            return JSONResponse({"error": "invalid_request"}, HTTPStatus.BAD_REQUEST, headers)
        granted = issuer.granted(form)
        if granted is None:
            return JSONResponse({"error": "invalid_grant"}, HTTPStatus.BAD_REQUEST, headers)
        life = issuer.configuration.life_seconds
        return JSONResponse({"access_token": granted, "token_type": "Bearer", "expires_in": life}, headers=headers)

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", discovery),
            Route("/jwks", jwks),
            Route("/token", token, methods=["POST"]),
        ]
    )


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise ValueError("not a form")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM:
            raise ValueError("too long")
    pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a field is there twice")
    return dict(pairs)


def _credentials(request: Request) -> dict[str, str]:
    """RFC 6749, 2.3.1."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return {}
    client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    return {"client_id": client_id, "client_secret": secret}


@dataclass(frozen=True, slots=True)
class _Arguments:
    config: Path


async def serve(issuer: Issuer, stop: asyncio.Event, on_listening: Callable[[int], None] = lambda _: None) -> None:
    """Serve until `stop`."""
    config = uvicorn.Config(
        make_app(issuer),
        "127.0.0.1",
        issuer.configuration.port,
        log_config=None,
        access_log=False,
        ws="none",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = Server(config, on_listening)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving


async def _run(configuration: IssuerConfiguration) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(Issuer(configuration), stop)


def main() -> None:
    """Run the issuer named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.issuer", description="A sandbox's OpenID Connect issuer.")
    parser.add_argument("--config", type=Path, required=True, help="its configuration, JSON")
    arguments = _Arguments(**vars(parser.parse_args()))
    configuration = IssuerConfiguration.model_validate_json(arguments.config.read_bytes())
    asyncio.run(_run(configuration))


if __name__ == "__main__":
    main()
