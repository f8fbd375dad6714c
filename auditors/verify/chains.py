"""Each chain as such: numbers without a gap, each record naming the one before, each input once. No I/O."""

import re
from dataclasses import dataclass, field
from typing import Final

from .canonical import Members
from .findings import Fault, Report
from .inputs import Raw
from .life import LEADER_SKEW_MS, is_sayable, restored_to
from .lines import INPUTS, WORLD
from .lives import Lives
from .shapes import (
    Audit,
    Place,
    ShapeError,
    Statement,
    Versions,
    maybe_text,
    part,
    require_form,
    text,
    whole,
)
from .world import TYPES, Broken, ChainWorld, Shelf, Snapshot

CHAIN: Final = re.compile(r"core-(0|[1-9][0-9]{0,5})")
KEY: Final = re.compile(r"(core-(?:0|[1-9][0-9]{0,5}))/([1-9][0-9]{0,15})")
"""The key of a record: `<chain>/<seq>`."""
OPERATIONS: Final = {
    "input.skipped": "keyturn.skip.v1",
    "input.redriven": "keyturn.redrive.v1",
    "realm.restored": "keyturn.restore.v1",
}
"""What operators say, by the event it is on the trail."""
REPLICA_LAG_MS: Final = 30_000
"""Kafka's `replica.lag.time.max.ms`: a replica that is slower no longer holds an acknowledgement up."""
BEFORE_CLAIM: Final = frozenset({*WORLD, "classified", "decisions"})


@dataclass(slots=True)
class _Chain:
    world: ChainWorld
    seq: int = 0
    digest: str | None = None
    #: No record is missing so far.
    is_whole: bool = True
    #: By input topic: the last offset answered, and the highest log time.
    answered: dict[str, int] = field(default_factory=dict)
    log_times: dict[str, int] = field(default_factory=dict)
    ticked: set[str] = field(default_factory=set)
    rules: str | None = None
    last_claim: int = 0
    last_tick: int = 0


