"""Whoever gets no connection is told what to look at."""

import time
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from pydantic import SecretStr

from sandbox import ports
from schemas import topics
from streams import connection, reading
from streams.errors import ConnectionRefusedByKafkaError, KafkaAbsentError, TopicMissingError
from streams.reading import Surveyor
from streams.settings import Settings, SettingsError
from streams.worlds import WorldView
from tests.house import House


async def refused(settings: Settings, kind: type[Exception] = ConnectionRefusedByKafkaError) -> str:
    """What every kind of client says."""
    said = set()
    for client in (
        connection.reader(settings),
        connection.reader(settings, group="any"),
        connection.producer(settings),
        connection.producer(settings, transactional_id="any"),
    ):
        with pytest.raises(kind) as failure:
            await connection.start(client, settings)
        said.add(str(failure.value))
    [text] = said
    return text


async def test_a_wrong_password_is_named(realm: House) -> None:
    wrong = realm.settings("core", kafka_password=SecretStr("wrong"), kafka_password_file=None)
    said = await refused(wrong)
    assert f"Kafka at {wrong.kafka} does not let {wrong.kafka_username} in: check the password" in said
    assert "wrong" not in said


async def test_a_closed_port_and_a_host_that_is_none_are_named(realm: House) -> None:
    import secrets

    [closed] = ports.choose(1, secrets.token_bytes)
    for where in (f"127.0.0.1:{closed}", "no.such.host.invalid:9092"):
        said = await refused(realm.settings("core", kafka=where), KafkaAbsentError)
        assert f"nobody listens where Kafka should be ({where}: " in said


async def test_encryption_that_the_brokers_do_not_speak_is_no_connection(realm: House) -> None:
    assert "KEYTURN_KAFKA_SECURITY (SASL_SSL)" in await refused(realm.settings("core", kafka_security="SASL_SSL"))


def test_a_file_of_certificates_that_cannot_be_used_is_named_by_its_variable(realm: House, tmp_path: Path) -> None:
    missing, garbage = tmp_path / "missing.pem", tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for name in ("kafka_ca_file", "kafka_certificate_file"):
        for file in (missing, garbage):
            settings = realm.settings("core", kafka_security="SSL", **{name: file})
            with pytest.raises(SettingsError, match=f"KEYTURN_{name.upper()}: {file}"):
                connection.client_arguments(settings)


async def test_a_topic_that_is_not_there_or_may_not_be_seen_is_an_error_and_not_empty(realm: House) -> None:
    async with Surveyor(realm.settings("intake")) as surveyor:
        assert await surveyor.partitions([realm.name(topics.INTENTS)]) == {realm.name(topics.INTENTS): 2}
        for hidden in (realm.name(topics.AUDIT), "nothing"):
            began = time.monotonic()
            with pytest.raises(TopicMissingError, match=f"{hidden}: not there, or this principal may not describe it"):
                await surveyor.partitions([realm.name(topics.INTENTS), hidden])
            assert time.monotonic() - began < 5
    with pytest.raises(TopicMissingError, match="directory"):
        async with WorldView(realm.settings("agent-bot0")):
            raise AssertionError("an agent sees no directory")


async def test_a_reader_that_was_given_its_partitions_only_now_stops_like_any_other(realm: House) -> None:
    consumer = connection.reader(realm.master)
    await connection.start(consumer, realm.master)
    reading.assign_at(consumer, {TopicPartition(realm.name(topics.INTENTS), 0): 0})
    await connection.stop(consumer)
