"""The campaign's own way to start a role: the same command, with `crashpoints.reached` put in arms first.

    python -P armed.py FOLDER NAME ROLE... run ... --dir ...

FOLDER/hits/NAME gets a line for each point reached. FOLDER/orders/KIND/*.json says what shall happen: the process that
reaches the point of the first order for the `nth` time since it saw the order takes the file, and obeys. Nothing that
is shipped imports this.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streams import crashpoints

TAKEN: Final = "!"
"""Starts the line of a point at which an order was obeyed."""


class Arms:
    """Stands where `crashpoints.reached` stood."""

    def __init__(self, hits: Path, orders: Path, strike: Callable[[signal.Signals], None]) -> None:
        self._hits = os.open(hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._orders = orders
        self._strike = strike
        self._order: tuple[str, str, int, signal.Signals] | None = None
        self._seen = 0

    def reached(self, name: str) -> None:
        self._note(name)
        order = self._first()
        if order is None or order[1] != name:
            return
        self._seen += 1
        if self._seen < order[2]:
            return
        try:
            # Of two processes that come here at once one obeys.
            (self._orders / order[0]).rename(self._orders / f"{order[0]}.taken")
        except FileNotFoundError:
            return
        self._note(f"{TAKEN}{order[3].name} {name}")
        self._strike(order[3])

    def _note(self, line: str) -> None:
        os.write(self._hits, f"{line}\n".encode())

    def _first(self) -> tuple[str, str, int, signal.Signals] | None:
        names = sorted(path.name for path in self._orders.iterdir() if path.suffix == ".json")
        if not names:
            return None
        if self._order is None or self._order[0] != names[0]:
            try:
                told = json.loads((self._orders / names[0]).read_bytes())
            except FileNotFoundError:
                return None
            self._order = (names[0], told["point"], told["nth"], signal.Signals[told["signal"]])
            self._seen = 0
        return self._order


def main(folder: str, name: str, kind: str, *words: str) -> None:
    home = Path(folder)
    arms = Arms(home / "hits" / name, home / "orders" / kind, lambda number: os.kill(os.getpid(), number))
    crashpoints.reached = arms.reached
    from cli.main import run

    sys.argv = ["keyturn", *words]
    run()


if __name__ == "__main__":
    main(*sys.argv[1:])
