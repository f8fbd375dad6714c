"""`keyturn submit`: ask for something to be done, over the gateway or straight to Kafka; `--check` only asks policy.

What is asked comes from flags, from a YAML or JSON file, or from stdin (`-f -`); flags win. Data go to stdout,
everything else to stderr.

Exit codes: 0 on the log (with --wait: done; with --check: policy would let it), 1 error or failed, 2 usage, 3 denied,
refused or withdrawn, 4 expired, 5 not by this key or token, 6 what is known of it cannot be trusted, 75 try again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from pydantic import JsonValue

    from cli.asking import Asker, State
    from gateway.contract import IntentForm

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
DENIED: Final = 3
EXPIRED: Final = 4
FORBIDDEN: Final = 5
INTEGRITY: Final = 6
TEMPORARY: Final = 75  # EX_TEMPFAIL of sysexits.h
_CODES: Final = {
    "succeeded": OK,
    "failed": ERROR,
    "expired": EXPIRED,
    **dict.fromkeys(("denied", "refused", "withdrawn", "revoked", "quarantined"), DENIED),
}

Folder = Annotated[
    Path | None, typer.Option("--dir", envvar="KEYTURN_DIR", help="The realm's folder, for the agent's key and rights.")
]
AgentName = Annotated[str | None, typer.Option("--agent", envvar="KEYTURN_AGENT", help="The agent that asks.")]
Gateway = Annotated[
    str | None, typer.Option("--gateway", envvar="KEYTURN_GATEWAY_URL", help="Ask over HTTP, at this base URL.")
]
OverKafka = Annotated[bool, typer.Option("--kafka", help="Ask by Kafka, though there is a gateway.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON values on stdout, one a line, nothing else.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds to follow it at most; after them the exit code is 75.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the id alone; with --wait nothing more.")]


def register(root: typer.Typer) -> None:
    """Mount the command on the root."""
    root.command("submit")(submit)


def submit(
    action: Annotated[str | None, typer.Argument(help="What is to be done: s3.export.")] = None,
    resource: Annotated[str | None, typer.Argument(help="On what: TYPE/ID, like bucket/acme-customers.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=text, or name:=JSON for numbers, booleans and lists."),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="YAML or JSON with action, resource, context, ttl; - is stdin.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; whoever is asked reads it.")] = None,
    ticket: Annotated[str | None, typer.Option(help="The ticket it belongs to.")] = None,
    run: Annotated[str | None, typer.Option(help="The run it belongs to.")] = None,
    ttl: Annotated[int | None, typer.Option(min=1, help="Seconds after which silence is a no.")] = None,
    intent_id: Annotated[str | None, typer.Option("--id", help="An id of your own: asking again is harmless.")] = None,
    folder: Folder = None,
    agent: AgentName = None,
    gateway: Gateway = None,
    over_kafka: OverKafka = False,
    check: Annotated[bool, typer.Option("--check", help="Only say what policy would say; ask nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ask for something to be done."""
    form = _form(action, resource, parameter or [], file, reason, ticket, run, ttl, intent_id)

    async def doing(asker: Asker) -> int:
        if check:
            return _tell_check(await asker.check(form), as_json=as_json, quiet=quiet)
        told = await asker.submit(form)
        name = str(told["id"])
        if as_json:
            _print_json(told)
        else:
            place = f"{told['partition']}/{told['offset']}"
            typer.echo(name if quiet else f"{name}: on the log, at {place}")
        if not wait:
            return OK
        return code_of(await follow(asker.states(name), timeout, as_json=as_json, quiet=quiet))

    raise typer.Exit(asking(doing, folder, agent, gateway, over_kafka=over_kafka))


# ---------------------------------------------------------------- what is asked


