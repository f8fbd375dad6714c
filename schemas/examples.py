"""One story, told in every record there is: for vectors and documentation. No I/O, no clock, no randomness.

A bot asks to export logs from S3; two people look and say yes; the executor does it. Every value is fixed, and the
keys are published: they sign nothing but examples.
"""

import hashlib
from typing import Final

from schemas import ids, question
from schemas import records as r
from schemas import snapshots as s
from schemas.canonical import digest_of
from schemas.record import Record, Statement, state
from schemas.signing import PrivateKeySigner

REALM: Final = "example"
#: 2026-01-01T12:00:00Z.
NOON: Final = 1_767_268_800_000
PARTITION: Final = 3
INTENT_ID: Final = ids.intent_id("export-bot", NOON, bytes(range(10)))
ROLES: Final = ("root", "agent", "gateway", "intake", "core", "executor", "notifier", "roster", "notary", "operator")


def seed(role: str) -> bytes:
    """The published 32-byte seed of an example key: SHA-256 of its name."""
    return hashlib.sha256(f"keyturn example key: {role}".encode()).digest()


def signer(role: str) -> PrivateKeySigner:
    """The example key of a role."""
    return PrivateKeySigner.from_seed(seed(role))


def source(topic: str, offset: int) -> r.Source:
    """A place on the example's log."""
    return r.Source(topic=f"keyturn.{topic}", partition=PARTITION, offset=offset)


def _signed(record: Record, role: str) -> Statement:
    return state(record, signer(role), REALM)


