"""A role may start before its Kafka: it waits, and says for what. A Kafka that refuses it ends it, by name, at once."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr

from sandbox.kafka import EmbeddedKafka
from sandbox.roles import environment, keyturn
from streams import arrival
from streams.errors import KafkaHangsUpError
from streams.health import Health
from streams.settings import Settings
from tests.house import House, Process, house, until

WITHIN: Final = 200.0
ROLES: Final = {
    "intake": ("intake",),
    "core": ("core",),
    "executor-s3": ("executor", "s3"),
    "notifier-api": ("api",),
    "gateway": ("gateway",),
}
"""Whose settings, and the words after `keyturn run`."""
MORE: Final = {
    "executor-s3": {
        "KEYTURN_S3_REGION": "eu-west-1",
        "KEYTURN_S3_READ_ROLE": "arn:aws:iam::000000000000:role/read",
        "KEYTURN_S3_EXPORT_ROLE": "arn:aws:iam::000000000000:role/export",
    },
    "notifier-api": {"KEYTURN_API_ISSUER": "http://127.0.0.1:1", "KEYTURN_API_PORT": "0"},
    "gateway": {"KEYTURN_GATEWAY_PORT": "0"},
}


def run(realm: House, role: str, **variables: str) -> Process:
    return realm.run(role, words=ROLES[role], **MORE.get(role, {}), **variables)


@pytest.mark.timeout(420)
async def test_every_role_waits_for_a_kafka_that_is_not_there_yet_and_a_command_says_try_again(
    tmp_path: Path, sandbox_cache: Path
) -> None:
    kafka = EmbeddedKafka(tmp_path / "kafka", cache=sandbox_cache)
    address = await kafka.start()
    try:
        async with house(tmp_path / "realm", address) as realm:
            pass
        await kafka.stop()
        async with AsyncExitStack() as stack:
            roles = [await stack.enter_async_context(run(realm, role)) for role in ROLES]
            for role in roles:

                async def waits(role: Process = role) -> bool:
                    assert not role.is_over, role.lines
                    return bool(role.logged("waiting for Kafka"))

                await until(waits, WITHIN)
                alive, ready = await role.health("/livez"), await role.health("/readyz")
                assert alive is not None
                assert ready is not None
                assert (alive.status, ready.status) == (200, 503)
                waiting = json.loads(ready.body)["waiting_for"]
                assert set(waiting) == {"kafka"}
                assert f"nobody listens where Kafka should be ({address.bootstrap}: " in waiting["kafka"]
            code, said = await command(realm, "topics", "check")
            assert (code, said.count("\n")) == (75, 1)
            assert said.startswith("keyturn: nobody listens where Kafka should be")

            await kafka.start()
            for role in roles:
                await role.ready(WITHIN)
                assert [line["level"] for line in role.logged("waiting for Kafka")] == ["info"]
                assert len(role.logged("Kafka is there")) == 1
                assert await role.stop() == 0
    finally:
        await kafka.stop()


async def command(realm: House, *words: str) -> tuple[int | None, str]:
    """Exit code and what is said on stderr, as a shell sees them."""
    process = await asyncio.create_subprocess_exec(
        *keyturn(*words, "--dir", str(realm.folder)),
        env=environment({}),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


@pytest.mark.parametrize("role", ROLES)
async def test_a_kafka_that_knows_another_password_ends_a_role_by_name(realm: House, role: str, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong\n")
    async with run(realm, role, KEYTURN_KAFKA_PASSWORD_FILE=str(wrong)) as process:
        why = await process.failed(WITHIN)
    assert why.startswith("ConnectionRefusedByKafkaError: Kafka at ")
    assert "check the password" in why
    assert process.logged("waiting for Kafka") == []


async def test_a_kafka_that_speaks_no_tls_ends_a_role_by_name(realm: House) -> None:
    async with run(realm, "core", KEYTURN_KAFKA_SECURITY="SASL_SSL") as process:
        why = await process.failed(WITHIN)
    assert "KEYTURN_KAFKA_SECURITY (SASL_SSL)" in why


def told(where: str) -> Settings:
    return Settings(
        realm="test",
        kafka=where,
        kafka_security="SASL_PLAINTEXT",
        kafka_username="core",
        kafka_password=SecretStr("secret"),
        root_keys="A" * 43 + "=",
    )


async def test_whoever_hangs_up_is_asked_again_and_then_called_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "EVERY_SECONDS", 0.01)
    asked = 0

    async def hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
    async with server:
        where = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        health = Health(0)
        with pytest.raises(KafkaHangsUpError, match=f"Kafka at {where} does not let core in"):
            await arrival.until_there(told(where), health, asyncio.Event())
    assert asked == 2 * arrival.HANG_UPS
    assert not health.is_ready


async def test_a_role_that_is_told_to_stop_while_it_waits_ends_in_order() -> None:
    stop, health = asyncio.Event(), Health(0)
    waiting = asyncio.create_task(arrival.until_there(told("127.0.0.1:1"), health, stop))

    async def is_told() -> bool:
        return "kafka" in health._waiting

    await until(is_told)
    stop.set()
    assert await waiting is False
