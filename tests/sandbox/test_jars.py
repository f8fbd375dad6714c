"""Only locked bytes reach the class path."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox.errors import DownloadError, WrongSumError
from sandbox.jars import KAFKA, LOG_BINDING, Jar, Sources, cache_folder, ensure, kafka_version, locked

GOOD = b"the jar that was locked"
JAR = Jar(hashlib.sha256(GOOD).hexdigest(), "org.example", "thing", "1.0")


class Repository:
    """A Maven repository over HTTP that serves one body, after an answer or two of other kinds."""

    def __init__(self, body: bytes, *before: str) -> None:
        self.body = body
        self.before = list(before)
        self.asked: list[str] = []
        self.address = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(request.decode().split()[1])
        status, body = (self.before.pop(0), b"") if self.before else ("200 OK", self.body)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def sources(self) -> Sources:
        return Sources((self.address,))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@asynccontextmanager
async def serving(body: bytes, *before: str) -> AsyncIterator[Repository]:
    repository = Repository(body, *before)
    server = await asyncio.start_server(repository.answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        repository.address = f"http://127.0.0.1:{port}/maven"
        yield repository


async def test_a_jar_with_another_sum_is_refused_and_named_and_not_kept(tmp_path: Path) -> None:
    async with serving(b"something else") as repository:
        with pytest.raises(WrongSumError, match=r"org\.example:thing:1\.0 .*was not kept") as refusal:
            await ensure(tmp_path, [JAR], sources=repository.sources)
    assert JAR.sha256 in str(refusal.value)
    assert names_in(tmp_path) == set()


async def test_a_jar_is_fetched_once_and_its_progress_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    async with serving(GOOD) as repository:
        await ensure(tmp_path, [JAR], sources=repository.sources, progress=lambda *now: told.append(now))
        (path,) = await ensure(tmp_path, [JAR], sources=repository.sources)
    assert path.read_bytes() == GOOD
    assert repository.asked == ["/maven/org/example/thing/1.0/thing-1.0.jar"]
    assert (told[0], told[-1]) == ((0, 1, 0), (1, 1, len(GOOD)))


async def test_a_cached_jar_that_was_changed_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / JAR.filename).write_bytes(b"changed since")
    async with serving(GOOD) as repository:
        (path,) = await ensure(tmp_path, [JAR], sources=repository.sources)
    assert path.read_bytes() == GOOD


async def test_a_stumbling_repository_is_asked_again(tmp_path: Path) -> None:
    async with serving(GOOD, "503 Service Unavailable") as repository:
        (path,) = await ensure(tmp_path, [JAR], sources=repository.sources)
    assert path.read_bytes() == GOOD


async def test_a_jar_that_nobody_has_is_named_with_every_place_that_was_asked(tmp_path: Path) -> None:
    async with serving(GOOD, "404 Not Found") as repository:
        with pytest.raises(DownloadError, match=r"org\.example:thing:1\.0") as refusal:
            await ensure(tmp_path, [JAR], sources=repository.sources)
    assert repository.address in str(refusal.value)
    assert "mirror" in str(refusal.value)


@pytest.mark.parametrize(("body", "is_used"), [(GOOD, True), (b"another build", False)])
async def test_the_local_repository_is_used_if_its_jar_is_the_locked_one(
    tmp_path: Path, body: bytes, is_used: bool
) -> None:
    local = tmp_path / "m2" / JAR.path
    local.parent.mkdir(parents=True)
    local.write_bytes(body)
    async with serving(GOOD) as repository:
        sources = Sources((repository.address,), (tmp_path / "m2",))
        (path,) = await ensure(tmp_path / "cache", [JAR], sources=lambda: sources)
    assert path.read_bytes() == GOOD
    assert repository.asked == ([] if is_used else [f"/maven/{JAR.path}"])


def test_the_list_holds_kafka_and_what_prints_its_errors() -> None:
    jars = locked()
    assert f"{jars[0].coordinate}" == min(jar.coordinate for jar in jars)
    assert f"org.apache.kafka:kafka_2.13:{kafka_version(jars)}" == KAFKA
    assert LOG_BINDING in {f"{jar.group}:{jar.artifact}" for jar in jars}
    assert len({jar.filename for jar in jars}) == len(jars)


def test_the_cache_is_where_the_user_says_else_where_desktops_keep_theirs() -> None:
    assert cache_folder({"KEYTURN_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/keyturn")
    assert cache_folder({}).parts[-2:] == (".cache", "keyturn")


async def test_a_mirror_in_jgos_config_file_replaces_the_public_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "jgo.conf"
    config.write_text("[repositories]\ncentral = https://mirror.example/maven\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
    assert Sources.configured().addresses == ("https://mirror.example/maven",)
