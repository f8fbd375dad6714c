"""The whole story on one calm screen, from nothing. Every fact it prints was read from Kafka, S3 or an exit code.

`python -m sandbox.demo` ends by itself: 0 when everything happened as told, 1 at the first thing that did not.
With `--live` it leaves everything running afterwards, to play with.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from sandbox import jars, story
from sandbox.agent import PatienceError, SandboxAgent
from sandbox.errors import SandboxError
from sandbox.folder import SandboxFolder, url
from sandbox.roles import RunningRoles, environment, keyturn
from sandbox.world import Sandbox, SandboxWorld
from schemas.records import Phase
from streams.connection import quiet_client_logs

DIRECTORY: Final = Path(".keyturn-demo")
FORBIDDEN: Final = 5
"""The exit code of a decision that this person may not make."""
WIDTH: Final = 96


class StoryError(Exception):
    """Something did not happen as told; the text says what did."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    text: str


@dataclass(slots=True)
class Screen:
    """Calm lines: a chapter, then one line a fact."""

    is_plain: bool
    started: float

    def chapter(self, title: str) -> None:
        """Open a chapter."""
        print(f"\n{self._in('1', title)}", flush=True)  # noqa: T201

    def fact(self, who: str, what: str) -> None:
        """One fact."""
        print(f"  {self._in('2', f'{who:<12}')} {what}", flush=True)  # noqa: T201

    def end(self, text: str) -> None:
        """The last lines."""
        print(f"\n{text}", flush=True)  # noqa: T201

    def _in(self, style: str, text: str) -> str:
        return text if self.is_plain else f"\x1b[{style}m{text}\x1b[0m"


