"""Shipped code with one line changed, in a process of its own. Nothing on disk changes; nothing shipped knows of it.

An edit names its place by text that stands exactly once in the module: when the code moves on, the edit fails loudly
instead of changing nothing.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


class AnchorError(Exception):
    """The text to change is not there, or several times."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In `module`, `old` (which stands there once) becomes `new`."""

    module: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        return ROOT.joinpath(*self.module.split(".")).with_suffix(".py")

    def applied(self, source: str) -> str:
        if source.count(self.old) != 1:
            raise AnchorError(f"{self.module}: {source.count(self.old)} times: {self.old!r}")
        return source.replace(self.old, self.new)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, edits: Sequence[Edit]) -> None:
        super().__init__(fullname, path)
        self._edits = edits

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text(encoding="utf-8")
        for edit in self._edits:
            source = edit.applied(source)
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits: dict[str, list[Edit]] = defaultdict(list)
        for edit in edits:
            self._edits[edit.module].append(edit)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        edits = self._edits.get(fullname)
        if edits is None:
            return None
        loader: Any = _Loader(fullname, str(edits[0].path), edits)
        return importlib.util.spec_from_file_location(fullname, edits[0].path, loader=loader)


def mutate(edits: Iterable[Edit]) -> None:
    """From here on this process imports the changed code. AnchorError, and no change, when an edit no longer fits."""
    found = tuple(edits)
    for edit in found:
        edit.applied(edit.path.read_text(encoding="utf-8"))
        if edit.module in sys.modules:
            raise AssertionError(f"{edit.module} was imported already")
    sys.meta_path.insert(0, _Finder(found))
