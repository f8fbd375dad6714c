"""What a door sees from the head of a request alone."""

import pytest
from starlette.datastructures import Headers

from streams.http.guards import _unacceptable

MOST = 16


@pytest.mark.parametrize("declared", ["1", "000000000001", "0000000000001", "0" * 30 + "1"])
def test_a_get_with_a_body_is_refused_however_its_length_is_written(declared: str) -> None:
    assert _unacceptable("GET", Headers({"content-length": declared}), MOST) is not None


@pytest.mark.parametrize("declared", ["", "17", "-1", "+1", "1_0", "٣", "1" * 5000, "0" * 13, "0" * 12 + "17"])
def test_a_length_that_is_too_long_or_that_is_none_is_refused(declared: str) -> None:
    headers = Headers(raw=[(b"content-length", declared.encode("utf-8"))])
    assert _unacceptable("POST", headers, MOST) is not None


@pytest.mark.parametrize(("method", "declared"), [("POST", "16"), ("POST", "0016"), ("GET", "0"), ("HEAD", "000")])
def test_what_fits_is_heard(method: str, declared: str) -> None:
    assert _unacceptable(method, Headers({"content-length": declared}), MOST) is None
