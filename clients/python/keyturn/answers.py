"""What the gateway answers, read with distrust: bounded, typed, about our intent, or not believed. No I/O.

Members that are not known are passed over, so that an older client reads a newer gateway; a phase that is not known is
not guessed at.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from keyturn import ids
from keyturn.errors import AnswerError, FieldError
from keyturn.outcomes import Phase, Receipt, Refused, Status
from keyturn.transport import ActionOffer, Check

MAX_ANSWER: Final = 256 * 1024
MAX_TEXT: Final = 4000
MAX_ERRORS: Final = 64
QUARANTINED: Final = "quarantined"
_INVALID: Final = "invalid"
_URN: Final = "urn:keyturn:problem:"


@dataclass(frozen=True, slots=True)
class Problem:
    """RFC 9457, as far as it concerns us."""

    status: int
    kind: str = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()

    @property
    def refusal(self) -> str:
        """The kind as a word of Keyturn's catalogue of refusals: `bad_parameters`."""
        return "bad_parameters" if self.kind == _INVALID else self.kind.replace("-", "_") or "refused"

    def refused(self, intent_id: str) -> Refused:
        """The refusal of an intent at the door."""
        return Refused(self.refusal, self.errors, self.detail or None, intent=intent_id)


def members_of(data: bytes, what: str) -> dict[str, object]:
    """The JSON object in these bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise AnswerError(f"{what} is not JSON: {_excerpt(data)}; is this the URL of a Keyturn gateway?") from None
    if not isinstance(value, dict):
        raise AnswerError(f"{what} is not an object: {_excerpt(data)}")
    return value


def problem_of(status: int, data: bytes) -> Problem:
    """What an answer that is no success says. Anything may come here, so nothing is demanded."""
    try:
        members = members_of(data, "a problem")
    except AnswerError:
        return Problem(status, detail=_excerpt(data))
    kind = _text(members.get("type")).removeprefix(_URN)
    return Problem(status, kind, _text(members.get("detail")) or _text(members.get("title")), _errors(members))


def status_of(members: Mapping[str, object]) -> Status:
    """Where an intent stands."""
    intent_id, said = _text(members.get("id")), _text(members.get("phase"))
    try:
        ids.split(intent_id)
        # Nobody could read it, and no life came of it: to whoever asked that is a refusal.
        phase = Phase.REFUSED if said == QUARANTINED else Phase(said)
    except ids.IntentIdError:
        raise AnswerError("an answer about no intent at all; is this the URL of a Keyturn gateway?") from None
    except ValueError:
        raise AnswerError(
            f"{intent_id} is said to be {said!a}, a phase this client does not know: update keyturn"
        ) from None
    outcome = members.get("outcome")
    reason = _text(members.get("reason")) or None
    return Status(
        intent=intent_id,
        phase=phase,
        reason=reason,
        refusal=_text(members.get("refusal")) or None,
        at=_instant(members.get("updated_at")),
        deadline=_instant(members.get("deadline")),
        receipt=_receipt(outcome, reason) if phase is Phase.SUCCEEDED else None,
        errors=_errors(members),
    )


def check_of(members: Mapping[str, object]) -> Check:
    """What policy would say."""
    requirement = members.get("requirement")
    return Check(
        effect=_text(members.get("effect")),
        risk=_text(members.get("risk")) or None,
        rules=_texts(members.get("rules")),
        requirement=requirement if isinstance(requirement, dict) else None,
        errors=_errors(members),
        caveats=_texts(members.get("caveats")),
        unknown_facts=_texts(members.get("unknown_facts")),
    )


def actions_of(members: Mapping[str, object]) -> tuple[ActionOffer, ...]:
    """What executors offer."""
    listed = members.get("items", members.get("actions"))
    if not isinstance(listed, list):
        raise AnswerError("the list of actions is no list")
    offers = []
    for each in listed:
        if isinstance(each, dict) and (name := _text(each.get("name"))):
            parameters = each.get("parameters")
            offers.append(
                ActionOffer(name, _text(each.get("title")), parameters if isinstance(parameters, dict) else {})
            )
    return tuple(offers)


@dataclass
class EventStream:
    """Server-sent events out of bytes as they come (WHATWG HTML, 9.2): sans-IO, bounded."""

    last_id: str | None = None
    _rest: bytes = b""
    _data: list[bytes] = field(default_factory=list)
    _size: int = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The data of each event that these bytes complete."""
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        self._bound(len(self._rest))
        for line in lines:
            if not line:
                if self._data:
                    yield b"\n".join(self._data)
                self._data, self._size = [], 0
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._size += len(value)
                self._bound(self._size)
                self._data.append(value)
            elif name == b"id" and b"\0" not in value and len(value) < MAX_TEXT and value.isascii():
                self.last_id = value.decode()

    def _bound(self, size: int) -> None:
        if size > MAX_ANSWER:
            raise AnswerError(f"an event of more than {MAX_ANSWER} bytes; is this the URL of a Keyturn gateway?")


def _receipt(outcome: object, reason: str | None) -> Receipt:
    found = outcome.get("receipt", outcome) if isinstance(outcome, dict) else {}
    details = {name: value for name, value in found.items() if name != "summary"} if isinstance(found, dict) else {}
    summary = _text(found.get("summary")) if isinstance(found, dict) else ""
    return Receipt(summary or reason or "", details)


def _errors(members: Mapping[str, object]) -> tuple[FieldError, ...]:
    listed = members.get("errors")
    if not isinstance(listed, list):
        return ()
    return tuple(
        FieldError(_text(each.get("path")) or "/", _text(each.get("message")))
        for each in listed[:MAX_ERRORS]
        if isinstance(each, dict)
    )


def _instant(value: object) -> int | None:
    """Unix milliseconds, of a number or of RFC 3339 text."""
    if type(value) is int:
        return value
    try:
        return int(datetime.fromisoformat(str(value)).timestamp() * 1000) if isinstance(value, str) else None
    except ValueError:
        return None


def _text(value: object) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(each) for each in value) if isinstance(value, list) else ()


def _excerpt(data: bytes) -> str:
    return ascii(data[:80].decode("ascii", "replace"))
