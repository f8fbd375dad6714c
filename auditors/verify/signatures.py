"""Who said it: Ed25519 (RFC 8032) over DSSE's pre-authentication encoding, and which role may say what. No I/O."""

import base64
import hashlib
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAY_SIGN: Final[dict[str, frozenset[str]]] = {
    "keyturn.intent.v1": frozenset({"agent", "gateway"}),
    "keyturn.withdrawal.v1": frozenset({"agent", "gateway"}),
    "keyturn.classified-intent.v1": frozenset({"intake"}),
    "keyturn.forwarded-withdrawal.v1": frozenset({"intake"}),
    "keyturn.plan.v1": frozenset({"executor"}),
    "keyturn.plan-failed.v1": frozenset({"executor"}),
    "keyturn.claim.v1": frozenset({"executor"}),
    "keyturn.outcome.v1": frozenset({"executor"}),
    "keyturn.decision.v1": frozenset({"notifier"}),
    "keyturn.resolution.v1": frozenset({"notifier"}),
    "keyturn.tick.v1": frozenset({"core"}),
    "keyturn.redrive.v1": frozenset({"operator"}),
    "keyturn.audit.v1": frozenset({"core"}),
    "keyturn.approved-intent.v1": frozenset({"core"}),
    "keyturn.grant.v1": frozenset({"core"}),
    "keyturn.claim-refused.v1": frozenset({"core"}),
    "keyturn.approval-ended.v1": frozenset({"core"}),
    "keyturn.outcome-unknown.v1": frozenset({"core"}),
    "keyturn.roster.v1": frozenset({"root", "roster"}),
}
"""Roles whose keys may sign each type. Directory, policies, manifests and skips take a pinned root key."""


class RootKeyError(ValueError):
    """Not a public key."""


def keyid_of(public: str) -> str:
    """The id of a public key: the first 128 bits of the SHA-256 of its raw bytes."""
    try:
        raw = base64.b64decode(public, validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as exc:
        raise RootKeyError(f"{public!r}: a root key is the base64 of 32 bytes") from exc
    return hashlib.sha256(raw).hexdigest()[:32]


@lru_cache(maxsize=1024)
def fits(public: str, realm: str, kind: str, value: bytes, sig: str) -> bool:
    """Whether `sig` is this key's signature of this value, as this type, in this realm. Never raises.

    A yes is looked at again at each later yes and at the claim, so the last answers are kept.
    """
    key = _key(public)
    if key is None:
        return False
    payload_type = f"application/vnd.{kind}+json;realm={realm}".encode()
    message = b" ".join((b"DSSEv1", b"%d" % len(payload_type), payload_type, b"%d" % len(value), value))
    try:
        raw = base64.b64decode(sig, validate=True)
        key.verify(raw, message)
    except (InvalidSignature, ValueError):
        return False
    return base64.b64encode(raw).decode() == sig


@lru_cache(maxsize=4096)
def _key(public: str) -> Ed25519PublicKey | None:
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
    except ValueError:
        return None
