import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import examples, signing
from schemas.signing import KeyRing, PrivateKeySigner

SIGNER = examples.signer("core")
RING = KeyRing({SIGNER.keyid: SIGNER.public})
VALUE = examples.INTENT.to_bytes()
SIG = signing.sign(SIGNER, "acme-prod", "keyturn.intent.v1", VALUE)


def test_ed25519_is_that_of_rfc_8032() -> None:
    # RFC 8032, 7.1, TEST 2.
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    signer = PrivateKeySigner.from_seed(seed)
    assert base64.b64decode(signer.public).hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert signer.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_the_pre_authentication_encoding_is_that_of_dsse() -> None:
    # secure-systems-lab/dsse, protocol.md: the example.
    assert signing.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_signature_fits_its_realm_type_and_value() -> None:
    assert RING.verifies("acme-prod", "keyturn.intent.v1", VALUE, SIGNER.keyid, SIG)


@pytest.mark.parametrize(
    ("realm", "kind", "value", "keyid"),
    [
        ("acme-staging", "keyturn.intent.v1", VALUE, SIGNER.keyid),
        ("acme-prod", "keyturn.withdrawal.v1", VALUE, SIGNER.keyid),
        ("acme-prod", "keyturn.intent.v1", VALUE + b" ", SIGNER.keyid),
        ("acme-prod", "keyturn.intent.v1", VALUE, examples.signer("agent").keyid),
    ],
    ids=["another realm", "another type", "another value", "a key that is not on the ring"],
)
def test_it_fits_nothing_else(realm: str, kind: str, value: bytes, keyid: str) -> None:
    assert not RING.verifies(realm, kind, value, keyid, SIG)


@given(st.integers(0, 511))
def test_one_flipped_bit_of_a_signature_spoils_it(bit: int) -> None:
    raw = bytearray(base64.b64decode(SIG))
    raw[bit // 8] ^= 1 << bit % 8
    flipped = base64.b64encode(bytes(raw)).decode()
    assert not RING.verifies("acme-prod", "keyturn.intent.v1", VALUE, SIGNER.keyid, flipped)


@pytest.mark.parametrize("sig", ["", "?", SIG[:-2], SIG + "=", SIG[:-3] + chr(ord(SIG[-3]) + 1) + "==", f" {SIG}", "ä"])
def test_another_spelling_of_a_signature_is_none(sig: str) -> None:
    assert not RING.verifies("acme-prod", "keyturn.intent.v1", VALUE, SIGNER.keyid, sig)


@given(st.text(), st.text(), st.binary(), st.text())
def test_verifying_never_raises(realm: str, kind: str, value: bytes, sig: str) -> None:
    assert RING.verifies(realm, kind, value, SIGNER.keyid, sig) is False


@given(st.text(), st.binary(), st.text(), st.binary())
def test_no_two_messages_have_one_encoding(kind: str, body: bytes, other: str, second: bytes) -> None:
    one, two = (signing.pre_authentication_encoding(*each) for each in ((kind, body), (other, second)))
    assert (one == two) == ((kind, body) == (other, second))


def test_a_ring_knows_its_keys_and_no_others() -> None:
    assert SIGNER.keyid in RING
    assert examples.signer("intake").keyid not in RING
