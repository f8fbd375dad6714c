"""What a role counts, as Prometheus reads it from `/metrics` beside its health. Nothing here decides anything.

Names are `keyturn_<role>_<what>_<unit>`; labels are few and closed, so that no agent can blow up a time series:
never an id, a name or a reason in somebody's own words.
"""

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

TYPE: Final = CONTENT_TYPE_LATEST
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Buckets of what should take milliseconds."""


def page() -> bytes:
    """Everything this process counts."""
    return generate_latest(REGISTRY)
