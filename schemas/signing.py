"""Who said it, in which realm. Kafka does not tell a reader who produced a record; a signature does. No I/O.

A record's signature is Ed25519 (RFC 8032) over the DSSE v1 pre-authentication encoding of its payload type and its
value. The payload type names the record type *and the realm*, so that staging's yes is nothing in production
(law 1). The value stays readable with any Kafka tool, and a record exports as a DSSE envelope unchanged.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SIGNATURE_BYTES: Final = 64
KEYID_HEX: Final = 32
REMEMBERED: Final = 2048
"""How many checked signatures are remembered, with what they sign: some 2 KiB each."""


class Signer(Protocol):
    """Holds one private key. A file, an HSM or a KMS can stand behind it."""

    @property
    def keyid(self) -> str:
        """The id of the public half, as `keyid_of` gives it."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        ...


@dataclass(frozen=True, slots=True)
class PrivateKeySigner:
    """A signer over a key in memory."""

    key: Ed25519PrivateKey
    keyid: str

    @classmethod
    def from_seed(cls, seed: bytes) -> "PrivateKeySigner":
        """From the 32-byte private seed (RFC 8032, 5.1.5)."""
        key = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(key, keyid_of(public_bytes(key)))

    @property
    def public(self) -> str:
        """The public key, base64, as the directory lists it."""
        return base64.b64encode(public_bytes(self.key)).decode()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature."""
        return self.key.sign(message)


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The raw 32-byte public half."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def keyid_of(public: bytes) -> str:
    """The id of a public key: the first 128 bits of the SHA-256 of its raw 32 bytes, hexadecimal."""
    return hashlib.sha256(public).hexdigest()[:KEYID_HEX]


def payload_type(record_type: str, realm: str) -> str:
    """The DSSE payload type of a record: `keyturn.intent.v1` in `acme-prod` is nothing in `acme-staging`."""
    return f"application/vnd.{record_type}+json;realm={realm}"


def pre_authentication_encoding(kind: str, body: bytes) -> bytes:
    """DSSE v1 PAE: what is really signed (secure-systems-lab/dsse, protocol.md)."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(body), body)


def sign(signer: Signer, realm: str, record_type: str, value: bytes) -> str:
    """The detached signature of a record's value, base64."""
    message = pre_authentication_encoding(payload_type(record_type, realm), value)
    return base64.b64encode(signer.sign(message)).decode()


class KeyRing:
    """Public keys by id, decoded once. Only says whether a signature fits; what a key may say is the directory's."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys`: base64 public keys by key id."""
        self._keys = {keyid: base64.b64decode(raw) for keyid, raw in keys.items()}
        for public in self._keys.values():
            _decoded(public)

    def __contains__(self, keyid: str) -> bool:
        return keyid in self._keys

    def verifies(self, realm: str, record_type: str, value: bytes, keyid: str, sig: str) -> bool:
        """Whether `sig` (base64) is `keyid`'s signature of this value, as this type, in this realm. Never raises."""
        key = self._keys.get(keyid)
        if key is None:
            return False
        try:
            raw = base64.b64decode(sig, validate=True)
        except ValueError:
            return False
        if not _fits(key, raw, pre_authentication_encoding(payload_type(record_type, realm), value)):
            return False
        # Base64 has several spellings of one value; only the canonical one passes, so that a record has one form.
        return len(raw) == SIGNATURE_BYTES and base64.b64encode(raw).decode() == sig


@lru_cache(maxsize=REMEMBERED)
def _decoded(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)


@lru_cache(maxsize=REMEMBERED)
def _fits(public: bytes, signature: bytes, message: bytes) -> bool:
    """Pure, and the dearest thing we do: statements travel inside others and are judged again at every step."""
    try:
        _decoded(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True
