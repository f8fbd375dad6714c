"""The live documents at the versions in force, and how a new version comes into force. No I/O, no clock.

A snapshot counts when a pinned root key signed it (a roster: or a key the directory allows), it is exactly the next
version, and it names its predecessor's digest. Whoever reads the same topics has the same world, in whatever order the
topics reach it: a roster whose key the directory does not list *yet* is deferred and tried again after each change.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Final, TypeAlias

from schemas import ids
from schemas.authority import Authority
from schemas.record import RecordError, Statement
from schemas.records import Refusal, Versions
from schemas.signing import KeyRing
from schemas.snapshots import Directory, Manifests, Policies, Roster, Snapshot
from schemas.timing import LEADER_SKEW_MS

RULES: Final = "rules-2"
"""The version of the rules in code that a decision rests on; changes when the same inputs may answer differently."""

DEFERRED_AT_MOST: Final = 64

LiveDocument: TypeAlias = Directory | Roster | Policies | Manifests
SNAPSHOTS: Final[tuple[type[LiveDocument], ...]] = (Directory, Roster, Policies, Manifests)


class SnapshotError(ValueError):
    """A snapshot that does not come into force; the message says why."""

    def __init__(self, refusal: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.refusal = refusal


@dataclass(frozen=True)
class World:
    """What is in force. Directory and roster keep every version: circles are unions over them."""

    realm: str
    #: Pinned public root keys (base64) by key id. They get here by settings, never by Kafka.
    roots: tuple[tuple[str, str], ...]
    directories: tuple[Directory, ...] = ()
    #: The log time at which each of them came into force.
    directories_since: tuple[int, ...] = ()
    rosters: tuple[Roster, ...] = ()
    policies: Policies | None = None
    manifests: Manifests | None = None
    digests: tuple[tuple[str, str], ...] = ()
    #: Rosters that may still come into force, with their log times: the directory that lists their key, or the
    #: version before them, has not been read yet.
    deferred: tuple[tuple[Statement, int], ...] = ()
    #: Ids of this time and before may be from before a restore: nothing of theirs leads to an act. 0: never restored.
    restored_to: int = 0

    @property
    def directory(self) -> Directory | None:
        """The directory in force."""
        return self.directories[-1] if self.directories else None

    @cached_property
    def authority(self) -> Authority:
        """Keys of the directory in force; of an empty one before the first."""
        return Authority(self.realm, self.directory or Directory(version=1))

    def is_root_signed(self, statement: Statement) -> bool:
        """Whether a pinned root key signed it, whatever the directory says."""
        return self._ring.verifies(self.realm, statement.type, statement.value, statement.keyid, statement.sig)

    @cached_property
    def versions(self) -> Versions:
        """What is in force, by number; 0 where there is nothing yet."""
        return Versions(
            directory=len(self.directories),
            roster=len(self.rosters),
            policies=self.policies.version if self.policies else 0,
            manifests=self.manifests.version if self.manifests else 0,
            rules=RULES,
        )

    @property
    def is_complete(self) -> bool:
        """Whether there is a directory, a policy and a manifest to decide with."""
        return bool(self.directories and self.policies and self.manifests)

    def directories_between(self, first: int, last: int) -> Iterable[Directory]:
        """Every directory version first..last."""
        return self.directories[max(first, 1) - 1 : last]

    def circle_begins(self, asked_at: int, cited: int) -> int:
        """Law 2: the first directory version that the circle of what was asked at this log time covers.

        The one in force when it was asked, by the slowest of the leaders' clocks; never a later one than intake cites,
        which may have read long after the asking.
        """
        earliest = asked_at - LEADER_SKEW_MS
        # The log may step back: the first version that came later ends the search, whatever lies behind it.
        before = sum(1 for _ in takewhile(lambda since: since < earliest, self.directories_since))
        return max(min(before, cited), 1)

    def restored(self, until: int) -> "World":
        """The world after a restore: ids up to `until` lead to no act. It never goes back."""
        return replace(self, restored_to=max(self.restored_to, until))

    def is_from_before(self, intent_id: str) -> bool:
        """Law 4: whether this id may have been seen, and acted on, before the log was restored."""
        return ids.split(intent_id)[1] <= self.restored_to

    def with_snapshot(self, statement: Statement, log_time: int) -> "World":
        """The world after this signed snapshot. SnapshotError, and no change, when it does not come into force.

        A roster that may still come into force is deferred: the versions stay, `deferred` grows.
        """
        try:
            return self._with(statement, log_time)._settled()
        except SnapshotError as exc:
            if not self._may_come_later(statement, exc):
                raise
            return replace(self, deferred=(*self.deferred, (statement, log_time)))

    def _with(self, statement: Statement, log_time: int) -> "World":
        snapshot = self._read(statement)
        self._require_signature(statement, log_time)
        self._require_successor(snapshot)
        digests = tuple(sorted({**dict(self.digests), snapshot.TYPE: statement.digest}.items()))
        match snapshot:
            case Directory():
                return replace(
                    self,
                    directories=(*self.directories, snapshot),
                    directories_since=(*self.directories_since, log_time),
                    digests=digests,
                )
            case Roster():
                return replace(self, rosters=(*self.rosters, snapshot), digests=digests)
            case Policies():
                return replace(self, policies=snapshot, digests=digests)
            case _:
                return replace(self, manifests=snapshot, digests=digests)

    def _settled(self) -> "World":
        """With every deferred roster that can come into force now; the same whatever came first."""
        for index, (statement, log_time) in enumerate(self.deferred):
            rest = replace(self, deferred=self.deferred[:index] + self.deferred[index + 1 :])
            try:
                return rest._with(statement, log_time)._settled()
            except SnapshotError as exc:
                if not rest._may_come_later(statement, exc):
                    return rest._settled()
        return self

    def _may_come_later(self, statement: Statement, why: SnapshotError) -> bool:
        """Only rosters rest on another topic; who may write them is bounded by Kafka's rights, and so is this list."""
        if statement.type != Roster.TYPE or len(self.deferred) >= DEFERRED_AT_MOST:
            return False
        version = statement.body.get("version")
        if not isinstance(version, int) or version <= len(self.rosters):
            return False
        return why.refusal in {Refusal.BAD_SIGNATURE, Refusal.STALE_WORLD}

    def version_of(self, kind: type[Snapshot]) -> int:
        """The version in force of one kind of snapshot."""
        versions = self.versions
        by_kind: dict[type[Snapshot], int] = {
            Directory: versions.directory,
            Roster: versions.roster,
            Policies: versions.policies,
            Manifests: versions.manifests,
        }
        return by_kind[kind]

    def _read(self, statement: Statement) -> LiveDocument:
        for kind in SNAPSHOTS:
            if statement.type == kind.TYPE:
                try:
                    return statement.read(kind)
                except RecordError as exc:
                    raise SnapshotError(Refusal.MALFORMED, str(exc)) from exc
        raise SnapshotError(Refusal.MALFORMED, f"{statement.type} is not a live document")

    def _require_signature(self, statement: Statement, log_time: int) -> None:
        """DESIGN §7: the root keys are pinned by every role; a roster may also come from a sync's key."""
        if self.is_root_signed(statement):
            return
        if statement.type == Roster.TYPE and self.authority.refuses(statement, log_time) is None:
            return
        raise SnapshotError(
            Refusal.BAD_SIGNATURE, f"{statement.type}: not signed by a pinned root key; see KEYTURN_ROOT_KEYS"
        )

    @cached_property
    def _ring(self) -> KeyRing:
        return KeyRing(dict(self.roots))

    def _require_successor(self, snapshot: Snapshot) -> None:
        """T16: versions only grow, and each names the one before it: no roll-back, no fork."""
        in_force = self.version_of(type(snapshot))
        if snapshot.version != in_force + 1:
            raise SnapshotError(
                Refusal.STALE_WORLD, f"{snapshot.TYPE} version {snapshot.version} after version {in_force}"
            )
        if snapshot.previous != dict(self.digests).get(snapshot.TYPE):
            raise SnapshotError(
                Refusal.CONFLICT, f"{snapshot.TYPE} version {snapshot.version} names another predecessor"
            )
