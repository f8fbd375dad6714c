"""A process goes on at the group's mark, with the number beside it, and never in silence behind what nobody read."""

import logging

import pytest
from aiokafka import TopicPartition

from executors.feed import Feed
from executors.lanes import Mark
from schemas.topics import PLANNING, Names
from streams import connection
from streams.errors import LostPositionError
from streams.settings import Settings
from tests.executors.builders import signer

PLACE = TopicPartition(Names().of(PLANNING, "lamp"), 0)


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Feed:
    """A feed that was never started: its clients are not touched."""
    monkeypatch.setattr(connection, "reader", lambda *_, **__: object())
    settings = Settings.model_validate(
        {
            "realm": "test",
            "kafka": "localhost:1",
            "kafka_security": "SASL_PLAINTEXT",
            "kafka_username": "x",
            "kafka_password": "x",
            "root_keys": signer("root").public,
        }
    )
    return Feed(settings, "lamp")


def committed(monkeypatch: pytest.MonkeyPatch, found: tuple[int, str] | None) -> None:
    async def ask(*_: object) -> tuple[int, str] | None:
        return found

    monkeypatch.setattr(connection, "committed", ask)


@pytest.mark.parametrize(
    ("found", "first"),
    [
        (None, Mark(3)),
        ((7, "4"), Mark(7, 4)),
        ((7, ""), Mark(7)),
        ((9, "6"), Mark(9, 6)),
        # Retention overtook the group: whatever number was counted last, the next one may be any.
        ((2, "1"), Mark(3)),
    ],
)
async def test_it_goes_on_at_the_groups_mark(
    feed: Feed,
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[int, str] | None,
    first: Mark,
    caplog: pytest.LogCaptureFixture,
) -> None:
    committed(monkeypatch, found)
    with caplog.at_level(logging.CRITICAL, "keyturn.executor"):
        assert await feed._first(PLACE, 3, 9) == first
    assert bool(caplog.records) == (found == (2, "1"))


async def test_a_log_that_ends_before_the_mark_was_cut(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(monkeypatch, (10, "7"))
    with pytest.raises(LostPositionError, match="delete the group's offsets"):
        await feed._first(PLACE, 3, 9)
