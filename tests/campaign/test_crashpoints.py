"""Every named place is in the code, once; nothing that is shipped can arm it; what is armed strikes where it should."""

import ast
import json
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.roles import HOME, environment
from streams import crashpoints
from tests.campaign.armed import Arms

ROOMS = tuple(
    tomllib.loads((HOME / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)
POINT = crashpoints.POINTS[0]


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((HOME / room).rglob("*.py")):
            yield path, ast.parse(path.read_bytes())


def is_ours(node: ast.expr) -> bool:
    """Whether this is `crashpoints.<something>`."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "crashpoints"


def test_every_named_point_stands_in_the_code_once_and_every_one_in_the_code_is_named() -> None:
    found: Counter[str] = Counter()
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and is_ours(node.func):
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: the name must be literal"
                found[str(name.value)] += 1
    assert found == Counter(crashpoints.POINTS)


def test_nothing_shipped_uses_a_crash_point_but_to_call_it() -> None:
    for path, tree in modules():
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.expr) and is_ours(node):
                assert id(node) in called, f"{path}:{node.lineno}: nobody but the campaign puts anything in its place"
            if isinstance(node, ast.ImportFrom):
                assert node.module != "streams.crashpoints", (
                    f"{path}:{node.lineno}: import the module, not its function"
                )
                assert (node.module or "").partition(".")[0] != "tests", f"{path}:{node.lineno}"


def test_the_shipped_commands_never_import_the_armed_one() -> None:
    script = (
        "import sys\n"
        "from streams import crashpoints\n"
        "shipped = crashpoints.reached\n"
        "import cli.main, cli.run, broker.core.process, broker.intake.process, broker.intake.topology\n"
        "import executors.process, notifiers.api.process\n"
        "assert crashpoints.reached is shipped\n"
        "assert not crashpoints.reached.__code__.co_names, 'it does something'\n"
        "strange = [name for name in sys.modules if name == 'tests' or name.startswith('tests.') or 'armed' in name]\n"
        "assert not strange, strange\n"
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, env=environment({}), capture_output=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    folder = tmp_path / "orders"
    folder.mkdir()
    return folder


def order(orders: Path, name: str, point: str, nth: int, what: str = "SIGKILL") -> None:
    (orders / f"{name}.json").write_text(json.dumps({"point": point, "nth": nth, "signal": what}))


def test_an_order_is_obeyed_once_at_the_nth_time(tmp_path: Path, orders: Path) -> None:
    struck: list[signal.Signals] = []
    arms = Arms(tmp_path / "hits", orders, struck.append)
    arms.reached(POINT)
    order(orders, "001", POINT, 2)
    arms.reached("another")
    arms.reached(POINT)
    assert struck == []
    arms.reached(POINT)
    arms.reached(POINT)
    assert struck == [signal.SIGKILL]
    assert (tmp_path / "hits").read_text().splitlines() == [
        POINT, "another", POINT, POINT, f"!SIGKILL {POINT}", POINT,
    ]  # fmt: skip


def test_of_two_processes_one_obeys_and_orders_come_one_after_the_other(tmp_path: Path, orders: Path) -> None:
    struck: list[str] = []
    first = Arms(tmp_path / "first", orders, lambda number: struck.append(f"first {number.name}"))
    second = Arms(tmp_path / "second", orders, lambda number: struck.append(f"second {number.name}"))
    order(orders, "001", POINT, 1)
    order(orders, "002", POINT, 2, "SIGSTOP")
    second.reached(POINT)
    first.reached(POINT)
    second.reached(POINT)
    first.reached(POINT)
    assert struck == ["second SIGKILL", "first SIGSTOP"]
