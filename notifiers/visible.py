r"""Text whose every character can be seen. No I/O.

Whatever is not plainly visible is written `\u{HEX}`: bidi and control characters, invisible ones, look-alikes, blanks
that a reader would miss. Two different texts never look the same: the escape's own spelling is escaped too, a run is
counted (`\u{20 x40}`) and what is left out is counted (`\u{120 characters not shown}`).

An identifier passes U+0020 to U+007E only. Prose also passes accented Latin letters that are an ASCII letter and one
mark, and æ ø ß œ ł, so that "é" stays readable; every other script is written out, because a look-alike of another
script cannot be told from the letter it imitates (threat T6: nine characters are printable, not format characters,
and invisible all the same; a list of bad ones is never complete, a list of good ones is).
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

EMPTY: Final = r"\u{empty}"
_FIRST_ACCENTED: Final = 0xC0
_LAST_ACCENTED: Final = 0x17E
_LETTER_AND_MARK: Final = 2
_PLAIN_LETTERS: Final = frozenset("æÆøØßœŒłŁ")
_CUT: Final = re.compile(r"\\u\{[0-9]+ characters not shown\}")


def identifier(text: str, limit: int | None = None) -> str:
    """A name of a thing: ASCII as it is, everything else escaped."""
    return _shown(text, _is_ascii, limit)


def prose(text: str, limit: int | None = None) -> str:
    """Somebody's words: accented Latin letters pass too. Line breaks do not: words cannot draw a card of their own."""
    return _shown(text, _is_readable, limit)


def quoted(text: str, limit: int | None = None) -> str:
    """A text value as an identifier in quotes, so that `"5"` is not `5` and `"true"` not `true`."""
    return f'"{_shown(text, _is_ascii_but_quote, limit)}"' if text else '""'


def is_cut(shown: str) -> bool:
    """Whether something was left out of this shown text."""
    # Literal text cannot forge this: its backslash would have been escaped.
    return _CUT.search(shown) is not None


def _is_ascii(char: str) -> bool:
    return "!" <= char <= "~"


def _is_ascii_but_quote(char: str) -> bool:
    return char != '"' and _is_ascii(char)


def _is_readable(char: str) -> bool:
    if _is_ascii(char) or char in _PLAIN_LETTERS:
        return True
    if not _FIRST_ACCENTED <= ord(char) <= _LAST_ACCENTED:
        return False
    parts = unicodedata.normalize("NFD", char)
    return len(parts) == _LETTER_AND_MARK and parts[0].isascii() and parts[0].isalpha()


def _shown(text: str, passes: Callable[[str], bool], limit: int | None) -> str:
    if not text:
        return EMPTY
    shown: list[str] = []
    length = characters = 0
    for piece, covers in _pieces(text, passes):
        if limit is not None and length + len(piece) > limit:
            return "".join((*shown, rf"\u{{{len(text) - characters} characters not shown}}"))
        shown.append(piece)
        length += len(piece)
        characters += covers
    return "".join(shown)


def _pieces(text: str, passes: Callable[[str], bool]) -> Iterator[tuple[str, int]]:
    """(what is shown, how many characters it stands for)."""
    position = 0
    for char, run in groupby(text):
        count = sum(1 for _ in run)
        end = position + count
        if char == " ":
            is_between_words = count == 1 and position > 0 and end < len(text)
            yield (" " if is_between_words else _escape(char, count)), count
        elif char == "\\" and text.startswith("u{", end):
            # A backslash that would read as the start of an escape is itself escaped: one look, one text.
            yield from (("\\", 1) for _ in range(count - 1))
            yield _escape(char, 1), 1
        elif passes(char):
            yield from ((char, 1) for _ in range(count))
        else:
            yield _escape(char, count), count
        position = end


def _escape(char: str, count: int) -> str:
    times = f" x{count}" if count > 1 else ""
    return rf"\u{{{ord(char):X}{times}}}"
