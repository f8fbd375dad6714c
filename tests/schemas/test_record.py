import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import examples, record
from schemas.record import INVISIBLE, RecordError, Statement, state
from schemas.records import FINAL, Intent, Phase, Resource, Tick
from schemas.signing import PrivateKeySigner
from schemas.snapshots import Directory


@pytest.mark.parametrize("char", ["\u202e", "\u200b", "\u0000", "\n", "\ue000", "\u2028", *sorted(INVISIBLE)[:8]])
def test_an_identifier_shows_every_character_it_has(char: str) -> None:
    with pytest.raises(ValueError, match=f"U\\+{ord(char):04X}"):
        Resource(type="bucket", id=f"logs{char}prod")


@given(st.sampled_from(["ttl", "id", "subject", "action", "resource", "context"]))
def test_a_member_spelt_out_or_left_out_is_another_record(name: str) -> None:
    members = {other: value for other, value in examples.INTENT.to_json().items() if other != name}
    with pytest.raises(RecordError, match=name):
        Intent.from_json(members)


def test_a_default_that_is_spelt_out_is_another_spelling_and_refused() -> None:
    outcome = examples.OUTCOME.to_bytes()
    spelt = outcome.replace(b'"receipt":', b'"observed":false,"receipt":')
    with pytest.raises(RecordError, match="spelt out with its default"):
        type(examples.OUTCOME).from_bytes(spelt)


def test_a_record_above_its_cap_is_neither_written_nor_read() -> None:
    longer = examples.INTENT.model_copy(
        update={"action": examples.INTENT.action.model_copy(update={"properties": {"text": "x" * 20_000}})}
    )
    with pytest.raises(RecordError, match="at most 16384"):
        longer.to_bytes()
    with pytest.raises(RecordError, match="at most 1024"):
        Tick.from_bytes(b" " * 1025)


def test_a_statement_is_read_only_as_what_it_is() -> None:
    statement = Statement(type=Tick.TYPE, body=examples.TICK.to_json(), keyid="0" * 32, sig="A" * 86 + "==")
    assert statement.read(Tick) == examples.TICK
    assert statement.digest == examples.TICK.digest
    with pytest.raises(RecordError, match=r"expected keyturn\.intent\.v1"):
        statement.read(Intent)


def test_the_same_wish_asked_again_is_recognised() -> None:
    again = examples.INTENT.model_copy(
        update={"id": examples.INTENT_ID[:-1] + "Z", "ttl": 60, "context": examples.INTENT.context.model_copy()}
    )
    assert again.content_digest == examples.INTENT.content_digest
    assert again.digest != examples.INTENT.digest
    other = examples.INTENT.model_copy(update={"resource": Resource(type="bucket", id="other")})
    assert other.content_digest != examples.INTENT.content_digest


def test_an_action_names_its_executor() -> None:
    assert examples.INTENT.executor == "s3"


def test_phases_that_absorb_everything_are_those_of_an_end() -> None:
    assert {Phase.UNKNOWN, Phase.EXECUTING, Phase.APPROVED, Phase.PENDING, Phase.PLANNING} == set(Phase) - FINAL


@pytest.mark.parametrize("char", [*map(chr, range(0x20)), "\x7f"])
def test_no_control_character_passes_as_plain_ascii(char: str) -> None:
    with pytest.raises(ValueError, match=f"U\\+{ord(char):04X}"):
        Resource(type="bucket", id=f"logs{char}prod")


def test_a_copy_has_its_own_digest_and_not_the_remembered_one() -> None:
    assert examples.TICK.digest == Tick.from_bytes(examples.TICK.to_bytes()).digest
    other = examples.TICK.model_copy(update={"number": examples.TICK.number + 1})
    assert other.digest != examples.TICK.digest
    assert other.digest == Tick.from_bytes(other.to_bytes()).digest


def test_a_statement_that_was_made_here_has_the_bytes_of_its_members() -> None:
    made = state(examples.TICK, PrivateKeySigner.from_seed(b"s" * 32), "acme")
    read = Statement(type=made.type, body=made.body, keyid=made.keyid, sig=made.sig)
    assert (made.value, made.digest) == (read.value, read.digest)


def test_what_a_statement_was_read_as_is_remembered_by_its_type_and_every_byte() -> None:
    first, again, other = (
        Statement(type=Tick.TYPE, body=tick.to_json(), keyid="0" * 32, sig="A" * 86 + "==")
        for tick in (examples.TICK, examples.TICK, examples.TICK.model_copy(update={"number": 7_777}))
    )
    assert first.read(Tick) is again.read(Tick)
    assert other.read(Tick).number == 7_777
    with pytest.raises(RecordError):
        Statement(type=Intent.TYPE, body=examples.TICK.to_json(), keyid="0" * 32, sig="A" * 86 + "==").read(Intent)


def test_what_is_remembered_is_bounded_in_number_and_in_size() -> None:
    assert record._known.cache_parameters()["maxsize"] == record.REMEMBERED
    large = Directory(version=1, rotas=tuple(f"rota-{number}-{'x' * 50}" for number in range(1_000)))
    before = record._known.cache_info().misses
    body = large.to_json()
    assert Statement(type=Directory.TYPE, body=body, keyid="0" * 32, sig="A" * 86 + "==").read(Directory) == large
    assert record._known.cache_info().misses == before
