"""Client and server judge an intent alike: what the one sends, the other reads."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keyturn
from keyturn import ids, intents, outcomes, signing
from keyturn import kafka as client_kafka
from schemas import canonical, envelope, examples
from schemas import signing as server_signing
from schemas.record import RecordError
from schemas.records import FINAL, Intent, IntentStatus, Phase, Refusal, Withdrawal

KEY = signing.Key.from_seed(bytes(range(32)))
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
IDENTIFIER = st.one_of(st.text(min_size=1, max_size=12), st.sampled_from(["a\u202eb", "a\u00ad", "\u3164", "e\u0301"]))
SCALAR = st.one_of(st.booleans(), st.integers(-(2**54), 2**54), TEXT)


@settings(max_examples=120)
@given(
    properties=st.dictionaries(
        st.one_of(st.sampled_from(["a", "source_bucket", "x" * 64, "a-b", ""]), TEXT),
        st.one_of(SCALAR, st.lists(SCALAR, max_size=3)),
        max_size=4,
    ),
    resource=st.tuples(st.sampled_from(["bucket", "Bucket", ""]), IDENTIFIER),
    reason=TEXT,
    ttl=st.sampled_from([1, 3600, 0, 30 * 24 * 3600, 30 * 24 * 3600 + 1]),
    more=st.fixed_dictionaries({}, optional={"run": IDENTIFIER, "ticket": IDENTIFIER, "on_behalf_of": IDENTIFIER}),
)
def test_whatever_the_client_sends_the_server_reads_and_what_it_refuses_is_refused_there(
    properties: dict[str, Any], resource: tuple[str, str], reason: str, ttl: int, more: dict[str, str]
) -> None:
    draft = intents.Draft("s3.export", resource, properties, reason, ttl, **more)
    body: dict[str, Any] = {
        "id": examples.INTENT_ID,
        "subject": {"type": "agent", "id": "export-bot"},
        "action": {"name": "s3.export", **({"properties": properties} if properties else {})},
        "resource": {"type": resource[0], "id": resource[1]},
        # The client brings people's words into normal form; nothing else.
        "context": {"reason": unicodedata.normalize("NFC", reason), **more},
        "ttl": ttl,
    }
    try:
        value = intents.intent_bytes(examples.INTENT_ID, "export-bot", draft.members())
    except keyturn.ParametersError as refused:
        assert refused.errors  # noqa: PT017 - either way is looked at
        with pytest.raises((RecordError, canonical.CanonicalError)):
            Intent.from_json(body).to_bytes()
    else:
        assert Intent.from_bytes(value).to_bytes() == value


def test_what_the_client_signs_the_server_unseals() -> None:
    value = intents.withdrawal_bytes(examples.INTENT_ID, "export-bot", "no longer")
    sealed = intents.seal("withdrawal", examples.INTENT_ID, value, KEY, examples.REALM)
    headers = client_kafka._headers(sealed, examples.REALM, "export-bot")

    statement = envelope.unseal(headers, sealed.value, [Intent, Withdrawal])
    ring = server_signing.KeyRing({KEY.keyid: KEY.public})
    assert statement.read(Withdrawal).reason == "no longer"
    assert ring.verifies(examples.REALM, statement.type, statement.value, statement.keyid, statement.sig)
    signer = server_signing.PrivateKeySigner.from_seed(bytes(range(32)))
    ours = envelope.seal(statement.read(Withdrawal), examples.INTENT_ID, signer, examples.REALM, source="export-bot")
    assert (ours.value, list(ours.headers)) == (sealed.value, headers)


def test_the_client_knows_every_phase_and_every_limit() -> None:
    told_by_the_gateway_alone = {outcomes.Phase.SUBMITTED.value}
    assert {each.value for each in outcomes.Phase} - told_by_the_gateway_alone == {each.value for each in Phase}
    assert {each.value for each in outcomes.FINAL} == {each.value for each in FINAL}
    assert (intents.MAX_BYTES, intents.MAX_DEPTH) == (Intent.MAX_BYTES, Intent.MAX_DEPTH)
    assert ids.OLDEST.total_seconds() * 1000 == examples.ids.WINDOW_BEFORE_MS
    assert ids.NEWEST.total_seconds() * 1000 == examples.ids.WINDOW_AFTER_MS
    for phase in Phase:
        status = IntentStatus(intent=examples.INTENT_ID, phase=phase, refusal=Refusal.LATE, reason="so", at=5)
        read = client_kafka.status_of(status.to_bytes())
        assert read == outcomes.Status(examples.INTENT_ID, outcomes.Phase(phase.value), "so", "late", 5)
