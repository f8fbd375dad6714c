"""`keyturn directory|roster|policy|manifest`: bring the next version into force, or show the one that is.

A policy comes into force only if it fits the manifests, and a manifest only if the policy still fits it; groups and
rotas a policy names must be in the directory. So the order is: directory, manifest, policy.
"""

import asyncio
import json
import time
from collections.abc import Coroutine
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from schemas.snapshots import Manifest, Snapshot
    from schemas.world import World
    from streams.documents import Applied

EXECUTORS = "keyturn.executors"

Folder = Annotated[
    Path | None,
    typer.Option("--dir", envvar="KEYTURN_DIR", help="The realm's folder; without it the KEYTURN_… variables count."),
]
Role = Annotated[str, typer.Option("--as", help="The role of that folder whose key signs and whose login writes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
ADMINISTRATION = "administration"


class DocumentError(Exception):
    """A document can't come into force, or isn't there; the text says why."""


def register(root: typer.Typer) -> None:
    """Mount the four nouns."""
    for noun, summary, apply, show in (
        ("directory", "Who there is: persons, agents, groups, keys.", apply_directory, show_directory),
        ("roster", "Who is in the synced groups, and on call when.", apply_roster, show_roster),
        ("policy", "What needs whose yes.", apply_policy, show_policy),
        ("manifest", "What the executors can do.", apply_manifest, show_manifest),
    ):
        app = typer.Typer(no_args_is_help=True)
        app.command("apply")(apply)
        app.command("show")(show)
        root.add_typer(app, name=noun, help=summary)


# ---------------------------------------------------------------- apply


def apply_directory(
    file: Annotated[Path, typer.Argument(help="YAML: persons, agents, groups, rotas, keys.")],
    directory: Folder = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make FILE the next version of the directory, signed with the root key. Keys it leaves out are retired."""
    from streams import documents
    from streams.realm import settings_for

    _report(documents.apply_directory(settings_for(directory, ADMINISTRATION), file, _now()), as_json=as_json)


def apply_roster(
    file: Annotated[Path, typer.Argument(help="YAML: groups with members, rotas with shifts in RFC 3339.")],
    directory: Folder = None,
    role: Role = ADMINISTRATION,
    *,
    as_json: AsJson = False,
) -> None:
    """Make FILE the next version of the roster. `--as roster` signs with the key of the sync."""
    from streams import documents
    from streams.realm import settings_for

    _report(documents.apply_roster(settings_for(directory, role), file, _now()), as_json=as_json)


def apply_policy(
    files: Annotated[list[Path], typer.Argument(help="Cedar files; together they are the whole policy.")],
    directory: Folder = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make FILES the next version of the policies, if they fit the manifests and the directory in force."""
    from streams import documents
    from streams.realm import settings_for

    settings = settings_for(directory, ADMINISTRATION)
    _report(documents.apply_policies(settings, files, _now(), require_fit), as_json=as_json)


def apply_manifest(directory: Folder = None, *, as_json: AsJson = False) -> None:
    """Make the manifests of all installed executors the next version, if the policies in force still fit."""
    from streams import documents
    from streams.realm import settings_for

    settings = settings_for(directory, ADMINISTRATION)
    _report(documents.apply_manifests(settings, installed(), _now(), require_fit), as_json=as_json)


def installed() -> tuple["Manifest", ...]:
    """The manifests of all installed executors."""
    from executors.contract import Plugin

    manifests = []
    for entry in entry_points(group=EXECUTORS):
        plugin = entry.load()
        if not isinstance(plugin, Plugin):
            raise DocumentError(f"{entry.value}: the entry point {EXECUTORS} must name an executors.contract.Plugin")
        manifests.append(plugin.manifest)
    if not manifests:
        raise DocumentError(f"no executor is installed: nothing offers the entry point {EXECUTORS}")
    return tuple(manifests)


def require_fit(world: "World") -> None:
    """The policies must parse against the manifests, and name only groups and rotas that the directory has."""
    from schemas import policy

    if world.policies is None:
        return
    if world.manifests is None:
        raise DocumentError("there are no manifests yet to check the policy against: `keyturn manifest apply` first")
    book = policy.rulebook(world.policies, world.manifests)
    places: set[str] = set()
    if (known := world.directory) is not None:
        places = {f"group:{group.id}" for group in known.groups} | {f"oncall:{rota}" for rota in known.rotas}
    for obligation in book.obligations.values():
        if unknown := sorted({seat.of for seat in obligation.seats} - places):
            raise DocumentError(
                f'@id("{obligation.rule}"): {", ".join(unknown)} is not in the directory, so nobody could say yes; '
                "`keyturn directory apply` first"
            )


def _report(applying: Coroutine[object, object, "Applied"], *, as_json: bool) -> None:
    applied = asyncio.run(applying)
    if as_json:
        members = {"document": applied.document, "version": applied.version, "digest": applied.digest}
        told = {"is_new": applied.is_new, "changes": applied.changes, "gaps": applied.gaps}
        typer.echo(json.dumps(members | told, indent=2))
        return
    if applied.is_new:
        typer.echo(f"{applied.document}: version {applied.version} is in force  {applied.digest}")
    else:
        typer.echo(f"{applied.document}: no change; version {applied.version} stays in force  {applied.digest}")
    for line in applied.changes:
        typer.echo(f"  {line}")
    for gap in applied.gaps:
        typer.echo(f"  still empty: {gap}", err=True)


def _now() -> int:
    return time.time_ns() // 1_000_000


# ---------------------------------------------------------------- show


def show_directory(directory: Folder = None, *, as_json: AsJson = False) -> None:
    """Print the directory in force."""
    from schemas.snapshots import Directory

    _show(directory, Directory, as_json=as_json)


def show_roster(directory: Folder = None, *, as_json: AsJson = False) -> None:
    """Print the roster in force."""
    from schemas.snapshots import Roster

    _show(directory, Roster, as_json=as_json)


def show_policy(directory: Folder = None, *, as_json: AsJson = False) -> None:
    """Print the policies in force."""
    from schemas.snapshots import Policies

    _show(directory, Policies, as_json=as_json)


def show_manifest(directory: Folder = None, *, as_json: AsJson = False) -> None:
    """Print the manifests in force."""
    from schemas.snapshots import Manifests

    _show(directory, Manifests, as_json=as_json)


def _show(directory: Path | None, kind: type["Snapshot"], *, as_json: bool) -> None:
    from streams import documents
    from streams.realm import settings_for

    world = asyncio.run(documents.read_world(settings_for(directory, ADMINISTRATION)))
    found, digest = documents.in_force(world, kind)
    noun = documents.NOUNS[kind]
    if found is None:
        raise DocumentError(f"{noun}: there is none yet; `keyturn {noun} apply` makes the first")
    members = found.to_json()
    if as_json:
        typer.echo(json.dumps({"digest": digest, noun: members}, indent=2))
        return
    typer.echo(f"# {noun} version {found.version}  {digest}")
    if isinstance(text := members.get("cedar"), str):
        typer.echo(text, nl=False)
        return
    import yaml

    rest = {name: value for name, value in members.items() if name not in {"version", "previous"}}
    typer.echo(yaml.safe_dump(rest, sort_keys=False, allow_unicode=True, default_flow_style=None), nl=False)
