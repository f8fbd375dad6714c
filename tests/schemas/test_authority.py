from typing import Any

import pytest

from schemas import examples, signing
from schemas.authority import MAY_SIGN, Authority, vouches
from schemas.record import Record, Statement, state
from schemas.records import AccountRef, Channel, Evidence, Intent, Refusal, Subject, Withdrawal
from schemas.snapshots import Key, Role

REALM, NOON = examples.REALM, examples.NOON
ISSUER, DIRECTORY = "https://login.example.com", examples.DIRECTORY
HOLDERS: dict[str, str] = {"agent": "export-bot", "executor": "s3", "notifier": "api"}
ROLES: tuple[Role, ...] = (
    "root",
    "agent",
    "gateway",
    "intake",
    "core",
    "executor",
    "notifier",
    "roster",
    "notary",
    "operator",
)


def key(role: Role, **more: Any) -> Key:
    one = examples.signer(role)
    vouches = {"channel": "api", "max_assurance": "identity"} if role == "notifier" else {}
    if role in {"notifier", "gateway"}:
        vouches |= {"providers": (ISSUER,)}
    members = {
        "keyid": one.keyid,
        "public": one.public,
        "role": role,
        "holder": HOLDERS.get(role, role),
        "valid_from": 0,
    }
    return Key.model_validate(members | vouches | more, strict=False)


def authority(*keys: Key) -> Authority:
    return Authority(REALM, DIRECTORY.model_copy(update={"keys": keys or tuple(key(role) for role in ROLES)}))


ALL = authority()


def signed(record: Record, role: str, realm: str = REALM) -> Statement:
    return state(record, examples.signer(role), realm)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("record", [record for record, _ in examples.TOLD_BY], ids=lambda one: one.TYPE)
def test_a_role_says_what_is_its_to_say_and_nothing_else(record: Record, role: Role) -> None:
    refusal = ALL.refuses(signed(record, role), NOON)
    assert refusal is (None if role in MAY_SIGN[record.TYPE] else Refusal.BAD_SIGNATURE)


def test_a_key_nobody_listed_says_nothing() -> None:
    assert authority(key("core")).refuses(signed(examples.CLAIM, "executor"), NOON) is Refusal.BAD_SIGNATURE


@pytest.mark.parametrize(("at", "counts"), [(99, False), (100, True), (199, True), (200, False)])
def test_a_key_speaks_from_its_first_instant_until_before_its_last(at: int, counts: bool) -> None:
    one = authority(key("executor", valid_from=100, valid_until=200))
    assert (one.refuses(signed(examples.CLAIM, "executor"), at) is None) is counts
    assert one.key(examples.signer("executor").keyid) is not None, "a retired key is still known"


def test_another_realms_yes_is_nothing_here() -> None:
    assert ALL.refuses(signed(examples.DECISION, "notifier", "staging"), NOON) is Refusal.BAD_SIGNATURE


def test_a_signature_under_another_body_is_nothing() -> None:
    one = signed(examples.CLAIM, "executor")
    changed = one.model_copy(update={"body": one.body | {"instance": "s3-1-ffff"}})
    assert ALL.refuses(changed, NOON) is Refusal.BAD_SIGNATURE


def intent(**changes: object) -> Intent:
    return examples.INTENT.model_copy(update=changes)


