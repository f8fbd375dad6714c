"""Margins between clocks that every judge of time shares (law 5). No clock here."""

from typing import Final

LEADER_SKEW_MS: Final = 2_000
"""How far two partition leaders' clocks may differ: deadlines fire this much later, so no tick beats a timely yes."""
