import asyncio
import time
from pathlib import Path

import pytest

from cli.documents import DocumentError, installed, require_fit
from schemas.policy import PolicyError
from schemas.snapshots import Directory, Manifests, Policies, Roster
from schemas.topics import DIRECTORY
from streams import administration, documents
from streams.documents import OvertakenError
from streams.drafts import DraftError
from streams.errors import StreamError
from streams.realm import settings_for
from streams.settings import Settings
from tests.administration.conftest import NewRealm, Place

SAMPLES = Path(__file__).parents[2] / "policies"
DRAFT = """
persons: [{id: ada, name: Ada}, {id: grace, name: Grace}]
agents: [{id: bot, owners: [ada]}]
groups: [{id: sre, members: [ada]}, {id: security, members: [grace]}, {id: data-owners, is_synced: true}]
rotas: [payments]
keys: [{role: roster, holder: roster, file: keys/roster.pub}]
"""


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
async def fresh(new_realm: NewRealm) -> Place:
    place = new_realm()
    (place.folder / "directory.yaml").write_text(DRAFT)
    await administration.provision(place.folder, place.admin)
    return place


def settings_of(place: Place) -> Settings:
    return settings_for(place.folder, "administration")


def roster(place: Place, text: str) -> Path:
    file = place.folder / "roster.yaml"
    file.write_text(text)
    return file


async def test_documents_come_into_force_one_after_the_other(fresh: Place) -> None:
    settings = settings_of(fresh)
    file = fresh.folder / "directory.yaml"
    first = await documents.apply_directory(settings, file, now())
    assert (first.document, first.version, first.is_new) == ("directory", 1, True)

    again = await documents.apply_directory(settings, file, now() + 1000)
    assert (again.version, again.digest, again.is_new) == (1, first.digest, False)

    file.write_text(DRAFT.replace("rotas: [payments]", "rotas: [payments, billing]"))
    second = await documents.apply_directory(settings, file, now())
    assert (second.version, second.changes) == (2, ("+ rotas billing",))
    world = await documents.read_world(settings)
    in_force, digest = documents.in_force(world, Directory)
    assert in_force is not None
    assert (in_force.previous, digest) == (first.digest, second.digest)


async def test_of_two_administrators_at_once_one_is_told(fresh: Place) -> None:
    files = [fresh.folder / "one.yaml", fresh.folder / "two.yaml"]
    for file in files:
        file.write_text(DRAFT.replace("payments", file.stem))
    answers = await asyncio.gather(
        *(documents.apply_directory(settings_of(fresh), file, now()) for file in files), return_exceptions=True
    )
    # Either they met, and one was overtaken, or they came one after the other.
    world = await documents.read_world(settings_of(fresh))
    overtaken = [answer for answer in answers if isinstance(answer, OvertakenError)]
    assert world.versions.directory == len(files) - len(overtaken)
    assert len(overtaken) <= 1
    assert all(isinstance(answer, (documents.Applied, OvertakenError)) for answer in answers)


async def test_a_roster_may_be_written_by_the_sync_with_its_own_key_and_login(fresh: Place) -> None:
    await documents.apply_directory(settings_of(fresh), fresh.folder / "directory.yaml", now())
    sync = settings_for(fresh.folder, "roster")
    file = roster(fresh, "groups: [{id: data-owners, members: [grace]}]\n")
    assert (await documents.apply_roster(sync, file, now())).version == 1
    found, _ = documents.in_force(await documents.read_world(sync), Roster)
    assert found is not None
    assert found.groups[0].members == ("grace",)


async def test_a_key_that_may_not_sign_writes_nothing(fresh: Place) -> None:
    settings = settings_of(fresh)
    await documents.apply_directory(settings, fresh.folder / "directory.yaml", now())
    borrowed = settings.model_copy(update={"key_file": fresh.folder / "keys" / "core.key"})
    with pytest.raises(DraftError, match="may not sign"):
        await documents.apply_roster(borrowed, roster(fresh, "rotas: []\n"), now())
    (fresh.folder / "other.yaml").write_text(DRAFT.replace("payments", "billing"))
    with pytest.raises(ValueError, match="not signed by a pinned root key"):
        await documents.apply_directory(borrowed, fresh.folder / "other.yaml", now())
    world = await documents.read_world(settings)
    assert (world.versions.directory, world.versions.roster) == (1, 0)


async def test_the_sample_policy_comes_into_force_after_directory_and_manifest(fresh: Place) -> None:
    settings, sample = settings_of(fresh), [SAMPLES / "s3.cedar"]
    with pytest.raises(DocumentError, match="keyturn manifest apply"):
        await documents.apply_policies(settings, sample, now(), require_fit)
    manifest = await documents.apply_manifests(settings, installed(), now(), require_fit)
    assert manifest.changes == ("+ executors iam", "+ executors infra", "+ executors s3")
    with pytest.raises(DocumentError, match="group:data-owners, group:sre"):
        await documents.apply_policies(settings, sample, now(), require_fit)
    await documents.apply_directory(settings, fresh.folder / "directory.yaml", now())
    assert (await documents.apply_policies(settings, sample, now(), require_fit)).version == 1
    assert not (await documents.apply_policies(settings, sample, now(), require_fit)).is_new
    assert (await documents.read_world(settings)).is_complete


async def test_a_policy_that_does_not_fit_the_manifests_is_not_written(fresh: Place) -> None:
    settings = settings_of(fresh)
    await documents.apply_manifests(settings, installed(), now(), require_fit)
    misspelt = fresh.folder / "misspelt.cedar"
    misspelt.write_text('@id("x") @automatic("y") permit (principal, action == Action::"s3.exprot", resource);\n')
    with pytest.raises(PolicyError):
        await documents.apply_policies(settings, [misspelt], now(), require_fit)
    assert documents.in_force(await documents.read_world(settings), Policies) == (None, None)


async def test_manifests_are_not_taken_away_from_under_a_policy(fresh: Place) -> None:
    settings = settings_of(fresh)
    await documents.apply_directory(settings, fresh.folder / "directory.yaml", now())
    await documents.apply_manifests(settings, installed(), now(), require_fit)
    await documents.apply_policies(settings, [SAMPLES / "s3.cedar"], now(), require_fit)
    with pytest.raises(PolicyError):
        await documents.apply_manifests(settings, [], now(), require_fit)
    found, _ = documents.in_force(await documents.read_world(settings), Manifests)
    assert found is not None
    assert found.version == 1


async def test_a_role_that_may_not_write_a_document_is_told_by_kafka(fresh: Place) -> None:
    core = settings_for(fresh.folder, "core")
    root = core.model_copy(update={"key_file": fresh.folder / "keys" / "root.key"})
    with pytest.raises(StreamError, match=fresh.realm.names.of(DIRECTORY)):
        await documents.apply_directory(root, fresh.folder / "directory.yaml", now())
