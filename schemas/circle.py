"""Nobody approves for themselves (law 2): the persons who stand behind a requester. No I/O, no clock.

Persons are compared, never accounts. The circle is the union over every directory version from the one in force at the
asking to the one in force now, so that nobody can leave it in between, not even while intake is behind. There is no
exemption and no setting.
"""

from collections.abc import Iterable

from schemas.records import Intent
from schemas.snapshots import Directory


def circle_in(intent: Intent, directory: Directory, *, is_verified: bool) -> frozenset[str]:
    """The circle as one directory version has it.

    The person the agent acts for, if a verified token says so (`is_verified`: the gateway signed); otherwise every
    registered user of the agent, and whom the agent *says* it acts for. The agent's owners. Their delegates, and
    theirs. Any person who asked.
    """
    persons: set[str] = set()
    stated = intent.context.on_behalf_of
    if stated is not None:
        persons.add(stated)
    if intent.subject.type == "person":
        persons.add(intent.subject.id)
    else:
        for agent in directory.agents:
            if agent.id == intent.subject.id:
                persons.update(agent.owners)
                if stated is None or not is_verified:
                    persons.update(agent.users)
    return frozenset(_with_delegates(persons, directory))


def circle_over(intent: Intent, directories: Iterable[Directory], *, is_verified: bool) -> frozenset[str]:
    """The union over these directory versions."""
    persons: frozenset[str] = frozenset()
    for directory in directories:
        persons |= circle_in(intent, directory, is_verified=is_verified)
    return persons


def _with_delegates(persons: set[str], directory: Directory) -> set[str]:
    delegates = {person.id: person.delegates for person in directory.persons}
    reached: set[str] = set()
    waiting = list(persons)
    while waiting:
        person = waiting.pop()
        if person not in reached:
            reached.add(person)
            waiting.extend(delegates.get(person, ()))
    return reached
