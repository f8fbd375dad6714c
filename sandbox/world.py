"""A whole Keyturn environment on one machine: Kafka, an S3, an issuer of logins, and a realm provisioned on them.

The laws:
1. What production's administration does is done by production's code: this module says what, never how.
2. Starting again changes nothing that is there: what was edited by hand stays, a version is written only for a change.
3. Nothing of the product knows the sandbox: roles are told the `KEYTURN_…` variables of the realm's folder alone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import httpx
import yaml

from executors import iam as iam_executor
from executors import infra as infra_executor
from executors import s3 as s3_executor
from sandbox import asking, jars, ports, story
from sandbox.aws import AwsAddress, LocalAws
from sandbox.errors import AlreadyRunningError, SandboxError
from sandbox.folder import AWS, ISSUER_PAGE, KeptPorts, SandboxFolder, url, write
from sandbox.issuer import APPROVALS
from sandbox.kafka import EmbeddedKafka, KafkaAddress, KafkaCluster
from sandbox.roles import OK, environment, module, together
from sandbox.s3 import LocalS3, S3Address
from sandbox.supervise import Child
from schemas import canonical, policy
from streams import administration, documents, drafts
from streams.administration import Admin
from streams.documents import Applied
from streams.realm import Realm, RealmFolder, lay_out
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from schemas.world import World

TOKEN_WITHIN = timedelta(seconds=5)
S3_STOP_WITHIN = timedelta(milliseconds=200)
"""Then it is killed, which loses nothing: the store takes 4 s to stop when asked."""
T = TypeVar("T")


class TokenRefusedError(SandboxError):
    """The issuer gave no token."""


@dataclass(frozen=True)
class SandboxWorld:
    """Where everything is, once it runs and the realm is provisioned."""

    #: The realm's folder, which is the sandbox's directory: what `--dir` names.
    folder: Path
    kafka: KafkaAddress
    s3: S3Address
    #: The OpenID Connect issuer, as its tokens spell `iss`.
    issuer: str
    #: Where the approvers' API is served, once that role runs.
    api: str
    #: Where agents and people who ask are let in, once that role runs.
    gateway: str
    #: The local AWS, in a sandbox that has one.
    aws: AwsAddress | None = None

    @property
    def admin(self) -> Admin:
        """The Kafka super user."""
        return Admin(self.kafka.admin.username, self.kafka.admin.password)

    def settings(self, role: str) -> Settings:
        """What a role is told: `core`, `agent-reporter`, `administration`."""
        return settings_of(self.folder, role)

    async def token(self, person: str, audience: str = APPROVALS) -> str:
        """Log a person in, just now, to decide; or with `GATEWAY`, to ask."""
        return await log_in(SandboxFolder(self.folder), person, audience)


@dataclass
class Sandbox:
    """One environment in one directory. As an async context manager: ready inside, gone outside; the data are kept."""

    directory: Path
    cache: Path = field(default_factory=jars.cache_folder)
    #: Hears of the download of Kafka, if there is one.
    progress: jars.Progress = jars.silent
    #: Called with each step that is done.
    announce: Callable[[str], None] = lambda _step: None
    #: Called with a line when something else than Kafka has to be fetched.
    say: Callable[[str], None] = lambda _line: None
    #: A local AWS too, and the executors for it. Chosen when a sandbox is begun; one that has it keeps it.
    has_aws: bool = False
    token: Callable[[int], bytes] = secrets.token_bytes
    #: Unix milliseconds.
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    #: How many nodes Kafka has.
    nodes: int = 1
    world: SandboxWorld | None = field(default=None, init=False)
    kafka: EmbeddedKafka | KafkaCluster = field(init=False)
    s3: LocalS3 | None = field(default=None, init=False)
    aws: LocalAws | None = field(default=None, init=False)
    _running: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    def __post_init__(self) -> None:
        self.directory = self.directory.absolute()
        self._folder = SandboxFolder(self.directory)
        home, places = self._folder.path / "kafka", self._folder.places
        self.kafka = (
            EmbeddedKafka(home, self.cache, places, self.progress)
            if self.nodes == 1
            else KafkaCluster(home, self.cache, places, self.progress, count=self.nodes)
        )

    async def __aenter__(self) -> SandboxWorld:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> SandboxWorld:
        """Start the services and provision the realm. When this raises, nothing of it is left running."""
        self._folder.open()
        if self.has_aws and self._folder.is_told and not self._folder.has_aws:
            raise SandboxError(
                f"the sandbox in {self.directory} was begun without a local AWS: name a new directory with --dir, or "
                "begin anew after `keyturn sandbox reset`."
            )
        self._claim()
        try:
            self.world = await self._start()
        except BaseException:
            await self.stop()
            raise
        return self.world

    async def stop(self) -> None:
        """Stop every service. When this returns they are gone; the data are kept."""
        self.world = None
        await self._running.aclose()

    async def _start(self) -> SandboxWorld:
        where = self._ports()
        issuer = self._folder.keep_issuer(where.issuer, self.token)
        self.s3 = self._local_s3(where)
        has_aws = self.has_aws or self._folder.has_aws
        self.aws = self._local_aws() if has_aws else None
        kafka: list[KafkaAddress] = []
        s3: list[S3Address] = []
        aws: list[AwsAddress] = []
        # Registered first: whatever has started by the time one of them fails is stopped too.
        self._running.push_async_callback(self._stop_services, login := self._issuer(where, issuer.url))
        await together(
            (
                self._step("kafka", self.kafka.start(), kafka.append),
                self._step("s3", self.s3.start(), s3.append),
                self._step("issuer", login.start(), lambda _: None),
                *(() if self.aws is None else (self._step(AWS, self.aws.start(), aws.append),)),
            )
        )
        world = SandboxWorld(
            self.directory,
            kafka[0],
            s3[0],
            issuer.url,
            api=url(where.api),
            gateway=url(where.gateway),
            aws=aws[0] if aws else None,
        )
        provisioning = Provisioning(world, self._folder, where, self.clock, self.token)
        provisioning.lay_out()
        self.require_own_settings()
        await provisioning.apply()
        self.announce("realm")
        return world

    def _claim(self) -> None:
        """One process runs a sandbox: its pid file is locked for as long as it lives."""
        pid_file = self._folder.pid_file
        if not pid_file.claim():
            other = pid_file.running()
            who = f"pid {other.pid}" if other else "another process"
            raise AlreadyRunningError(
                "sandbox",
                f"the sandbox in {self.directory} already runs ({who}): see `keyturn sandbox status`, or end it with "
                "`keyturn sandbox down`.",
                other.pid if other else None,
            )
        pid_file.write(os.getpid())
        self._running.callback(pid_file.release)
        self._running.callback(pid_file.clear)

    def _ports(self) -> KeptPorts:
        # Kafka chooses its own, which must not be chosen again.
        return self._folder.keep_ports(self.kafka.ports(), self.token)

    def _local_s3(self, where: KeptPorts) -> LocalS3:
        directory = self._own("s3")
        return LocalS3(directory, port=where.s3, stop_within=S3_STOP_WITHIN, random_bytes=self.token)

    def _local_aws(self) -> LocalAws:
        return LocalAws(self._own(AWS), cache=self.cache, progress=self.say, random_bytes=self.token)

    def _own(self, service: str) -> Path:
        """Make a service's directory."""
        directory = self.directory / service
        directory.mkdir(exist_ok=True, mode=0o700)
        places = self._folder.places
        # It keeps its traces in folders of its own; here they lie with everybody's.
        for shared in (places.logs, places.run):
            shared.mkdir(exist_ok=True, mode=0o700)
            if not (own := directory / shared.name).is_symlink():
                own.symlink_to(os.path.relpath(shared, directory))
        return directory

    def _issuer(self, where: KeptPorts, url: str) -> Child:
        async def is_ready() -> bool:
            answer = await asking.get(where.issuer, ISSUER_PAGE)
            return answer is not None and answer.status == OK and url.encode() in answer.body

        return Child(
            "issuer",
            module("sandbox.issuer", "--config", str(self._folder.issuer_file)),
            environment({}),
            ready=is_ready,
            places=self._folder.places,
            preflight=partial(ports.require_free, where.issuer, "the issuer"),
        )

    async def _step(self, name: str, doing: Awaitable[T], keep: Callable[[T], None]) -> None:
        keep(await doing)
        self.announce(name)

    async def _stop_services(self, issuer: Child) -> None:
        stopping = [issuer.stop(), self.kafka.stop()]
        if self.s3 is not None:
            stopping.append(self.s3.stop())
        if self.aws is not None:
            stopping.append(self.aws.stop())
        await together(stopping)

    def require_own_settings(self) -> None:
        """A variable of this process wins over the realm's file: then we would provision another Kafka than ours."""
        ours = RealmFolder(self.directory).environment("administration")
        if strange := sorted(name for name, value in ours.items() if self.environ.get(name, value) != value):
            raise SandboxError(
                f"{', '.join(strange)}: set in this shell, and it would win over the sandbox's own. Unset it: "
                f"`unset {' '.join(strange)}`."
            )


