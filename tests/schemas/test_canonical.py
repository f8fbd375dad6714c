import json
from base64 import b64decode
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from schemas import canonical, contract
from schemas.canonical import CanonicalError
from tests.schemas.strategies import objects, texts


@given(objects)
def test_canonical_bytes_are_those_of_rfc_8785(value: dict[str, Any]) -> None:
    assert canonical.encode(value) == rfc8785.dumps(value)


@given(objects)
def test_what_was_encoded_decodes_to_the_same_value(value: dict[str, Any]) -> None:
    assert canonical.decode(canonical.encode(value)) == value


@given(objects, st.booleans(), st.sampled_from([None, 1, 2]))
def test_any_other_spelling_of_a_value_is_refused(value: dict[str, Any], is_ascii: bool, indent: int | None) -> None:
    spelt = json.dumps(value, ensure_ascii=is_ascii, indent=indent, separators=(",", ": ")).encode()
    if spelt != canonical.encode(value):
        with pytest.raises(CanonicalError):
            canonical.decode(spelt)


@given(texts, texts)
def test_two_texts_share_bytes_only_when_they_are_equal(first: str, second: str) -> None:
    assert (canonical.encode({"t": first}) == canonical.encode({"t": second})) == (first == second)


@given(objects, st.sampled_from([1.5, 1.0, float("nan"), None, 2**53 + 1, -(2**53) - 1, b"x", "e\u0301", "\ud800"]))
def test_nothing_outside_the_profile_is_encoded_wherever_it_hides(value: dict[str, Any], stranger: object) -> None:
    with pytest.raises(CanonicalError):
        canonical.encode({**value, "x": [{"y": stranger}]})  # type: ignore[dict-item]


@pytest.mark.parametrize("case", contract.vectors()["canonical"]["accepted"], ids=lambda case: case["why"])  # type: ignore[index]
def test_vectors_that_are_accepted(case: dict[str, Any]) -> None:
    data = b64decode(case["canonical_base64"])
    assert canonical.decode(data) == case["value"]
    if "max" not in case["value"]:
        assert rfc8785.dumps(case["value"]) == data


@pytest.mark.parametrize("why", contract.REFUSED)
def test_vectors_that_are_refused(why: str) -> None:
    with pytest.raises(CanonicalError):
        canonical.decode(contract.REFUSED[why])


def test_more_bytes_than_allowed_are_not_even_parsed() -> None:
    with pytest.raises(CanonicalError, match="at most 4"):
        canonical.decode(b"{not json", max_bytes=4)


@pytest.mark.parametrize("leaf", ["text", "é", 1, True, {}, []])
def test_every_kind_of_leaf_counts_as_a_level(leaf: Any) -> None:
    assert canonical.encode({"a": {"b": leaf}}, max_depth=2)
    with pytest.raises(CanonicalError, match=r"\$\.a\.b: nested too deep"):
        canonical.encode({"a": {"b": leaf}}, max_depth=1)


def test_bytes_are_spelt_by_one_value_alone() -> None:
    data = canonical.encode({"a": "x", "b": 1})
    assert canonical.spells({"b": 1, "a": "x"}, data)
    assert not canonical.spells({"b": 1, "a": "y"}, data)
    assert not canonical.spells({"a": "\ud800", "b": 1}, data)
