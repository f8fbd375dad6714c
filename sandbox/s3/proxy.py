"""The provider that S3 clients see: mints sessions, and lets nobody through whose session has ended.

Two laws. A request whose access key is neither a known identity's nor a living session's is answered 403 and goes no
further. Everything else goes to the store as it was signed, streamed, Host header included; the store judges
signatures, policies and prefixes. Only AssumeRole is taken apart here (`sandbox.s3.session_policy`) and signed anew.
No request is ever sent to the store twice.

Run as `python -m sandbox.s3.proxy --config FILE`.
"""

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import OK
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from sandbox.s3 import session_policy, sigv4
from sandbox.s3.minted import Minted
from sandbox.s3.settings import KeyPair, ProxySettings

Clock = Callable[[], datetime]

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "expect",  # answered here: the body is streamed on at once
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110, 7.6.1: these speak of one connection."""
FORWARDED: Final = tuple(f"x-forwarded-{name}" for name in ("for", "host", "port", "prefix", "proto"))
"""The store believes these when it checks a signature; a client has no business to send them."""
MAX_STS_BODY: Final = 64 * 1024
MAX_LINE: Final = 64 * 1024
"""A session token carries its policy, and a copy source a key of 1,024 bytes, percent-encoded."""
FORM_TYPE: Final = "application/x-www-form-urlencoded; charset=utf-8"
UNKNOWN: Final = KeyPair("", "")
"""Stands for a caller nobody knows: whatever it signs is refused."""
STS_PARAMETERS: Final = frozenset(
    {"Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "Policy", "SourceIdentity"}
)


@dataclass(frozen=True, slots=True)
class RefusedError(Exception):
    """The provider's no: its status, code and words, as S3 and STS say them."""

    status: int
    code: str
    message: str


class Provider:
    """The request handlers, over one store and one file of minted sessions."""

    def __init__(self, settings: ProxySettings, minted: Minted, store: aiohttp.ClientSession, clock: Clock) -> None:
        self._settings = settings
        self._identities = {pair.access_key: pair for pair in settings.identities}
        self._minted = minted
        self._store = store
        self._clock = clock

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        try:
            # STS and IAM share the root with ListBuckets; every one of their calls can be a POST there, or names
            # its Action in the query. Only the first form of AssumeRole is served.
            if "Action" in request.query or (request.path.strip("/") == "" and request.method != "GET"):
                return await self._sts(request)
            self._require_living(request)
            return await self._forward(request)
        except RefusedError as no:
            return web.Response(status=no.status, text=_error(request, no), content_type="application/xml")

    def _require_living(self, request: web.Request) -> None:
        """Law: an unknown or dead key goes no further."""
        key, token = _claimed(request)
        if key in self._identities:
            if token is not None:
                raise RefusedError(403, "AccessDenied", "a long-lived key comes without a session token")
            return
        session = self._minted.find(key)
        if session is None:
            raise RefusedError(403, "AccessDenied", f"nothing was minted under the key {key}")
        if token is None or not session.has(token):
            raise RefusedError(403, "AccessDenied", f"the session token is not the one minted with {key}")
        if session.is_dead(self._clock()):
            raise RefusedError(403, "AccessDenied", f"the session of {key} has passed the instant its policy names")

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if not request.raw_path.startswith("/"):
            raise RefusedError(400, "InvalidRequest", "the request target must be a path")
        headers = _onward(request.headers)
        for name in FORWARDED:
            headers.popall(name, None)
        response: web.StreamResponse | None = None
        has_body = request.body_exists and request.headers.get("Content-Length") != "0"
        try:
            async with self._store.request(
                request.method,
                URL(f"http://{self._settings.upstream}{request.raw_path}", encoded=True),
                headers=headers,
                data=request.content if has_body else None,
                allow_redirects=False,
            ) as answer:
                response = web.StreamResponse(
                    status=answer.status, reason=answer.reason, headers=_onward(answer.headers)
                )
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientConnectorError as exc:
            raise RefusedError(503, "ServiceUnavailable", "the store is not there; start the sandbox again") from exc
        except aiohttp.ClientError as exc:
            if response is None:
                raise RefusedError(500, "InternalError", "the store broke off; whether it acted is not known") from exc
            # Half an answer is out: a broken connection is the only way left to say that the rest is missing.
            if request.transport is not None:
                request.transport.abort()
            return response

    async def _sts(self, request: web.Request) -> web.Response:
        if request.method != "POST" or request.query_string or request.path != "/":
            raise RefusedError(400, "InvalidAction", "only POST / with AssumeRole in a form is served")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as exc:
            raise RefusedError(400, "InvalidParameterValue", "the form is too large") from exc
        caller, region = self._caller(request, body)
        form, dies_at = _undated_form(body)
        onward = urlencode(form).encode()
        signed = sigv4.sign(
            caller,
            region,
            service="sts",
            headers={"host": self._settings.upstream, "content-type": FORM_TYPE},
            body=onward,
            now=self._clock(),
        )
        async with self._store.post(f"http://{self._settings.upstream}/", data=onward, headers=signed) as answer:
            text = await answer.text()
            if answer.status == OK:
                access_key, token = _credentials(text)
                # Remembered before it is told: a credential nobody remembers is a credential nobody can end.
                self._minted.add(access_key, token, dies_at)
            return web.Response(status=answer.status, text=text, content_type=answer.content_type)

    def _caller(self, request: web.Request, body: bytes) -> tuple[KeyPair, str]:
        """The identity that signed an STS call, and the region it signed for."""
        try:
            claimed = sigv4.parse(request.headers.get("Authorization", ""))
            caller = self._identities.get(claimed.key, UNKNOWN)
            headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
            sigv4.verify(claimed, caller.secret_key, service="sts", headers=headers, body=body, now=self._clock())
        except sigv4.SignatureRefusedError as exc:
            raise RefusedError(403, "AccessDenied", str(exc)) from exc
        if caller is UNKNOWN:
            raise RefusedError(403, "AccessDenied", "only a long-lived identity may assume a role")
        return caller, claimed.region


