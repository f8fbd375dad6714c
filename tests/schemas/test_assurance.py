import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import assurance, examples
from schemas.assurance import CLOCK_SKEW_MS, FRESH_LOGIN_MS
from schemas.records import Assurance, Channel, Evidence
from schemas.snapshots import Key

NOON = examples.NOON
DIGEST = "0" * 64


def login(seconds_before: int) -> Evidence:
    return Evidence(kind="oidc", digest=DIGEST, auth_time=NOON // 1000 - seconds_before)


@pytest.mark.parametrize(
    ("seconds_before", "is_fresh"),
    [
        (0, True),
        (FRESH_LOGIN_MS // 1000, True),
        (FRESH_LOGIN_MS // 1000 + 1, False),
        (-CLOCK_SKEW_MS // 1000, True),
        (-CLOCK_SKEW_MS // 1000 - 1, False),
    ],
)
def test_a_login_counts_while_it_is_fresh_at_the_decisions_log_time(seconds_before: int, is_fresh: bool) -> None:
    wanted = Assurance.IDENTITY if is_fresh else Assurance.CHANNEL
    assert assurance.derive(login(seconds_before), NOON) is wanted


@pytest.mark.parametrize("kind", ["chat", "oidc", "webauthn"])
def test_evidence_without_a_login_is_worth_no_more_than_its_channel(kind: str) -> None:
    evidence = Evidence.model_validate({"kind": kind, "digest": DIGEST})
    assert assurance.derive(evidence, NOON) is Assurance.CHANNEL


@given(st.sampled_from(list(Assurance)), st.integers(-7200, 7200))
def test_nothing_is_vouched_for_above_what_the_key_may(cap: Assurance, seconds_before: int) -> None:
    one = examples.signer("notifier")
    key = Key(
        keyid=one.keyid,
        public=one.public,
        role="notifier",
        holder="api",
        channel=Channel.API,
        max_assurance=cap,
        valid_from=0,
    )
    decision = examples.DECISION.model_copy(update={"evidence": login(seconds_before)})
    vouched = assurance.vouched(decision, key, NOON)
    assert assurance.rank(vouched) <= assurance.rank(cap)
    assert assurance.rank(vouched) <= assurance.rank(assurance.derive(decision.evidence, NOON))


def test_no_evidence_of_today_makes_a_person_sure() -> None:
    assert assurance.ORDER[-1] is Assurance.PERSON
    assert all(assurance.derive(login(seconds), NOON) is not Assurance.PERSON for seconds in range(-100, 4000, 50))
