"""Intake's answers: whatever lies on `intents`, exactly one, and secrets leave no copy."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.intake import answering
from broker.intake.answering import Admitted, Raw
from schemas import canonical, envelope, partition, quarantine, secrets, signing
from schemas.record import Record
from schemas.records import (
    ClassifiedIntent,
    Context,
    Decision,
    Effect,
    ForwardedWithdrawal,
    Genesis,
    Intent,
    Quarantined,
    Refusal,
    Source,
    Subject,
    Withdrawal,
)
from schemas.world import World
from tests.broker.builders import (
    DAY,
    FACTS,
    REALM,
    T0,
    a_world,
    an_intent,
    empty_world,
    facts,
    signer,
)

P = 4
HERE = partition.partition_of("bot", P)
WITHDRAWAL = Withdrawal(intent=an_intent().id, by=Subject(type="agent", id="bot"))


def raw_of(
    record: Record | Mapping[str, Any],
    *,
    by: str = "bot",
    kind: str = Intent.TYPE,
    key: str | None = None,
    at: int = T0,
    place: int = HERE,
    offset: int = 5,
    realm: str = REALM,
) -> Raw:
    """As a producer writes it; `record` may be any members at all."""
    members = record.to_json() if isinstance(record, Record) else dict(record)
    kind = record.TYPE if isinstance(record, Record) else kind
    value = canonical.encode(members)
    sig = signing.sign(signer(by), realm, kind, value)
    named = key if key is not None else str(members.get("id") or members.get("intent"))
    sealed = envelope._sealed(kind, value, named, signer(by).keyid, sig, realm, by, None)
    return Raw(Source(topic="intents", partition=place, offset=offset), at, sealed.key, value, sealed.headers)


def answer(raw: Raw, world: World | None = None) -> answering.Answer:
    """What intake says in the end; it can be said, and says where it comes from."""
    now = world or a_world()
    received = answering.receive(raw, now, P)
    said = answering.classify(received, facts(), now) if isinstance(received, Admitted) else received
    assert type(said).from_bytes(said.to_bytes()) == said
    assert said.source == raw.source
    assert answering.key_of(said)
    return said


def quarantined(raw: Raw, world: World | None = None) -> Quarantined:
    said = answer(raw, world)
    assert isinstance(said, Quarantined)
    assert said.stage == "intake"
    assert said.reason
    assert said.sha256 == canonical.digest(raw.value or b"")
    assert said.bytes == len(raw.value or b"")
    assert answering.key_of(said) == f"intents/{raw.source.partition}/{raw.source.offset}"
    return said


def with_value(raw: Raw, value: bytes | None) -> Raw:
    return Raw(raw.source, raw.log_time, raw.key, value, raw.headers)


def with_headers(raw: Raw, **changes: bytes | None) -> Raw:
    kept = [(name, value) for name, value in raw.headers if name not in changes]
    added = [(name, value) for name, value in changes.items() if value is not None]
    return Raw(raw.source, raw.log_time, raw.key, raw.value, [*kept, *added])


# ---------------------------------------------------------------- in order


def test_an_intent_in_order_is_classified_with_its_facts_and_what_it_rests_on() -> None:
    intent = an_intent()
    raw = raw_of(intent)
    said = answer(raw)
    assert isinstance(said, ClassifiedIntent)
    assert said.intent.read(Intent) == intent
    assert (said.asked_at, said.facts, said.versions) == (T0, facts(), a_world().versions)
    assert said.classification is not None
    assert said.classification.effect is Effect.REQUIRE_APPROVAL
    assert answering.key_of(said) == intent.id


def test_a_withdrawal_is_passed_on_as_it_was_signed() -> None:
    said = answer(raw_of(WITHDRAWAL))
    assert isinstance(said, ForwardedWithdrawal)
    assert said.withdrawal.read(Withdrawal) == WITHDRAWAL
    assert answering.key_of(said) == WITHDRAWAL.intent


def test_the_first_record_of_a_partition_is_nobodys() -> None:
    genesis = Genesis(realm=REALM, topic="intents", partition=HERE)
    assert raw_of(genesis, by="root", key="genesis", offset=0).is_genesis
    assert not raw_of(genesis, by="root", key="genesis", offset=1).is_genesis
    assert not raw_of(an_intent(), offset=0).is_genesis


# ---------------------------------------------------------------- attributable, and refused: the core hears of it


@pytest.mark.parametrize(
    ("intent", "refusal"),
    [
        (an_intent("s3.nothing"), Refusal.UNKNOWN_ACTION),
        (an_intent(properties={"bucket": "b", "more": 1}), Refusal.BAD_PARAMETERS),
        (an_intent(properties={"count": 1}), Refusal.BAD_PARAMETERS),
        (an_intent(at=T0 - DAY - 1), Refusal.ID_OUT_OF_WINDOW),
        (an_intent().to_json() | {"extra": "x"}, Refusal.MALFORMED),
        (an_intent().to_json() | {"x" * 5000: "x"}, Refusal.MALFORMED),
        (an_intent().to_json() | {"ttl": 0}, Refusal.MALFORMED),
        ({"id": an_intent().id, "subject": {"type": "agent", "id": "bot"}}, Refusal.MALFORMED),
        ({"id": an_intent().id, "subject": {"type": "agent", "id": "bot"}, "x": [[[["deep"]]]]}, Refusal.MALFORMED),
    ],
    ids=str,
)
def test_what_can_be_attributed_is_refused_on_the_log(intent: Intent | dict[str, Any], refusal: Refusal) -> None:
    said = answer(raw_of(intent))
    assert isinstance(said, ClassifiedIntent)
    assert (said.refusal, said.classification) == (refusal, None)
    assert said.reason


# ---------------------------------------------------------------- nobody's: quarantine


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'"x"', b"\xff", b"{}", b'{"id":null}', b'{"a":1.5}'])
def test_what_is_no_canonical_object_is_quarantined(value: bytes | None) -> None:
    said = quarantined(with_value(raw_of(an_intent()), value))
    assert said.refusal in {Refusal.MALFORMED, Refusal.BAD_SIGNATURE}
    assert base64.b64decode(said.value or "") == (value or b"")


def test_another_spelling_of_the_same_intent_is_quarantined() -> None:
    raw = raw_of(an_intent())
    assert raw.value is not None
    assert quarantined(with_value(raw, raw.value.replace(b'"ttl":', b'"ttl": '))).refusal is Refusal.MALFORMED
    twice = raw.value.replace(b'"ttl":3600', b'"ttl":3600,"ttl":3600')
    assert quarantined(with_value(raw, twice)).refusal is Refusal.MALFORMED


@pytest.mark.parametrize(
    ("header", "value", "refusal"),
    [
        ("ce_type", None, Refusal.MALFORMED),
        ("ce_type", Decision.TYPE.encode(), Refusal.MALFORMED),
        ("ce_type", Withdrawal.TYPE.encode(), Refusal.BAD_SIGNATURE),
        ("ce_specversion", b"0.3", Refusal.MALFORMED),
        ("keyid", None, Refusal.BAD_SIGNATURE),
        ("keyid", b"0" * 32, Refusal.BAD_SIGNATURE),
        ("keyid", b"nonsense", Refusal.BAD_SIGNATURE),
        ("keyid", b"\xff", Refusal.BAD_SIGNATURE),
        ("sig", None, Refusal.BAD_SIGNATURE),
        ("sig", b"A" * 86 + b"==", Refusal.BAD_SIGNATURE),
        ("sig", b"x" * 5000, Refusal.BAD_SIGNATURE),
    ],
)
def test_what_no_key_vouches_for_is_quarantined(header: str, value: bytes | None, refusal: Refusal) -> None:
    assert quarantined(with_headers(raw_of(an_intent()), **{header: value})).refusal is refusal


def test_two_signatures_are_none() -> None:
    raw = raw_of(an_intent())
    doubled = Raw(raw.source, raw.log_time, raw.key, raw.value, [*raw.headers, ("sig", b"x")])
    assert quarantined(doubled).refusal is Refusal.BAD_SIGNATURE


def test_another_realm_role_agent_or_world_is_no_signature() -> None:
    assert quarantined(raw_of(an_intent(), realm="staging")).refusal is Refusal.BAD_SIGNATURE
    assert quarantined(raw_of(an_intent(), by="intake")).refusal is Refusal.BAD_SIGNATURE
    assert quarantined(raw_of(an_intent(), by="old")).refusal is Refusal.NOT_ENTITLED
    assert quarantined(raw_of(an_intent()), empty_world()).refusal is Refusal.BAD_SIGNATURE


def test_a_key_or_partition_that_is_not_its_own_is_quarantined() -> None:
    assert quarantined(raw_of(an_intent(), key="another")).refusal is Refusal.WRONG_PARTITION
    assert quarantined(raw_of(an_intent(), place=(HERE + 1) % P)).refusal is Refusal.WRONG_PARTITION
    no_key = raw_of(an_intent())
    assert quarantined(Raw(no_key.source, T0, None, no_key.value, no_key.headers)).refusal is Refusal.WRONG_PARTITION


def test_an_intent_without_an_id_or_with_one_that_is_none_is_quarantined() -> None:
    for name in ("nobody", "", 5):
        members = an_intent().to_json() | {"id": name}
        assert quarantined(raw_of(members, by="gateway")).refusal is Refusal.NOT_ENTITLED


def test_a_withdrawal_that_is_malformed_or_of_no_intent_is_quarantined() -> None:
    withdrawal = WITHDRAWAL.to_json()
    assert quarantined(raw_of(withdrawal | {"x": "y"}, kind=Withdrawal.TYPE)).refusal is Refusal.MALFORMED
    nowhere = withdrawal | {"intent": "nobody"}
    assert quarantined(raw_of(nowhere, kind=Withdrawal.TYPE, by="gateway")).refusal is Refusal.MALFORMED


def test_a_value_too_large_to_keep_is_kept_by_digest() -> None:
    raw = with_value(raw_of(an_intent()), b"x" * (quarantine.KEPT_VALUE_BYTES + 1))
    assert quarantined(raw).value is None
    long_key = Raw(raw.source, T0, b"k" * 5000, b"x", raw.headers)
    assert quarantined(long_key).key is None  # a shortened one would be another key


def test_nesting_that_could_not_be_said_again_is_quarantined() -> None:
    deep: Any = "x"
    for _ in range(12):
        deep = [deep]
    members = {"id": an_intent().id, "subject": {"type": "agent", "id": "bot"}, "x": deep}
    assert quarantined(raw_of(members)).refusal is Refusal.MALFORMED


def test_a_fault_inside_is_quarantined_and_stops_nothing() -> None:
    raw = raw_of(an_intent())
    assert answering.receive(raw, a_world(), 0) == answering.quarantined(
        raw, Refusal.INTERNAL, "ZeroDivisionError: integer modulo by zero"
    )
    admitted = answering.receive(raw, a_world(), P)
    assert isinstance(admitted, Admitted)
    too_many = facts() * 40
    said = answering.classify(admitted, too_many, a_world())
    assert isinstance(said, Quarantined)
    assert said.refusal is Refusal.INTERNAL
    too_large = tuple(fact.model_copy(update={"value": "x" * 30_000}) for fact in facts())
    said = answering.classify(admitted, too_large, a_world())
    assert isinstance(said, Quarantined)
    assert said.refusal is Refusal.INTERNAL


# ---------------------------------------------------------------- secrets

# Put together here, so that nobody who searches this repository for secrets finds one.
SECRETS = {
    "AWS access key": "AKIA" + "IOSFODNN7EXAMPLE",
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "GitHub token": "ghp_" + "a" * 36,
    "Slack token": "xoxb" + "-123456789012-abcdef",
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXg",
    "Google API key": "AIza" + "B" * 35,
    "Stripe key": "sk_live_" + "c" * 24,
    "password in a URL": "postgres://app:" + "hunter22@db.example/main",
}


def test_every_pattern_of_a_secret_has_an_example() -> None:
    assert set(SECRETS) == set(secrets.PATTERNS)
    assert (
        secrets.found_in("s3://bucket/key?version=1, https://user@host/, arn:aws:iam::123456789012:role/AKIA") is None
    )


@pytest.mark.parametrize(("name", "secret"), SECRETS.items())
def test_a_secret_goes_to_quarantine_without_its_value(name: str, secret: str) -> None:
    for intent in (
        an_intent(properties={"bucket": f"x {secret} y"}),
        an_intent(context=Context(reason=f"use {secret}")),
    ):
        said = quarantined(raw_of(intent))
        assert (said.refusal, said.value) == (Refusal.SECRET_FOUND, None)
        assert name in said.reason
        assert secret not in said.to_bytes().decode()
        assert base64.b64encode(secret.encode())[4:-4] not in said.to_bytes()


def test_a_secret_is_not_kept_though_nobody_vouches_for_it() -> None:
    raw = raw_of(an_intent(properties={"bucket": SECRETS["GitHub token"]}), by="intake")
    assert quarantined(raw).value is None


def test_a_secret_in_a_malformed_record_is_not_kept() -> None:
    raw = raw_of(an_intent(properties={"bucket": SECRETS["GitHub token"]}))
    assert raw.value is not None
    assert quarantined(with_value(raw, raw.value + b" ")).value is None


def test_a_secret_in_the_key_is_not_kept() -> None:
    raw = raw_of(an_intent(), key=SECRETS["GitHub token"])
    said = quarantined(raw)
    assert SECRETS["GitHub token"].encode() not in base64.b64decode(said.key or "")


# ---------------------------------------------------------------- whatever comes

json_values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(
    st.binary(max_size=200) | st.none(),
    st.lists(
        st.tuples(
            st.sampled_from(["ce_type", "ce_specversion", "keyid", "sig", "other"]),
            st.binary(max_size=40) | st.sampled_from([Intent.TYPE.encode(), Withdrawal.TYPE.encode(), b"1.0"]),
        ),
        max_size=6,
    ),
    st.binary(max_size=20) | st.none(),
)
def test_arbitrary_bytes_get_exactly_one_answer(
    value: bytes | None, headers: list[tuple[str, bytes]], key: bytes | None
) -> None:
    raw = Raw(Source(topic="intents", partition=HERE, offset=5), T0, key, value, headers)
    assert isinstance(answer(raw), Quarantined)


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(["id", "subject", "action", "resource", "context", "ttl", "intent", "by", "reason", "zz"]),
        json_values,
        max_size=5,
    ),
    st.sampled_from([Intent.TYPE, Withdrawal.TYPE]),
    st.booleans(),
)
def test_arbitrary_members_validly_signed_get_exactly_one_answer(
    members: dict[str, Any], kind: str, is_rooted: bool
) -> None:
    base = an_intent().to_json() if kind == Intent.TYPE else WITHDRAWAL.to_json()
    whole = {**base, **members} if is_rooted else members
    try:
        raw = raw_of(whole, kind=kind)
    except canonical.CanonicalError:
        return  # no producer can sign what has no bytes
    said = answer(raw)
    assert isinstance(said, ClassifiedIntent | ForwardedWithdrawal | Quarantined)
    if isinstance(said, ClassifiedIntent) and said.refusal is None:
        assert {fact.name for fact in said.facts} == set(FACTS)
