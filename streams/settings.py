"""What every role is told, once, from `KEYTURN_…` variables. Frozen; passed down; nothing reads the environment later.

Secrets come from files (`KEYTURN_KAFKA_PASSWORD_FILE`, `KEYTURN_KEY_FILE`) so that no process listing shows them.
"""

import base64
import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import Field, SecretStr, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.record import RealmName
from schemas.signing import PrivateKeySigner, keyid_of
from schemas.topics import Names
from schemas.world import World

PrefixName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9_-]*\.)*$", max_length=100)]

_SERVER: Final = re.compile(r"[^\s,]+:[0-9]{1,5}")
KEY_BYTES: Final = 32


class SettingsError(Exception):
    """A setting is missing or cannot be used; the text says which and what to do."""


class Settings(BaseSettings):
    """The settings shared by all roles."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_", frozen=True, extra="ignore", hide_input_in_errors=True)

    realm: RealmName = Field(
        description="This installation. Inside every signature: another realm's yes is nothing here."
    )
    prefix: PrefixName = Field("keyturn.", description="Starts every topic, group and transactional id; ends in a dot.")
    kafka: str = Field(description="Bootstrap servers, host:port, comma separated.")
    kafka_security: Literal["SASL_SSL", "SASL_PLAINTEXT", "SSL"] = Field(
        "SASL_SSL", description="SASL_PLAINTEXT only on loopback or inside a trusted mesh."
    )
    kafka_username: str | None = Field(None, description="The role's SCRAM user: its principal.")
    kafka_password: SecretStr | None = Field(None, description="Its password; prefer KAFKA_PASSWORD_FILE.")
    kafka_password_file: Path | None = Field(None, description="File that holds the password.")
    kafka_ca_file: Path | None = Field(None, description="PEM of the authority that signed the brokers' certificates.")
    kafka_certificate_file: Path | None = Field(
        None, description="PEM of this role's client certificate and key (mTLS)."
    )
    key_file: Path | None = Field(None, description="This role's Ed25519 seed, base64, as `keyturn init` writes it.")
    root_keys: str = Field(description="Pinned public root keys, base64, comma separated: the fingerprints of trust.")
    instance: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = Field(
        "0", description="Unique among the processes of one role; the same again after a restart (static membership)."
    )
    state: Path = Field(Path(".keyturn-state"), description="Scratch folder of this process; may be lost.")
    health: int = Field(0, ge=0, le=65535, description="Port of /livez, /readyz and /metrics; 0 picks a free one.")
    health_host: str = Field("127.0.0.1", description="The address they answer on; loopback unless said otherwise.")

    @field_validator("kafka")
    @classmethod
    def _servers_have_ports(cls, text: str) -> str:
        if not all(_SERVER.fullmatch(server) for server in text.split(",")):
            raise ValueError("host:port, several of them separated by commas without blanks")
        return text

    @field_validator("root_keys")
    @classmethod
    def _roots_are_keys(cls, text: str) -> str:
        if not _roots(text):
            raise ValueError("the base64 of 32 bytes for each pinned root key, comma separated; one at least")
        return text

    @model_validator(mode="after")
    def _sasl_needs_a_login(self) -> Self:
        if self.kafka_security != "SSL":
            if not self.kafka_username:
                raise ValueError("KEYTURN_KAFKA_USERNAME is needed with SASL")
            if self.kafka_password is None and self.kafka_password_file is None:
                raise ValueError("KEYTURN_KAFKA_PASSWORD_FILE is needed with SASL")
        return self

    @property
    def names(self) -> Names:
        """Topic names with this installation's prefix."""
        return Names(self.prefix)

    @property
    def password(self) -> str | None:
        """The SCRAM password, from its file if there is one."""
        if self.kafka_password_file is not None:
            return _read(self.kafka_password_file, "KEYTURN_KAFKA_PASSWORD_FILE").strip()
        return self.kafka_password.get_secret_value() if self.kafka_password else None

    @property
    def roots(self) -> tuple[tuple[str, str], ...]:
        """Pinned root keys: (key id, base64 public key)."""
        return _roots(self.root_keys)

    def empty_world(self) -> World:
        """The world before anything was read: only the pinned keys."""
        return World(self.realm, self.roots)

    def signer(self) -> PrivateKeySigner:
        """This role's key. SettingsError when there is none."""
        if self.key_file is None:
            raise SettingsError("KEYTURN_KEY_FILE is not set: this role must sign; `keyturn init` makes its key")
        return read_signer(self.key_file)


S = TypeVar("S", bound=BaseSettings)


def of_environment(kind: type[S]) -> S:
    """What a role alone is told. SettingsError names the variables that cannot be used."""
    try:
        return kind()
    except ValidationError as exc:
        start = kind.model_config.get("env_prefix", "")
        wrong = (f"{start}{'_'.join(map(str, found['loc']))}".upper() + f": {found['msg']}" for found in exc.errors())
        raise SettingsError("; ".join(wrong)) from None


def _roots(text: str) -> tuple[tuple[str, str], ...]:
    """None at all when one of them is no key."""
    keys = [key.strip() for key in text.split(",") if key.strip()]
    try:
        raw = [base64.b64decode(key, validate=True) for key in keys]
    except ValueError:
        return ()
    if any(len(each) != KEY_BYTES for each in raw):
        return ()
    return tuple((keyid_of(each), key) for each, key in zip(raw, keys, strict=True))


def read_signer(path: Path) -> PrivateKeySigner:
    """The key in a file: 32 bytes of seed, base64, one line."""
    try:
        seed = base64.b64decode(_read(path, "KEYTURN_KEY_FILE").strip(), validate=True)
        return PrivateKeySigner.from_seed(seed)
    except ValueError as exc:
        raise SettingsError(f"{path}: not a key; expected the base64 of 32 bytes on one line") from exc


def _read(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise SettingsError(f"{setting}: {exc.strerror}: {path}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{setting}: not text: {path}") from exc
