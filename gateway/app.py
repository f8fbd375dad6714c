"""The gateway's routes: let intents in, tell requesters of their own, say what policy would say.

Who asks is authenticated here: an agent by its key, a person by the issuer's token. What is wrong with an intent is
said before anything is written; what was written is answered with its place on the log, and with the same answer again
however often it is sent. Nobody hears of another's intents: they are not found.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from gateway import admission, callers, checking, contract, events, openapi, views
from gateway.admission import Seal
from gateway.book import Book, Entry, Watcher
from gateway.callers import Caller, CallerRefusedError, UnknownCallerError
from gateway.contract import Accepted, IntentView, Links
from gateway.flood import Crowd, Flood
from gateway.ledger import Known, Marks
from gateway.settings import GatewaySettings
from schemas import ids
from schemas.record import RecordError, Statement
from schemas.records import (
    FINAL,
    ClassifiedIntent,
    Intent,
    PendingApproval,
    Phase,
    Refusal,
    Source,
    Subject,
    Withdrawal,
)
from streams import crashpoints
from streams.http.application import guarded
from streams.http.oidc import IssuerUnreachableError, Login, TokenRefusedError, Verifier
from streams.http.problems import Kind, ProblemError
from streams.rows import UnreadableError
from streams.sayings import NotRecordedError

READ: Final = "intents:read"
WRITE: Final = "intents:write"
MAX_BODY: Final = 32 * 1024
"""A form may be spelt longer than the intent that is made of it."""
MAX_WAIT: Final = 60.0
MAX_PAGE: Final = 200
MAX_LOOKED_AT: Final = 2000
"""How many intents one page looks at for those in the phases asked for."""
MOST_CHOSEN: Final = 10_000
_KEY: Final = re.compile(r"[\x21-\x7e]{8,128}")

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT)]
PhaseName = Phase | Literal["submitted", "quarantined"]


class Gateway:
    """The routes, over a book."""

    def __init__(
        self,
        book: Book,
        verifier: Verifier | None,
        checker: checking.Checker,
        settings: GatewaySettings,
        *,
        now: Callable[[], int],
        monotonic: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        """`now`: Unix milliseconds. Without a verifier only agents with keys are let in."""
        self._book = book
        self._verifier = verifier
        self._checker = checker
        self._now = now
        self._entropy = entropy
        self._asks = Flood(settings.asks_per_second, monotonic)
        self._reads = Flood(settings.reads_per_second, monotonic)
        self._crowd = Crowd(settings.streams_each, settings.streams)
        #: Digests being written, by intent: the first body counts, also while it is on its way.
        self._under_way: dict[str, str] = {}
        #: Ids chosen for an Idempotency-Key whose intent is on its way, or nobody knows.
        self._chosen: dict[tuple[str, str], str] = {}

    # ------------------------------------------------------------ asking

    async def submit(self, request: Request) -> Response:
        """Let an intent in: sealed by an agent's key, or as a form of whom a token names."""
        match _media_type(request):
            case contract.SEALED_INTENT:
                seal, raw = _seal(request), await request.body()
                statement, intent = admission.unsealed(Intent, raw, seal, self._book.world, self._now())
                if _first_body(self._book.entry(intent.id)) is None:
                    self._require_calm(self._asks, intent.subject.id)
                else:
                    # Anybody who has seen the bytes can send them again: that must not use up what their agent may ask.
                    self._require_calm(self._reads, statement.digest)
                return await self._accept(statement, intent)
            case contract.JSON:
                caller = await self._caller(request, WRITE, self._asks)
                _require_no_key(caller, "intents")
                form = admission.form(await request.body(), contract.IntentForm)
                return await self._submit_form(request, caller, form)
            case _:
                raise _not_acceptable(contract.SEALED_INTENT)

    async def _submit_form(self, request: Request, caller: Caller, form: contract.IntentForm) -> Response:
        key = _idempotency_key(request)
        requester = caller.subject.id
        slot = (requester, key or "")
        intent_id = form.id or self._id_for(requester, key)
        if key is not None and form.id is None:
            self._chosen[slot] = intent_id
            if len(self._chosen) > MOST_CHOSEN:
                del self._chosen[next(iter(self._chosen))]
        try:
            intent = admission.intent_from(form, caller, intent_id)
            told = await self._accept(self._signed(intent), intent)
        except ProblemError as exc:
            # What was not acknowledged may still reach the log: the same key keeps meaning the same intent.
            if exc.kind is not Kind.NOT_RECORDED:
                self._chosen.pop(slot, None)
            raise
        self._chosen.pop(slot, None)
        return told

    def _id_for(self, requester: str, key: str | None) -> str:
        """A new id; or, for a key that was used before, the one it was used for: the log remembers (law 1)."""
        if key is None:
            return ids.intent_id(requester, self._now(), self._entropy(ids.ENTROPY_BYTES))
        made = ids.intent_id(requester, self._now(), admission.derived_entropy(requester, key))
        suffix = made[-16:]
        before = (each for each in self._book.ids_of(requester) if each.endswith(suffix))
        return self._chosen.get((requester, key)) or next(before, made)

    async def _accept(self, statement: Statement, intent: Intent) -> Response:
        """The same bytes again have the same answer; others under one id are a conflict."""
        crashpoints.reached("gateway.1-heard")
        entry = self._book.entry(intent.id)
        first = _first_body(entry)
        if first is not None:
            digest, place = first
            if digest != statement.digest or place is None:
                raise _conflict(intent.id)
            return _accepted(statement, intent, place, HTTPStatus.OK)
        if self._under_way.get(intent.id, statement.digest) != statement.digest:
            raise _conflict(intent.id)
        admission.admit(statement, self._book.world, self._now())
        self._under_way[intent.id] = statement.digest
        try:
            place = await self._say(statement, intent.id)
        finally:
            self._under_way.pop(intent.id, None)
        crashpoints.reached("gateway.4-answered")
        return _accepted(statement, intent, place, HTTPStatus.ACCEPTED)

    async def withdraw(self, request: Request, intent_id: str) -> Response:
        """Take an intent back: its requester, or an owner of the agent."""
        _require_intent_id(intent_id)
        match _media_type(request):
            case contract.SEALED_WITHDRAWAL:
                seal, raw = _seal(request), await request.body()
                statement, withdrawal = admission.unsealed(Withdrawal, raw, seal, self._book.world, self._now())
                self._require_calm(self._asks, withdrawal.by.id)
                if withdrawal.intent != intent_id:
                    raise admission.invalid(
                        [contract.FaultView(path="/intent", message=f"is another intent than the path's, {intent_id}")]
                    )
            case contract.JSON:
                caller = await self._caller(request, WRITE, self._asks)
                _require_no_key(caller, "withdrawals")
                self._require_owner(caller, intent_id)
                form = admission.form(await request.body(), contract.WithdrawalForm)
                withdrawal = admission.withdrawal_of(intent_id, caller.subject, form.reason)
                statement = self._signed(withdrawal)
            case _:
                raise _not_acceptable(contract.SEALED_WITHDRAWAL)
        return await self._withdraw(statement, intent_id)

    async def _withdraw(self, statement: Statement, intent_id: str) -> Response:
        held = self._book.entry(intent_id).held
        if held is not None and held.row.phase in FINAL:
            if held.row.phase is not Phase.WITHDRAWN:
                raise ProblemError(
                    HTTPStatus.CONFLICT, Refusal.FINAL, f"it has ended already: it is {held.row.phase.value}"
                )
            return _json(contract.Withdrawn(id=intent_id, links=_links(intent_id)))
        place = await self._say(statement, intent_id)
        told = contract.Withdrawn(id=intent_id, partition=place.partition, offset=place.offset, links=_links(intent_id))
        return _json(told, HTTPStatus.ACCEPTED)

    def _require_owner(self, caller: Caller, intent_id: str) -> None:
        """The requester, or an owner of the agent; to anybody else it is not there."""
        requester, directory = ids.requester_of(intent_id), self._book.world.directory
        if requester == caller.subject.id:
            self._own(caller, intent_id)
            return
        owners = next((a.owners for a in (directory.agents if directory else ()) if a.id == requester), ())
        entry = self._book.entry(intent_id)
        if caller.subject.type != "person" or caller.subject.id not in owners or entry.known.is_nothing:
            raise _not_found(intent_id)

    def _signed(self, record: Intent | Withdrawal) -> Statement:
        return admission.signed(record, self._book.signer, self._book.world, self._now())

    async def _say(self, statement: Statement, intent_id: str) -> Source:
        try:
            return await self._book.say(statement, intent_id)
        except NotRecordedError as exc:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                Kind.NOT_RECORDED,
                "it could not be recorded; send the same again, it counts once",
                headers={"Retry-After": "2"},
            ) from exc

    # ------------------------------------------------------------ what policy would say

    async def check(self, request: Request) -> Response:
        """What policy would say now. Nothing is written, and the answer binds nobody."""
        caller = await self._caller(request, READ, self._asks)
        raw = await request.body()
        match _media_type(request):
            case contract.SEALED_INTENT:
                intent = checking.intent_in(raw)
                if intent.subject != caller.subject:
                    raise admission.invalid(
                        [contract.FaultView(path="/subject", message=f"is not you: you are {caller.subject.id}")]
                    )
            case contract.JSON:
                form = admission.form(raw, contract.IntentForm)
                intent_id = form.id or self._id_for(caller.subject.id, None)
                intent = admission.intent_from(form, caller, intent_id)
                # An agent's own key signs what it asks; what a form asks, this gateway would have to sign.
                if caller.keyid is None:
                    self._signed(intent)
            case _:
                raise _not_acceptable(contract.SEALED_INTENT)
        admission.require_no_secret(raw)
        return _json(await self._checker.check(intent, self._book.world, self._now()))

    async def actions(self, request: Request) -> Response:
        """What executors offer."""
        await self._caller(request, READ, self._reads)
        return _json(checking.offered(self._book.world))

    # ------------------------------------------------------------ reading one's own

    async def list_intents(
        self,
        request: Request,
        phase: Annotated[list[PhaseName] | None, Query()] = None,
        after: Annotated[str | None, Query(max_length=128)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    ) -> Response:
        """One's own intents, newest first."""
        caller = await self._caller(request, READ, self._reads)
        wanted = frozenset(phase or ())
        found: list[IntentView] = []
        newest = sorted(self._book.ids_of(caller.subject.id), key=_ulid, reverse=True)
        behind = [each for each in newest if after is None or _ulid(each) < _ulid(after)]
        last: str | None = None
        for intent_id in behind[:MAX_LOOKED_AT]:
            if len(found) == limit:
                break
            last = intent_id
            view = self._line(caller, intent_id)
            if view is not None and (not wanted or view.phase in wanted):
                found.append(view)
        is_more = last is not None and last != behind[-1]
        return _json(contract.Page(items=tuple(found), next=last if is_more else None))

    async def show(
        self,
        request: Request,
        intent_id: str,
        wait: Wait = 0,
        after: Annotated[str | None, Query(max_length=128)] = None,
        until: Literal["final"] | None = None,
    ) -> Response:
        """One of one's own. With `wait`: once its phase changes, once it is another version than `after`, or final."""
        caller = await self._caller(request, READ, self._reads)
        found = self._view(caller, intent_id)
        if wait and not _is_there(found, found, after, until):
            found = await self._waited(caller, intent_id, found, wait, after, until)
        if found is None:
            raise _not_found(intent_id)
        return _json(found)

    async def _waited(
        self,
        caller: Caller,
        intent_id: str,
        first: IntentView | None,
        wait: float,
        after: str | None,
        until: str | None,
    ) -> IntentView | None:
        self._require_room(caller)
        self._crowd.enter(caller.subject.id)
        try:
            with self._book.watch(caller.subject.id) as watcher:
                found = self._view(caller, intent_id)
                await watcher.until(lambda: _is_there(self._view(caller, intent_id), first, after, until), wait)
                found = self._view(caller, intent_id)
        finally:
            self._crowd.leave(caller.subject.id)
        return found

    async def events_of(self, request: Request, intent_id: str) -> Response:
        """The states of one intent, from now until it has ended."""
        caller = await self._caller(request, READ, self._reads)
        self._own(caller, intent_id)
        return self._stream(request, caller, intent_id)

    async def events(self, request: Request) -> Response:
        """The states of all of one's own: what is open, then what changes."""
        return self._stream(request, await self._caller(request, READ, self._reads), None)

    def _stream(self, request: Request, caller: Caller, intent_id: str | None) -> Response:
        told = _Told(self._book, caller, intent_id, self._line, self._is_still)
        since = events.marks_of(request.headers.get("last-event-id"), told.partition)
        if told.is_over and since is not None and not told.begun(since):
            # WHATWG HTML, 9.2.3: what has ended is not to be asked for again.
            return Response(status_code=HTTPStatus.NO_CONTENT)
        self._require_room(caller)
        return events.Held(events.stream(told, since), self._crowd, caller.subject.id)

    # ------------------------------------------------------------ what this door is, and its health

    async def described(self) -> Response:
        """Every path, form, answer and problem, as OpenAPI 3.1."""
        return Response(openapi.published(), media_type=contract.JSON)

    async def healthz(self) -> Response:
        """The loop turns."""
        return JSONResponse({"live": True})

    async def readyz(self) -> Response:
        """Whether intents can be let in."""
        world = self._book.world
        missing = [] if world.is_complete else ["directory, policies and manifests in force"]
        body = {"ready": not missing, "waiting_for": missing}
        return JSONResponse(body, HTTPStatus.OK if not missing else HTTPStatus.SERVICE_UNAVAILABLE)

    # ------------------------------------------------------------ who

    async def _caller(self, request: Request, scope: str, flood: Flood) -> Caller:
        caller = await self._recognised(request, scope)
        self._require_calm(flood, caller.subject.id)
        return caller

    async def _recognised(self, request: Request, scope: str) -> Caller:
        given = request.headers.getlist("authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthenticated("send one `Authorization: Bearer <token>`", "")
        world = self._book.world
        try:
            if callers.is_own(token):
                return callers.by_own_token(token, world, self._now())
            login = await self._login(token)
            if scope not in login.scopes:
                raise _out_of_scope(scope)
            return callers.by_account(login, world.directory)
        except (CallerRefusedError, TokenRefusedError) as exc:
            raise _unauthenticated(str(exc), ', error="invalid_token"') from exc
        except UnknownCallerError as exc:
            raise ProblemError(HTTPStatus.FORBIDDEN, Kind.UNKNOWN_CALLER, str(exc)) from exc
        except IssuerUnreachableError as exc:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                Kind.ISSUER_UNREACHABLE,
                f"{exc}: nobody can be recognised; try again",
                headers={"Retry-After": "2"},
            ) from exc

    async def _login(self, token: str) -> Login:
        if self._verifier is None:
            raise CallerRefusedError("only agents with keys are let in here: no issuer is configured")
        return await self._verifier.login(token)

    def _require_calm(self, flood: Flood, requester: str) -> None:
        seconds = flood.wait_for(requester)
        if seconds > 0:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                Kind.TOO_MANY,
                f"{requester} asks too often: wait, and ask less often",
                headers={"Retry-After": str(math.ceil(seconds))},
            )

    def _require_room(self, caller: Caller) -> None:
        if not self._crowd.admits(caller.subject.id):
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                Kind.TOO_MANY,
                f"{caller.subject.id} holds as many streams and long polls open as one may: close some",
                headers={"Retry-After": "5"},
            )
        if self._crowd.is_full:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                Kind.TOO_MANY,
                "no more streams and long polls fit here: poll, or try again",
                headers={"Retry-After": "5"},
            )

    def _is_still(self, caller: Caller) -> bool:
        return callers.is_still(caller, self._book.world, self._now())

    # ------------------------------------------------------------ what is there

    def _own(self, caller: Caller, intent_id: str) -> IntentView:
        found = self._view(caller, intent_id)
        if found is None:
            raise _not_found(intent_id)
        return found

    def _line(self, caller: Caller, intent_id: str) -> IntentView | None:
        """As `_view`, among others: what cannot be read or trusted is no line; asking for it by id says why."""
        try:
            return self._view(caller, intent_id)
        except (ProblemError, UnreadableError):
            return None

    def _view(self, caller: Caller, intent_id: str) -> IntentView | None:
        """What this caller may see of it: nothing at all, unless it asked for it."""
        if not _is_of(intent_id, caller.subject.id):
            return None
        entry = self._book.entry(intent_id)
        row = _verified(entry)
        if entry.known.is_nothing or not _may_see(caller.subject, entry.known, row):
            return None
        return views.view(intent_id, entry.known, row, self._book.world)


