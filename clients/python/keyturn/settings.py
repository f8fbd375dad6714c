"""What `connect` is told: by arguments, by an agent's folder, or by `KEYTURN_…` variables. Read once, then frozen.

    a URL            https://keyturn.example.com: the gateway; the rest from arguments and variables
                     kafka://host:9093,other:9093: Kafka itself
    a folder         as `keyturn init` or `keyturn sandbox up` makes it: `env/agent-<name>.env` in it, and nothing else
    nothing          KEYTURN_GATEWAY_URL or KEYTURN_KAFKA, or the folder in KEYTURN_DIR

| variable | says |
|---|---|
| KEYTURN_GATEWAY_URL | the gateway's base URL |
| KEYTURN_AGENT | who asks: the agent's name in the directory |
| KEYTURN_REALM | the installation: inside every signature |
| KEYTURN_KEY_FILE | the agent's Ed25519 seed, base64 |
| KEYTURN_TOKEN | instead of a key: a bearer token; the gateway then signs |
| KEYTURN_CA_FILE | PEM of the authority of the gateway's certificate |
| KEYTURN_KAFKA, KEYTURN_KAFKA_…, KEYTURN_PREFIX | Kafka itself, spelt as for every other role |
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from keyturn import ids
from keyturn.errors import ConfigurationError
from keyturn.kafka import KafkaLogin
from keyturn.signing import Key, Signer

PREFIX: Final = "KEYTURN_"
KAFKA_SCHEME: Final = "kafka://"
Over: TypeAlias = Literal["http", "kafka"]
TokenSource: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A bearer token, or what gives the one to use now: it is called before each request, so that it may be renewed."""
_SECURITIES: Final = ("SASL_SSL", "SASL_PLAINTEXT", "SSL")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a client is told."""

    #: The gateway, or None when it is Kafka itself.
    url: str | None
    kafka: KafkaLogin | None
    agent: str | None
    realm: str | None
    signer: Signer | None
    token: TokenSource | None = field(default=None, repr=False)
    authority: Path | None = None


def read(
    target: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
    *,
    agent: str | None = None,
    realm: str | None = None,
    key: Signer | str | os.PathLike[str] | None = None,
    token: TokenSource | None = None,
    over: Over | None = None,
) -> Settings:
    """The settings; ConfigurationError names what is missing and who gives it."""
    url, servers, folder = _target(target)
    told = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    if target is None and folder is None and not {"KEYTURN_GATEWAY_URL", "KEYTURN_KAFKA"} & told.keys():
        folder = Path(told["KEYTURN_DIR"]) if "KEYTURN_DIR" in told else None
        if folder is None:
            raise ConfigurationError(
                "nobody said where Keyturn is: connect('https://…'), connect('<folder>'), or set KEYTURN_GATEWAY_URL, "
                "KEYTURN_KAFKA or KEYTURN_DIR; `keyturn sandbox up` starts one on this machine and prints what to do"
            )
    if folder is not None:
        # A folder that was named says everything: variables meant for somebody else don't mix in.
        agent, told = _of_folder(folder, agent or told.get("KEYTURN_AGENT") if target is None else agent)
    url = url or (told.get("KEYTURN_GATEWAY_URL") if servers is None else None)
    servers = servers or told.get("KEYTURN_KAFKA")
    signer = _signer(key, told, token)
    settings = Settings(
        url=url,
        kafka=_login(servers, told) if servers and (over == "kafka" or url is None) else None,
        agent=agent or told.get("KEYTURN_AGENT"),
        realm=realm or told.get("KEYTURN_REALM"),
        signer=signer,
        token=token if token is not None else told.get("KEYTURN_TOKEN") if signer is None else None,
        authority=_path(told, "KEYTURN_CA_FILE"),
    )
    return _chosen(settings, over)


def _target(target: str | os.PathLike[str] | None) -> tuple[str | None, str | None, Path | None]:
    """(URL, Kafka's servers, folder): one of them, or none."""
    if target is None:
        return None, None, None
    text = os.fspath(target)
    if text.lower().startswith(("https://", "http://")):
        return text, None, None
    if text.startswith(KAFKA_SCHEME):
        return None, text.removeprefix(KAFKA_SCHEME).rstrip("/"), None
    if "://" in text:
        scheme = text.partition("://")[0]
        raise ConfigurationError(f"give https://… (a gateway), kafka://host:port, or a folder, not {scheme}://")
    return None, None, Path(text)


def _chosen(settings: Settings, over: Over | None) -> Settings:
    if over == "http" and settings.url is None:
        raise ConfigurationError("over='http' needs the gateway's URL: connect('https://…') or KEYTURN_GATEWAY_URL")
    if over == "kafka" and settings.kafka is None:
        raise ConfigurationError("over='kafka' needs Kafka's address: connect('kafka://host:port') or KEYTURN_KAFKA")
    if settings.signer is None and settings.token is None:
        raise ConfigurationError(
            "nobody said who asks: give key= (KEYTURN_KEY_FILE, as `keyturn init --agent` makes it) or token= "
            "(KEYTURN_TOKEN)"
        )
    if settings.signer is not None:
        if settings.agent is None or not ids.NAME.fullmatch(settings.agent):
            raise ConfigurationError(
                f"agent= (KEYTURN_AGENT) must be this agent's name in the directory, not {settings.agent!r}"
            )
        if settings.realm is None or not ids.NAME.fullmatch(settings.realm):
            raise ConfigurationError(
                f"realm= (KEYTURN_REALM) must name the installation, not {settings.realm!r}: it is inside every "
                "signature"
            )
    if settings.kafka is not None and settings.signer is None:
        raise ConfigurationError(
            "who writes to Kafka signs: give key= (KEYTURN_KEY_FILE), or connect to the gateway's URL"
        )
    return settings


def _of_folder(folder: Path, agent: str | None) -> tuple[str, dict[str, str]]:
    """The agent, and its variables with paths made absolute."""
    files = {path.stem.removeprefix("agent-"): path for path in sorted((folder / "env").glob("agent-*.env"))}
    if not files:
        raise ConfigurationError(
            f"{folder}/env holds no agent-<name>.env: is that the folder that `keyturn init --agent <name>` made? "
            "(`keyturn sandbox up` makes .keyturn.) A gateway is named with its scheme: https://…"
        )
    if agent is None and len(files) == 1:
        (agent,) = files
    if agent not in files:
        raise ConfigurationError(f"which agent? agent= must be one of {', '.join(files)}, as {folder}/env has them")
    lines = files[agent].read_text(encoding="utf-8").splitlines()
    told = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return agent, {
        name: str((folder / value).absolute()) if name.endswith("_FILE") else value for name, value in told.items()
    }


def _signer(
    key: Signer | str | os.PathLike[str] | None, told: Mapping[str, str], token: TokenSource | None
) -> Signer | None:
    if isinstance(key, str | os.PathLike):
        return Key.from_file(Path(key))
    if key is not None:
        return key
    if token is not None:
        return None
    file = _path(told, "KEYTURN_KEY_FILE")
    return Key.from_file(file) if file else None


def _login(servers: str, told: Mapping[str, str]) -> KafkaLogin:
    if "@" in servers:
        raise ConfigurationError(
            "Kafka's address holds no name and no password: KEYTURN_KAFKA_USERNAME and KEYTURN_KAFKA_PASSWORD_FILE do"
        )
    if not all(":" in server.strip("[]") for server in servers.split(",")):
        raise ConfigurationError(f"Kafka's address is host:port, several separated by commas, not {servers!r}")
    security = told.get("KEYTURN_KAFKA_SECURITY", "SASL_SSL")
    if security not in _SECURITIES:
        raise ConfigurationError(f"KEYTURN_KAFKA_SECURITY is one of {', '.join(_SECURITIES)}, not {security!r}")
    password = told.get("KEYTURN_KAFKA_PASSWORD")
    if (file := _path(told, "KEYTURN_KAFKA_PASSWORD_FILE")) is not None:
        try:
            password = file.read_text(encoding="utf-8").strip()
        except OSError as exc:
            raise ConfigurationError(f"KEYTURN_KAFKA_PASSWORD_FILE: {file}: {exc.strerror}") from exc
    return KafkaLogin(
        servers=servers,
        security=security,
        username=told.get("KEYTURN_KAFKA_USERNAME"),
        password=password,
        authority=_path(told, "KEYTURN_KAFKA_CA_FILE"),
        certificate=_path(told, "KEYTURN_KAFKA_CERTIFICATE_FILE"),
        prefix=told.get("KEYTURN_PREFIX", "keyturn."),
    )


def _path(told: Mapping[str, str], name: str) -> Path | None:
    return Path(told[name]) if told.get(name) else None
