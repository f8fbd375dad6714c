"""The `keyturn` command: help, errors, and what init, topics and the documents say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli.main
from cli.main import MOUNTS, StrangerError, require_own_rooms, root_for, run
from tests.administration.conftest import NewRealm

HOME = Path(cli.main.__file__).resolve().parents[1]
WORDS = [word for mount in MOUNTS for word in mount.words]


def invoke(*words: object, code: int = 0, env: dict[str, str] | None = None) -> str:
    arguments = [str(word) for word in words]
    result = CliRunner().invoke(root_for(arguments), arguments, env=env, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["keyturn", *map(str, words)])
    run()


def test_help_names_every_word_and_imports_none_of_their_modules() -> None:
    script = (
        "import sys; from cli.main import root_for; from typer.testing import CliRunner\n"
        "print(CliRunner().invoke(root_for(['--help']), ['--help']).output)\n"
        "heavy = {'aiokafka', 'confluent_kafka', 'pydantic', 'fastapi', 'faust', 'schemas', 'streams'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
    assert all(word in done.stdout for word in WORDS)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_that_help_names_is_there_with_help_of_its_own(word: str) -> None:
    assert "Usage" in invoke(word, "--help")


def test_the_version_is_the_distributions() -> None:
    assert invoke("--version").startswith("keyturn 0.")


def test_an_unknown_word_is_told_what_was_meant() -> None:
    assert "topics" in invoke("topcs", code=2)


def test_an_error_of_ours_is_one_line_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "topics", "check", "--dir", tmp_path)
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("keyturn: ")
    assert said.count("\n") == 1


def test_with_keyturn_debug_an_error_shows_where_it_was_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEYTURN_DEBUG", "1")
    with pytest.raises(Exception, match="keyturn init"):
        command(monkeypatch, "topics", "check", "--dir", tmp_path)


def test_settings_that_are_missing_are_named_as_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KEYTURN_DIR", raising=False)
    monkeypatch.setenv("KEYTURN_REALM", "No Name")
    with pytest.raises(SystemExit):
        command(monkeypatch, "directory", "show")
    said = capsys.readouterr().err
    assert "KEYTURN_REALM: " in said
    assert "KEYTURN_ROOT_KEYS: " in said


def test_the_rooms_of_this_tree_are_ours() -> None:
    require_own_rooms(HOME)


def test_a_strangers_package_in_the_place_of_a_room_stops_the_command(tmp_path: Path) -> None:
    with pytest.raises(StrangerError, match="`json` is "):
        require_own_rooms(HOME, ["cli", "json"])
    with pytest.raises(StrangerError, match="not there"):
        require_own_rooms(HOME, ["keyturn_no_such_room"])
    with pytest.raises(StrangerError, match="environment of its own"):
        require_own_rooms(tmp_path)


def test_init_prints_the_fingerprint_and_a_second_time_makes_nothing(tmp_path: Path) -> None:
    words = ("init", "--dir", tmp_path, "--realm", "acme", "--kafka", "k:1", "--agent", "bot", "--owner", "ada")
    first = invoke(*words)
    fingerprint = first[first.index("fingerprint") :].splitlines()[1].strip()
    assert len(fingerprint.replace(" ", "")) == 64
    second = invoke("init", "--dir", tmp_path)
    assert fingerprint in second
    assert "made" not in second


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--realm", "acme"], "kafka"),
        (["--realm", "Acme", "--kafka", "k:1"], "realm"),
        (["--realm", "acme", "--kafka", "k:1", "--agent", "bot"], "--owner"),
        (["--realm", "acme", "--kafka", "k:1", "--notifier", "pager"], "notifiers"),
    ],
)
def test_init_says_which_option_is_wrong(tmp_path: Path, words: list[str], why: str) -> None:
    assert why in invoke("init", "--dir", tmp_path, *words, code=2)
    assert not list(tmp_path.iterdir())


def test_from_nothing_to_documents_in_force(new_realm: NewRealm, tmp_path: Path) -> None:
    place = new_realm()
    password = tmp_path / "admin"
    password.write_text(place.admin.password + "\n")
    env = {
        "KEYTURN_DIR": str(place.folder),
        "KEYTURN_ADMIN_USERNAME": place.admin.username,
        "KEYTURN_ADMIN_PASSWORD_FILE": str(password),
    }
    assert "missing" in invoke("topics", "check", code=1, env=env)
    assert "create topic" in invoke("topics", "plan", env=env)
    assert "missing" not in invoke("topics", "apply", env=env)
    assert {fact["verdict"] for fact in json.loads(invoke("topics", "check", "--json", env=env))} == {"ok"}
    assert invoke("topics", "plan", env=env) == "nothing to do\n"

    assert "version 1 is in force" in invoke("directory", "apply", place.folder / "directory.yaml", env=env)
    assert "no change" in invoke("directory", "apply", place.folder / "directory.yaml", env=env)
    shown = json.loads(invoke("directory", "show", "--json", env=env))
    assert shown["directory"]["version"] == 1
    assert "# directory version 1" in invoke("directory", "show", env=env)
    assert json.loads(invoke("manifest", "apply", "--json", env=env))["is_new"] is True


def test_without_a_realm_it_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KEYTURN_DIR", "KEYTURN_REALM", "KEYTURN_KAFKA", "KEYTURN_ROOT_KEYS"):
        monkeypatch.delenv(name, raising=False)
    for words in (("quarantine", "ls"), ("audit", "verify"), ("directory", "show")):
        with pytest.raises(SystemExit) as caught:
            command(monkeypatch, *words)
        assert caught.value.code == 1
        assert "--dir DIR, or KEYTURN_DIR" in capsys.readouterr().err
