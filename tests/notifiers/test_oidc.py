"""Tokens: what passes, and each thing that does not. Every token here is really signed."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from notifiers.api.settings import ApiSettings
from sandbox import issuer as oidc
from streams.http import oidc as checks
from streams.http.problems import Kind
from tests.notifiers.conftest import AUDIENCE, NOW, Api, make_issuer

NOW_SECONDS = NOW // 1000


def encoded(part: object) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(issuer: oidc.Issuer, claims: dict[str, object], headers: dict[str, object] | None = None) -> str:
    usual = jwt.decode(issuer.token_for("ana"), options={"verify_signature": False})
    whole = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(whole, issuer._key, "ES256", {"typ": "at+jwt", "kid": issuer.kid, **(headers or {})})


def unsigned(issuer: oidc.Issuer) -> str:
    _, claims, _ = issuer.token_for("ana").split(".")
    return f"{encoded({'alg': 'none', 'typ': 'at+jwt', 'kid': issuer.kid})}.{claims}."


def by_the_public_key(issuer: oidc.Issuer) -> str:
    """HS256 with the issuer's public key as the secret: the classic confusion."""
    _, claims, _ = issuer.token_for("ana").split(".")
    head = encoded({"alg": "HS256", "typ": "at+jwt", "kid": issuer.kid})
    secret = json.dumps(issuer.jwks()["keys"][0]).encode()
    return f"{head}.{claims}.{encoded(hmac.digest(secret, f'{head}.{claims}'.encode(), hashlib.sha256))}"


def by_a_stranger(issuer: oidc.Issuer) -> str:
    claims = jwt.decode(issuer.token_for("ana"), options={"verify_signature": False})
    return jwt.encode(claims, generate_private_key(65537, 2048), "RS256", {"typ": "at+jwt", "kid": issuer.kid})


def altered(issuer: oidc.Issuer) -> str:
    head, claims, signature = issuer.token_for("ana").split(".")
    body = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"sub": "sub-ben"}
    return f"{head}.{encoded(body)}.{signature}"


def padded(issuer: oidc.Issuer) -> str:
    return issuer.token_for("ana") + "=="


def without_kid(issuer: oidc.Issuer) -> str:
    _, claims, signature = issuer.token_for("ana").split(".")
    return f"{encoded({'alg': 'ES256', 'typ': 'at+jwt'})}.{claims}.{signature}"


Maker = Callable[[oidc.Issuer], str]
BAD: dict[str, tuple[Maker, str]] = {
    "no signature": (unsigned, "compact form"),
    "alg none with a signature": (lambda i: f"{unsigned(i)}AAAA", "alg must be"),
    "HS256 with the public key": (by_the_public_key, "alg must be"),
    "another algorithm than the key's": (by_a_stranger, "not the algorithm of the key"),
    "altered claims": (altered, "signature"),
    "another spelling": (padded, "compact form"),
    "no JWT": (lambda _: "abc", "compact form"),
    "endless": (lambda _: "a" * 9000 + ".b.c", "compact form"),
    "a header that is no JSON": (lambda _: "a.b.c", "header"),
    "wrong audience": (lambda i: signed(i, {"aud": "other"}), "aud"),
    "audiences without ours": (lambda i: signed(i, {"aud": ["other", "another"]}), "aud"),
    "no audience": (lambda i: signed(i, {"aud": None}), "aud"),
    "wrong issuer": (lambda i: signed(i, {"iss": "http://127.0.0.1:10"}), "iss"),
    "issuer with a slash more": (lambda i: signed(i, {"iss": i.url + "/"}), "iss"),
    "expired": (lambda i: signed(i, {"exp": NOW_SECONDS}), "exp has passed"),
    "no expiry": (lambda i: signed(i, {"exp": None}), "exp and iat"),
    "expiry as text": (lambda i: signed(i, {"exp": str(NOW_SECONDS + 60)}), "exp must be"),
    "issued in the future": (lambda i: signed(i, {"iat": NOW_SECONDS + 31}), "in the future"),
    "no time of issue": (lambda i: signed(i, {"iat": None}), "exp and iat"),
    "not yet": (lambda i: signed(i, {"nbf": NOW_SECONDS + 31}), "in the future"),
    "an ID token": (lambda i: signed(i, {}, {"typ": "JWT"}), "typ"),
    "no type": (lambda i: signed(i, {}, {"typ": None}), "typ"),
    "unknown key": (lambda i: signed(i, {}, {"kid": "nobody"}), "kid"),
    "no key id": (without_kid, "kid"),
    "a critical extension": (lambda i: signed(i, {}, {"crit": ["exp"], "exp": 1}), ""),
    "no client": (lambda i: signed(i, {"client_id": None}), "client_id"),
    "no subject": (lambda i: signed(i, {"sub": ""}), "sub"),
    "no token id": (lambda i: signed(i, {"jti": None}), "jti"),
    "methods as text": (lambda i: signed(i, {"amr": "pwd"}), "amr"),
    "scopes as a list": (lambda i: signed(i, {"scope": ["approvals:read"]}), "scope"),
    "a bidi character in the context": (lambda i: signed(i, {"acr": "\u202e"}), "acr"),
    "subject that is not NFC": (lambda i: signed(i, {"sub": "e\u0301"}), "form C"),
    "login time as truth value": (lambda i: signed(i, {"auth_time": True}), "auth_time"),
}


