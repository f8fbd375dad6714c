"""No session is believed that is not what was asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from executors.aws.client import Account, Aws, Credentials, Provider
from executors.aws.minting import mint
from executors.contract import Act, ActFailedError, Deadline
from tests.executors.builders import GRANTED, Life

LIFE = Life()
GRANT = LIFE.grant(LIFE.yes("grace"))
NOW = datetime.fromtimestamp(GRANTED // 1000, UTC)


class Answering(Aws):
    """A provider that gives sessions which end when the test says."""

    def __init__(self, expires_at: datetime | None) -> None:
        super().__init__(Account(Provider("eu-central-1")))
        self._expires_at = expires_at

    async def assume_role(self, *_: object, **__: object) -> Credentials:
        return Credentials("key", "secret", "token", self._expires_at)


class NoJournal:
    """Nothing is ever begun here."""

    async def started(self, *_: object, **__: object) -> None:
        raise AssertionError

    async def done(self, *_: object, **__: object) -> None:
        raise AssertionError


async def minted(expires_at: datetime | None, *, is_twin_refused: bool = True) -> Credentials:
    async def is_refused(_: Credentials) -> bool:
        return is_twin_refused

    act = Act(LIFE.intent, LIFE.plan, GRANT, GRANT.digest, Deadline(GRANTED + 70_000, GRANTED + 60_000), NoJournal())
    return (await mint(Answering(expires_at), "role", act, GRANTED, str, is_refused)).credentials


async def test_a_session_as_asked_for_is_believed() -> None:
    assert (await minted(NOW + timedelta(seconds=900))).token == "token"


@pytest.mark.parametrize(
    ("expires_at", "reason"),
    [
        (None, "before the deadline"),
        (NOW + timedelta(seconds=59), "before the deadline"),
    ],
)
async def test_a_session_that_ends_before_the_deadline_is_thrown_away_unused(
    expires_at: datetime | None, reason: str
) -> None:
    with pytest.raises(ActFailedError, match=reason):
        await minted(expires_at)


async def test_a_provider_that_believes_a_dead_twin_gives_no_session() -> None:
    with pytest.raises(ActFailedError, match="does not honour a date"):
        await minted(NOW + timedelta(seconds=900), is_twin_refused=False)