def _form(
    action: str | None,
    resource: str | None,
    parameters: list[str],
    file: str | None,
    reason: str | None,
    ticket: str | None,
    run: str | None,
    ttl: int | None,
    intent_id: str | None,
) -> IntentForm:
    import json

    from pydantic import ValidationError

    from gateway.contract import IntentForm

    members = _read(file) if file is not None else {}
    asked = _object(members.setdefault("action", {}), "action")
    if action is not None:
        asked["name"] = action
    if parameters:
        asked["properties"] = _object(asked.get("properties", {}), "action.properties") | _parameters(parameters)
    if resource is not None:
        kind, _, name = resource.partition("/")
        members["resource"] = {"type": kind, "id": name}
    words = {"reason": reason, "ticket": ticket, "run": run}
    context = _object(members.get("context", {}), "context")
    members["context"] = context | {name: text for name, text in words.items() if text is not None}
    members |= {name: value for name, value in (("ttl", ttl), ("id", intent_id)) if value is not None}
    try:
        return IntentForm.model_validate_json(json.dumps(members))
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False)
        raise typer.BadParameter("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found)) from exc


def _read(file: str) -> dict[str, JsonValue]:
    import json
    import sys

    from streams import drafts

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{file}: {exc}") from exc
    try:
        # JSON is YAML; ours refuses what YAML would guess, and names that are there twice.
        found: dict[str, JsonValue] = json.loads(json.dumps(drafts.load(text, "stdin" if file == "-" else file)))
    except drafts.DraftError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return found


def _object(value: JsonValue, name: str) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{name}: expected `name: value` lines")
    return value


def _parameters(given: list[str]) -> dict[str, JsonValue]:
    import json

    found: dict[str, JsonValue] = {}
    for each in given:
        name, sign, text = each.partition("=")
        if not sign or name in found or name.removesuffix(":") in found:
            raise typer.BadParameter(f"-p {each!r}: expected name=text or name:=JSON, each name once")
        if name.endswith(":"):
            try:
                found[name.removesuffix(":")] = json.loads(text)
            except ValueError as exc:
                raise typer.BadParameter(f"-p {each!r}: {exc}") from exc
        else:
            found[name] = text
    return found


# ---------------------------------------------------------------- asking


def asking(
    doing: Callable[[Asker], Awaitable[int]],
    folder: Path | None,
    agent: str | None,
    gateway: str | None,
    *,
    over_kafka: bool,
) -> int:
    """Do it with whoever asks, and give its exit code. What goes wrong is one calm line on stderr."""
    import asyncio

    from cli import asking as ways

    async def run() -> int:
        settings = ways.settings_of(folder, agent, gateway)
        if settings.gateway_url is not None and not over_kafka:
            async with ways.HttpAsker(settings.gateway_url, ways.identity(settings)) as asker:
                return await doing(asker)
        from streams.realm import settings_for

        if agent is None:
            raise ways.NotToldError(
                "say where and who: --dir DIR --agent NAME (or KEYTURN_DIR and KEYTURN_AGENT), or --gateway URL with "
                "KEYTURN_TOKEN_FILE or an agent's key"
            )
        async with ways.KafkaAsker(settings_for(folder, f"agent-{agent}"), agent) as by_kafka:
            return await doing(by_kafka)

    try:
        return asyncio.run(run())
    except ways.AskingError as exc:
        typer.echo(f"keyturn: {exc}", err=True)
        match exc:
            case ways.NotAllowedError():
                return FORBIDDEN
            case ways.NotToldError():
                return USAGE
            case ways.IntegrityError():
                return INTEGRITY
            case ways.NotYetError():
                return TEMPORARY
            case _:
                return ERROR


async def follow(states: AsyncIterator[State], seconds: float | None, *, as_json: bool, quiet: bool) -> str | None:
    """A line whenever it changes; the phase it ended in, or nothing when it did not end in time."""
    import asyncio

    said = ""
    try:
        async with asyncio.timeout(seconds):
            async for state in states:
                if as_json:
                    _print_json(state.members)
                elif not quiet and (line := _line(state)) != said:
                    typer.echo(line)
                    said = line
                if state.is_final:
                    return state.phase
    except TimeoutError:
        typer.echo("keyturn: it has not ended yet; submitting it again with its --id follows it further", err=True)
    return None


def code_of(phase: str | None) -> int:
    """The exit code of an end."""
    return TEMPORARY if phase is None else _CODES.get(phase, ERROR)


def _line(state: State) -> str:
    from notifiers import visible

    parts = [f"{state.id}: {state.phase}"]
    seats = state.members.get("seats")
    if state.phase == "pending" and isinstance(seats, dict):
        parts.append(f"{seats['filled']} of {seats['wanted']} seats filled")
    refusal, reason = state.members.get("refusal"), state.members.get("reason")
    if isinstance(refusal, str):
        parts.append(refusal)
    if isinstance(reason, str):
        parts.append(visible.prose(reason, 300))
    return ", ".join(parts)


def _tell_check(told: dict[str, JsonValue], *, as_json: bool, quiet: bool) -> int:
    from notifiers import visible

    effect = str(told["effect"])
    if as_json:
        _print_json(told)
    elif not quiet:
        typer.echo(_said(told))
        errors = told.get("errors")
        for each in errors if isinstance(errors, list) else ():
            if isinstance(each, dict):
                typer.echo(f"  {each['path']}: {visible.prose(str(each['message']), 300)}")
        caveats = told.get("caveats")
        for each in caveats if isinstance(caveats, list) else ():
            typer.echo(f"  note: {each}", err=True)
    return OK if effect in {"permit", "require_approval"} else DENIED


def _said(told: dict[str, JsonValue]) -> str:
    """What policy would say, in one line."""
    rules = told.get("rules")
    because = f" (rules: {', '.join(map(str, rules))})" if isinstance(rules, list) and rules else ""
    asked = told.get("requirement")
    match told["effect"]:
        case "require_approval" if isinstance(asked, dict):
            seats = "1 person" if asked["seats"] == 1 else f"{asked['seats']} people"
            return (
                f"policy would ask {seats}: assurance {asked['assurance']}, within "
                f"{asked['within']} s, risk {told.get('risk')}{because}"
            )
        case "permit":
            return f"policy would let it through without asking anybody, risk {told.get('risk')}{because}"
        case "refused":
            return f"it would be refused: {told.get('refusal')}: {told.get('reason')}"
        case _:
            return f"policy would deny it: {told.get('reason') or 'no reason'}{because}"


def _print_json(value: object) -> None:
    import json

    # ASCII: what a terminal would interpret is escaped.
    typer.echo(json.dumps(value, ensure_ascii=True))
