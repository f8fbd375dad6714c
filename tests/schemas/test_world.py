from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import examples
from schemas.record import Record, Statement, state
from schemas.records import Refusal
from schemas.snapshots import Directory, Group, Key, Manifests, Person, Policies, Roster, Snapshot
from schemas.world import SnapshotError, World

ROOT = examples.signer("root")
REALM = examples.REALM
NOW = examples.NOON
EMPTY = World(REALM, ((ROOT.keyid, ROOT.public),))
SYNC = examples.signer("roster")


def signed(record: Record, role: str = "root", realm: str = REALM) -> Statement:
    return state(record, examples.signer(role), realm)


def key(role: str, valid_until: int | None = None) -> Key:
    one = examples.signer(role)
    return Key(
        keyid=one.keyid,
        public=one.public,
        role="roster",
        holder="roster",
        valid_from=0,
        valid_until=valid_until,
    )


def directory(version: int = 1, previous: Directory | None = None, *keys: Key) -> Directory:
    return Directory(
        version=version,
        previous=previous.digest if previous else None,
        persons=(Person(id=f"p{version}", name="p"),),
        groups=(Group(id="dba", is_synced=True),),
        keys=keys,
    )


def refusal(world: World, statement: Statement, at: int = NOW) -> Refusal:
    with pytest.raises(SnapshotError) as caught:
        world.with_snapshot(statement, at)
    return caught.value.refusal


FIRST = directory()
SECOND = directory(2, FIRST)


def test_versions_come_into_force_one_after_the_other_and_all_stay_known() -> None:
    world = EMPTY.with_snapshot(signed(FIRST), NOW).with_snapshot(signed(SECOND), NOW)
    assert world.directory == SECOND
    assert world.versions.directory == 2
    assert tuple(world.directories_between(1, 2)) == (FIRST, SECOND)
    assert not world.is_complete


def test_a_world_is_complete_with_directory_policies_and_manifests() -> None:
    world = EMPTY
    for snapshot in (examples.DIRECTORY, examples.POLICIES, examples.MANIFESTS):
        world = world.with_snapshot(signed(snapshot), NOW)
    assert world.is_complete
    assert world.version_of(Policies) == world.version_of(Manifests) == 1


def test_a_version_left_out_said_again_or_rolled_back_is_stale() -> None:
    assert refusal(EMPTY, signed(SECOND)) is Refusal.STALE_WORLD
    after = EMPTY.with_snapshot(signed(FIRST), NOW)
    assert refusal(after, signed(FIRST)) is Refusal.STALE_WORLD


def test_a_version_with_another_predecessor_is_a_conflict() -> None:
    after = EMPTY.with_snapshot(signed(FIRST), NOW)
    fork = directory(2, FIRST.model_copy(update={"rotas": ("x",)}))
    assert refusal(after, signed(fork)) is Refusal.CONFLICT


@pytest.mark.parametrize("role", ["core", "intake", "gateway", "roster"])
@pytest.mark.parametrize("snapshot", [FIRST, examples.POLICIES, examples.MANIFESTS], ids=lambda one: one.TYPE)
def test_only_a_pinned_root_key_signs_what_everything_rests_on(role: str, snapshot: Snapshot) -> None:
    assert refusal(EMPTY, signed(snapshot, role)) is Refusal.BAD_SIGNATURE


def test_a_directory_cannot_make_itself_root() -> None:
    listed = Key(keyid=SYNC.keyid, public=SYNC.public, role="root", holder="root", valid_from=0)
    after = EMPTY.with_snapshot(signed(directory(1, None, listed)), NOW)
    assert refusal(after, signed(directory(2, directory(1, None, listed)), "roster")) is Refusal.BAD_SIGNATURE


def test_another_realms_snapshot_is_nothing_here() -> None:
    assert refusal(EMPTY, signed(FIRST, realm="staging")) is Refusal.BAD_SIGNATURE


def test_what_is_no_live_document_is_malformed() -> None:
    assert refusal(EMPTY, signed(examples.INTENT)) is Refusal.MALFORMED


def test_a_live_document_that_cannot_be_read_says_which_member_is_wrong() -> None:
    said = signed(FIRST)
    broken = said.model_copy(update={"body": {**said.body, "unheard": "of"}})
    with pytest.raises(SnapshotError, match="unheard") as wrong:
        EMPTY.with_snapshot(broken, 0)
    assert wrong.value.refusal is Refusal.MALFORMED


def test_a_roster_may_be_signed_by_a_sync_that_the_directory_lists() -> None:
    world = EMPTY.with_snapshot(signed(directory(1, None, key("roster"))), NOW)
    assert world.with_snapshot(signed(Roster(version=1), "roster"), NOW).versions.roster == 1


def test_a_roster_of_a_sync_that_was_retired_never_counts() -> None:
    world = EMPTY.with_snapshot(signed(directory(1, None, key("roster", valid_until=NOW))), NOW)
    assert world.with_snapshot(signed(Roster(version=1), "roster"), NOW).versions.roster == 0
    assert world.with_snapshot(signed(Roster(version=1), "roster"), NOW - 1).versions.roster == 1


def test_of_two_first_rosters_that_wait_for_their_key_one_comes_into_force_and_the_other_never() -> None:
    other = Roster(version=1, groups=(Group(id="sre"),))
    world = EMPTY.with_snapshot(signed(ROSTER, "roster"), NOW).with_snapshot(signed(other, "roster"), NOW)
    assert len(world.deferred) == 2
    world = world.with_snapshot(signed(directory(1, None, key("roster"))), NOW)
    assert (world.rosters, world.deferred) == ((ROSTER,), ())


ROSTER = Roster(version=1)
NEXT = Roster(version=2, previous=ROSTER.digest)
WITH_SYNC = directory(1, None, key("roster"))
ARRIVALS = [signed(WITH_SYNC), signed(ROSTER, "roster"), signed(NEXT, "roster"), signed(examples.POLICIES)]


# Within a topic the log has one order; only between topics there is none.
ORDERS = [order for order in permutations(range(4)) if order.index(1) < order.index(2)]


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_in_which_topics_are_read_makes_no_other_world(order: tuple[int, ...]) -> None:
    world = EMPTY
    for index in order:
        world = world.with_snapshot(ARRIVALS[index], NOW)
    straight = EMPTY
    for statement in ARRIVALS:
        straight = straight.with_snapshot(statement, NOW)
    assert world == straight
    assert world.versions.roster == 2


@given(st.lists(st.sampled_from([signed(FIRST), signed(SECOND), signed(FIRST, "core"), signed(ROSTER)]), max_size=8))
def test_whatever_arrives_versions_only_grow_by_one(statements: list[Statement]) -> None:
    world = EMPTY
    for statement in statements:
        before = world.versions
        try:
            world = world.with_snapshot(statement, NOW)
        except SnapshotError:
            assert world.versions == before
        assert world.versions.directory - before.directory in {0, 1}
        assert world.versions.roster - before.roster in {0, 1}


def test_a_restore_never_goes_back() -> None:
    at = EMPTY.restored(NOW)
    assert at.restored_to == at.restored(NOW - 1).restored_to == NOW
    assert at.restored(NOW + 1).restored_to == NOW + 1


def test_what_is_no_live_document_changes_no_world() -> None:
    assert refusal(EMPTY, signed(examples.TICK)) is Refusal.MALFORMED
