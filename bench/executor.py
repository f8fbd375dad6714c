"""An executor whose effect is nothing: what is measured is the way to it. Everything but the plugin is as shipped."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from executors.contract import Act, Executor, Finding, Observation, Plugin
from executors.process import serve
from schemas.records import Intent, JournalEntry, Plan, Receipt, Reversibility, Round
from streams import process
from streams.realm import RealmFolder, settings_for
from tests.broker.builders import MANIFESTS


class Nothing:
    """Plans and acts without touching anything."""

    async def validate(self, intent: Intent) -> None:
        """Anything goes."""

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        """One object."""
        return Plan(
            round=round_,
            intent=intent.digest,
            executor="s3",
            manifest=0,
            summary="Copy one object.",
            measures={"objects": 1, "public": False},
            reversibility=Reversibility.EXACT,
            undo="Delete the copy.",
            planned_at=now,
        )

    async def execute(self, act: Act) -> Receipt:
        """Say that it was entered."""
        await act.journal.started(1, "copy")
        return Receipt(summary="Copied.")

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        """There is nothing to see."""
        del intent, plan, grant_digest, journal
        return Observation(Finding.UNKNOWN, "nothing was to be done")

    async def tidy(self, now: int) -> None:
        """Planning leaves nothing."""
        del now

    async def aclose(self) -> None:
        """Nothing is open."""


async def _open(_: Mapping[str, str]) -> Executor:
    return Nothing()


def main() -> None:
    """Run as the realm's executor."""
    folder = Path(sys.argv[1])
    for name, value in RealmFolder(folder).environment("executor-s3").items():
        os.environ.setdefault(name, value)
    plugin = Plugin(MANIFESTS.executors[0], _open)
    process.run(
        "executor-s3",
        settings_for(folder, "executor-s3"),
        lambda settings, health, stop: serve(plugin, settings, health, stop, os.environ),
    )


if __name__ == "__main__":
    main()
