"""Where a requester's intents lie on Kafka: murmur2(requester) mod P. No I/O.

It is Kafka's default partitioner (`org.apache.kafka.common.utils.Utils.murmur2`) over the requester's name; records are
keyed by intent id, so the partition is named by whoever writes.

>>> partition_of("reporter", 8) == murmur2(b"reporter") % 2**31 % 8
True
"""

from typing import Final

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, unsigned."""
    mixed = (_SEED ^ len(data)) & _MASK
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = (int.from_bytes(data[start : start + 4], "little") * _M) & _MASK
        word = ((word ^ (word >> 24)) * _M) & _MASK
        mixed = ((mixed * _M) & _MASK) ^ word
    if rest := data[whole:]:
        mixed = ((mixed ^ int.from_bytes(rest, "little")) * _M) & _MASK
    mixed = ((mixed ^ (mixed >> 13)) * _M) & _MASK
    return mixed ^ (mixed >> 15)


def partition_of(requester: str, partitions: int) -> int:
    """The partition, from 0, of everything about `requester`'s intents."""
    return (murmur2(requester.encode()) & 0x7FFFFFFF) % partitions
