"""A sandbox has a local AWS from its beginning or not at all."""

from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.folder import AWS, SERVICES, SandboxFolder
from sandbox.world import Sandbox


async def test_a_sandbox_begun_without_aws_gets_none_later_and_nothing_in_it_is_touched(tmp_path: Path) -> None:
    folder = SandboxFolder(tmp_path / "begun")
    folder.open()
    (folder.path / "roster.yaml").write_text("{}")
    before = sorted(folder.path.iterdir())
    with pytest.raises(SandboxError, match="was begun without a local AWS: name a new directory"):
        await Sandbox(folder.path, has_aws=True).start()
    assert sorted(folder.path.iterdir()) == before
    assert folder.services == SERVICES


def test_a_sandbox_that_has_aws_keeps_it(tmp_path: Path) -> None:
    folder = SandboxFolder(tmp_path)
    folder.aws_policy.write_text("")
    assert folder.services == (*SERVICES, AWS)
