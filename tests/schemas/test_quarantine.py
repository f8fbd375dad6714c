"""Whatever comes in can be set aside, and leaves no secret behind."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from schemas import quarantine
from schemas.records import Quarantined, Refusal, Source

SOURCE = Source(topic="intents", partition=0, offset=7)
SECRET = b"AKIA" + b"QWERTYUIOPASDFGH".replace(b"O", b"2")
NAMES = st.text(st.characters(codec=None), max_size=40)


def aside(
    key: bytes | None = b"k",
    value: bytes | None = b"v",
    headers: tuple[tuple[str, bytes | None], ...] = (),
    reason: str = "odd",
) -> Quarantined:
    return quarantine.put_aside(SOURCE, "core", Refusal.MALFORMED, reason, key=key, value=value, headers=headers)


@given(
    key=st.none() | st.binary(max_size=2000),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=200)), max_size=40).map(tuple),
    reason=st.text(st.characters(codec=None), max_size=3000),
)
def test_anything_at_all_is_a_record_that_can_be_said(
    key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes | None], ...], reason: str
) -> None:
    kept = aside(key, value, headers, reason)
    assert Quarantined.from_bytes(kept.to_bytes()) == kept


def test_what_is_kept_is_the_very_bytes() -> None:
    headers = (("sig", b"\x00\xff"), ("sig", None), ("odd", b""))
    kept = aside(b"\x80", b"\xfe{", headers)
    assert base64.b64decode(kept.key or "") == b"\x80"
    assert base64.b64decode(kept.value or "") == b"\xfe{"
    assert [
        (each.name, base64.b64decode(each.value) if each.value is not None else None) for each in kept.headers or ()
    ] == list(headers)


def test_a_secret_is_kept_nowhere_whatever_the_record_was_refused_for() -> None:
    for kept in (
        aside(key=SECRET),
        aside(value=b"x " + SECRET),
        aside(headers=(("note", SECRET),)),
        aside(headers=((SECRET.decode(), b""),)),
        aside(reason=f"unknown member {SECRET.decode()}"),
    ):
        said = kept.to_bytes()
        assert SECRET not in said
        assert base64.b64encode(SECRET)[:20] not in said


def test_headers_are_kept_whole_or_not_at_all() -> None:
    assert aside(headers=(("a", b"x" * 5000),)).headers is None
    assert aside(headers=(("a", b""),) * 33).headers is None
    assert aside(headers=()).headers == ()