@pytest.mark.parametrize(
    ("record", "role"),
    [
        (intent(id=examples.INTENT_ID.replace("export-bot", "other-bot")), "agent"),
        (intent(subject=Subject(type="agent", id="other-bot")), "agent"),
        (intent(subject=Subject(type="person", id="export-bot")), "agent"),
        (intent(subject=Subject(type="agent", id="other-bot")), "gateway"),
        (Withdrawal(intent=examples.INTENT_ID, by=Subject(type="person", id="ada")), "agent"),
        (examples.PLAN.model_copy(update={"executor": "iam"}), "executor"),
        (examples.CLAIM.model_copy(update={"executor": "iam"}), "executor"),
        (examples.OUTCOME.model_copy(update={"executor": "iam"}), "executor"),
        (examples.DECISION.model_copy(update={"channel": Channel.SLACK}), "notifier"),
        (examples.RESOLUTION.model_copy(update={"channel": Channel.TEAMS}), "notifier"),
    ],
    ids=[
        "an agent under another's id",
        "an agent for another agent",
        "an agent as a person",
        "the gateway under another's id",
        "an agent as an owner",
        "a plan of another executor",
        "a claim of another executor",
        "an outcome of another executor",
        "a decision of another channel",
        "a resolution of another channel",
    ],
)
def test_a_holder_speaks_only_for_itself(record: Record, role: str) -> None:
    assert ALL.refuses(signed(record, role), NOON) is Refusal.NOT_ENTITLED


def test_a_body_that_is_no_record_at_all_entitles_nobody() -> None:
    agent = examples.signer("agent")
    for body in ({"id": "x"}, {"id": "no id", "subject": {}}, {}):
        statement = Statement(
            type=Intent.TYPE, body=body, keyid=agent.keyid, sig=signing.sign(agent, REALM, Intent.TYPE, _bytes(body))
        )
        assert ALL.refuses(statement, NOON) is Refusal.NOT_ENTITLED


def _bytes(body: dict[str, Any]) -> bytes:
    return Statement(type=Intent.TYPE, body=body, keyid="0" * 32, sig="A" * 86 + "==").value


def test_the_gateway_speaks_for_persons_and_for_agents_without_keys() -> None:
    person = examples.INTENT_ID.replace("export-bot", "ada")
    assert ALL.refuses(signed(intent(id=person, subject=Subject(type="person", id="ada")), "gateway"), NOON) is None
    assert ALL.refuses(signed(examples.INTENT, "gateway"), NOON) is None
    owner = Withdrawal(intent=examples.INTENT_ID, by=Subject(type="person", id="ada"))
    assert ALL.refuses(signed(owner, "gateway"), NOON) is None


def listed(**changes: Any) -> Authority:
    """The examples' directory, with its one agent changed."""
    agent = examples.DIRECTORY.agents[0].model_copy(update=changes)
    keys = tuple(key(role) for role in ROLES)
    return Authority(REALM, examples.DIRECTORY.model_copy(update={"agents": (agent,), "keys": keys}))


@pytest.mark.parametrize("gateways", [(), ("another",)])
def test_a_gateway_that_an_agent_does_not_list_says_nothing_in_its_name(gateways: tuple[str, ...]) -> None:
    one = listed(gateways=gateways)
    taken_back = Withdrawal(intent=examples.INTENT_ID, by=Subject(type="agent", id="export-bot"))
    for record in (examples.INTENT, taken_back):
        assert one.refuses(signed(record, "gateway"), NOON) is Refusal.NOT_ENTITLED
        assert one.refuses(signed(record, "agent"), NOON) is None


@pytest.mark.parametrize("providers", [(), ("https://other.example",)])
def test_a_gateway_says_nothing_for_a_person_whose_login_it_cannot_have_seen(providers: tuple[str, ...]) -> None:
    one = authority(key("gateway", providers=providers))
    ada = Subject(type="person", id="ada")
    asked = intent(id=examples.INTENT_ID.replace("export-bot", "ada"), subject=ada)
    for record in (asked, Withdrawal(intent=examples.INTENT_ID, by=ada)):
        assert one.refuses(signed(record, "gateway"), NOON) is Refusal.NOT_ENTITLED


def test_a_gateway_says_nothing_for_a_person_without_a_login() -> None:
    owner = Withdrawal(intent=examples.INTENT_ID, by=Subject(type="person", id="linus"))
    assert ALL.refuses(signed(owner, "gateway"), NOON) is Refusal.NOT_ENTITLED


CHAT = Evidence(kind="chat", digest="0" * 64)
OIDC = Evidence(kind="oidc", digest="0" * 64, issuer=ISSUER, auth_time=1)


