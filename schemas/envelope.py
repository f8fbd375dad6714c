"""How a record lies on Kafka: canonical value, CloudEvents 1.0 binary-mode headers, one `keyid`, one `sig`. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from schemas import canonical, signing
from schemas.canonical import CanonicalError
from schemas.record import Record, RecordError, Statement
from schemas.records import Refusal

CONTENT_TYPE: Final = b"application/json"
MAX_HEADER_BYTES: Final = 4096
Headers = Sequence[tuple[str, bytes | None]]
"""As a Kafka client gives them: a header's value may be null."""


class EnvelopeError(ValueError):
    """The record cannot be attributed to anybody; it goes to quarantine with this reason."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record ready for Kafka."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def seal(
    record: Record, key: str, signer: signing.Signer, realm: str, *, source: str, number: int | None = None
) -> Sealed:
    """`record` signed, with its headers. `number` is the gap-free `n` of transactional topics (law 11)."""
    return seal_bytes(record.TYPE, record.to_bytes(), key, signer, realm, source=source, number=number)


def seal_bytes(
    kind: str, value: bytes, key: str, signer: signing.Signer, realm: str, *, source: str, number: int | None = None
) -> Sealed:
    """The same for a record that is encoded already."""
    sig = signing.sign(signer, realm, kind, value)
    return _sealed(kind, value, key, signer.keyid, sig, realm, source, number)


def reseal(statement: Statement, key: str, realm: str, *, source: str) -> Sealed:
    """A record that was signed before, said again byte for byte."""
    return _sealed(statement.type, statement.value, key, statement.keyid, statement.sig, realm, source, None)


def _sealed(
    kind: str, value: bytes, key: str, keyid: str, sig: str, realm: str, source: str, number: int | None
) -> Sealed:
    headers = [
        ("content-type", CONTENT_TYPE),
        ("ce_specversion", b"1.0"),
        ("ce_type", kind.encode()),
        ("ce_source", f"/keyturn/{realm}/{source}".encode()),
        # The same value has the same id: a reader that drops repeats may do so by it.
        ("ce_id", canonical.digest(value)[:32].encode()),
        ("ce_subject", key.encode()),
        ("keyid", keyid.encode()),
        ("sig", sig.encode()),
    ]
    if number is not None:
        headers.append(("n", str(number).encode()))
    return Sealed(key.encode(), value, tuple(headers))


def type_of(headers: Headers) -> str | None:
    """The record type that the headers name, if they name exactly one."""
    return _only(headers, "ce_type")


def unseal(headers: Headers, value: bytes | None, types: Iterable[type[Record]]) -> Statement:
    """The signed record in these bytes, of one of `types`. Says nothing yet of whether the signature fits.

    Raises EnvelopeError: no value, no or several `ce_type`, `keyid` or `sig` headers, another type, a value that is
    not canonical or exceeds its type's cap.
    """
    if value is None:
        raise EnvelopeError(Refusal.MALFORMED, "no value")
    kind = type_of(headers)
    known = {record.TYPE: record for record in types}
    if kind not in known:
        raise EnvelopeError(Refusal.MALFORMED, f"ce_type {kind!r} is not accepted here; one of {sorted(known)}")
    if _only(headers, "ce_specversion") != "1.0":
        raise EnvelopeError(Refusal.MALFORMED, "ce_specversion must be there once and say 1.0")
    keyid, sig = _only(headers, "keyid"), _only(headers, "sig")
    if keyid is None or sig is None:
        raise EnvelopeError(Refusal.BAD_SIGNATURE, "exactly one `keyid` and one `sig` header must be there")
    try:
        return Statement.of_bytes(known[kind], value, keyid, sig)
    except (CanonicalError, RecordError) as exc:
        raise EnvelopeError(Refusal.MALFORMED, f"{kind}: {exc}") from exc
    except ValueError as exc:
        raise EnvelopeError(Refusal.BAD_SIGNATURE, "`keyid` or `sig` is malformed") from exc


def number_of(headers: Headers) -> int | None:
    """The gap-free number `n` of a record of a transactional topic."""
    text = _only(headers, "n")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _only(headers: Headers, name: str) -> str | None:
    values = [value for key, value in headers if key == name]
    found = values[0] if len(values) == 1 else None
    if found is None or len(found) > MAX_HEADER_BYTES:
        return None
    try:
        return found.decode("ascii")
    except UnicodeDecodeError:
        return None
