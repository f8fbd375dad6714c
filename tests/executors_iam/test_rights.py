"""The rights that the page tells operators to give are those that everything here runs with, and no others."""

import json
import re
from pathlib import Path

from executors.iam import plugin
from sandbox.aws import settings

PAGE = Path(__file__).parents[2] / "docs" / "executors.md"


def test_the_page_the_manifest_and_the_sandbox_name_the_same_rights() -> None:
    chapter = PAGE.read_text().partition("\n## iam\n")[2].partition("\n## ")[0]
    told = [tuple(json.loads(block)["Action"]) for block in re.findall(r"```json\n(.*?)```", chapter, re.DOTALL)]
    given = settings.EXECUTORS["iam"]
    assert told == [given.read, given.act]
    for action in plugin.manifest.actions:
        named = {right for right in action.permissions if right.startswith("iam:")}
        assert named == {*given.read, *given.act}
