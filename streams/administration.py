"""Provisioning: an installation's topics, users, rights and first records, examined and mended. Idempotent.

What must be there, and what is to be done, is decided in `streams.findings`; here it is looked up and done. While
anything is refused nothing is done.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from streams import findings, genesis
from streams.cluster import Cluster
from streams.errors import StreamError
from streams.findings import AddUser, Begin, CommitFirst, CreateTopic, Finding, Found, Grant, Remedy, SetTopic, Verdict
from streams.realm import Realm, RealmFolder
from streams.settings import Settings

ADMINISTRATION: Final = "administration"


ADMIN_PREFIX: Final = "KEYTURN_ADMIN_"


class ProvisioningError(StreamError):
    """Kafka is not as the realm needs it; the text lists the facts."""


@dataclass(frozen=True, slots=True)
class Admin:
    """A Kafka super user: provisioning makes users and rights, which no role of ours may."""

    username: str
    password: str = field(default="", repr=False)
    #: PEM of its certificate and key, where clients log in with certificates.
    certificate_file: Path | None = None


class AdminSettings(BaseSettings):
    """The super user, from `KEYTURN_ADMIN_…`; without them the `administration` role is used."""

    model_config = SettingsConfigDict(env_prefix=ADMIN_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    username: str | None = Field(default=None, description="A Kafka super user's name.")
    password: SecretStr | None = Field(default=None, description="Its password; prefer ADMIN_PASSWORD_FILE.")
    password_file: Path | None = Field(default=None, description="File that holds the password.")

    certificate_file: Path | None = Field(default=None, description="PEM of its certificate and key (mTLS).")

    def admin(self) -> Admin | None:
        """The super user, if one is named."""
        if self.certificate_file is not None:
            return Admin(self.username or "admin", certificate_file=self.certificate_file)
        if self.username is None:
            return None
        if self.password_file is not None:
            try:
                return Admin(self.username, self.password_file.read_text(encoding="utf-8").strip())
            except OSError as exc:
                raise ProvisioningError(f"KEYTURN_ADMIN_PASSWORD_FILE: {exc.strerror}: {self.password_file}") from exc
        return Admin(self.username, self.password.get_secret_value() if self.password else "")


def admin_of(folder: Path) -> Admin | None:
    """The super user that this process's environment names, or the folder's `env/administration.env`."""
    told = RealmFolder(folder).environment(ADMINISTRATION)
    given = {
        name.removeprefix(ADMIN_PREFIX).lower(): value
        for name, value in told.items()
        if name.startswith(ADMIN_PREFIX) and name not in os.environ
    }
    return AdminSettings(**given).admin()  # type: ignore[arg-type] # text, which the model parses


def settings_of(folder: RealmFolder, admin: Admin | None) -> Settings:
    """Settings to administer with: the realm's root key, and the super user's login if there is one."""
    settings = folder.settings(ADMINISTRATION)
    if admin is None:
        return settings
    login = {
        "kafka_username": admin.username,
        "kafka_password": SecretStr(admin.password),
        "kafka_password_file": None,
        "kafka_certificate_file": admin.certificate_file or settings.kafka_certificate_file,
    }
    return settings.model_copy(update=login)


async def examine(folder: Path, admin: Admin | None) -> tuple[Finding, ...]:
    """Every fact about the realm's Kafka, with what would mend it. Changes nothing."""
    home = RealmFolder(folder)
    realm, settings = home.realm(), settings_of(home, admin)
    async with Cluster(settings) as cluster:
        return await _examine(realm, settings, cluster)


async def apply(folder: Path, admin: Admin | None, *, resets_passwords: bool = False) -> tuple[Finding, ...]:
    """Mend what can be mended, then examine again: these are the facts afterwards.

    `resets_passwords` gives every user the password of its file anew. Raises ProvisioningError, having done nothing,
    when anything is refused.
    """
    home = RealmFolder(folder)
    realm, settings = home.realm(), settings_of(home, admin)
    async with Cluster(settings) as cluster:
        before = await _examine(realm, settings, cluster)
        if refused := [finding for finding in before if finding.verdict is Verdict.REFUSED]:
            raise ProvisioningError("nothing was done:\n" + "\n".join(map(str, refused)))
        await _mend([finding.remedy for finding in before if finding.remedy], home, settings, cluster)
        if resets_passwords and settings.kafka_security != "SSL":
            await cluster.set_passwords({realm.cast.user(role): home.password(role) for role in realm.cast.roles()})
        return await _examine(realm, settings, cluster)


async def provision(folder: Path, admin: Admin | None) -> None:
    """Make the realm's Kafka as it must be. ProvisioningError lists what still is not."""
    if wrong := [finding for finding in await apply(folder, admin) if not finding.is_ok]:
        raise ProvisioningError("Kafka is not as the realm needs it:\n" + "\n".join(map(str, wrong)))


def wanted_of(realm: Realm) -> findings.Wanted:
    """What a realm's Kafka must look like."""
    return findings.Wanted(
        realm.names,
        realm.cast,
        realm.partitions,
        realm.replication_factor,
        realm.min_insync_replicas,
        has_passwords=realm.kafka_security != "SSL",
    )


async def _examine(realm: Realm, settings: Settings, cluster: Cluster) -> tuple[Finding, ...]:
    wanted = wanted_of(realm)
    topics = await cluster.topics(wanted.topics())
    there = [(name, at) for name, at in wanted.beginnings() if name in topics and at < topics[name].partitions]
    found = Found(
        topics,
        await cluster.rights(),
        await cluster.users() if wanted.has_passwords else frozenset(),
        await genesis.read_firsts(settings, there),
        frozenset(await cluster.committed(wanted.intake, wanted.intents) if wanted.intents in topics else ()),
    )
    return findings.compare(wanted, found)


async def _mend(remedies: Sequence[Remedy], home: RealmFolder, settings: Settings, cluster: Cluster) -> None:
    """Apply remedies, each kind in one go. Rights come last: nobody writes before the first records are there."""
    wanted = wanted_of(home.realm())
    await cluster.create_topics({it.name: it.state for it in remedies if isinstance(it, CreateTopic)})
    for it in remedies:
        if isinstance(it, SetTopic):
            await cluster.set_topic(it.name, it.settings)
    if places := [place for it in remedies if isinstance(it, Begin) for place in it.places]:
        await genesis.write(settings, places, settings.signer())
    if partitions := [partition for it in remedies if isinstance(it, CommitFirst) for partition in it.partitions]:
        await cluster.commit(wanted.intake, wanted.intents, dict.fromkeys(partitions, findings.FIRST_OFFSET))
    await cluster.set_passwords({it.name: home.password(it.role) for it in remedies if isinstance(it, AddUser)})
    await cluster.grant(right for it in remedies if isinstance(it, Grant) for right in it.rights)
