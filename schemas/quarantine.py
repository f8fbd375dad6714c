"""What is kept of a record that nobody could read. Pure, and one rule for every stage that sets records aside.

Nothing that looks like a secret is kept, wherever in the record it stands; the digest always is. What is kept suffices
to show the record, and to put the very bytes on the log again.
"""

import base64
import unicodedata
from typing import Final

from schemas import canonical, secrets
from schemas.envelope import Headers
from schemas.record import prose
from schemas.records import KEPT_HEADERS, Header, Quarantined, Refusal, Source

KEPT_VALUE_BYTES: Final = 64 * 1024
KEPT_KEY_BYTES: Final = 1024
KEPT_HEADER_BYTES: Final = 4096
"""All names and values of a record's headers together; ours are under 1 KiB."""


def put_aside(
    source: Source,
    stage: str,
    refusal: Refusal,
    reason: str,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
) -> Quarantined:
    """The record for `quarantine`. `source.topic` is the name on the map."""
    data, name = value or b"", key or b""
    is_value_kept = value is not None and len(data) <= KEPT_VALUE_BYTES and _is_clean(data)
    is_key_kept = key is not None and len(name) <= KEPT_KEY_BYTES and _is_clean(name)
    return Quarantined(
        source=source,
        stage=stage,
        refusal=refusal,
        reason=prose(reason) if _is_clean(reason.encode(errors="replace")) else "not repeated: it holds a secret",
        sha256=canonical.digest(data),
        bytes=len(data),
        key=base64.b64encode(name).decode() if is_key_kept else None,
        value=base64.b64encode(data).decode() if is_value_kept else None,
        headers=_kept(headers),
    )


def key_of(source: Source) -> str:
    """The Kafka key of what was set aside, and its name for people."""
    return f"{source.topic}/{source.partition}/{source.offset}"


def _kept(headers: Headers) -> tuple[Header, ...] | None:
    """All of them or none: half the headers would be another record."""
    size = sum(len(name.encode(errors="replace")) + len(value or b"") for name, value in headers)
    if len(headers) > KEPT_HEADERS or size > KEPT_HEADER_BYTES:
        return None
    for name, value in headers:
        is_text = unicodedata.is_normalized("NFC", name) and name == name.encode(errors="replace").decode()
        if not is_text or not _is_clean(f"{name}\n".encode() + (value or b"")):
            return None
    return tuple(
        Header(name=name, value=base64.b64encode(value).decode() if value is not None else None)
        for name, value in headers
    )


def _is_clean(data: bytes) -> bool:
    return secrets.found_in(data.decode(errors="replace")) is None
