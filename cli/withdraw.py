"""`keyturn withdraw ID`: take an intent back, as its requester; or as an owner of the agent, over the gateway.

Exit codes as of `keyturn submit`: 0 it is on the log (with --wait: it is withdrawn).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.submit import AgentName, AsJson, Folder, Gateway, OverKafka, Quiet, Timeout, asking, code_of, follow

if TYPE_CHECKING:
    from cli.asking import Asker


def register(root: typer.Typer) -> None:
    """Mount the command on the root."""
    root.command("withdraw")(withdraw)


def withdraw(
    intent_id: Annotated[str, typer.Argument(metavar="ID", help="The intent.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Why; it goes on the trail.")] = None,
    folder: Folder = None,
    agent: AgentName = None,
    gateway: Gateway = None,
    over_kafka: OverKafka = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take an intent back."""
    import json

    from schemas import ids

    try:
        ids.split(intent_id)
    except ids.IntentIdError as exc:
        raise typer.BadParameter(str(exc)) from exc

    async def doing(asker: Asker) -> int:
        told = await asker.withdraw(intent_id, reason)
        if as_json:
            typer.echo(json.dumps(told))
        elif not quiet:
            where = f", at {told['partition']}/{told['offset']}" if "offset" in told else " already"
            typer.echo(f"{intent_id}: the withdrawal is on the log{where}")
        if not wait:
            return 0
        phase = await follow(asker.states(intent_id), timeout, as_json=as_json, quiet=quiet)
        # What was asked for.
        return 0 if phase == "withdrawn" else code_of(phase)

    raise typer.Exit(asking(doing, folder, agent, gateway, over_kafka=over_kafka))
