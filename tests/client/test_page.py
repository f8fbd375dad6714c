"""The page for agents' authors tells the truth: each of its programs runs as printed, one after another."""

import asyncio
import re
import sys
from pathlib import Path

from sandbox.roles import HOME, environment
from schemas.records import Verdict
from tests.client.people import WITHIN, People
from tests.client.test_kafka import CLIENT

PAGE = HOME / "docs" / "agents.md"
BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def programs() -> list[str]:
    found = [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in BLOCK.findall(PAGE.read_text())]
    assert len(found) >= 5
    return found


async def test_every_program_of_the_page_runs_as_printed(people: People, tmp_path: Path) -> None:
    (tmp_path / ".keyturn").symlink_to(people.world.folder)
    (tmp_path / "page.py").write_text("\n\n".join(programs()))
    saying_yes = asyncio.create_task(_say_yes(people))
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "page.py",
            cwd=tmp_path,
            env=environment({"PYTHONPATH": str(CLIENT)}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(WITHIN):
            out, err = await process.communicate()
    finally:
        saying_yes.cancel()
        await asyncio.wait({saying_yes})

    assert process.returncode == 0, err.decode()
    assert out.decode().splitlines()[0] == "done: Copied 3 objects."
    assert "third-export/ is ready: Copied 3 objects." in out.decode()


async def _say_yes(people: People) -> None:
    """Cho says yes to everything that waits."""
    while True:
        for intent_id in await people.waiting("cho"):
            await people.say("cho", intent_id, Verdict.APPROVE)
        await asyncio.sleep(0.2)
