"""What an executor counts and traces, once it is durable and said."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from schemas.record import RecordError
from schemas.records import ClassifiedIntent, Intent, Outcome, Plan, PlanFailed, PlanRequest
from streams import tracing
from streams.metrics import SECONDS

PLANS: Final = Counter("keyturn_executor_plans", "Plans asked for, by what was said.", ["result"])
PLANNING: Final = Histogram("keyturn_executor_plan_seconds", "From the request to the signed plan.", buckets=SECONDS)
OUTCOMES: Final = Counter("keyturn_executor_outcomes", "How acts ended.", ["result", "observed"])
ACTING: Final = Histogram(
    "keyturn_executor_act_seconds", "From a verified grant to its outcome.", buckets=(*SECONDS, 30, 60, 300, 900)
)
RUNNING: Final = Gauge("keyturn_executor_acts_running", "Acts that run now.")


def planned(request: PlanRequest, said: Plan | PlanFailed, asked_at: int, said_at: int) -> None:
    """This answer is on the log."""
    has_plan = isinstance(said, Plan)
    PLANS.labels("planned" if has_plan else "failed").inc()
    PLANNING.observe(max(0, said_at - asked_at) / 1000)
    if not tracing.is_on():
        return
    try:
        intent = request.classified.read(ClassifiedIntent).intent.read(Intent)
    except RecordError:
        return
    refused = None if isinstance(said, Plan) else said.reason
    tracing.span("executor plan", intent.id, intent.context.traceparent, asked_at, said_at, refused=refused)


def ended(outcome: Outcome) -> None:
    """This outcome is on the log."""
    OUTCOMES.labels(outcome.result.value, "yes" if outcome.observed else "no").inc()


def acted(intent: Intent, outcome: Outcome, began_at: int, ended_at: int) -> None:
    """This act is over, and its outcome on the log."""
    ACTING.observe(max(0, ended_at - began_at) / 1000)
    tracing.span(
        "executor act",
        intent.id,
        intent.context.traceparent,
        began_at,
        ended_at,
        refused=None if outcome.result.value == "succeeded" else outcome.reason or outcome.result.value,
        result=outcome.result.value,
    )
