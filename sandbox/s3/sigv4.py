"""AWS Signature Version 4 for a POST to a service's root: who asks STS, and asking on. No I/O, no clock.

Only what AssumeRole needs. Requests to S3 itself are not judged here: they reach the store as they were signed.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sandbox.s3.settings import KeyPair

ALGORITHM: Final = "AWS4-HMAC-SHA256"
TOLERANCE: Final = timedelta(minutes=5)
"""How far a request's own time may be from the provider's clock."""

_AUTHORIZATION: Final = re.compile(
    rf"{ALGORITHM} Credential=(?P<key>[^/,\s]+)/(?P<date>\d{{8}})/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)"
    r"/aws4_request,"
    r"\s*SignedHeaders=(?P<signed>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


class SignatureRefusedError(ValueError):
    """The request is not signed by whom it names; the message says what is wrong, and no secret."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What an Authorization header claims: whose key, for which day, region and service, and the signature."""

    key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        """The credential scope of the string to sign."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def parse(authorization: str) -> Credential:
    """The claims of an Authorization header; SignatureRefusedError for another scheme or shape."""
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise SignatureRefusedError(f"the Authorization header is not {ALGORITHM}")
    return Credential(
        match["key"],
        match["date"],
        match["region"],
        match["service"],
        tuple(match["signed"].split(";")),
        match["signature"],
    )


def verify(
    claimed: Credential, secret_key: str, *, service: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> None:
    """Raise SignatureRefusedError unless `claimed` signs this body and these headers (lower-case names), about now."""
    if claimed.service != service:
        raise SignatureRefusedError(f"the signature is for {claimed.service}, not {service}")
    stated = headers.get("x-amz-date", "")
    try:
        at = datetime.strptime(stated, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as exc:
        raise SignatureRefusedError("X-Amz-Date is missing or malformed") from exc
    if abs(at - now) > TOLERANCE or not stated.startswith(claimed.date):
        raise SignatureRefusedError("the signature has expired or is not yet valid")
    must = {"host"} | {name for name in headers if name.startswith("x-amz-")}
    if missing := must - set(claimed.signed_headers):
        raise SignatureRefusedError(f"not signed: {', '.join(sorted(missing))}")
    expected = _signature(claimed, secret_key, headers, body, stated)
    if not hmac.compare_digest(expected, claimed.signature):
        raise SignatureRefusedError("the signature does not match")


def sign(
    key: KeyPair, region: str, *, service: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    """`headers` (lower-case names, with the host) plus the date and the Authorization that sign them and `body`."""
    stated = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    signed = dict(headers) | {"x-amz-date": stated}
    claim = Credential(key.access_key, stated[:8], region, service, tuple(sorted(signed)), "")
    signature = _signature(claim, key.secret_key, signed, body, stated)
    names = ";".join(claim.signed_headers)
    signed["authorization"] = (
        f"{ALGORITHM} Credential={claim.key}/{claim.scope}, SignedHeaders={names}, Signature={signature}"
    )
    return signed


def _signature(claim: Credential, secret_key: str, headers: Mapping[str, str], body: bytes, stated: str) -> str:
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in claim.signed_headers]
    names = ";".join(claim.signed_headers)
    canonical = f"POST\n/\n\n{''.join(lines)}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    to_sign = f"{ALGORITHM}\n{stated}\n{claim.scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    derived = f"AWS4{secret_key}".encode()
    for part in (claim.date, claim.region, claim.service, "aws4_request"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    return hmac.digest(derived, to_sign.encode(), "sha256").hex()
