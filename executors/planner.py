"""From a request to a plan, or to the reason why there is none. Total: nothing a plugin does stops the process."""

import asyncio
import logging
from collections.abc import Callable

from executors import outcomes
from executors.acting import Clock
from executors.contract import Executor, ExecutorError
from schemas.record import RecordError
from schemas.records import ClassifiedIntent, Intent, Plan, PlanFailed, PlanRequest
from schemas.snapshots import Manifest, ManifestAction

log = logging.getLogger("keyturn.executor")


class Planner:
    """Asks the plugin."""

    def __init__(self, manifest: Manifest, plugin: Executor, clock: Clock, version: Callable[[], int]) -> None:
        """`version()`: of the manifests in force."""
        self._manifest = manifest
        self._plugin = plugin
        self._clock = clock
        self._version = version

    async def plan(self, request: PlanRequest) -> Plan | PlanFailed:
        """What would be done, or why nothing can be said of it."""
        round_ = request.round
        try:
            intent = request.classified.read(ClassifiedIntent).intent.read(Intent)
            if intent.id != round_.intent:
                return self._failed(request, "internal: the request is about another intent")
            async with asyncio.timeout(action_of(self._manifest, intent).timeout):
                await self._plugin.validate(intent)
                plan = await self._plugin.plan(intent, round_, self._clock())
            plan = plan.model_copy(update={"manifest": self._version()})
            if (plan.round, plan.intent, plan.executor) != (round_, intent.digest, self._manifest.executor):
                return self._failed(request, "internal: the plan is for something else than was asked")
            plan.to_bytes()
        except ExecutorError as exc:
            return self._failed(request, str(exc) or type(exc).__name__)
        except TimeoutError:
            return self._failed(request, "planning took longer than the manifest allows")
        except RecordError as exc:
            return self._failed(request, f"the plan cannot be said: {exc}")
        except Exception as exc:
            log.exception("planning failed", extra={"intent_id": round_.intent})
            return self._failed(request, f"internal: {type(exc).__name__}")
        return plan

    def _failed(self, request: PlanRequest, reason: str) -> PlanFailed:
        log.warning("no plan", extra={"intent_id": request.round.intent, "reason": reason})
        return PlanFailed(round=request.round, executor=self._manifest.executor, reason=outcomes.prose(reason))


def action_of(manifest: Manifest, intent: Intent) -> ManifestAction:
    """The action as this process's manifest has it. ExecutorError when it has none."""
    for action in manifest.actions:
        if action.name == intent.action.name:
            return action
    raise ExecutorError(f"{manifest.executor} {manifest.version} has no action {intent.action.name}")
