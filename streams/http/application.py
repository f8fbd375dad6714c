"""An application as every door builds it: problems in one form, guards around it, no documentation pages, no CORS."""

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from streams.http.counting import Counted
from streams.http.guards import MAX_BODY, Guard
from streams.http.problems import Kind, ProblemError
from streams.rows import UnreadableError

_KINDS: Final = {HTTPStatus.NOT_FOUND: Kind.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED: Kind.METHOD_NOT_ALLOWED}


def guarded(title: str, broken: str, *, max_body: int = MAX_BODY) -> FastAPI:
    """An application without routes. `broken`: what whoever asks does when something broke in here."""

    async def _broken(_: Request, __: Exception) -> Response:
        return ProblemError(
            HTTPStatus.INTERNAL_SERVER_ERROR, Kind.INTERNAL, f"something broke here; {broken}"
        ).response()

    app = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(UnreadableError, _unreadable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(Guard, max_body=max_body)
    app.add_middleware(Counted)
    return app


async def _problem(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, ProblemError):
        raise exc
    return exc.response()


async def _unreadable(_: Request, exc: Exception) -> Response:
    return ProblemError(HTTPStatus.BAD_GATEWAY, Kind.INTEGRITY, f"{exc}; tell whoever runs Keyturn").response()


async def _invalid(_: Request, exc: Exception) -> Response:
    errors = exc.errors() if isinstance(exc, RequestValidationError) else ()
    found: list[JsonValue] = [
        {"path": "/".join(("", *(str(step) for step in error["loc"]))), "message": str(error["msg"])}
        for error in errors
    ]
    places = ", ".join(".".join(str(step) for step in error["loc"]) for error in errors)
    members: dict[str, JsonValue] = {"errors": found}
    return ProblemError(HTTPStatus.BAD_REQUEST, Kind.MALFORMED, f"not acceptable: {places}", members=members).response()


async def _gone(_: Request, __: Exception) -> Response:
    """Nobody is there to read it; it ends the request as the caller's doing, and not as a fault of ours."""
    detail = "the connection ended before the body was whole"
    return ProblemError(HTTPStatus.BAD_REQUEST, Kind.MALFORMED, detail).response()


async def _http(_: Request, exc: Exception) -> Response:
    status = HTTPStatus(exc.status_code) if isinstance(exc, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = exc.headers if isinstance(exc, HTTPException) else None
    return ProblemError(status, _KINDS.get(status, Kind.MALFORMED), status.phrase, headers=headers).response()