@pytest.mark.parametrize("why", BAD)
async def test_a_token_that_is_not_exactly_right_is_refused(api: Api, why: str) -> None:
    make, says = BAD[why]
    response = await api.http.get("/v1/approvals", headers={"Authorization": f"Bearer {make(api.issuer)}"})
    assert (response.status_code, response.json()["type"]) == (401, Kind.UNAUTHENTICATED.urn), response.text
    assert says in response.json()["detail"]
    assert "invalid_token" in response.headers["www-authenticate"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "token"])
async def test_without_a_bearer_token_there_is_a_challenge(api: Api, header: str | None) -> None:
    response = await api.http.get("/v1/approvals", headers={"Authorization": header} if header else {})
    assert (response.status_code, response.headers["www-authenticate"]) == (401, 'Bearer realm="keyturn"')


async def test_a_token_with_several_audiences_or_the_long_type_passes(api: Api) -> None:
    for token in (
        signed(api.issuer, {"aud": ["other", AUDIENCE]}),
        signed(api.issuer, {}, {"typ": "application/at+jwt"}),
        signed(api.issuer, {"nbf": None}),
    ):
        response = await api.http.get("/v1/approvals", headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 200, response.text


async def test_a_machine_decides_nothing_and_sends_nothing(api: Api) -> None:
    for token in (
        api.issuer.token_for_machine("ci"),
        signed(api.issuer, {"auth_time": None}),
        signed(api.issuer, {"sub": "keyturn-cli"}),
    ):
        response = await api.say("ana", headers={"Authorization": f"Bearer {token}"})
        assert (response.status_code, response.json()["type"]) == (403, Kind.NOT_A_PERSON.urn)
    assert api.desk.said == []


async def test_reading_and_deciding_are_two_scopes(api: Api) -> None:
    reader, decider = (api.as_("ana", scopes=(scope,)) for scope in ("approvals:read", "approvals:decide"))
    response = await api.say("ana", headers=reader)
    assert (response.status_code, response.json()["type"]) == (403, Kind.INSUFFICIENT_SCOPE.urn)
    assert 'scope="approvals:decide"' in response.headers["www-authenticate"]
    assert (await api.http.get("/v1/approvals", headers=decider)).status_code == 403
    assert (await api.say("ana", headers=decider)).status_code == 202
    nearly = api.as_("ana", scopes=("approvals:decide2", "xapprovals:read"))
    assert (await api.http.get("/v1/approvals", headers=nearly)).status_code == 403


@pytest.mark.parametrize("person", ["fay", "eve"])
async def test_an_account_of_nobody_or_of_somebody_inactive_is_sent_nowhere(api: Api, person: str) -> None:
    response = await api.say(person)
    assert (response.status_code, response.json()["type"]) == (403, Kind.UNKNOWN_PERSON.urn)
    assert api.desk.said == []


async def test_the_same_subject_of_another_issuer_is_another_account(api: Api, tmp_path: Path) -> None:
    stranger = make_issuer(tmp_path, "ES256")
    response = await api.say("ana", headers={"Authorization": f"Bearer {stranger.token_for('ana')}"})
    assert response.status_code == 401


class Server:
    """An issuer that can be changed, and counts what is asked of it."""

    def __init__(self, issuer: oidc.Issuer) -> None:
        self.issuer = issuer
        self.discovery = issuer.discovery()
        self.jwks = issuer.jwks()
        self.is_up = True
        self.asked = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.is_up:
            raise httpx.ConnectError("down")
        return httpx.Response(200, json=self.jwks if request.url.path == "/jwks" else self.discovery)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server(issuer: oidc.Issuer) -> Server:
    return Server(issuer)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(server: Server, clock: Clock) -> checks.Verifier:
    http = httpx.AsyncClient(transport=httpx.MockTransport(server.answer))
    keys = checks.Keys(server.issuer.url, http, clock)
    return checks.Verifier(server.issuer.url, AUDIENCE, keys, lambda: NOW_SECONDS)


async def test_keys_are_fetched_once_and_unknown_key_ids_cannot_flood_the_issuer(
    verifier: checks.Verifier, server: Server, clock: Clock
) -> None:
    for _ in range(5):
        await verifier.login(server.issuer.token_for("ana"))
    assert server.asked == 2
    for number in range(5):
        with pytest.raises(checks.TokenRefusedError):
            await verifier.login(signed(server.issuer, {}, {"kid": f"k{number}"}))
    assert server.asked == 2
    clock.now += checks.REFRESH_EVERY
    with pytest.raises(checks.TokenRefusedError):
        await verifier.login(signed(server.issuer, {}, {"kid": "k"}))
    assert server.asked == 4


async def test_a_new_key_of_the_issuer_is_found_and_a_removed_one_stops_to_count(
    verifier: checks.Verifier, server: Server, clock: Clock, tmp_path: Path
) -> None:
    old = server.issuer.token_for("ana")
    await verifier.login(old)
    new = make_issuer(tmp_path, "RS256")
    server.jwks = new.jwks()
    clock.now += checks.REFRESH_EVERY
    assert (await verifier.login(new.token_for("ana"))).is_human
    with pytest.raises(checks.TokenRefusedError):
        await verifier.login(old)


async def test_an_issuer_that_is_down_is_forgiven_for_a_while_only(
    verifier: checks.Verifier, server: Server, clock: Clock
) -> None:
    token = server.issuer.token_for("ana")
    await verifier.login(token)
    server.is_up = False
    clock.now += checks.KEYS_FRESH
    await verifier.login(token)
    clock.now += checks.KEYS_USABLE
    with pytest.raises(checks.IssuerUnreachableError):
        await verifier.login(token)


async def test_without_the_issuers_keys_nobody_is_recognised(
    verifier: checks.Verifier, server: Server, clock: Clock
) -> None:
    server.is_up = False
    with pytest.raises(checks.IssuerUnreachableError):
        await verifier.login(server.issuer.token_for("ana"))
    server.is_up = True
    clock.now += checks.FIRST_RETRY
    await verifier.login(server.issuer.token_for("ana"))


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://127.0.0.1:10"},
        {"jwks_uri": "http://keys.example/jwks"},
        {"jwks_uri": None},
        {"jwks_uri": "http://127.0.0.1:9/" + "x" * (300 * 1024)},
    ],
)
async def test_a_discovery_document_of_somebody_else_gives_no_keys(
    verifier: checks.Verifier, server: Server, change: dict[str, object]
) -> None:
    server.discovery |= change
    with pytest.raises(checks.IssuerUnreachableError):
        await verifier.login(server.issuer.token_for("ana"))