def _claimed(request: web.Request) -> tuple[str, str | None]:
    """The access key a request claims to be signed with, and its session token."""
    header, query = request.headers.getall("Authorization", []), request.query.getall("X-Amz-Credential", [])
    if len(header) + len(query) != 1:
        raise RefusedError(403, "AccessDenied", "sign the request once, with AWS Signature Version 4")
    tokens = request.headers.getall("X-Amz-Security-Token", []) + request.query.getall("X-Amz-Security-Token", [])
    if len(tokens) > 1:
        raise RefusedError(403, "AccessDenied", "one session token, not several")
    if query:
        key = query[0].partition("/")[0]
    else:
        try:
            key = sigv4.parse(header[0]).key
        except sigv4.SignatureRefusedError as exc:
            raise RefusedError(403, "AccessDenied", str(exc)) from exc
    return key, tokens[0] if tokens else None


def _undated_form(body: bytes) -> tuple[dict[str, str], datetime | None]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
    except (UnicodeDecodeError, ValueError) as exc:
        raise RefusedError(400, "InvalidParameterValue", "the form cannot be read") from exc
    form = dict(pairs)
    if len(form) != len(pairs):
        raise RefusedError(400, "InvalidParameterValue", "a parameter is named twice")
    if form.get("Action") != "AssumeRole" or not form.get("RoleArn"):
        raise RefusedError(400, "InvalidAction", "only AssumeRole with a RoleArn is served")
    if unknown := set(form) - STS_PARAMETERS:
        # The store overlooks what it does not know; whoever sent it would believe it was honoured.
        raise RefusedError(400, "InvalidParameterValue", f"not understood here: {', '.join(sorted(unknown))}")
    policy = form.pop("Policy", None)
    if policy is None:
        return form, None
    try:
        undated, dies_at = session_policy.take_deadline(policy)
    except session_policy.PolicyRefusedError as exc:
        raise RefusedError(400, "MalformedPolicyDocument", str(exc)) from exc
    return form | {"Policy": undated}, dies_at


def _credentials(text: str) -> tuple[str, str]:
    """The access key and session token in the store's answer to AssumeRole."""
    # The answer comes from the store over loopback, and ElementTree fetches no external entity.
    root = ET.fromstring(text)  # noqa: S314
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in root.iter()}
    return found["AccessKeyId"], found["SessionToken"]


def _onward(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Headers for the next hop: all but those of this connection."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | named)


def _error(request: web.Request, no: RefusedError) -> str:
    error = f"<Code>{escape(no.code)}</Code><Message>{escape(no.message)}</Message>"
    number = f"<RequestId>{secrets.token_hex(12).upper()}</RequestId>"
    if request.method == "POST" and request.path == "/":
        return f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error>{number}</ErrorResponse>"
    place = f"<Resource>{escape(request.path)}</Resource>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{error}{place}{number}</Error>'


def open_store() -> aiohttp.ClientSession:
    """A client that passes bytes through untouched and sends each request at most once."""
    store = aiohttp.ClientSession(
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        max_field_size=MAX_LINE,
        max_line_size=MAX_LINE,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
    )
    # aiohttp sends an idempotent method again when the connection breaks, and counts PUT among them (RFC 9110,
    # 9.2.2); a conditional PUT sent twice is answered 412 although it took effect. There is no public switch.
    store._retry_connection = False  # noqa: SLF001
    return store


async def serve(settings: ProxySettings, clock: Clock, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store())
        minted = stack.enter_context(Minted(Path(settings.minted)))
        app = web.Application(client_max_size=MAX_STS_BODY)
        app.router.add_route("*", "/{any:.*}", Provider(settings, minted, store, clock).handle)
        # Objects go through as they are: an upload with Content-Encoding gzip must not be unpacked on the way.
        runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            max_field_size=MAX_LINE,
            max_line_size=MAX_LINE,
            shutdown_timeout=1,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, settings.host, settings.port).start()
        await stop.wait()


async def _main(settings: ProxySettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, lambda: datetime.now(UTC), stop)


def main(arguments: list[str]) -> None:
    """Read the settings and serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.s3.proxy")
    parser.add_argument("--config", type=Path, required=True)
    asyncio.run(_main(ProxySettings.from_file(parser.parse_args(arguments).config)))


if __name__ == "__main__":
    main(sys.argv[1:])
