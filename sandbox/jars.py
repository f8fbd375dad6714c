"""The jars that the embedded Kafka runs from: exactly those of `jars.sha256`, each verified at every start.

The committed list is the whole truth: nothing is resolved at run time and no other jar is ever put on a class path.
A jar comes from the local Maven repository if it lies there, else from the repositories that jgo is configured with
(`[repositories]` in jgo's config file; an entry `central` there replaces the public one, so a mirror is honoured).
Wherever it comes from, it is kept only if its sum is the locked one.

    python -m sandbox.jars            fetch and verify
    python -m sandbox.jars --relock   resolve KAFKA again with jgo and write the list anew; then review the diff
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import certifi
import httpx

from sandbox.errors import DownloadError, WrongSumError

log = logging.getLogger(__name__)

#: Called with: jars in place, jars in all, bytes received so far.
Progress = Callable[[int, int, int], None]

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
#: Kafka logs through slf4j 1.7 and brings log4j 2. Without this binding not even a fatal error is printed.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"
LOG_CORE = "org.apache.logging.log4j:log4j-core"

LOCK = Path(__file__).with_name("jars.sha256")
LOCK_HEADER = "# Written by `python -m sandbox.jars --relock`. A sum, then group:artifact:version, one jar a line.\n"
CONNECTIONS = 8
ATTEMPTS = 3
CHUNK = 1 << 16
TOO_MANY = httpx.codes.TOO_MANY_REQUESTS


@dataclass(frozen=True)
class Jar:
    """One line of the list."""

    sha256: str
    group: str
    artifact: str
    version: str

    @classmethod
    def parse(cls, line: str) -> Jar:
        """Read a line of the list: the sum, then group:artifact:version."""
        sha256, coordinate = line.split()
        group, artifact, version = coordinate.split(":")
        return cls(sha256, group, artifact, version)

    @property
    def coordinate(self) -> str:
        """Maven's name for it."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def filename(self) -> str:
        """Its name in our cache and in a repository."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> str:
        """Where a repository in Maven's layout keeps it."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.filename}"


@dataclass(frozen=True)
class Sources:
    """Where jars come from, tried in order: folders first, then addresses. All in Maven's layout."""

    addresses: Sequence[str]
    folders: Sequence[Path] = ()

    @classmethod
    def configured(cls) -> Sources:
        """Ask what jgo is configured with on this machine."""
        # Imported here: importing jgo takes a quarter of a second, and a start with all jars in place needs none of it.
        from jgo.config import GlobalSettings  # noqa: PLC0415
        from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415

        settings = GlobalSettings.load()
        addresses = {"central": MAVEN_CENTRAL_URL} | settings.repositories
        return cls(tuple(addresses.values()), (settings.repo_cache,))


def locked(lock: Path = LOCK) -> tuple[Jar, ...]:
    """Read the committed list."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return tuple(Jar.parse(line) for line in lines if line.strip() and not line.startswith("#"))


def kafka_version(jars: Iterable[Jar]) -> str:
    """Say which version of Kafka these jars are."""
    return next(jar.version for jar in jars if jar.artifact == KAFKA.split(":")[1])


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Find the one folder for what can be fetched again: `KEYTURN_CACHE`, else the desktop's cache folder."""
    if own := environ.get("KEYTURN_CACHE"):
        return Path(own)
    if shared := environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "keyturn"
    return Path.home() / ".cache" / "keyturn"


def silent(_done: int, _total: int, _received: int) -> None:
    """Report no progress."""


