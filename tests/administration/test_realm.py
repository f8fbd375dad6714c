import base64
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas import signing
from streams.administration import AdminSettings, ProvisioningError, settings_of
from streams.realm import Realm, RealmError, RealmFolder, lay_out, settings_for
from streams.settings import Settings

REALM = Realm(realm="acme", kafka="localhost:9092", executors=("s3",), agents=("bot",))


def counted() -> object:
    """Entropy that a test can foretell: every byte of the nth piece is n."""
    pieces = iter(range(1, 256))
    return lambda size: bytes([next(pieces)]) * size


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_role_gets_a_key_a_password_and_its_variables(tmp_path: Path) -> None:
    laid = lay_out(tmp_path, REALM, ["ada"], counted())  # type: ignore[arg-type]
    roles = {"gateway", "intake", "core", "notary", "roster", "operator", "executor-s3", "notifier-api", "agent-bot"}
    assert {path.stem for path in (tmp_path / "keys").glob("*.key")} == roles | {"root"}
    assert {path.name for path in (tmp_path / "passwords").iterdir()} == roles | {"auditor", "administration"}
    assert {path.stem for path in (tmp_path / "env").iterdir()} == roles | {"auditor", "administration"}
    assert set(laid.created) == set(contents(tmp_path))


def test_keys_are_the_base64_of_fresh_seeds_and_no_two_are_alike(tmp_path: Path) -> None:
    lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    seeds = [base64.b64decode(path.read_text().strip(), validate=True) for path in (tmp_path / "keys").glob("*.key")]
    assert all(len(seed) == 32 for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    passwords = [path.read_text().strip() for path in (tmp_path / "passwords").iterdir()]
    assert len(set(passwords)) == len(passwords)
    assert all(len(password) == 32 for password in passwords)


def test_secrets_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keyturn"
    lay_out(folder, REALM, [], counted())  # type: ignore[arg-type]
    for path in (*folder.glob("keys/*.key"), *folder.glob("passwords/*"), *folder.glob("env/*")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    first = lay_out(tmp_path, REALM, ["ada"], counted())  # type: ignore[arg-type]
    (tmp_path / "directory.yaml").write_text("edited: by hand\n")
    before = contents(tmp_path)
    again = lay_out(tmp_path, REALM, ["grace"], lambda size: b"\xff" * size)
    assert contents(tmp_path) == before
    assert again.created == ()
    assert again.fingerprint == first.fingerprint


def test_what_is_lost_is_made_again_and_the_rest_kept(tmp_path: Path) -> None:
    lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    before = contents(tmp_path)
    (tmp_path / "passwords" / "core").unlink()
    laid = lay_out(tmp_path, REALM, [], lambda size: b"\xff" * size)
    assert laid.created == ("passwords/core",)
    assert {name: data for name, data in contents(tmp_path).items() if name != "passwords/core"} == {
        name: data for name, data in before.items() if name != "passwords/core"
    }


def test_a_realm_grows_by_executors_notifiers_and_agents(tmp_path: Path) -> None:
    lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    more = Realm(realm="acme", kafka="localhost:9092", executors=("iam",), notifiers=("slack",))
    laid = lay_out(tmp_path, more, [], lambda size: b"\xfe" * size)
    assert {name for name in laid.created if name.startswith("env/")} == {
        "env/executor-iam.env",
        "env/notifier-slack.env",
    }
    grown = RealmFolder(tmp_path).realm()
    assert (grown.executors, grown.notifiers, grown.agents) == (("s3", "iam"), ("api", "slack"), ("bot",))


@pytest.mark.parametrize("other", [{"realm": "beta"}, {"kafka": "elsewhere:9092"}, {"partitions": 4}, {"prefix": "x."}])
def test_anything_else_of_a_realm_is_refused_a_change(tmp_path: Path, other: dict[str, object]) -> None:
    lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    before = contents(tmp_path)
    changed = Realm.model_validate({"realm": "acme", "kafka": "localhost:9092"} | other)
    with pytest.raises(RealmError, match=f"realm.yaml says {next(iter(other))}"):
        lay_out(tmp_path, changed, [], counted())  # type: ignore[arg-type]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"executors": ["s3", "s3"]},
        {"executors": ["x" * 55]},
        {"notifiers": ["pager"]},
        {"replication_factor": 1},
        {"partitions": 0},
        {"prefix": "no-dot"},
        {"surprise": 1},
    ],
)
def test_a_realm_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Realm.model_validate({"realm": "acme", "kafka": "localhost:9092"} | wrong)


