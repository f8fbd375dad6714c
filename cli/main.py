"""The `keyturn` command. A word is looked up in one table, and only its module is imported: help is quick.

Before any command runs, every room of the house must be ours: some of their names are other people's packages too,
and a stranger's `schemas` beside our `broker` would be believed.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Protocol, cast

import typer

DISTRIBUTION: Final = "keyturn-broker"
TEMPORARY: Final = 75  # EX_TEMPFAIL of sysexits.h
LATER: Final = frozenset({"KafkaAbsentError"})
"""Errors that may be gone the next time. By name: the room of streams is imported by the commands that need it."""
COMPLETION: Final = "_KEYTURN_COMPLETE"
ROOMS: Final = ("schemas", "streams", "broker", "executors", "notifiers", "gateway", "auditors", "cli", "sandbox")


class StrangerError(Exception):
    """A package of another distribution lies where one of ours should."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A module of commands, and what its words are for."""

    module: str
    words: dict[str, str] = field(default_factory=dict)
    #: The module has `app`, mounted under its one word; otherwise it has `register(root)`.
    is_noun: bool = False


MOUNTS: Final = (
    Mount("cli.init", {"init": "Make a realm's keys, passwords, settings and a first directory."}),
    Mount("cli.topics", {"topics": "What Kafka must hold: plan, apply, check."}, is_noun=True),
    Mount(
        "cli.documents",
        {
            "directory": "Who there is: persons, agents, groups, keys.",
            "roster": "Who is in the synced groups, and on call when.",
            "policy": "What needs whose yes.",
            "manifest": "What the executors can do.",
        },
    ),
    Mount(
        "cli.approvals",
        {
            "ls": "What waits for people.",
            "show": "One intent in full.",
            "approve": "Say yes to exactly what is shown.",
            "deny": "Say no.",
            "revoke": "Take your own yes back.",
            "watch": "Follow what waits.",
            "resolve": "Say what became of an unknown outcome.",
        },
    ),
    Mount("cli.submit", {"submit": "Ask for something to be done."}),
    Mount("cli.withdraw", {"withdraw": "Take an intent back."}),
    Mount("cli.audit", {"audit": "Follow, show, verify and export the trail."}, is_noun=True),
    Mount("cli.quarantine", {"quarantine": "What could not be read: list it, show it, put it back."}, is_noun=True),
    Mount("cli.core", {"core": "Declare inputs lost, or the log put back; signed and audited."}, is_noun=True),
    Mount("cli.backup", {"backup": "Copy a realm's topics into a folder."}),
    Mount("cli.restore", {"restore": "Write a backup onto an empty Kafka."}),
    Mount("cli.run", {"run": "Run one role."}, is_noun=True),
    Mount("cli.up", {"up": "Run every role of a realm on this machine."}),
    Mount("cli.sandbox", {"sandbox": "A whole Keyturn on this machine, with a story."}, is_noun=True),
)


class _Noun(Protocol):
    app: typer.Typer


class _Verbs(Protocol):
    def register(self, root: typer.Typer) -> None: ...


# ---------------------------------------------------------------- the tree of commands


def root_for(words: Sequence[str]) -> typer.Typer:
    """The command tree for these arguments: the first word's module, or all words with their summaries for help."""
    root = typer.Typer(
        help="Nothing privileged runs until a person turns the key.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(_root)
    chosen = next((mount for mount in MOUNTS if words and words[0] in mount.words), None)
    for mount in MOUNTS if chosen is None else (chosen,):
        # Shell completion asks for the real tree; that may take its time.
        if mount is chosen or COMPLETION in os.environ:
            _mount(root, mount)
        else:
            for word, summary in mount.words.items():
                root.command(word, help=summary)(_announced)
    return root


def _mount(root: typer.Typer, mount: Mount) -> None:
    module = importlib.import_module(mount.module)
    if mount.is_noun:
        for word, summary in mount.words.items():
            root.add_typer(cast("_Noun", module).app, name=word, help=summary)
    else:
        cast("_Verbs", module).register(root)


def _announced() -> None:
    """Stands in help for a command whose module was not imported."""


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"keyturn {importlib.metadata.version(DISTRIBUTION)}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing privileged runs until a person turns the key."""


# ---------------------------------------------------------------- ours, and nobody else's


def require_own_rooms(home: Path, rooms: Sequence[str] = ROOMS) -> None:
    """StrangerError unless every room is imported from `home` and, in a wheel, belongs to our distribution alone."""
    for room in rooms:
        spec = importlib.util.find_spec(room)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / room:
            raise StrangerError(
                f"the package `{room}` is {found or 'not there'}, not {home / room}: another distribution uses its "
                f"name. Install {DISTRIBUTION} alone, in an environment of its own (pipx, uv tool, the image)"
            )
    if _is_wheel(home):
        owners = importlib.metadata.packages_distributions()
        for room in rooms:
            if (of := sorted(set(owners.get(room, ())))) != [DISTRIBUTION]:
                raise StrangerError(
                    f"the package `{room}` belongs to {', '.join(of) or 'nobody'}, not to {DISTRIBUTION} alone: files "
                    "may be mixed. Install it in an environment of its own (pipx, uv tool, the image)"
                )


def _is_wheel(home: Path) -> bool:
    """Whether our distribution was installed as files here; from a source tree there is nothing to compare."""
    try:
        placed = importlib.metadata.distribution(DISTRIBUTION).locate_file("cli")
    except importlib.metadata.PackageNotFoundError:
        return False
    return Path(str(placed)).resolve() == home / "cli"


# ---------------------------------------------------------------- running


def run() -> None:
    """The console script."""
    words = sys.argv[1:]
    # The client logs each attempt at a closed port; what matters reaches the reader as an error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        if not set(words) & {"-h", "--help", "--version"}:
            require_own_rooms(Path(__file__).resolve().parent.parent)
        root_for(words)(prog_name="keyturn")
    except Exception as exc:
        if os.environ.get("KEYTURN_DEBUG") == "1" or not _is_meant(exc):
            raise
        typer.echo(f"keyturn: {_said(exc)}", err=True)
        sys.exit(TEMPORARY if type(exc).__name__ in LATER else 1)


def _is_meant(error: Exception) -> bool:
    """Whether this is an error that somebody wrote for the reader: one of our rooms', or of settings."""
    kind = type(error)
    return (kind.__name__.endswith("Error") and kind.__module__.split(".")[0] in ROOMS) or bool(_wrong_settings(error))


def _said(error: Exception) -> str:
    text = "; ".join(_wrong_settings(error)) or str(error)
    # Nothing at all was said of where: whoever sits at a terminal has a folder, not twenty variables.
    is_nowhere = "KEYTURN_REALM: Field required" in text and "KEYTURN_KAFKA: Field required" in text
    return f"which realm? Name its folder: --dir DIR, or KEYTURN_DIR ({text})" if is_nowhere else text


def _wrong_settings(error: Exception) -> tuple[str, ...]:
    """What is wrong with the KEYTURN_… variables, if that is what this error is about; each by its name."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError) or not error.title.endswith("Settings"):
        return ()
    return tuple(
        f"{'_'.join(['KEYTURN', *map(str, found['loc'])]).upper()}: {found['msg']}"
        for found in error.errors(include_url=False, include_input=False)
    )
