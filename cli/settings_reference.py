"""`python -m cli.settings_reference`: docs/settings.md, from the settings models. `--check` says if it is old.

Every class of ours that reads `KEYTURN_…` variables is found by its base class, so that none is forgotten.
"""

import ast
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

HOME: Final = Path(__file__).resolve().parent.parent
PAGE: Final = HOME / "docs" / "settings.md"
ROOMS: Final = ("streams", "broker", "executors", "notifiers", "gateway", "cli")
EXECUTOR: Final = "executors.settings:ExecutorSettings"

HEAD: Final = """# Settings

Generated from the settings models by `make contract`; edit those, not this page.

Each role is told everything once, at its start, by `KEYTURN_…` variables; nothing reads the environment later, and no
setting turns a law off. `keyturn init` writes one `env/<role>.env` a role, `--dir DIR` reads it, and a variable of the
process's own environment wins. A setting that is missing or cannot be used ends the start, by name.

**Secrets come from files.** A secret `X` has a variant `X_FILE`: the path of a file that holds it, for Docker and
Kubernetes secrets. `init` writes only files. No command takes a secret as an argument, and no error and no log line
shows one: only its variable's name or its file's path.
"""

TAIL: Final = """
## Beside the settings

| variable | who reads it | says |
|---|---|---|
| `KEYTURN_DIR` | the `keyturn` command | the realm's folder, as `--dir` |
| `KEYTURN_DEBUG` | the `keyturn` command | `1`: errors with their traceback |
| `KEYTURN_CACHE` | the sandbox | where downloaded server programs are kept |
"""

SAYS: Final[dict[str, tuple[str, str]]] = {
    "region": ("name", "AWS region."),
    "endpoint": ("URL", "Another endpoint than AWS's own."),
    "access_key": ("text", "Who we are before a role is assumed; else whatever identity AWS's own environment gives."),
    "secret_key": ("secret", "Its secret; prefer the file."),
    "secret_key_file": ("path", "File that holds the secret key."),
    "read_role": ("ARN", "The role for planning and observing: reads only."),
    "export_role": ("ARN", "The role for `s3.export`; assumed only for a grant."),
    "delete_role": ("ARN", "The role for `s3.delete`; assumed only for a grant. Without it nothing is deleted."),
    "plan_role": ("ARN", "The role that leaves and takes away change sets; it must not be able to execute one."),
    "act_role": ("ARN", "The role that acts; assumed only for a grant."),
    "service_role": ("ARN", "What CloudFormation itself acts with."),
}
"""A plugin is handed plain text by name; what each name says stands here, and one without words is an error."""


def page() -> str:
    """The whole page."""
    sections = [_section(place) for place in sorted(classes(), key=_rank) if _prefix(place)]
    return "\n".join([HEAD, *sections, _plugins()]) + TAIL


def classes() -> Iterator[str]:
    """`module:Class` of every settings model of ours; one without a prefix stands with each that builds on it."""
    for room in ROOMS:
        for file in sorted((HOME / room).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            if "Settings" not in text:
                continue
            for node in ast.parse(text).body:
                bases = [base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name)]
                if isinstance(node, ast.ClassDef) and any(base.endswith("Settings") for base in bases):
                    yield f"{'.'.join(file.relative_to(HOME).with_suffix('').parts)}:{node.name}"
    yield EXECUTOR


def model_of(place: str) -> type[BaseModel]:
    """The class that `module:Class` names."""
    module, _, name = place.partition(":")
    model: type[BaseModel] = getattr(importlib.import_module(module), name)
    return model


def _prefix(place: str) -> str:
    if place == EXECUTOR:
        return "KEYTURN_EXECUTOR_"
    return str(model_of(place).model_config.get("env_prefix", ""))


def _rank(place: str) -> tuple[bool, str]:
    return (place != "streams.settings:Settings", _prefix(place) + place)


def _section(place: str) -> str:
    model, prefix = model_of(place), _prefix(place)
    room = place.partition(":")[0].rpartition(".")[0]
    who = "all roles" if place == "streams.settings:Settings" else f"`{room}`"
    lines = [f"## `{prefix}…`: {who}", "", (model.__doc__ or "").strip().splitlines()[0], ""]
    lines += ["| variable | form | default | says |", "|---|---|---|---|"]
    names = model.model_fields.keys()
    for name, info in model.model_fields.items():
        variable = prefix + name.upper()
        has_file = f"{name}_file" in names
        says = (info.description or "").replace("|", "\\|")
        if has_file:
            says += f" File variant: `{variable}_FILE`."
        lines.append(f"| `{variable}` | {_form(name, info)} | {_default(info)} | {says} |")
    return "\n".join([*lines, ""])


def _plugins() -> str:
    """What each executor of ours is told, by the name of its entry point."""
    lines = ["## `KEYTURN_<EXECUTOR>_…`: one executor's own", ""]
    lines += ["An executor's process hands its plugin what starts with the plugin's name.", ""]
    lines += ["| variable | form | default | says |", "|---|---|---|---|"]
    for name in ("s3", "iam", "infra"):
        if not (HOME / "executors" / name / "executor.py").is_file():
            continue
        module: Any = importlib.import_module(f"executors.{name}.executor")
        own = dict(getattr(module, "OWN", {"read_role": True, "act_role": True}))
        client: Any = importlib.import_module("executors.aws.client")
        for setting, needed in {**client.KNOWN, **own}.items():
            form, says = SAYS[setting]
            lines.append(
                f"| `KEYTURN_{name.upper()}_{setting.upper()}` | {form} | {'required' if needed else '-'} | {says} |"
            )
    return "\n".join([*lines, ""])


def _form(name: str, info: FieldInfo) -> str:
    kinds = [kind for kind in (get_args(info.annotation) or (info.annotation,)) if kind is not type(None)]
    kind = kinds[0]
    if get_origin(info.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(info.annotation))
    if kind is SecretStr:
        return "secret"
    if isinstance(kind, type) and issubclass(kind, Path):
        return "path"
    if kind is bool:
        return "`true`, `false`"
    if kind not in {int, float}:
        return "text"
    unit = next((unit for unit in ("seconds", "hours", "days") if name.endswith(unit)), None)
    unit = "milliseconds" if name.endswith("_ms") else unit
    unit = "port" if name in {"port", "health"} else unit or "number"
    return f"{unit}{_bounds(info)}"


def _bounds(info: FieldInfo) -> str:
    least = next((getattr(each, "ge", getattr(each, "gt", None)) for each in info.metadata if _has(each, "g")), None)
    most = next((getattr(each, "le", getattr(each, "lt", None)) for each in info.metadata if _has(each, "l")), None)
    if least is None and most is None:
        return ""
    return f", {least if least is not None else '…'} to {most if most is not None else '…'}"


def _has(each: object, start: str) -> bool:
    return hasattr(each, f"{start}e") or hasattr(each, f"{start}t")


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    if info.default is None:
        return "-"
    return f"`{str(info.default).lower() if isinstance(info.default, bool) else info.default}`"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with `--check` say whether it is as it would be written."""
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.stderr.write("docs/settings.md is not what the settings models say: run `make contract`\n")
        return 1
    sys.stdout.write("settings: docs/settings.md is current\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