@dataclass(frozen=True)
class Provisioning:
    """Makes a realm on services that run, in the order an operator would."""

    world: SandboxWorld
    folder: SandboxFolder
    where: KeptPorts
    clock: Callable[[], int]
    token: Callable[[int], bytes]

    @property
    def executors(self) -> tuple[str, ...]:
        """Those of this sandbox."""
        return story.EXECUTORS if self.world.aws is None else (*story.EXECUTORS, *story.AWS_EXECUTORS)

    @property
    def policies(self) -> list[Path]:
        """The files that its policy is in."""
        files = [self.folder.path / "policy.cedar"]
        return files if self.world.aws is None else [*files, self.folder.aws_policy, self.folder.stacks_policy]

    def lay_out(self) -> None:
        """Make keys, passwords, environment files and the story's documents; what is there is kept."""
        realm = Realm(
            realm=story.REALM,
            kafka=self.world.kafka.bootstrap,
            kafka_security="SASL_PLAINTEXT",
            partitions=story.PARTITIONS,
            replication_factor=self.world.kafka.copies,
            min_insync_replicas=self.world.kafka.least,
            executors=self.executors,
            notifiers=story.NOTIFIERS,
            agents=(story.AGENT,),
        )
        lay_out(self.folder.path, realm, [story.OWNER], self.token)
        self._tell_story()
        self._tell_roles()

    def _tell_story(self) -> None:
        """Write the story's documents, once: afterwards they are the user's."""
        path = self.folder.path
        # The last one says that all are there.
        if self.folder.is_told:
            return
        directory = path / "directory.yaml"
        first = drafts.load(directory.read_text(encoding="utf-8"), str(directory))
        members = story.directory(self.world.issuer, first["keys"])
        write(directory, yaml.safe_dump(members, sort_keys=False, default_flow_style=None))
        write(path / "policy.cedar", story.POLICY)
        if self.world.aws is not None:
            write(self.folder.aws_policy, story.IAM_POLICY)
            write(self.folder.stacks_policy, story.INFRA_POLICY)
        write(path / "catalog.yaml", story.CATALOG)
        write(path / "roster.yaml", yaml.safe_dump(dict(story.ROSTER), sort_keys=False, default_flow_style=None))

    def _tell_roles(self) -> None:
        """Add what only some roles are told."""
        s3 = self.world.s3
        self.folder.tell("intake", {"KEYTURN_INTAKE_CATALOG": str(self.folder.path / "catalog.yaml")})
        self.folder.tell(
            "executor-s3",
            {
                "KEYTURN_S3_ENDPOINT": s3.endpoint,
                "KEYTURN_S3_REGION": s3.region,
                "KEYTURN_S3_READ_ROLE": s3.read_role,
                "KEYTURN_S3_EXPORT_ROLE": s3.export_role,
                "KEYTURN_S3_DELETE_ROLE": s3.delete_role,
                "KEYTURN_S3_ACCESS_KEY": s3.executor.access_key,
                "KEYTURN_S3_SECRET_KEY": s3.executor.secret_key,
            },
        )
        if (aws := self.world.aws) is not None:
            for name in story.AWS_EXECUTORS:
                own = aws.executors[name]
                told = {
                    "ENDPOINT": aws.endpoint,
                    "REGION": aws.region,
                    "READ_ROLE": own.read_role,
                    "ACT_ROLE": own.act_role,
                    "ACCESS_KEY": own.keys.access_key,
                    "SECRET_KEY": own.keys.secret_key,
                }
                if own.plan_role is not None:
                    told["PLAN_ROLE"] = own.plan_role
                variables = {f"KEYTURN_{name.upper()}_{member}": value for member, value in told.items()}
                self.folder.tell(f"executor-{name}", variables)
        self.folder.tell(
            "administration",
            {"KEYTURN_ADMIN_USERNAME": self.world.admin.username, "KEYTURN_ADMIN_PASSWORD": self.world.admin.password},
        )
        self.folder.tell(
            "gateway",
            {
                "KEYTURN_GATEWAY_ISSUER": self.world.issuer,
                "KEYTURN_GATEWAY_PORT": str(self.where.gateway),
                "KEYTURN_GATEWAY_CATALOG": str(self.folder.path / "catalog.yaml"),
            },
        )
        self.folder.tell(f"agent-{story.AGENT}", {"KEYTURN_GATEWAY_URL": self.world.gateway})
        self.folder.tell(
            "notifier-api",
            {"KEYTURN_API_ISSUER": self.world.issuer, "KEYTURN_API_PORT": str(self.where.api)},
        )

    async def apply(self) -> None:
        """Bring Kafka, the documents and the buckets to where the folder says they are."""
        await together((self._provision(), self._fill_buckets(), self._make_identities()))

    async def _provision(self) -> None:
        await administration.provision(self.folder.path, self.world.admin)
        await self._apply_documents()

    async def _apply_documents(self) -> None:
        """Apply each document whose text is not the one applied last: nothing is read for those that did not change."""
        settings = self.world.settings("administration")
        path, now = self.folder.path, self.clock()
        plugins = {"iam": iam_executor.plugin, "infra": infra_executor.plugin, "s3": s3_executor.plugin}
        manifests = [story.manifest(plugins[name].manifest) for name in self.executors]
        # In this order: a roster fills what the directory lists, a policy is checked against the manifests.
        steps: tuple[tuple[str, bytes, Callable[[], Awaitable[Applied]]], ...] = (
            (
                "directory",
                (path / "directory.yaml").read_bytes(),
                lambda: documents.apply_directory(settings, path / "directory.yaml", now),
            ),
            (
                "roster",
                (path / "roster.yaml").read_bytes(),
                lambda: documents.apply_roster(settings, path / "roster.yaml", now),
            ),
            (
                "manifest",
                canonical.encode([each.to_json() for each in manifests]),
                lambda: documents.apply_manifests(settings, manifests, now, _require_fit),
            ),
            (
                "policy",
                b"\n".join(file.read_bytes() for file in self.policies),
                lambda: documents.apply_policies(settings, self.policies, now, _require_fit),
            ),
        )
        for name, text, bring in steps:
            # The cluster too: on another Kafka nothing is in force yet.
            digest = hashlib.sha256(self.world.kafka.cluster_id.encode() + b"\n" + text).hexdigest()
            if self.folder.applied().get(name) != digest:
                await bring()
                self.folder.keep_applied(self.folder.applied() | {name: digest})

    async def _fill_buckets(self) -> None:
        if self.folder.applied().get("buckets") == str(story.VERSION):
            return
        # The SDK takes a while to import, and a restart needs none of it.
        from sandbox import buckets  # noqa: PLC0415

        await buckets.fill(self.world.s3)
        self.folder.keep_applied(self.folder.applied() | {"buckets": str(story.VERSION)})

    async def _make_identities(self) -> None:
        if self.world.aws is None or self.folder.applied().get("identities") == str(story.VERSION):
            return
        from sandbox import identities  # noqa: PLC0415  as above

        await identities.fill(self.world.aws)
        self.folder.keep_applied(self.folder.applied() | {"identities": str(story.VERSION)})


