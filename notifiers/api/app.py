"""The approvers' API. Whatever a known person says reaches the log; the core decides, and its answer is read there.

A click that is expected to be refused (self-approval, no seat, an old question) is sent all the same, so that the core
refuses it and the trail shows it (law 9); the answer says what to expect. Kept back is only what is nobody's word on
something we showed: an account without a person, a request that cannot be read, and an approve of a card other than
the one this API renders for the question in force, or of a row that is not sound (law 7). GET never decides.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, TypeVar

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, JsonValue, ValidationError
from starlette.responses import JSONResponse, Response

from notifiers import answers, card, identity
from notifiers.api import contract, views
from notifiers.api.repeats import Repeats, ReusedError
from notifiers.desk import Desk, Word
from schemas import ids
from schemas.canonical import CanonicalError
from schemas.record import RecordError
from schemas.records import FINAL, Channel, Decision, Phase, Refusal, Resolution, Source, Verdict
from schemas.snapshots import Person
from schemas.topics import DECISIONS
from streams import crashpoints
from streams.http import bodies, problems
from streams.http.application import guarded
from streams.http.oidc import IssuerUnreachableError, Login, TokenRefusedError, Verifier
from streams.http.problems import Kind, ProblemError
from streams.rows import Held
from streams.sayings import NotRecordedError

READ: Final = "approvals:read"
DECIDE: Final = "approvals:decide"
MAX_WAIT: Final = 60.0
MAX_PAGE: Final = 200
RETRY_AFTER: Final = "2"
OPEN: Final = frozenset(Phase) - FINAL
_ETAG: Final = re.compile(r'"([0-9a-f]{64})"')
_KEY: Final = re.compile(r"[\x21-\x7e]{8,128}")
_POSITION: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,16})")
M = TypeVar("M", bound=BaseModel)

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT)]
After = Annotated[str | None, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that can be given again."""

    status: int
    body: dict[str, JsonValue]
    headers: Mapping[str, str]
    media_type: str = "application/json"

    def response(self) -> Response:
        """On the wire."""
        return JSONResponse(self.body, self.status, dict(self.headers), self.media_type)


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls, as token and directory have it."""

    login: Login
    person: Person


class Approvals:
    """The routes, over a desk."""

    def __init__(
        self,
        desk: Desk,
        verifier: Verifier,
        *,
        now: Callable[[], int],
        monotonic: Callable[[], float],
        keep_seconds: float,
    ) -> None:
        """`now`: Unix milliseconds. `keep_seconds`: how long an Idempotency-Key is remembered."""
        self._desk = desk
        self._verifier = verifier
        self._now = now
        self._repeats = Repeats[Reply](keep_seconds, monotonic)

    # ------------------------------------------------------------ reading

    async def list_approvals(
        self,
        request: Request,
        phase: Annotated[list[Phase] | None, Query()] = None,
        cursor: Annotated[str | None, Query(max_length=128)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        wait: Wait = 0,
        after: After = None,
    ) -> Response:
        """The rows of these phases (else: of those that have not ended), newest first.

        With `wait` and `after`: once the page differs from that version.
        """
        await self._caller(request, READ)

        phases = frozenset(phase) if phase else OPEN

        def page() -> contract.Page:
            return views.page(self._desk, phases, cursor, limit)

        await self._until(lambda _: page().version != after, wait if after is not None else 0)
        return _json(page())

    async def show(self, request: Request, intent_id: str, wait: Wait = 0, after: After = None) -> Response:
        """One row; with `wait` and `after`, once it differs from that version."""
        caller = await self._caller(request, READ)

        def differs(changed: str) -> bool:
            held = self._desk.row(intent_id) if changed in {"", intent_id} else None
            return held is not None and held.version != after

        await self._until(differs, wait if after is not None else 0)
        held, login = self._sound(intent_id), caller.login
        key = self._desk.world.authority.key(self._desk.keyid)
        reader = views.Reader(caller.person, login.account, login.evidence, key)
        view = views.approval(held, self._desk.world, reader, self._now())
        # Names the question, not these bytes: it is the precondition of a decision (RFC 9110, 13.1.1), and nothing
        # here is cached.
        return _json(view, {"ETag": f'"{view.question_digest}"'} if view.question_digest else {})

    async def answer(self, request: Request, intent_id: str, position: str, wait: Wait = 0) -> Response:
        """The core's answer to the word at this position; with `wait`, once it is there."""
        await self._caller(request, READ)
        match = _POSITION.fullmatch(position)
        if match is None:
            raise _not_found(position)
        said = Source(topic=DECISIONS.name, partition=int(match[1]), offset=int(match[2]))

        def is_answered(changed: str) -> bool:
            return changed in {"", intent_id} and self._answer(intent_id, said).state != "deciding"

        await self._until(is_answered, wait)
        return _json(self._answer(intent_id, said))

    def _answer(self, intent_id: str, said: Source) -> contract.AnswerView:
        held = self._desk.row(intent_id)
        return views.answer(held.row if held and held.is_verified else None, said, self._desk.world)

    async def _until(self, holds: Callable[[str], bool], wait: float) -> None:
        """Returns when `holds`, or after `wait` seconds. It is given the id of the row that changed; first, ""."""
        # Watching begins before looking: what changes in between is told.
        with self._desk.watch() as changes, suppress(TimeoutError):
            if holds("") or not wait:
                return
            async with asyncio.timeout(wait):
                async for intent_id in changes:
                    if holds(intent_id):
                        return

    # ------------------------------------------------------------ deciding

    async def decide(self, request: Request, intent_id: str) -> Response:
        """One person's word on the question named in If-Match."""
        caller = await self._caller(request, DECIDE)
        _require_intent_id(intent_id)
        body, raw = await _body(request, contract.DecisionBody)
        if body.verdict is Verdict.DENY and body.reason is None:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, Kind.INVALID, "a deny needs a reason: who asked reads it"
            )
        question = _question(request)
        decision = Decision(
            intent=intent_id,
            question=question,
            verdict=body.verdict,
            account=caller.login.account,
            person=caller.person.id,
            channel=Channel.API,
            evidence=caller.login.evidence,
            reason=body.reason,
            card=body.card,
        )
        return await self._once(request, caller, (b"decision", intent_id.encode(), question.encode(), raw), decision)

    async def resolve(self, request: Request, intent_id: str) -> Response:
        """What people found out about an `unknown`."""
        caller = await self._caller(request, DECIDE)
        _require_intent_id(intent_id)
        body, raw = await _body(request, contract.ResolutionBody)
        resolution = Resolution(
            intent=intent_id,
            grant=body.grant,
            found=body.found,
            account=caller.login.account,
            person=caller.person.id,
            channel=Channel.API,
            evidence=caller.login.evidence,
            reason=body.reason,
            card=body.card,
        )
        return await self._once(request, caller, (b"resolution", intent_id.encode(), raw), resolution)

    async def _once(self, request: Request, caller: _Caller, asked: tuple[bytes, ...], word: Word) -> Response:
        key = request.headers.get("idempotency-key", "")
        if not _KEY.fullmatch(key):
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                Kind.IDEMPOTENCY_KEY_REQUIRED,
                "send an Idempotency-Key of 8 to 128 visible ASCII characters, a new one for each click",
            )
        _require_sayable(word)
        fingerprint = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in asked)).hexdigest()
        account = caller.login.account
        try:
            reply = await self._repeats.once(
                (account.provider, account.subject, key), fingerprint, lambda: self._say(word)
            )
        except ReusedError as exc:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                Kind.IDEMPOTENCY_KEY_REUSED,
                "this Idempotency-Key was used for another request; a new click takes a new key",
            ) from exc
        crashpoints.reached("api.click.2-answered")
        return reply.response()

    async def _say(self, word: Word) -> Reply:
        """Send it, whatever is expected of it, unless law 7 keeps it back."""
        crashpoints.reached("api.click.1-heard")
        held = self._desk.row(word.intent)
        if isinstance(word, Decision) and word.verdict is Verdict.APPROVE:
            self._require_shown(held, word)
        # A row that the core did not sign says nothing about what to expect.
        row = held.row if held and held.is_verified else None
        world = self._desk.world
        foreseen = identity.expected(row, word, world, world.authority.key(self._desk.keyid), self._now())
        try:
            said = await self._desk.say(word)
        except NotRecordedError as exc:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                Kind.NOT_RECORDED,
                "your word could not be recorded; say it again with the same Idempotency-Key",
                headers={"Retry-After": RETRY_AFTER},
            ) from exc
        return _reply(word, said, foreseen)

    def _require_shown(self, held: Held | None, decision: Decision) -> None:
        """Law 7: a yes to the question in force is a yes to the card that this notifier renders for it.

        A yes to any other question goes to the core, which refuses it.
        """
        if held is None or held.row.question is None or held.row.question.digest != decision.question:
            return
        _require_verified(held)
        shown = card.card(held.row, self._desk.world, self._now())
        if not shown.is_sound:
            raise _unsound(shown)
        if not shown.fits:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                Kind.NOT_WHOLE,
                "not everything that a yes would bind can be shown, so nobody can say it: deny it, or have it asked "
                "again in smaller parts",
            )
        if shown.digest != decision.card:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                Kind.OTHER_CARD,
                "the card you name is not the one shown for this question: GET it again, read it, then decide",
                members={"card": shown.digest},
            )

    # ------------------------------------------------------------ who, and what is there

    async def _caller(self, request: Request, scope: str) -> _Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthenticated("send `Authorization: Bearer <access token>`", "")
        try:
            login = await self._verifier.login(token)
        except TokenRefusedError as exc:
            raise _unauthenticated(str(exc), ', error="invalid_token"') from exc
        except IssuerUnreachableError as exc:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                Kind.ISSUER_UNREACHABLE,
                f"{exc}: nobody can be recognised; try again",
                headers={"Retry-After": RETRY_AFTER},
            ) from exc
        if scope not in login.scopes:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                Kind.INSUFFICIENT_SCOPE,
                f"the token's scope lacks {scope}",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
            )
        if not login.is_human:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                Kind.NOT_A_PERSON,
                "a client's own token is nobody's login: a person must log in (auth_time, and a sub of their own)",
            )
        found = identity.resolve(login.account, self._desk.world.directory)
        if isinstance(found, identity.Unknown):
            kind = Kind.NOT_READY if found.refusal is Refusal.STALE_WORLD else Kind.UNKNOWN_PERSON
            raise ProblemError(HTTPStatus.FORBIDDEN, kind, found.reason)
        return _Caller(login, found)

    def _sound(self, intent_id: str) -> Held:
        held = self._desk.row(intent_id)
        if held is None:
            raise _not_found(intent_id)
        _require_verified(held)
        return held


