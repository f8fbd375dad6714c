"""Bringing the next directory, roster, policies or manifests into force: numbered, chained, signed, read back.

A version is written only if it would come into force (`schemas.world` says so beforehand) and counts as applied only
when it was read back: of two administrators at once one is told that the other was first. No change writes nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from aiokafka.errors import KafkaError

from schemas import envelope
from schemas.snapshots import Directory, Manifest, Manifests, Policies, Roster, Snapshot
from schemas.topics import WORLD
from schemas.world import SNAPSHOTS, World
from streams import drafts
from streams.drafts import DraftError
from streams.errors import StreamError
from streams.producing import Speaker
from streams.settings import Settings
from streams.worlds import WorldView

SOURCE: Final = "administration"
NOUNS: Final[dict[type[Snapshot], str]] = {
    Directory: "directory",
    Roster: "roster",
    Policies: "policy",
    Manifests: "manifest",
}
"""What each document is called on the command line."""

S = TypeVar("S", bound=Snapshot)
Require = Callable[[World], None]
"""Raises, with the reason, when the world with the new version in it could not be meant."""


class OvertakenError(StreamError):
    """Somebody else's version came first; look at it, then apply again."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What is in force now, and what made the difference."""

    document: str
    version: int
    digest: str
    changes: tuple[str, ...]
    #: What it leaves empty so that somebody's word can never count.
    gaps: tuple[str, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether a version was written."""
        return bool(self.changes)


def in_force(world: World, kind: type[S]) -> tuple[S | None, str | None]:
    """The version of a document in force, and its digest."""
    newest = (world.directory, world.rosters[-1] if world.rosters else None, world.policies, world.manifests)
    found = next((one for one in newest if isinstance(one, kind)), None)
    return found, dict(world.digests).get(kind.TYPE)


async def read_world(settings: Settings) -> World:
    """Everything in force, read to the end as of now."""
    async with WorldView(settings) as view:
        return view.world


async def apply_directory(settings: Settings, file: Path, now: int) -> Applied:
    """Bring a directory draft into force; `now` (Unix milliseconds) is since when its new keys are valid."""
    draft = drafts.load(_text(file), str(file))

    def successor(world: World) -> Directory:
        made.append(drafts.directory(draft, file.parent, *in_force(world, Directory), now))
        return made[-1]

    made: list[Directory] = []
    applied = await _apply(settings, Directory, successor, now)
    return replace(applied, gaps=drafts.gaps(made[-1]))


async def apply_roster(settings: Settings, file: Path, now: int) -> Applied:
    """Bring a roster draft into force."""
    draft = drafts.load(_text(file), str(file))

    def successor(world: World) -> Roster:
        return drafts.roster(draft, world.directory, *in_force(world, Roster))

    return await _apply(settings, Roster, successor, now)


async def apply_policies(settings: Settings, files: Iterable[Path], now: int, require: Require) -> Applied:
    """Bring these Cedar files, one after the other, into force."""
    cedar = "\n".join(_text(file).strip() + "\n" for file in files)

    def successor(world: World) -> Policies:
        return drafts.policies(cedar, *in_force(world, Policies))

    return await _apply(settings, Policies, successor, now, require)


async def apply_manifests(settings: Settings, installed: Iterable[Manifest], now: int, require: Require) -> Applied:
    """Bring exactly these executors' manifests into force."""
    known = tuple(installed)

    def successor(world: World) -> Manifests:
        return drafts.manifests(known, *in_force(world, Manifests))

    return await _apply(settings, Manifests, successor, now, require)


async def _apply(
    settings: Settings,
    kind: type[S],
    successor: Callable[[World], S],
    now: int,
    require: Require = lambda _: None,
) -> Applied:
    async with WorldView(settings) as view:
        before, digest = in_force(view.world, kind)
        wanted = successor(view.world)
        name = NOUNS[kind]
        changed = drafts.changes(before, wanted)
        if before is not None and digest is not None and not changed:
            return Applied(name, before.version, digest, ())
        sealed = envelope.seal(wanted, str(wanted.version), settings.signer(), settings.realm, source=SOURCE)
        statement = envelope.unseal(sealed.headers, sealed.value, SNAPSHOTS)
        expected = view.world.with_snapshot(statement, now)
        if dict(expected.digests).get(kind.TYPE) != statement.digest:
            raise DraftError(f"{name}: the key {statement.keyid} may not sign it; see the directory's keys")
        require(expected)
        topic = next(settings.names.of(topic) for topic in WORLD if kind in topic.types)
        try:
            async with Speaker(settings) as speaker:
                await speaker.say(topic, 0, sealed)
            after = await view.caught_up()
        except KafkaError as exc:
            raise StreamError(f"{topic}: version {wanted.version} may be written or not; apply again: {exc!r}") from exc
        if dict(after.digests).get(kind.TYPE) != statement.digest:
            raise OvertakenError(
                f"{name} version {wanted.version}: somebody else's came first; see `keyturn {name} show`, apply again"
            )
        # A first version may be empty, and is new all the same.
        return Applied(name, wanted.version, statement.digest, changed or ("the first version",))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DraftError(f"{file}: {exc}") from exc