async def ensure(
    folder: Path,
    jars: Sequence[Jar] = (),
    *,
    sources: Callable[[], Sources] = Sources.configured,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Fetch what is missing in `folder`. When this returns, every jar lies there and has its locked sum."""
    jars = jars or locked()
    good = await asyncio.to_thread(_verified, folder, jars)
    if missing := [jar for jar in jars if jar not in good]:
        tally = _Tally(len(good), len(jars), progress)
        tally.report()
        await _fetch_all(missing, folder, sources(), tally)
    return tuple(folder / jar.filename for jar in jars)


def _verified(folder: Path, jars: Iterable[Jar]) -> frozenset[Jar]:
    """Find the cached jars whose sum is right, and remove those whose sum is not: they will be fetched again."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    good = set()
    for jar in jars:
        path = folder / jar.filename
        if not path.exists():
            continue
        if sum_of(path) == jar.sha256:
            good.add(jar)
        else:
            log.warning("a cached jar was changed; it is fetched again", extra={"jar": jar.coordinate})
            path.unlink()
    return frozenset(good)


def sum_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class _Tally:
    done: int
    total: int
    progress: Progress
    received: int = field(default=0)

    def add(self, count: int) -> None:
        self.received += count
        self.report()

    def finish_one(self) -> None:
        self.done += 1
        self.report()

    def report(self) -> None:
        self.progress(self.done, self.total, self.received)


async def _fetch_all(jars: Iterable[Jar], folder: Path, sources: Sources, tally: _Tally) -> None:
    slots = asyncio.Semaphore(CONNECTIONS)

    async with httpx.AsyncClient(follow_redirects=True, timeout=30, verify=_trusted()) as client:

        async def fetch(jar: Jar) -> None:
            async with slots:
                await _fetch(client, jar, folder, sources, tally)
                tally.finish_one()

        try:
            async with asyncio.TaskGroup() as group:
                for jar in jars:
                    group.create_task(fetch(jar))
        except* (DownloadError, WrongSumError) as failures:
            # One clear error says more than a group of the same.
            raise failures.exceptions[0] from None


def _trusted() -> ssl.SSLContext:
    """This machine's authorities, a company's own among them, and the usual ones where a machine has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


async def _fetch(client: httpx.AsyncClient, jar: Jar, folder: Path, sources: Sources, tally: _Tally) -> None:
    for local in sources.folders:
        if (path := local / jar.path).is_file():
            if await asyncio.to_thread(_copy, path, jar, folder):
                return
            log.warning("a jar in the local repository has another sum; it is not used", extra={"jar": jar.coordinate})
    reasons = []
    for address in sources.addresses:
        url = f"{address.rstrip('/')}/{jar.path}"
        try:
            await _download_with_patience(client, url, jar, folder, tally)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reasons.append(f"{url}: {str(error) or type(error).__name__}")
        else:
            return
    tried = "\n  ".join(reasons) or "no repository is configured"
    raise DownloadError(
        f"{jar.coordinate} could not be fetched:\n  {tried}\n"
        "Check the network, or name a mirror in jgo's config file ([repositories], central = ADDRESS). "
        f"Or put the jar into {folder} as {jar.filename}: it is used if its sum is {jar.sha256}."
    )


def _copy(source: Path, jar: Jar, folder: Path) -> bool:
    """Copy a local jar into the cache; False, and nothing kept, if it is another one."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
        partial = Path(scratch) / jar.filename
        shutil.copyfile(source, partial)
        if sum_of(partial) != jar.sha256:
            return False
        partial.replace(folder / jar.filename)
        return True


async def _download_with_patience(client: httpx.AsyncClient, url: str, jar: Jar, folder: Path, tally: _Tally) -> None:
    """Try again when the network or the far side stumbles; a clear no and a wrong sum are final."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _download(client, url, jar, folder, tally)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if attempt == ATTEMPTS or not (status >= httpx.codes.INTERNAL_SERVER_ERROR or status == TOO_MANY):
                raise
        except httpx.TransportError:
            if attempt == ATTEMPTS:
                raise
        else:
            return
        await asyncio.sleep(2**attempt / 2)


async def _download(client: httpx.AsyncClient, url: str, jar: Jar, folder: Path, tally: _Tally) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
        partial = Path(scratch) / jar.filename
        digest = hashlib.sha256()
        async with client.stream("GET", url) as response:
            response.raise_for_status()
            with partial.open("wb") as file:
                async for chunk in response.aiter_bytes(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
                    tally.add(len(chunk))
        if digest.hexdigest() != jar.sha256:
            raise WrongSumError(
                f"{jar.coordinate} from {url} has the SHA-256 {digest.hexdigest()}, but {jar.sha256} is locked. "
                "It was not kept. Somebody on the way changed it, or the mirror is broken: try another network or "
                "mirror. Never edit the list to silence this."
            )
        partial.replace(folder / jar.filename)


def relock(lock: Path = LOCK) -> Sequence[Jar]:
    """Resolve Kafka and its log binding with jgo, fetch all of it, and write the list anew."""
    from jgo.maven import MavenContext  # noqa: PLC0415  (as in Sources.configured)

    sources = Sources.configured()
    with tempfile.TemporaryDirectory() as scratch:
        remote = {str(number): address for number, address in enumerate(sources.addresses)}
        # A fresh folder, so that what is locked is what the repository serves and not what lay about here.
        context = MavenContext(repo_cache=Path(scratch), remote_repos=remote, timeout=60)
        inputs, transitive = context.resolver.resolve([context.create_dependency(KAFKA)])
        artifacts = [dependency.artifact for dependency in (*inputs, *transitive)]
        core = next(one for one in artifacts if f"{one.groupId}:{one.artifactId}" == LOG_CORE)
        artifacts.append(context.create_dependency(f"{LOG_BINDING}:{core.version}").artifact)
        jars = [Jar(sum_of(one.resolve()), one.groupId, one.artifactId, one.version) for one in artifacts]
    jars.sort(key=lambda jar: jar.coordinate)
    lock.write_text(LOCK_HEADER + "".join(f"{jar.sha256}  {jar.coordinate}\n" for jar in jars), encoding="utf-8")
    return jars


def main() -> None:
    """Fetch and verify the jars, or lock them anew."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.jars", description=main.__doc__)
    parser.add_argument("--relock", action="store_true", help="resolve again with jgo and write jars.sha256")
    if parser.parse_args().relock:
        sys.stdout.write(f"locked {len(relock())} jars in {LOCK}\n")
        return
    folder = cache_folder() / "jars"
    jars = asyncio.run(ensure(folder))
    sys.stdout.write(f"{len(jars)} jars in {folder}\n")


if __name__ == "__main__":
    main()
