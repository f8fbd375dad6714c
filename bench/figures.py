"""What is printed. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: str
    note: str = ""


@dataclass
class Board:
    """The lines so far, printed as they come."""

    lines: list[Figure] = field(default_factory=list)

    def say(self, name: str, value: str, note: str = "") -> None:
        """Add a line."""
        self.lines.append(Figure(name, value, note))
        print(f"  {name:<46} {value:>22}  {note}".rstrip(), flush=True)

    def title(self, text: str) -> None:
        """Begin a part."""
        print(f"\n{text}", flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` in 0..1. ValueError when there is none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def spread(milliseconds: Iterable[float]) -> str:
    """p50 and p99."""
    found = list(milliseconds)
    return f"p50 {percentile(found, 0.5):.0f} ms, p99 {percentile(found, 0.99):.0f} ms"


def rate(count: int, milliseconds: float) -> str:
    """So many a second."""
    return f"{count * 1000 / max(milliseconds, 1):,.0f}/s"
