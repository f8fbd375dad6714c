import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from schemas.partition import murmur2, partition_of

# The cases of Apache Kafka's own test of its hash, as signed 32-bit integers.
KAFKAS_OWN = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize("text", KAFKAS_OWN)
def test_murmur2_is_kafkas(text: str) -> None:
    assert murmur2(text.encode()) == KAFKAS_OWN[text] & 0xFFFFFFFF


@given(st.binary(max_size=70))
def test_murmur2_agrees_with_another_implementation_on_anything(data: bytes) -> None:
    assert murmur2(data) == aiokafka_murmur2(data) & 0xFFFFFFFF


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), st.integers(1, 1024))
def test_a_requester_has_one_partition_and_it_exists(requester: str, partitions: int) -> None:
    assert 0 <= partition_of(requester, partitions) < partitions