@dataclass(frozen=True, slots=True)
class _Told:
    """Whose events a stream tells, and of which of their intents."""

    book: Book
    caller: Caller
    intent_id: str | None
    view: Callable[[Caller, str], IntentView | None]
    still: Callable[[Caller], bool]

    @property
    def partition(self) -> int:
        return self.book.place_of(self.caller.subject.id)

    def watch(self) -> AbstractContextManager[Watcher]:
        return self.book.watch(self.caller.subject.id)

    def read_to(self) -> Marks:
        return self.book.read_to(self.caller.subject.id)

    def begun(self, since: Marks | None) -> list[IntentView]:
        mine = (self.intent_id,) if self.intent_id else tuple(self.book.ids_of(self.caller.subject.id))
        if since is not None:
            return self.shown(mine, since)
        found = [view for each in mine if (view := self.view(self.caller, each)) is not None]
        return _in_order(view for view in found if self.intent_id or not view.is_final)

    def shown(self, changed: tuple[str, ...], since: Marks) -> list[IntentView]:
        news = [
            each
            for each in changed
            if self.intent_id in {None, each} and not self.book.known(each).marks.is_within(since)
        ]
        return _in_order(view for each in news if (view := self.view(self.caller, each)) is not None)

    @property
    def is_over(self) -> bool:
        if self.intent_id is None:
            return False
        found = self.view(self.caller, self.intent_id)
        return found is None or found.is_final

    @property
    def is_allowed(self) -> bool:
        return self.still(self.caller)


