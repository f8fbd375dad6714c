"""`keyturn submit` and `keyturn withdraw` against a gateway on a real socket: calm lines, JSON, exit codes."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import root_for
from schemas import ids
from schemas.records import Intent, Phase, Refusal, Withdrawal
from tests.gateway.stage import Door
from tests.gateway.test_serving import listening

ASKED = ("submit", "s3.copy", "bucket/reports", "-p", "bucket=reports", "--reason", "because")


class Command:
    """The command, as an agent or a person at a terminal."""

    def __init__(self, door: Door, folder: Path, port: int) -> None:
        self.door = door
        key = folder / "bot.key"
        key.write_text(base64.b64encode(hashlib.sha256(b"bot").digest()).decode())
        self.url = f"http://127.0.0.1:{port}"
        self._agent = {"KEYTURN_AGENT": "bot", "KEYTURN_REALM": "test", "KEYTURN_KEY_FILE": str(key)}

    async def __call__(self, *words: str, person: str | None = None, text: str | None = None) -> Result:
        token = self.door.as_(person)["Authorization"].removeprefix("Bearer ") if person else ""
        env = {"KEYTURN_TOKEN": token} if person else self._agent
        runner = CliRunner(env={"KEYTURN_GATEWAY_URL": self.url, **env})
        return await asyncio.to_thread(runner.invoke, root_for(words), [*words], input=text)


@pytest.fixture
async def keyturn(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Command]:
    door.clock[0] = time.time_ns() // 1_000_000
    monkeypatch.setattr(door.issuer, "_now", time.time)
    async with listening(door) as port:
        yield Command(door, tmp_path, port)


async def test_an_agent_asks_with_its_key_and_hears_where_it_lies(keyturn: Command) -> None:
    said = await keyturn(*ASKED, "--ttl", "60", "--ticket", "OPS-1")
    assert said.exit_code == 0, said.output
    [statement] = keyturn.door.book.said
    intent = statement.read(Intent)
    assert said.stdout == f"{intent.id}: on the log, at {keyturn.door.book.place_of('bot')}/1\n"
    assert (intent.subject.id, intent.ttl, intent.context.ticket) == ("bot", 60, "OPS-1")


async def test_a_person_asks_from_a_file_or_stdin_and_flags_win(keyturn: Command, tmp_path: Path) -> None:
    text = "action: {name: s3.copy, properties: {bucket: dev, count: 3}}\nresource: {type: bucket, id: dev}\nttl: 60\n"
    said = await keyturn(
        "submit", "-f", "-", "-p", "bucket=reports", "-p", "force:=true", "-q", person="ben", text=text
    )
    assert said.exit_code == 0, said.output
    intent = keyturn.door.book.said[0].read(Intent)
    assert said.stdout == f"{intent.id}\n"
    assert intent.action.properties == {"bucket": "reports", "count": 3, "force": True}
    assert (intent.subject.id, intent.resource.id, intent.ttl) == ("ben", "dev", 60)
    file = tmp_path / "intent.json"
    file.write_text(json.dumps({"action": {"name": "s3.copy"}, "resource": {"type": "bucket", "id": "x"}}))
    said = await keyturn("submit", "-f", str(file), "-p", "bucket=x", "--json", person="ben")
    assert json.loads(said.stdout)["id"].startswith("ben.")


@pytest.mark.parametrize(
    ("phase", "code"),
    [
        (Phase.SUCCEEDED, 0),
        (Phase.FAILED, 1),
        (Phase.DENIED, 3),
        (Phase.REFUSED, 3),
        (Phase.EXPIRED, 4),
    ],
)
async def test_wait_follows_it_to_its_end_and_the_exit_code_says_which(
    keyturn: Command, phase: Phase, code: int
) -> None:
    at = keyturn.door.clock[0]
    intent_id = ids.intent_id("bot", at, b"0123456789")
    doing = asyncio.create_task(keyturn(*ASKED, "--id", intent_id, "--wait"))
    while not keyturn.door.book.said:  # noqa: ASYNC110 - another thread asks
        await asyncio.sleep(0.01)
    intent = keyturn.door.book.said[0].read(Intent)
    keyturn.door.book.answer(intent, Phase.PENDING)
    await asyncio.sleep(0)
    more: dict[str, Any] = {"refusal": Refusal.OVERLOADED} if phase is Phase.REFUSED else {}
    keyturn.door.book.answer(intent, phase, reason="that is how it ended", **more)
    said = await doing
    assert said.exit_code == code, said.output
    assert f"{intent_id}: {phase.value}" in said.stdout.splitlines()[-1]
    assert "that is how it ended" in said.stdout


async def test_wait_gives_up_after_its_time_with_the_exit_code_for_try_again(keyturn: Command) -> None:
    said = await keyturn(*ASKED, "--wait", "--timeout", "0.2")
    assert (said.exit_code, "not ended yet" in said.stderr) == (75, True)


async def test_check_says_what_policy_would_say_and_writes_nothing(keyturn: Command) -> None:
    said = await keyturn(*ASKED, "--check")
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith("policy would ask 1 person: assurance channel")
    denied = await keyturn("submit", "s3.copy", "bucket/x", "-p", "bucket=locked", "--check", "--json", person="ben")
    assert (denied.exit_code, json.loads(denied.stdout)["rules"]) == (3, ["locked"])
    wrong = await keyturn("submit", "s3.copy", "bucket/x", "-p", "colour=red", "--check")
    assert wrong.exit_code == 3
    assert "/action/properties/colour: is not a parameter of this action" in wrong.stdout
    assert keyturn.door.book.said == []


async def test_what_is_wrong_is_one_calm_line_and_an_exit_code(keyturn: Command) -> None:
    wrong = await keyturn("submit", "s3.copy", "bucket/x", "-p", "colour=red")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "/action/properties/bucket: is missing" in wrong.stderr
    forbidden = await keyturn(*ASKED, person="jon")
    assert (forbidden.exit_code, "jon is not active" in forbidden.stderr) == (5, True)
    usage = await keyturn("submit", "nonsense", "bucket/x")
    assert usage.exit_code == 2
    twice = await keyturn(*ASKED, "-p", "bucket=other")
    assert twice.exit_code == 2
    keyturn.door.book.is_kafka_up = False
    assert (await keyturn(*ASKED)).exit_code == 75
    keyturn.url = "http://127.0.0.1:9"
    unreachable = await keyturn(*ASKED)
    assert (unreachable.exit_code, "cannot be reached" in unreachable.stderr) == (75, True)
    keyturn.url = "http://gateway.example"
    assert (await keyturn(*ASKED)).exit_code == 2


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (500, b'{"type":"urn:keyturn:problem:internal","detail":"something broke here"}', 75),
        (500, b"Internal Server Error", 75),
        (502, b"<html>502 Bad Gateway</html>", 75),
        (502, b'{"type":"urn:keyturn:problem:integrity","detail":"not signed by the core"}', 6),
        (503, b"", 75),
        (504, b"<html>504</html>", 75),
        (429, b"slow down", 75),
        (408, b"", 75),
        (401, b"<html>log in</html>", 5),
        (403, b'{"detail":"not you"}', 5),
        (404, b"<html>404</html>", 1),
        (302, b"", 1),
        (200, b"<html>hello</html>", 1),
        (202, b"[" * 5000, 1),
        (409, b'{"detail":"another body"}', 1),
    ],
)
async def test_what_a_proxy_or_a_broken_gateway_answers_has_the_exit_code_of_its_status(
    keyturn: Command, status: int, body: bytes, code: int
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        keyturn.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        said = await keyturn(*ASKED)
    assert (said.exit_code, said.stdout) == (code, ""), said.stderr
    assert len(said.stderr.splitlines()) == 1


async def test_a_token_that_cannot_be_had_is_a_usage_error_that_says_what_to_do(
    keyturn: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, why in (("missing", "No such file"), (".", "directory"), ("empty", "is empty"), ("binary", "not text")):
        runner = CliRunner(env={"KEYTURN_GATEWAY_URL": keyturn.url, "KEYTURN_TOKEN_FILE": str(tmp_path / name)})
        said = await asyncio.to_thread(runner.invoke, root_for(ASKED), list(ASKED))
        assert (said.exit_code, why in said.stderr, "access token" in said.stderr) == (2, True, True), said.stderr
    runner = CliRunner(env={"KEYTURN_GATEWAY_URL": keyturn.url})
    said = await asyncio.to_thread(runner.invoke, root_for(ASKED), list(ASKED))
    assert (said.exit_code, "KEYTURN_TOKEN_FILE" in said.stderr) == (2, True)


async def test_withdraw_takes_it_back_with_the_key_or_as_an_owner(keyturn: Command) -> None:
    await keyturn(*ASKED)
    intent = keyturn.door.book.said[0].read(Intent)
    said = await keyturn("withdraw", intent.id, "--reason", "a typing error")
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith(f"{intent.id}: the withdrawal is on the log, at ")
    assert keyturn.door.book.said[-1].read(Withdrawal).by.id == "bot"
    assert (await keyturn("withdraw", intent.id, person="ada")).exit_code == 0
    assert keyturn.door.book.said[-1].read(Withdrawal).by.id == "ada"
    stranger = await keyturn("withdraw", intent.id, person="eve")
    assert (stranger.exit_code, "no intent of yours" in stranger.stderr) == (1, True)
    assert (await keyturn("withdraw", "nonsense")).exit_code == 2
    doing = asyncio.create_task(keyturn("withdraw", intent.id, "--wait"))
    await asyncio.sleep(0)
    keyturn.door.book.answer(intent, Phase.WITHDRAWN)
    assert (await doing).exit_code == 0
