"""What the gateway is told, once, from `KEYTURN_GATEWAY_…` variables. Frozen; a law is never a setting."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streams.http.settings import DoorSettings, IssuerUrl


class GatewaySettings(DoorSettings):
    """The settings of the gateway."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_GATEWAY_")

    port: int = Field(8471, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    issuer: IssuerUrl | None = Field(
        None, description="The OpenID Connect issuer of people who ask; without it only agents with keys are let in."
    )
    audience: str = Field("keyturn-gateway", min_length=1, description="What tokens for the gateway carry as `aud`.")
    catalog: Path | None = Field(
        None, description="YAML of resources, as intake's: what a check can say without guessing."
    )
    asks_per_second: int = Field(20, ge=1, description="Intents, withdrawals and checks of one requester, on average.")
    reads_per_second: int = Field(50, ge=1, description="Reads of one requester, on average.")
    streams_each: int = Field(8, ge=1, description="Event streams and long polls that one requester may hold open.")
    streams: int = Field(256, ge=1, description="Event streams and long polls together.")
