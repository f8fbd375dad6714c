"""`keyturn sandbox`: a whole Keyturn on this machine, with a story to try it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable

    from sandbox.folder import SandboxFolder
    from sandbox.jars import Progress
    from sandbox.standing import Standing
    from sandbox.world import SandboxWorld

app = typer.Typer(no_args_is_help=True)

Asking = Annotated[bool, typer.Option("--asking", help="For the gateway, where people ask; not for deciding.")]
Folder = Annotated[Path, typer.Option("--dir", envvar="KEYTURN_DIR", help="The sandbox's directory.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Leave it running, and return once it is ready.")]
ServicesOnly = Annotated[bool, typer.Option("--services-only", help="Kafka, S3 and the issuer; no roles.")]
WithAws = Annotated[bool, typer.Option("--aws", help="A local AWS too, and the executor for IAM.")]
HERE = Path(".keyturn")
LINES = 20
LINES_OF_EACH = 3
POLL_SECONDS = 0.2


class SandboxCommandError(Exception):
    """The command can't do what was asked; the text says what to do."""


# ---------------------------------------------------------------- up and down


@app.command()
def up(
    directory: Folder = HERE,
    *,
    detach: Detach = False,
    services_only: ServicesOnly = False,
    aws: WithAws = False,
) -> None:
    """Start everything; until Ctrl-C, or with --detach until `keyturn sandbox down`."""
    import asyncio

    from sandbox import jars

    cache = jars.cache_folder()
    if detach:
        asyncio.run(_fetched(cache.absolute() / "jars"))
        _detach(directory, services_only=services_only, aws=aws)
        return
    from sandbox.foreground import run_sandbox, until_told

    with _Download() as download:
        running = run_sandbox(
            directory,
            _say,
            has_roles=not services_only,
            has_aws=aws,
            cache=cache,
            progress=download.progress,
            summary=lambda world: _print_summary(world, directory, has_roles=not services_only, is_detached=False),
        )
        asyncio.run(until_told(running))


@app.command()
def down(directory: Folder = HERE) -> None:
    """Stop everything; the data are kept."""
    import asyncio

    from sandbox import standing

    pid = asyncio.run(standing.end(_folder(directory)))
    typer.echo(f"stopped (pid {pid} and its children)" if pid is not None else "nothing was running")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _folder(directory: Path) -> SandboxFolder:
    from sandbox.folder import SandboxFolder

    return SandboxFolder(directory.absolute())


async def _fetched(folder: Path) -> None:
    """Fetch Kafka here, where somebody sees it."""
    from sandbox import jars

    with _Download() as download:
        await jars.ensure(folder, progress=download.progress)


