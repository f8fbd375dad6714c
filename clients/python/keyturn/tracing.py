"""The current trace, where OpenTelemetry is installed: passed on, so that a trace runs from the agent to the
executor.
"""


def traceparent() -> str | None:
    """The W3C `traceparent` of the current span, if there is one."""
    try:
        from opentelemetry.trace import get_current_span
    except ImportError:
        return None
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
