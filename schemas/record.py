"""What every record is: frozen, closed, strict, versioned, and one sequence of bytes.

`Part` is a piece of a record, `Record` a whole value of a topic. A record type carries its version in its name
(`keyturn.intent.v1`); unknown fields are refused (law 6); an absent member is the only way to say nothing.
"""

import builtins
import unicodedata
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas import canonical, signing
from schemas.canonical import Json

INVISIBLE: Final = frozenset("\u3164\u115f\u1160\uffa0\u2800\u034f\ufe0f\u17b4\u17b5") | frozenset(
    map(chr, range(0xE0100, 0xE01F0))
)
"""Letters and marks that print as nothing though Unicode calls them neither format nor control characters."""


def _require_plain(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text  # nearly all: of ASCII, only what is not printable is one of these
    for char in text:
        if char in INVISIBLE or unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            raise ValueError(f"U+{ord(char):04X} is not accepted in an identifier: control, bidi or invisible")
    return text


NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A person, agent, group, rota, executor: `[a-z0-9][a-z0-9_-]{0,62}`."""
RealmName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""One installation. Inside every signature."""
ActionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,30}\.[a-z][a-z0-9_]{0,62}$")]
"""`<executor>.<verb>`: the part before the dot is the executor that performs it."""
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of canonical bytes."""
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")]
IntentId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\.[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
InstanceId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,126}$")]
"""One life of one executor process."""
Instant = Annotated[int, Field(ge=0, le=canonical.MAX_INT)]
"""Milliseconds since the Unix epoch, UTC: what Kafka's log time is."""
Seconds = Annotated[int, Field(ge=1, le=30 * 24 * 3600)]
Count = Annotated[int, Field(ge=0, le=canonical.MAX_INT)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_require_plain)]
"""A thing in the world (a bucket, an ARN, an account): NFC, no control, bidi or invisible characters."""
PROSE_CHARACTERS: Final = 2000
Prose = Annotated[str, StringConstraints(max_length=PROSE_CHARACTERS)]
"""Somebody's words. Shown as literal text, labelled and bounded; never parsed."""
MemberName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]
Scalar = bool | int | str


def prose(text: str) -> str:
    """Any text as `Prose` that can be said: in normal form C, without lone surrogates, cut. For reasons that quote."""
    return unicodedata.normalize("NFC", text.encode(errors="replace").decode())[:PROSE_CHARACTERS]


