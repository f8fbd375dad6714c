import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import examples
from schemas.canonical import Json
from schemas.records import AccountRef
from schemas.snapshots import Directory, Group, Roster
from streams import drafts
from streams.drafts import DraftError

NOW = examples.NOON
CORE = examples.signer("core")


def read(text: str) -> dict[str, Json]:
    return drafts.load(text, "draft.yaml")


def directory(text: str, previous: Directory | None = None, now: int = NOW, folder: Path = Path()) -> Directory:
    return drafts.directory(read(text), folder, previous, previous.digest if previous else None, now)


def keys(*lines: str) -> str:
    return "keys:\n" + "".join(f"  - {{{line}}}\n" for line in lines)


KEY = f"role: core, holder: core, public: {CORE.public}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("null", "null"),
        ("~", "~"),
        ("", ""),
        ("007", "007"),
        ("1:30", "1:30"),
        ("1.5", "1.5"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("true", True),
        ("-12", -12),
    ],
)
def test_yaml_is_plain_text_whole_numbers_and_true_and_false(text: str, value: object) -> None:
    assert read(f"a: {text}") == {"a": value}


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "a:\n  - {b: 1, b: 2}", "- 1", "a: [", "!!python/object:os.system {}", "x"]
)
def test_yaml_that_could_be_meant_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(DraftError, match=r"draft\.yaml"):
        read(text)


def test_the_first_draft_is_a_directory_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "core.pub").write_text(CORE.public + "\n")
    entries = [drafts.KeyEntry("core.pub", "core", "core")]
    made = directory(drafts.first_directory("acme", ["bot"], ["ada", "grace"], entries), folder=tmp_path)
    assert [person.id for person in made.persons] == ["ada", "grace"]
    assert made.agents[0].owners == ("ada", "grace")
    assert made.keys[0].keyid == CORE.keyid


def a_first_draft(folder: Path, issuers: tuple[str, ...]) -> Directory:
    """What `keyturn init` leaves, with its key files."""
    entries = []
    for role, holder in (("core", "core"), ("gateway", "gateway"), ("notifier", "api"), ("notifier", "slack")):
        (folder / f"{holder}.pub").write_text(examples.signer(holder).public)
        entries.append(drafts.KeyEntry(f"{holder}.pub", role, holder))
    return directory(drafts.first_directory("acme", ["bot"], ["ada"], entries, issuers), folder=folder)


def test_who_is_met_by_a_login_may_vouch_for_the_issuers_that_init_was_told(tmp_path: Path) -> None:
    issuer = "https://login.example.com"
    made = {key.holder: key.providers for key in a_first_draft(tmp_path, (issuer,)).keys}
    assert made == {"core": (), "gateway": (issuer,), "api": (issuer,), "slack": ()}


def test_what_a_directory_leaves_empty_is_told_with_the_field_to_fill(tmp_path: Path) -> None:
    found = "\n".join(drafts.gaps(a_first_draft(tmp_path, ())))
    for words in ("gateway gateway has no `providers`", "notifier api has no `providers`", "ada has no `accounts`"):
        assert words in found
    assert "bot has neither a key of its own nor `gateways`" in found
    assert "`operators` has no members" in found
    known = a_first_draft(tmp_path, ("https://login.example.com",))
    bot = known.agents[0].model_copy(update={"gateways": ("gateway",)})
    asking = known.model_copy(update={"agents": (bot,)})
    assert "bot has no key and no `accounts`" in "\n".join(drafts.gaps(asking))
    client = AccountRef(provider="https://login.example.com", subject="bot-client")
    asking = known.model_copy(update={"agents": (bot.model_copy(update={"accounts": (client,)}),)})
    assert "bot" not in "\n".join(drafts.gaps(asking))
    own = known.keys[0].model_copy(update={"role": "agent", "holder": "bot"})
    both = asking.model_copy(update={"keys": (own, *asking.keys[1:])})
    assert "bot has a key, and `accounts`" in "\n".join(drafts.gaps(both))
    ada = examples.DIRECTORY.persons[0].model_copy(update={"accounts": examples.DIRECTORY.persons[1].accounts})
    known = examples.DIRECTORY
    whole = known.model_copy(update={"persons": (ada,), "groups": (Group(id="operators", members=("ada",)),)})
    assert drafts.gaps(whole) == ()


def test_of_a_private_keys_file_only_the_public_half_is_taken(tmp_path: Path) -> None:
    (tmp_path / "core.key").write_text(base64.b64encode(examples.seed("core")).decode())
    made = directory(keys("role: core, holder: core, file: core.key"), folder=tmp_path)
    assert made.keys[0].public == CORE.public


def test_a_new_key_is_valid_from_a_minute_ago_and_a_root_key_always() -> None:
    root = examples.signer("root").public
    made = directory(keys(KEY, f"role: root, holder: root, public: {root}"))
    assert [key.valid_from for key in made.keys] == [NOW - drafts.SKEW_MS, 0]


def test_a_key_stays_valid_from_when_it_was_first_listed() -> None:
    first = directory(keys(KEY))
    assert directory("rotas: [x]\n" + keys(KEY), first, NOW + 10**9).keys == first.keys


