"""A restore is declared only where it will be the next word that the core hears."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Self

import pytest
from aiokafka import ConsumerRecord
from pydantic import SecretStr

from broker.core.deciding import Deciding
from cli import core
from schemas import envelope
from schemas.record import Record
from schemas.records import AuditRecord, ChainHead, Progress, Refusal, Restore, Skip, Source, Versions
from schemas.signing import Signer
from schemas.topics import Names
from schemas.world import World
from streams.operations import heard_upto
from streams.settings import Settings
from tests.auditors.builders import PARTITIONS, REALM, ROOT, ROOTS, START, signer

HEAD: Final = ChainHead(seq=5, digest="a" * 64)
SKIP: Final = Skip(topic="decisions", partition=0, position=3, until=9, reason="the disks are gone")
THIS: Final = Restore(partition=0, head=HEAD, at=START, reason="volumes put back")


def word(record: Record, offset: int = 1, by: Signer = ROOT) -> ConsumerRecord[Any, Any]:
    sealed = envelope.seal(record, "x", by, REALM, source="operator")
    return ConsumerRecord(
        "keyturn.operations", 0, offset, START, 1, sealed.key, sealed.value, None, 0, 0, tuple(sealed.headers)
    )


def progress(core: int, heard: int) -> Progress:
    return Progress(
        partition=core,
        positions={"operations": heard},
        head=HEAD,
        numbers={},
        versions=Versions(directory=1, roster=1, policies=1, manifests=1, rules="rules-2"),
        log_time=START,
    )


def settings(tmp_path: Path) -> Settings:
    roots = ",".join(public for _, public in ROOTS)
    return Settings(
        realm=REALM,
        kafka="localhost:1",
        kafka_security="SASL_PLAINTEXT",
        kafka_username="operator",
        kafka_password=SecretStr("none is there"),
        root_keys=roots,
        state=tmp_path,
    )


class Waiting:
    """What operators find: two core partitions, and these words before the second one."""

    said: list[tuple[int, Record]]

    def __init__(self, words: Iterable[ConsumerRecord[Any, Any]]) -> None:
        self._words = list(words)
        self.said = []

    def __call__(self, _: Settings) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def partitions(self) -> int:
        return 2

    async def progress(self, core: int) -> Progress:
        return progress(core, 1)

    async def unheard(self, core: int, own: Progress) -> list[ConsumerRecord[Any, Any]]:
        return [each for each in self._words if each.offset >= heard_upto(own)] if core == 1 else []

    async def say(self, record: Record, core: int, _: Signer) -> Source:
        self.said.append((core, record))
        return Source(topic="operations", partition=core, offset=1)

    async def answer(self, *_: object) -> AuditRecord | None:
        return None


def test_a_word_that_is_heard_before_it_moves_the_chain_and_the_restore_counts_nowhere() -> None:
    own = Deciding(World(REALM, ROOTS), Names(), 0, PARTITIONS)
    own.chain = type(own.chain)(REALM, "core-0", HEAD)
    for offset, said in enumerate([SKIP, THIS], start=1):
        own.decide("operations", word(said, offset))
    assert [each.audit.refusal for each in own.batch.decided] == [None, Refusal.NOT_LOST]
    assert own.world.restored_to == 0


@pytest.mark.parametrize(
    "waiting",
    [
        [word(SKIP)],
        [word(SKIP), word(THIS.model_copy(update={"partition": 1}), 2)],
        [word(THIS)],
        [word(THIS.model_copy(update={"partition": 1, "head": ChainHead(seq=4, digest="a" * 64)}))],
        [word(THIS.model_copy(update={"partition": 1}), by=signer("core"))],
    ],
    ids=["a skip", "a skip before it", "for another partition", "of another state", "no root key's"],
)
async def test_nothing_is_declared_anywhere_while_another_word_is_unheard(
    waiting: list[ConsumerRecord[Any, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    operator = Waiting(waiting)
    monkeypatch.setattr("streams.operations.Operator", operator)
    with pytest.raises(core.UnheardError, match="core-1 has yet to hear"):
        await core._restored(settings(tmp_path), ROOT, "volumes put back", 0)
    assert operator.said == []


async def test_what_was_declared_before_is_not_said_twice_and_the_rest_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    operator = Waiting([word(THIS.model_copy(update={"partition": 1})), word(SKIP, 2)])
    monkeypatch.setattr("streams.operations.Operator", operator)
    done = await core._restored(settings(tmp_path), ROOT, "volumes put back", 0)
    assert [(each.core, each.seq, each.is_answered) for each in done] == [(0, 5, False), (1, 5, False)]
    assert [at for at, _ in operator.said] == [0]


def test_what_the_core_has_heard_and_what_made_the_topic_waits_for_nobody() -> None:
    assert (heard_upto(None), heard_upto(progress(0, 0)), heard_upto(progress(0, 7))) == (1, 1, 7)