def make_app(gateway: Gateway) -> FastAPI:
    """The application: its routes on a guarded door."""
    app = guarded("Keyturn gateway", "send the same again: what was recorded counts once", max_body=MAX_BODY)
    for path, endpoint, method in (
        ("/v1/intents", gateway.submit, "POST"),
        ("/v1/intents", gateway.list_intents, "GET"),
        ("/v1/intents/{intent_id}", gateway.show, "GET"),
        ("/v1/intents/{intent_id}/events", gateway.events_of, "GET"),
        ("/v1/intents/{intent_id}/withdraw", gateway.withdraw, "POST"),
        ("/v1/events", gateway.events, "GET"),
        ("/v1/check", gateway.check, "POST"),
        ("/v1/actions", gateway.actions, "GET"),
        (openapi.PATH, gateway.described, "GET"),
        ("/healthz", gateway.healthz, "GET"),
        ("/readyz", gateway.readyz, "GET"),
    ):
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    return app


# ---------------------------------------------------------------- what is there


def _is_there(view: IntentView | None, first: IntentView | None, after: str | None, until: str | None) -> bool:
    """Whether what a long poll waits for has come."""
    if view is None:
        return False
    if until == "final":
        return view.is_final
    if after is not None:
        return view.version != after
    return view.is_final or first is None or view.phase != first.phase


