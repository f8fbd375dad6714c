"""What the approvers' API is told, once, from `KEYTURN_API_…` variables. Frozen; a law is never a setting."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streams.http.settings import DoorSettings, IssuerUrl


class ApiSettings(DoorSettings):
    """The settings of the approvers' API."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_API_")

    port: int = Field(8470, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    issuer: IssuerUrl = Field(description="The OpenID Connect issuer, exactly as its tokens spell `iss`.")
    audience: str = Field("keyturn-approvals", min_length=1, description="What tokens for this API carry as `aud`.")
    idempotency_hours: int = Field(24, ge=1, le=168, description="How long an Idempotency-Key is remembered.")
