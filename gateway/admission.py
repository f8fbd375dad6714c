"""What is let in: from a request's bytes to a signed record for the log, or the problem with it. No I/O, no clock.

Everything that intake would refuse is refused here first, with the place of each fault, before anything is written.
Intake and core judge again; this door only spares them, and whoever asks, the wait (ADR 0008).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from gateway.callers import Caller
from gateway.contract import FaultView, IntentForm
from schemas import classification, ids, secrets
from schemas.canonical import CanonicalError
from schemas.classification import Fault
from schemas.record import Record, RecordError, Statement, state
from schemas.records import Action, Context, Intent, Refusal, Subject, Withdrawal
from schemas.signing import Signer
from schemas.world import World
from streams.http.bodies import AmbiguousError, decoded
from streams.http.problems import Kind, ProblemError

MAX_FAULTS: Final = 32
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Seal:
    """The two headers that say who signed a sealed body."""

    keyid: str
    sig: str


# ---------------------------------------------------------------- sealed


def unsealed(kind: type[R], raw: bytes, seal: Seal, world: World, now: int) -> tuple[Statement, R]:
    """The record in these bytes, signed by an agent's own key for this realm. ProblemError for anything else."""
    if len(raw) > kind.MAX_BYTES:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Kind.TOO_LARGE, f"{kind.TYPE} has at most {kind.MAX_BYTES} bytes"
        )
    try:
        statement = Statement.of_bytes(kind, raw, seal.keyid, seal.sig)
    except (CanonicalError, RecordError) as exc:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST, Kind.MALFORMED, f"the body is not the canonical JSON of {kind.TYPE}: {exc}"
        ) from exc
    except ValueError as exc:
        raise _unsigned("Keyturn-Keyid or Keyturn-Sig is malformed") from exc
    key = world.authority.key(statement.keyid)
    if key is None or key.role != "agent":
        raise _unsigned("Keyturn-Keyid names no agent's key of the directory")
    match world.authority.refuses(statement, now):
        case None:
            pass
        case Refusal.NOT_ENTITLED:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                Refusal.NOT_ENTITLED,
                world.authority.why(statement, Refusal.NOT_ENTITLED),
            )
        case _:
            raise _unsigned(f"the signature does not fit these bytes, as {kind.TYPE} in realm {world.realm}")
    require_no_secret(raw)
    return statement, read(statement, kind)


def read(statement: Statement, kind: type[R]) -> R:
    """The record inside, or every fault of it by place."""
    try:
        return kind.model_validate_json(statement.value)
    except ValidationError as exc:
        raise invalid(_places(exc)) from exc


def _unsigned(detail: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        Refusal.BAD_SIGNATURE,
        detail,
        headers={"WWW-Authenticate": 'Keyturn-Sig realm="keyturn"'},
    )


# ---------------------------------------------------------------- forms


def form(raw: bytes, kind: type[M]) -> M:
    """The body as this form."""
    try:
        decoded(raw)
    except AmbiguousError as exc:
        raise ProblemError(HTTPStatus.BAD_REQUEST, Kind.MALFORMED, str(exc)) from exc
    try:
        return kind.model_validate_json(raw)
    except ValidationError as exc:
        raise invalid(_places(exc)) from exc


def intent_from(form: IntentForm, caller: Caller, intent_id: str) -> Intent:
    """The intent that a form asks for, in the name of who is logged in and of nobody else."""
    if ids.requester_of(intent_id) != caller.subject.id:
        raise invalid([FaultView(path="/id", message=f"must begin with {caller.subject.id}: an id is its requester's")])
    return Intent(
        id=intent_id,
        subject=caller.subject,
        action=Action(name=form.action.name, properties=form.action.properties),
        resource=form.resource,
        # Law 2: whom an agent acts for is never taken from a form; the gateway's signature would vouch for it.
        context=Context(**{name: value for name, value in form.context if value is not None}),
        ttl=form.ttl,
    )


def withdrawal_of(intent_id: str, by: Subject, reason: str | None) -> Withdrawal:
    """I take it back."""
    return Withdrawal(intent=intent_id, by=by, reason=reason)


