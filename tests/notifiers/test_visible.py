"""Text hygiene: what is shown is unambiguous and in a fixed alphabet."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifiers import visible
from schemas.record import INVISIBLE

SHOWN = frozenset(map(chr, range(0x20, 0x7F)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(
    " \\u{20}x5A\u200b\u202eé", max_size=30
)


def read_back(shown: str) -> str:
    """What a careful reader would write down again."""
    if shown == visible.EMPTY:
        return ""

    def one(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) * int(match[2] or 1)

    return re.sub(r"\\u\{([0-9A-F]+)(?: x([0-9]+))?\}", one, shown)


@given(TEXTS)
def test_every_text_can_be_read_back_so_no_two_look_the_same(text: str) -> None:
    assert read_back(visible.identifier(text)) == text
    assert read_back(visible.prose(text)) == text


@given(TEXTS)
def test_an_identifier_is_shown_in_printable_ascii_alone(text: str) -> None:
    assert set(visible.identifier(text)) <= SHOWN
    assert set(visible.quoted(text)) <= SHOWN


@given(TEXTS)
def test_prose_adds_nothing_but_accented_latin_letters(text: str) -> None:
    assert all(char in SHOWN or (char.isalpha() and ord(char) <= 0x17E) for char in visible.prose(text))


@given(TEXTS)
def test_a_quoted_text_ends_where_its_quote_ends(text: str) -> None:
    shown = visible.quoted(text)
    assert shown[0] == shown[-1] == '"'
    assert '"' not in shown[1:-1]


@pytest.mark.parametrize(
    "char", [*sorted(INVISIBLE)[:12], "\u202e", "\u200b", "\u2066", "\u00ad", "\x1b", "\n", "\u00a0", "\u0430"]
)
def test_what_cannot_be_seen_or_imitates_is_written_out(char: str) -> None:
    assert visible.prose(f"a{char}b") == rf"a\u{{{ord(char):X}}}b"


def test_runs_of_blanks_are_counted_and_blanks_at_the_edge_are_shown() -> None:
    assert visible.prose("rm    -rf /") == r"rm\u{20 x4}-rf /"
    assert visible.prose("prod ") == r"prod\u{20}"
    assert visible.prose("two words") == "two words"


def test_e_acute_stays_readable_and_a_forged_escape_does_not_pass() -> None:
    assert visible.prose("déjà vu à Łódź, straße") == "déjà vu à Łódź, straße"
    assert visible.prose(r"\u{41}") == r"\u{5C}u{41}"
    assert visible.identifier(r"C:\users") == r"C:\users"


@given(st.text(st.characters(codec="ascii"), min_size=1, max_size=80), st.integers(1, 40))
def test_what_does_not_fit_is_counted(text: str, limit: int) -> None:
    shown = visible.prose(text, limit)
    whole = visible.prose(text)
    if len(whole) <= limit:
        assert shown == whole
        assert not visible.is_cut(shown)
    else:
        assert visible.is_cut(shown)
        match = re.search(r"\\u\{([0-9]+) characters not shown\}$", shown)
        assert match
        assert len(read_back(shown[: match.start()])) + int(match[1]) == len(text)


def test_an_agent_cannot_say_that_something_is_not_shown() -> None:
    assert not visible.is_cut(visible.prose(r"\u{5 characters not shown}"))
