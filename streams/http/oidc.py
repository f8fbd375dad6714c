"""Who is calling: OAuth 2.0 access tokens as JWTs (RFC 9068), checked without leniency (RFC 8725).

Accepted is exactly: `typ` at+jwt, RS256 or ES256 by a key that the issuer publishes for that use, our issuer, our
audience, a life that has begun and not ended. Everything else is refused with the reason; nothing is defaulted. The
clocks are arguments.
"""

import asyncio
import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import ValidationError

from schemas.records import AccountRef, Evidence
from streams.http.urls import is_private_to_us

log = logging.getLogger(__name__)

ALGORITHMS: Final = ("RS256", "ES256")
TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
MIN_RSA_BITS: Final = 2048
MAX_TOKEN: Final = 8192
MAX_DOCUMENT: Final = 256 * 1024
SKEW: Final = 30
"""Seconds by which a token may begin in our future. Its end gets none: a slow clock lengthens no life."""
KEYS_FRESH: Final = 10 * 60
"""Seconds after which the issuer's keys are fetched again."""
KEYS_USABLE: Final = 60 * 60
"""Seconds for which they still count when the issuer cannot be reached."""
REFRESH_EVERY: Final = 30
"""Seconds between two fetches that an unknown key id can cause: tokens cannot make us flood the issuer."""
FIRST_RETRY: Final = 1
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class TokenRefusedError(Exception):
    """The token does not count; the text says why, without quoting it."""


class IssuerUnreachableError(Exception):
    """The issuer's keys cannot be had: nobody can be recognised until they can."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a good token says."""

    account: AccountRef
    scopes: frozenset[str]
    evidence: Evidence
    #: Whether a human logged in for it. A client's own token (client credentials) says `sub` = `client_id` and knows
    #: no time of login.
    is_human: bool
    #: Whether a client got it for itself (RFC 9068, 2.2: then `sub` is the client). Nobody logged in, and the client
    #: acts for nobody.
    is_client: bool
    #: Unix seconds; whoever holds something open for this login ends it then.
    expires_at: int


