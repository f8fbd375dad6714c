"""Every guard of the pure modules, found in their source: each place that says no. Nobody can add one unseen.

For each of them there is a mutant that says nothing there. Where a guard stands twice for the same law (the core's and
the executor's, the click's and the claim's), the listed back-up is switched off with it, or it would hide the hole.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.laws.mutating import ROOT, Edit

MODULES = {
    "broker.lifecycle": "_Refused",
    "schemas.classification": "Refused",
    "executors.checking": "_No",
    "broker.core.order": "OffsetGapError",
    "schemas.world": "SnapshotError",
    "executors.acting": "ActFailedError OutcomeUnknownError RunawayActError",
    "executors.lanes": "NumberGapError",
}
"""Modules, and what their guards raise."""

TESTS = {
    "broker.lifecycle": (
        "tests/broker/test_lifecycle_table.py",
        "tests/broker/test_interleavings.py",
        "tests/broker/test_restored.py",
    ),
    "schemas.classification": ("tests/broker/test_classification.py", "tests/broker/test_lifecycle_table.py"),
    "executors.checking": ("tests/executors/test_checking.py",),
    "broker.core.order": ("tests/broker/test_order.py",),
    "schemas.world": ("tests/schemas/test_world.py",),
    "executors.acting": ("tests/executors/test_acting.py",),
    "executors.lanes": ("tests/executors/test_outcomes.py",),
}
"""Where the test of each guard is."""

UNREACHABLE: dict[str, str] = {}
"""Guards that no input reaches, and why they stay. None of them has a mutant."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One `raise` that says no."""

    module: str
    #: `<function>: <what it says>`, with a number when a function says the same twice.
    name: str
    line: int
    edit: Edit


def guards_of(module: str) -> Iterator[Guard]:
    """In the order of the source."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    seen: Counter[str] = Counter()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in _own(function):
            said = _says(node, MODULES[module].split())
            if said is None:
                continue
            name = f"{function.name}: {said}"
            seen[name] += 1
            if seen[name] > 1:
                name = f"{name} ({seen[name]})"
            yield Guard(module, name, node.lineno, _silenced(module, source, node))


def _own(function: ast.AST) -> Iterator[ast.stmt]:
    """The statements of a function, without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from _own(child)


def _says(node: ast.stmt, kinds: list[str]) -> str | None:
    if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
        return None
    called = node.exc.func
    if not isinstance(called, ast.Name) or called.id not in kinds:
        return None
    first = node.exc.args[0] if node.exc.args else None
    if isinstance(first, ast.Attribute):
        return first.attr.lower()
    return called.id if isinstance(first, ast.Constant | ast.JoinedStr) or first is None else ast.unparse(first)


def _silenced(module: str, source: str, node: ast.stmt) -> Edit:
    """The whole source before and after, cut down to lines around the guard that stand there once."""
    lines = source.splitlines(keepends=True)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno)
    above = first
    while True:
        old = "".join(lines[above:last])
        if source.count(old) == 1 or above == 0:
            break
        above -= 1
    quiet = " " * node.col_offset + "pass\n"
    return Edit(module, old, "".join(lines[above:first]) + quiet)


def path_of(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")