def _is_of(intent_id: str, requester: str) -> bool:
    try:
        return ids.requester_of(intent_id) == requester
    except ids.IntentIdError:
        return False


def _may_see(subject: Subject, known: Known, row: PendingApproval | None) -> bool:
    """A name may have been an agent's once and be a person's now: the signed intent itself says whose it was."""
    asked_by = views.subject_of(known, row)
    return asked_by is None or asked_by == subject


def _verified(entry: Entry) -> PendingApproval | None:
    if entry.held is None:
        return None
    if not entry.held.is_verified:
        raise ProblemError(
            HTTPStatus.BAD_GATEWAY,
            Kind.INTEGRITY,
            "what is known of it is not signed by the core; tell whoever runs Keyturn",
        )
    return entry.held.row


def _first_body(entry: Entry) -> tuple[str, Source | None] | None:
    """The digest that pins this id, and where it lies. No place: a withdrawal came first, nothing can follow."""
    row = _verified(entry)
    if row is not None:
        if row.pinned is not None:
            return row.pinned.digest, row.pinned.source
        if row.classified is None:
            return "", None
        try:
            classified = row.classified.read(ClassifiedIntent)
        except RecordError:
            return "", None
        return classified.intent.digest, classified.source
    asked = entry.known.asked
    return (asked.statement.digest, asked.place) if asked is not None else None


