"""The gateway's door as an OpenAPI 3.1 document: every path, what it takes and gives, and every problem it has.

Made of the very models that the routes use, so that it cannot say otherwise; which problem may come where is the table
below, and the tests hold every answer they see against it. Schemas say what is necessary: answers may grow, and a form
that fits its schema may still be refused, with the reason.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from gateway import contract
from schemas.records import Intent, Refusal, Withdrawal
from streams.http.problems import MEDIA_TYPE, Kind, urn_of

PATH: Final = "/v1/openapi.json"
_REF: Final = "#/components/schemas/"
_TAKES: Final = (contract.IntentForm, contract.WithdrawalForm, Intent, Withdrawal)
_GIVES: Final = (
    contract.Accepted,
    contract.Withdrawn,
    contract.IntentView,
    contract.Page,
    contract.CheckView,
    contract.Actions,
)

Problems = Mapping[int, frozenset[Kind | Refusal]]


def _problems(*tables: Problems) -> dict[int, frozenset[Kind | Refusal]]:
    return {
        status: frozenset[Kind | Refusal]().union(*(table.get(status, ()) for table in tables))
        for status in sorted({status for table in tables for status in table})
    }


def _of(*kinds: Kind | Refusal) -> frozenset[Kind | Refusal]:
    return frozenset(kinds)


ALWAYS: Final[Problems] = {400: _of(Kind.MALFORMED), 413: _of(Kind.TOO_LARGE), 500: _of(Kind.INTERNAL)}
TOKEN: Final[Problems] = {
    401: _of(Kind.UNAUTHENTICATED),
    403: _of(Kind.INSUFFICIENT_SCOPE, Kind.UNKNOWN_CALLER),
    429: _of(Kind.TOO_MANY),
    503: _of(Kind.ISSUER_UNREACHABLE),
}
BODY: Final[Problems] = {
    408: _of(Kind.TOO_SLOW),
    415: _of(Kind.NOT_JSON),
    422: _of(Kind.INVALID, Refusal.SECRET_FOUND),
}
SEALED: Final[Problems] = {401: _of(Refusal.BAD_SIGNATURE), 403: _of(Kind.SIGN_YOURSELF, Refusal.NOT_ENTITLED)}
ADMITTED: Final[Problems] = {
    403: _of(Refusal.UNKNOWN_AGENT, Refusal.UNKNOWN_PERSON, Refusal.NOT_ENTITLED),
    409: _of(Refusal.CONFLICT),
    422: _of(Refusal.MALFORMED, Refusal.ID_OUT_OF_WINDOW, Refusal.UNKNOWN_ACTION, Refusal.BAD_PARAMETERS),
    503: _of(Kind.NOT_READY),
}
SAID: Final[Problems] = {503: _of(Kind.NOT_RECORDED)}
ENDED: Final[Problems] = {409: _of(Refusal.FINAL)}
OWN: Final[Problems] = {404: _of(Kind.NOT_FOUND), 502: _of(Kind.INTEGRITY)}
HELD: Final[Problems] = {503: _of(Kind.TOO_MANY)}

OPERATIONS: Final[dict[tuple[str, str], Problems]] = {
    ("post", "/v1/intents"): _problems(ALWAYS, TOKEN, SEALED, BODY, ADMITTED, SAID, {502: OWN[502]}),
    ("get", "/v1/intents"): _problems(ALWAYS, TOKEN),
    ("get", "/v1/intents/{intent_id}"): _problems(ALWAYS, TOKEN, OWN, HELD),
    ("get", "/v1/intents/{intent_id}/events"): _problems(ALWAYS, TOKEN, OWN, HELD),
    ("post", "/v1/intents/{intent_id}/withdraw"): _problems(ALWAYS, TOKEN, SEALED, BODY, OWN, ENDED, SAID),
    ("get", "/v1/events"): _problems(ALWAYS, TOKEN, HELD),
    ("post", "/v1/check"): _problems(ALWAYS, TOKEN, BODY),
    ("get", "/v1/actions"): _problems(ALWAYS, TOKEN),
    ("get", PATH): _problems(ALWAYS),
    ("get", "/healthz"): _problems(ALWAYS),
    ("get", "/readyz"): _problems(ALWAYS),
}
"""Every operation, and which problems it may answer with, by status."""


@cache
def published() -> bytes:
    """The document's bytes. Made once: anybody may ask for them."""
    return json.dumps(document()).encode()


def document() -> dict[str, Any]:
    """The whole document."""
    _, defined = models_json_schema(
        [(model, "validation") for model in (*_TAKES, *_GIVES)], ref_template=_REF + "{model}"
    )
    paths: dict[str, Any] = {}
    for (method, path), problems in OPERATIONS.items():
        summary, takes, gives, parameters = _SAYS[method, path]
        operation: dict[str, Any] = {
            "summary": summary,
            "parameters": [*(_ID,) * ("{intent_id}" in path), *parameters],
            "responses": {**gives, **_answers(problems)},
            "security": [{"token": []}] if TOKEN[401] <= problems.get(401, frozenset()) else [],
        }
        if takes:
            operation["requestBody"] = {"required": True, "content": takes}
        if Refusal.BAD_SIGNATURE in problems.get(401, ()):
            operation["security"].append({"keyid": [], "sig": []})
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Keyturn gateway", "version": "v1", "description": "docs/gateway.md says it in words."},
        "paths": paths,
        "components": {
            "schemas": {**defined["$defs"], "Problem": _PROBLEM},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "keyid": {"type": "apiKey", "in": "header", "name": "Keyturn-Keyid"},
                "sig": {"type": "apiKey", "in": "header", "name": "Keyturn-Sig"},
            },
        },
    }


