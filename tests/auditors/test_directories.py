"""Whose login it is must never be a question: the verifier takes no directory that gives one login to two."""

import pytest

from auditors.verify.shapes import ShapeError
from auditors.verify.world import Directory

LOGIN = {"provider": "https://login.example.com", "subject": "b3c1"}
ADA = {"id": "ada", "accounts": [LOGIN]}
BOT = {"id": "bot", "owners": ["ada"]}


@pytest.mark.parametrize(
    "members",
    [
        {"persons": [ADA, {"id": "ben", "accounts": [LOGIN]}]},
        {"persons": [ADA], "agents": [BOT | {"accounts": [LOGIN]}]},
        {
            "persons": [{"id": "ada"}],
            "agents": [BOT | {"accounts": [LOGIN]}, BOT | {"id": "twin", "accounts": [LOGIN]}],
        },
    ],
)
def test_a_login_of_two_holders_is_no_directory(members: dict[str, object]) -> None:
    with pytest.raises(ShapeError, match="account"):
        Directory.read(members)


def test_an_agents_login_is_nobodys_who_could_decide() -> None:
    read = Directory.read({"persons": [{"id": "ada"}], "agents": [BOT | {"accounts": [LOGIN]}]})
    assert dict(read.accounts) == {}
