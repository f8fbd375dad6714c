"""Hostile records by family: each takes an honest record and breaks one thing. Seeded, so that a failure comes again.

A family that breaks what the signature covers signs anew with the right key where `is_signed_anew`: then nothing but
the broken thing is wrong.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from schemas import signing
from schemas.signing import PrivateKeySigner
from tests.broker.builders import REALM, signer

Headers = tuple[tuple[str, bytes | None], ...]
Members = dict[str, Any]


@dataclass(frozen=True)
class Shot:
    """One record as it is written."""

    family: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int


@dataclass(frozen=True)
class Honest:
    """What a family starts from: a record in order, who signs it, and where it belongs."""

    key: bytes
    value: bytes
    headers: Headers
    signer: PrivateKeySigner
    partition: int
    partitions: int
    max_bytes: int

    @property
    def type(self) -> str:
        return dict(self.headers)["ce_type"].decode()  # type: ignore[union-attr]

    @property
    def members(self) -> Members:
        found: Members = json.loads(self.value)
        return found

    def shot(self, family: str) -> Shot:
        return Shot(family, self.key, self.value, self.headers, self.partition)

    def saying(
        self, family: str, value: bytes, *, by: PrivateKeySigner | None = None, realm: str = REALM, kind: str = ""
    ) -> Shot:
        """Another value, signed."""
        who = by or self.signer
        sig = signing.sign(who, realm, kind or self.type, value)
        headers = with_header(with_header(self.headers, "sig", sig.encode()), "keyid", who.keyid.encode())
        return Shot(family, self.key, value, headers, self.partition)


OPTIONAL: Final = frozenset(
    {"facts", "classification", "measures", "persons", "agents", "groups", "rotas", "keys", "executors"}
)
"""Members that an honest record may lack."""

Family = Callable[[random.Random, Honest], Shot]


def with_header(headers: Headers, name: str, value: bytes | None) -> Headers:
    return tuple((key, value if key == name else old) for key, old in headers)


def without(headers: Headers, *names: str) -> Headers:
    return tuple(each for each in headers if each[0] not in names)


def compact(members: Any) -> bytes:
    return json.dumps(members, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(errors="surrogatepass")


def a_text(chance: random.Random, members: Members) -> str:
    """The name of some member that is a text."""
    return chance.choice(sorted(name for name, value in members.items() if isinstance(value, str)) or ["x"])


def _value(name: str, make: Callable[[random.Random, Honest], bytes | None]) -> tuple[str, Family]:
    """Another value under the old signature."""
    return name, lambda chance, honest: replace(honest.shot(name), value=make(chance, honest))


def _signed(name: str, make: Callable[[random.Random, Honest], bytes]) -> tuple[str, Family]:
    """Another value, signed anew by the right key."""
    return name, lambda chance, honest: honest.saying(name, make(chance, honest))


def _headers(name: str, make: Callable[[random.Random, Headers], Headers]) -> tuple[str, Family]:
    return name, lambda chance, honest: replace(honest.shot(name), headers=make(chance, honest.headers))


def _members(name: str, change: Callable[[random.Random, Members], object]) -> tuple[str, Family]:
    """Canonical but for the change, signed anew by the right key."""

    def make(chance: random.Random, honest: Honest) -> bytes:
        members = honest.members
        change(chance, members)
        return compact(members)

    return _signed(name, make)


def _cut(chance: random.Random, honest: Honest) -> bytes:
    return honest.value[: chance.randrange(1, len(honest.value))]


def _flipped(chance: random.Random, honest: Honest) -> bytes:
    data = bytearray(honest.value)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(7)
    return bytes(data)


def _twice(chance: random.Random, honest: Honest) -> bytes:
    """A member there twice: last wins in most parsers, first in some."""
    name = chance.choice(sorted(honest.members))
    shown = json.dumps(name).encode() + b":"
    return honest.value[:-1] + b"," + shown + b'"other"}'


def _shuffled(chance: random.Random, honest: Honest) -> bytes:
    names = sorted(honest.members, reverse=True)
    return json.dumps({name: honest.members[name] for name in names}, separators=(",", ":")).encode()


def _deep(levels: int, opening: bytes, closing: bytes) -> Callable[[random.Random, Honest], bytes]:
    return lambda _, __: b'{"a":' + opening * levels + b"1" + closing * levels + b"}"


def _wrong_sig(chance: random.Random, headers: Headers) -> Headers:
    import base64

    raw = bytearray(base64.b64decode(dict(headers)["sig"] or b""))
    raw[chance.randrange(len(raw))] ^= 1
    return with_header(headers, "sig", base64.b64encode(bytes(raw)))


VALUES: Final = (
    _value("null value", lambda *_: None),
    _value("no bytes", lambda *_: b""),
    _value("random bytes", lambda chance, _: chance.randbytes(chance.randrange(1, 400))),
    _value("truncated", _cut),
    _value("one bit flipped", _flipped),
    _value("no utf-8", lambda _, honest: honest.value[:-1] + b',"z":"\xff\xfe"}'),
    _value("an array", lambda _, honest: b"[" + honest.value + b"]"),
    _value("a number", lambda chance, _: str(chance.random()).encode()),
    _value("a word", lambda chance, _: chance.choice([b"true", b"null", b'"text"', b"NaN", b"Infinity"])),
    _value("two documents", lambda _, honest: honest.value * 2),
    _value("nested objects", _deep(5_000, b'{"a":', b"}")),
    _value("nested arrays", _deep(100_000, b"[", b"]")),
    _value("an endless opening", lambda *_: b"[" * 300_000),
    _signed("a blank", lambda chance, honest: honest.value.replace(b":", b": ", chance.randrange(1, 4))),
    _signed("a byte order mark", lambda _, honest: b"\xef\xbb\xbf" + honest.value),
    _signed("a newline after", lambda _, honest: honest.value + b"\n"),
    _signed("a member twice", _twice),
    _signed("members in another order", _shuffled),
    _signed("an escape too many", lambda _, honest: honest.value.replace(b"i", b"\\u0069", 1)),
    _signed("oversized", lambda chance, honest: _padded(honest, honest.max_bytes + chance.randrange(1, 100_000))),
    _signed("nearly a megabyte", lambda _, honest: _padded(honest, 900_000)),
    _members("a float", lambda _, members: members.update(zz=1.5)),
    _members("an infinity", lambda _, members: members.update(zz=float("inf"))),
    _members("a huge number", lambda _, members: members.update(zz=2**53)),
    _members("an enormous number", lambda _, members: members.update(zz=10**400)),
    _members("a null", lambda _, members: members.update(zz=None)),
    _members("an unknown member", lambda chance, members: members.update({f"x{chance.randrange(99)}": "y"})),
    _members("a dunder", lambda _, members: members.update(__class__="dict")),
    _members("text not in form C", lambda _, members: members.update(zz="e\u0301")),
    _members("a member name not ASCII", lambda _, members: members.update({"z\u00e9": 1})),
    _members("a lone surrogate", lambda _, members: members.update(zz="\ud800")),
    _members("a member of another type", lambda chance, members: members.update({a_text(chance, members): 7})),
    _members("a member that is a list", lambda chance, members: members.update({a_text(chance, members): ["a"]})),
    _members("a member missing", lambda chance, members: members.pop(chance.choice(sorted(set(members) - OPTIONAL)))),
    _members("no member at all", lambda _, members: members.clear()),
)
"""What breaks the value."""

SEALS: Final = (
    _headers("no headers", lambda *_: ()),
    _headers("no signature", lambda _, headers: without(headers, "sig", "keyid")),
    _headers("no key id", lambda _, headers: without(headers, "keyid")),
    _headers("two signatures", lambda _, headers: (*headers, ("sig", dict(headers)["sig"]))),
    _headers("two key ids", lambda _, headers: (*headers, ("keyid", b"0" * 32))),
    _headers("a signature with one bit flipped", _wrong_sig),
    _headers("a null signature", lambda _, headers: with_header(headers, "sig", None)),
    _headers("a signature of many bytes", lambda _, headers: with_header(headers, "sig", b"A" * 100_000)),
    _headers("a signature not base64", lambda _, headers: with_header(headers, "sig", b"\xff" * 88)),
    _headers("an unknown key", lambda chance, old: with_header(old, "keyid", chance.randbytes(16).hex().encode())),
    _headers("no type", lambda _, headers: without(headers, "ce_type")),
    _headers("two types", lambda _, headers: (*headers, ("ce_type", dict(headers)["ce_type"]))),
    _headers("an unknown type", lambda _, headers: with_header(headers, "ce_type", b"keyturn.wish.v1")),
    _headers("a later version", lambda _, headers: with_header(headers, "ce_type", b"keyturn.intent.v2")),
    _headers("another topic's type", lambda _, headers: with_header(headers, "ce_type", b"keyturn.audit.v1")),
    _headers("a genesis in the middle", lambda _, headers: with_header(headers, "ce_type", b"keyturn.genesis.v1")),
    _headers("another version of CloudEvents", lambda _, headers: with_header(headers, "ce_specversion", b"2.0")),
    (
        "another realm's signature",
        lambda _, honest: honest.saying("another realm's signature", honest.value, realm="prod"),
    ),
    (
        "a signature as another type",
        lambda _, honest: honest.saying("a signature as another type", honest.value, kind="keyturn.genesis.v1"),
    ),
    (
        "a stranger's signature",
        lambda chance, honest: honest.saying(
            "a stranger's signature", honest.value, by=PrivateKeySigner.from_seed(chance.randbytes(32))
        ),
    ),
    (
        "the signature of another role",
        lambda chance, honest: honest.saying(
            "the signature of another role",
            honest.value,
            by=signer(chance.choice([name for name in ROLES if signer(name) != honest.signer])),
        ),
    ),
)  # fmt: skip
"""What breaks who says it."""

ROLES: Final = ("roster", "bot3")

PLACES: Final = (
    ("a null key", lambda _, honest: replace(honest.shot("a null key"), key=None)),
    ("an empty key", lambda _, honest: replace(honest.shot("an empty key"), key=b"")),
    ("another key", lambda _, honest: replace(honest.shot("another key"), key=b"bot9." + b"0" * 26)),
    (
        "a key of random bytes",
        lambda chance, honest: replace(honest.shot("a key of random bytes"), key=chance.randbytes(40)),
    ),
    ("a key of many bytes", lambda _, honest: replace(honest.shot("a key of many bytes"), key=b"k" * 200_000)),
    (
        "another partition",
        lambda _, honest: replace(
            honest.shot("another partition"), partition=(honest.partition + 1) % honest.partitions
        ),
    ),
)  # fmt: skip
"""What breaks where it lies. A key that Kafka refuses (null, on a compacted topic) is left out there."""


def _padded(honest: Honest, size: int) -> bytes:
    return compact(honest.members | {"zz": "x" * size})


def shots(
    chance: random.Random, honest: Callable[[], Honest], families: Sequence[tuple[str, Family]]
) -> Iterator[Shot]:
    """For ever: every family in turn, in an order of its own each time."""
    while True:
        for _, family in chance.sample(families, len(families)):
            yield family(chance, honest())


def counted(shot: Sequence[Shot]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for each in shot:
        found[each.family] = found.get(each.family, 0) + 1
    return found
