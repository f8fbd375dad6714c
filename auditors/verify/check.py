"""The whole check: lines in, a report out. Streaming over the trail; no I/O, no clock.

First every line of the world topics and, if there are any, of the raw topics; then the trail in its topic's order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from . import canonical, signatures
from .chains import KEY, Chains
from .findings import Fault, Report
from .inputs import RAW, Raw
from .lines import WORLD, Line, Unreadable
from .shapes import Audit, ShapeError
from .world import Shelf

AUDIT: Final = "keyturn.audit.v1"


@dataclass(frozen=True, slots=True)
class Head:
    """A record that an auditor remembers from the last time."""

    chain: str
    seq: int
    digest: str


class Verification:
    """One check of one bundle: `take` everything but the trail, then `take_audit` each of its lines, then `finish`."""

    def __init__(self, root_keys: Iterable[str], *, realm: str | None = None, heads: Iterable[Head] = ()) -> None:
        """`root_keys`: public keys, base64, got out of band. A realm that is not named is learnt from the trail."""
        self._roots = {signatures.keyid_of(key): key for key in root_keys}
        self.report = Report(realm=realm)
        self._shelf = Shelf(self._roots, realm)
        self._raw = Raw(self.report, self._shelf)
        self._chains = Chains(self.report, self._shelf, self._raw)
        self._heads = {(head.chain, head.seq): head.digest for head in heads}
        self._offset = -1

    def take(self, line: Line | Unreadable) -> None:
        """A line of any topic but `audit`."""
        if isinstance(line, Unreadable):
            self._unreadable(line)
        elif line.topic in WORLD:
            self._shelf.take(line)
        elif line.topic in RAW:
            self._raw.take(line)
        elif line.topic.startswith("approved."):
            self._raw.take_output(line)

    def take_audit(self, line: Line | Unreadable) -> None:
        """The next record of the trail."""
        if isinstance(line, Unreadable):
            self._unreadable(line)
            return
        self.report.records += 1
        if line.offset <= self._offset or line.partition != 0:
            self._fault(line, "trail.order", f"offset {line.offset} after {self._offset}")
        self._offset = max(self._offset, line.offset)
        audit = self._read(line)
        if audit is not None:
            self._chains.take(audit, audit.realm)

    def finish(self) -> Report:
        """The report, once every line was taken."""
        for chain, seq in self._heads:
            self.report.fault(Fault("trail.head", "it is not there", chain, seq))
        self._raw.finish()
        self._chains.finish()
        return self.report

    # ------------------------------------------------------------ one record

    def _read(self, line: Line) -> Audit | None:
        """The record of this line. None when it is none: then the chain its key names is in doubt."""
        if line.value is None:
            self._fault(line, "trail.tombstone", "a null value")
            self._lose(line, b"")
            return None
        try:
            members = canonical.decode(line.value)
            audit = Audit.read(members, canonical.digest(line.value), line.offset, line.timestamp)
        except (canonical.NotCanonicalError, ShapeError) as exc:
            self._fault(line, "trail.malformed", str(exc))
            self._lose(line, line.value)
            return None
        if line.key != f"{audit.chain}/{audit.seq}".encode():
            self._fault(line, "trail.key", f"the key is {line.key!r}"[:300], audit)
        self._require_realm(line, audit)
        self._require_signature(line, audit, line.value)
        self._compare_head(line, audit)
        return audit

    def _require_realm(self, line: Line, audit: Audit) -> None:
        if self.report.realm is None:
            self.report.realm = audit.realm
        if self._shelf.realm is None:
            self._shelf.realm = self.report.realm
        if audit.realm != self.report.realm:
            self._fault(line, "trail.realm", f"{audit.realm}, not {self.report.realm}", audit)

    def _require_signature(self, line: Line, audit: Audit, value: bytes) -> None:
        keyid, sig = line.header("keyid"), line.header("sig")
        if keyid is None or sig is None or line.header("ce_type") != AUDIT:
            self._fault(line, "trail.signature", "not exactly one ce_type, keyid and sig", audit)
            return
        key = self._shelf.newest_key(keyid)
        if key is None or key.role != "core":
            self._fault(line, "trail.signature", f"{keyid[:64]} is no core key of the directory", audit)
        elif not key.is_valid(line.timestamp):
            self._fault(line, "trail.signature", f"key {keyid} is not valid at {line.timestamp}", audit)
        elif not signatures.fits(key.public, self.report.realm or "", AUDIT, value, sig):
            self._fault(line, "trail.signature", f"not what {keyid} signed in this realm", audit)

    def _compare_head(self, line: Line, audit: Audit) -> None:
        digest = self._heads.pop((audit.chain, audit.seq), None)
        if digest is not None and digest != audit.digest:
            self._fault(line, "trail.head", f"remembered was {digest}, here is {audit.digest}", audit)

    def _lose(self, line: Line, value: bytes) -> None:
        chain, seq = _named(line)
        if chain is not None and seq is not None:
            self._chains.lose(chain, seq, canonical.digest(value))

    def _unreadable(self, line: Unreadable) -> None:
        self.report.fault(Fault("bundle.line", f"{line.where}: {line.reason}"[:400], topic=line.topic))

    def _fault(self, line: Line, code: str, what: str, audit: Audit | None = None) -> None:
        chain, seq = (audit.chain, audit.seq) if audit is not None else _named(line)
        intent = audit.intent if audit is not None else None
        self.report.fault(Fault(code, what, chain, seq, line.topic, line.partition, line.offset, intent))


def _named(line: Line) -> tuple[str | None, int | None]:
    """Which record the key says this is."""
    match = KEY.fullmatch((line.key or b"").decode(errors="replace"))
    return (match[1], int(match[2])) if match is not None else (None, None)
