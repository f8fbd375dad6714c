"""The client says the same bytes as everybody else: the project's vectors, and its JSON Schemas."""

import ast
import base64
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keyturn
from keyturn import canonical, ids, intents, signing
from keyturn.canonical import CanonicalError
from keyturn.partition import murmur2, partition_of

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
SAID = {intents.INTENT, intents.WITHDRAWAL}


def vectors(name: str) -> Any:
    return json.loads((SCHEMAS / "vectors" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", vectors("canonical")["accepted"], ids=lambda vector: vector["why"])
def test_canonical_bytes_and_digests_are_everybodys(vector: dict[str, Any]) -> None:
    value = base64.b64decode(vector["canonical_base64"])

    assert canonical.encode(vector["value"]) == value
    assert canonical.digest(value) == vector["sha256"]
    assert canonical.encode(canonical.decode(value, max_bytes=len(value))) == value


@pytest.mark.parametrize("vector", vectors("canonical")["refused"], ids=lambda vector: vector["why"])
def test_what_others_refuse_is_refused_here(vector: dict[str, Any]) -> None:
    with pytest.raises(CanonicalError):
        canonical.decode(base64.b64decode(vector["value_base64"]), max_bytes=512 * 1024)


def test_ids_are_everybodys() -> None:
    for vector in vectors("ids")["made"]:
        made = ids.intent_id(vector["requester"], vector["at_ms"], base64.b64decode(vector["entropy_base64"]))
        assert made == vector["id"]
        assert ids.split(made) == (vector["requester"], vector["at_ms"])
    for text in vectors("ids")["refused"]:
        with pytest.raises(ids.IntentIdError):
            ids.split(text)


def test_partitions_are_everybodys() -> None:
    for vector in vectors("partitions")["murmur2"]:
        assert murmur2(vector["text"].encode()) == vector["murmur2"]
    for vector in vectors("partitions")["partitions"]:
        assert partition_of(vector["requester"], vector["of"]) == vector["partition"]


def test_signatures_are_everybodys() -> None:
    published = vectors("signatures")
    keys = {each["keyid"]: signing.Key.from_seed(base64.b64decode(each["seed_base64"])) for each in published["keys"]}
    assert {keyid: key.public for keyid, key in keys.items()} == {k["keyid"]: k["public"] for k in published["keys"]}
    assert {key.keyid for key in keys.values()} == set(keys)
    for vector in published["signed"]:
        key, realm, value = keys[vector["keyid"]], published["realm"], vector["value"].encode()
        assert signing.encoding(realm, vector["type"], value) == base64.b64decode(vector["pae_base64"])
        assert signing.sign(key, realm, vector["type"], value) == vector["sig"]
        assert signing.verifies(key.public, realm, vector["type"], value, vector["sig"])
        assert not signing.verifies(key.public, "another", vector["type"], value, vector["sig"])
    assert published["signed"]


def test_records_are_built_byte_for_byte() -> None:
    built = 0
    for vector in vectors("records"):
        if vector["type"] not in SAID:
            continue
        body = json.loads(vector["value"])
        if vector["type"] == intents.INTENT:
            assert intents.errors_of(body) == ()
            context = body["context"]
            draft = intents.Draft(
                body["action"]["name"],
                (body["resource"]["type"], body["resource"]["id"]),
                body["action"]["properties"],
                context["reason"],
                body["ttl"],
                on_behalf_of=context.get("on_behalf_of"),
                ticket=context.get("ticket"),
            )
            value = intents.intent_bytes(body["id"], body["subject"]["id"], draft.members())
        else:
            value = intents.withdrawal_bytes(body["intent"], body["by"]["id"], body.get("reason"))
        assert value == vector["value"].encode()
        assert canonical.digest(value) == vector["sha256"]
        built += 1
    assert built == len(SAID)


# ---------------------------------------------------------------- the rules of an intent


SCHEMA = jsonschema_rs.validator_for(json.loads((SCHEMAS / "json" / f"{intents.INTENT}.json").read_text()))
TEXT = st.text(max_size=8)
SCALAR = st.one_of(st.booleans(), st.integers(-(2**54), 2**54), TEXT)
NAMES = st.one_of(st.sampled_from(["ada", "export-bot", "a" * 63, "a" * 64, "Ada", "", "-a", "a.b", "ada\n"]), TEXT)
VALUES = st.one_of(SCALAR, st.lists(SCALAR, max_size=3), st.dictionaries(TEXT, SCALAR, max_size=1))
MEMBERS = st.one_of(st.sampled_from(["source", "a_1", "1a", "_a", "a-b", "", "a" * 64]), TEXT)
GOOD = {
    "id": "ada.01KDWPVNG0000G40R40M30E209",
    "subject": {"type": "agent", "id": "ada"},
    "action": {"name": "s3.export", "properties": {"bucket": "x"}},
    "resource": {"type": "bucket", "id": "x"},
    "context": {"reason": "because"},
    "ttl": 60,
}
PLACES = {
    ("id",): st.sampled_from(["ada.81KDWPVNG0000G40R40M30E209", "ada", "ada.01KDWPVNG0000G40R40M30E20A"]),
    ("subject", "type"): st.sampled_from(["agent", "person", "robot"]),
    ("subject", "id"): NAMES,
    ("action", "name"): st.sampled_from(["s3.export", "s3", "S3.export", "s3.export.x", "s3.export\n", "iam.a_1"]),
    ("action", "properties"): st.dictionaries(MEMBERS, VALUES, max_size=3),
    ("action", "title"): TEXT,
    ("resource", "type"): NAMES,
    ("resource", "id"): TEXT,
    ("resource", "arn"): TEXT,
    ("context", "reason"): st.one_of(TEXT, st.just("a" * 2001), st.just(5)),
    ("context", "on_behalf_of"): NAMES,
    ("context", "run"): TEXT,
    ("context", "traceparent"): st.sampled_from(["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-a-b-01"]),
    ("context", "mood"): TEXT,
    ("ttl",): st.sampled_from([0, 1, 3600, 30 * 24 * 3600, 30 * 24 * 3600 + 1, True, "60"]),
    ("extra",): SCALAR,
}


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A good intent with one or two members put in, that may be good or not."""
    body: dict[str, Any] = json.loads(json.dumps(GOOD))
    for *path, name in draw(st.lists(st.sampled_from(sorted(PLACES)), min_size=1, max_size=2)):
        part = body
        for step in path:
            part = part[step]
        part[name] = draw(PLACES[(*path, name)])
    return body


@settings(max_examples=300)
@given(bodies())
def test_an_intent_passes_here_only_if_it_passes_the_schema(body: dict[str, Any]) -> None:
    errors = intents.errors_of(body)

    assert all(error.path.startswith("/") for error in errors)
    # What JSON Schema cannot say (normal forms, invisible characters) is refused here on top.
    if not errors:
        assert SCHEMA.is_valid(body)


def test_a_good_intent_has_no_errors() -> None:
    assert intents.errors_of(GOOD) == ()
    assert SCHEMA.is_valid(GOOD)


# ---------------------------------------------------------------- the distribution


def test_the_wheel_holds_every_module_and_imports_alone(tmp_path: Path) -> None:
    root = Path(keyturn.__file__).parent
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root.parent, check=True, capture_output=True)  # noqa: S603 - our own build
    (wheel,) = tmp_path.glob("keyturn-*.whl")

    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == {f"keyturn/{path.name}" for path in root.iterdir() if path.suffix in {".py", ".typed"}}

    # With every extra hidden, as for who only speaks HTTP.
    alone = f"""
import sys
sys.path.insert(0, {str(wheel)!r})
for extra in ("aiokafka", "jsonschema_rs", "opentelemetry", "pydantic", "orjson"):
    sys.modules[extra] = None
import keyturn, keyturn.testing
assert keyturn.__file__.startswith({str(wheel)!r})
world = keyturn.testing.Keyturn()
world.approves()
with world.connect("reporter") as client:
    print(client.ask("s3.export", ("bucket", "x"), {{}}, reason="why"))
"""
    done = subprocess.run([sys.executable, "-I", "-c", alone], check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout == "done: done in memory\n"


def test_the_package_knows_nothing_of_the_server() -> None:
    allowed = {*sys.stdlib_module_names, "keyturn", "cryptography", "httpx"}
    optional = {"aiokafka", "jsonschema_rs", "opentelemetry"}
    root = Path(keyturn.__file__).parent
    for file in root.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                room = name.partition(".")[0]
                # What is an extra is imported inside the function that needs it.
                assert room in allowed or (room in optional and node.col_offset > 0), f"{file.name}: {name}"
