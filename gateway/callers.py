"""Who is asking: an agent by its own key, or whomever the issuer knows. No I/O, no clock: callers pass now.

An agent that holds a key proves who it is with a token that it signed itself (a JWT, RFC 7519, EdDSA), short-lived and
for this realm's gateway alone. Such a token only reads and checks: what such an agent *says* it signs itself, so a
stolen token says nothing (docs/gateway.md). An agent without a key comes with a token that its OAuth client got for
itself.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.records import AccountRef, Subject
from schemas.snapshots import Agent, Directory, Key, Person
from schemas.world import World
from streams.http.oidc import Login

ALGORITHM: Final = "EdDSA"
MAX_TOKEN: Final = 4096
LIFE_SECONDS: Final = 300
"""How long an agent's own token may live."""
SKEW_SECONDS: Final = 30
"""By how much it may begin in our future. Its end gets nothing: a slow clock lengthens no life."""
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_JTI: Final = re.compile(r"[\x21-\x7e]{1,128}")


class CallerRefusedError(Exception):
    """Nobody is let in on this; the text says why, without quoting it."""


class UnknownCallerError(Exception):
    """The issuer knows who this is, and the directory does not."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    subject: Subject
    #: Unix milliseconds: until when its token says so. What it holds open ends then.
    until: int
    #: The key of an agent that signs for itself: its word is a sealed record, never a form.
    keyid: str | None = None
    #: By which login it came otherwise.
    account: AccountRef | None = None


def audience_of(realm: str) -> str:
    """What an agent's own token carries as `aud`."""
    return f"keyturn:{realm}:gateway"


def is_own(token: str) -> bool:
    """Whether this token says that an agent signed it: then nobody's else rules judge it."""
    try:
        return len(token) <= MAX_TOKEN and jwt.get_unverified_header(token).get("alg") == ALGORITHM
    except jwt.PyJWTError:
        return False


def by_own_token(token: str, world: World, now_ms: int) -> Caller:
    """The agent that signed this token. CallerRefusedError for anything that is not exactly right."""
    if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
        raise CallerRefusedError("not a signed JWT in compact form")
    key = _key_of(token, world, now_ms)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public))
    try:
        claims = jwt.decode(
            token,
            public,
            algorithms=[ALGORITHM],
            # Times are checked below, against the clock that was given.
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except jwt.PyJWTError as exc:
        raise CallerRefusedError("the signature does not fit the agent's key") from exc
    _check(claims, key.holder, audience_of(world.realm), now_ms // 1000)
    _require_agent(key.holder, world.directory)
    return Caller(Subject(type="agent", id=key.holder), 1000 * int(claims["exp"]), key.keyid)


def _key_of(token: str, world: World, now_ms: int) -> Key:
    header = jwt.get_unverified_header(token)
    if header.get("alg") != ALGORITHM or header.get("typ") != "JWT" or "crit" in header:
        raise CallerRefusedError('the header must be {"alg": "EdDSA", "typ": "JWT", "kid": <the key\'s id>}')
    kid = header.get("kid")
    key = world.authority.key(kid) if isinstance(kid, str) else None
    if key is None or key.role != "agent":
        raise CallerRefusedError("kid names no agent's key of the directory")
    if now_ms < key.valid_from or (key.valid_until is not None and now_ms >= key.valid_until):
        raise CallerRefusedError("the key that kid names is not valid now: it is retired, or not in force yet")
    return key


def _check(claims: Mapping[str, object], holder: str, audience: str, now: int) -> None:
    if claims.get("iss") != holder or claims.get("sub") != holder:
        raise CallerRefusedError("iss and sub must both be the agent whose key this is")
    if claims.get("aud") != audience:
        raise CallerRefusedError(f"aud must be {audience}: this token is for another realm, or another door")
    issued, expires = claims.get("iat"), claims.get("exp")
    if type(issued) is not int or type(expires) is not int:
        raise CallerRefusedError("iat and exp must be there, in whole seconds")
    if not 0 < expires - issued <= LIFE_SECONDS:
        raise CallerRefusedError(f"exp must lie after iat, by {LIFE_SECONDS} s at most")
    if now >= expires:
        raise CallerRefusedError("exp has passed: sign a new one")
    if issued > now + SKEW_SECONDS:
        raise CallerRefusedError("iat lies in the future: compare the clocks")
    if "nbf" in claims:
        raise CallerRefusedError("nbf is not accepted: iat says when it begins")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise CallerRefusedError("jti must be there: 1 to 128 visible ASCII characters")


def _require_agent(name: str, directory: Directory | None) -> None:
    agents = directory.agents if directory else ()
    if not any(agent.id == name and agent.is_active for agent in agents):
        raise UnknownCallerError(f"{name} is not an active agent of the directory")


def by_account(login: Login, directory: Directory | None) -> Caller:
    """The person, or the agent without a key, whose login this is. UnknownCallerError when nobody active has it.

    Of a person, a human must have logged in for the token; of an agent, its client must have got it for itself.
    """
    if directory is None:
        raise UnknownCallerError("there is no directory yet: nobody is known")
    holder = _holder(login.account, directory)
    if holder is None:
        seen = "" if login.is_human else " (the token shows no login, so it would be an agent's)"
        raise UnknownCallerError(
            f"nobody of the directory has this account{seen}; an administrator can add it (`keyturn directory apply`)"
        )
    if isinstance(holder, Agent) and not login.is_client:
        raise UnknownCallerError(
            f"this is the account of the agent {holder.id}, and the token is not one that its client got for itself "
            "(RFC 9068: `sub` is `client_id`, and there is no auth_time, amr or act)"
        )
    if isinstance(holder, Person) and not login.is_human:
        raise UnknownCallerError(
            "the token does not say that somebody logged in (auth_time, and another `sub` than the client's): log in"
        )
    if not holder.is_active:
        raise UnknownCallerError(f"{holder.id} is not active in the directory")
    subject = Subject(type="agent" if isinstance(holder, Agent) else "person", id=holder.id)
    return Caller(subject, 1000 * login.expires_at, account=login.account)


def _holder(account: AccountRef, directory: Directory) -> Person | Agent | None:
    person = next((each for each in directory.persons if account in each.accounts), None)
    return person or next((each for each in directory.agents if account in each.accounts), None)


def is_still(caller: Caller, world: World, now: int) -> bool:
    """Whether this caller would be let in again: for what it holds open while the world goes on."""
    directory = world.directory
    if directory is None or now >= caller.until:
        return False
    if caller.account is not None:
        holder = _holder(caller.account, directory)
        return holder is not None and holder.id == caller.subject.id and holder.is_active
    key = world.authority.key(caller.keyid) if caller.keyid is not None else None
    is_retired = key is None or (key.valid_until is not None and now >= key.valid_until)
    return caller.subject.id in directory.active_agents and not is_retired
