"""The S3 executor: which of its actions an intent asks for, and with which roles each is performed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from executors.aws.client import Account, Aws
from executors.contract import Act, Observation, TargetMissingError
from executors.s3 import parameters
from executors.s3.deletions import Deletions
from executors.s3.exporting import Exports
from schemas.records import Intent, JournalEntry, Plan, Receipt, Round

Clock = Callable[[], int]
OWN: Final = {"read_role": True, "export_role": True, "delete_role": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where S3 is, and the roles."""

    account: Account
    #: Lists and reads metadata; for planning and observing.
    read_role: str
    #: Reads and puts; only ever assumed for a grant.
    export_role: str
    #: Lists and deletes, but no version; only ever assumed for a grant. None: this installation deletes nothing.
    delete_role: str | None = None

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> "Settings":
        """The settings of `Account`, `read_role`, `export_role`, and if given `delete_role`."""
        account = Account.parse("s3", given, OWN)
        return cls(account, given["read_role"], given["export_role"], given.get("delete_role"))


class _Action(Protocol):
    """One action: what `Executor` says, for intents of this action."""

    async def validate(self, intent: Intent) -> None: ...
    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan: ...
    async def execute(self, act: Act) -> Receipt: ...
    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation: ...


class S3Executor:
    """Performs `s3.export` and `s3.delete`."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """`clock` tells Unix milliseconds."""
        aws = Aws(settings.account)
        self._actions: dict[str, _Action] = {
            parameters.EXPORT: Exports(aws, settings.read_role, settings.export_role, clock),
            parameters.DELETE: Deletions(aws, settings.read_role, settings.delete_role, clock),
        }

    async def validate(self, intent: Intent) -> None:
        """Raise TargetMissingError when the parameters cannot be meant."""
        await self._action(intent).validate(intent)

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        """The pinned versions, and what would become of them. Lists, and reads nothing else."""
        return await self._action(intent).plan(intent, round_, now)

    async def execute(self, act: Act) -> Receipt:
        """Do exactly the plan."""
        return await self._action(act.intent).execute(act)

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        """What stands on the keys. Reads metadata only."""
        return await self._action(intent).observe(intent, plan, grant_digest, journal)

    async def tidy(self, now: int) -> None:
        """Planning only lists: it leaves nothing."""

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    def _action(self, intent: Intent) -> _Action:
        action = self._actions.get(intent.action.name)
        if action is None:
            raise TargetMissingError(f"this executor performs {', '.join(self._actions)}, not {intent.action.name}")
        return action


async def open_executor(settings: Mapping[str, str]) -> S3Executor:
    """The executor with these settings and this machine's clock."""
    return S3Executor(Settings.parse(settings), lambda: time.time_ns() // 1_000_000)
