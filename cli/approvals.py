"""Deciding from a terminal: `ls`, `show`, `watch`, `approve`, `deny`, `revoke`, `resolve`, over the approvers' API.

`approve ID@QUESTION` names the first digits of the question, so that what was read is what is signed. Nothing is
called approved before the core said so: these commands wait for its answer in the row (law 8). Data go to stdout,
everything else to stderr.

Exit codes: 0 ok, 1 error, 2 usage, 3 denied, 4 expired, 5 forbidden (self-approval too), 6 integrity, 75 try later.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notifiers.api import contract
    from notifiers.api.client import Client
    from schemas.records import Refusal

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
DENIED: Final = 3
EXPIRED: Final = 4
FORBIDDEN: Final = 5
INTEGRITY: Final = 6
TEMPORARY: Final = 75  # EX_TEMPFAIL of sysexits.h

_REFERENCE: Final = re.compile(
    r"(?P<id>[a-z0-9][a-z0-9_-]{0,62}\.[0-7][0-9A-HJKMNP-TV-Z]{25})@(?P<digits>[0-9a-f]{12,64})"
)
_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\.[0-7][0-9A-HJKMNP-TV-Z]{25}")
_LONG_POLL: Final = 15.0
_PAGE: Final = 200

AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once it is recorded, without the core's answer.")]
Seconds = Annotated[float, typer.Option("--wait", min=0, max=3600, help="Seconds to wait for the core's answer.")]
Asked = Annotated[
    str, typer.Argument(metavar="ID@QUESTION", help="The intent and the first 12 or more digits of its question.")
]
IntentArgument = Annotated[str, typer.Argument(metavar="ID", help="The intent.")]
OptionalReason = Annotated[str | None, typer.Option("--reason", help="Goes on the trail with your word.")]
Reason = Annotated[str, typer.Option("--reason", help="Goes on the trail with your word.")]


class PhaseName(StrEnum):
    """The phases, for completion; a test holds them against the records."""

    PLANNING = "planning"
    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    EXPIRED = "expired"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Finding(StrEnum):
    """What people found out about an `unknown`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


def register(root: typer.Typer) -> None:
    """Mount the commands on the root."""
    root.command("ls")(list_)
    root.command("show")(show)
    root.command("approve")(approve)
    root.command("deny")(deny)
    root.command("revoke")(revoke)
    root.command("watch")(watch)
    root.command("resolve")(resolve)


# ---------------------------------------------------------------- reading


def list_(
    phase: Annotated[list[PhaseName] | None, typer.Option(help="Only rows in this phase; may be given again.")] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the ids.")] = False,
) -> None:
    """List what waits for people, or the rows of any other phase."""
    from schemas.records import Phase

    wanted = tuple(Phase(name.value) for name in phase or [PhaseName.PENDING])
    with _client() as client:
        lines: list[contract.Summary] = []
        cursor: str | None = None
        while True:
            page = client.page(wanted, cursor=cursor, limit=_PAGE)
            lines.extend(page.approvals)
            cursor = page.cursor
            if cursor is None:
                break
    if as_json:
        _print_json([line.model_dump(mode="json", exclude_none=True) for line in lines])
    elif quiet:
        for line in lines:
            typer.echo(line.id)
    else:
        for line in lines:
            typer.echo(_line(line))
        if not lines:
            typer.echo("nothing there", err=True)


def show(intent_id: IntentArgument, as_json: AsJson = False) -> None:
    """Show everything of one intent: its card, and what you may do about it."""
    with _client() as client:
        view = client.approval(_intent(intent_id))
    if as_json:
        _print_json(view.model_dump(mode="json", exclude_none=True))
        return
    from notifiers import terminal

    terminal.show(view.card, terminal.console(sys.stdout))
    typer.echo(f"\n{_what_you_may(view)}", err=True)


