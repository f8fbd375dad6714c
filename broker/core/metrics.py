"""What the core counts and traces, once a transaction is committed: what was rolled back never happened.

Lag, open rows and the oldest question are read off the partitions when Prometheus asks, so that a busy core pays
nothing for them in between.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.core.deciding import Decided
from schemas.record import RecordError
from schemas.records import ClassifiedIntent, Intent, PendingApproval, Phase
from streams import tracing
from streams.metrics import SECONDS

INPUTS = Counter("keyturn_core_inputs", "Inputs decided, by what the trail calls them.", ["event"])
DECISIONS = Counter(
    "keyturn_core_decisions", "People's decisions, by verdict and whether they counted.", ["verdict", "counted"]
)
REFUSALS = Counter("keyturn_core_refusals", "Inputs that had no effect, by reason.", ["refusal"])
TRANSACTIONS = Histogram("keyturn_core_transaction_seconds", "From begin to commit.", buckets=SECONDS)


class Owned(Protocol):
    """A partition that is served."""

    @property
    def number(self) -> int:
        """Which."""
        ...

    def lag(self) -> Mapping[str, int]:
        """By input topic: how many records lie beyond what was decided."""
        ...

    def phases(self) -> Mapping[Phase, int]:
        """How many rows are in each phase."""
        ...

    def oldest(self, phase: Phase) -> int | None:
        """When the oldest row of this phase was asked, Unix milliseconds."""
        ...


def count(decided: Iterable[Decided], committed_at: int) -> None:
    """These are on the log now."""
    for each in decided:
        INPUTS.labels(each.audit.event).inc()
        if each.audit.refusal is not None:
            REFUSALS.labels(each.audit.refusal.value).inc()
        if each.verdict:
            DECISIONS.labels(each.verdict, "no" if each.audit.refusal is not None else "yes").inc()
        if each.audit.intent is not None and tracing.is_on():
            _trace(each, each.audit.intent, committed_at)


def _trace(each: Decided, intent_id: str, committed_at: int) -> None:
    audit = each.audit
    tracing.span(
        f"core {audit.event}",
        intent_id,
        _traceparent(each.row),
        audit.log_time,
        committed_at,
        refused=audit.refusal.value if audit.refusal is not None else None,
        phase=(audit.after or audit.before or Phase.REFUSED).value,
        seq=audit.seq,
        chain=audit.chain,
    )


def _traceparent(row: PendingApproval | None) -> str | None:
    if row is None or row.classified is None:
        return None
    try:
        return row.classified.read(ClassifiedIntent).intent.read(Intent).context.traceparent
    except RecordError:
        return None


class Partitions(Collector):
    """What is served right now. `with`: on the page inside."""

    def __init__(self, owned: Callable[[], Iterable[Owned]], clock: Callable[[], int]) -> None:
        """`owned()` are the partitions of this process that serve."""
        self._owned = owned
        self._clock = clock

    def __enter__(self) -> None:
        REGISTRY.register(self)

    def __exit__(self, *_: object) -> None:
        REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked before a partition is served."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        lag = GaugeMetricFamily("keyturn_core_lag_records", "Records not decided yet.", labels=["topic", "partition"])
        rows = GaugeMetricFamily("keyturn_core_rows", "Intents that are known, by phase.", labels=["phase"])
        oldest = GaugeMetricFamily(
            "keyturn_core_oldest_seconds", "How long the oldest intent of a phase has waited.", labels=["phase"]
        )
        phases: Tally[Phase] = Tally()
        asked: dict[Phase, int] = {}
        for partition in self._owned():
            for topic, count in partition.lag().items():
                lag.add_metric([topic, str(partition.number)], count)
            phases.update(partition.phases())
            for phase in (Phase.PENDING, Phase.APPROVED, Phase.EXECUTING, Phase.UNKNOWN):
                at = partition.oldest(phase)
                if at is not None:
                    asked[phase] = min(at, asked.get(phase, at))
        for phase in Phase:
            rows.add_metric([phase.value], phases[phase])
        for phase, at in asked.items():
            oldest.add_metric([phase.value], max(0, self._clock() - at) / 1000)
        yield from (lag, rows, oldest)
