from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from schemas import examples, seats
from schemas.records import Assurance, Requirement, Seat
from schemas.snapshots import Directory, Group, Person, Roster, Rota, Shift

GROUPS = ("group:a", "group:b", "group:c")
PEOPLE = ("p", "q", "r", "s", "t")
wanted = st.lists(st.sampled_from(GROUPS), min_size=1, max_size=4)
candidates = st.dictionaries(st.sampled_from(PEOPLE), st.sets(st.sampled_from(GROUPS)), max_size=5)


def most_by_trying_everything(places: list[str], may: dict[str, set[str]]) -> int:
    """The largest number of places that distinct persons fill, by trying every order of persons."""
    padded = [*may, *["nobody"] * len(places)]
    return max(
        sum(person != "nobody" and of in may[person] for person, of in zip(order, places, strict=True))
        for order in set(permutations(padded, len(places)))
    )


@given(wanted, candidates)
def test_a_matching_is_as_large_as_any(places: list[str], may: dict[str, set[str]]) -> None:
    assert len(seats.fill(places, may)) == most_by_trying_everything(places, may)


@given(wanted, candidates)
def test_nobody_sits_twice_nor_where_they_may_not(places: list[str], may: dict[str, set[str]]) -> None:
    filled = seats.fill(places, may)
    assert len(set(filled.values())) == len(filled)
    assert all(places[index] in may[person] for index, person in filled.items())


@given(wanted, candidates, st.randoms())
def test_the_order_of_clicks_changes_nothing(places: list[str], may: dict[str, set[str]], random: object) -> None:
    shuffled = list(may)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert seats.fill(places, {person: may[person] for person in shuffled}) == seats.fill(places, may)


@given(wanted, candidates, st.sampled_from(PEOPLE), st.sets(st.sampled_from(GROUPS)))
def test_one_more_yes_never_loses_a_seat(
    places: list[str], may: dict[str, set[str]], person: str, of: set[str]
) -> None:
    more = may | {person: may.get(person, set()) | of}
    assert len(seats.fill(places, more)) >= len(seats.fill(places, may))


def test_two_of_sre_and_one_of_data_owners_are_three_places() -> None:
    requirement = Requirement(
        seats=(Seat(of="group:sre", count=2), Seat(of="group:data-owners", count=1)),
        assurance=Assurance.CHANNEL,
        within=60,
    )
    assert seats.places(requirement) == ("group:sre", "group:sre", "group:data-owners")
    both = {"ada": ["group:sre", "group:data-owners"], "grace": ["group:sre"], "linus": ["group:sre"]}
    assert seats.is_filled(requirement, both)
    assert not seats.is_filled(requirement, {name: both[name] for name in ("ada", "grace")})


def directory(**more: object) -> Directory:
    people = tuple(Person(id=name, name=name) for name in ("ada", "grace"))
    return Directory(version=1, persons=(*people, Person(id="gone", name="gone", is_active=False)), **more)  # type: ignore[arg-type]


def test_a_groups_members_are_the_directorys_unless_it_is_synced() -> None:
    listed = directory(groups=(Group(id="sre", members=("ada", "gone")), Group(id="dba", is_synced=True)))
    roster = Roster(version=1, groups=(Group(id="sre", members=("grace",)), Group(id="dba", members=("grace",))))
    assert seats.may_sit("ada", "group:sre", listed, [roster], 0)
    assert not seats.may_sit("grace", "group:sre", listed, [roster], 0), "only a synced group is filled by a roster"
    assert seats.may_sit("grace", "group:dba", listed, [roster], 0)
    assert not seats.may_sit("grace", "group:dba", listed, [], 0)
    assert not seats.may_sit("gone", "group:sre", listed, [roster], 0), "an inactive person has no seat"
    assert not seats.may_sit("stranger", "group:sre", listed, [roster], 0)
    assert not seats.may_sit("ada", "group:none", listed, [roster], 0)
    assert not seats.may_sit("grace", "group:dba", listed, [Roster(version=1)], 0), "a roster that says nothing of it"
    assert not seats.may_sit("ada", "everybody", listed, [roster], 0)


def test_on_call_is_as_of_the_decisions_own_log_time() -> None:
    listed = directory(rotas=("payments",))
    shifts = (Shift(person="ada", starts_at=100, ends_at=200),)
    roster = Roster(version=1, rotas=(Rota(id="payments", shifts=shifts), Rota(id="other", shifts=shifts)))
    sits = [seats.may_sit("ada", "oncall:payments", listed, [roster], at) for at in (99, 100, 199, 200)]
    assert sits == [False, True, True, False]
    assert not seats.may_sit("ada", "oncall:payments", listed, [], 150)
    assert not seats.may_sit("ada", "oncall:other", listed, [roster], 150), "a rota the directory does not list"


@given(st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(1, 4)), max_size=4), st.data())
def test_combining_rules_only_tightens(first: list[tuple[str, int]], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(1, 4)), max_size=4))
    one, other = ([Seat(of=of, count=count) for of, count in rules] for rules in (first, second))
    both = {seat.of: seat.count for seat in seats.combine(one, other)}
    assert all(both[seat.of] >= seat.count for seat in (*one, *other))
    assert seats.combine(one, other) == seats.combine(other, one)


def test_who_sits_where_is_shown_without_whoever_came_into_the_circle() -> None:
    row, directory = examples.ROW, examples.DIRECTORY
    rosters = (examples.ROSTER,)
    yes = [vote.person for vote in row.votes]
    assert yes
    shown = seats.seated(row, directory, rosters)
    assert set(shown.values()) <= set(yes)
    assert shown == seats.fill(
        seats.places(examples.REQUIREMENT),
        {
            vote.person: [
                of
                for of in seats.places(examples.REQUIREMENT)
                if seats.may_sit(vote.person, of, directory, rosters, vote.log_time)
            ]
            for vote in row.votes
        },
    )
    assert seats.seated(row.model_copy(update={"circle": tuple(yes)}), directory, rosters) == {}
    assert seats.seated(row.model_copy(update={"classification": None}), directory, rosters) == {}
