from hypothesis import given
from hypothesis import strategies as st

from schemas import circle, examples
from schemas.records import Intent, Subject
from schemas.snapshots import Agent, Directory, Person

PEOPLE = ("a", "b", "c", "d", "e")


def person(name: str, *delegates: str) -> Person:
    return Person(id=name, name=name, delegates=delegates)


def directory(version: int = 1, **delegates: tuple[str, ...]) -> Directory:
    people = tuple(person(name, *delegates.get(name, ())) for name in PEOPLE)
    return Directory(
        version=version,
        previous=None if version == 1 else "0" * 64,
        persons=people,
        agents=(Agent(id="export-bot", owners=("a",), users=("b", "c")),),
    )


def asked(on_behalf_of: str | None = None, subject: Subject | None = None) -> Intent:
    context = examples.INTENT.context.model_copy(update={"on_behalf_of": on_behalf_of})
    changed = {"context": context} | ({"subject": subject} if subject else {})
    return examples.INTENT.model_copy(update=changed)


def test_without_a_verified_person_every_user_and_owner_of_the_agent_stands_behind_it() -> None:
    assert circle.circle_in(asked(), directory(), is_verified=False) == {"a", "b", "c"}


def test_a_claim_to_act_for_somebody_only_widens_the_circle() -> None:
    assert circle.circle_in(asked("d"), directory(), is_verified=False) == {"a", "b", "c", "d"}


def test_a_verified_person_takes_the_place_of_the_users_and_the_owners_stay() -> None:
    assert circle.circle_in(asked("b"), directory(), is_verified=True) == {"a", "b"}


def test_a_verified_nobody_is_no_person() -> None:
    assert circle.circle_in(asked(None), directory(), is_verified=True) == {"a", "b", "c"}


def test_a_person_who_asks_stands_in_the_circle_with_delegates_and_theirs() -> None:
    intent = asked(subject=Subject(type="person", id="d"))
    assert circle.circle_in(intent, directory(d=("e",), e=("a",)), is_verified=True) == {"d", "e", "a"}


def test_delegates_in_a_ring_are_each_found_once() -> None:
    intent = asked(subject=Subject(type="person", id="a"))
    assert circle.circle_in(intent, directory(a=("b",), b=("a",)), is_verified=True) == {"a", "b"}


def test_an_agent_nobody_registered_has_only_whom_it_names() -> None:
    empty = Directory(version=1, persons=(person("d"),))
    assert circle.circle_in(asked("d"), empty, is_verified=False) == {"d"}


delegations = st.dictionaries(st.sampled_from(PEOPLE), st.lists(st.sampled_from(PEOPLE), max_size=3).map(tuple))


@given(st.lists(delegations, min_size=1, max_size=4), st.sampled_from([None, *PEOPLE]), st.booleans())
def test_nobody_leaves_the_circle_between_two_directories(
    versions: list[dict[str, tuple[str, ...]]], on_behalf_of: str | None, is_verified: bool
) -> None:
    directories = [directory(number, **each) for number, each in enumerate(versions, start=1)]
    intent = asked(on_behalf_of)
    whole = circle.circle_over(intent, directories, is_verified=is_verified)
    for each in directories:
        assert circle.circle_in(intent, each, is_verified=is_verified) <= whole
    # Whoever stands in it brings their delegates along.
    newest = {one.id: one.delegates for one in directories[-1].persons}
    inside = circle.circle_in(intent, directories[-1], is_verified=is_verified)
    assert all(set(newest[name]) <= inside for name in inside)
