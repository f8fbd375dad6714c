"""The tests take the Kafka they are told of, or a container's, or make one."""

from pathlib import Path

import pytest

from sandbox.kafka import KafkaAddress
from sandbox.kafka_address import serves
from tests import kafkas


async def test_a_kafka_that_is_told_of_is_taken_as_it_is(kafka: KafkaAddress, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(kafka.admin.password + "\n")
    told = {
        "KEYTURN_TEST_KAFKA": kafka.bootstrap,
        "KEYTURN_TEST_KAFKA_USERNAME": kafka.admin.username,
        "KEYTURN_TEST_KAFKA_PASSWORD_FILE": str(password),
    }
    async with kafkas.running(tmp_path, tmp_path / "no-cache", told) as address:
        assert address == kafka
    assert kafkas.chosen(told) == f"Kafka: {kafka.bootstrap}, as KEYTURN_TEST_KAFKA says"


async def test_a_kafka_without_its_password_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="KEYTURN_TEST_KAFKA_PASSWORD_FILE"):
        async with kafkas.running(tmp_path, tmp_path, {"KEYTURN_TEST_KAFKA": "127.0.0.1:9"}):
            raise AssertionError("it was used all the same")


async def test_a_container_is_closed_from_its_first_moment_too(tmp_path: Path) -> None:
    if (reason := kafkas.why_no_engine({})) is not None:
        pytest.skip(reason)
    async with kafkas.running(tmp_path, tmp_path, {}) as address:
        assert await serves(address)
