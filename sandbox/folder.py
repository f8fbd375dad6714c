"""What lies in a sandbox's directory. It is a realm's folder, as `keyturn init` makes it, with the services beside it.

    sandbox.json      says that this is a sandbox's, and of which story; without it nothing here is touched or removed
    ports.json        chosen once, kept for good
    applied.json      what was brought into force from which text, so that a restart does nothing twice
    realm.yaml keys/ passwords/ env/ state/      the realm's
    directory.yaml roster.yaml policy.cedar iam.cedar infra.cedar catalog.yaml   the story, to be changed by hand
    kafka/ s3/ issuer/ aws/   the services'
    logs/ run/        of all services and roles together

So every command of `keyturn` works with `--dir` on it.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sandbox import ports, story
from sandbox.errors import SandboxError, StaleDirectoryError
from sandbox.issuer import IssuerConfiguration, Machine, PersonLogin
from sandbox.pidfile import PidFile, Running
from sandbox.supervise import Places
from streams.realm import RealmFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

SECRET_BYTES = 18
PORTS = 4
TOKEN_SECONDS = 3600
"""As long as a login counts as fresh."""
SERVICES = ("kafka", "s3-store", "s3-proxy", "issuer")
"""The children that are no roles, in every sandbox."""
AWS = "aws"
"""One more, in a sandbox that has a local AWS."""
ISSUER_PAGE = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class KeptPorts:
    """Where the sandbox is met; Kafka keeps its own."""

    s3: int
    issuer: int
    api: int
    gateway: int


@dataclass(frozen=True)
class SandboxFolder:
    """The files of one sandbox."""

    path: Path

    @property
    def marker(self) -> Path:
        """Says whose this is."""
        return self.path / "sandbox.json"

    @property
    def places(self) -> Places:
        """Logs and pid files of everything that runs here."""
        return Places.under(self.path)

    @property
    def realm(self) -> RealmFolder:
        """The realm in it."""
        return RealmFolder(self.path)

    @property
    def issuer_file(self) -> Path:
        """What the issuer is started with."""
        return self.path / "issuer" / "issuer.json"

    @property
    def pid_file(self) -> PidFile:
        """Of the process that runs the services."""
        return PidFile(self.places.run / "sandbox.pid")

    @property
    def is_ours(self) -> bool:
        """Whether this is a sandbox's directory, of whatever version."""
        return self.marker.exists()

    @property
    def is_told(self) -> bool:
        """Whether the story's documents are there, all of them: the roster is written last."""
        return (self.path / "roster.yaml").exists()

    @property
    def has_aws(self) -> bool:
        """Whether this sandbox was begun with a local AWS."""
        return self.aws_policy.exists()

    @property
    def aws_policy(self) -> Path:
        """The rules for rights in it."""
        return self.path / "iam.cedar"

    @property
    def stacks_policy(self) -> Path:
        """The rules for stacks in it."""
        return self.path / "infra.cedar"

    @property
    def aws_port(self) -> int:
        """Where the local AWS was met last; OSError or ValueError while it never was."""
        return int(json.loads((self.path / AWS / "server.json").read_text(encoding="utf-8"))["port"])

    @property
    def services(self) -> tuple[str, ...]:
        """The children of this sandbox that are no roles."""
        return (*SERVICES, AWS) if self.has_aws else SERVICES

    def running(self) -> Running | None:
        """Find the process that runs this sandbox."""
        return self.pid_file.running()

    def require(self) -> None:
        """StaleDirectoryError unless this is a sandbox of this version's."""
        try:
            found = json.loads(self.marker.read_text(encoding="utf-8"))["story"]
        except FileNotFoundError as error:
            raise StaleDirectoryError(
                f"{self.path} is no sandbox's: there is no {self.marker.name} in it. Name another one with --dir, or "
                "start one there with `keyturn sandbox up`."
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise StaleDirectoryError(
                f"{self.marker} is unreadable ({error!r}): `keyturn sandbox reset` removes it."
            ) from error
        if found != story.VERSION:
            raise StaleDirectoryError(
                f"{self.path} tells story {found}, and this is {story.VERSION}: `keyturn sandbox reset` removes it."
            )

    def open(self) -> None:
        """Make this directory a sandbox's if it is new; StaleDirectoryError if it is somebody else's."""
        if not self.marker.exists():
            if self.path.exists() and any(not _is_unfinished(entry) for entry in self.path.iterdir()):
                raise StaleDirectoryError(
                    f"{self.path} holds files, but no {self.marker.name}: it is no sandbox's, and nothing in it was "
                    "touched. Name a new directory with --dir."
                )
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            write(self.marker, json.dumps({"story": story.VERSION}) + "\n")
        self.require()

    def ports(self) -> KeptPorts:
        """Read where the sandbox is met. SandboxError while it has never been started."""
        try:
            return KeptPorts(**json.loads((self.path / "ports.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SandboxError(
                f"the sandbox in {self.path} was never started to the end: `keyturn sandbox up --dir {self.path}`."
            ) from error

    def keep_ports(self, taken: Collection[int], token: Callable[[int], bytes]) -> KeptPorts:
        """Read where the sandbox is met, or choose it if nobody has: free ports that are none of `taken`."""
        path = self.path / "ports.json"
        if not path.exists():
            free = [port for port in ports.choose(PORTS + len(taken), token) if port not in taken]
            write(path, json.dumps(asdict(KeptPorts(*free[:PORTS])), indent=2) + "\n")
        return self.ports()

    def keep_issuer(self, port: int, token: Callable[[int], bytes]) -> IssuerConfiguration:
        """Read who can log in, or give everybody in the story a secret."""

        def secret() -> str:
            return token(SECRET_BYTES).hex()

        if not self.issuer_file.exists():
            made = IssuerConfiguration(
                port=port,
                folder=self.issuer_file.parent,
                life_seconds=TOKEN_SECONDS,
                persons=tuple(PersonLogin(name=each.id, sub=each.subject, secret=secret()) for each in story.PERSONS),
                machines=(Machine(client_id=story.AGENT, secret=secret()),),
            )
            self.issuer_file.parent.mkdir(exist_ok=True, mode=0o700)
            write(self.issuer_file, made.model_dump_json(indent=2) + "\n")
        return self.issuer()

    def issuer(self) -> IssuerConfiguration:
        """Read who can log in."""
        try:
            return IssuerConfiguration.model_validate_json(self.issuer_file.read_bytes())
        except FileNotFoundError as error:
            raise SandboxError(
                f"the sandbox in {self.path} has no issuer yet: `keyturn sandbox up --dir {self.path}`."
            ) from error

    def tell(self, role: str, variables: Mapping[str, str]) -> None:
        """Add variables to a role's environment file, as its operator would; those that are there get the new value."""
        file = self.path / "env" / f"{role}.env"
        before = file.read_text(encoding="utf-8")
        lines = [line for line in before.splitlines() if line.partition("=")[0] not in variables]
        after = "\n".join([*lines, *(f"{name}={value}" for name, value in variables.items()), ""])
        if after != before:
            write(file, after)

    def applied(self) -> dict[str, str]:
        """Digests of the texts that are in force."""
        try:
            found = json.loads((self.path / "applied.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def keep_applied(self, applied: Mapping[str, str]) -> None:
        """Remember what is in force."""
        write(self.path / "applied.json", json.dumps(dict(applied), indent=2) + "\n")


def url(port: int) -> str:
    """Say where a port on this machine is met over HTTP."""
    return f"http://{ports.LOOPBACK}:{port}"


def _is_unfinished(path: Path) -> bool:
    """Whether this is what `write` leaves behind when it is killed."""
    return path.name.startswith(".new-")


def write(path: Path, text: str) -> None:
    """Write a file for this user alone, whole or not at all."""
    aside = path.with_name(f".new-{path.name}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    aside.replace(path)
