"""What happens on the other side of an agent: people look and click, through the API that they use."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from pydantic import SecretStr

from notifiers.api.client import Client, ClientSettings
from sandbox import story
from sandbox.roles import RunningRoles
from sandbox.world import SandboxWorld
from schemas.records import Phase, Refusal, Verdict

WITHIN = 150.0
BUCKET = ("bucket", story.CUSTOMERS)


@dataclass
class People:
    """Those of the story. A verdict waits for its question."""

    world: SandboxWorld
    roles: RunningRoles
    _tokens: dict[str, str] = field(default_factory=dict)

    async def _client(self, person: str) -> Client:
        if person not in self._tokens:
            self._tokens[person] = await self.world.token(person)
        return Client(ClientSettings(api_url=self.world.api, token=SecretStr(self._tokens[person])))

    async def waiting(self, person: str) -> list[str]:
        """What waits for people now."""
        with await self._client(person) as client:
            page = await asyncio.to_thread(client.page, (Phase.PENDING,))
        return [line.id for line in page.approvals]

    async def say(self, person: str, intent_id: str, verdict: Verdict, reason: str | None = None) -> Refusal | None:
        with await self._client(person) as client:
            deadline, after = time.monotonic() + WITHIN, None
            while True:
                view = await asyncio.to_thread(client.approval, intent_id, wait=2 if after else 0, after=after)
                if view.phase is Phase.PENDING or time.monotonic() > deadline:
                    break
                after = view.version
            recorded = await asyncio.to_thread(client.decide, view, verdict, reason)
            answer = await asyncio.to_thread(client.answer, recorded, WITHIN)
        return answer.refusal


def export() -> dict[str, str]:
    """The parameters of an export of the story's objects to a place where nothing is yet."""
    return {
        "source_bucket": story.CUSTOMERS,
        "source_prefix": "eu/2026/",
        "destination_bucket": story.EXPORTS,
        "destination_prefix": f"client/{secrets.token_hex(4)}/",
    }
