from typing import Any

import pytest

from schemas import examples
from schemas.record import RecordError
from schemas.snapshots import Directory, Manifests, Roster, Snapshot

PERSONS = [{"id": "ada", "name": "Ada"}, {"id": "grace", "name": "Grace"}]
ACCOUNT = {"provider": "https://login.example.com", "subject": "1"}
KEY = {"keyid": "0" * 32, "public": examples.signer("core").public, "role": "core", "holder": "core", "valid_from": 0}
ACTION = {
    "name": "s3.export",
    "title": "Copy",
    "parameters": {"type": "object", "additionalProperties": False},
    "reversibility": "none",
    "timeout": 1,
    "lease": 1,
    "settle": 1,
}


def manifests(**changes: object) -> dict[str, Any]:
    return {"version": 1, "executors": [{"executor": "s3", "version": "1", "actions": [ACTION | changes]}]}


@pytest.mark.parametrize(
    ("kind", "members", "why"),
    [
        (Directory, {"version": 2}, "previous"),
        (Directory, {"version": 1, "previous": "0" * 64}, "previous"),
        (Roster, {"version": 0}, "version"),
        (Directory, {"persons": [*PERSONS, PERSONS[0]]}, "person or agent listed twice: ada"),
        (
            Directory,
            {"persons": PERSONS, "agents": [{"id": "ada", "owners": ["grace"]}]},
            "person or agent listed twice",
        ),
        (Directory, {"groups": [{"id": "sre"}, {"id": "sre"}]}, "group listed twice: sre"),
        (Directory, {"rotas": ["a", "a"]}, "rota listed twice"),
        (Directory, {"keys": [KEY, KEY]}, "key listed twice"),
        (Directory, {"persons": [person | {"accounts": [ACCOUNT]} for person in PERSONS]}, "account listed twice"),
        (
            Directory,
            {
                "persons": [PERSONS[0] | {"accounts": [ACCOUNT]}],
                "agents": [{"id": "bot", "owners": [PERSONS[0]["id"]], "accounts": [ACCOUNT]}],
            },
            "account listed twice",
        ),
        (Directory, {"agents": [{"id": "bot", "owners": ["eve"]}]}, "not a person of this directory: eve"),
        (Directory, {"agents": [{"id": "bot", "owners": []}]}, "owners"),
        (Directory, {"groups": [{"id": "sre", "members": ["eve"]}]}, "eve"),
        (Directory, {"persons": [PERSONS[0] | {"delegates": ["eve"]}]}, "eve"),
        (Directory, {"keys": [KEY | {"role": "notifier"}]}, "a notifier's key"),
        (Directory, {"keys": [KEY | {"channel": "api", "max_assurance": "identity"}]}, "a notifier's key"),
        (Manifests, manifests(name="iam.grant"), "an action of s3 is named s3"),
        (Manifests, manifests(parameters={"type": "object"}), "additionalProperties"),
        (Manifests, manifests(parameters={"additionalProperties": False}), "type"),
    ],
)
def test_a_document_that_could_be_meant_in_two_ways_is_refused(
    kind: type[Snapshot], members: dict[str, Any], why: str
) -> None:
    with pytest.raises(RecordError, match=why):
        kind.from_json({"version": 1} | members)


def test_an_action_is_found_by_its_name() -> None:
    one = Manifests.from_json(manifests())
    found = one.action("s3.export")
    assert found is not None
    assert found.title == "Copy"
    assert one.action("s3.delete") is None


@pytest.mark.parametrize("role", ["core", "agent", "intake"])
def test_only_whoever_vouches_for_logins_names_their_providers(role: str) -> None:
    with pytest.raises(RecordError, match="only a notifier's or a gateway's key names providers"):
        Directory.from_json({"version": 1, "keys": [KEY | {"role": role, "providers": ["T0001"]}]})
