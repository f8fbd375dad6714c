"""What a platform engineer deploys: the compose file says what the specification allows and a realm's folder holds, and
the start script makes of the official image a Kafka that is closed from its first moment. No engine is needed here.
"""

import asyncio
import json
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.errors import KafkaError
from compose_spec import PyCompose
from pydantic_settings import BaseSettings

from gateway.settings import GatewaySettings
from notifiers.api.settings import ApiSettings
from sandbox import jars, ports
from sandbox.kafka_address import Credentials, KafkaAddress, serves
from sandbox.kafka_directory import KafkaDirectory
from streams import connection
from streams.administration import Admin, examine, provision
from streams.realm import Realm, RealmFolder, lay_out
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
ROLES = {name: service for name, service in COMPOSE["services"].items() if service.get("command")}
DOORS: dict[str, type[BaseSettings]] = {"api": ApiSettings, "gateway": GatewaySettings}


def filled(text: str, realm: Path) -> str:
    """With a deployer's variables, as compose puts them in before it reads the file."""
    told = {"KEYTURN_REALM_DIR": str(realm), "KEYTURN_ISSUER": "https://login.example.com"}
    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda found: told.get(found[1]) or found[2], text)


@pytest.fixture
def realm(tmp_path: Path) -> Path:
    """A folder as `keyturn init` and the page in docs make it."""
    told = Realm(
        realm="acme",
        kafka="kafka:9092",
        kafka_security="SASL_PLAINTEXT",
        partitions=2,
        replication_factor=1,
        min_insync_replicas=1,
        executors=("s3",),
        notifiers=("api",),
        agents=("reporter",),
    )
    lay_out(tmp_path, told, ["ana"], secrets.token_bytes)
    (tmp_path / "tls").mkdir()
    for name in ("kafka-admin", "tls/certificate.pem", "tls/key.pem"):
        (tmp_path / name).write_text("something")
    return tmp_path


def parsed(text: str) -> PyCompose:
    # The specification is about what YAML's merges have made of it.
    return PyCompose.from_json(json.dumps(yaml.safe_load(filled(text, Path("./realm")))))


