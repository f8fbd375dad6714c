"""The project keeps its own promises: what is shipped, what is linked, what is generated."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from schemas import contract

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("schemas", "streams", "broker", "executors", "notifiers", "gateway", "auditors", "cli", "sandbox")
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#]+)(?:#[^)]*)?\)")


def files(*suffixes: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_module_contract_and_list(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603 - our own build
    (wheel,) = tmp_path.glob("*.whl")

    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert files(".py", ".json", ".sha256") <= shipped
    assert {f"{room}/py.typed" for room in ROOMS} <= shipped
    assert {name.split("/")[0] for name in shipped} == set(ROOMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]

    assert broken == []


def test_the_generated_files_are_what_would_be_generated() -> None:
    assert contract.drift() == ()
    readme = (ROOT / "README.md").read_text()
    assert contract.with_table(readme) == readme


def test_every_room_opens_with_its_law() -> None:
    lawless = [name for name in sorted(files(".py")) if not re.match(r'(#!.*\n)?r?"""\S', (ROOT / name).read_text())]

    assert lawless == []


def test_every_committed_python_file_stays_off_registries_and_machine_paths() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S607
    hosts = re.compile(rb"(repo1?\.maven\.(apache\.)?org|pypi\.org|files\.pythonhosted|registry\.npmjs|crates\.io/)")
    found = [
        name
        for name in listed.decode().split("\0")
        if name and (ROOT / name).is_file() and name != str(Path(__file__).relative_to(ROOT))
        if hosts.search((ROOT / name).read_bytes())
    ]

    assert found == []
