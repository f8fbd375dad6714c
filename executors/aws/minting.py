"""A session for one grant, that dies before its lease (law 5), or none.

No provider's session is shorter than 15 minutes, so what ends it is the date in its policy; a provider may overlook
that (or the policy), and nothing in its answer would tell. So a twin is minted whose date has passed and that is
otherwise the same: only where the twin is refused is the session believed.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from executors.aws import sessions
from executors.aws.client import Aws, Credentials, ProviderError
from executors.contract import Act, ActFailedError


@dataclass(frozen=True, slots=True)
class Minted:
    """What a grant is acted upon with."""

    credentials: Credentials
    #: From the mint's clock to the deadline: no call may wait longer for its answer.
    seconds_left: float


async def mint(
    aws: Aws,
    role: str,
    act: Act,
    now: int,
    policy: Callable[[datetime], str],
    is_refused: Callable[[Credentials], Awaitable[bool]],
) -> Minted:
    """A session of `role` cut by `policy`, which is given the instant it must die at.

    `is_refused` makes a harmless call that the policy allows, and tells whether it was denied. ActFailedError, nothing
    done, when there is no session that surely dies in time.
    """
    dies_at = sessions.whole_seconds(act.deadline.credential_dies_at)
    left_ms = act.deadline.credential_dies_at - now
    if left_ms <= 0:
        raise ActFailedError("the deadline for minted credentials has passed; nothing was done")
    seconds = max(sessions.MIN_SECONDS, -(-left_ms // 1000) + 1)
    name = sessions.session_name(act.intent.id)
    past = sessions.whole_seconds(now - sessions.MIN_SECONDS * 1000)
    try:
        twin = await aws.assume_role(role, name, policy(past), seconds)
        if not await is_refused(twin):
            raise ActFailedError(
                "the provider does not honour a date in a session policy, so the credential would outlive its "
                "deadline; it was thrown away and nothing was done"
            )
        living = await aws.assume_role(role, name, policy(dies_at), seconds)
    except ProviderError as exc:
        raise ActFailedError(f"no session could be had: {exc}; nothing was done") from exc
    if living.expires_at is None or living.expires_at < dies_at:
        raise ActFailedError("the provider ends the session before the deadline; nothing was done")
    return Minted(living, max(1, left_ms / 1000))