def test_a_key_that_is_left_out_is_retired_and_never_forgotten() -> None:
    first = directory(keys(KEY))
    second = directory("keys: []", first, NOW + 1000)
    assert [(key.keyid, key.valid_until) for key in second.keys] == [(CORE.keyid, NOW + 1000)]
    third = directory("keys: []", second, NOW + 2000)
    assert third.keys == second.keys


def test_a_retired_key_does_not_come_back() -> None:
    retired = directory("keys: []", directory(keys(KEY)))
    with pytest.raises(DraftError, match="retired"):
        directory(keys(KEY), retired)


def test_a_key_keeps_its_role_and_holder() -> None:
    with pytest.raises(DraftError, match="belongs to core"):
        directory(keys(f"role: intake, holder: intake, public: {CORE.public}"), directory(keys(KEY)))


def test_a_notifiers_key_vouches_as_far_as_its_channel_can() -> None:
    public = examples.signer("notifier").public
    for channel, assurance in drafts.MAX_ASSURANCE.items():
        made = directory(keys(f"role: notifier, holder: {channel}, channel: {channel}, public: {public}"))
        assert made.keys[0].max_assurance == assurance


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: 3", "version"),
        ("keys: 1", "keys"),
        ("keys: [1]", r"keys\.0"),
        (keys("role: core, holder: core"), r"keys\.0"),
        (keys("role: core, holder: core, public: AAAA"), r"keys\.0"),
        (keys("role: core, holder: core, public: '?'"), r"keys\.0"),
        (keys("role: core, holder: core, file: nowhere.pub"), r"keys\.0"),
        (keys(KEY + ", valid_until: tomorrow"), r"keys\.0\.valid_until"),
        (keys(KEY + ", valid_until: '2026-01-01T00:00:00'"), "offset"),
        (keys(KEY + ", colour: red"), "colour"),
        ("persons: [{id: ada}]", r"persons\.0\.name"),
        ("persons: [{id: Ada, name: Ada}]", r"persons\.0\.id"),
        ("persons: [{id: ada, name: Ada, is_active: yes}]", "is_active"),
        ("agents: [{id: bot, owners: [nobody]}]", "nobody"),
        ("groups: [{id: sre, members: }]", "members"),
        ("people: []", "people"),
    ],
)
def test_an_error_names_the_place(text: str, place: str) -> None:
    with pytest.raises(DraftError, match=place):
        directory(text)


LISTED = directory(
    "persons: [{id: ada, name: Ada}]\ngroups: [{id: sre}, {id: dba, is_synced: true}]\nrotas: [payments]"
)


def roster(text: str, previous: Roster | None = None) -> Roster:
    return drafts.roster(read(text), LISTED, previous, previous.digest if previous else None)


def test_a_rosters_shifts_are_in_rfc_3339() -> None:
    made = roster(
        "groups: [{id: dba, members: [ada]}]\n"
        "rotas: [{id: payments, shifts: [{person: ada, starts_at: '2026-01-01T13:00:00+01:00',"
        " ends_at: 2026-01-01T20:00:00Z}]}]"
    )
    shift = made.rotas[0].shifts[0]
    assert (shift.starts_at, shift.ends_at) == (NOW, NOW + 8 * 3600 * 1000)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("groups: [{id: sre, members: [ada]}]", "group sre"),
        ("rotas: [{id: billing}]", "rota billing"),
        ("groups: [{id: dba, members: [eve]}]", "person eve"),
        ("rotas: [{id: payments, shifts: [{person: ada, starts_at: '2026-01-01T13:00Z'}]}]", "ends_at"),
        (
            "rotas: [{id: payments, shifts: [{person: ada, starts_at: 2026-01-02T00Z, ends_at: 2026-01-01T00Z}]}]",
            "later",
        ),
    ],
)
def test_a_roster_that_nobody_would_count_is_refused(text: str, why: str) -> None:
    with pytest.raises(DraftError, match=why):
        roster(text)


def test_without_a_directory_there_is_no_roster() -> None:
    with pytest.raises(DraftError, match="keyturn directory apply"):
        drafts.roster({}, None, None, None)


def test_changes_are_told_one_line_a_thing() -> None:
    first = directory("persons: [{id: ada, name: Ada}]\ngroups: [{id: sre, members: [ada]}]\nrotas: [payments]")
    second = directory("persons: [{id: ada, name: Ada L.}, {id: eve, name: Eve}]\nrotas: [payments, billing]", first)
    assert drafts.changes(first, second) == ("- groups sre", "+ persons eve", "~ persons ada: name", "+ rotas billing")
    assert drafts.changes(first, directory("persons: []", first))


def test_a_change_of_policy_is_told_line_by_line() -> None:
    first = drafts.policies("permit;\nforbid;\n", None, None)
    second = drafts.policies("permit;\nallow;\n", first, first.digest)
    assert set(drafts.changes(first, second)) == {"- forbid;", "+ allow;"}


@given(
    st.lists(st.sampled_from(["ada", "grace", "linus"]), unique=True),
    st.lists(st.sampled_from(["x", "y"]), unique=True),
)
def test_the_same_draft_again_is_no_change(people: list[str], rotas: list[str]) -> None:
    text = f"persons: [{', '.join(f'{{id: {name}, name: {name}}}' for name in people)}]\nrotas: {rotas}\n" + keys(KEY)
    first = directory(text)
    assert drafts.changes(first, directory(text, first, NOW + 10**9)) == ()
