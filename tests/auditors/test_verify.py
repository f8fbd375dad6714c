"""The verifier as a program: alone, on files, on broken input; and its own rules held against the ones it checks."""

import json
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import auditors.verify
from auditors.verify import CODES, Head, canonical, command, judging, people, shapes
from auditors.verify import world as their_world
from auditors.verify.files import Bundle, BundleError, verify
from broker import lifecycle
from schemas import canonical as checked_canonical
from schemas import circle, ids, seats, signing
from schemas.authority import Authority
from schemas.records import Action, Assurance, Context, Intent, Requirement, Resource, Seat, Subject
from tests.auditors.builders import (
    IDP,
    REALM,
    ROOT,
    START,
    Trail,
    check,
    directory,
    members_of,
    reforged,
    roster,
    save,
    signer,
    state,
    value_of,
    with_header,
    with_value,
)

FOLDER = Path(auditors.verify.__file__).parent


@pytest.fixture(scope="module")
def trail() -> Trail:
    trail = Trail().begin()
    trail.outcome(trail.executing())
    trail.say(trail.pending(agent="porter"), "alice")
    return trail


def run_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The copied folder, in a Python that has `cryptography` and nothing else installed."""
    installed = folder.parent / "installed"
    if not installed.exists():
        installed.mkdir()
        for path in Path(sysconfig.get_path("platlib")).iterdir():
            if path.name.split(".")[0] in {"cryptography", "cffi", "_cffi_backend", "pycparser"}:
                (installed / path.name).symlink_to(path)
    start = (
        "import runpy, sys; folder, installed, *given = sys.argv[1:]; sys.path.append(installed); "
        "sys.argv = ['verify', *given]; runpy.run_path(folder, run_name='__main__')"
    )
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-I", "-S", "-c", start, str(folder), str(installed), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_copied_folder_verifies_with_cryptography_alone(trail: Trail, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "verify"))
    bundle = save(trail.topics, tmp_path / "bundle")
    done = run_alone(folder, str(bundle), "--root-key", ROOT.public, "--json")
    assert done.stderr == ""
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["is_clean"]
    assert report["records"] == len(trail.records)
    assert report["intents"] == {"pending": 1, "succeeded": 1}
    assert report["refusals"] == {"self_approval": 1}


def test_a_copied_folder_runs_by_its_path_and_says_what_is_wrong(trail: Trail, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "checker"))
    tampered = trail.bundle()
    del tampered["audit"][9]
    bundle = save(tampered, tmp_path / "bundle")
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-I", str(folder), str(bundle), "--root-key", ROOT.public],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 6
    assert "law 10 trail.gap: core-1/7" in done.stdout


def test_the_trail_and_the_world_are_enough(trail: Trail) -> None:
    needed = {name: trail.topics[name] for name in ("audit", "directory", "roster", "policies", "manifests")}
    report = check(needed)
    assert report.faults == []
    assert report.inputs_compared == 0
    assert check(trail.topics).inputs_compared > 0


def test_one_file_with_everything_is_a_bundle_too(trail: Trail, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    lines = [line for name in reversed(trail.topics) for line in trail.topics[name]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify(Bundle(file), [ROOT.public]).to_json() == check(trail.topics).to_json()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path, "neither a folder nor a file"),
        (lambda path: save({"directory": []}, path), "no audit.jsonl"),
        (lambda path: save({"audit": []}, path), "no directory.jsonl"),
        (lambda path: save({"audit": [], "directory": []}, path), "no audit record"),
    ],
)
def test_where_there_is_nothing_to_check_it_says_so(make: Any, says: str, tmp_path: Path, capsys: Any) -> None:
    made = make(tmp_path / "bundle")
    assert command.main([str(made), "--root-key", ROOT.public]) == 1
    assert says in capsys.readouterr().err


def test_a_root_key_that_is_none_is_told(tmp_path: Path, capsys: Any) -> None:
    bundle = save({"audit": [], "directory": []}, tmp_path / "bundle")
    assert command.main([str(bundle), "--root-key", "bm90IGEga2V5"]) == 1
    assert "base64 of 32 bytes" in capsys.readouterr().err


def test_a_remembered_head_is_found_again(trail: Trail) -> None:
    report = trail.check()
    heads = [Head(chain, seq, digest) for chain, (seq, digest) in report.heads.items()]
    assert check(trail.topics, heads=heads).faults == []
    assert [command.head(f"{head.chain}/{head.seq}:{head.digest}") for head in heads] == heads


def test_another_root_key_makes_nothing_clean(trail: Trail) -> None:
    assert not check(trail.topics, root=signer("another").public).is_clean


def test_lines_that_end_nowhere_do_not_fill_the_memory(trail: Trail, tmp_path: Path) -> None:
    bundle = save(trail.topics, tmp_path / "bundle")
    with (bundle / "audit.jsonl").open("ab") as file:
        file.write(b"x" * (9 * 1024 * 1024))
    report = verify(Bundle(bundle), [ROOT.public])
    assert [fault.code for fault in report.faults] == ["bundle.line"]
    assert "longer than" in report.faults[0].what


def test_what_a_trail_says_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in command.printable("\x1b[2Jclean")


def test_a_bundle_that_cannot_be_opened_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        Bundle(tmp_path / "nothing")


# ---------------------------------------------------------------- broken input


def test_no_bytes_whatever_stop_the_check(trail: Trail) -> None:
    chance = random.Random(7)
    for _ in range(25):
        bundle = trail.bundle()
        for topic in chance.sample(sorted(bundle), 3):
            line = chance.choice(bundle[topic])
            value = bytearray(value_of(line))
            for _ in range(chance.randint(1, 4)):
                value[chance.randrange(len(value))] = chance.randrange(256)
            bundle[topic][bundle[topic].index(line)] = with_value(line, bytes(value))
        check(bundle)


WEIRD: tuple[Any, ...] = (0, 2**53, "", "x" * 3000, [], {}, [{}], {"type": "x"}, True, "core-0", -1)


def _mutated(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.85:
        name = chance.choice(sorted(value))
        if chance.random() < 0.15:
            return {key: each for key, each in value.items() if key != name}
        return value | {name: _mutated(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        index = chance.randrange(len(value))
        return [*value[:index], _mutated(value[index], chance), *value[index + 1 :]]
    return chance.choice(WEIRD)


FREE = {"reason", "versions.rules"}
"""What a core may write as it likes: words for people, and the name of its own rules."""


def _changed(before: Any, after: Any, path: str = "") -> set[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        return {place for name in names for place in _changed(before.get(name), after.get(name), f"{path}.{name}")}
    return {path.lstrip(".")}


def _one_step(trail: Trail, step: int) -> None:
    intent_id = (trail.ask, trail.pending, trail.approved, trail.executing, trail.pending, trail.executing)[step]()
    if step == 4:
        trail.say(intent_id, "alice")
    if step == 5:
        trail.outcome(intent_id)


@pytest.mark.parametrize("step", range(6))
def test_a_core_with_a_valid_key_cannot_alter_a_member_unnoticed(step: int) -> None:
    """Whatever it writes in the last record of its chain, which no other record holds fast: found, and no crash."""
    trail = Trail().begin()
    _one_step(trail, step)
    chance, core = random.Random(step), signer("core")
    known = members_of(trail.topics["audit"][-1])
    for _ in range(25):
        members = _mutated(known, chance)
        value = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        line = with_value(trail.topics["audit"][-1], value)
        sealed = with_header(line, "sig", signing.sign(core, REALM, "keyturn.audit.v1", value))
        report = check(trail.topics | {"audit": [*trail.topics["audit"][:-1], sealed]})
        assert _changed(known, members) <= FREE or members == known or not report.is_clean


def test_no_signed_nonsense_in_the_middle_stops_the_check(trail: Trail) -> None:
    chance, core = random.Random(11), signer("core")
    for _ in range(25):
        lines = list(trail.topics["audit"])
        index = chance.randrange(len(lines))
        members = _mutated(members_of(lines[index]), chance)
        value = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        sig = signing.sign(core, REALM, "keyturn.audit.v1", value)
        lines[index] = with_header(with_value(lines[index], value), "sig", sig)
        check(trail.topics | {"audit": lines})


def test_a_trail_that_is_written_anew_without_a_lie_is_clean(trail: Trail) -> None:
    needed = {name: trail.topics[name] for name in ("directory", "roster", "policies", "manifests")}
    assert check(needed | {"audit": reforged(trail.topics["audit"], list)}).faults == []


# ---------------------------------------------------------------- two implementations, one law

JSON = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcXYZ_09", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text("abcXYZ_09", min_size=1, max_size=4), JSON, max_size=4))
def test_canonical_bytes_agree(value: dict[str, Any]) -> None:
    try:
        theirs = checked_canonical.encode(value)
    except checked_canonical.CanonicalError:
        return
    assert canonical.encode(value) == theirs
    assert canonical.decode(theirs) == value


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.sampled_from(["group:a", "group:b", "oncall:c"]), st.integers(1, 3)), min_size=1, max_size=3),
    st.dictionaries(
        st.sampled_from("pqrstuvw"), st.sets(st.sampled_from(["group:a", "group:b", "oncall:c"])), max_size=8
    ),
)
def test_matchings_agree(wanted: list[tuple[str, int]], may: dict[str, set[str]]) -> None:
    requirement = _requirement(dict(wanted))
    places = seats.places(requirement)
    assert people.filled(places, may) == len(seats.fill(places, may))


def _requirement(wanted: dict[str, int]) -> Requirement:
    kinds = tuple(Seat(of=of, count=count) for of, count in wanted.items())
    return Requirement(seats=kinds, assurance=Assurance.CHANNEL, within=60)


@pytest.mark.parametrize("stated", [None, "carol", "gina"])
@pytest.mark.parametrize("is_verified", [True, False])
@pytest.mark.parametrize("subject", [Subject(type="agent", id="builder"), Subject(type="person", id="alice")])
def test_circles_agree(subject: Subject, stated: str | None, is_verified: bool) -> None:
    intent = Intent(
        id=ids.intent_id(subject.id, START, b"0123456789"),
        subject=subject,
        action=Action(name="s3.export"),
        resource=Resource(type="bucket", id="acme"),
        context=Context(reason="why", on_behalf_of=stated),
        ttl=60,
    )
    known = directory()
    members = canonical.decode(intent.to_bytes())
    mine = people.circle(
        members, their_world.Directory.read(canonical.decode(known.to_bytes())), is_verified=is_verified
    )
    assert mine == circle.circle_in(intent, known, is_verified=is_verified)


@pytest.mark.parametrize("stated", [None, "carol", "nobody"])
@pytest.mark.parametrize("by", ["gateway", "builder", "api", "nobody"])
@pytest.mark.parametrize("providers", [(), (IDP,), ("elsewhere",)])
def test_who_may_say_whom_an_agent_acts_for_is_read_alike(
    stated: str | None, by: str, providers: tuple[str, ...]
) -> None:
    known = directory()
    given_keys = tuple(
        each.model_copy(update={"providers": providers}) if each.role in {"gateway", "notifier"} else each
        for each in known.keys
    )
    known = known.model_copy(update={"keys": given_keys})
    intent = Intent(
        id=ids.intent_id("builder", START, b"0123456789"),
        subject=Subject(type="agent", id="builder"),
        action=Action(name="s3.export"),
        resource=Resource(type="bucket", id="acme"),
        context=Context(reason="why", on_behalf_of=stated),
        ttl=60,
    )
    signed = state(intent, signer(by), REALM)
    mine = their_world.Directory.read(canonical.decode(known.to_bytes())).has_checked(signed.keyid, stated)
    assert mine == Authority(REALM, known).is_behalf_verified(signed)
    assert mine == ((by, stated, providers) == ("gateway", "carol", (IDP,)))


@pytest.mark.parametrize("of", ["group:sre", "group:data", "group:none", "oncall:payments", "oncall:none", "role:sre"])
@pytest.mark.parametrize("at", [START, START + 3_600_000, START + 10 * 3_600_000])
def test_seats_agree(of: str, at: int) -> None:
    known, shifts = directory(), roster()
    mine = their_world.Directory.read(canonical.decode(known.to_bytes()))
    my_roster = their_world.Roster.read(canonical.decode(shifts.to_bytes()))
    for person in ("alice", "bob", "carol", "dave", "erin", "gina", "hugo", "nobody"):
        for rosters in ((), (shifts,)):
            mine_says = people.may_sit(person, of, mine, my_roster if rosters else None, at)
            assert mine_says == seats.may_sit(person, of, known, rosters, at)


def test_ids_agree() -> None:
    made = ids.intent_id("builder", START, b"9876543210")
    assert (shapes.requester_of(made), shapes.time_of(made)) == ids.split(made)


def test_every_fault_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    for code, (law, sentence) in CODES.items():
        assert f"| {law} | `{code}` | {sentence} |" in text


def test_every_event_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    events = {event for steps in judging.TRANSITIONS.values() for event, _ in steps}
    for event in events | set(judging.NAME_WHEN_REFUSED.values()) | {"world.changed", "world.deferred"}:
        assert f"| `{event}` |" in text


def test_the_transitions_agree_with_the_cores_table() -> None:
    """Two tables, written apart: the same steps, but for two that the core's judges never take."""
    theirs = {
        (before.value if before is not None else None, transition.on.TYPE, after.value)
        for transition in lifecycle.TRANSITIONS
        for before in transition.before
        for after in transition.after
        if after is not None
    }
    mine = {(before, kind, after) for (before, kind), steps in judging.TRANSITIONS.items() for _, after in steps}
    decision = "keyturn.decision.v1"
    assert mine <= theirs
    assert theirs - mine == {("approved", decision, "pending"), ("approved", decision, "approved")}


def test_the_module_runs_as_a_command(trail: Trail, tmp_path: Path) -> None:
    bundle = save(trail.topics, tmp_path / "bundle")
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "auditors.verify", str(bundle), "--root-key", ROOT.public, "--realm", REALM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "clean"
