"""The command as an operator types it, in this process."""

import asyncio
from dataclasses import dataclass

from typer.testing import CliRunner

from cli.main import root_for
from sandbox.world import SandboxWorld
from tests.house import House


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    #: What `keyturn` would print as its error.
    error: str


async def keyturn(realm: House | SandboxWorld, *words: str) -> Said:
    """`keyturn WORDS --dir REALM`."""
    arguments = [*words, "--dir", str(realm.folder)]
    result = await asyncio.to_thread(CliRunner().invoke, root_for(arguments), arguments)
    is_meant = type(result.exception).__name__.endswith("Error")
    if result.exception is not None and not isinstance(result.exception, SystemExit) and not is_meant:
        raise result.exception
    return Said(result.exit_code, result.output, str(result.exception) if is_meant else "")
