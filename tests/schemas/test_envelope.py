import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import envelope, examples
from schemas.envelope import EnvelopeError, Sealed
from schemas.records import Intent, Refusal, Withdrawal
from schemas.signing import KeyRing

AGENT = examples.signer("agent")
RING = KeyRing({AGENT.keyid: AGENT.public})
KINDS = (Intent, Withdrawal)


def sealed(number: int | None = None) -> Sealed:
    return envelope.seal(examples.INTENT, examples.INTENT_ID, AGENT, examples.REALM, source="export-bot", number=number)


def without(name: str) -> list[tuple[str, bytes]]:
    return [header for header in sealed().headers if header[0] != name]


def refusal(headers: list[tuple[str, bytes]], value: bytes | None) -> Refusal:
    with pytest.raises(EnvelopeError) as caught:
        envelope.unseal(headers, value, KINDS)
    return caught.value.refusal


def test_what_was_sealed_unseals_to_the_same_record_and_its_signature_fits() -> None:
    one = sealed()
    statement = envelope.unseal(one.headers, one.value, KINDS)
    assert statement.read(Intent) == examples.INTENT
    assert RING.verifies(examples.REALM, statement.type, statement.value, statement.keyid, statement.sig)
    assert one.value == examples.INTENT.to_bytes(), "the value lies on Kafka readable, as it was signed"


def test_headers_are_those_of_cloudevents_in_binary_mode() -> None:
    headers = dict(sealed().headers)
    assert headers["content-type"] == b"application/json"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"keyturn.intent.v1"
    assert headers["ce_source"] == b"/keyturn/example/export-bot"
    assert headers["ce_id"].decode() == examples.INTENT.digest[:32]
    assert headers["ce_subject"].decode() == examples.INTENT_ID


def test_a_statement_said_again_is_the_same_byte_for_byte() -> None:
    one = sealed()
    statement = envelope.unseal(one.headers, one.value, KINDS)
    assert envelope.reseal(statement, examples.INTENT_ID, examples.REALM, source="export-bot") == one


def test_the_number_of_a_transactional_topic_is_read_back() -> None:
    assert envelope.number_of(sealed(7).headers) == 7
    assert envelope.number_of(sealed().headers) is None
    assert envelope.number_of([("n", b"1"), ("n", b"2")]) is None
    assert envelope.number_of([("n", "٣".encode())]) is None
    assert envelope.number_of([("n", b"-1")]) is None


@pytest.mark.parametrize("name", ["ce_type", "ce_specversion"])
def test_a_record_that_does_not_say_what_it_is_is_malformed(name: str) -> None:
    assert refusal(without(name), sealed().value) is Refusal.MALFORMED


@pytest.mark.parametrize("name", ["keyid", "sig"])
def test_a_record_that_nobody_signed_or_two_did_is_refused(name: str) -> None:
    twice = [*sealed().headers, *(header for header in sealed().headers if header[0] == name)]
    assert refusal(without(name), sealed().value) is Refusal.BAD_SIGNATURE
    assert refusal(twice, sealed().value) is Refusal.BAD_SIGNATURE


@pytest.mark.parametrize(
    "value", [None, b"", b"{}x", b"null", sealed().value + b"\n", b'{"a":' + b'"' + b"x" * 20_000 + b'"}']
)
def test_a_value_that_is_not_canonical_or_too_long_is_malformed(value: bytes | None) -> None:
    assert refusal(list(sealed().headers), value) is Refusal.MALFORMED


def test_a_type_that_is_not_expected_here_is_malformed() -> None:
    with pytest.raises(EnvelopeError, match="not accepted here"):
        envelope.unseal(sealed().headers, sealed().value, (Withdrawal,))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ce_type", "ce_specversion", "keyid", "sig", "n", "x"]),
            st.binary(max_size=40) | st.sampled_from([value for _, value in sealed().headers]),
        ),
        max_size=8,
    ),
    st.none() | st.binary(max_size=80) | st.just(sealed().value),
)
def test_whatever_lies_on_kafka_is_a_statement_or_an_envelope_error(
    headers: list[tuple[str, bytes]], value: bytes | None
) -> None:
    with contextlib.suppress(EnvelopeError):
        assert envelope.unseal(headers, value, KINDS).value == value
