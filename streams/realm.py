"""The folder `keyturn init` makes: keys, passwords, each role's environment, a first directory. Nothing is overwritten.

    realm.yaml        what this installation is; `keyturn topics` works from it
    directory.yaml    who there is, to be completed by hand; `keyturn directory apply` reads it
    keys/             <role>.key: base64 of a 32-byte Ed25519 seed, 0600; <role>.pub: its public half
    passwords/        one file a role, 0600: its Kafka user's
    env/              <role>.env: the KEYTURN_… variables of that role; paths in it are relative to this folder

Whoever holds this folder whole holds the realm: hand each role its own three files, and put `keys/root.key` away.
"""

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar, overload

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from schemas.record import NAME_PATTERN, RealmName
from schemas.signing import PrivateKeySigner
from schemas.topics import Names, Principal
from streams import drafts
from streams.access import Cast
from streams.settings import PrefixName, Settings, read_signer

SEED_BYTES: Final = 32
PASSWORD_BYTES: Final = 24
ROOT: Final = "root"
KEYLESS: Final = frozenset({"auditor"})
"""Roles that sign nothing."""
PREFIX: Final = "KEYTURN_"

Entropy = Callable[[int], bytes]
"""That many unpredictable bytes: `secrets.token_bytes`."""
S = TypeVar("S", bound=Settings)


class RealmError(Exception):
    """The folder cannot be made or used; the text says why and what to do."""


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError("a name is listed twice")
    return names


# Shorter than other names: `executor-<name>` must still be one.
ShortName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=54)]
NameList = Annotated[tuple[ShortName, ...], AfterValidator(_each_once)]
NotifierName = Literal["slack", "teams", "api", "console"]
NotifierList = Annotated[tuple[NotifierName, ...], AfterValidator(_each_once)]


class Realm(BaseModel):
    """One installation, as `realm.yaml` has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    realm: RealmName
    prefix: PrefixName = "keyturn."
    #: Starts the name of every Kafka user; with `prefix` it keeps two realms on one cluster apart.
    user_prefix: PrefixName = ""
    kafka: str = Field(min_length=1)
    kafka_security: Literal["SASL_SSL", "SASL_PLAINTEXT", "SSL"] = "SASL_SSL"
    kafka_ca_file: Path | None = None
    #: How many partitions the partitioned topics have: fixed for ever, and how far the core can be spread.
    partitions: int = Field(8, ge=1, le=1024)
    replication_factor: int = Field(3, ge=1, le=32)
    min_insync_replicas: int = Field(2, ge=1, le=32)
    executors: NameList = ()
    notifiers: NotifierList = ("api",)
    #: Agents that sign and write to Kafka themselves.
    agents: NameList = ()

    @model_validator(mode="after")
    def _quorum_fits(self) -> "Realm":
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError("min_insync_replicas is more than replication_factor: nothing could ever be written")
        return self

    @property
    def names(self) -> Names:
        """Topic names with this installation's prefix."""
        return Names(self.prefix)

    @property
    def cast(self) -> Cast:
        """Everybody Kafka must know."""
        return Cast(self.executors, self.notifiers, self.agents, self.user_prefix)


@dataclass(frozen=True, slots=True)
class Laid:
    """What `lay_out` did: paths relative to the folder, and the root key every role pins."""

    created: tuple[str, ...]
    kept: tuple[str, ...]
    root_public: str

    @property
    def fingerprint(self) -> str:
        """What an auditor gets out of band."""
        return fingerprint(self.root_public)


def fingerprint(public: str) -> str:
    """The SHA-256 of a public key (base64), in groups that can be read out on the telephone."""
    text = drafts.digest_of_public(public)
    return " ".join(text[start : start + 8] for start in range(0, len(text), 8))


