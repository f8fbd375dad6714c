"""The places where a process may die, by name: before and after each thing that others can see.

`reached` does nothing, here and in everything that is shipped: no setting, variable or flag arms it. The campaign
(`tests/campaign`, docs/survival.md) starts roles through an entry point of its own, which puts another function in its
place, and kills the process at a named place. So call it as `crashpoints.reached("...")`, with a literal name of this
list; each name stands in exactly one place of the code, and a test compares the two.

A new role adds its names here, itself to `PARTS` (`tests/campaign/troupe.py`), its kind to `KINDS` (`script.py`).
"""

from typing import Final

POINTS: Final = (
    # Gateway: a requester's record on its way to Kafka, and the answer.
    "gateway.1-heard",
    "gateway.2-sealed",
    "gateway.3-said",
    "gateway.4-answered",
    # Intake: one batch of intents, and one pass of the sweep.
    "intake.1-batch-fetched",
    "intake.2-world-read",
    "intake.3-facts-gathered",
    "intake.4-answers-said",
    "intake.5-batch-answered",
    "intake.sweep.1-begun",
    "intake.sweep.2-answers-read",
    "intake.sweep.3-ended",
    # Core: taking a partition, one transaction, a tick, letting go.
    "core.start.1-fenced",
    "core.start.2-restored",
    "core.start.3-served",
    "core.1-inputs-fetched",
    "core.2-barrier-read",
    "core.3-batch-decided",
    "core.4-transaction-begun",
    "core.5-transaction-sent",
    "core.6-transaction-committed",
    "core.tick.1-due",
    "core.tick.2-said",
    "core.stop.1-told",
    # Executor: a plan, a claim, a grant, each step of the act, its end; an unknown; the offsets.
    "executor.plan.1-asked",
    "executor.plan.2-made",
    "executor.plan.3-said",
    "executor.claim.1-due",
    "executor.claim.2-said",
    "executor.act.1-granted",
    "executor.act.2-verified",
    "executor.act.3-used",
    "executor.act.4-step-due",
    "executor.act.5-step-journalled",
    "executor.act.6-step-taken",
    "executor.act.7-step-noted",
    "executor.act.8-ended",
    "executor.act.9-end-journalled",
    "executor.act.10-end-said",
    "executor.unknown.1-heard",
    "executor.unknown.2-seen",
    "executor.offsets.1-due",
    "executor.offsets.2-committed",
    # Notifiers: a person's word on its way to Kafka, and the answer to the click.
    "api.click.1-heard",
    "notifier.word.1-signed",
    "notifier.word.2-said",
    "api.click.2-answered",
    "notifier.rows.1-heard",
)


def reached(name: str) -> None:
    """Note that this place was reached: here, nothing happens."""
