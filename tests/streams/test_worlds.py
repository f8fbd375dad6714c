"""Every role sees the same live documents, follows them, and ends loudly when it no longer can."""

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from schemas import topics
from schemas.snapshots import Group, Roster, Snapshot
from schemas.world import World
from streams.worlds import WorldView
from tests.house import DIRECTORY, House, NewRealm, enact, forbidden, until


def following(world: World, document: Snapshot, **changed: object) -> Snapshot:
    before = dict(world.digests)[document.TYPE]
    return document.model_copy(update={"version": document.version + 1, "previous": before, **changed})


async def test_documents_are_read_to_the_end_and_followed(realm: House) -> None:
    async with WorldView(realm.settings("notifier-api")) as view:
        assert view.world.versions == realm.world.versions
        assert view.world.is_complete
        for _ in range(5):
            before = realm.world.directory
            assert before is not None
            await enact(realm, following(realm.world, before))
            assert (await view.caught_up()).digests == realm.world.digests
        view.require_alive()


async def test_a_document_that_does_not_count_is_ignored_by_all(realm: House) -> None:
    before = realm.world.directory
    assert before is not None
    again, stranger = before, following(realm.world, before)
    await realm.say(topics.DIRECTORY, again, by="root", key="again", partition=0)
    await realm.say(topics.DIRECTORY, stranger, by="bot0", key="stranger", partition=0)
    await realm.say(topics.POLICIES, stranger, by="root", key="stray", partition=0)
    async with WorldView(realm.settings("executor-s3")) as view:
        assert view.world.digests == realm.world.digests
        await realm.say(topics.MANIFESTS, again, by="root", key="stray", partition=0)
        assert (await view.caught_up()).digests == realm.world.digests


@pytest.mark.parametrize("is_roster_first", [False, True], ids=["the directory first", "the roster first"])
async def test_a_roster_counts_whether_it_comes_before_or_after_the_directory_that_lists_its_key(
    new_realm: NewRealm, is_roster_first: bool
) -> None:
    keyless = DIRECTORY.model_copy(update={"keys": tuple(key for key in DIRECTORY.keys if key.role != "roster")})
    roster = Roster(version=1, groups=(Group(id="synced", members=("gus",)),))
    async with new_realm((keyless,)) as realm, WorldView(realm.settings("gateway")) as view:
        lists_it = following(realm.world, keyless, keys=DIRECTORY.keys)
        if is_roster_first:
            await realm.say(topics.ROSTER, roster, by="roster", key="1", partition=0)
            assert not (await view.caught_up()).rosters
            await enact(realm, lists_it)
        else:
            await enact(realm, lists_it)
            await realm.say(topics.ROSTER, roster, by="roster", key="1", partition=0)
        assert (await view.caught_up()).rosters == (roster,)
        async with WorldView(realm.settings("intake")) as fresh:
            assert fresh.world == view.world


async def test_whoever_may_no_longer_read_a_document_hears_of_it(realm: House) -> None:
    async with WorldView(realm.settings("gateway")) as view, forbidden(realm, "gateway", topics.POLICIES, "read"):

        async def is_over() -> bool:
            try:
                view.require_alive()
            except TopicAuthorizationFailedError:
                return True
            return False

        await until(is_over)
        with pytest.raises(TopicAuthorizationFailedError):
            await view.caught_up()