@pytest.mark.parametrize(
    "change",
    [{"use": "enc"}, {"alg": "RS256"}, {"alg": "HS256"}, {"kty": "oct"}, {"key_ops": ["sign"]}, {"crv": "P-384"}],
)
async def test_a_key_that_is_not_for_this_verifies_nothing(
    verifier: checks.Verifier, server: Server, change: dict[str, object]
) -> None:
    server.jwks = {"keys": [server.jwks["keys"][0] | change]}
    with pytest.raises(checks.TokenRefusedError):
        await verifier.login(server.issuer.token_for("ana"))


async def test_a_key_id_of_two_keys_is_a_key_id_of_none(
    verifier: checks.Verifier, server: Server, tmp_path: Path
) -> None:
    other = make_issuer(tmp_path, "ES256").jwks()["keys"][0] | {"kid": server.issuer.kid}
    server.jwks = {"keys": [server.jwks["keys"][0], other]}
    with pytest.raises(checks.TokenRefusedError):
        await verifier.login(server.issuer.token_for("ana"))


async def test_a_short_rsa_key_verifies_nothing(verifier: checks.Verifier, server: Server) -> None:
    weak = generate_private_key(65537, 1024)  # noqa: S505 - refused, that is the point
    algorithm = jwt.get_algorithm_by_name("RS256")
    jwk = dict(algorithm.to_jwk(weak.public_key(), as_dict=True)) | {"kid": "weak"}
    server.jwks = {"keys": [jwk]}
    claims = jwt.decode(server.issuer.token_for("ana"), options={"verify_signature": False})
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = jwt.encode(claims, weak, "RS256", {"typ": "at+jwt", "kid": "weak"})
    with pytest.raises(checks.TokenRefusedError):
        await verifier.login(token)


async def test_evidence_names_the_token_by_digest_and_says_when_and_how_the_person_logged_in(
    verifier: checks.Verifier, server: Server
) -> None:
    token = server.issuer.token_for("ana", login_seconds_ago=60)
    login = await verifier.login(token)
    assert login.evidence.digest == hashlib.sha256(token.encode()).hexdigest()
    assert login.evidence.issuer == server.issuer.url
    assert login.evidence.auth_time == NOW_SECONDS - 60
    assert (login.evidence.acr, login.evidence.amr) == ("urn:keyturn:sandbox:password", ("pwd",))


@pytest.mark.parametrize(
    "given",
    [
        {"host": "0.0.0.0"},  # noqa: S104 - refused, that is the point
        {"host": "example.org"},
        {"issuer": "http://issuer.example"},
        {"tls_certificate_file": "c.pem"},
        {"port": 70_000},
    ],
)
def test_settings_that_would_show_tokens_to_strangers_are_refused(given: dict[str, object]) -> None:
    ApiSettings(issuer="https://issuer.example")
    with pytest.raises(ValueError, match=r"KEYTURN_API|less than|must be https"):
        ApiSettings(**{"issuer": "https://issuer.example", **given})
