"""Who says it, in which realm: Ed25519 over the DSSE v1 pre-authentication encoding. No I/O but reading a key's file.

The payload type names the record type *and the realm*, so that what is signed for staging means nothing in production.

>>> key = Key.from_seed(bytes(32))
>>> key.keyid
'139e3940e64b5491722088d9a0d74162'
>>> len(sign(key, "sandbox", "keyturn.intent.v1", b"{}"))
88
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.errors import ConfigurationError

KEYID_HEX: Final = 32
TOKEN_SECONDS: Final = 300
"""How long a token that an agent signs for itself lives: the longest that the gateway accepts."""


class Signer(Protocol):
    """Holds one private key: a file, an HSM or a KMS may stand behind it."""

    @property
    def keyid(self) -> str:
        """The first 128 bits of the SHA-256 of the raw public key, hexadecimal."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A key in memory."""

    _private: Ed25519PrivateKey

    @classmethod
    def from_seed(cls, seed: bytes) -> "Key":
        """From the 32-byte private seed (RFC 8032, 5.1.5)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_file(cls, path: Path) -> "Key":
        """From a file as `keyturn init` writes it: the base64 of the seed on one line."""
        try:
            return cls.from_seed(base64.b64decode(path.read_text(encoding="ascii").strip(), validate=True))
        except OSError as exc:
            raise ConfigurationError(f"the agent's key cannot be read: {path}: {exc.strerror}") from exc
        except ValueError as exc:
            raise ConfigurationError(f"{path} is no key: the base64 of 32 bytes on one line is expected") from exc

    @property
    def _public(self) -> bytes:
        return self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def public(self) -> str:
        """The public half, base64, as the directory lists it."""
        return base64.b64encode(self._public).decode()

    @property
    def keyid(self) -> str:
        """The key's id in the directory."""
        return hashlib.sha256(self._public).hexdigest()[:KEYID_HEX]

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"Key({self.keyid})"


def encoding(realm: str, record_type: str, value: bytes) -> bytes:
    """What is really signed: DSSE's PAE of the record's type in this realm, and its value."""
    kind = f"application/vnd.{record_type}+json;realm={realm}".encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(value), value)


def sign(signer: Signer, realm: str, record_type: str, value: bytes) -> str:
    """The detached signature of a record's value, base64."""
    return base64.b64encode(signer.sign(encoding(realm, record_type, value))).decode()


def verifies(public: str, realm: str, record_type: str, value: bytes, sig: str) -> bool:
    """Whether `sig` is this public key's (base64) signature of the value, as this type, in this realm."""
    try:
        raw = base64.b64decode(sig, validate=True)
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(raw, encoding(realm, record_type, value))
    except (InvalidSignature, ValueError):
        return False
    return base64.b64encode(raw).decode() == sig


def bearer(signer: Signer, agent: str, realm: str, now: int, nonce: str) -> str:
    """A token by which an agent reads its own intents: a short JWT (RFC 7519) signed with its directory key.

    It never means anything elsewhere: its audience is this realm's gateway. `now` is in Unix seconds.
    """
    head = {"alg": "EdDSA", "kid": signer.keyid, "typ": "JWT"}
    claims = {
        "iss": agent,
        "sub": agent,
        "aud": f"keyturn:{realm}:gateway",
        "iat": now,
        "exp": now + TOKEN_SECONDS,
        "jti": nonce,
    }
    message = b".".join(_url64(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    return b".".join((message, _url64(signer.sign(message)))).decode()


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
