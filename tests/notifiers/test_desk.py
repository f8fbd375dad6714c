"""Watching, remembering answers, and rows as they lie on Kafka."""

import asyncio
from dataclasses import dataclass

import pytest

from notifiers.api.repeats import Repeats, ReusedError
from notifiers.desk import Changes
from schemas import envelope
from schemas.records import PendingApproval, Phase
from schemas.topics import PROGRESS_KEY
from streams.errors import NumberGapError
from streams.rows import Rows, UnreadableError
from tests.notifiers import stage


async def test_a_slow_watcher_hears_of_each_row_once_however_often_it_changed() -> None:
    changes = Changes()
    with changes.watch() as watcher:
        for _ in range(3):
            changes.tell("a")
        changes.tell("b")
        changes.close()
        assert [intent_id async for intent_id in watcher] == ["a", "b"]


async def test_what_changed_before_watching_is_not_told_and_closing_wakes_whoever_waits() -> None:
    changes = Changes()
    changes.tell("a")
    with changes.watch() as watcher:
        waiting = asyncio.ensure_future(anext(watcher))
        await asyncio.sleep(0)
        changes.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
    with changes.watch() as late:
        assert [intent_id async for intent_id in late] == []


async def test_what_failed_is_not_remembered_and_a_caller_who_leaves_undoes_nothing() -> None:
    repeats: Repeats[int] = Repeats(60, lambda: 0.0)
    calls = []
    release = asyncio.Event()

    async def fail() -> int:
        calls.append("fail")
        raise ValueError("no")

    async def work() -> int:
        calls.append("work")
        await release.wait()
        return 7

    with pytest.raises(ValueError, match="no"):
        await repeats.once(("k",), "f", fail)
    leaver = asyncio.create_task(repeats.once(("k",), "f", work))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.wait({leaver})
    release.set()
    assert await repeats.once(("k",), "f", fail) == 7
    assert calls == ["fail", "work"]
    with pytest.raises(ReusedError):
        await repeats.once(("k",), "other", work)


@dataclass
class Consumed:
    """A record as a consumer hands it over."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    offset: int
    topic: str = "t.pending"
    partition: int = 0
    timestamp: int = stage.T0


def said(row: PendingApproval, offset: int, signer=stage.CORE, key: str | None = None, number: int | None = None):
    sealed = envelope.seal(
        row, key or row.intent_id, signer, stage.REALM, source="core", number=offset if number is None else number
    )
    headers = (*sealed.headers, ("phase", row.phase.value.encode()))
    return Consumed(sealed.key, sealed.value, headers, offset)


def test_the_newest_row_counts_until_a_tombstone_takes_it_away() -> None:
    rows, row, world = Rows(), stage.pending(), stage.world()
    assert rows.take(said(row, 0)) == row.intent_id
    held = rows.row(row.intent_id, world)
    assert held
    assert (held.row, held.is_verified, held.version) == (row, True, "0-0")
    denied = row.model_copy(update={"phase": Phase.DENIED})
    rows.take(said(denied, 5))
    held = rows.row(row.intent_id, world)
    assert held
    assert (held.row.phase, held.version) == (Phase.DENIED, "0-5")
    assert [listed.intent_id for listed in rows.listed(frozenset({Phase.DENIED}))] == [row.intent_id]
    assert list(rows.listed(frozenset({Phase.PENDING}))) == []
    rows.take(Consumed(row.intent_id.encode(), None, (("n", b"6"),), 6))
    assert rows.row(row.intent_id, world) is None


@pytest.mark.parametrize("signer", [stage.AGENT, stage.API, stage.ROOT])
def test_a_row_that_the_core_did_not_sign_is_held_but_not_verified(signer) -> None:
    rows, row = Rows(), stage.pending()
    rows.take(said(row, 0, signer))
    held = rows.row(row.intent_id, stage.world())
    assert held
    assert not held.is_verified


def test_bytes_that_are_no_row_or_another_intents_are_unreadable() -> None:
    rows, row = Rows(), stage.pending()
    broken = said(row, 0)
    broken.value = b"{}"
    rows.take(broken)
    with pytest.raises(UnreadableError):
        rows.row(row.intent_id, stage.world())
    rows.take(said(row, 1, key=stage.intent_id(5)))
    with pytest.raises(UnreadableError, match="another intent"):
        rows.row(stage.intent_id(5), stage.world())


def test_progress_and_strange_keys_are_no_rows() -> None:
    rows = Rows()
    assert rows.take(Consumed(PROGRESS_KEY.encode(), b"{}", (("n", b"0"),), 0)) is None
    assert rows.take(Consumed(b"\xff", b"{}", (("n", b"1"),), 1)) is None
    assert rows.take(Consumed(None, b"{}", (("n", b"2"),), 2)) is None


def test_a_number_that_goes_back_or_is_missing_stops_the_reader() -> None:
    rows, row = Rows(), stage.pending()
    rows.take(said(row, 3))
    for number in (3, 2):
        with pytest.raises(NumberGapError):
            rows.take(said(row, 4, number=number))
    with pytest.raises(NumberGapError):
        rows.take(Consumed(row.intent_id.encode(), None, (), 5))
