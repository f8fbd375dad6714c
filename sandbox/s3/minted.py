"""Which credentials the proxy minted, and when each dies. One append-only file: a line is durable before it is told.

A key that is not in the file was never handed out, so losing the last, torn line loses nothing.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Session:
    """One minted session."""

    #: SHA-256 of its session token: a key is only good together with the token it was minted with.
    token: str
    #: The instant its policy named; without one it dies when the store says so.
    dies_at: datetime | None

    def is_dead(self, now: datetime) -> bool:
        """Whether the instant has come."""
        return self.dies_at is not None and now >= self.dies_at

    def has(self, token: str) -> bool:
        """Whether `token` is the token of this session."""
        return token_digest(token) == self.token


def token_digest(token: str) -> str:
    """What is kept of a session token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Minted:
    """The sessions by access key id, and the open file behind them."""

    def __init__(self, path: Path) -> None:
        self._sessions: dict[str, Session] = {}
        whole = path.read_bytes() if path.exists() else b""
        for line in whole.split(b"\n")[:-1]:
            self._read(line)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if whole and not whole.endswith(b"\n"):
            os.write(self._file, b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def find(self, access_key: str) -> Session | None:
        """The session minted under this key, if there is one."""
        return self._sessions.get(access_key)

    def add(self, access_key: str, token: str, dies_at: datetime | None) -> None:
        """Remember a minted session; when this returns it is on disk."""
        until = None if dies_at is None else int(dies_at.timestamp() * 1000)
        line = json.dumps({"key": access_key, "token": token_digest(token), "dies_at": until}).encode()
        os.write(self._file, line + b"\n")
        os.fdatasync(self._file)
        self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            members = json.loads(line)
        except json.JSONDecodeError:
            return  # torn by a crash: its session was never told
        until = members["dies_at"]
        dies_at = None if until is None else datetime.fromtimestamp(until / 1000, UTC)
        self._sessions[members["key"]] = Session(members["token"], dies_at)