def settings_of(folder: Path, role: str) -> Settings:
    """Read what a role is told in this folder, whatever this process was told."""
    return RealmFolder(folder).settings_as(role, Settings, {})


async def log_in(folder: SandboxFolder, person: str, audience: str = APPROVALS) -> str:
    """Ask the issuer for a person's access token, for one door."""
    issuer = folder.issuer()
    secret = {login.name: login.secret for login in issuer.persons}.get(person)
    if secret is None:
        known = ", ".join(login.name for login in issuer.persons)
        raise TokenRefusedError(f"nobody is called {person} here; there are {known}.")
    form = {"grant_type": "password", "client_id": issuer.public_client, "username": person, "password": secret}
    form["audience"] = audience
    try:
        async with httpx.AsyncClient(timeout=TOKEN_WITHIN.total_seconds()) as client:
            answer = await client.post(f"{issuer.url}/token", data=form)
    except httpx.HTTPError as error:
        raise TokenRefusedError(
            f"the issuer at {issuer.url} does not answer ({error!r}): is the sandbox up? `keyturn sandbox status`"
        ) from error
    if answer.status_code != OK:
        raise TokenRefusedError(f"the issuer at {issuer.url} gave no token: {answer.text}")
    return str(answer.json()["access_token"])


def _require_fit(world: World) -> None:
    """A policy that does not fit the manifests never comes into force."""
    if world.policies is not None and world.manifests is not None:
        policy.rulebook(world.policies, world.manifests)
