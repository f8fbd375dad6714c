"""The realm of a campaign: a sandbox with an agent on each partition, and leases that are short to wait for."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import yaml

from executors import s3 as s3_executor
from sandbox import story
from sandbox.world import Sandbox, SandboxWorld
from schemas.world import World
from streams import administration, documents, drafts
from streams.realm import RealmFolder, lay_out
from tests.campaign.script import AGENTS

LEASE_SECONDS: Final = 10
SETTLE_SECONDS: Final = 1
OPEN_AT_MOST: Final = 1000


def clock() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def campaign_realm(sandbox: Sandbox, lease: int = LEASE_SECONDS) -> AsyncIterator[SandboxWorld]:
    """Started and provisioned inside, gone outside."""
    async with sandbox as world:
        home = RealmFolder(world.folder)
        wider = home.realm().model_copy(update={"agents": AGENTS})
        lay_out(world.folder, wider, [story.OWNER], secrets.token_bytes)
        await administration.provision(world.folder, world.admin)
        settings = world.settings("administration")
        file = world.folder / "directory.yaml"
        _add_agents(file)
        await documents.apply_directory(settings, file, clock())
        manifest = story.manifest(s3_executor.plugin.manifest)
        actions = tuple(
            action.model_copy(update={"lease": lease, "settle": SETTLE_SECONDS}) for action in manifest.actions
        )
        short = manifest.model_copy(update={"actions": actions})
        await documents.apply_manifests(settings, [short], clock(), _accept)
        yield world


def _accept(_: World) -> None:
    """Only leases differ from the manifest that the policy was checked against."""


def _add_agents(file: Path) -> None:
    draft = drafts.load(file.read_text(encoding="utf-8"), str(file))
    listed, keys = draft["agents"], draft["keys"]
    assert isinstance(listed, list)
    assert isinstance(keys, list)
    draft["agents"] = [
        {"id": name, "owners": [story.OWNER], "users": ["ana", "ben"], "max_open": OPEN_AT_MOST} for name in AGENTS
    ]
    keys += [
        {"file": f"keys/agent-{name}.pub", "role": "agent", "holder": name} for name in AGENTS if name != story.AGENT
    ]
    file.write_text(yaml.safe_dump(draft, sort_keys=False, default_flow_style=None), encoding="utf-8")
