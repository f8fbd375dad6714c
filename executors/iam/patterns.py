"""What a policy's patterns mean: `*` is any text, `?` is one character, all else is itself. No backtracking. No I/O.

Whoever writes a policy writes its patterns, so the time that a match takes is bounded by the two lengths multiplied,
whatever stands in them; and an `Effort` bounds how many are ever made for one plan.
"""

from typing import Final

from executors.contract import ExecutorError

MAX_EFFORT: Final = 1_000_000
"""Comparisons in one plan: AdministratorAccess beside a dozen policies takes a third of them."""
MAX_PATTERN: Final = 2048
"""No ARN and no action is longer (IAM quotas)."""


class Effort:
    """What one plan may still cost."""

    def __init__(self, left: int = MAX_EFFORT) -> None:
        """`left`: comparisons."""
        self._left = left

    def spend(self, comparisons: int) -> None:
        """Take so many. ExecutorError when there are not so many left: there is no plan then."""
        self._left -= comparisons
        if self._left < 0:
            raise ExecutorError(
                "the policies of this identity have too many wildcards and resources to be compared; "
                "attach a policy that says more plainly what it allows"
            )


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is one of the texts that `pattern` means. Each part between stars is sought once, leftmost."""
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(text) and _stands(first, text, 0)
    *middle, last = rest
    at, end = len(first), len(text) - len(last)
    if at > end or not _stands(first, text, 0) or not _stands(last, text, end):
        return False
    for part in middle:
        found = _place(part, text, at, end)
        if found is None:
            return False
        at = found + len(part)
    return True


def _stands(part: str, text: str, at: int) -> bool:
    """Whether this part, which has no star, stands at this place; `text` is long enough."""
    if "?" not in part:
        return text.startswith(part, at)
    return all(char in {"?", text[at + number]} for number, char in enumerate(part))


def _place(part: str, text: str, at: int, end: int) -> int | None:
    """The first place from `at` where the part stands and is over before `end`."""
    if "?" not in part:
        found = text.find(part, at, end)
        return found if found >= 0 else None
    return next((place for place in range(at, end - len(part) + 1) if _stands(part, text, place)), None)


def cost(pattern: str, text: str) -> int:
    """What comparing these takes, in comparisons of an action's length."""
    # A part with a question mark is compared character by character.
    return (20 if "?" in pattern else 1) + len(pattern) * len(text) // 1024
