"""Values inside the canonical profile, and a few just outside it."""

import unicodedata
from typing import Any

from hypothesis import strategies as st

# The oracle stops one short of our profile: at the safe integers of RFC 7493. A vector holds the last one.
MAX_INT = 2**53 - 1

names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=24).map(
    lambda text: unicodedata.normalize("NFC", text)
)
leaves = st.booleans() | st.integers(-MAX_INT, MAX_INT) | texts
values: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(names, values, max_size=6)
