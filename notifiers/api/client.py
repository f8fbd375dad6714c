"""The approvers' API as its clients see it: one call a method, problems as exceptions. Used by the command line.

A token is sent over TLS or to this machine only. What is received is checked before it is shown: the card's content
against its digest, the question's members against theirs (law 7 holds on this side too).

    ApiError                 the API said no; has the problem's type
    ├── TemporaryError       it may work later: unreachable, overloaded, Kafka or the issuer down
    ├── ForbiddenError       this token or person may not
    ├── NotToldError         a setting that is needed is missing, or its file cannot be read
    ├── IntegrityError       what came cannot be trusted
    └── GoneError            there is no such thing
"""

import re
import secrets
import time
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from notifiers.api import contract
from schemas.records import Phase, Verdict
from streams.http.problems import Kind
from streams.http.urls import is_loopback, is_private_to_us

TIMEOUT: Final = 20.0
STEP_SECONDS: Final = 10.0
"""One long poll; a longer wait is several."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
M = TypeVar("M", bound=BaseModel)


class ClientSettings(BaseSettings):
    """Where the API is and who asks, from `KEYTURN_…` variables."""

    model_config = SettingsConfigDict(env_prefix="KEYTURN_", frozen=True, extra="ignore", hide_input_in_errors=True)

    api_url: str = Field(default="http://127.0.0.1:8470", description="The approvers' API.")
    token: SecretStr | None = Field(default=None, description="An access token; prefer TOKEN_FILE.")
    token_file: Path | None = Field(default=None, description="A file that holds the access token.")

    def bearer(self) -> str:
        """The token. NotToldError when there is none."""
        if self.token_file is not None:
            try:
                text, where = self.token_file.read_text(encoding="utf-8"), f"KEYTURN_TOKEN_FILE: {self.token_file}"
            except (OSError, UnicodeDecodeError) as exc:
                why = (exc.strerror or type(exc).__name__) if isinstance(exc, OSError) else "it is not text"
                raise NotToldError(
                    f"KEYTURN_TOKEN_FILE: {self.token_file} cannot be read ({why}): name a file that holds an access "
                    "token of your issuer"
                ) from exc
        else:
            text, where = (self.token.get_secret_value() if self.token else ""), "KEYTURN_TOKEN"
        if not _TOKEN.fullmatch(text.strip()):
            raise NotToldError(
                f"{where}: no access token there; get one from your issuer, set KEYTURN_TOKEN_FILE to it"
            )
        return text.strip()


class ApiError(Exception):
    """The API said no."""

    def __init__(self, text: str, kind: str | None = None) -> None:
        super().__init__(text)
        self.kind = kind


class TemporaryError(ApiError):
    """It may work later."""


class ForbiddenError(ApiError):
    """This token or person may not."""


class NotToldError(ApiError):
    """A setting that is needed is missing, or cannot be used."""


class IntegrityError(ApiError):
    """What came cannot be trusted."""


class GoneError(ApiError):
    """There is no such thing."""


class Client:
    """One person's connection. A context manager."""

    def __init__(self, settings: ClientSettings) -> None:
        if not is_private_to_us(settings.api_url):
            raise NotToldError(f"KEYTURN_API_URL: {settings.api_url}: a token goes over https, or to this machine only")
        # A proxy has no business between us and our own machine.
        is_local = is_loopback(urlsplit(settings.api_url).hostname)
        self._http = httpx.Client(
            base_url=settings.api_url.rstrip("/"),
            headers={"Authorization": f"Bearer {settings.bearer()}"},
            timeout=TIMEOUT,
            trust_env=not is_local,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def page(
        self,
        phases: tuple[Phase, ...] = (),
        *,
        cursor: str | None = None,
        limit: int = 50,
        wait: float = 0,
        after: str | None = None,
    ) -> contract.Page:
        """One page of rows."""
        asked = [*(("phase", phase.value) for phase in phases), ("limit", str(limit))]
        if cursor is not None:
            asked.append(("cursor", cursor))
        if after is not None:
            asked += [("after", after), ("wait", str(wait))]
        return _model(self._send("GET", "/v1/approvals", params=httpx.QueryParams([*asked])), contract.Page)

    def approval(self, intent_id: str, *, wait: float = 0, after: str | None = None) -> contract.ApprovalView:
        """One row, checked. IntegrityError when its card or question is not what its digest says."""
        asked = {"after": after, "wait": str(wait)} if after is not None else {}
        response = self._send("GET", f"/v1/approvals/{intent_id}", params=httpx.QueryParams(asked))
        view = _model(response, contract.ApprovalView)
        if view.card.content_digest() != view.card.digest:
            raise IntegrityError("the card's content is not what its digest says: do not decide on it")
        named = view.question.digest if view.question else None
        if named != view.question_digest or named != view.card.question or view.card.intent_id != intent_id:
            raise IntegrityError("the question is not what its digest says: do not decide on it")
        return view

    def decide(self, view: contract.ApprovalView, verdict: Verdict, reason: str | None) -> contract.Recorded:
        """Say it. Returns when it is on the log, refused or not."""
        if view.question_digest is None:
            raise GoneError("no question is open")
        body: dict[str, str] = {"verdict": verdict.value, "card": view.card.digest}
        if reason is not None:
            body["reason"] = reason
        headers = {"If-Match": f'"{view.question_digest}"', "Idempotency-Key": secrets.token_urlsafe(24)}
        return self._say(f"/v1/approvals/{view.id}/decisions", body, headers)

    def resolve(self, view: contract.ApprovalView, found: str, reason: str) -> contract.Recorded:
        """Say what was found out about an `unknown`."""
        if view.grant is None:
            raise GoneError("no grant was given, so none can be unknown")
        body = {"grant": view.grant, "found": found, "reason": reason, "card": view.card.digest}
        headers = {"Idempotency-Key": secrets.token_urlsafe(24)}
        return self._say(f"/v1/approvals/{view.id}/resolutions", body, headers)

    def answer(self, recorded: contract.Recorded, seconds: float) -> contract.AnswerView:
        """The core's answer, or `deciding` when it did not come within these seconds."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            asked = httpx.QueryParams({"wait": f"{min(left, STEP_SECONDS):.2f}"})
            found = _model(self._send("GET", recorded.location, params=asked), contract.AnswerView)
            if found.state != "deciding" or time.monotonic() >= deadline:
                return found

    def _say(self, path: str, body: dict[str, str], headers: dict[str, str]) -> contract.Recorded:
        # The key makes a repeat harmless: one click stays one, though the connection broke under its answer.
        try:
            response = self._once("POST", path, json=body, headers=headers)
        except TemporaryError:
            response = self._once("POST", path, json=body, headers=headers)
        # 412 with `recorded`: it was sent, about a question that is no longer in force; the core will say so.
        if response.status_code == HTTPStatus.PRECONDITION_FAILED:
            return _model(response, contract.Recorded)
        _raise_for(response)
        return _model(response, contract.Recorded)

    def _send(self, method: str, path: str, params: httpx.QueryParams) -> httpx.Response:
        response = self._once(method, path, params=params)
        _raise_for(response)
        return response

    def _once(
        self,
        method: str,
        path: str,
        *,
        params: httpx.QueryParams | None = None,
        json: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, params=params, json=json, headers=headers)
        except httpx.TransportError as exc:
            where = self._http.base_url
            raise TemporaryError(f"{where} cannot be reached: {type(exc).__name__}; is KEYTURN_API_URL right?") from exc


def _model(response: httpx.Response, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as exc:
        raise ApiError(f"the answer is not of this API ({response.status_code}): is KEYTURN_API_URL right?") from exc


class _Problem(BaseModel):
    type: str = "about:blank"
    detail: str = ""


def _raise_for(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        problem = _Problem.model_validate_json(response.content)
    except ValidationError:
        problem = _Problem()
    text = problem.detail or f"the API, or a proxy before it, answered {response.status_code}"
    if problem.type == Kind.INTEGRITY.urn:
        raise IntegrityError(text, problem.type)
    match response.status_code:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            raise ForbiddenError(text, problem.type)
        case HTTPStatus.NOT_FOUND:
            raise GoneError(text, problem.type)
        case (
            HTTPStatus.TOO_MANY_REQUESTS
            | HTTPStatus.REQUEST_TIMEOUT
            | HTTPStatus.INTERNAL_SERVER_ERROR
            | HTTPStatus.BAD_GATEWAY
            | HTTPStatus.SERVICE_UNAVAILABLE
            | HTTPStatus.GATEWAY_TIMEOUT
        ):
            raise TemporaryError(text, problem.type)
        case _:
            raise ApiError(text, problem.type)
