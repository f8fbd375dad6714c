"""What a client is told, and what it says when it was told too little."""

import base64
from pathlib import Path

import pytest

import keyturn
from keyturn import settings

SEED = bytes(range(32))
KEY = keyturn.Key.from_seed(SEED)
URL = "https://keyturn.example.com"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As `keyturn init` makes one."""
    for name in ("env", "keys", "passwords"):
        (tmp_path / name).mkdir()
    (tmp_path / "keys" / "agent-reporter.key").write_text(base64.b64encode(SEED).decode() + "\n")
    (tmp_path / "passwords" / "agent-reporter").write_text("secret\n")
    (tmp_path / "env" / "core.env").write_text("KEYTURN_REALM=acme\n")
    (tmp_path / "env" / "agent-reporter.env").write_text(
        "# agent-reporter of acme. Paths are relative to the folder above.\n"
        "KEYTURN_REALM=acme\nKEYTURN_AGENT=reporter\nKEYTURN_PREFIX=keyturn.\nKEYTURN_KAFKA=127.0.0.1:9092\n"
        "KEYTURN_KAFKA_SECURITY=SASL_PLAINTEXT\nKEYTURN_KAFKA_USERNAME=agent-reporter\n"
        "KEYTURN_KAFKA_PASSWORD_FILE=passwords/agent-reporter\nKEYTURN_KEY_FILE=keys/agent-reporter.key\n"
    )
    return tmp_path


def test_a_folder_says_everything_and_variables_do_not_mix_in(folder: Path) -> None:
    told = settings.read(folder, {"KEYTURN_TOKEN": "cho's", "KEYTURN_REALM": "staging", "KEYTURN_AGENT": "other"})

    assert (told.agent, told.realm, told.url, told.token) == ("reporter", "acme", None, None)
    assert told.signer is not None
    assert told.signer.keyid == KEY.keyid
    assert told.kafka is not None
    assert (told.kafka.username, told.kafka.password, told.kafka.prefix) == ("agent-reporter", "secret", "keyturn.")
    assert "secret" not in repr(told)


def test_the_gateway_goes_before_kafka_unless_told_otherwise(folder: Path) -> None:
    with (folder / "env" / "agent-reporter.env").open("a") as file:
        file.write(f"KEYTURN_GATEWAY_URL={URL}\n")

    assert settings.read(folder, {}).kafka is None
    assert settings.read(folder, {}).url == URL
    assert settings.read(folder, {}, over="kafka").kafka is not None


def test_variables_say_it_all_too(folder: Path) -> None:
    lines = (folder / "env" / "agent-reporter.env").read_text().splitlines()[1:]
    variables = dict(line.split("=", 1) for line in lines)
    for name in ("KEYTURN_KEY_FILE", "KEYTURN_KAFKA_PASSWORD_FILE"):
        variables[name] = str(folder / variables[name])

    by_variables, by_folder = settings.read(None, variables), settings.read(None, {"KEYTURN_DIR": str(folder)})
    assert (by_variables.agent, by_variables.kafka) == (by_folder.agent, by_folder.kafka)


def test_arguments_go_before_variables(tmp_path: Path) -> None:
    told = settings.read(URL, {"KEYTURN_REALM": "staging"}, agent="reporter", realm="acme", key=KEY)
    assert (told.url, told.agent, told.realm, told.kafka) == (URL, "reporter", "acme", None)

    servers = "a.example:9093,b.example:9093"
    told = settings.read(f"kafka://{servers}", {"KEYTURN_GATEWAY_URL": URL}, agent="reporter", realm="acme", key=KEY)
    assert told.url is None
    assert told.kafka is not None
    assert told.kafka.servers == servers

    told = settings.read(URL, {"KEYTURN_KEY_FILE": str(tmp_path / "gone")}, token=lambda: "fresh")
    assert told.signer is None


@pytest.mark.parametrize(
    ("target", "variables", "more", "says"),
    [
        (None, {}, {}, "sandbox up"),
        ("ftp://x", {}, {}, "not ftp://"),
        (URL, {}, {}, "nobody said who asks"),
        (URL, {}, {"key": KEY, "realm": "acme"}, "KEYTURN_AGENT"),
        (URL, {}, {"key": KEY, "agent": "Reporter", "realm": "acme"}, "Reporter"),
        (URL, {}, {"key": KEY, "agent": "reporter"}, "KEYTURN_REALM"),
        (URL, {}, {"key": "/nowhere/key", "agent": "reporter"}, "cannot be read"),
        ("kafka://a:1", {}, {"token": "t"}, "who writes to Kafka signs"),
        ("kafka://a", {}, {"key": KEY}, "host:port"),
        ("kafka://a:1", {"KEYTURN_KAFKA_SECURITY": "NONE"}, {"key": KEY}, "KEYTURN_KAFKA_SECURITY"),
        ("kafka://a:1", {"KEYTURN_KAFKA_PASSWORD_FILE": "/nowhere"}, {"key": KEY}, "KEYTURN_KAFKA_PASSWORD_FILE"),
        (URL, {}, {"token": "t", "over": "kafka"}, "KEYTURN_KAFKA"),
        ("kafka://a:1", {}, {"key": KEY, "over": "http"}, "KEYTURN_GATEWAY_URL"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    target: str | None, variables: dict[str, str], more: dict[str, object], says: str
) -> None:
    with pytest.raises(keyturn.ConfigurationError) as caught:
        settings.read(target, variables, **more)  # type: ignore[arg-type]

    assert says in str(caught.value)


def test_a_folder_without_agents_or_with_several_says_so(folder: Path, tmp_path: Path) -> None:
    (folder / "env" / "agent-second.env").write_text("KEYTURN_REALM=acme\n")
    with pytest.raises(keyturn.ConfigurationError, match="reporter, second"):
        settings.read(folder, {})
    assert settings.read(folder, {}, agent="reporter").agent == "reporter"
    with pytest.raises(keyturn.ConfigurationError, match="keyturn init"):
        settings.read(tmp_path / "empty", {})


def test_a_key_never_shows() -> None:
    assert base64.b64encode(SEED).decode() not in repr(KEY)
    assert KEY.keyid in repr(KEY)


def test_an_address_of_kafka_with_a_password_is_refused_and_not_quoted(folder: Path) -> None:
    with pytest.raises(keyturn.ConfigurationError, match="KEYTURN_KAFKA_PASSWORD_FILE") as caught:
        settings.read(
            "kafka://reporter:canary@kafka", {}, agent="reporter", realm="acme", key=folder / "keys/agent-reporter.key"
        )
    assert "canary" not in str(caught.value)


def test_a_gateway_without_its_scheme_is_told_to_have_one() -> None:
    with pytest.raises(keyturn.ConfigurationError, match="with its scheme"):
        settings.read("keyturn.example.com", {})