def signed(record: Record, signer: Signer, world: World, now: int) -> Statement:
    """The record, signed by the gateway for who has no key, if the directory lets it sign that.

    What it may not sign would be refused on the log, where nobody waits for the answer.
    """
    try:
        statement = state(record, signer, world.realm)
    except (CanonicalError, RecordError) as exc:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, Kind.INVALID, str(exc)) from exc
    require_no_secret(statement.value)
    match world.authority.refuses(statement, now) if world.directory is not None else None:
        case None:
            return statement
        case Refusal.NOT_ENTITLED:
            why = world.authority.why(statement, Refusal.NOT_ENTITLED)
            raise ProblemError(HTTPStatus.FORBIDDEN, Refusal.NOT_ENTITLED, why)
        case _:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                Kind.NOT_READY,
                "the gateway's own key is not in force: an administrator lists it in `keys` of the directory",
                headers={"Retry-After": "5"},
            )


def derived_entropy(requester: str, key: str) -> bytes:
    """The random part of an id, from an Idempotency-Key: so that the log itself remembers which keys were used."""
    return hashlib.sha256(b"keyturn idempotency\0%b\0%b" % (requester.encode(), key.encode())).digest()[
        : ids.ENTROPY_BYTES
    ]


# ---------------------------------------------------------------- both


def admit(statement: Statement, world: World, now: int) -> Intent:
    """The intent, if intake would admit it now. ProblemError with every fault by place."""
    if not world.is_complete:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            Kind.NOT_READY,
            "no directory, policy or manifest is in force yet: an administrator applies them",
            headers={"Retry-After": "5"},
        )
    intent = read(statement, Intent)
    try:
        return classification.admit(statement, world, now, now)
    except classification.Refused as refused:
        raise refusal_problem(refused, intent, world) from refused


def refusal_problem(refused: classification.Refused, intent: Intent, world: World) -> ProblemError:
    """What is wrong, where, and what there is instead."""
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    match refused.refusal:
        case Refusal.BAD_SIGNATURE:
            return _unsigned(refused.reason)
        case Refusal.UNKNOWN_AGENT | Refusal.UNKNOWN_PERSON | Refusal.NOT_ENTITLED:
            return ProblemError(HTTPStatus.FORBIDDEN, refused.refusal, refused.reason)
        case Refusal.ID_OUT_OF_WINDOW:
            places = [FaultView(path="/id", message=f"{refused.reason}: take a new id, compare the clocks")]
        case Refusal.UNKNOWN_ACTION:
            offered = ", ".join(action.name for action in actions(world)) or "none"
            message = f"{refused.reason}; what there is: {offered}"
            places = [FaultView(path="/action/name", message=message)]
        case Refusal.BAD_PARAMETERS:
            places = [*map(_shown, faults(intent, world))]
        case _:
            places = []
    detail = "; ".join(f"{each.path}: {each.message}" for each in places) or refused.reason
    return ProblemError(status, refused.refusal, detail[:2000], members={"errors": _json(places)})


def faults(intent: Intent, world: World) -> tuple[Fault, ...]:
    """What is wrong with the parameters; nothing where there is nothing to hold them against."""
    try:
        return classification.parameter_faults(intent, world)
    except classification.Refused:
        return ()


def actions(world: World) -> tuple[Any, ...]:
    """Every action that an executor of this realm offers."""
    executors = world.manifests.executors if world.manifests else ()
    return tuple(action for manifest in executors for action in manifest.actions)


def require_no_secret(raw: bytes) -> None:
    """A secret never reaches the log, not even its quarantine."""
    found = secrets.found_in(raw.decode(errors="replace"))
    if found is not None:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            Refusal.SECRET_FOUND,
            f"it holds a {found}: nothing was written. Send a reference instead, and rotate the secret",
        )


def invalid(places: Iterable[FaultView]) -> ProblemError:
    """The body is JSON, and not what is asked for; each fault by place."""
    found = list(places)[:MAX_FAULTS]
    detail = "; ".join(f"{each.path}: {each.message}" for each in found)
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, Kind.INVALID, detail[:2000], members={"errors": _json(found)})


def _places(exc: ValidationError) -> list[FaultView]:
    """Pydantic's places as JSON Pointers; what it names of a union's members is left out."""
    errors = exc.errors(include_url=False, include_input=False)
    return [FaultView(path=_pointer(error["loc"]), message=error["msg"]) for error in errors]


def _pointer(loc: tuple[int | str, ...]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in loc)


def _shown(fault: Fault) -> FaultView:
    return FaultView(path=fault.path, message=fault.message)


def _json(places: Iterable[FaultView]) -> list[JsonValue]:
    return [each.model_dump(mode="json") for each in places]
