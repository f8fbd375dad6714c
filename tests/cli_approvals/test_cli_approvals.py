"""The commands against the real application on loopback; the core behind it is the real one, on a list."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import typer
import uvicorn
from typer.testing import CliRunner

from cli import approvals
from notifiers.api.app import Approvals, make_app
from sandbox import issuer as oidc
from schemas.records import PendingApproval, Phase
from streams.http.oidc import Keys, Verifier
from streams.http.serving import Server
from tests.notifiers import stage
from tests.notifiers.conftest import AUDIENCE, make_issuer


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Live:
    """An API on a port, run by a thread of its own."""

    url: str
    desk: stage.MemoryDesk
    issuer: oidc.Issuer
    loop: asyncio.AbstractEventLoop
    folder: Path

    def on_loop(self, act: Callable[[], object]) -> None:
        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(5)

    def put(self, row: PendingApproval, *, is_verified: bool = True) -> None:
        self.on_loop(lambda: self.desk.put(row, is_verified=is_verified))

    def token(self, person: str, **more: object) -> str:
        return self.issuer.token_for(person, **more)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    issuer = make_issuer(folder, "ES256", now_ms())
    desk = stage.MemoryDesk(stage.world(issuer.url), itertools.count(now_ms(), 1))
    is_listening, ports = threading.Event(), []
    ended: list[Callable[[], None]] = []

    def listening(port: int) -> None:
        ports.append(port)
        is_listening.set()

    async def serve() -> None:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(oidc.make_app(issuer)))
        keys = Keys(issuer.url, http, time.monotonic)
        app = Approvals(
            desk,
            Verifier(issuer.url, AUDIENCE, keys, time.time),
            now=now_ms,
            monotonic=time.monotonic,
            keep_seconds=60,
        )
        config = uvicorn.Config(make_app(app), "127.0.0.1", 0, log_config=None, ws="none", lifespan="off")
        server = Server(config, listening)
        loop = asyncio.get_running_loop()
        loops.append(loop)

        def end() -> None:
            desk.close()
            server.should_exit = True

        ended.append(end)
        async with http:
            await server.serve()

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert is_listening.wait(10)
    yield Live(f"http://127.0.0.1:{ports[0]}", desk, issuer, loops[0], folder)
    loops[0].call_soon_threadsafe(ended[0])
    thread.join(10)
    assert not thread.is_alive()


@dataclass
class Cli:
    """The command line of one person."""

    live: Live
    row: PendingApproval

    @property
    def reference(self) -> str:
        assert self.row.question
        return f"{self.row.intent_id}@{self.row.question.digest[:12]}"

    def run(self, person: str, *arguments: str, url: str | None = None, token: str | None = None):
        root = typer.Typer()
        approvals.register(root)
        env = {
            "KEYTURN_API_URL": url or self.live.url,
            "KEYTURN_TOKEN": token if token is not None else self.live.token(person),
            "NO_COLOR": "1",
        }
        return CliRunner().invoke(root, list(arguments), env=env)


NUMBERS = itertools.count(1000)


@pytest.fixture
def cli(live: Live) -> Cli:
    at = now_ms()
    row = stage.pending(stage.intent(next(NUMBERS), at=at), at=at)
    live.desk.is_core_up = live.desk.is_kafka_up = True
    live.put(row)
    return Cli(live, row)


def test_a_yes_waits_for_the_core_and_says_what_it_said(cli: Cli) -> None:
    first = cli.run("ana", "approve", cli.reference)
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout == f"{cli.row.intent_id}: your yes counts; 1 of 2 seats filled\n"
    second = cli.run("ben", "approve", cli.reference)
    assert second.stdout == f"{cli.row.intent_id}: your yes counts; it is approved\n"


@pytest.mark.parametrize("person", ["dev", "cho"])
def test_whoever_may_not_approve_is_refused_by_the_core_and_exits_5(cli: Cli, person: str) -> None:
    before = len(cli.live.desk.said)
    result = cli.run(person, "approve", cli.reference)
    assert result.exit_code == approvals.FORBIDDEN
    assert result.stdout == ""
    assert "refused: " in result.stderr
    assert len(cli.live.desk.said) == before + 1


def test_a_no_needs_a_reason_and_ends_the_intent(cli: Cli) -> None:
    assert cli.run("ana", "deny", cli.reference).exit_code == 2
    result = cli.run("ana", "deny", cli.reference, "--reason", "not on a Friday")
    assert (result.exit_code, result.stdout) == (0, f"{cli.row.intent_id}: it is denied\n")
    again = cli.run("ben", "approve", cli.reference)
    assert again.exit_code == approvals.DENIED
    assert "it has ended already" in again.stderr


def test_a_yes_can_be_taken_back(cli: Cli) -> None:
    cli.run("ana", "approve", cli.reference)
    result = cli.run("ana", "revoke", cli.reference)
    assert (result.exit_code, result.stdout) == (0, f"{cli.row.intent_id}: it is revoked\n")


def test_after_the_deadline_it_exits_4(cli: Cli) -> None:
    late = cli.row.model_copy(update={"expires_at": cli.row.asked_at - 3_600_000})
    cli.live.put(late)
    assert cli.run("ana", "approve", cli.reference).exit_code == approvals.EXPIRED
    cli.live.put(late.model_copy(update={"phase": Phase.EXPIRED}))
    assert cli.run("ana", "approve", cli.reference).exit_code == approvals.EXPIRED


@pytest.mark.parametrize("asked", ["x", "bot.01HF7YAT000000000000000000", "bot.01HF7YAT000000000000000000@abc", "@"])
def test_a_yes_without_the_digits_of_the_question_is_a_usage_error(cli: Cli, asked: str) -> None:
    assert cli.run("ana", "approve", asked).exit_code == 2


def test_a_question_that_changed_since_it_was_read_is_not_answered(cli: Cli) -> None:
    before = len(cli.live.desk.said)
    result = cli.run("ana", "approve", f"{cli.row.intent_id}@{'0' * 12}")
    assert result.exit_code == approvals.ERROR
    assert f"keyturn show {cli.row.intent_id}" in result.stderr
    assert len(cli.live.desk.said) == before


def test_a_row_that_cannot_be_trusted_exits_6(cli: Cli) -> None:
    cli.live.put(cli.row, is_verified=False)
    for command in ("show", "approve"):
        result = cli.run("ana", command, cli.reference)
        assert result.exit_code == approvals.INTEGRITY
        assert result.stdout == ""


def test_when_the_core_is_slow_the_word_is_recorded_and_it_exits_75(cli: Cli) -> None:
    cli.live.desk.is_core_up = False
    result = cli.run("ana", "approve", cli.reference, "--wait", "0.2")
    assert result.exit_code == approvals.TEMPORARY
    assert "recorded" in result.stderr
    no_wait = cli.run("ben", "approve", cli.reference, "--no-wait")
    assert (no_wait.exit_code, no_wait.stdout) == (0, f"{cli.row.intent_id}: recorded; the core decides\n")
    cli.live.on_loop(cli.live.desk.decide)


def test_when_kafka_or_the_api_is_away_it_exits_75(cli: Cli) -> None:
    cli.live.desk.is_kafka_up = False
    assert cli.run("ana", "approve", cli.reference).exit_code == approvals.TEMPORARY
    assert cli.run("ana", "ls", url="http://127.0.0.1:1").exit_code == approvals.TEMPORARY


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"token": "not.a.token"}, 5),
        ({"token": ""}, 2),
        ({"token": "two words"}, 2),
        ({"url": "http://example.org"}, 2),
    ],
)
def test_a_token_that_is_refused_exits_5_and_a_setting_that_cannot_be_used_2(
    cli: Cli, arguments: dict[str, str], code: int
) -> None:
    result = cli.run("ana", "ls", **arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("keyturn: ")


def test_somebody_unknown_and_a_machine_exit_5(cli: Cli) -> None:
    assert cli.run("fay", "approve", cli.reference).exit_code == 5
    machine = cli.live.issuer.token_for_machine("ci")
    assert cli.run("ana", "approve", cli.reference, token=machine).exit_code == 5


def test_the_token_can_lie_in_a_file(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(cli.live.token("ana") + "\n")
    root = typer.Typer()
    approvals.register(root)
    env = {"KEYTURN_API_URL": cli.live.url, "KEYTURN_TOKEN_FILE": str(path), "KEYTURN_TOKEN": None}
    assert CliRunner().invoke(root, ["ls", "-q"], env=env).exit_code == 0
    assert CliRunner().invoke(root, ["ls"], env={**env, "KEYTURN_TOKEN_FILE": "/nowhere"}).exit_code == 2


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (500, b"Internal Server Error", 75),
        (502, b"<html>502 Bad Gateway</html>", 75),
        (503, b"", 75),
        (401, b"<html>log in</html>", 5),
        (404, b"<html>404</html>", 1),
        (200, b"<html>hello</html>", 1),
    ],
)
def test_what_a_proxy_answers_has_the_exit_code_of_its_status(cli: Cli, status: int, body: bytes, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + body)

        proxy = threading.Thread(target=answer)
        proxy.start()
        result = cli.run("ana", "ls", url=f"http://127.0.0.1:{server.getsockname()[1]}")
        proxy.join(60)
    assert (result.exit_code, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1


def test_ls_prints_one_line_a_row_that_can_be_copied_into_approve(cli: Cli) -> None:
    lines = cli.run("ana", "ls").stdout.splitlines()
    assert f"{cli.reference}  pending  high  0/2 seats  s3.delete_prefix on bucket arn:aws:s3:::prod-logs" in lines
    assert cli.row.intent_id in cli.run("ana", "ls", "-q").stdout.splitlines()
    listed = json.loads(cli.run("ana", "ls", "--json").stdout)
    assert cli.row.intent_id in [line["id"] for line in listed]
    assert json.loads(cli.run("ana", "ls", "--phase", "unknown", "--json").stdout) == []


def test_show_prints_the_card_and_tells_apart_who_may(cli: Cli) -> None:
    result = cli.run("ana", "show", cli.row.intent_id)
    assert result.exit_code == 0
    assert "s3.delete_prefix on bucket arn:aws:s3:::prod-logs" in result.stdout
    assert "\x1b" not in result.stdout
    assert f"keyturn approve {cli.reference}" in result.stderr
    assert "nobody approves for themselves" in cli.run("dev", "show", cli.row.intent_id).stderr
    shown = json.loads(cli.run("ana", "show", cli.row.intent_id, "--json").stdout)
    assert shown["card"]["question"] == cli.row.question.digest


def test_show_of_nothing_known_is_an_error(cli: Cli) -> None:
    result = cli.run("ana", "show", stage.intent_id(77))
    assert (result.exit_code, result.stdout) == (1, "")


def test_json_is_one_value_with_the_cores_answer(cli: Cli) -> None:
    result = cli.run("ana", "approve", cli.reference, "--json")
    told = json.loads(result.stdout)
    assert (told["answer"]["state"], told["answer"]["phase"]) == ("taken", "pending")
    refused = cli.run("dev", "approve", cli.reference, "--json")
    assert refused.exit_code == approvals.FORBIDDEN
    assert json.loads(refused.stdout)["answer"]["refusal"] == "self_approval"


def test_quiet_says_nothing_but_its_exit_code(cli: Cli) -> None:
    result = cli.run("ana", "approve", cli.reference, "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_a_notifier_that_may_not_vouch_for_the_login_says_so_and_waits_for_nobody(cli: Cli) -> None:
    before = cli.live.desk.world
    known = before.directory
    assert known
    keys = tuple(key.model_copy(update={"providers": ()}) if key.role == "notifier" else key for key in known.keys)
    cli.live.desk.world = replace(before, directories=(known.model_copy(update={"keys": keys}),))
    try:
        # Were it to wait for an answer, the test would time out.
        result = cli.run("ana", "approve", cli.reference, "--wait", "3600")
    finally:
        cli.live.desk.world = before
    assert result.exit_code == approvals.FORBIDDEN
    assert "`providers` of the notifier's key in the directory" in result.stderr


def test_what_was_found_out_about_an_unknown_is_said_with_the_grants_digits(cli: Cli) -> None:
    row = stage.unknown(now_ms())
    cli.live.put(row)
    assert row.grant
    wrong = cli.run("ana", "resolve", f"{row.intent_id}@{'0' * 12}", "--found", "failed", "--reason", "looked")
    assert wrong.exit_code == approvals.ERROR
    asked = f"{row.intent_id}@{row.grant.digest[:12]}"
    assert f"keyturn resolve {asked}" in cli.run("ana", "show", row.intent_id).stderr
    assert "nobody approves for themselves" in cli.run("dev", "show", row.intent_id).stderr
    result = cli.run("ana", "resolve", asked, "--found", "failed", "--reason", "looked")
    assert (result.exit_code, result.stdout) == (0, f"{row.intent_id}: it is failed\n")


def test_watching_one_intent_ends_with_it(cli: Cli) -> None:
    denied = cli.row.model_copy(update={"phase": Phase.DENIED, "reason": "not on a Friday"})
    other = threading.Thread(target=lambda: cli.live.put(denied))
    other.start()
    result = cli.run("ana", "watch", cli.row.intent_id)
    other.join(10)
    assert result.exit_code == approvals.DENIED
    assert result.stdout.splitlines()[-1] == f"{cli.row.intent_id}: denied, not on a Friday"


def test_the_phases_of_the_command_line_are_those_of_the_records() -> None:
    assert {name.value for name in approvals.PhaseName} == {phase.value for phase in Phase}
