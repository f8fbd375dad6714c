"""What went wrong, in one form (RFC 9457): `application/problem+json` with a stable `type`, and what to do next.

A client branches on `type`, never on words. The catalogue of all doors is here and only grows.
"""

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from pydantic import JsonValue
from starlette.responses import JSONResponse

from schemas.records import Refusal

MEDIA_TYPE: Final = "application/problem+json"
_URN: Final = "urn:keyturn:problem:"


class Kind(StrEnum):
    """Every kind of problem that a door answers with."""

    UNAUTHENTICATED = "unauthenticated"
    INSUFFICIENT_SCOPE = "insufficient-scope"
    NOT_A_PERSON = "not-a-person"
    UNKNOWN_PERSON = "unknown-person"
    UNKNOWN_CALLER = "unknown-caller"
    SIGN_YOURSELF = "sign-yourself"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    MALFORMED = "malformed"
    INVALID = "invalid"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    TOO_MANY = "too-many"
    NOT_JSON = "not-json"
    QUESTION_REQUIRED = "question-required"
    WRONG_QUESTION = "wrong-question"
    OTHER_CARD = "other-card"
    NOT_WHOLE = "not-whole"
    IDEMPOTENCY_KEY_REQUIRED = "idempotency-key-required"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    INTEGRITY = "integrity"
    NOT_RECORDED = "not-recorded"
    ISSUER_UNREACHABLE = "issuer-unreachable"
    NOT_READY = "not-ready"
    INTERNAL = "internal"

    @property
    def urn(self) -> str:
        """The `type` member."""
        return _URN + self.value


def urn_of(refusal: Refusal) -> str:
    """The `type` of a refusal of the core: `self_approval` is `urn:keyturn:problem:self-approval`."""
    return _URN + refusal.value.replace("_", "-")


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: HTTPStatus,
        kind: Kind | Refusal,
        detail: str,
        *,
        members: Mapping[str, JsonValue] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.members = dict(members or {})
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The problem on the wire."""
        body = {
            "type": urn_of(self.kind) if isinstance(self.kind, Refusal) else self.kind.urn,
            "title": self.kind.value.replace("-", " ").replace("_", " "),
            "status": self.status.value,
            "detail": self.detail,
        }
        return JSONResponse({**self.members, **body}, self.status.value, self.headers, MEDIA_TYPE)
