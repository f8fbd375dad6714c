"""What intake counts and traces, once its answers are durable."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from broker.intake.answering import Admitted, Answer
from schemas.records import ClassifiedIntent, Intent, Quarantined
from streams import tracing
from streams.metrics import SECONDS

ANSWERS: Final = Counter("keyturn_intake_answers", "Records answered, by what was proposed.", ["answer"])
REFUSALS: Final = Counter("keyturn_intake_refusals", "Records refused or put aside, by reason.", ["refusal"])
BATCHES: Final = Histogram("keyturn_intake_batch_seconds", "From a batch to its durable answers.", buckets=SECONDS)
BEHIND: Final = Gauge("keyturn_intake_behind_seconds", "How old the newest record of the last batch was.")

LAG: Final = Gauge("keyturn_intake_lag_records", "Offsets of `intents` that intake has not passed.", ["partition"])


def count(answers: Iterable[Answer], admitted: Iterable[Admitted], answered_at: int) -> None:
    """These are on the log now."""
    for answer in answers:
        match answer:
            case Quarantined():
                ANSWERS.labels("quarantined").inc()
                REFUSALS.labels(answer.refusal.value).inc()
            case ClassifiedIntent() if answer.classification is not None:
                ANSWERS.labels(answer.classification.effect.value).inc()
            case ClassifiedIntent():
                ANSWERS.labels("refused").inc()
                REFUSALS.labels(answer.refusal.value if answer.refusal is not None else "none").inc()
            case _:
                ANSWERS.labels("withdrawal").inc()
    if tracing.is_on():
        for each in admitted:
            _trace(each.intent, each.raw.log_time, answered_at)


def _trace(intent: Intent, asked_at: int, answered_at: int) -> None:
    tracing.span("intake", intent.id, intent.context.traceparent, asked_at, answered_at, action=intent.action.name)
