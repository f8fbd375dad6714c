"""A setting that cannot be used is named by its variable, on one line."""

import base64
import subprocess
from pathlib import Path

import pytest

from broker.intake.process import IntakeSettings
from sandbox.roles import environment, keyturn
from schemas.signing import keyid_of
from streams.settings import Settings, SettingsError, of_environment, read_signer

ROOT = base64.b64encode(bytes(32)).decode()
GIVEN = {
    "KEYTURN_REALM": "acme",
    "KEYTURN_KAFKA": "127.0.0.1:1",
    "KEYTURN_KAFKA_USERNAME": "core",
    "KEYTURN_KAFKA_PASSWORD": "secret",
    "KEYTURN_ROOT_KEYS": ROOT,
}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("KEYTURN_REALM", "No Name"),
        ("KEYTURN_PREFIX", "no-dot"),
        ("KEYTURN_KAFKA", "127.0.0.1"),
        ("KEYTURN_KAFKA", "one:1, two:2"),
        ("KEYTURN_KAFKA", ""),
        ("KEYTURN_KAFKA_SECURITY", "PLAINTEXT"),
        ("KEYTURN_KAFKA_USERNAME", ""),
        ("KEYTURN_ROOT_KEYS", ""),
        ("KEYTURN_ROOT_KEYS", "not base64"),
        ("KEYTURN_ROOT_KEYS", f"{ROOT},{base64.b64encode(bytes(31)).decode()}"),
        ("KEYTURN_INSTANCE", "No Instance"),
        ("KEYTURN_HEALTH", "99999"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_name_of_its_variable(variable: str, text: str) -> None:
    run = subprocess.run(  # noqa: S603
        keyturn("run", "core"), env=environment(GIVEN | {variable: text}), capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith("keyturn: ")
    assert variable in run.stderr
    assert "secret" not in run.stderr


def test_a_role_without_a_password_is_told_which_variable_it_lacks() -> None:
    given = {name: text for name, text in GIVEN.items() if name != "KEYTURN_KAFKA_PASSWORD"}
    run = subprocess.run(  # noqa: S603
        keyturn("run", "core"), env=environment(given), capture_output=True, text=True, check=False
    )
    assert "KEYTURN_KAFKA_PASSWORD_FILE" in run.stderr


def test_what_intake_alone_is_told_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_INTAKE_SWEEP_SECONDS", "never")
    with pytest.raises(SettingsError, match=r"^KEYTURN_INTAKE_SWEEP_SECONDS: [^\n]+$"):
        of_environment(IntakeSettings)
    monkeypatch.setenv("KEYTURN_INTAKE_SWEEP_SECONDS", "2.5")
    assert of_environment(IntakeSettings).sweep_seconds == 2.5


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    given = {name.removeprefix("KEYTURN_").lower(): text for name, text in GIVEN.items()}
    missing, garbage = tmp_path / "missing", tmp_path / "garbage"
    garbage.write_bytes(b"\xff\xfe")
    for file in (missing, garbage):
        settings = Settings.model_validate(given | {"kafka_password_file": file, "key_file": file})
        with pytest.raises(SettingsError, match=f"KEYTURN_KAFKA_PASSWORD_FILE: .*{file}"):
            _ = settings.password
        with pytest.raises(SettingsError, match=f"KEYTURN_KEY_FILE: .*{file}"):
            settings.signer()
    garbage.write_text("too short")
    with pytest.raises(SettingsError, match="expected the base64 of 32 bytes"):
        read_signer(garbage)
    with pytest.raises(SettingsError, match="KEYTURN_KEY_FILE is not set"):
        Settings.model_validate(given).signer()


def test_pinned_keys_are_known_by_their_ids() -> None:
    other = base64.b64encode(bytes(range(32))).decode()
    given = {name.removeprefix("KEYTURN_").lower(): text for name, text in GIVEN.items()}
    settings = Settings.model_validate(given | {"root_keys": f" {ROOT}, {other},"})
    assert settings.roots == ((keyid_of(bytes(32)), ROOT), (keyid_of(bytes(range(32))), other))
    assert "secret" not in repr(settings)