def make_app(approvals: Approvals) -> FastAPI:
    """The application: its routes on a guarded door."""
    app = guarded("Keyturn approvals", "if you said something, GET the approval to see whether it counts")
    for path, endpoint, method in (
        ("/v1/approvals", approvals.list_approvals, "GET"),
        ("/v1/approvals/{intent_id}", approvals.show, "GET"),
        ("/v1/approvals/{intent_id}/decisions", approvals.decide, "POST"),
        ("/v1/approvals/{intent_id}/resolutions", approvals.resolve, "POST"),
        ("/v1/approvals/{intent_id}/decisions/{position}", approvals.answer, "GET"),
    ):
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    return app


# ---------------------------------------------------------------- replies


def _json(model: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(model.model_dump(mode="json", exclude_none=True), headers=dict(headers or {}))


def _reply(word: Word, said: Source, foreseen: Refusal | None) -> Reply:
    """202: the core decides. 412: it was sent, but the question it names is not the one in force, as far as we know."""
    location = f"/v1/approvals/{word.intent}/decisions/{said.partition}-{said.offset}"
    is_stale = foreseen is Refusal.WRONG_QUESTION
    detail = "recorded; the core decides" if foreseen is None else f"recorded; expect a no: {answers.MEANING[foreseen]}"
    recorded = contract.Recorded(recorded=said, location=location, expected_refusal=foreseen, detail=detail)
    body: dict[str, JsonValue] = recorded.model_dump(mode="json", exclude_none=True)
    if foreseen is not None:
        body["type"] = problems.urn_of(foreseen)
    headers = {"Location": location}
    if not is_stale:
        return Reply(HTTPStatus.ACCEPTED, body, headers)
    body |= {"title": "wrong question", "status": HTTPStatus.PRECONDITION_FAILED.value}
    return Reply(HTTPStatus.PRECONDITION_FAILED, body, headers, problems.MEDIA_TYPE)


def _unauthenticated(detail: str, error: str) -> ProblemError:
    challenge = f'Bearer realm="keyturn"{error}'
    return ProblemError(HTTPStatus.UNAUTHORIZED, Kind.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": challenge})


def _not_found(what: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.NOT_FOUND, Kind.NOT_FOUND, "nothing is known of this here", members={"id": what[:99]}
    )


def _require_verified(held: Held) -> None:
    if not held.is_verified:
        raise ProblemError(
            HTTPStatus.BAD_GATEWAY,
            Kind.INTEGRITY,
            "the row is not signed by the core: do not decide on it; tell whoever runs Keyturn",
        )


def _unsound(shown: card.Card) -> ProblemError:
    return ProblemError(
        HTTPStatus.BAD_GATEWAY,
        Kind.INTEGRITY,
        "the row contradicts itself: do not decide on it; tell whoever runs Keyturn",
        members={"contradictions": list(shown.contradictions)},
    )


# ---------------------------------------------------------------- requests


def _require_intent_id(text: str) -> None:
    try:
        ids.split(text)
    except ids.IntentIdError as exc:
        raise _not_found(text) from exc


def _question(request: Request) -> str:
    """The question that the person read. `*` names none."""
    named = request.headers.getlist("if-match")
    match = _ETAG.fullmatch(named[0].strip()) if len(named) == 1 else None
    if match is None:
        raise ProblemError(
            HTTPStatus.PRECONDITION_REQUIRED,
            Kind.QUESTION_REQUIRED,
            'name the question that you read: If-Match: "<its digest>", the ETag of the approval',
        )
    return match[1]


async def _body(request: Request, kind: type[M]) -> tuple[M, bytes]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, Kind.NOT_JSON, "send the body as Content-Type: application/json"
        )
    raw = await request.body()
    try:
        bodies.decoded(raw)
    except bodies.AmbiguousError as exc:
        raise ProblemError(HTTPStatus.BAD_REQUEST, Kind.MALFORMED, str(exc)) from exc
    try:
        return kind.model_validate_json(raw), raw
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "body"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, Kind.INVALID, f"{place}: {first['msg']}") from exc


def _require_sayable(word: Word) -> None:
    try:
        word.to_bytes()
    except (CanonicalError, RecordError) as exc:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, Kind.INVALID, str(exc)) from exc
