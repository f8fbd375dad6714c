"""What is declared on the log says why, in words that a record can carry; what no role may say, a root key signs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from schemas.signing import Signer

RootKey = Annotated[
    Path | None, typer.Option("--root-key", help="The root key's file; by default keys/root.key of the folder.")
]


def reason_of(text: str) -> str:
    """The reason, as it will stand on the trail. BadParameter when it is none, or too long."""
    from schemas.record import PROSE_CHARACTERS

    reason = text.strip()
    if not 0 < len(reason) <= PROSE_CHARACTERS:
        raise typer.BadParameter(f"1 to {PROSE_CHARACTERS} characters", param_hint="--reason")
    return reason


def root_signer(file: Path | None, folder: Path | None) -> "Signer":
    """The root key in this file, or else in the realm's folder. BadParameter when neither is named."""
    from streams.settings import read_signer

    key = file or (folder / "keys" / "root.key" if folder is not None else None)
    if key is None:
        raise typer.BadParameter("without --dir it must be named", param_hint="--root-key")
    return read_signer(key)