def watch(
    intent_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One intent; else everything open.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a line whenever something changes; of one intent, until it has ended."""
    with _client() as client:
        if intent_id is None:
            _watch_all(client, as_json=as_json)
        else:
            raise typer.Exit(_watch_one(client, _intent(intent_id), as_json=as_json))


def _watch_all(client: Client, *, as_json: bool) -> None:
    """What is open now, then every change of the newest rows, ends included."""
    from schemas.records import FINAL, Phase

    seen: dict[str, str] | None = None
    version: str | None = None
    while True:
        page = client.page(tuple(Phase), limit=_PAGE, wait=_LONG_POLL, after=version)
        version = page.version
        for line in reversed(page.approvals):
            is_news = line.phase not in FINAL if seen is None else seen.get(line.id) != line.version
            if is_news:
                typer.echo(_json(line.model_dump(mode="json", exclude_none=True)) if as_json else _line(line))
        seen = {line.id: line.version for line in page.approvals}


def _watch_one(client: Client, intent_id: str, *, as_json: bool) -> int:
    from schemas.records import FINAL

    said: str | None = None
    view = client.approval(intent_id)
    while True:
        text = _json(view.model_dump(mode="json", exclude_none=True)) if as_json else _state(view)
        if text != said:
            typer.echo(text)
            said = text
        if view.phase in FINAL:
            return _code_of_phase(view.phase.value)
        view = client.approval(intent_id, wait=_LONG_POLL, after=view.version)


# ---------------------------------------------------------------- deciding


def approve(
    asked: Asked,
    reason: OptionalReason = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    no_wait: NoWait = False,
    wait: Seconds = 10.0,
) -> None:
    """Say yes to one question."""
    _decide("approve", asked, reason, 0 if no_wait else wait, as_json=as_json, quiet=quiet)


def deny(
    asked: Asked,
    reason: Reason,
    as_json: AsJson = False,
    quiet: Quiet = False,
    no_wait: NoWait = False,
    wait: Seconds = 10.0,
) -> None:
    """Say no, for good, with a reason that the requester reads."""
    _decide("deny", asked, reason, 0 if no_wait else wait, as_json=as_json, quiet=quiet)


def revoke(
    asked: Asked,
    reason: OptionalReason = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    no_wait: NoWait = False,
    wait: Seconds = 10.0,
) -> None:
    """Take your yes back."""
    _decide("revoke", asked, reason, 0 if no_wait else wait, as_json=as_json, quiet=quiet)


def resolve(
    asked: Annotated[
        str, typer.Argument(metavar="ID@GRANT", help="The intent and the first 12 or more digits of its grant.")
    ],
    found: Annotated[Finding, typer.Option(help="What was found out.")],
    reason: Annotated[str, typer.Option(help="How it was found out; goes on the trail.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
    no_wait: NoWait = False,
    wait: Seconds = 10.0,
) -> None:
    """Say how an intent whose outcome is unknown really ended."""
    intent_id, digits = _reference(asked)
    with _client() as client:
        view = client.approval(intent_id)
        if view.grant is None or not view.grant.startswith(digits):
            _fail(f"{digits} is not the grant of {intent_id}: read it again with `keyturn show {intent_id}`", ERROR)
        recorded = client.resolve(view, found.value, reason)
        _require_entitled(view, recorded)
        seconds = 0.0 if no_wait else wait
        answer = client.answer(recorded, seconds) if seconds else None
    _tell(view, "resolve", recorded, answer, as_json=as_json, quiet=quiet)


def _decide(verdict: str, asked: str, reason: str | None, seconds: float, *, as_json: bool, quiet: bool) -> None:
    from schemas.records import Verdict

    intent_id, digits = _reference(asked)
    with _client() as client:
        view = client.approval(intent_id)
        if view.question_digest is None:
            _fail(f"no question is open: {_state(view)}", _code_of_phase(view.phase.value) or ERROR)
        if not view.question_digest.startswith(digits):
            _fail(
                f"the question is {view.question_digest[:12]} now, not {digits}: "
                f"read it again with `keyturn show {intent_id}`",
                ERROR,
            )
        recorded = client.decide(view, Verdict(verdict), reason)
        _require_entitled(view, recorded)
        answer = client.answer(recorded, seconds) if seconds else None
    _tell(view, verdict, recorded, answer, as_json=as_json, quiet=quiet)


def _require_entitled(view: contract.ApprovalView, recorded: contract.Recorded) -> None:
    """The core moves no row for a notifier's key that may not say this: no answer would come to wait for."""
    if recorded.expected_refusal is not None and recorded.expected_refusal.value == "not_entitled":
        _fail(f"{view.id}: {recorded.detail}", FORBIDDEN)


def _tell(
    view: contract.ApprovalView,
    verdict: str,
    recorded: contract.Recorded,
    answer: contract.AnswerView | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """One calm line, and the exit code."""
    is_refused = answer is not None and answer.refusal is not None
    is_waiting = answer is None or answer.state == "deciding"
    if as_json:
        told = {"id": view.id, "verdict": verdict, "recorded": recorded.model_dump(mode="json", exclude_none=True)}
        if answer is not None:
            told["answer"] = answer.model_dump(mode="json", exclude_none=True)
        _print_json(told)
    elif answer is None:
        if not quiet:
            typer.echo(f"{view.id}: {recorded.detail}")
    elif is_refused or is_waiting:
        typer.echo(f"keyturn: {view.id}: {'refused: ' if is_refused else ''}{answer.detail}", err=True)
    elif not quiet:
        typer.echo(f"{view.id}: {_what_came_of_it(verdict, answer)}")
    raise typer.Exit(_code(answer))


def _what_came_of_it(verdict: str, answer: contract.AnswerView) -> str:
    phase = answer.phase.value if answer.phase else "gone"
    if answer.state == "forgotten":
        return f"{answer.detail}; it is {phase} now"
    match verdict:
        case "approve" if phase == "pending":
            return f"your yes counts; {answer.seats_filled} of {answer.seats} seats filled"
        case "approve":
            return f"your yes counts; it is {phase}"
        case "revoke" if phase == "pending":
            return "you had no yes on this question; one of yours that still comes in will not count"
        case _:
            return f"it is {phase}"


def _code(answer: contract.AnswerView | None) -> int:
    if answer is None:
        return OK
    if answer.refusal is not None:
        return _code_of_refusal(answer.refusal, answer.phase.value if answer.phase else None)
    return TEMPORARY if answer.state == "deciding" else OK


def _code_of_refusal(refusal: Refusal, phase: str | None) -> int:
    match refusal.value:
        case (
            "self_approval" | "no_seat" | "barred" | "assurance_too_low" | "unknown_person" | "not_entitled"
            | "bad_signature"
        ):  # fmt: skip
            return FORBIDDEN
        case "late":
            return EXPIRED
        case "final" if phase is not None:
            return _code_of_phase(phase) or ERROR
        case "internal" | "overloaded" | "stale_world":
            return TEMPORARY
        case _:
            return ERROR


def _code_of_phase(phase: str) -> int:
    match phase:
        case "denied" | "refused" | "withdrawn" | "revoked":
            return DENIED
        case "expired":
            return EXPIRED
        case "failed":
            return ERROR
        case _:
            return OK


# ---------------------------------------------------------------- words


def _line(line: contract.Summary) -> str:
    from notifiers import visible

    what = (
        f"{line.action} on {line.resource_type} {visible.identifier(line.resource)}"
        if line.resource
        else line.action or "unknown intent"
    )
    parts = [line.id + (f"@{line.question_digest[:12]}" if line.question_digest else ""), line.phase.value]
    if line.risk is not None:
        parts.append(line.risk.value)
    if line.seats:
        parts.append(f"{line.seats_filled}/{line.seats} seats")
    return "  ".join((*parts, what))


def _state(view: contract.ApprovalView) -> str:
    from notifiers import visible

    seats = view.requirement.seats if view.requirement else ()
    filled = sum(1 for seat in seats if seat.person is not None)
    parts = [f"{view.id}: {view.phase.value}"]
    if view.phase.value == "pending":
        parts.append(f"{filled} of {len(seats)} seats filled")
    if view.reason is not None:
        parts.append(visible.prose(view.reason))
    return ", ".join(parts)


def _what_you_may(view: contract.ApprovalView) -> str:
    from notifiers import answers

    if view.phase.value == "unknown" and view.grant is not None:
        if view.you.resolve is not None:
            return f"You are {view.you.person}. What you found would be refused: {answers.MEANING[view.you.resolve]}."
        how = f"keyturn resolve {view.id}@{view.grant[:12]} --found succeeded|failed --reason HOW"
        return f"You are {view.you.person}. To say what became of it: {how}"
    if view.question_digest is None:
        return f"No question is open. You are {view.you.person}."
    if view.you.approve is not None:
        return f"You are {view.you.person}. A yes of yours would be refused: {answers.MEANING[view.you.approve]}."
    if not view.offers_approve:
        return "This cannot be approved: not everything that a yes would bind can be shown."
    return f"You are {view.you.person}. To say yes: keyturn approve {view.id}@{view.question_digest[:12]}"


def _print_json(value: object) -> None:
    typer.echo(_json(value))


def _json(value: object) -> str:
    # ASCII: what a terminal would interpret is escaped.
    return json.dumps(value, ensure_ascii=True)


# ---------------------------------------------------------------- arguments and errors


def _reference(text: str) -> tuple[str, str]:
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r}: expected <id>@<at least 12 hexadecimal digits>; `keyturn ls` prints them")
    return match["id"], match["digits"]


def _intent(text: str) -> str:
    bare = text.partition("@")[0]
    if not _ID.fullmatch(bare):
        raise typer.BadParameter(f"{text!r} is not an intent id; `keyturn ls` prints them")
    return bare


@contextlib.contextmanager
def _client() -> Iterator[Client]:
    """The API, with its errors as exit codes."""
    from notifiers.api import client as api

    try:
        with api.Client(api.ClientSettings()) as client:
            yield client
    except api.TemporaryError as exc:
        _fail(str(exc), TEMPORARY)
    except api.ForbiddenError as exc:
        _fail(str(exc), FORBIDDEN)
    except api.NotToldError as exc:
        _fail(str(exc), USAGE)
    except api.IntegrityError as exc:
        _fail(str(exc), INTEGRITY)
    except api.ApiError as exc:
        _fail(str(exc), ERROR)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"keyturn: {text}", err=True)
    raise typer.Exit(code)
