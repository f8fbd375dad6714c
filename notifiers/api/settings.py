"""What the approvers' API is told, once, from `KEYTURN_API_…` variables. Frozen; a law is never a setting."""

import ipaddress
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$", max_length=1024)]


def is_loopback(host: str | None) -> bool:
    """Whether this host is this machine and nothing else can listen in."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def is_private_to_us(url: str) -> bool:
    """Whether what goes over this URL is encrypted, or never leaves the machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


class ApiSettings(BaseSettings):
    """The settings of the approvers' API."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_API_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback it needs TLS.")
    port: int = Field(8470, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    issuer: Url = Field(description="The OpenID Connect issuer, exactly as its tokens spell `iss`.")
    audience: str = Field("keyturn-approvals", min_length=1, description="What tokens for this API carry as `aud`.")
    tls_certificate_file: Path | None = Field(None, description="PEM of the server's certificate chain.")
    tls_key_file: Path | None = Field(None, description="PEM of its key.")
    behind_tls_proxy: bool = Field(
        default=False, description="TLS ends in front of this process, on a network that nobody else can read."
    )
    max_concurrency: int = Field(512, ge=1, description="Requests at once, long polls included; beyond them 503.")
    idempotency_hours: int = Field(24, ge=1, le=168, description="How long an Idempotency-Key is remembered.")

    @model_validator(mode="after")
    def _tokens_stay_private(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("set both KEYTURN_API_TLS_CERTIFICATE_FILE and KEYTURN_API_TLS_KEY_FILE, or neither")
        is_encrypted = self.tls_certificate_file is not None or self.behind_tls_proxy
        if not is_loopback(self.host) and not is_encrypted:
            raise ValueError("listening beyond loopback needs KEYTURN_API_TLS_…_FILE or KEYTURN_API_BEHIND_TLS_PROXY")
        if not is_private_to_us(self.issuer):
            raise ValueError("KEYTURN_API_ISSUER must be https (http only on loopback): its keys decide who is who")
        return self