class Part(BaseModel):
    """A piece of a record: frozen, closed, strict."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )

    def to_json(self) -> dict[str, Json]:
        """The members as canonical JSON values.

        What equals its default is left out, so that a new optional member changes no old bytes.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with these members changed. What was remembered of the old ones (its bytes) stays behind."""
        copied = super().model_copy(update=update, deep=deep)
        remembered = vars(copied)
        for name in remembered.keys() - type(self).model_fields.keys():
            del remembered[name]
        return copied


class RecordError(ValueError):
    """The bytes are not this record; the message names the field."""


class Record(Part):
    """A whole value of a topic. Subclasses name their type with its version, and their cap in bytes."""

    TYPE: ClassVar[str]
    MAX_BYTES: ClassVar[int] = canonical.MAX_BYTES
    #: How deep the members may nest. What others embed must be shallower than what embeds it, or a record that came
    #: in could not be said again.
    MAX_DEPTH: ClassVar[int] = 8

    def to_bytes(self) -> bytes:
        """The canonical bytes. Raises RecordError when there are none, or they exceed the type's cap."""
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        try:
            data = canonical.encode(self.to_json(), max_depth=self.MAX_DEPTH)
        except canonical.CanonicalError as exc:
            raise RecordError(f"{self.TYPE}: {exc}") from exc
        if len(data) > self.MAX_BYTES:
            raise RecordError(f"{self.TYPE} of {len(data)} bytes; at most {self.MAX_BYTES} are accepted")
        return data

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return canonical.digest(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The record whose canonical bytes are exactly `data`; RecordError, with the field, for anything else."""
        try:
            canonical.decode(data, max_bytes=cls.MAX_BYTES, max_depth=cls.MAX_DEPTH)
        except canonical.CanonicalError as exc:
            raise RecordError(f"{cls.TYPE}: {exc}") from exc
        return cls._of_canonical(data)

    @classmethod
    def _of_canonical(cls, data: bytes) -> Self:
        """The record with these bytes, which are canonical and within the type's bounds."""
        record = cls._validated(data)
        # A default spelt out is another spelling of the same record: one record, one sequence of bytes (law 1).
        if not canonical.spells(record.to_json(), data):
            raise RecordError(f"{cls.TYPE}: an optional member is spelt out with its default; leave it out")
        vars(record)["_bytes"] = data
        return record

    @classmethod
    def from_json(cls, members: dict[str, Json]) -> Self:
        """The record with these members, which must already be canonical JSON values."""
        return cls._validated(canonical.encode(members))

    @classmethod
    def _validated(cls, data: bytes) -> Self:
        try:
            # JSON mode: tuples come from arrays and enums from strings, everything else stays strict.
            return cls.model_validate_json(data)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            place = ".".join(str(step) for step in first["loc"]) or "$"
            raise RecordError(f"{cls.TYPE}: {place}: {first['msg']}") from exc


R = TypeVar("R", bound=Record)


REMEMBERED: Final = 1024
REMEMBERED_BYTES: Final = 32 * 1024
"""How many records read from statements are remembered, and how large at most: intents and plans, no live documents."""


@lru_cache(maxsize=REMEMBERED)
def _known(kind: type[R], value: bytes) -> R:
    """Pure: an intent is read anew from the row of each of its steps, and is the same each time."""
    return kind.from_bytes(value)


class Statement(Part):
    """A signed record inside another: its type, its members, who signed and how.

    Because the members are canonical, re-encoding them gives the bytes that were signed; so a statement stays
    readable where it is embedded and can be verified by whoever finds it.
    """

    type: Annotated[str, StringConstraints(pattern=r"^keyturn\.[a-z-]+\.v[1-9][0-9]*$")]
    body: dict[str, Any]
    keyid: KeyId
    sig: Signature

    @classmethod
    def of_bytes(cls, kind: builtins.type[Record], value: bytes, keyid: str, sig: str) -> Self:
        """The statement of a record with this value. CanonicalError when that is not canonical, or exceeds its cap."""
        body = canonical.decode(value, max_bytes=kind.MAX_BYTES, max_depth=kind.MAX_DEPTH)
        statement = cls(type=kind.TYPE, body=body, keyid=keyid, sig=sig)
        vars(statement)["value"] = value  # what encoding the members would give: it was decoded from nothing else
        return statement

    @cached_property
    def value(self) -> bytes:
        """The bytes that were signed."""
        return canonical.encode(self.body)

    @cached_property
    def digest(self) -> str:
        """The digest of the signed record."""
        return canonical.digest(self.value)

    def read(self, kind: builtins.type[R]) -> R:
        """The record inside; RecordError if it is of another type or malformed."""
        if self.type != kind.TYPE:
            raise RecordError(f"expected {kind.TYPE}, found {self.type}")
        known = self._read.get(kind)
        if not isinstance(known, kind):
            is_small = len(self.value) <= REMEMBERED_BYTES
            known = self._read[kind] = _known(kind, self.value) if is_small else kind.from_bytes(self.value)
        return known

    @cached_property
    def _read(self) -> dict[builtins.type[Record], Record]:
        """What `read` gave before: records don't change."""
        return {}


def state(record: Record, signer: signing.Signer, realm: str) -> Statement:
    """`record` signed by `signer`, ready to be embedded."""
    sig = signing.sign(signer, realm, record.TYPE, record.to_bytes())
    statement = Statement(type=record.TYPE, body=record.to_json(), keyid=signer.keyid, sig=sig)
    vars(statement)["value"] = record.to_bytes()  # what encoding the members would give
    return statement