def _in_order(found: Iterable[IntentView]) -> list[IntentView]:
    return sorted(found, key=lambda view: (view.updated_at, view.id))


def _ulid(intent_id: str) -> str:
    """Sorts by the time in the id."""
    return intent_id[-26:]


# ---------------------------------------------------------------- answers


def _json(model: BaseModel, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(model.model_dump(mode="json", exclude_none=True), status, dict(headers or {}))


def _accepted(statement: Statement, intent: Intent, place: Source, status: HTTPStatus) -> Response:
    told = Accepted(
        id=intent.id,
        digest=statement.digest,
        content_digest=intent.content_digest,
        partition=place.partition,
        offset=place.offset,
        links=_links(intent.id),
    )
    return _json(told, status, {"Location": told.links.self})


def _links(intent_id: str) -> Links:
    return Links(self=f"/v1/intents/{intent_id}", events=f"/v1/intents/{intent_id}/events")


def _conflict(intent_id: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.CONFLICT,
        Refusal.CONFLICT,
        f"another body came first under {intent_id}, and counts; ask anew under a new id (or Idempotency-Key)",
    )


def _not_found(intent_id: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.NOT_FOUND, Kind.NOT_FOUND, "no intent of yours is known by this id", members={"id": intent_id[:99]}
    )


def _unauthenticated(detail: str, error: str) -> ProblemError:
    challenge = f'Bearer realm="keyturn"{error}'
    return ProblemError(HTTPStatus.UNAUTHORIZED, Kind.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": challenge})


def _out_of_scope(scope: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.FORBIDDEN,
        Kind.INSUFFICIENT_SCOPE,
        f"the token's scope lacks {scope}",
        headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
    )


# ---------------------------------------------------------------- requests


def _media_type(request: Request) -> str:
    given = request.headers.getlist("content-type")
    return given[0].partition(";")[0].strip().lower() if len(given) == 1 else ""


def _seal(request: Request) -> Seal:
    """Who signed, and how: each header exactly once, or a proxy and we may read two different ones."""
    keyids, sigs = (request.headers.getlist(name) for name in ("keyturn-keyid", "keyturn-sig"))
    if len(keyids) != 1 or len(sigs) != 1:
        raise ProblemError(
            HTTPStatus.UNAUTHORIZED,
            Refusal.BAD_SIGNATURE,
            "send exactly one Keyturn-Keyid and one Keyturn-Sig with a sealed record",
            headers={"WWW-Authenticate": 'Keyturn-Sig realm="keyturn"'},
        )
    return Seal(keyids[0], sigs[0])


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) != 1 or not _KEY.fullmatch(given[0]):
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            Kind.MALFORMED,
            "an Idempotency-Key is 8 to 128 visible ASCII characters, a new one for each intent",
        )
    return given[0]


def _require_intent_id(text: str) -> None:
    try:
        ids.split(text)
    except ids.IntentIdError as exc:
        raise _not_found(text) from exc


def _require_no_key(caller: Caller, what: str) -> None:
    if caller.keyid is not None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            Kind.SIGN_YOURSELF,
            f"{caller.subject.id} holds a key: it signs its {what} itself and sends them sealed; its tokens only read",
        )


def _not_acceptable(sealed: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        Kind.NOT_JSON,
        f"send Content-Type: {sealed} (signed with your key) or {contract.JSON} (with a token), once",
    )