class Keys:
    """The issuer's public keys, by key id. Fetched when needed, kept while fresh, never from anywhere else."""

    def __init__(self, issuer: str, http: httpx.AsyncClient, monotonic: Callable[[], float]) -> None:
        self._issuer = issuer
        self._http = http
        self._monotonic = monotonic
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._lock = asyncio.Lock()

    async def get(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id, if the issuer publishes it. IssuerUnreachableError when no keys can be had."""
        if kid in self._keys and self._age() < KEYS_FRESH:
            return self._keys[kid]
        async with self._lock:
            if (kid not in self._keys or self._age() >= KEYS_FRESH) and self._may_try():
                await self._refresh()
            if self._age() >= KEYS_USABLE:
                raise IssuerUnreachableError(f"the keys of {self._issuer} cannot be fetched")
            return self._keys.get(kid)

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._monotonic() - self._fetched_at

    def _may_try(self) -> bool:
        pause = FIRST_RETRY if self._fetched_at is None else REFRESH_EVERY
        return self._tried_at is None or self._monotonic() - self._tried_at >= pause

    async def _refresh(self) -> None:
        self._tried_at = self._monotonic()
        try:
            self._keys = await self._fetched()
            self._fetched_at = self._monotonic()
        except (httpx.HTTPError, httpx.InvalidURL, IssuerUnreachableError, ValueError, RecursionError) as exc:
            log.warning("issuer keys not fetched", extra={"issuer": self._issuer, "because": str(exc)})

    async def _fetched(self) -> dict[str, jwt.PyJWK]:
        discovery = await self._document(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        # OpenID Connect Discovery 1.0, 4.3: another issuer's document is nobody's.
        if discovery.get("issuer") != self._issuer:
            raise IssuerUnreachableError(f"the discovery document of {self._issuer} names another issuer")
        uri = discovery.get("jwks_uri")
        if not isinstance(uri, str) or not is_private_to_us(uri):
            raise IssuerUnreachableError(f"the jwks_uri of {self._issuer} is missing or not https")
        return _usable(await self._document(uri))

    async def _document(self, url: str) -> Mapping[str, Any]:
        async with self._http.stream("GET", url, follow_redirects=False) as response:
            response.raise_for_status()
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_DOCUMENT:
                    raise IssuerUnreachableError(f"{url} is longer than {MAX_DOCUMENT} bytes")
        document = httpx.Response(200, content=body).json()
        if not isinstance(document, dict):
            raise IssuerUnreachableError(f"{url} is not a JSON object")
        return document


def _usable(jwks: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """Keys that may verify a signature of ours. A key id that stands for two keys stands for none."""
    found: dict[str, jwt.PyJWK] = {}
    seen: set[str] = set()
    for raw in jwks.get("keys") or ():
        if not isinstance(raw, dict) or not isinstance(raw.get("kid"), str):
            continue
        kid = raw["kid"]
        key = _key(raw)
        if kid in seen or key is None:
            found.pop(kid, None)
        else:
            found[kid] = key
        seen.add(kid)
    return found


def _key(raw: dict[str, Any]) -> jwt.PyJWK | None:
    # RFC 8725, 3.1: the algorithm belongs to the key; what a token claims only has to agree with it.
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(raw.get("kty")))
    is_for_signatures = raw.get("use", "sig") == "sig" and "verify" in (raw.get("key_ops") or ["verify"])
    if algorithm is None or raw.get("alg", algorithm) != algorithm or not is_for_signatures:
        return None
    try:
        key = jwt.PyJWK(raw, algorithm)
    except jwt.PyJWTError:
        return None
    match key.key:
        case RSAPublicKey() as public if public.key_size >= MIN_RSA_BITS:
            return key
        case EllipticCurvePublicKey() as public if isinstance(public.curve, SECP256R1):
            return key
        case _:
            return None


class Verifier:
    """Turns a bearer token into a Login, or refuses it."""

    def __init__(self, issuer: str, audience: str, keys: Keys, now: Callable[[], float]) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._now = now

    async def login(self, token: str) -> Login:
        """What the token says, once everything about it was checked. TokenRefusedError, IssuerUnreachableError."""
        if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
            raise TokenRefusedError("not a signed JWT in compact form")
        key = await self._key_of(token)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                # Times are checked below, against the clock that was given.
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                    "verify_sub": False,
                    "verify_jti": False,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.PyJWTError as exc:
            raise TokenRefusedError(f"the signature does not count: {exc}") from exc
        self._check(claims)
        return _login(token, claims)

    async def _key_of(self, token: str) -> jwt.PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as exc:
            raise TokenRefusedError("the header cannot be read") from exc
        # RFC 9068, 4: so that no ID token or other JWT of the same issuer passes for an access token.
        if str(header.get("typ", "")).lower() not in TYPES:
            raise TokenRefusedError("typ must be at+jwt: this is not an access token")
        if header.get("alg") not in ALGORITHMS:
            raise TokenRefusedError(f"alg must be one of {', '.join(ALGORITHMS)}")
        if "crit" in header:
            raise TokenRefusedError("crit names an extension that is not understood")
        kid = header.get("kid")
        key = await self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise TokenRefusedError("kid names no key that the issuer publishes")
        if key.algorithm_name != header["alg"]:
            raise TokenRefusedError("alg is not the algorithm of the key that kid names")
        return key

    def _check(self, claims: Mapping[str, Any]) -> None:
        now = self._now()
        if claims.get("iss") != self._issuer:
            raise TokenRefusedError("iss is another issuer")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or self._audience not in audiences:
            raise TokenRefusedError("aud does not name this API")
        expires, issued, begins = (_time(claims, name) for name in ("exp", "iat", "nbf"))
        if expires is None or issued is None:
            raise TokenRefusedError("exp and iat must be there, in whole seconds")
        if now >= expires:
            raise TokenRefusedError("exp has passed: log in again")
        if issued > now + SKEW or (begins is not None and begins > now + SKEW):
            raise TokenRefusedError("iat or nbf lies in the future: compare the clocks")
        for name in ("sub", "client_id", "jti"):
            if not isinstance(claims.get(name), str) or not claims[name]:
                raise TokenRefusedError(f"{name} must be there (RFC 9068, 2.2)")


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TokenRefusedError(f"{name} must be in whole seconds")
    return value


def _login(token: str, claims: Mapping[str, Any]) -> Login:
    scope = claims.get("scope", "")
    amr = claims.get("amr", [])
    if not isinstance(scope, str) or not isinstance(amr, list):
        raise TokenRefusedError("scope must be a text and amr a list")
    auth_time = _time(claims, "auth_time")
    try:
        login = Login(
            account=AccountRef(provider=claims["iss"], subject=claims["sub"]),
            scopes=frozenset(scope.split(" ")) - {""},
            evidence=Evidence(
                kind="oidc",
                digest=hashlib.sha256(token.encode()).hexdigest(),
                issuer=claims["iss"],
                auth_time=auth_time,
                acr=claims.get("acr"),
                amr=tuple(amr),
            ),
            is_human=auth_time is not None and claims["sub"] != claims["client_id"],
            is_client=claims["sub"] == claims["client_id"]
            and not amr
            and claims.keys().isdisjoint({"auth_time", "act"}),
            expires_at=claims["exp"],
        )
    except ValidationError as exc:
        raise TokenRefusedError("sub, auth_time, acr or amr is not what it should be") from exc
    texts = (login.account.subject, login.evidence.acr or "", *login.evidence.amr)
    if not all(unicodedata.is_normalized("NFC", text) for text in texts):
        raise TokenRefusedError("sub, acr and amr must be in Unicode normal form C")
    return login
