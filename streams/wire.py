r"""Reads batches of records whatever their headers are called. Law 9: a bad record never stops a partition.

Kafka takes any bytes for the name of a header, and aiokafka decodes them as UTF-8, strictly: one such record, from
anybody who may write, and every reader of its partition raises at it for ever. So where aiokafka's reader stumbles,
the batch is read by its slower twin in Python, with what is no UTF-8 spelt out (`\xff`).
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, SupportsIndex, overload

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

OFFSET_BYTES: Final = 8
OVERHEAD: Final = 12


class Records:
    """What a broker answers to a fetch of one partition: aiokafka's `MemoryRecords`, and where it stumbles its twin."""

    def __init__(self, data: bytes) -> None:
        """`data` as it came."""
        self._data = data
        self._records: Any = MemoryRecords(data)
        self._taken = 0

    def size_in_bytes(self) -> int:
        """All of it."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> "_Batch":
        """The next one."""
        self._taken += 1
        return _Batch(self._records.next_batch(), self._data, self._taken)


class _Batch:
    def __init__(self, batch: Any, data: bytes, number: int) -> None:
        self._batch = batch
        self._data = data
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """The marker of a transaction: all there is in a control batch."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                yield record
                read += 1
        except UnicodeDecodeError:
            yield from islice(self._read_patiently(), read, None)

    def _read_patiently(self) -> Iterator[Any]:
        batch: Any = _DefaultRecordBatchPy(_batch_at(self._data, self._number))
        batch._maybe_uncompress()  # noqa: SLF001 - else it would replace the buffer later
        batch._buffer = _Buffer(batch._buffer)  # noqa: SLF001
        return iter(batch)


def _batch_at(data: bytes, number: int) -> memoryview:
    """The bytes of the batch of that number, from 1: each begins with its offset and the length of what follows."""
    start, end = 0, 0
    for _ in range(number):
        start = end
        end = start + OVERHEAD + int.from_bytes(data[start + OFFSET_BYTES : start + OVERHEAD], "big")
    return memoryview(data)[start:end]


class _Buffer(bytearray):
    """Its slices decode whatever they hold."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> int: ...

    @overload
    def __getitem__(self, index: slice, /) -> bytearray: ...

    def __getitem__(self, index: Any, /) -> Any:
        found = super().__getitem__(index)
        return _Slice(found) if isinstance(found, bytearray) else found


class _Slice(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        del errors
        return super().decode(encoding, "backslashreplace")


def install() -> None:
    """From now on every consumer of this process reads so, Faust's too."""
    fetcher.MemoryRecords = Records