VERSIONS: Final = r.Versions(directory=2, roster=1, policies=1, manifests=1, rules="rules-1")
INTENT: Final = r.Intent(
    id=INTENT_ID,
    subject=r.Subject(type="agent", id="export-bot"),
    action=r.Action(
        name="s3.export",
        properties={
            "source_bucket": "logs-prod",
            "source_prefix": "2025/12/",
            "destination_bucket": "audit-archive",
            "destination_prefix": "logs/2025/12/",
            "max_objects": 100,
        },
    ),
    resource=r.Resource(type="bucket", id="logs-prod"),
    context=r.Context(reason="Year-end audit: die Prüfer möchten Dezember sehen", on_behalf_of="ada", ticket="AUD-42"),
    ttl=3600,
)
WITHDRAWAL: Final = r.Withdrawal(intent=INTENT_ID, by=INTENT.subject, reason="asked for the wrong month")
FACTS: Final = (
    r.Fact(name="classification", source="nobody", observed_at=NOON),
    r.Fact(name="environment", value="production", source="catalog", observed_at=NOON),
)
REQUIREMENT: Final = r.Requirement(
    seats=(r.Seat(of="group:data-owners", count=1), r.Seat(of="group:sre", count=1)),
    assurance=r.Assurance.CHANNEL,
    within=900,
)
CLASSIFICATION: Final = r.Classification(
    effect=r.Effect.REQUIRE_APPROVAL, risk=r.Risk.HIGH, rules=("real-data",), requirement=REQUIREMENT
)
CLASSIFIED: Final = r.ClassifiedIntent(
    intent=_signed(INTENT, "agent"),
    source=source("intents", 17),
    asked_at=NOON + 40,
    facts=FACTS,
    classification=CLASSIFICATION,
    versions=VERSIONS,
)
FORWARDED: Final = r.ForwardedWithdrawal(
    withdrawal=_signed(WITHDRAWAL, "agent"), source=source("intents", 18), asked_at=NOON + 9000, versions=VERSIONS
)
ROUND: Final = r.Round(intent=INTENT_ID, number=1, opened=source("classified", 12))
PLAN_REQUEST: Final = r.PlanRequest(
    round=ROUND, classified=_signed(CLASSIFIED, "intake"), expires_at=NOON + 40 + 3_600_000
)
CHANGE: Final = r.Change(verb="copy", target="s3://audit-archive/logs/2025/12/a.gz", detail={"bytes": 1024})
PLAN: Final = r.Plan(
    round=ROUND,
    intent=INTENT.digest,
    executor="s3",
    manifest=1,
    summary="Copy 2 objects (2 KiB) to s3://audit-archive/logs/2025/12/",
    changes=(CHANGE,),
    lists=(r.ListLeaf(name="objects", count=2, bytes=2048, digest=digest_of(["a.gz", "b.gz"])),),
    fingerprints=(r.Fingerprint(target="s3://logs-prod/2025/12/a.gz", value="version:3Lg9"),),
    measures={"objects": 2, "bytes": 2048, "destination_public": False},
    reversibility=r.Reversibility.COMPENSATING,
    undo="Delete the versions that the receipt lists.",
    planned_at=NOON + 300,
)
PLAN_FAILED: Final = r.PlanFailed(round=ROUND, executor="s3", reason="s3://logs-prod is not there")
OPENED: Final = source("reports", 30)
QUESTION: Final = question.ask(REALM, INTENT_ID, CLASSIFIED, _signed(PLAN, "executor"), REQUIREMENT, OPENED)
DECISION: Final = r.Decision(
    intent=INTENT_ID,
    question=QUESTION.digest,
    verdict=r.Verdict.APPROVE,
    account=r.AccountRef(provider="https://login.example.com", subject="grace@example.com"),
    person="grace",
    channel=r.Channel.API,
    evidence=r.Evidence(
        kind="oidc",
        digest=digest_of("an example's token"),
        issuer="https://login.example.com",
        auth_time=NOON // 1000 - 60,
        amr=("hwk",),
    ),
    card=digest_of("an example's card"),
)
VOTE: Final = r.Vote(
    person="grace", decision=_signed(DECISION, "notifier"), log_time=NOON + 60_000, source=source("decisions", 5)
)
APPROVED: Final = r.ApprovedIntent(
    intent=INTENT_ID, question=QUESTION.digest, executor="s3", approved_until=NOON + 40 + 3_600_000
)
CLAIM: Final = r.Claim(intent=INTENT_ID, question=QUESTION.digest, executor="s3", instance="s3-0-1f3a")
GRANT: Final = r.Grant(
    question=QUESTION,
    requirement=REQUIREMENT,
    classified=_signed(CLASSIFIED, "intake"),
    plan=_signed(PLAN, "executor"),
    votes=(VOTE,),
    circle=("ada", "linus"),
    instance=CLAIM.instance,
    executor="s3",
    claim=source("reports", 31),
    granted_at=NOON + 61_000,
    lease_until=NOON + 61_000 + 900_000,
    versions=VERSIONS,
)
CLAIM_REFUSED: Final = r.ClaimRefused(
    intent=INTENT_ID, question=QUESTION.digest, instance="s3-1-77b0", refusal=r.Refusal.WRONG_PHASE
)
ENDED: Final = r.ApprovalEnded(intent=INTENT_ID, question=QUESTION.digest)
UNKNOWN: Final = r.OutcomeUnknown(intent=INTENT_ID, grant=GRANT, since=NOON + 1_100_000)
RECEIPT: Final = r.Receipt(
    summary="2 objects copied", changes=(CHANGE,), measures={"objects": 2}, requests=("4442587F",)
)
OUTCOME: Final = r.Outcome(
    intent=INTENT_ID,
    grant=GRANT.digest,
    instance=GRANT.instance,
    executor="s3",
    result=r.Result.SUCCEEDED,
    receipt=RECEIPT,
    undo="Delete the versions that the receipt lists.",
)
RESOLUTION: Final = r.Resolution(
    intent=INTENT_ID,
    grant=GRANT.digest,
    found="succeeded",
    account=DECISION.account,
    person="grace",
    channel=r.Channel.API,
    evidence=DECISION.evidence,
    reason="I listed the destination: both objects are there",
    card=DECISION.card,
)
JOURNAL: Final = r.JournalEntry(
    intent=INTENT_ID,
    grant=GRANT.digest,
    instance=GRANT.instance,
    step=1,
    entry="started",
    what="copy 2025/12/a.gz",
    detail={"bytes": 1024},
)
ROW: Final = r.PendingApproval(
    intent_id=INTENT_ID,
    phase=r.Phase.PENDING,
    classified=_signed(CLASSIFIED, "intake"),
    classification=CLASSIFICATION,
    round=ROUND,
    plan=_signed(PLAN, "executor"),
    question=QUESTION,
    votes=(VOTE,),
    circle=("ada", "linus"),
    circle_from=2,
    circle_to=2,
    asked_at=CLASSIFIED.asked_at,
    expires_at=NOON + 900_000,
    answers=(r.Answer(source=VOTE.source, person="grace", verdict=r.Verdict.APPROVE),),
    changed=VOTE.source,
    changed_at=VOTE.log_time,
)
SHOWN_CARD: Final = r.ShownCard(
    intent=INTENT_ID,
    question=QUESTION.digest,
    channel=DECISION.channel,
    place="C0123456789",
    message="1767225600.000100",
    payload=DECISION.card,
    offers_approve=True,
)
STATUS: Final = r.IntentStatus(intent=INTENT_ID, phase=r.Phase.PENDING, at=VOTE.log_time)
PROGRESS: Final = r.Progress(
    partition=PARTITION,
    positions={"keyturn.classified": 13, "keyturn.decisions": 6},
    head=r.ChainHead(seq=4, digest=digest_of("an example's audit record")),
    numbers={"keyturn.pending": 9},
    versions=VERSIONS,
    log_time=VOTE.log_time,
)
AUDIT: Final = r.AuditRecord(
    realm=REALM,
    chain=f"core-{PARTITION}",
    seq=5,
    prev=digest_of("an example's audit record"),
    log_time=VOTE.log_time,
    source=VOTE.source,
    event="decision.recorded",
    intent=INTENT_ID,
    before=r.Phase.PENDING,
    after=r.Phase.PENDING,
    statement=VOTE.decision,
    said=(r.Said(topic="keyturn.pending", type=r.PendingApproval.TYPE, digest=ROW.digest),),
    question=QUESTION,
    requirement=REQUIREMENT,
    circle=("ada", "linus"),
    versions=VERSIONS,
)
QUARANTINED: Final = r.Quarantined(
    source=source("intents", 19),
    stage="intake",
    refusal=r.Refusal.MALFORMED,
    reason="not JSON",
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    bytes=4,
    value="dGVzdA==",
)
SKIP: Final = r.Skip(
    topic="classified", partition=PARTITION, position=20, until=23, reason="the disk of broker 2 burnt; see INC-7"
)
RESTORE: Final = r.Restore(
    partition=PARTITION,
    head=r.ChainHead(seq=41, digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    at=NOON,
    reason="volumes put back to the snapshot of 02:00; see INC-9",
)
REDRIVE: Final = r.Redrive(
    source=source("intents", 19),
    sha256=QUARANTINED.sha256,
    bytes=QUARANTINED.bytes,
    reason="its key was listed too late",
)
TICK: Final = r.Tick(partition=PARTITION, number=1)
GENESIS: Final = r.Genesis(realm=REALM, topic="keyturn.intents", partition=PARTITION)


def _key(role: s.Role, holder: str) -> s.Key:
    one = signer(role)
    is_notifier = role == "notifier"
    providers = (DECISION.account.provider,) if role in {"notifier", "gateway"} else ()
    return s.Key(
        keyid=one.keyid,
        public=one.public,
        role=role,
        holder=holder,
        channel=r.Channel.API if is_notifier else None,
        max_assurance=r.Assurance.IDENTITY if is_notifier else None,
        providers=providers,
        valid_from=0,
    )


DIRECTORY: Final = s.Directory(
    version=1,
    persons=(
        s.Person(
            id="ada",
            name="Ada Lovelace",
            accounts=(r.AccountRef(provider="https://login.example.com", subject="ada@example.com"),),
            delegates=("linus",),
        ),
        s.Person(id="grace", name="Grace Hopper", accounts=(DECISION.account,)),
        s.Person(id="linus", name="Linus Pauling"),
    ),
    agents=(s.Agent(id="export-bot", owners=("linus",), users=("ada",), gateways=("gateway",)),),
    groups=(s.Group(id="sre", members=("ada", "grace")), s.Group(id="data-owners", is_synced=True)),
    rotas=("payments",),
    keys=(_key("root", "root"), _key("agent", "export-bot"), _key("core", "core"), _key("notifier", "api")),
)
ROSTER: Final = s.Roster(
    version=1,
    groups=(s.Group(id="data-owners", members=("linus",)),),
    rotas=(s.Rota(id="payments", shifts=(s.Shift(person="grace", starts_at=NOON, ends_at=NOON + 28_800_000),)),),
)
POLICIES: Final = s.Policies(
    version=1,
    cedar='@id("real-data") @approvers("group:sre group:data-owners") @within("15m")\n'
    'permit (principal, action == Action::"s3.export", resource);\n',
)
MANIFESTS: Final = s.Manifests(
    version=1,
    executors=(
        s.Manifest(
            executor="s3",
            version="1",
            actions=(
                s.ManifestAction(
                    name="s3.export",
                    title="Copy objects",
                    parameters={
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"source_bucket": {"type": "string"}},
                        "required": ["source_bucket"],
                    },
                    measures={"objects": "integer"},
                    permissions=("s3:GetObject", "s3:PutObject"),
                    reversibility=r.Reversibility.COMPENSATING,
                    timeout=600,
                    lease=900,
                    settle=60,
                ),
            ),
        ),
    ),
)

