"""A card for a terminal: calm, one accent colour, readable at 80 columns, without colour and without a terminal.

Every text is a literal `Text`, never rich's markup: an agent's brackets are brackets. Nothing is cut: long values
fold. NO_COLOR is honoured by rich itself.
"""

from collections.abc import Iterable, Iterator
from typing import IO, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from notifiers.card import Card, Line, Section

ACCENT: Final = "cyan"
_VOICES: Final = {"keyturn": "", "requester": "requester says", "intake": "", "executor": ""}
_LABEL_COLUMNS: Final = 28
_PLAIN_WIDTH: Final = 80


def console(stream: IO[str]) -> Console:
    """A console on `stream` that interprets nothing; 80 columns wide where nobody looks."""
    return Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        width=None if stream.isatty() else _PLAIN_WIDTH,
    )


def show(card: Card, on: Console) -> None:
    """The whole card."""
    on.print(Group(*_parts(card)))


def _parts(card: Card) -> Iterator[RenderableType]:
    yield Text(card.headline, style="bold", overflow="fold")
    yield Text(_summary(card), style=ACCENT, overflow="fold")
    for contradiction in card.contradictions:
        yield Text(f"NOT SOUND: {contradiction}. Do not decide; tell whoever runs Keyturn.", style="bold")
    for section in (*card.sections, card.progress):
        yield Padding(_section(section), (1, 0, 0, 0))


def _summary(card: Card) -> str:
    parts = [f"risk {card.risk.value}"] if card.risk else []
    parts.append(card.phase.value)
    if card.left is not None and card.phase.value in {"planning", "pending", "approved"}:
        parts.append(f"{card.left} left")
    if card.short is not None:
        parts.append(f"question {card.short}")
    return ", ".join(parts)


def _section(section: Section) -> RenderableType:
    return Group(Text(section.title, style=ACCENT), Padding(_lines(section.lines), (0, 0, 0, 2)))


def _lines(lines: Iterable[Line]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_LABEL_COLUMNS, overflow="fold", style="dim")
    table.add_column(overflow="fold")
    for line in lines:
        voice = _VOICES[line.voice]
        table.add_row(Text(line.label), Text(f"{voice}: {line.text}" if voice else line.text))
    return table
