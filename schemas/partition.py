"""All intents of one requester meet in one partition: murmur2(requester) mod P. No I/O.

The function is Kafka's default partitioner (`org.apache.kafka.common.utils.Utils.murmur2`), so that a producer in
any language that keys by requester lands right; ours key by intent id and name the partition.
"""

from typing import Final

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, as an unsigned integer."""
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length & ~3
    for index in range(0, whole, 4):
        k = int.from_bytes(data[index : index + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    if rest := data[whole:]:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


def partition_of(requester: str, partitions: int) -> int:
    """The partition, 0 <= p < partitions, where everything about `requester`'s intents is said."""
    return (murmur2(requester.encode()) & 0x7FFFFFFF) % partitions
