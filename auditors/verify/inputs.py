"""The raw topics, when the bundle has them: the trail shows what lay there, and nothing is left out. No I/O."""

import hashlib
import re
from collections import Counter
from typing import Final

from . import canonical
from .canonical import Members
from .findings import Fault, Report
from .lines import INPUTS, Line, map_name
from .shapes import Audit, Place, ShapeError, Statement, part, whole
from .world import GENESIS, Broken, Shelf, Snapshot

NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
RAW: Final = ("intents", *INPUTS, "quarantine")


class Raw:
    """What lay on the input topics and on `approved.*`."""

    def __init__(self, report: Report, shelf: Shelf) -> None:
        """Faults and figures go to `report`."""
        self._report = report
        self._shelf = shelf
        #: By partition: offset -> what identifies the record there.
        self._records: dict[tuple[str, int], dict[int, tuple[bytes, bytes, int]]] = {}
        self._starts: dict[tuple[str, int], int] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._outputs: Counter[tuple[str, str]] = Counter()
        self._places: dict[tuple[str, str], Line] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._answered: dict[tuple[str, int], int] = {}
        #: Holes, told when the whole trail was read: it may say that they were declared.
        self._gaps: list[tuple[Line, int]] = []
        self._skips: list[tuple[str, int, int, int]] = []
        self._intents: set[tuple[int, int]] = set()
        self._quarantined: set[tuple[int, int]] = set()

    def take(self, line: Line) -> None:
        """One record of an input topic."""
        place = (line.topic, line.partition)
        due = self._ends.get(place)
        if due is not None and line.offset != due and line.topic != "quarantine":
            self._gaps.append((line, due))
        self._ends[place] = line.offset + 1
        self._starts.setdefault(place, line.offset)
        if line.offset == 0 and line.header("ce_type") == GENESIS:
            return
        value = line.value or b""
        if line.topic == "quarantine":
            self._set_aside(value)
        seal = f"{line.header('keyid')} {line.header('sig')}".encode()
        self._records.setdefault(place, {})[line.offset] = (
            hashlib.sha256(value).digest(),
            hashlib.sha256(seal).digest(),
            line.timestamp,
        )

    def skip(self, topic: str, partition: int, position: int, until: int) -> None:
        """A root key declared this hole."""
        self._skips.append((topic, partition, position, until))

    def _is_declared(self, line: Line, due: int) -> bool:
        return any(
            (topic, partition) == (line.topic, line.partition) and position <= due and line.offset <= until
            for topic, partition, position, until in self._skips
        )

    def _set_aside(self, value: bytes) -> None:
        """What intake could not attribute to anybody lies in quarantine and not on the trail."""
        try:
            source = Place.read(part(canonical.decode(value), "source"))
        except ValueError:
            return
        if map_name(source.topic) == "intents":
            self._quarantined.add((source.partition, source.offset))

    def take_output(self, line: Line) -> None:
        """One record of `approved.<executor>`."""
        number = line.header("n")
        place = (line.topic, line.partition)
        due = self._numbers.get(place)
        if number is None or NUMBER.fullmatch(number) is None:
            self._fault(line, "output.number", f"n is {number!r}"[:80])
        else:
            if due is not None and int(number) != due:
                self._fault(line, "output.number", f"n is {number} where {due} was due")
            self._numbers[place] = int(number) + 1
        said = (line.topic, hashlib.sha256(line.value or b"").hexdigest())
        self._outputs[said] += 1
        self._places[said] = line

    def compare(self, audit: Audit) -> None:
        """One audited input against what lies at its source."""
        for said in audit.said:
            self._outputs[said.topic, said.digest] -= 1
        source = audit.source
        place = (source.topic, source.partition)
        self._answered[place] = max(self._answered.get(place, -1), source.offset)
        if place in self._ends:
            self._compare_one(audit, source, audit.statement, audit.log_time)
        if audit.statement is not None and audit.statement.type.startswith(
            ("keyturn.classified-intent.", "keyturn.forwarded-withdrawal.")
        ):
            self._compare_origin(audit, audit.statement.body)

    def _compare_origin(self, audit: Audit, body: Members) -> None:
        """Intake's word on where, when and what was asked, against `intents`."""
        try:
            source = Place.read(part(body, "source"))
            inner = Statement.read(part(body, "intent" if "intent" in body else "withdrawal"))
            asked_at = whole(body, "asked_at")
        except ShapeError:
            return  # told where the statement is judged
        origin = Place(map_name(source.topic) or source.topic, source.partition, source.offset)
        if origin.topic != "intents":
            self._report_differs(audit, f"the source of an intent is {source}")
        elif ("intents", origin.partition) in self._ends:
            self._intents.add((origin.partition, origin.offset))
            self._compare_one(audit, origin, inner, asked_at)

    def _compare_one(self, audit: Audit, source: Place, statement: Statement | None, log_time: int) -> None:
        place = (source.topic, source.partition)
        found = self._records.get(place, {}).get(source.offset)
        if found is None:
            if source.offset < self._starts[place]:
                self._report.inputs_expired += 1
            else:
                self._report.fault(_of(audit, "input.missing", f"nothing lies at {source}"))
            return
        self._report.inputs_compared += 1
        value, seal, timestamp = found
        if statement is not None:
            expected = hashlib.sha256(f"{statement.keyid} {statement.sig}".encode()).digest()
            if statement.digest != value.hex() or seal != expected:
                self._report_differs(audit, f"at {source} lies {value.hex()}, shown is {statement.digest}")
        elif audit.sha256 != value.hex():
            self._report_differs(audit, f"at {source} lies {value.hex()}, said is {audit.sha256}")
        if timestamp != log_time:
            self._report_differs(audit, f"{source} was appended at {timestamp}, the trail says {log_time}")

    def waiting(self, topic: str, partition: int) -> list[tuple[int, int]]:
        """(offset, log time) of the inputs after the last one that was answered."""
        answered = self._answered.get((topic, partition), -1)
        records = self._records.get((topic, partition), {})
        return [(offset, at) for offset, (_, _, at) in sorted(records.items()) if offset > answered]

    def compare_world(self, audit: Audit) -> None:
        """A refused record of a world topic against what lies there."""
        found = self._shelf.at(audit.source.topic, audit.source.offset)
        match found:
            case Snapshot():
                digest, timestamp = found.statement.digest, found.log_time
            case Broken():
                digest, timestamp = found.sha256, found.log_time
            case None:
                self._report.fault(_of(audit, "input.missing", f"nothing lies at {audit.source}"))
                return
        if digest != audit.sha256 or timestamp != audit.log_time:
            self._report_differs(audit, f"at {audit.source} lies {digest} of {timestamp}")

    def finish(self) -> None:
        """What is left over: outputs nobody audited, holes nobody declared, inputs nobody answered yet."""
        for line, due in self._gaps:
            if not self._is_declared(line, due):
                self._fault(line, "input.gap", f"offset {line.offset} where {due} was due")
        for (topic, digest), count in self._outputs.items():
            if count > 0 and (topic, digest) in self._places:
                line = self._places[topic, digest]
                self._fault(line, "output.unaudited", f"{line.header('ce_type')} {digest} is not on the trail")
        for topic, partition in sorted(self._records):
            if topic in {"classified", "decisions", "reports"} and (waiting := self.waiting(topic, partition)):
                self._report.note(
                    f"{topic}/{partition}: {len(waiting)} inputs from {waiting[0][0]} on are not answered yet"
                )
        self._note_unanswered_intents()

    def _note_unanswered_intents(self) -> None:
        """Intake's sweep may answer late, and its quarantine expires: to look at, no fault."""
        heard = self._intents | self._quarantined
        for (topic, partition), records in sorted(self._records.items()):
            if topic == "intents" and (silent := [offset for offset in records if (partition, offset) not in heard]):
                self._report.note(
                    f"intents/{partition}: {len(silent)} records have no answer on the trail and none in quarantine, "
                    f"the first at {min(silent)}"
                )

    def _report_differs(self, audit: Audit, what: str) -> None:
        self._report.fault(_of(audit, "input.differs", what))

    def _fault(self, line: Line, code: str, what: str) -> None:
        self._report.fault(Fault(code, what, topic=line.topic, partition=line.partition, offset=line.offset))


def _of(audit: Audit, code: str, what: str) -> Fault:
    source = audit.source
    return Fault(code, what, audit.chain, audit.seq, source.topic, source.partition, source.offset, audit.intent)