TOLD_BY: Final[tuple[tuple[Record, str], ...]] = (
    (INTENT, "agent"),
    (WITHDRAWAL, "agent"),
    (CLASSIFIED, "intake"),
    (FORWARDED, "intake"),
    (PLAN_REQUEST, "core"),
    (PLAN, "executor"),
    (PLAN_FAILED, "executor"),
    (ROW, "core"),
    (STATUS, "core"),
    (DECISION, "notifier"),
    (RESOLUTION, "notifier"),
    (SHOWN_CARD, "notifier"),
    (APPROVED, "core"),
    (CLAIM, "executor"),
    (GRANT, "core"),
    (CLAIM_REFUSED, "core"),
    (ENDED, "core"),
    (UNKNOWN, "core"),
    (OUTCOME, "executor"),
    (JOURNAL, "executor"),
    (TICK, "core"),
    (PROGRESS, "core"),
    (AUDIT, "core"),
    (QUARANTINED, "intake"),
    (SKIP, "root"),
    (RESTORE, "root"),
    (REDRIVE, "operator"),
    (GENESIS, "root"),
    (DIRECTORY, "root"),
    (ROSTER, "root"),
    (POLICIES, "root"),
    (MANIFESTS, "root"),
)
"""Every record of the story, and the role whose key signs it."""
