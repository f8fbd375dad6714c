"""One trace an intent, from the agent to the outcome, whoever takes part. Off until it is told where to send.

Nobody carries a context: each role finds the same one in the signed intent. The agent's own `traceparent` (W3C Trace
Context) is the parent where it gave one; else the trace id follows from the intent id. A span says when something was
asked (the log time of what was answered) and when the answer was durable. It proves nothing: the trail does.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MILLISECOND: Final = 1_000_000
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACER: Final = trace.get_tracer("keyturn")


class TracingError(Exception):
    """Traces are asked for and cannot be sent; the text says what to do."""


def begin(role: str, realm: str, environ: Mapping[str, str]) -> None:
    """Send from here on, if OpenTelemetry's own variables say where to (OTEL_EXPORTER_OTLP_ENDPOINT and its kin)."""
    if not any(environ.get(name) for name in ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as exc:
        raise TracingError(f"{ENDPOINTS[0]} is set: install keyturn-broker[otel], or unset it ({exc})") from exc
    resource = Resource.create({"service.name": f"keyturn-{role}", "keyturn.realm": realm, "process.pid": os.getpid()})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def is_on() -> bool:
    """Whether spans go anywhere: what they cost is not paid else."""
    return type(trace.get_tracer_provider()) is not trace.ProxyTracerProvider


def context_of(intent_id: str, traceparent: str | None) -> Context:
    """Where an intent's spans belong."""
    if traceparent is not None:
        given = _PROPAGATOR.extract({"traceparent": traceparent})
        if trace.get_current_span(given).get_span_context().is_valid:
            return given
    digest = hashlib.sha256(intent_id.encode()).digest()
    parent = SpanContext(
        int.from_bytes(digest[:16]), int.from_bytes(digest[16:24]), is_remote=True, trace_flags=TraceFlags(1)
    )
    return trace.set_span_in_context(NonRecordingSpan(parent))


def span(
    name: str,
    intent_id: str,
    traceparent: str | None,
    asked_ms: int,
    answered_ms: int,
    *,
    refused: str | None = None,
    **attributes: str | int,
) -> None:
    """Something happened to an intent between these two times (Unix milliseconds)."""
    if not is_on():
        return
    made = _TRACER.start_span(
        name,
        context=context_of(intent_id, traceparent),
        start_time=asked_ms * MILLISECOND,
        attributes={"keyturn.intent": intent_id, **{f"keyturn.{key}": value for key, value in attributes.items()}},
    )
    if refused is not None:
        made.set_status(Status(StatusCode.ERROR, refused))
    made.end(end_time=max(asked_ms, answered_ms) * MILLISECOND)
