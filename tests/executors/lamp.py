"""An executor over a lamp in memory: the real Protocol, and a script for what goes wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from executors.contract import Act, Finding, Observation, TargetMissingError
from schemas.records import Intent, JournalEntry, Plan, Receipt, Reversibility, Round
from schemas.snapshots import Manifest

LAMP = Manifest.model_validate(
    {
        "executor": "lamp",
        "version": "1",
        "actions": (
            {
                "name": "lamp.switch",
                "title": "Switch the lamp",
                "parameters": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"to": {"type": "string"}},
                },
                "reversibility": Reversibility.EXACT,
                "timeout": 5,
                "lease": 60,
                "settle": 1,
            },
        ),
    }
)

Script = Callable[[Act], Awaitable[Receipt]]


async def switch(act: Act) -> Receipt:
    """What goes well."""
    await act.journal.started(1, "switch it")
    await act.journal.done(1, "switch it")
    return Receipt(summary="It is on.")


@dataclass
class Lamp:
    """What it was told, in order."""

    script: Script = switch
    finding: Finding = Finding.NOT_APPLIED
    plans: list[Round] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    looks: list[tuple[str, tuple[JournalEntry, ...]]] = field(default_factory=list)
    acting: asyncio.Event = field(default_factory=asyncio.Event)
    #: When it was told to; the first time it fails.
    tidied: list[int] = field(default_factory=list)
    tidied_again: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: bool = False

    async def validate(self, intent: Intent) -> None:
        if intent.action.properties.get("to") == "nowhere":
            raise TargetMissingError("there is no such lamp")

    async def plan(self, intent: Intent, round_: Round, now: int) -> Plan:
        self.plans.append(round_)
        match intent.action.properties.get("to"):
            case "break":
                raise ZeroDivisionError
            case "flood":
                summary, marks = "too much", tuple({"target": "x" * 1000, "value": str(n)} for n in range(200))
            case "other":
                round_, summary, marks = round_.model_copy(update={"number": 9}), "another round", ()
            case "sleep":
                await asyncio.Event().wait()
                raise AssertionError
            case _:
                summary, marks = "Switch the lamp on.", ()
        return Plan.model_validate(
            {
                "round": round_,
                "intent": intent.digest,
                "executor": "lamp",
                "manifest": 0,
                "summary": summary,
                "fingerprints": marks,
                "reversibility": Reversibility.EXACT,
                "undo": "Switch it off.",
                "planned_at": now,
            }
        )

    async def execute(self, act: Act) -> Receipt:
        self.acts.append(act)
        self.acting.set()
        return await self.script(act)

    async def observe(
        self, intent: Intent, plan: Plan, grant_digest: str, journal: tuple[JournalEntry, ...]
    ) -> Observation:
        assert plan.intent == intent.digest
        self.looks.append((grant_digest, journal))
        return Observation(self.finding, "looked at the lamp")

    async def tidy(self, now: int) -> None:
        self.tidied.append(now)
        if len(self.tidied) == 1:
            raise ZeroDivisionError
        self.tidied_again.set()

    async def aclose(self) -> None:
        self.is_closed = True
