"""`keyturn run ROLE`: one role in this process, until SIGTERM."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Run one role in this process, until SIGTERM.")
Folder = Annotated[
    Path | None, typer.Option("--dir", envvar="KEYTURN_DIR", help="The folder that `keyturn init` made.")
]


def _told(folder: Path | None, role: str) -> "Settings":
    """What the role is told: the folder's variables, those of this process's own environment first."""
    import os

    from streams.realm import RealmFolder, settings_for

    if folder is not None:
        # Some variables are a role's own (KEYTURN_INTAKE_…, KEYTURN_S3_…): it reads them itself.
        for name, value in RealmFolder(folder).environment(role).items():
            os.environ.setdefault(name, value)
    return settings_for(folder, role)


@app.command()
def intake(folder: Folder = None) -> None:
    """Verify, enrich and classify intents."""
    from broker.intake.process import run as main
    from streams import arrival, process

    process.run("intake", _told(folder, "intake"), arrival.once_there(main))


@app.command()
def core(folder: Folder = None) -> None:
    """Decide: the transactional core."""
    from broker.core.process import run as main
    from streams import arrival, process

    process.run("core", _told(folder, "core"), arrival.once_there(main))


@app.command()
def executor(
    name: Annotated[str, typer.Argument(help="Which executor: `s3`, or an installed plugin's name.")],
    folder: Folder = None,
) -> None:
    """Plan and act, for one executor."""
    from functools import partial

    from executors.process import run as main
    from streams import arrival, process

    process.run(f"executor-{name}", _told(folder, f"executor-{name}"), arrival.once_there(partial(main, name)))


@app.command()
def gateway(folder: Folder = None) -> None:
    """Let intents in over HTTP."""
    from gateway.process import run as main
    from streams import arrival, process

    process.run("gateway", _told(folder, "gateway"), arrival.once_there(main))


@app.command()
def api(folder: Folder = None) -> None:
    """Serve the approvers' HTTP API."""
    from notifiers.api.process import run_role
    from streams import arrival, process

    process.run("api", _told(folder, "notifier-api"), arrival.once_there(run_role))