def urns(kinds: Iterable[Kind | Refusal]) -> list[str]:
    """The `type` of each, in order."""
    return sorted({urn_of(kind) if isinstance(kind, Refusal) else kind.urn for kind in kinds})


def _answers(problems: Problems) -> dict[str, Any]:
    return {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": f"{_REF}Problem", "properties": {"type": {"enum": urns(kinds)}}},
                }
            },
        }
        for status, kinds in problems.items()
    }


def _given(model: type[object] | None, description: str, media_type: str = contract.JSON) -> dict[str, Any]:
    schema = {"$ref": _REF + model.__name__} if model is not None else {"type": "object"}
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _taken(*forms: tuple[str, type[object]]) -> dict[str, Any]:
    return {kind: {"schema": {"$ref": _REF + model.__name__}} for kind, model in forms}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema}


_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457: branch on `type`, show `detail`, mark fields by `errors`.",
    "properties": {
        "type": {"type": "string", "pattern": "^urn:keyturn:problem:[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "id": {"type": "string"},
        "errors": {"type": "array", "items": {"$ref": f"{_REF}FaultView"}},
    },
    "required": ["type", "title", "status", "detail"],
}
_TEXT: Final[dict[str, Any]] = {"type": "string", "maxLength": 128}
_ID: Final[dict[str, Any]] = {"name": "intent_id", "in": "path", "required": True, "schema": {"type": "string"}}
_AFTER: Final = _query("after", _TEXT)
_RESUME: Final = _header("Last-Event-ID", {"type": "string"})
_STREAM: Final[dict[str, Any]] = {
    "200": {
        "description": "`event: phase`, `data`: an IntentView as JSON, `id`: from where to go on",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_ASKED: Final = _taken((contract.SEALED_INTENT, Intent), (contract.JSON, contract.IntentForm))

_Says = tuple[str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]
_SAYS: Final[dict[tuple[str, str], _Says]] = {
    ("post", "/v1/intents"): (
        "Ask: sealed by an agent's key, or as a form with a person's token.",
        _ASKED,
        {
            "200": _given(contract.Accepted, "The same was there already"),
            "202": _given(contract.Accepted, "It is on the log"),
        },
        [_header("Idempotency-Key", {"type": "string", "pattern": "^[\\x21-\\x7e]{8,128}$"})],
    ),
    ("get", "/v1/intents"): (
        "One's own, newest first.",
        {},
        {"200": _given(contract.Page, "A page")},
        [
            _query("phase", {"type": "array", "items": {"type": "string"}}),
            _AFTER,
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
        ],
    ),
    ("get", "/v1/intents/{intent_id}"): (
        "One of one's own, now or once it changes.",
        {},
        {"200": _given(contract.IntentView, "Where it stands")},
        [
            _query("wait", {"type": "number", "minimum": 0, "maximum": 60, "default": 0}),
            _AFTER,
            _query("until", {"enum": ["final"]}),
        ],
    ),
    ("get", "/v1/intents/{intent_id}/events"): (
        "Its states, until it has ended.",
        {},
        {**_STREAM, "204": {"description": "It has ended, and there is nothing to come back for"}},
        [_RESUME],
    ),
    ("post", "/v1/intents/{intent_id}/withdraw"): (
        "Take it back.",
        _taken((contract.SEALED_WITHDRAWAL, Withdrawal), (contract.JSON, contract.WithdrawalForm)),
        {
            "200": _given(contract.Withdrawn, "It is withdrawn already"),
            "202": _given(contract.Withdrawn, "The withdrawal is on the log"),
        },
        [],
    ),
    ("get", "/v1/events"): ("The states of all of one's own.", {}, _STREAM, [_RESUME]),
    ("post", "/v1/check"): (
        "What policy would say. Nothing is written.",
        _ASKED,
        {"200": _given(contract.CheckView, "What it would say")},
        [],
    ),
    ("get", "/v1/actions"): (
        "What executors offer.",
        {},
        {"200": _given(contract.Actions, "Every action")},
        [],
    ),
    ("get", PATH): ("This document.", {}, {"200": _given(None, "OpenAPI 3.1")}, []),
    ("get", "/healthz"): ("Whether the process turns.", {}, {"200": _given(None, "It does")}, []),
    ("get", "/readyz"): (
        "Whether intents can be let in.",
        {},
        {"200": _given(None, "They can"), "503": _given(None, "Not yet, and what it waits for")},
        [],
    ),
}
