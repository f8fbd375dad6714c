"""Whatever pure code does with a record is an answer; what Kafka does is not (law 9)."""

import pytest

from executors import hearing
from schemas.envelope import EnvelopeError
from schemas.record import RecordError
from schemas.records import Refusal


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        (RecordError("id: missing"), Refusal.MALFORMED),
        (EnvelopeError(Refusal.BAD_SIGNATURE, "no"), Refusal.BAD_SIGNATURE),
        (ZeroDivisionError("by zero"), Refusal.INTERNAL),
        (RecursionError("too deep"), Refusal.INTERNAL),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_fault_in_reading_is_a_refusal_with_its_name(fault: Exception, refusal: Refusal) -> None:
    with pytest.raises(EnvelopeError) as caught, hearing._every_fault_an_answer():
        raise fault
    assert caught.value.refusal is refusal


def test_a_cancelled_process_is_no_fault_of_a_record() -> None:
    with pytest.raises(KeyboardInterrupt), hearing._every_fault_an_answer():
        raise KeyboardInterrupt
