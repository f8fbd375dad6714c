"""What a person declares on the log: its reason, its key, and what the command says of the answers. No Kafka."""

import base64
from pathlib import Path

import pytest
import typer

from cli import core
from cli.declaring import reason_of, root_signer
from schemas.record import PROSE_CHARACTERS


def test_a_reason_is_some_words_and_no_more_than_a_record_carries() -> None:
    assert reason_of("  broker 2 lost its disk \n") == "broker 2 lost its disk"
    assert reason_of("x" * PROSE_CHARACTERS)
    for text in ("", " \n", "x" * (PROSE_CHARACTERS + 1)):
        with pytest.raises(typer.BadParameter, match=f"1 to {PROSE_CHARACTERS} characters"):
            reason_of(text)


def test_the_root_key_is_the_named_one_before_the_folders_and_never_a_guess(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    named, kept = tmp_path / "offline.key", tmp_path / "keys" / "root.key"
    named.write_text(base64.b64encode(b"n" * 32).decode())
    kept.write_text(base64.b64encode(b"k" * 32).decode())
    assert root_signer(named, None).keyid == root_signer(named, tmp_path).keyid
    assert root_signer(None, tmp_path).keyid != root_signer(named, tmp_path).keyid
    with pytest.raises(typer.BadParameter, match="without --dir it must be named"):
        root_signer(None, None)


def answered(number: int, refusal: str | None = None, *, is_answered: bool = True) -> core.RestoreAnswered:
    return core.RestoreAnswered(number, 41, refusal, None, is_answered)


@pytest.mark.parametrize(
    ("done", "code"),
    [
        ((answered(0), answered(1, is_answered=False)), core.TRY_AGAIN),
        # A refusal is for good: trying again would not help.
        ((answered(0, "not_lost"), answered(1, is_answered=False)), 1),
    ],
)
def test_what_one_core_refused_or_did_not_hear_is_the_exit_code(
    done: tuple[core.RestoreAnswered, ...], code: int
) -> None:
    with pytest.raises(typer.Exit) as ended:
        core._tell(done, core._told_restored, as_json=False)
    assert ended.value.exit_code == code
    core._tell((answered(0),), core._told_restored, as_json=True)