@pytest.mark.parametrize(
    ("channel", "provider", "evidence", "counts"),
    [
        ("slack", "T1", CHAT, True),
        ("slack", "T1", CHAT.model_copy(update={"issuer": "T1"}), True),
        ("slack", "T1", CHAT.model_copy(update={"issuer": "T2"}), False),
        ("slack", "T2", CHAT, False),
        ("slack", ISSUER, CHAT, False),
        ("slack", ISSUER, OIDC, False),
        ("slack", "T1", OIDC.model_copy(update={"issuer": "T1"}), False),
        ("teams", "T1", CHAT, True),
        ("teams", ISSUER, OIDC, False),
        ("api", ISSUER, OIDC, False),
        ("api", "T1", OIDC, False),
        ("api", "T1", OIDC.model_copy(update={"issuer": "T1"}), True),
        ("api", "T1", OIDC.model_copy(update={"issuer": None}), False),
        ("api", "T1", CHAT, False),
        ("console", "T1", OIDC.model_copy(update={"issuer": "T1"}), True),
        ("console", "T1", CHAT, False),
    ],
)
@pytest.mark.parametrize("record", [examples.DECISION, examples.RESOLUTION], ids=lambda one: one.TYPE)
def test_a_channels_key_vouches_for_its_own_providers_logins_alone(
    record: Record, channel: str, provider: str, evidence: Evidence, counts: bool
) -> None:
    one = authority(key("notifier", channel=channel, providers=("T1",)))
    account = AccountRef(provider=provider, subject="grace@example.com")
    said = record.model_copy(update={"channel": Channel(channel), "account": account, "evidence": evidence})
    assert one.refuses(signed(said, "notifier"), NOON) is (None if counts else Refusal.NOT_ENTITLED)


def test_a_notifier_whose_key_names_no_provider_vouches_for_nobody() -> None:
    one = authority(key("notifier", providers=()))
    assert one.refuses(signed(examples.DECISION, "notifier"), NOON) is Refusal.NOT_ENTITLED


def test_a_key_that_may_not_say_it_is_told_which_field_of_the_directory_is_empty() -> None:
    def why(one: Authority, record: Record, role: Role) -> str:
        statement = signed(record, role)
        refusal = one.refuses(statement, NOON)
        assert refusal is not None
        return one.why(statement, refusal)

    ada = Subject(type="person", id="ada")
    asked = intent(id=examples.INTENT_ID.replace("export-bot", "ada"), subject=ada)
    slack = authority(key("notifier", channel="slack", providers=(ISSUER,)))
    assert "`gateways`" in why(listed(gateways=()), examples.INTENT, "gateway")
    assert "`providers` of the gateway's key" in why(authority(key("gateway", providers=())), asked, "gateway")
    deaf = authority(key("notifier", providers=()))
    assert "`providers` of the notifier's key" in why(deaf, examples.DECISION, "notifier")
    assert "another channel" in why(slack, examples.DECISION, "notifier")
    chat = examples.DECISION.model_copy(update={"channel": Channel.SLACK})
    assert "evidence" in why(slack, chat, "notifier")
    assert "signs for nobody else" in why(ALL, asked, "agent")
    assert why(ALL, examples.DECISION, "core").startswith("the signature does not fit")


@pytest.mark.parametrize("subject", [None, "export-bot", ["export-bot"], 7])
def test_who_asks_must_be_somebody_at_all(subject: object) -> None:
    said = signed(examples.INTENT, "agent")
    assert ALL.refuses(said, NOON) is None
    odd = said.model_copy(update={"body": {**said.body, "subject": subject}})
    assert not ALL._speaks_for(key("agent"), odd.body["subject"])


@pytest.mark.parametrize("member", ["account", "evidence"])
def test_a_notifier_vouches_for_nothing_that_is_no_account_or_no_evidence(member: str) -> None:
    body = signed(examples.DECISION, "notifier").body
    assert vouches(key("notifier"), dict(body))
    assert not vouches(key("notifier"), {**body, member: "dan"})
