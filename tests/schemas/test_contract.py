import base64
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from schemas import contract, examples, ids, partition, signing
from schemas.authority import MAY_SIGN
from schemas.record import Record, RecordError
from schemas.records import Genesis
from schemas.topics import TOPICS, Principal

STORY = {record.TYPE: record for record, _ in examples.TOLD_BY}
KINDS = {kind.TYPE: kind for kind in contract.record_types()}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def validator(kind: type[Record]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(contract.json_schema(kind))


def test_what_is_written_is_what_would_be_generated() -> None:
    assert contract.drift() == ()


def test_a_changed_a_missing_and_a_left_over_file_are_drift(tmp_path: Path) -> None:
    contract.write(tmp_path)
    assert contract.drift(tmp_path) == ()
    (tmp_path / "json" / "keyturn.tick.v1.json").write_text("{}")
    (tmp_path / "json" / "keyturn.vote.v1.json").write_text("{}")
    (tmp_path / "asyncapi.json").unlink()
    assert contract.drift(tmp_path) == ("asyncapi.json", "json/keyturn.tick.v1.json", "json/keyturn.vote.v1.json")
    contract.write(tmp_path)
    assert contract.drift(tmp_path) == ()


def test_every_record_type_has_an_example_signed_by_a_role_that_may() -> None:
    assert set(STORY) == set(KINDS) == set(MAY_SIGN)
    for record, role in examples.TOLD_BY:
        assert role in MAY_SIGN[record.TYPE]


@every_kind
def test_an_example_reads_back_from_its_bytes(kind: type[Record]) -> None:
    record = STORY[kind.TYPE]
    assert kind.from_bytes(record.to_bytes()) == record


@every_kind
def test_a_schema_accepts_its_example(kind: type[Record]) -> None:
    validator(kind).validate(json.loads(STORY[kind.TYPE].to_bytes()))


@every_kind
def test_an_unknown_member_is_refused_by_schema_and_model_alike(kind: type[Record]) -> None:
    members = json.loads(STORY[kind.TYPE].to_bytes()) | {"surprise": 1}
    assert not validator(kind).is_valid(members)
    with pytest.raises(RecordError):
        kind.from_json(members)


@every_kind
def test_leaving_out_a_member_is_judged_alike_by_schema_and_model(kind: type[Record]) -> None:
    members = json.loads(STORY[kind.TYPE].to_bytes())
    checks = validator(kind)
    for name in members:
        rest = {other: value for other, value in members.items() if other != name}
        try:
            kind.from_json(rest)
            is_read = True
        except RecordError:
            is_read = False
        if is_read:
            assert checks.is_valid(rest), name
        # The rest are rules between members, which a schema does not say.
        elif checks.is_valid(rest):
            assert name in {"previous", "channel", "max_assurance", "persons", "version"}


@every_kind
def test_null_is_no_value_of_any_member(kind: type[Record]) -> None:
    members = json.loads(STORY[kind.TYPE].to_bytes())
    for name in contract.json_schema(kind)["properties"]:  # type: ignore[attr-defined]
        assert not validator(kind).is_valid(members | {name: None}), name


def test_every_topic_is_a_channel_with_its_messages() -> None:
    document: Any = contract.asyncapi()
    assert len(document["channels"]) == len(TOPICS)
    for topic in TOPICS:
        channel = document["channels"][topic.name.partition(".")[0]]
        assert channel["address"] == "{prefix}" + topic.name
        assert set(channel["messages"]) >= {kind.TYPE for kind in topic.types}
        assert (Genesis.TYPE in channel["messages"]) == (topic.is_input and topic.is_partitioned)


def test_operations_are_exactly_the_rights_of_the_topic_map() -> None:
    document: Any = contract.asyncapi()
    told = {
        (operation["tags"][0]["name"], operation["action"], operation["channel"]["$ref"].rpartition("/")[2])
        for operation in document["operations"].values()
    }
    mapped = {
        (role.value, action, topic.name.partition(".")[0])
        for topic in TOPICS
        for action, holders in (("send", topic.writers), ("receive", topic.readers))
        for role in holders
    }
    assert told == mapped
    assert {role for role, _, _ in told} == {role.value for role in Principal}


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document: Any = contract.asyncapi()
    written = contract.files()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            found = [value["$ref"]] if "$ref" in value else []
            return found + [one for part in value.values() for one in references(part)]
        return [one for part in value for one in references(part)] if isinstance(value, list) else []

    for reference in references(document):
        if reference.startswith("#/"):
            place = document
            for step in reference.removeprefix("#/").split("/"):
                place = place[step]
        else:
            assert reference.removeprefix("./") in written


def test_signature_vectors_hold_from_their_published_values_alone() -> None:
    vector: Any = json.loads(contract.files()["vectors/signatures.json"])
    public = {key["keyid"]: key["public"] for key in vector["keys"]}
    ring = signing.KeyRing(public)
    for key in vector["keys"]:
        signer = signing.PrivateKeySigner.from_seed(base64.b64decode(key["seed_base64"]))
        assert (signer.keyid, signer.public) == (key["keyid"], key["public"])
    for case in vector["signed"]:
        kind, value = case["payload_type"], case["value"].encode()
        pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(value), value)
        assert base64.b64decode(case["pae_base64"]) == pae
        assert ring.verifies(vector["realm"], case["type"], value, case["keyid"], case["sig"])


def test_id_vectors_hold() -> None:
    vector: Any = json.loads(contract.files()["vectors/ids.json"])
    for made in vector["made"]:
        assert ids.intent_id(made["requester"], made["at_ms"], base64.b64decode(made["entropy_base64"])) == made["id"]
        assert ids.split(made["id"]) == (made["requester"], made["at_ms"])
    for text in vector["refused"]:
        with pytest.raises(ids.IntentIdError):
            ids.split(text)


def test_partition_vectors_hold() -> None:
    vector: Any = json.loads(contract.files()["vectors/partitions.json"])
    for case in vector["partitions"]:
        assert partition.partition_of(case["requester"], case["of"]) == case["partition"] < case["of"]


def test_the_command_writes_and_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["contract", "--check"])
    assert contract.main(tmp_path) == 1
    assert "asyncapi.json differs" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["contract"])
    assert contract.main(tmp_path) == 0
    monkeypatch.setattr("sys.argv", ["contract", "--check"])
    assert contract.main(tmp_path) == 0


def test_the_command_writes_checks_and_names_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, readme = tmp_path / "schemas", tmp_path / "README.md"
    folder.mkdir()
    monkeypatch.setattr(contract, "README", readme)
    monkeypatch.setattr("sys.argv", ["contract"])
    # Without a README, as in a wheel, there is no table to write.
    assert contract.main(folder) == 0
    assert "files written" in capsys.readouterr().out
    readme.write_text("before\n" + contract.TABLE_STARTS + "old\n" + contract.TABLE_ENDS + "after\n")
    monkeypatch.setattr("sys.argv", ["contract", "--check"])
    assert contract.main(folder) == 1
    assert "schemas/../README.md differs" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["contract"])
    assert contract.main(folder) == 0
    monkeypatch.setattr("sys.argv", ["contract", "--check"])
    assert contract.main(folder) == 0
    assert capsys.readouterr().err == ""
    (folder / "asyncapi.json").write_text("{}")
    assert contract.main(folder) == 1
    assert "schemas/asyncapi.json differs" in capsys.readouterr().err
