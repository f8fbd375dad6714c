"""How sure we are who clicked, derived from evidence and never claimed. No I/O, no clock: the log time is given."""

from typing import Final

from schemas.records import Assurance, Decision, Evidence, Resolution
from schemas.snapshots import Key

FRESH_LOGIN_MS: Final = 60 * 60 * 1000
"""A login older than this, at the log time of the decision, is no more than what the channel says."""
CLOCK_SKEW_MS: Final = 30 * 1000

ORDER: Final = (Assurance.CHANNEL, Assurance.IDENTITY, Assurance.PERSON)


def rank(assurance: Assurance) -> int:
    """Rising order, from 0."""
    return ORDER.index(assurance)


def derive(evidence: Evidence, log_time: int) -> Assurance:
    """What this evidence is worth at the log time of its decision.

    An OIDC login counts as `identity` while it is fresh (OpenID Connect Core 1.0, `auth_time`). `person` needs an
    assertion that anyone can verify again, which no channel of today carries: nothing derives it.
    """
    if evidence.kind == "oidc" and evidence.auth_time is not None:
        age = log_time - evidence.auth_time * 1000
        if -CLOCK_SKEW_MS <= age <= FRESH_LOGIN_MS:
            return Assurance.IDENTITY
    return Assurance.CHANNEL


def vouched(decision: Decision | Resolution, key: Key, log_time: int) -> Assurance:
    """The assurance of a decision signed by `key`: never above what its channel may vouch for."""
    cap = key.max_assurance or Assurance.CHANNEL
    return min(derive(decision.evidence, log_time), cap, key=rank)