def _detach(directory: Path, *, services_only: bool, aws: bool) -> None:
    """Start the same command in a session of its own, and wait until it is ready."""
    import os
    import subprocess
    import time

    from sandbox import standing
    from sandbox.roles import keyturn

    folder = _folder(directory)
    folder.open()
    if (running := folder.running()) is not None:
        raise SandboxCommandError(
            f"the sandbox in {directory} already runs (pid {running.pid}): see `keyturn sandbox status`, or end it "
            "with `keyturn sandbox down`."
        )
    log = folder.places.logs / "sandbox.log"
    log.parent.mkdir(exist_ok=True, mode=0o700)
    with log.open("ab") as output:
        since = output.tell()
        more = [*(["--services-only"] if services_only else []), *(["--aws"] if aws else [])]
        child = subprocess.Popen(  # noqa: S603 - our own command
            keyturn("sandbox", "up", "--dir", str(folder.path), *more),
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _say("starting in the background")
    try:
        while (noted := standing.notes(folder)) is None or noted.pid != child.pid or not noted.is_ready:
            if child.poll() is not None:
                with log.open("rb") as file:
                    file.seek(since)
                    said = file.read().decode(errors="replace").strip()
                raise SandboxCommandError(f"it ended before it was ready (exit status {child.returncode}):\n{said}")
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        _end(child)
        raise
    _print_facts(folder, directory, has_roles=not services_only, is_detached=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    child.wait()


# ---------------------------------------------------------------- looking


@app.command()
def status(
    directory: Folder = HERE, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False
) -> None:
    """Show each service and role. Exit code 1 unless everything that should run is ready."""
    import asyncio
    import json

    from sandbox import standing

    folder = _folder(directory)
    found = asyncio.run(standing.look(folder))
    running = folder.running()
    noted = standing.notes(folder)
    if as_json:
        members = {
            "directory": str(folder.path),
            "pid": running.pid if running else None,
            "is_ready": noted is not None and noted.is_ready,
            "processes": standing.as_json(found),
        }
        typer.echo(json.dumps(members, indent=2))
    else:
        state = "is down" if running is None else f"runs, pid {running.pid}"
        typer.echo(f"the sandbox in {directory} {state}\n")
        typer.echo(_table(found))
    expected = noted.names if noted else ()
    if running is None or noted is None or any(not one.is_ready for one in found if one.name in expected):
        raise typer.Exit(1)


def _table(found: Iterable[Standing]) -> str:
    rows = [("NAME", "STATE", "PID", "PORT", "UP", "RESTARTS", "WAITS FOR")]
    rows += [
        (
            one.name,
            one.condition.value,
            str(one.pid or "-"),
            str(one.port or "-"),
            _duration(one.uptime_seconds),
            str(one.restarts),
            one.waits_for or "",
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="A service or role; all of them without it.")] = None,
    directory: Folder = HERE,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = None,
) -> None:
    """Show the end of the logs."""
    import time
    from contextlib import suppress

    from sandbox.standing import Tail

    folder = _folder(directory)
    folder.require()
    known = {path.stem: path for path in sorted(folder.places.logs.glob("*.log"))}
    if name is not None and name not in known:
        raise SandboxCommandError(f"there is no log of {name}; there are {', '.join(known) or 'none'}.")
    chosen = {name: known[name]} if name is not None else known
    count = lines if lines is not None else LINES if name is not None else LINES_OF_EACH
    tails = {each: Tail(path) for each, path in chosen.items()}
    for each, tail in tails.items():
        _print_lines(each, tail.last(count), is_alone=name is not None)
    with suppress(KeyboardInterrupt):
        while follow:
            for each, tail in tails.items():
                _print_lines(each, tail.more(), is_alone=name is not None)
            time.sleep(POLL_SECONDS)


def _print_lines(name: str, lines: Iterable[str], *, is_alone: bool) -> None:
    for line in lines:
        typer.echo(line if is_alone else f"{name:<12} {line}")


# ---------------------------------------------------------------- being somebody


@app.command()
def token(
    person: Annotated[str, typer.Argument(help="Who logs in: ana, ben, cho, dee or eli.")],
    directory: Folder = HERE,
    *,
    asking: Asking = False,
) -> None:
    """Log a person in and print the access token: for deciding, or with --asking for asking."""
    import asyncio

    from sandbox import world
    from sandbox.issuer import APPROVALS, GATEWAY

    folder = _folder(directory)
    folder.require()
    typer.echo(asyncio.run(world.log_in(folder, person, GATEWAY if asking else APPROVALS)))


@app.command()
def env(
    who: Annotated[str, typer.Argument(metavar="PERSON|ROLE", help="A person, the agent, or a role like core.")],
    directory: Folder = HERE,
    *,
    asking: Asking = False,
) -> None:
    """Print what to export to be a person (for deciding; for asking) or a role: eval "$(keyturn sandbox env cho)"."""
    import asyncio
    import shlex

    from sandbox import story, world
    from sandbox.folder import url
    from sandbox.issuer import GATEWAY

    folder = _folder(directory)
    folder.require()
    if asking:
        variables = {
            "KEYTURN_GATEWAY_URL": url(folder.ports().gateway),
            # A token is for one door: who asks can't answer with it.
            "KEYTURN_TOKEN": asyncio.run(world.log_in(folder, who, GATEWAY)),
        }
    elif any(who == person.id for person in story.PERSONS):
        variables = {
            "KEYTURN_API_URL": url(folder.ports().api),
            "KEYTURN_TOKEN": asyncio.run(world.log_in(folder, who)),
        }
    else:
        variables = folder.realm.environment(f"agent-{who}" if who == story.AGENT else who)
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


# ---------------------------------------------------------------- ending it


@app.command()
def reset(
    directory: Folder = HERE,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Stop everything and remove the directory, with the keys and all data in it."""
    import asyncio

    from sandbox import standing

    folder = _folder(directory)
    if not folder.is_ours:
        folder.require()
    if not yes:
        typer.confirm(f"Remove {folder.path} with everything in it?", abort=True, err=True)
    asyncio.run(standing.end(folder))
    standing.remove(folder)
    typer.echo(f"removed {folder.path}")


# ---------------------------------------------------------------- what people read


class _Download:
    """Shows the download of Kafka: a bar on a terminal, one line elsewhere. Nothing when there is none."""

    def __init__(self) -> None:
        self._show: Progress | None = None
        self._close: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def progress(self, done: int, total: int, received: int) -> None:
        """Show that so many jars of so many are there."""
        if self._show is None:
            self._show = self._bar(total) if _is_terminal() else self._line(total)
        self._show(done, total, received)
        if done == total:
            self._close()

    def _line(self, total: int) -> Progress:
        _say(f"fetching Kafka, {total} jars, once; they are kept for the next sandbox")
        return lambda _done, _total, _received: None

    def _bar(self, total: int) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        bar = Progress(
            TextColumn("fetching Kafka, once"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jars, {task.fields[megabytes]:.0f} MB"),
            console=Console(stderr=True),
            transient=True,
        )
        task = bar.add_task("fetch", total=total, megabytes=0.0)
        bar.start()
        self._close = bar.stop
        return lambda done, _total, received: bar.update(task, completed=done, megabytes=received / 1e6)


def _is_terminal() -> bool:
    import sys

    return sys.stderr.isatty()


def _print_summary(world: SandboxWorld, directory: Path, *, has_roles: bool, is_detached: bool) -> None:
    _print_facts(_folder(world.folder), directory, has_roles=has_roles, is_detached=is_detached)


def _print_facts(folder: SandboxFolder, directory: Path, *, has_roles: bool, is_detached: bool) -> None:
    """What runs where, and three things to try."""
    from sandbox import story
    from sandbox.folder import url

    ports = folder.ports()
    where = f" --dir {directory}" if directory != HERE else ""
    lines = [
        "",
        f"Keyturn runs in {directory}, realm {story.REALM}.",
        f"  Kafka          {folder.realm.realm().kafka}",
        f"  S3             {url(ports.s3)}",
        f"  issuer         {url(ports.issuer)}",
    ]
    if folder.has_aws:
        lines.append(f"  AWS            {url(folder.aws_port)}")
    if has_roles:
        lines += [f"  approvers' API {url(ports.api)}", f"  gateway        {url(ports.gateway)}"]
    lines += [
        "",
        "Next:",
        f"  keyturn sandbox status{where}",
        f'  eval "$(keyturn sandbox env cho{where})" && keyturn ls',
        f"  keyturn sandbox down{where}" if is_detached else "  Ctrl-C stops everything; the data are kept",
    ]
    if has_roles:
        lines += ["", "An agent asks, in Python; paste it into another terminal:", "", agent_snippet(directory)]
    typer.echo("\n".join(lines))


def agent_snippet(directory: Path) -> str:
    """A first intent, to be pasted; it runs as it stands."""
    from sandbox import story

    properties = {**story.EXPORT, "destination_prefix": "my-first-export/"}
    return "\n".join(
        [
            "python - <<'END'",
            "import keyturn",
            "",
            f"with keyturn.connect({str(directory)!r}) as client:",
            f'    intent = client.submit("s3.export", ("bucket", {story.CUSTOMERS!r}), {{',
            *(f"        {name!r}: {value!r}," for name, value in properties.items()),
            '    }, reason="the partner asked for it")',
            '    print("somebody on call decides on", intent.id)',
            "    print(intent.wait())",
            "END",
        ]
    )
