"""docs/settings.md says what the models say, and no secret is shown by an error, a traceback or a repr."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from pydantic import BaseModel

from cli import settings_reference
from executors.aws.client import Account
from executors.contract import ExecutorError
from streams.settings import Settings

SECRET = "hunter2-is-no-password"
GOOD = {
    "KEYTURN_REALM": "acme",
    "KEYTURN_KAFKA": "kafka:9092",
    "KEYTURN_ROOT_KEYS": "A" * 43 + "=",
    "KEYTURN_KAFKA_USERNAME": "core",
    "KEYTURN_KAFKA_PASSWORD": SECRET,
    "KEYTURN_ADMIN_PASSWORD": SECRET,
    "KEYTURN_TOKEN": f"{SECRET} with blanks",
    "KEYTURN_S3_SECRET_KEY": SECRET,
}


def test_the_page_is_what_the_models_say() -> None:
    assert settings_reference.PAGE.read_text(encoding="utf-8") == settings_reference.page(), "run `make contract`"


def test_every_setting_says_what_it_is_for() -> None:
    for line in settings_reference.page().splitlines():
        if line.startswith("| `KEYTURN_"):
            assert line.rstrip(" |").split("|")[-1].strip(), line


def test_every_secret_can_come_from_a_file() -> None:
    lines = [line for line in settings_reference.page().splitlines() if line.startswith("| `KEYTURN_")]
    variables = {line.split("`")[1] for line in lines}
    secrets = {line.split("`")[1] for line in lines if line.split("|")[2].strip() == "secret"}
    assert len(secrets) >= 4
    assert {f"{name}_FILE" for name in secrets} <= variables


WRONG: tuple[dict[str, str | None], ...] = (
    {"KEYTURN_ROOT_KEYS": None},
    {"KEYTURN_KAFKA": "nowhere"},
    {"KEYTURN_KAFKA_USERNAME": None},
    {"KEYTURN_KAFKA_SECURITY": "PLAINTEXT"},
    {"KEYTURN_ROOT_KEYS": "none"},
    {"KEYTURN_HEALTH": "-1"},
)


@pytest.mark.parametrize("wrong", WRONG, ids="-".join)
def test_no_settings_error_shows_a_secret_not_even_with_its_traceback(
    wrong: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**GOOD, **wrong}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as told:
        Settings()  # type: ignore[call-arg] # the environment fills them
    assert SECRET not in "".join(traceback.format_exception(told.value))


def test_every_settings_model_hides_what_it_was_given() -> None:
    for place in settings_reference.classes():
        assert settings_reference.model_of(place).model_config.get("hide_input_in_errors"), place


def test_no_command_shows_a_secret_when_it_fails(tmp_path: Path) -> None:
    code = "from cli.main import run; import sys; sys.argv = ['keyturn', 'audit', 'tail']; run()"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    wrong = {"KEYTURN_KAFKA": "127.0.0.1:1", "KEYTURN_KAFKA_SECURITY": "SASL_PLAINTEXT", "KEYTURN_DEBUG": "1"}
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code],
        env={**kept, **GOOD, **wrong},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "127.0.0.1:1" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_no_settings_object_prints_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    from notifiers.api.client import ClientSettings
    from streams.administration import AdminSettings

    made: list[BaseModel] = [Settings(), AdminSettings(), ClientSettings()]  # type: ignore[call-arg] # the environment fills them
    for settings in made:
        assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()


def test_an_executors_secret_comes_from_its_file_and_is_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    given = {"region": "eu-west-1", "access_key": "AKIA", "secret_key_file": str(file)}
    account = Account.parse("s3", given, {})
    assert account.base is not None
    assert account.base.secret_key == SECRET
    assert SECRET not in repr(account)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"access_key": "AKIA"}, "KEYTURN_S3_SECRET_KEY_FILE"),
        ({"secret_key": SECRET}, "KEYTURN_S3_ACCESS_KEY"),
        ({"access_key": "AKIA", "secret_key_file": "/nowhere"}, "KEYTURN_S3_SECRET_KEY_FILE: /nowhere"),
    ],
)
def test_half_a_login_is_told_by_name_and_without_the_secret(given: dict[str, str], says: str) -> None:
    with pytest.raises(ExecutorError) as told:
        Account.parse("s3", {"region": "eu-west-1"} | given, {})
    assert says in str(told.value)
    assert SECRET not in str(told.value)
