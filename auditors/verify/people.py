"""Persons: whose account it is, who stands behind a requester, who may sit where, how sure we are. No I/O, no clock."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from .canonical import Members
from .shapes import ASSURANCES, Statement, maybe_text, maybe_whole, part, parts, text, whole
from .world import Directory, Roster

FRESH_LOGIN_MS: Final = 60 * 60 * 1000
CLOCK_SKEW_MS: Final = 30 * 1000
OPERATORS: Final[Members] = {"seats": [{"of": "group:operators", "count": 1}], "assurance": "identity"}
"""Who says what became of an act for which nobody was asked."""


# ---------------------------------------------------------------- law 2


def person_of(account: Members, directory: Directory) -> str | None:
    """The active person whose login this is."""
    person = directory.accounts.get((text(account, "provider"), text(account, "subject")))
    return person if person is not None and directory.persons[person].is_active else None


def decider(statement: Statement, directory: Directory) -> str | None:
    """The person whose word this is; nobody when the notifier named another than the directory does."""
    person = person_of(part(statement.body, "account"), directory)
    named = maybe_text(statement.body, "person")
    return person if named is None or named == person else None


def circle(intent: Members, directory: Directory, *, is_verified: bool) -> set[str]:
    """Everybody who stands behind this intent's requester, as one directory version has it.

    Whom the agent says it acts for; its owners; its registered users unless a checked token names whom it acts for;
    the person who asked; and the delegates of each, and theirs.
    """
    subject = part(intent, "subject")
    behind: set[str] = set()
    stated = maybe_text(part(intent, "context"), "on_behalf_of")
    if stated is not None:
        behind.add(stated)
    if text(subject, "type") == "person":
        behind.add(text(subject, "id"))
    elif (agent := directory.agents.get(text(subject, "id"))) is not None:
        behind |= agent.owners
        if not (stated is not None and is_verified):
            behind |= agent.users
    frontier = behind
    while frontier:
        frontier = {
            delegate
            for person in frontier
            if person in directory.persons
            for delegate in directory.persons[person].delegates
        } - behind
        behind = behind | frontier
    return behind


# ---------------------------------------------------------------- law 3


def places(requirement: Members) -> list[str]:
    """One entry a place to fill."""
    return [text(seat, "of") for seat in parts(requirement, "seats") for _ in range(whole(seat, "count"))]


def may_sit(person: str, of: str, directory: Directory, roster: Roster | None, log_time: int) -> bool:
    """Whether this person may take this seat: on call as of `log_time`, groups as the newest documents have them."""
    if person not in directory.persons or not directory.persons[person].is_active:
        return False
    kind, _, name = of.partition(":")
    if kind == "group" and name in directory.groups:
        group = directory.groups[name]
        if not group.is_synced:
            return person in group.members
        return roster is not None and person in roster.groups.get(name, frozenset())
    if kind == "oncall" and name in directory.rotas and roster is not None:
        return any(who == person and start <= log_time < end for who, start, end in roster.rotas.get(name, ()))
    return False


def sits_anywhere(person: str, wanted: Iterable[str], directory: Directory, roster: Roster | None, at: int) -> bool:
    """Whether there is any seat for this person."""
    return any(may_sit(person, of, directory, roster, at) for of in set(wanted))


def filled(wanted: Sequence[str], may: Mapping[str, Collection[str]]) -> int:
    """How many places distinct persons fill at most: a maximum matching, grown along alternating paths."""
    seated: dict[int, str] = {}
    for place in range(len(wanted)):
        came_from: dict[str, int] = {}
        queue, free = [place], None
        while queue and free is None:
            at = queue.pop(0)
            free = _reach(at, wanted[at], may, seated, came_from, queue)
        while free is not None:
            # Everybody on the path moves one place on; the last to move leaves `place`'s own path.
            at = came_from[free]
            seated[at], free = free, seated.get(at)
            if at == place:
                break
    return len(seated)


def _reach(
    at: int,
    of: str,
    may: Mapping[str, Collection[str]],
    seated: Mapping[int, str],
    came_from: dict[str, int],
    queue: list[int],
) -> str | None:
    """Somebody without a place who may sit here; of those who have one, their places are looked at next."""
    for person, seats in may.items():
        if of in seats and person not in came_from:
            came_from[person] = at
            held = next((index for index, sitting in seated.items() if sitting == person), None)
            if held is None:
                return person
            queue.append(held)
    return None


def is_at_least(requirement: Members, floor: Members) -> bool:
    """Whether `requirement` asks for no less than `floor`: seats, assurance, time."""
    counts = {text(seat, "of"): whole(seat, "count") for seat in parts(requirement, "seats")}
    return (
        all(counts.get(text(seat, "of"), 0) >= whole(seat, "count") for seat in parts(floor, "seats"))
        and ASSURANCES.index(text(requirement, "assurance")) >= ASSURANCES.index(text(floor, "assurance"))
        and whole(requirement, "within") <= whole(floor, "within")
    )


def reaches(statement: Statement, log_time: int, directory: Directory, requirement: Members) -> bool:
    """Whether we are as sure who said this as the requirement asks: what the evidence is worth at its log time.

    Never above what its channel, by this directory, may vouch for.
    """
    key = directory.keys.get(statement.keyid)
    evidence = part(statement.body, "evidence")
    worth = "channel"
    auth_time = maybe_whole(evidence, "auth_time")
    if text(evidence, "kind") == "oidc" and auth_time is not None:
        age = log_time - 1000 * auth_time
        if -CLOCK_SKEW_MS <= age <= FRESH_LOGIN_MS:
            worth = "identity"
    cap = key.max_assurance if key is not None and key.max_assurance is not None else "channel"
    reached = min(ASSURANCES.index(worth), ASSURANCES.index(cap))
    return reached >= ASSURANCES.index(text(requirement, "assurance"))
