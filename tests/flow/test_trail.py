"""After all the stories: the trail verifies from outside, and one altered record does not."""

import asyncio
import base64
import json
from pathlib import Path

from sandbox.roles import environment, keyturn
from tests.flow.stage import Stage

INTEGRITY = 6


async def run(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *keyturn(*words),
        env=environment({"NO_COLOR": "1"}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    return process.returncode or 0, text.decode()


async def test_the_trail_of_every_story_is_decided_again_byte_for_byte(stage: Stage) -> None:
    code, text = await run("audit", "replay", "--dir", str(stage.world.folder), "--json")
    assert code == 0, text
    report = json.loads(text)
    assert report["records"] > 0
    assert report["at_its_word"] == 0
    assert report["rows"] > 0, "no partition of pending stood at the trail's end"


async def test_the_trail_of_every_story_verifies_and_an_altered_record_is_named(stage: Stage, tmp_path: Path) -> None:
    await stage.asked(await stage.shelf())
    code, text = await run("audit", "verify", "--dir", str(stage.world.folder))
    assert code == 0, text

    bundle = tmp_path / "bundle"
    code, text = await run("audit", "export", str(bundle), "--dir", str(stage.world.folder))
    assert code == 0, text
    trail = bundle / "audit.jsonl"
    lines = trail.read_text().splitlines()
    record = json.loads(lines[-1])
    value = base64.b64decode(record["value"])
    record["value"] = base64.b64encode(value.replace(b'"seq":', b'"seq":1', 1)).decode()
    trail.write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n")

    code, text = await run("audit", "verify", "--bundle", str(bundle), "--dir", str(stage.world.folder))

    assert code == INTEGRITY, text
