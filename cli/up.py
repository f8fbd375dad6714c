"""`keyturn up`: every role of a realm on this machine, each a process of its own, until Ctrl-C."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Option("--dir", envvar="KEYTURN_DIR", help="The folder that `keyturn init` made.")]


def register(root: typer.Typer) -> None:
    """Mount on the root command."""
    root.command("up")(up)


def up(
    directory: Folder,
    only: Annotated[str, typer.Option(help="Only these roles, comma separated: intake, core, executor-s3, api.")] = "",
) -> None:
    """Run the roles of a realm, start again what dies, and stop all of them at SIGTERM or Ctrl-C."""
    import asyncio

    from sandbox.foreground import run_roles, until_told

    names = tuple(name for name in only.replace(" ", "").split(",") if name)
    asyncio.run(until_told(run_roles(directory, names, typer.echo)))
