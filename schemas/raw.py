"""A record as it lies on Kafka, before anybody reads it: pure code takes it from a client, a bundle or a simulation."""

from collections.abc import Sequence
from typing import Protocol


class RawRecord(Protocol):
    """One record: where it lies, and its bytes."""

    @property
    def partition(self) -> int:
        """Its partition's number."""
        ...

    @property
    def offset(self) -> int:
        """Its place there."""
        ...

    @property
    def timestamp(self) -> int:
        """Its log time."""
        ...

    @property
    def key(self) -> bytes | None:
        """The key's bytes."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """In their order, repetitions included."""
        ...

    @property
    def value(self) -> bytes | None:
        """The value's bytes; None is a tombstone."""
        ...
