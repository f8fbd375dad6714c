"""A quorum is distinct persons in distinct seats (law 3): a bipartite matching, so the order of clicks can't jam it.

Who may sit where is read from the directory and from every roster version known; on-call seats as of the decision's
own log time. No I/O, no clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from schemas.records import Assurance, PendingApproval, Requirement, Seat
from schemas.snapshots import Directory, Roster

OPERATORS: Final = Requirement(
    seats=(Seat(of="group:operators", count=1),), assurance=Assurance.IDENTITY, within=24 * 3600
)
"""Who finds out about an act that policy permitted without people. `within` bounds nothing: an `unknown` waits."""


def of_resolution(requirement: Requirement | None) -> Requirement:
    """Whose word ends an `unknown`: anybody who could have been asked, or an operator where nobody was."""
    return requirement if requirement is not None else OPERATORS


def places(requirement: Requirement) -> tuple[str, ...]:
    """One entry a place to fill: `2 of sre` is twice `group:sre`."""
    return tuple(seat.of for seat in requirement.seats for _ in range(seat.count))


def may_sit(person: str, of: str, directory: Directory, rosters: Sequence[Roster], log_time: int) -> bool:
    """Whether `person` may take a seat `of` (`group:…`, `oncall:…`) at `log_time`.

    `rosters` are the versions known, oldest first; the newest counts. The directory says which groups and rotas a
    roster may fill at all. Unknown group, missing roster, inactive person: no (law 6).
    """
    if person not in directory.active_persons:
        return False
    kind, _, name = of.partition(":")
    if kind == "group":
        return person in _members(name, directory, rosters)
    if kind == "oncall":
        return name in directory.rotas and person in _on_call(name, rosters, log_time)
    return False


def _members(name: str, directory: Directory, rosters: Sequence[Roster]) -> tuple[str, ...]:
    for group in directory.groups:
        if group.id == name:
            if not group.is_synced:
                return group.members
            if rosters:
                for synced in rosters[-1].groups:
                    if synced.id == name:
                        return synced.members
    return ()


def _on_call(name: str, rosters: Sequence[Roster], log_time: int) -> frozenset[str]:
    if not rosters:
        return frozenset()
    return frozenset(
        shift.person
        for rota in rosters[-1].rotas
        if rota.id == name
        for shift in rota.shifts
        if shift.starts_at <= log_time < shift.ends_at
    )


def fill(open_places: Sequence[str], candidates: Mapping[str, Iterable[str]]) -> dict[int, str]:
    """A largest assignment of distinct persons to places: place index -> person.

    `candidates`: for each person, the places (by `of`) that person may take. Augmenting paths (Kuhn, 1955); persons
    and places are tried in a fixed order, so the same inputs give the same seats.
    """
    seated: dict[int, str] = {}
    may = {person: frozenset(of) for person, of in candidates.items()}

    def seat(person: str, tried: set[int]) -> bool:
        for index, of in enumerate(open_places):
            if of in may[person] and index not in tried:
                tried.add(index)
                if index not in seated or seat(seated[index], tried):
                    seated[index] = person
                    return True
        return False

    for person in sorted(may):
        seat(person, set())
    return seated


def is_filled(requirement: Requirement, candidates: Mapping[str, Iterable[str]]) -> bool:
    """Whether these persons fill every place. A requirement without places is never filled (law 6)."""
    wanted = places(requirement)
    return bool(wanted) and len(fill(wanted, candidates)) == len(wanted)


def seated(row: PendingApproval, directory: Directory, rosters: Sequence[Roster]) -> dict[int, str]:
    """Who sits where by the yeses so far: place index -> person. For showing; the core judges for itself."""
    requirement = row.classification.requirement if row.classification else None
    if requirement is None:
        return {}
    wanted = places(requirement)
    candidates = {
        vote.person: [of for of in wanted if may_sit(vote.person, of, directory, rosters, vote.log_time)]
        for vote in row.votes
        # Law 2: who came into the circle since does not count.
        if vote.person not in row.circle
    }
    return fill(wanted, candidates)


def combine(first: Iterable[Seat], second: Iterable[Seat]) -> tuple[Seat, ...]:
    """The union of two sets of seats: of each group the larger count. A rule can only tighten."""
    counts: dict[str, int] = {}
    for seat in (*first, *second):
        counts[seat.of] = max(counts.get(seat.of, 0), seat.count)
    return tuple(Seat(of=of, count=counts[of]) for of in sorted(counts))