def test_settings_of_a_role_come_whole_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid = lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    settings = settings_for(tmp_path, "core")
    assert settings.realm == "acme"
    assert settings.kafka_username == "core"
    assert settings.password == (tmp_path / "passwords" / "core").read_text().strip()
    assert settings.signer().public == (tmp_path / "keys" / "core.pub").read_text().strip()
    assert settings.roots == ((signing.keyid_of(base64.b64decode(laid.root_public)), laid.root_public),)
    assert settings_for(tmp_path, "administration").signer().public == laid.root_public
    assert settings_for(tmp_path, "auditor").key_file is None


def test_a_variable_of_the_process_wins_over_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    monkeypatch.setenv("KEYTURN_KAFKA", "elsewhere:9092")
    assert settings_for(tmp_path, "core").kafka == "elsewhere:9092"


def test_a_role_nobody_made_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    with pytest.raises(RealmError, match="executor-s3"):
        settings_for(tmp_path, "executor-iam")


def test_a_folder_that_init_did_not_make_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RealmError, match="keyturn init"):
        RealmFolder(tmp_path).realm()


def test_without_a_folder_the_environment_alone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "realm": "acme",
        "kafka": "k:1",
        "kafka_username": "core",
        "kafka_password": "p",
        "root_keys": "A" * 43 + "=",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"KEYTURN_{name.upper()}", value)
    assert settings_for(None, "core") == Settings.model_validate(told)


def test_with_client_certificates_nobody_has_a_password(tmp_path: Path) -> None:
    realm = Realm(realm="acme", kafka="k:1", kafka_security="SSL")
    lay_out(tmp_path, realm, [], counted())  # type: ignore[arg-type]
    assert not (tmp_path / "passwords").exists()
    assert settings_for(tmp_path, "core").kafka_certificate_file == tmp_path / "certificates" / "core.pem"


def test_the_administrator_is_named_by_variables_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, REALM, [], counted())  # type: ignore[arg-type]
    home, password = RealmFolder(tmp_path), tmp_path / "admin"
    for name in ("USERNAME", "PASSWORD", "PASSWORD_FILE", "CERTIFICATE_FILE"):
        monkeypatch.delenv(f"KEYTURN_ADMIN_{name}", raising=False)
    assert AdminSettings().admin() is None
    assert settings_of(home, None).kafka_username == "administration"

    password.write_text("secret\n")
    monkeypatch.setenv("KEYTURN_ADMIN_USERNAME", "super")
    monkeypatch.setenv("KEYTURN_ADMIN_PASSWORD_FILE", str(password))
    settings = settings_of(home, AdminSettings().admin())
    assert (settings.kafka_username, settings.password) == ("super", "secret")
    assert settings.signer().public == home.signer("root").public
    assert "secret" not in repr(settings)
    assert "secret" not in repr(AdminSettings().admin())

    password.unlink()
    with pytest.raises(ProvisioningError, match="KEYTURN_ADMIN_PASSWORD_FILE"):
        AdminSettings().admin()
    monkeypatch.setenv("KEYTURN_ADMIN_CERTIFICATE_FILE", str(tmp_path / "admin.pem"))
    assert settings_of(home, AdminSettings().admin()).kafka_certificate_file == tmp_path / "admin.pem"