def lay_out(folder: Path, realm: Realm, owners: Iterable[str], entropy: Entropy, issuers: Iterable[str] = ()) -> Laid:
    """Make what is missing in `folder`; keep, byte for byte, what is there.

    Only `realm.yaml` may grow, by executors, notifiers and agents; any other difference is a RealmError. `owners` are
    the persons answerable for the agents, and `issuers` where people log in; both are for the first directory only.
    """
    home = RealmFolder(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = home.realm() if home.realm_file.exists() else None
    whole = _grown(before, realm) if before else realm
    shelf = _Shelf(folder)
    for role in (ROOT, *_signing(whole)):
        shelf.put(f"keys/{role}.key", lambda: base64.b64encode(entropy(SEED_BYTES)).decode() + "\n", 0o600)
        shelf.put(f"keys/{role}.pub", lambda role=role: home.signer(role).public + "\n", 0o644)  # type: ignore[misc]
    root = home.signer(ROOT).public
    for role in whole.cast.roles():
        if whole.kafka_security != "SSL":
            shelf.put(f"passwords/{role}", lambda: _password(entropy), 0o600)
        shelf.put(f"env/{role}.env", lambda role=role: _environment(whole, role, root), 0o600)  # type: ignore[misc]
    shelf.put("directory.yaml", lambda: _first_directory(whole, owners, issuers), 0o644)
    if whole != before:
        home.realm_file.write_text(_realm_text(whole), encoding="utf-8")
        (shelf.created if before is None else shelf.kept).append(home.realm_file.name)
    return Laid(tuple(shelf.created), tuple(shelf.kept), root)


class _Shelf:
    """Files in a folder, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.created: list[str] = []
        self.kept: list[str] = []

    def put(self, name: str, text: Callable[[], str], mode: int) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        if path.exists():
            self.kept.append(name)
            return
        # Made with its mode and only if it is not there: a secret is never readable for a moment, nor overwritten.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text())
        self.created.append(name)


@dataclass(frozen=True, slots=True)
class RealmFolder:
    """A folder that `keyturn init` made."""

    path: Path

    @property
    def realm_file(self) -> Path:
        """Where the realm is described."""
        return self.path / "realm.yaml"

    def realm(self) -> Realm:
        """The installation. RealmError when the folder is none, or its file cannot be meant."""
        try:
            members = drafts.load(self.realm_file.read_text(encoding="utf-8"), str(self.realm_file))
            return Realm.model_validate(members)
        except FileNotFoundError as exc:
            raise self._is_none() from exc
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "realm"
            raise RealmError(f"{self.realm_file}: {place}: {first['msg']}") from exc

    def _is_none(self) -> RealmError:
        return RealmError(f"{self.realm_file} is not there: `keyturn init --dir {self.path}` makes it")

    def signer(self, role: str) -> PrivateKeySigner:
        """The key of a role."""
        return read_signer(self.path / "keys" / f"{role}.key")

    def password(self, role: str) -> str:
        """The Kafka password of a role."""
        path = self.path / "passwords" / role
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as exc:
            raise RealmError(f"{path}: {exc.strerror}; `keyturn init` makes what is missing") from exc

    def environment(self, role: str) -> dict[str, str]:
        """The KEYTURN_… variables of a role, with paths made absolute: what its process is started with."""
        path = self.path / "env" / f"{role}.env"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as exc:
            if not self.realm_file.exists():
                raise self._is_none() from exc
            known = ", ".join(sorted(file.stem for file in path.parent.glob("*.env"))) or "none"
            raise RealmError(f"{path}: {exc.strerror}; roles of this folder: {known}") from exc
        variables = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return {name: self._absolute(name, value) for name, value in variables.items()}

    def settings(self, role: str) -> Settings:
        """The settings that all roles share; a variable of the process's own environment wins over the file's."""
        return self.settings_as(role, Settings, os.environ)

    def settings_as(self, role: str, kind: type[S], environ: Mapping[str, str]) -> S:
        """The settings of a role that has more of them than others."""
        given = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in self.environment(role).items()
            if name not in environ
        }
        return kind(**given)  # type: ignore[arg-type] # text, which the model parses

    def _absolute(self, name: str, value: str) -> str:
        is_path = name.endswith("_FILE") or name == f"{PREFIX}STATE"
        return str((self.path / value).absolute()) if is_path else value


@overload
def settings_for(folder: Path | None, role: str) -> Settings: ...


@overload
def settings_for(folder: Path | None, role: str, kind: type[S]) -> S: ...


def settings_for(folder: Path | None, role: str, kind: type[Settings] = Settings) -> Settings:
    """A role's settings: from a realm's folder if one is named, else from the environment alone."""
    if folder is not None:
        return RealmFolder(folder).settings_as(role, kind, os.environ)
    nothing: dict[str, str] = {}
    return kind(**nothing)  # type: ignore[arg-type] # the environment fills it


def _grown(before: Realm, wanted: Realm) -> Realm:
    lists = ("executors", "notifiers", "agents")
    for name in Realm.model_fields:
        if name not in lists and name in wanted.model_fields_set and getattr(wanted, name) != getattr(before, name):
            raise RealmError(
                f"realm.yaml says {name}: {getattr(before, name)}, not {getattr(wanted, name)}. Nothing was changed. "
                "Leave the option out, or choose another folder for another realm."
            )
    grown = {name: tuple(dict.fromkeys((*getattr(before, name), *getattr(wanted, name)))) for name in lists}
    return before.model_copy(update=grown)


def _password(entropy: Entropy) -> str:
    return base64.urlsafe_b64encode(entropy(PASSWORD_BYTES)).decode() + "\n"


def _first_directory(realm: Realm, owners: Iterable[str], issuers: Iterable[str]) -> str:
    return drafts.first_directory(realm.realm, realm.agents, owners, _key_entries(realm), issuers)


def _signing(realm: Realm) -> tuple[str, ...]:
    """The roles that sign: administration signs with the root key."""
    return tuple(role for role in realm.cast.roles() if role not in {*KEYLESS, "administration"})


def _key_entries(realm: Realm) -> tuple[drafts.KeyEntry, ...]:
    roles = realm.cast.roles()
    entries = [drafts.KeyEntry("keys/root.pub", ROOT, ROOT)]
    for role in _signing(realm):
        part, of = roles[role]
        entries.append(drafts.KeyEntry(f"keys/{role}.pub", part.value, of or role))
    return tuple(entries)


def _environment(realm: Realm, role: str, root: str) -> str:
    key = None if role in KEYLESS else ROOT if role == "administration" else role
    part, of = realm.cast.roles()[role]
    variables = {
        "REALM": realm.realm,
        "AGENT": of if part is Principal.AGENT else None,
        "PREFIX": realm.prefix,
        "KAFKA": realm.kafka,
        "KAFKA_SECURITY": realm.kafka_security,
        "KAFKA_CA_FILE": realm.kafka_ca_file,
        "KAFKA_USERNAME": realm.cast.user(role),
        "KAFKA_PASSWORD_FILE": f"passwords/{role}" if realm.kafka_security != "SSL" else None,
        "KAFKA_CERTIFICATE_FILE": f"certificates/{role}.pem" if realm.kafka_security == "SSL" else None,
        "KEY_FILE": f"keys/{key}.key" if key else None,
        "ROOT_KEYS": root,
        "STATE": f"state/{role}",
    }
    lines = [f"{PREFIX}{name}={value}" for name, value in variables.items() if value is not None]
    return "\n".join([f"# {role} of {realm.realm}. Paths are relative to the folder above.", *lines, ""])


def _realm_text(realm: Realm) -> str:
    members = realm.model_dump(mode="json", exclude_none=True)
    head = "# One installation. Written by `keyturn init`, which may add to the lists; read by `keyturn topics`.\n"
    return head + yaml.safe_dump(members, sort_keys=False, default_flow_style=None)
