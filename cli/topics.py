"""`keyturn topics`: what Kafka must hold for a realm, examined, shown, mended."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streams.findings import Finding

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--dir", envvar="KEYTURN_DIR", help="The folder that `keyturn init` made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command("plan")
def plan(directory: Folder, *, as_json: AsJson = False) -> None:
    """Show what `apply` would do. Changes nothing."""
    from streams.administration import admin_of, examine

    found = [finding for finding in asyncio.run(examine(directory, admin_of(directory))) if not finding.is_ok]
    if as_json:
        _print_json(found)
        return
    for finding in found:
        typer.echo(str(finding.remedy) if finding.remedy else f"by hand: {finding.what}: {finding.detail}")
    if not found:
        typer.echo("nothing to do")


@app.command("apply")
def apply(
    directory: Folder,
    *,
    reset_passwords: Annotated[bool, typer.Option(help="Give every user the password of its file anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create what is missing and raise what differs. Never deletes, shrinks or takes a right away: it says so."""
    from streams import administration

    admin = administration.admin_of(directory)
    _report(asyncio.run(administration.apply(directory, admin, resets_passwords=reset_passwords)), as_json=as_json)


@app.command("check")
def check(directory: Folder, *, as_json: AsJson = False) -> None:
    """Compare Kafka with the realm, fact by fact. Exits 1 if one is wrong; superfluous rights are wrong too."""
    from streams.administration import admin_of, examine

    _report(asyncio.run(examine(directory, admin_of(directory))), as_json=as_json)


def _report(findings: Iterable["Finding"], *, as_json: bool) -> None:
    known = tuple(findings)
    if as_json:
        _print_json(known)
    else:
        for finding in known:
            typer.echo(str(finding))
    if not all(finding.is_ok for finding in known):
        raise typer.Exit(1)


def _print_json(findings: Iterable["Finding"]) -> None:
    facts = [
        {
            "verdict": finding.verdict.value,
            "what": finding.what,
            "detail": finding.detail,
            "remedy": str(finding.remedy) if finding.remedy else None,
        }
        for finding in findings
    ]
    typer.echo(json.dumps(facts, indent=2))
