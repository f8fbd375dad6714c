"""From a verified account to a person, and what the core will probably say to that person. No I/O, no clock.

The notifier resolves and expects; the core resolves again and decides. What is found here is only ever a message:
a click of a known person goes to the core whatever is expected of it, so that the trail shows it (law 9). An account
that nobody has, or whose person is inactive, is nobody's word: it goes nowhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from schemas import assurance, circle, seats
from schemas.authority import vouches
from schemas.record import RecordError
from schemas.records import (
    FINAL,
    AccountRef,
    ClassifiedIntent,
    Decision,
    Intent,
    PendingApproval,
    Phase,
    Refusal,
    Requirement,
    Resolution,
    Verdict,
)
from schemas.snapshots import Directory, Key, Person
from schemas.world import World


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody we know, and why."""

    refusal: Refusal
    reason: str


def resolve(account: AccountRef, directory: Directory | None) -> Person | Unknown:
    """The person who has this account. Persons are compared from here on, never accounts (law 2)."""
    if directory is None:
        return Unknown(Refusal.STALE_WORLD, "there is no directory yet: nobody is known")
    for person in directory.persons:
        if account in person.accounts:
            if not person.is_active:
                return Unknown(Refusal.UNKNOWN_PERSON, f"{person.id} is not active in the directory")
            return person
    return Unknown(
        Refusal.UNKNOWN_PERSON,
        "no person of the directory has this account; an administrator can add it (`keyturn directory apply`)",
    )


def circle_of(row: PendingApproval, world: World) -> frozenset[str]:
    """The persons who stand behind the requester, as far as is known here: the row's, and the directory's of now."""
    if row.classified is None or world.directory is None:
        return frozenset(row.circle)
    try:
        signed = row.classified.read(ClassifiedIntent).intent
        intent = signed.read(Intent)
    except RecordError:
        return frozenset(row.circle)
    is_verified = world.authority.is_behalf_verified(signed)
    return circle.circle_in(intent, world.directory, is_verified=is_verified) | set(row.circle)


def requirement_of(row: PendingApproval) -> Requirement | None:
    """What must be fulfilled, if policy asks anybody."""
    return row.classification.requirement if row.classification else None


def seats_of(person: str, row: PendingApproval, world: World, now: int) -> tuple[str, ...]:
    """The kinds of seats of this row's requirement that the person may take now."""
    return _seats_in(requirement_of(row), person, world, now)


def _seats_in(requirement: Requirement | None, person: str, world: World, now: int) -> tuple[str, ...]:
    directory = world.directory
    if requirement is None or directory is None:
        return ()
    wanted = sorted(set(seats.places(requirement)))
    return tuple(of for of in wanted if seats.may_sit(person, of, directory, world.rosters, now))


def resolves_as(person: str, row: PendingApproval, world: World, now: int) -> tuple[str, ...]:
    """The kinds of seats by which the person may end an `unknown`: those asked for, or an operator's if none was."""
    return _seats_in(seats.of_resolution(requirement_of(row)), person, world, now)


def disqualified(row: PendingApproval, world: World) -> Mapping[str, Refusal]:
    """Persons whose yes would be refused for who they are, and why."""
    voted = {vote.person: Refusal.ALREADY_DECIDED for vote in row.votes}
    barred = dict.fromkeys(row.barred, Refusal.BARRED)
    return voted | barred | dict.fromkeys(circle_of(row, world), Refusal.SELF_APPROVAL)


def expected(
    row: PendingApproval | None, said: Decision | Resolution, world: World, key: Key | None, now: int
) -> Refusal | None:
    """The refusal to expect for these words at `now`, in the order in which the core looks; None: none is foreseen.

    `key` is the notifier's own, which caps the assurance it can vouch for.
    """
    if key is not None and not vouches(key, said.to_json()):
        # The core reads no further, and tells nobody.
        return Refusal.NOT_ENTITLED
    if row is None:
        return Refusal.UNKNOWN_INTENT
    if row.phase in FINAL:
        return Refusal.FINAL
    if (refusal := _misses(row, said)) is not None:
        return refusal
    person = resolve(said.account, world.directory)
    if isinstance(person, Unknown):
        return person.refusal
    asker = _Asker(person.id, world, key, now)
    refusals = _of_decision(row, said, asker) if isinstance(said, Decision) else _of_resolution(row, said, asker)
    return next(refusals, None)


def _misses(row: PendingApproval, said: Decision | Resolution) -> Refusal | None:
    """Whether it is about something other than what the row waits for."""
    if isinstance(said, Resolution):
        if row.phase is not Phase.UNKNOWN:
            return Refusal.WRONG_PHASE
        return None if row.grant is not None and said.grant == row.grant.digest else Refusal.WRONG_GRANT
    if row.phase not in _DECIDABLE or row.question is None:
        return Refusal.WRONG_PHASE
    return None if said.question == row.question.digest else Refusal.WRONG_QUESTION


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who clicks, in which world, when."""

    person: str
    world: World
    key: Key | None
    now: int

    def is_seated(self, row: PendingApproval) -> bool:
        return bool(seats_of(self.person, row, self.world, self.now))

    def is_behind(self, row: PendingApproval) -> bool:
        return self.person in circle_of(row, self.world)

    def is_assured(self, said: Decision | Resolution, requirement: Requirement | None) -> bool:
        if self.key is None or requirement is None:
            return False
        reached = assurance.vouched(said, self.key, self.now)
        return assurance.rank(reached) >= assurance.rank(requirement.assurance)


_DECIDABLE: Final = frozenset({Phase.PENDING, Phase.APPROVED, Phase.EXECUTING})


def _of_decision(row: PendingApproval, said: Decision, asker: _Asker) -> Iterator[Refusal]:
    has_said_yes = asker.person in {vote.person for vote in row.votes}
    match said.verdict:
        case Verdict.APPROVE:
            yield from _of_yes(row, said, asker, has_said_yes=has_said_yes)
        case Verdict.DENY:
            if not asker.is_behind(row) and not asker.is_seated(row):
                yield Refusal.NO_SEAT
        case Verdict.REVOKE:
            # A revoke that overtakes its own yes bars that yes: anybody may say it while people are asked.
            if not has_said_yes and row.phase is not Phase.PENDING:
                yield Refusal.NOTHING_TO_REVOKE


def _of_yes(row: PendingApproval, said: Decision, asker: _Asker, *, has_said_yes: bool) -> Iterator[Refusal]:
    requirement = requirement_of(row)
    if row.phase is not Phase.PENDING or requirement is None:
        yield Refusal.ALREADY_DECIDED
    if row.expires_at is None or asker.now >= row.expires_at:
        yield Refusal.LATE
    # Law 2, AC-5: before anything else about entitlement.
    if asker.is_behind(row):
        yield Refusal.SELF_APPROVAL
    if asker.person in row.barred:
        yield Refusal.BARRED
    if has_said_yes:
        yield Refusal.ALREADY_DECIDED
    if not asker.is_seated(row):
        yield Refusal.NO_SEAT
    if not asker.is_assured(said, requirement):
        yield Refusal.ASSURANCE_TOO_LOW


def _of_resolution(row: PendingApproval, said: Resolution, asker: _Asker) -> Iterator[Refusal]:
    if asker.is_behind(row):
        yield Refusal.SELF_APPROVAL
    resolvers = seats.of_resolution(requirement_of(row))
    if not _seats_in(resolvers, asker.person, asker.world, asker.now):
        yield Refusal.NO_SEAT
    if not asker.is_assured(said, resolvers):
        yield Refusal.ASSURANCE_TOO_LOW
