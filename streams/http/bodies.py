"""What a body says, read so that nobody could read it otherwise."""

import json

from schemas.canonical import Json


class AmbiguousError(ValueError):
    """The body is no JSON, or says something twice."""


def decoded(raw: bytes) -> Json:
    """The JSON value of a body. Of two members of one name most parsers keep the last; a proxy may have judged the
    first: so that is refused.
    """
    try:
        value: Json = json.loads(raw, object_pairs_hook=_members)
    except (ValueError, RecursionError) as exc:
        raise AmbiguousError(f"the body is not JSON: {exc}") from exc
    return value


def _members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members
