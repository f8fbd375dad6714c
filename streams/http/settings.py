"""Where a door listens, and that what goes through it stays private. A room's own settings build on it."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams.http.urls import is_loopback, is_private_to_us


def _require_private(url: str) -> str:
    if not is_private_to_us(url):
        raise ValueError("must be https (http only on loopback): its keys decide who is who")
    return url


IssuerUrl = Annotated[
    str, StringConstraints(pattern=r"^https?://[^\s?#]+$", max_length=1024), AfterValidator(_require_private)
]
"""An OpenID Connect issuer, exactly as its tokens spell `iss`."""


class DoorSettings(BaseSettings):
    """What every HTTP door is told. Subclasses name their prefix, their port and their audience."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback it needs TLS.")
    port: int = Field(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    audience: str = Field(min_length=1, description="What tokens for this door carry as `aud`.")
    tls_certificate_file: Path | None = Field(None, description="PEM of the server's certificate chain.")
    tls_key_file: Path | None = Field(None, description="PEM of its key.")
    behind_tls_proxy: bool = Field(
        default=False, description="TLS ends in front of this process, on a network that nobody else can read."
    )
    max_concurrency: int = Field(512, ge=1, description="Requests at once, long polls included; beyond them 503.")

    @model_validator(mode="after")
    def _tokens_stay_private(self) -> Self:
        prefix = self.model_config.get("env_prefix", "")
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError(f"set both {prefix}TLS_CERTIFICATE_FILE and {prefix}TLS_KEY_FILE, or neither")
        is_encrypted = self.tls_certificate_file is not None or self.behind_tls_proxy
        if not is_loopback(self.host) and not is_encrypted:
            raise ValueError(f"listening beyond loopback needs {prefix}TLS_…_FILE or {prefix}BEHIND_TLS_PROXY")
        return self
