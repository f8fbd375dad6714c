"""`keyturn run ROLE`: one role in this process, until SIGTERM."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Run one role in this process, until SIGTERM.")
Folder = Annotated[
    Path | None, typer.Option("--dir", envvar="KEYTURN_DIR", help="The folder that `keyturn init` made.")
]


@app.command()
def intake(folder: Folder = None) -> None:
    """Verify, enrich and classify intents."""
    from broker.intake.process import run as main
    from streams import process
    from streams.realm import settings_for

    process.run("intake", settings_for(folder, "intake"), main)


@app.command()
def core(folder: Folder = None) -> None:
    """Decide: the transactional core."""
    from broker.core.process import run as main
    from streams import process
    from streams.realm import settings_for

    process.run("core", settings_for(folder, "core"), main)


@app.command()
def executor(
    name: Annotated[str, typer.Argument(help="Which executor: `s3`, or an installed plugin's name.")],
    folder: Folder = None,
) -> None:
    """Plan and act, for one executor."""
    from functools import partial

    from executors.process import run as main
    from streams import process
    from streams.realm import settings_for

    process.run(f"executor-{name}", settings_for(folder, f"executor-{name}"), partial(main, name))


@app.command()
def api(folder: Folder = None) -> None:
    """Serve the approvers' HTTP API."""
    from notifiers.api.process import run_role
    from streams import process
    from streams.realm import settings_for

    process.run("api", settings_for(folder, "notifier-api"), run_role)
