"""What a history need not compute anew: signatures that cost nothing, and pure functions that remember.

A signature here is SHA-512 of the signer's seed and the signed bytes: only who has the seed can make it, one bit of
the bytes changed and it no longer fits. It stands in for Ed25519, whose own properties `tests/schemas` tests; the
key ids and the encoding that is signed are the real ones. With `--ed25519` a run uses the real thing.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas import canonical, envelope, signing
from schemas.record import Statement
from schemas.world import World
from tests.broker.builders import REALM
from tests.broker.builders import signer as ed25519

_REMEMBERED_AT_MOST = 4_000


@dataclass(frozen=True, slots=True)
class Swift:
    """A `schemas.signing.Signer`."""

    seed: bytes
    keyid: str

    def sign(self, message: bytes) -> bytes:
        return hashlib.sha512(self.seed + message).digest()


_SEEDS: dict[str, bytes] = {}
_NAMES: set[str] = set()
_is_swift = True


@cache
def signer(name: str) -> signing.Signer:
    """The key of somebody; the same public half as in `tests.broker.builders`."""
    _NAMES.add(name)
    if not _is_swift:
        return ed25519(name)
    seed = hashlib.sha256(name.encode()).digest()
    made = Swift(seed, ed25519(name).keyid)
    _SEEDS[made.keyid] = seed
    return made


def install(*, is_swift: bool = True) -> None:
    """For this process, for good: call it before anything is signed. The functions replaced are pure."""
    global _is_swift  # noqa: PLW0603 - one process runs one kind of signature
    _is_swift = is_swift
    if is_swift:
        signing.KeyRing.verifies = _verifies  # type: ignore[method-assign]
    else:
        signing.KeyRing.verifies = _remembering(  # type: ignore[method-assign]
            signing.KeyRing.verifies, lambda ring, *signed: (str(ring._keys.get(signed[3]) is None), *signed)
        )
    canonical.encode = _encoding(canonical.encode)  # type: ignore[assignment]
    envelope.unseal = _remembering(  # type: ignore[assignment]
        envelope.unseal, lambda headers, value, types: (tuple(headers), value, tuple(types))
    )
    World.with_snapshot = _remembering(  # type: ignore[method-assign]
        World.with_snapshot,
        lambda world, statement, log_time: (_name_of(world), statement.value, statement.sig, log_time),
    )


def _verifies(ring: signing.KeyRing, realm: str, record_type: str, value: bytes, keyid: str, sig: str) -> bool:
    seed = _SEEDS.get(keyid)
    if seed is None or keyid not in ring:
        return False
    message = signing.pre_authentication_encoding(signing.payload_type(record_type, realm), value)
    return base64.b64encode(hashlib.sha512(seed + message).digest()).decode() == sig


def verifies(keyid: str, record_type: str, value: bytes, sig: str) -> bool:
    """Whether this is the key's signature of these bytes in the realm of every history; for the judge."""
    seed = _SEEDS.get(keyid)
    kind = f"application/vnd.{record_type}+json;realm={REALM}".encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(value), value)
    if not _is_swift:
        return _is_ed25519(keyid, message, sig)
    return seed is not None and base64.b64encode(hashlib.sha512(seed + message).digest()).decode() == sig


_PUBLIC: dict[str, Ed25519PublicKey] = {}


def _is_ed25519(keyid: str, message: bytes, sig: str) -> bool:
    for name in _NAMES:
        _PUBLIC.setdefault(ed25519(name).keyid, ed25519(name).key.public_key())
    try:
        _PUBLIC[keyid].verify(base64.b64decode(sig), message)
    except (KeyError, ValueError, InvalidSignature):
        return False
    return True


def _name_of(world: World) -> Any:
    """Two worlds of one name are equal: each digest binds its predecessors, though not when they came."""
    deferred = tuple((statement.sig, log_time) for statement, log_time in world.deferred)
    since, rosters = world.directories_since, len(world.rosters)
    return world.realm, world.roots, world.digests, since, rosters, deferred, world.restored_to


def _encoding(pure: Callable[..., bytes]) -> Callable[..., bytes]:
    """The profile is a property of the bytes: what passed it once, at this depth, passes it again."""
    passed: set[tuple[bytes, int]] = set()

    def encode(value: Any, *, max_depth: int = canonical.MAX_DEPTH) -> bytes:
        try:
            data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            return pure(value, max_depth=max_depth)
        if (data, max_depth) not in passed:
            pure(value, max_depth=max_depth)
            if len(passed) >= _REMEMBERED_AT_MOST:
                passed.clear()
            passed.add((data, max_depth))
        return data

    return encode


def _remembering(pure: Callable[..., Any], name_of: Callable[..., Any]) -> Callable[..., Any]:
    """`pure` with a memory. What it raises is not remembered."""
    known: dict[Any, Any] = {}

    def remembering(*arguments: Any) -> Any:
        name = name_of(*arguments)
        if name not in known:
            if len(known) >= _REMEMBERED_AT_MOST:
                known.clear()
            known[name] = pure(*arguments)
        return known[name]

    return remembering


def state(record: Any, by: signing.Signer, realm: str) -> Statement:
    """`record` signed."""
    sig = signing.sign(by, realm, record.TYPE, record.to_bytes())
    return Statement(type=record.TYPE, body=record.to_json(), keyid=by.keyid, sig=sig)