def test_the_compose_file_is_one_by_the_specification() -> None:
    text = (ROOT / "compose.yaml").read_text()
    parsed(text).validate()
    with pytest.raises(ValueError, match="expected a boolean"):
        parsed(text.replace("read_only: true", "read_only: maybe"))


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_is_nobody_and_can_write_nowhere(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    # The official image's own user is not root; ours is told whose secrets it reads.
    assert name == "kafka" or service["user"].startswith("${KEYTURN_UID:-1000}")


def test_only_roles_that_must_reach_out_can() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    out = {name for name, service in COMPOSE["services"].items() if "outside" in service["networks"]}
    assert out == {"executor-s3", "api", "gateway"}


@pytest.mark.parametrize("name", ROLES)
def test_every_role_starts_from_its_own_secrets_and_nobody_elses(
    name: str, realm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ROLES[name]
    given = {each["target"] if isinstance(each, dict) else each: each for each in service["secrets"]}
    files = {
        f"/run/secrets/{target}": filled(
            COMPOSE["secrets"][each["source"] if isinstance(each, dict) else each]["file"], realm
        )
        for target, each in given.items()
    }
    own = {"api": "notifier-api"}.get(name, name)
    assert files["/run/secrets/key"] == str(realm / "keys" / f"{own}.key")
    assert files["/run/secrets/password"] == str(realm / "passwords" / own)
    told: dict[str, str] = {}
    for path in service["env_file"]:
        lines = Path(filled(path, realm)).read_text().splitlines()
        told |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    told |= {key: filled(str(value), realm) for key, value in service["environment"].items()}
    for variable in [each for each in os.environ if each.startswith("KEYTURN_")]:
        monkeypatch.delenv(variable)
    for variable, value in told.items():
        monkeypatch.setenv(variable, files.get(value, value))
    settings = Settings()
    assert settings.kafka_username == own
    assert settings.password
    assert settings.signer().keyid
    if name in DOORS:
        DOORS[name]()


def test_every_role_of_a_realm_has_a_service() -> None:
    assert {" ".join(service["command"]) for service in ROLES.values()} == {
        "run intake",
        "run core",
        "run executor s3",
        "run api",
        "run gateway",
    }


# ---------------------------------------------------------------- the Kafka of the official image


@asynccontextmanager
async def started(home: Path, more: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """`deploy/kafka/start`, with the image's two scripts as thin as they are there: Java, a class, its words."""
    class_path = await jars.ensure(jars.cache_folder() / "jars")
    java = KafkaDirectory(home).argv(class_path, "MAIN")
    (home / "bin").mkdir(parents=True, exist_ok=True)
    for script, main in (("kafka-storage.sh", "kafka.tools.StorageTool"), ("kafka-server-start.sh", "kafka.Kafka")):
        words = " ".join(f"'{word}'" for word in (*java[:-1], main))
        path = home / "bin" / script
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with (home / "kafka.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            str(ROOT / "deploy/kafka/start"),
            env={"PATH": os.defpath, "KAFKA_HOME": str(home), **more},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def test_the_start_script_makes_a_kafka_that_is_closed_and_can_be_provisioned(tmp_path: Path) -> None:
    client, controller = ports.choose(2, secrets.token_bytes)
    password = tmp_path / "kafka-admin"
    password.write_text("only-letters-digits_and-these\n")
    told = {
        "KAFKA_DATA": str(tmp_path / "data"),
        "KAFKA_SCRATCH": str(tmp_path / "scratch"),
        "KAFKA_ADVERTISED": f"127.0.0.1:{client}",
        "KAFKA_ADMIN_PASSWORD_FILE": str(password),
        "KAFKA_MORE_SETTINGS": (
            f"listeners=CLIENT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\noffsets.topic.num.partitions=1"
        ),
    }
    admin = Credentials("admin", password.read_text().strip())
    folder = tmp_path / "realm"
    for life in range(2):
        async with started(tmp_path / "home", told) as process:
            address = None
            async with asyncio.timeout(90):
                while address is None:
                    assert process.returncode is None, (tmp_path / "home/kafka.log").read_text()[-2000:]
                    meta = tmp_path / "data/meta.properties"
                    if meta.exists() and (found := re.search(r"cluster.id=(\S+)", meta.read_text())):
                        there = KafkaAddress(f"127.0.0.1:{client}", found[1].replace("\\", ""), admin)
                        address = there if await serves(there) else None
                    await asyncio.sleep(0.1)
            told_realm = Realm(
                realm="acme",
                kafka=address.bootstrap,
                kafka_security="SASL_PLAINTEXT",
                partitions=2,
                replication_factor=1,
                min_insync_replicas=1,
                executors=("s3",),
                notifiers=("api",),
                agents=("reporter",),
            )
            if life == 0:
                lay_out(folder, told_realm, ["ana"], secrets.token_bytes)
                await provision(folder, Admin(admin.username, admin.password))
            assert all(finding.is_ok for finding in await examine(folder, Admin(admin.username, admin.password)))
            stranger = RealmFolder(folder).settings("core").model_copy(update={"kafka_username": "nobody"})
            with pytest.raises(Exception, match="does not let nobody in") as refused:
                await connection.start(connection.reader(stranger), stranger)
            assert not isinstance(refused.value, KafkaError)
    assert "only-letters-digits" not in (tmp_path / "home/kafka.log").read_text()


async def test_a_password_that_would_break_the_settings_file_is_refused_by_name(tmp_path: Path) -> None:
    password = tmp_path / "kafka-admin"
    for text, said in (("", "no password in"), ('"; nonsense', "letters, digits, - and _ only")):
        password.write_text(text)
        process = await asyncio.create_subprocess_exec(
            str(ROOT / "deploy/kafka/start"),
            env={"PATH": os.defpath, "KAFKA_ADMIN_PASSWORD_FILE": str(password), "KAFKA_SCRATCH": str(tmp_path)},
            stderr=asyncio.subprocess.PIPE,
        )
        _, complaint = await process.communicate()
        assert process.returncode == 1
        assert said in complaint.decode()