@dataclass(slots=True)
class Stage:
    """What the chapters act on."""

    world: SandboxWorld
    roles: RunningRoles
    agent: SandboxAgent
    s3: Any
    screen: Screen

    async def keyturn(self, person: str | None, *words: str) -> Said:
        """Run the real command, as a person or as an auditor."""
        more = {"KEYTURN_API_URL": self.world.api, "NO_COLOR": "1"}
        if person is not None:
            more["KEYTURN_TOKEN"] = await self.world.token(person)
        process = await asyncio.create_subprocess_exec(
            *keyturn(*words),
            env=environment(more),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        text, complaint = await process.communicate()
        return Said(process.returncode or 0, text.decode().strip() or complaint.decode().strip())

    async def card(self, person: str, intent_id: str) -> dict[str, Any]:
        """What a person sees, read through the API."""
        said = await self.keyturn(person, "show", intent_id, "--json")
        require(said.code == 0, f"`keyturn show` ended with {said.code}: {said.text}")
        found: dict[str, Any] = json.loads(said.text)
        return found

    async def decides(self, person: str, verb: str, intent_id: str, *more: str) -> Said:
        """One person's word, on the question that is open now."""
        card = await self.card(person, intent_id)
        said = await self.keyturn(person, verb, f"{intent_id}@{card['question_digest'][:12]}", *more)
        words = said.text.removeprefix("keyturn: ").removeprefix(f"{intent_id}: ")
        self.screen.fact(person, f"keyturn {verb} -> exit {said.code}: {one_line(words)}")
        return said

    async def ask(self, properties: dict[str, Any], reason: str, ttl: int = 600) -> str:
        """An intent of the agent, until its question is open."""
        intent = self.agent.intent("s3.export", ("bucket", properties["source_bucket"]), properties, reason, ttl)
        await self.agent.submit(intent)
        self.screen.fact(self.agent.name, f"asks: {described(properties)}")
        await self.agent.until(intent.id, Phase.PENDING)
        return intent.id

    async def versions(self, properties: dict[str, Any]) -> dict[str, int]:
        """How many versions of each object lie at the destination."""
        listed = await self.s3.list_object_versions(
            Bucket=properties["destination_bucket"], Prefix=properties["destination_prefix"]
        )
        counts: dict[str, int] = {}
        for version in listed.get("Versions", ()):
            counts[version["Key"]] = counts.get(version["Key"], 0) + 1
        return counts

    async def sources(self, properties: dict[str, Any]) -> dict[str, int]:
        """Sizes of the objects below the source prefix."""
        listed = await self.s3.list_objects_v2(Bucket=properties["source_bucket"], Prefix=properties["source_prefix"])
        return {item["Key"]: item["Size"] for item in listed.get("Contents", ())}

    async def require_copied_once(self, properties: dict[str, Any]) -> None:
        """The objects are there, once, with the same bytes."""
        sources, copies = await self.sources(properties), await self.versions(properties)
        below = properties["source_prefix"], properties["destination_prefix"]
        wanted = {key.replace(*below, 1): 1 for key in sources}
        require(copies == wanted, f"expected one version each of {sorted(wanted)}, found {copies}")
        for key in sources:
            first = await self.s3.get_object(Bucket=properties["source_bucket"], Key=key)
            second = await self.s3.get_object(Bucket=properties["destination_bucket"], Key=key.replace(*below, 1))
            same = await first["Body"].read() == await second["Body"].read()
            require(same, f"{key}: the copy has other bytes")
        self.screen.fact("S3", f"{len(copies)} at the destination, one version each, the same bytes")

    async def require_nothing(self, properties: dict[str, Any]) -> None:
        """Nothing lies at the destination."""
        found = await self.versions(properties)
        require(not found, f"expected nothing at the destination, found {found}")
        self.screen.fact("S3", "nothing at the destination")


# ---------------------------------------------------------------- the chapters


async def approved(stage: Stage) -> None:
    """An agent asks, its owner is refused, a person on call approves, it is done once."""
    export = dict(story.EXPORT)
    stage.screen.chapter("1  An agent asks to export customer data, and a person on call says yes")
    intent = await stage.ask(export, "the partner's quarterly reconciliation")
    card = await stage.card("cho", intent)
    sources = await stage.sources(export)
    shown = shown_plan(card)
    require(str(len(sources)) in shown, f"the plan does not show {len(sources)} objects: {shown}")
    stage.screen.fact("plan", shown)
    stage.screen.fact("policy", asked_of(card))
    await stage.require_nothing(export)
    said = await stage.decides("ana", "approve", intent)
    require(said.code == FORBIDDEN, f"the agent's owner was not refused: {said}")
    said = await stage.decides("cho", "approve", intent)
    require(said.code == 0, f"the person on call was refused: {said}")
    status = await stage.agent.until(intent, Phase.SUCCEEDED)
    stage.screen.fact("status", f"{status.phase.value}: {one_line(status.reason or '')}")
    await stage.require_copied_once(export)


async def denied(stage: Stage) -> None:
    """A second intent is denied."""
    export = {**story.EXPORT, "destination_prefix": "for-a-friend/"}
    stage.screen.chapter("2  A second one is denied")
    intent = await stage.ask(export, "a friend would like to see it")
    said = await stage.decides("cho", "deny", intent, "--reason", "no contract with them")
    require(said.code == 0, f"the denial was refused: {said}")
    status = await stage.agent.until(intent, Phase.DENIED)
    stage.screen.fact("status", f"{status.phase.value}: {one_line(status.reason or '')}")
    await stage.require_nothing(export)


async def expired(stage: Stage) -> None:
    """A third one expires: silence is a no."""
    export = {**story.EXPORT, "destination_prefix": "at-three-in-the-morning/"}
    stage.screen.chapter("3  A third one waits four seconds, and nobody answers")
    intent = await stage.ask(export, "nobody is awake", ttl=4)
    status = await stage.agent.until(intent, Phase.EXPIRED)
    stage.screen.fact("status", f"{status.phase.value}: {one_line(status.reason or '')}")
    await stage.require_nothing(export)


async def changed(stage: Stage) -> None:
    """A fourth one's object changes after the yes: the yes is void, people are asked again."""
    export = {**story.EXPORT, "source_prefix": "eu/2024/", "destination_prefix": "for-the-auditors/"}
    stage.screen.chapter("4  A fourth one's object changes between the yes and the act")
    key = "eu/2024/oslo.csv"
    await stage.s3.put_object(Bucket=story.CUSTOMERS, Key=key, Body=b"id,kunde\n1,Kari\n")
    intent = await stage.ask(export, "the auditors asked for it")
    first = await stage.card("cho", intent)
    await stage.roles.stop("executor-s3")
    said = await stage.decides("cho", "approve", intent)
    require(said.code == 0, f"the person on call was refused: {said}")
    await stage.s3.put_object(Bucket=story.CUSTOMERS, Key=key, Body=b"id,kunde\n1,Kari\n2,Ola\n")
    stage.screen.fact("S3", f"{key} is overwritten before the executor gets to it")
    await stage.roles.start("executor-s3")
    second = await until_asked_again(stage, intent, str(first["question_digest"]))
    stage.screen.fact("core", f"question {first['question_digest'][:12]} is void, asks {second[:12]} instead")
    await stage.require_nothing(export)
    said = await stage.decides("cho", "approve", intent)
    require(said.code == 0, f"the person on call was refused: {said}")
    await stage.agent.until(intent, Phase.SUCCEEDED)
    await stage.require_copied_once(export)


async def verified(stage: Stage) -> None:
    """The trail verifies, by code that shares nothing with what it checks."""
    stage.screen.chapter("5  An auditor checks all of it, trusting nobody")
    said = await stage.keyturn(None, "audit", "verify", "--dir", str(stage.world.folder))
    require(said.code == 0, f"`keyturn audit verify` ended with {said.code}:\n{said.text}")
    lines = [line.strip() for line in said.text.splitlines()]
    stage.screen.fact("auditor", f"keyturn audit verify -> exit {said.code}: {lines[0]}")
    stage.screen.fact("", next((line for line in lines if line.startswith("intents:")), ""))


CHAPTERS: Final = (approved, denied, expired, changed, verified)


# ---------------------------------------------------------------- running


async def tell(*, is_live: bool, screen: Screen) -> None:
    """The story, from an empty directory."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: stop.set() if stop_waits(stop) else main and main.cancel())
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True, mode=0o700)
    screen.chapter("Keyturn: nothing privileged runs until a person turns the key")
    sandbox = Sandbox(DIRECTORY, progress=downloading(screen))
    async with sandbox as world:
        screen.fact("services", f"Kafka {world.kafka.bootstrap}, S3 {world.s3.endpoint}, logins {world.issuer}")
        async with RunningRoles(DIRECTORY) as roles, opened(world) as s3:
            screen.fact("roles", ", ".join(roles.names))
            screen.fact("ready in", f"{time.monotonic() - screen.started:.1f} s")
            settings = world.settings(f"agent-{story.AGENT}")
            async with SandboxAgent(settings, story.AGENT, now, secrets.token_bytes) as agent:
                stage = Stage(world, roles, agent, s3, screen)
                for chapter in CHAPTERS:
                    await chapter(stage)
            screen.end(f"Everything happened as told, in {time.monotonic() - screen.started:.0f} s.")
            if is_live:
                screen.end(to_play_with())
                _LIVE.append(stop)
                await stop.wait()


_LIVE: list[asyncio.Event] = []


def stop_waits(stop: asyncio.Event) -> bool:
    """Whether the story is over and only waits to be stopped."""
    return stop in _LIVE


def to_play_with() -> str:
    """What to try next."""
    export = {**story.EXPORT, "destination_prefix": "mine/"}
    flags = " ".join(f"-p {name}={value}" for name, value in export.items())
    return (
        "It stays up until Ctrl-C. In another shell:\n"
        f'  eval "$(.venv/bin/keyturn sandbox env cho --dir {DIRECTORY})"\n'
        "  .venv/bin/keyturn ls\n"
        f"Or ask, as the agent with its key, over the gateway at {url(SandboxFolder(DIRECTORY).ports().gateway)}:\n"
        f"  .venv/bin/keyturn submit s3.export bucket/{story.CUSTOMERS} {flags} --reason why --dir {DIRECTORY} "
        f"--agent {story.AGENT} --wait\n"
        f"  .venv/bin/keyturn audit tail --dir {DIRECTORY}"
    )


@contextlib.asynccontextmanager
async def opened(world: SandboxWorld) -> AsyncIterator[Any]:
    """S3 as its administrator sees it."""
    client: Any = get_session().create_client(
        "s3",
        region_name=world.s3.region,
        endpoint_url=world.s3.endpoint,
        aws_access_key_id=world.s3.admin.access_key,
        aws_secret_access_key=world.s3.admin.secret_key,
        config=AioConfig(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    async with client as s3:
        yield s3


async def until_asked_again(stage: Stage, intent_id: str, first: str) -> str:
    """The digest of the question that replaces `first`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        digest = (await stage.card("cho", intent_id)).get("question_digest")
        if digest and digest != first:
            return str(digest)
        await stage.agent.status(intent_id)
    raise StoryError("nobody was asked again within 60 s")


def shown_plan(card: dict[str, Any]) -> str:
    """The plan's summary, as the card shows it."""
    return one_line(line_of(card, "the plan in short") or "the card shows no plan")


def asked_of(card: dict[str, Any]) -> str:
    """Who is asked, as the API says."""
    requirement = card["requirement"]
    seats = ", ".join(seat["of"] for seat in requirement["seats"])
    return f"asks {seats}, assurance {requirement['assurance']}, within {requirement['within']} s"


def line_of(card: dict[str, Any], label: str) -> str | None:
    """The text of the first line of a card with this label."""
    for section in card["card"]["sections"]:
        for line in section["lines"]:
            if line["label"] == label:
                return str(line["text"])
    return None


def described(properties: dict[str, Any]) -> str:
    """Where from, where to."""
    source = f"{properties['source_bucket']}/{properties['source_prefix']}"
    return f"s3.export {source} -> {properties['destination_bucket']}/{properties['destination_prefix']}"


def one_line(text: str) -> str:
    """Text on one line, bounded."""
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def require(holds: bool, otherwise: str) -> None:
    """The story goes on only if it is true."""
    if not holds:
        raise StoryError(otherwise)


def downloading(screen: Screen) -> jars.Progress:
    """Say once that Kafka is being fetched, and once that it is there."""
    told: set[bool] = set()

    def progress(done: int, total: int, size: int) -> None:
        is_done = done == total
        if total and is_done not in told:
            told.add(is_done)
            what = f"{total} jars, {size / 1e6:.0f} MB, checked" if is_done else f"fetching {total} jars, once"
            screen.fact("Kafka", what)

    return progress


def now() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def main(words: list[str]) -> int:
    """Tell the story."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--live", action="store_true", help="leave it running to play with")
    chosen = parser.parse_args(words)
    # What goes wrong reaches the screen as an exception; the services' own words are in their logs.
    logging.getLogger("sandbox").addHandler(logging.NullHandler())
    quiet_client_logs()
    screen = Screen(not sys.stdout.isatty() or "NO_COLOR" in os.environ, time.monotonic())
    try:
        asyncio.run(tell(is_live=chosen.live, screen=screen))
    except (StoryError, PatienceError, SandboxError) as error:
        print(f"\nThe story stops here: {error}\nLogs: {DIRECTORY}/logs", file=sys.stderr)  # noqa: T201
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("\nStopped.", file=sys.stderr)  # noqa: T201
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