class Chains:
    """All chains of a trail."""

    def __init__(self, report: Report, shelf: Shelf, raw: Raw) -> None:
        """Faults and figures go to `report`."""
        self._report = report
        self._shelf = shelf
        self._raw = raw
        self._lives = Lives(report)
        self._chains: dict[str, _Chain] = {}

    def lose(self, chain: str, seq: int, digest: str) -> None:
        """A record stands there and cannot be read: count it, and doubt what rests on it."""
        here = self._chains.get(chain)
        if here is not None and here.seq + 1 == seq:
            here.seq, here.digest = seq, digest
        if here is not None:
            self._doubt(chain, here)

    def take(self, audit: Audit, realm: str) -> None:
        """One record of the trail, in the topic's order."""
        here = self._chains.setdefault(audit.chain, _Chain(ChainWorld(realm)))
        if not self._link(audit, here):
            return
        self._require_chain(audit)
        self._require_source(audit, here)
        self._require_time(audit, here)
        if audit.event in {"world.changed", "world.deferred"}:
            self._change_world(audit, here)
        self._require_versions(audit, here)
        match audit.event:
            case "world.changed" | "world.deferred":
                pass
            case "input.quarantined":
                self._quarantined(audit, here)
            case "input.skipped" | "input.redriven" | "realm.restored":
                self._operated(audit, here)
            case _:
                self._raw.compare(audit)
                self._lives.take(audit, here.world, realm, is_whole=here.is_whole)
        self._report.heads[audit.chain] = (audit.seq, audit.digest)

    def finish(self) -> None:
        """Into the report: where every intent is, and which versions the newest chain has."""
        self._lives.count()
        for name, here in self._chains.items():
            self._require_nothing_waits(name, here)
            for kind, version in here.world.versions.items():
                self._report.versions[kind] = max(self._report.versions.get(kind, 0), version)

    def _require_nothing_waits(self, name: str, here: _Chain) -> None:
        """What this chain never answered, though it decided claims or ticks long after."""
        match = CHAIN.fullmatch(name)
        if match is None or not here.is_whole:
            return
        for topic in WORLD:
            for offset, at in self._shelf.after(topic, here.answered.get(topic, -1)):
                self._require_barrier(name, here, Place(topic, 0, offset), at)
        for topic in ("classified", "decisions", "reports"):
            for offset, at in self._raw.waiting(topic, int(match[1])):
                self._require_barrier(name, here, Place(topic, int(match[1]), offset), at)

    # ------------------------------------------------------------ the links

    def _link(self, audit: Audit, here: _Chain) -> bool:
        """Law 10. False: the record came before, and changes nothing."""
        if audit.seq <= here.seq:
            self._fault(audit, "trail.repeated", f"number {audit.seq} after {here.seq}")
            return False
        if audit.seq != here.seq + 1:
            self._fault(audit, "trail.gap", f"number {audit.seq} after {here.seq}")
            self._doubt(audit.chain, here)
        elif audit.prev != here.digest:
            self._fault(audit, "trail.prev", f"prev is {audit.prev}, the record before is {here.digest}")
        here.seq, here.digest = audit.seq, audit.digest
        return True

    def _doubt(self, chain: str, here: _Chain) -> None:
        here.is_whole = False
        here.answered.clear()
        self._lives.doubt(chain)

    def _require_chain(self, audit: Audit) -> None:
        match = CHAIN.fullmatch(audit.chain)
        source = audit.source
        if match is None:
            self._fault(audit, "trail.chain", f"{audit.chain} is no chain of a core partition")
        elif source.topic in WORLD:
            if source.partition != 0:
                self._fault(audit, "trail.chain", f"{source} does not exist")
        elif source.topic not in INPUTS or source.partition != int(match[1]):
            self._fault(audit, "trail.chain", f"{source} is no input of {audit.chain}")

    def _require_source(self, audit: Audit, here: _Chain) -> None:
        """Laws 9 and 11: every offset once, in order. Ticks that moved nothing are not on the trail."""
        topic, offset = audit.source.topic, audit.source.offset
        last = here.answered.get(topic)
        if topic == "ticks":
            if last is not None and offset < last:
                self._fault(audit, "input.repeated", f"tick {offset} after {last}")
            if offset != last:
                here.ticked.clear()
            if audit.intent is not None and audit.intent in here.ticked:
                self._fault(audit, "input.repeated", "one tick moved one intent twice")
            here.ticked.add(audit.intent or "")
        elif last is not None and offset <= last:
            self._fault(audit, "input.repeated", f"{audit.source} after {last}")
        else:
            # A genesis record may lie at offset 0, and is not answered.
            due = last + 1 if last is not None else offset if not here.is_whole else 0 if offset == 0 else 1
            if offset != due:
                self._fault(audit, "input.omitted", f"{topic}/{audit.source.partition}: {due} to {offset - 1}")
        here.answered[topic] = max(offset, last if last is not None else -1)

    def _require_time(self, audit: Audit, here: _Chain) -> None:
        """Law 5, and the barrier of law 4 as far as log times can show it."""
        topic, at = audit.source.topic, audit.log_time
        newest = here.log_times.get(topic, 0)
        if at + LEADER_SKEW_MS < newest:
            self._fault(audit, "trail.time", f"{at} after {newest} on {topic}")
        if audit.timestamp + LEADER_SKEW_MS < at:
            self._fault(audit, "trail.time", f"audited at {audit.timestamp}, before its input of {at}")
        here.log_times[topic] = max(newest, at)
        self._require_barrier(audit.chain, here, audit.source, at)
        if topic == "ticks":
            here.last_tick = max(here.last_tick, at)
        elif audit.event.startswith("claim."):
            here.last_claim = max(here.last_claim, at)

    def _require_barrier(self, chain: str, here: _Chain, source: Place, at: int) -> None:
        """Law 4: what was acknowledged before a claim or tick is decided before it.

        A record is acknowledged when its replicas have it, so one that log times alone put earlier may have come
        later; but not by more than Kafka lets a replica lag.
        """
        limit = max(
            here.last_claim if source.topic in BEFORE_CLAIM else 0,
            here.last_tick if source.topic in BEFORE_CLAIM or source.topic == "reports" else 0,
        )
        what = f"{source} of {at} was not decided when a claim or tick of {limit} was"
        if at + REPLICA_LAG_MS + LEADER_SKEW_MS < limit:
            fault = Fault("input.overtaken", what, chain, here.seq, source.topic, source.partition, source.offset)
            self._report.fault(fault)
        elif at + LEADER_SKEW_MS < limit:
            self._report.note(f"{chain}/{here.seq}: {what}: right only if it was not acknowledged by then")

    # ------------------------------------------------------------ the world

    def _change_world(self, audit: Audit, here: _Chain) -> None:
        kind = audit.source.topic
        found = self._shelf.at(kind, audit.source.offset) if kind in WORLD else None
        if not isinstance(found, Snapshot):
            what = found.reason if isinstance(found, Broken) else "nothing that could come into force"
            self._fault(audit, "world.snapshot", f"at {audit.source} lies {what}"[:400])
            return
        if found.statement.digest != audit.sha256 or audit.reason != TYPES[kind]:
            self._fault(audit, "world.snapshot", f"at {audit.source} lies {found.statement.digest}")
        if found.log_time != audit.log_time:
            self._fault(audit, "input.differs", f"{audit.source} was appended at {found.log_time}")
        objection = here.world.objection(found)
        if audit.event == "world.deferred":
            if objection is None or not here.world.may_come_later(found, objection):
                self._fault(audit, "world.ignored", f"version {found.version} of {kind} had nothing to wait for")
            here.world.deferred.append(found)
            return
        if objection is not None:
            self._fault(audit, *objection)
        here.world.take(found)

    def _quarantined(self, audit: Audit, here: _Chain) -> None:
        """An input that nobody could read, or that may not come here."""
        self._report.refusals[audit.refusal or "none"] += 1
        if audit.refusal is None or audit.before is not None or audit.after is not None or audit.said:
            self._fault(audit, "life.transition", "a quarantined input moves and says nothing")
        if audit.refusal == "internal":
            self._report.note(f"{audit.chain}/{audit.seq}: refused as `internal`: {(audit.reason or '')[:200]}")
        if audit.source.topic not in WORLD:
            self._raw.compare(audit)
            return
        self._raw.compare_world(audit)
        found = self._shelf.at(audit.source.topic, audit.source.offset)
        if isinstance(found, Snapshot) and here.is_whole and here.world.objection(found) is None:
            what = f"{audit.chain}/{audit.seq}: version {found.version} of {found.kind} was refused: {audit.refusal}"
            if audit.refusal == "malformed":  # closer read there than here
                self._report.note(f"{what}: {(audit.reason or '')[:200]}")
            else:
                self._fault(audit, "world.ignored", what)

    def _operated(self, audit: Audit, here: _Chain) -> None:
        """What an operator did about inputs that are gone or set aside. Only a skip moves anything: what is due."""
        self._raw.compare(audit)
        if audit.before is not None or audit.after is not None or audit.said:
            self._fault(audit, "life.transition", f"{audit.event} moves and says nothing")
        statement = audit.statement
        kind = OPERATIONS[audit.event]
        if audit.refusal is not None:
            self._report.refusals[audit.refusal] += 1
            if kind == "keyturn.restore.v1" and statement is not None:
                self._not_heeded(audit, statement)
            return
        if statement is None or statement.type != kind:
            self._fault(audit, "statement.malformed", f"{audit.event} without its {kind}")
            return
        try:
            require_form(statement)
        except ShapeError as exc:
            self._fault(audit, "statement.malformed", str(exc))
            return
        if kind == "keyturn.skip.v1":
            self._skipped(audit, statement, here)
        elif kind == "keyturn.restore.v1":
            self._restored(audit, statement, here)
        elif here.is_whole and here.world.directory.refuses(statement, audit.log_time, here.world.realm) is not None:
            self._fault(audit, "statement.signature", "not signed by an operator of the directory")

    def _skipped(self, audit: Audit, statement: Statement, here: _Chain) -> None:
        """Law 11: a hole in the inputs is on the trail, signed by a root key, and begins where the chain stood."""
        if not self._shelf.is_root_signed(statement):
            self._fault(audit, "statement.signature", f"inputs were skipped by {statement.keyid}, which is no root key")
        body = statement.body
        topic, partition = text(body, "topic"), whole(body, "partition")
        position, until = whole(body, "position"), whole(body, "until")
        own = 0 if topic in WORLD else int(match[1]) if (match := CHAIN.fullmatch(audit.chain)) else -1
        if topic not in {*WORLD, *INPUTS} - {audit.source.topic} or partition != own:
            self._fault(audit, "input.skipped", f"{topic}/{partition} is no input of {audit.chain}")
            return
        last = here.answered.get(topic)
        # Before the first answer there may be a genesis record.
        if here.is_whole and position not in ({last + 1} if last is not None else {0, 1}):
            stood = "nothing was answered" if last is None else f"{last} was the last answered"
            self._fault(audit, "input.skipped", f"{topic}/{partition} from {position}, where {stood}")
        here.answered[topic] = until - 1
        self._raw.skip(topic, partition, position, until)
        self._report.note(
            f"{audit.chain}/{audit.seq}: a root key declared {topic}/{partition}/{position} lost, on at {until}: "
            f"{(audit.reason or '')[:200]}"
        )

    def _restored(self, audit: Audit, statement: Statement, here: _Chain) -> None:
        """Law 4: from here on what was asked before leads to no act; a root key says so of this chain as it stands."""
        if not self._shelf.is_root_signed(statement):
            self._fault(audit, "statement.signature", f"restored by {statement.keyid}, which is no root key")
        if (why := _unrestorable(audit, statement.body)) is not None:
            self._fault(audit, "realm.restored", why)
        here.world.restored_to = max(here.world.restored_to, restored_to(audit.log_time, whole(statement.body, "at")))
        self._report.note(
            f"{audit.chain}/{audit.seq}: a root key declared the realm restored; ids up to "
            f"{here.world.restored_to} lead to no act: {(audit.reason or '')[:200]}"
        )

    def _not_heeded(self, audit: Audit, statement: Statement) -> None:
        """Law 4: what a root key says of this chain as it stands is heeded; else what was done before is done again."""
        try:
            require_form(statement)
        except ShapeError:
            return
        if (
            statement.type == "keyturn.restore.v1"
            and self._shelf.is_root_signed(statement)
            and _unrestorable(audit, statement.body) is None
        ):
            self._fault(audit, "refusal.unfounded", f"a true restore was refused: {audit.refusal}")

    def _require_versions(self, audit: Audit, here: _Chain) -> None:
        """Versions change by `world.changed` of this chain and by nothing else."""
        cited = audit.versions
        if cited.numbers != here.world.versions:
            if here.is_whole:
                self._fault(audit, "world.versions", f"{_shown(cited)} where {here.world.versions} are in force")
            here.world.follow(cited.numbers, self._shelf)
        if here.rules is not None and here.rules != cited.rules:
            self._report.note(f"{audit.chain}/{audit.seq}: rules in code changed from {here.rules} to {cited.rules}")
        here.rules = cited.rules

    def _fault(self, audit: Audit, code: str, what: str) -> None:
        place = audit.source
        self._report.fault(
            Fault(code, what, audit.chain, audit.seq, place.topic, place.partition, place.offset, audit.intent)
        )


def _shown(versions: Versions) -> dict[str, int]:
    return versions.numbers


def _unrestorable(audit: Audit, body: Members) -> str | None:
    """Why a restore is no word on this chain where it was heard; None when it is."""
    head, at = part(body, "head"), whole(body, "at")
    chain, seq = f"core-{whole(body, 'partition')}", whole(head, "seq") if "seq" in head else 0
    if (chain, seq, maybe_text(head, "digest")) != (audit.chain, audit.seq - 1, audit.prev):
        return f"said of {chain}/{seq}, and heard at {audit.seq}"
    return None if is_sayable(at, audit.log_time) else f"said at {at}, long after {audit.log_time}"
