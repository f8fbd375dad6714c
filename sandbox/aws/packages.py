"""The local AWS's own packages, in a folder of the cache: exactly those of `ministack.txt`, each with its locked sum.

Installed once by this environment's pip, wherever that is told to fetch from; pip keeps nothing whose sum is another.
The folder's name is made from the list and from what wheels depend on, so that another list is another folder.
"""

import asyncio
import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sandbox.errors import SandboxError

LIST: Final = Path(__file__).with_name("ministack.txt")
LAST_LINES: Final = 8

Progress = Callable[[str], None]
"""Called with one line when there is something to wait for."""


class PackagesError(SandboxError):
    """The local AWS's packages cannot be installed; the message says what to do."""


def silent(_line: str) -> None:
    """Report no progress."""


def folder_of(cache: Path) -> Path:
    """Name the folder for this list on this Python, whether it exists or not."""
    key = hashlib.sha256(LIST.read_bytes())
    key.update(f"{sys.version_info[:2]} {sysconfig.get_platform()}".encode())
    return cache / "aws" / key.hexdigest()[:16]


async def ensure(cache: Path, progress: Progress = silent) -> Path:
    """Install what is locked, if it is not there. When this returns, the folder is whole."""
    folder = folder_of(cache)
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("pip") is None:
        raise PackagesError(f"pip is needed once, to install the local AWS: {sys.executable} -m ensurepip")
    progress("installing the local AWS (ministack, 20 MB, hash-checked, once)")
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch:
        made = Path(scratch) / "packages"
        await _install(made)
        try:
            # Whole or not at all; and when two install at once, the first one's is used.
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    _remove_old(folder)
    return folder


async def _install(target: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--target", str(target), "-r", str(LIST)),
        # What is configured where packages come from counts, as for any pip; where we come from does not.
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        said = "\n".join(output.decode(errors="replace").strip().splitlines()[-LAST_LINES:])
        raise PackagesError(
            f"pip could not install the local AWS's packages:\n{said}\n"
            "Check the network and where pip is told to look (pip config list); nothing was kept."
        )


def _remove_old(newest: Path) -> None:
    """Another list's or another Python's of before: a few weeks later nobody uses it."""
    kept = 3
    others = sorted(newest.parent.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[kept:]:
        shutil.rmtree(old, ignore_errors=True)
