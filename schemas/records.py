"""The records of a life: intent, classification, plan, question, decision, approval, claim, grant, outcome.

Every type is listed in `RECORDS`; the wire contract (`schemas/json/`) is generated from it. Instants are Unix
milliseconds; digests are SHA-256 of canonical bytes.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from schemas import canonical
from schemas.record import (
    ActionName,
    Count,
    Digest,
    Identifier,
    InstanceId,
    Instant,
    IntentId,
    MemberName,
    Name,
    Part,
    Prose,
    RealmName,
    Record,
    Scalar,
    Seconds,
    Statement,
)


class Source(Part):
    """A place on the log. `topic` is the name on the map, without the installation's prefix."""

    topic: Identifier
    partition: Count
    offset: Count


# ---------------------------------------------------------------- what is asked


class Subject(Part):
    """Who asks (OpenID AuthZEN: subject)."""

    type: Literal["agent", "person"]
    id: Name


Property = Scalar | Annotated[tuple[Scalar, ...], Field(max_length=256)]


class Action(Part):
    """What is to be done (AuthZEN: action). The executor's manifest says which properties there are."""

    name: ActionName
    properties: Annotated[dict[MemberName, Property], Field(max_length=64)] = {}


class Resource(Part):
    """On what (AuthZEN: resource)."""

    type: Name
    id: Identifier


class Context(Part):
    """In which circumstances (AuthZEN: context): the requester's own words, except what intake verified."""

    reason: Prose
    #: The person the agent says it acts for. Verified only where the gateway signed it after checking a token;
    #: otherwise it widens the circle and never narrows it (law 2).
    on_behalf_of: Name | None = None
    run: Identifier | None = None
    traceparent: Annotated[str, Field(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")] | None = None
    ticket: Identifier | None = None


class Intent(Record):
    """What an agent or a person wants done. Immutable: the first body seen under an id pins it (law 1)."""

    TYPE: ClassVar[str] = "keyturn.intent.v1"
    MAX_DEPTH: ClassVar[int] = 6
    MAX_BYTES: ClassVar[int] = 16 * 1024

    id: IntentId
    subject: Subject
    action: Action
    resource: Resource
    context: Context
    #: The requester's own deadline; policy may only shorten it.
    ttl: Seconds

    @property
    def content_digest(self) -> str:
        """Recognises the same wish asked again: everything but the id, the context and the ttl."""
        members = self.to_json()
        return canonical.digest_of({name: members[name] for name in ("subject", "action", "resource")})

    @property
    def executor(self) -> str:
        """The executor of this action."""
        return self.action.name.partition(".")[0]


class Withdrawal(Record):
    """I take my intent back: the requester, or an owner of the agent."""

    TYPE: ClassVar[str] = "keyturn.withdrawal.v1"
    MAX_DEPTH: ClassVar[int] = 6
    MAX_BYTES: ClassVar[int] = 16 * 1024

    intent: IntentId
    by: Subject
    reason: Prose | None = None


# ---------------------------------------------------------------- what policy says


class Effect(StrEnum):
    """Policy's answer."""

    PERMIT = "permit"
    DENY = "deny"
    REQUIRE_APPROVAL = "require_approval"


class Risk(StrEnum):
    """How much is at stake, in rising order."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Assurance(StrEnum):
    """How sure we are who clicked, in rising order. It is *derived* from evidence, never claimed."""

    #: A chat platform says so.
    CHANNEL = "channel"
    #: The identity provider says so, by a fresh login.
    IDENTITY = "identity"
    #: The person signed the question with an authenticator (WebAuthn).
    PERSON = "person"


class Fact(Part):
    """Something intake found out. Without `value` it is unknown, which can only raise the class."""

    name: MemberName
    value: Scalar | None = None
    source: Name
    observed_at: Instant


class Seat(Part):
    """Places to fill from one group of persons: `group:sre`, `oncall:payments`, `owners:agent`."""

    of: Annotated[str, Field(pattern=r"^(group|oncall):[a-z0-9][a-z0-9_-]{0,62}$")]
    count: Annotated[int, Field(ge=1, le=16)]


class Requirement(Part):
    """What must be fulfilled before the action may run."""

    seats: Annotated[tuple[Seat, ...], Field(min_length=1, max_length=16)]
    assurance: Assurance
    within: Seconds


class Classification(Part):
    """What policy says of an intent: a pure function of (intent, facts, plan, world, log time)."""

    effect: Effect
    risk: Risk
    rules: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()
    requirement: Requirement | None = None
    reason: Prose | None = None


class Versions(Part):
    """What a statement rests on: the versions in force of each live document, and of the rules in code."""

    directory: Count
    roster: Count
    policies: Count
    manifests: Count
    rules: Identifier


class Refusal(StrEnum):
    """Why an input had no effect. The whole catalogue; each is audited and the requester can see its own."""

    BAD_SIGNATURE = "bad_signature"
    NOT_ENTITLED = "not_entitled"
    MALFORMED = "malformed"
    WRONG_PARTITION = "wrong_partition"
    ID_OUT_OF_WINDOW = "id_out_of_window"
    UNKNOWN_AGENT = "unknown_agent"
    UNKNOWN_PERSON = "unknown_person"
    UNKNOWN_ACTION = "unknown_action"
    UNKNOWN_INTENT = "unknown_intent"
    BAD_PARAMETERS = "bad_parameters"
    SECRET_FOUND = "secret_found"  # noqa: S105 - the name of a refusal
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    OVERLOADED = "overloaded"
    COOL_DOWN = "cool_down"
    STALE_WORLD = "stale_world"
    WRONG_ROUND = "wrong_round"
    WRONG_QUESTION = "wrong_question"
    WRONG_GRANT = "wrong_grant"
    WRONG_INSTANCE = "wrong_instance"
    WRONG_PHASE = "wrong_phase"
    SELF_APPROVAL = "self_approval"
    NO_SEAT = "no_seat"
    ALREADY_DECIDED = "already_decided"
    BARRED = "barred"
    ASSURANCE_TOO_LOW = "assurance_too_low"
    LATE = "late"
    FINAL = "final"
    NOTHING_TO_REVOKE = "nothing_to_revoke"
    NOT_LOST = "not_lost"
    INTERNAL = "internal"


class ClassifiedIntent(Record):
    """Intake's answer to one record of `intents`: a proposal, which the core computes again (law 6)."""

    TYPE: ClassVar[str] = "keyturn.classified-intent.v1"
    MAX_DEPTH: ClassVar[int] = 10
    MAX_BYTES: ClassVar[int] = 64 * 1024

    intent: Statement
    source: Source
    #: The log time of the source.
    asked_at: Instant
    facts: Annotated[tuple[Fact, ...], Field(max_length=64)] = ()
    classification: Classification | None = None
    refusal: Refusal | None = None
    reason: Prose | None = None
    versions: Versions


class ForwardedWithdrawal(Record):
    """A withdrawal whose signature intake verified, passed on in order with the intents it is about."""

    TYPE: ClassVar[str] = "keyturn.forwarded-withdrawal.v1"
    MAX_DEPTH: ClassVar[int] = 10
    MAX_BYTES: ClassVar[int] = 32 * 1024

    withdrawal: Statement
    source: Source
    asked_at: Instant
    refusal: Refusal | None = None
    reason: Prose | None = None
    versions: Versions


# ---------------------------------------------------------------- what would happen


class Round(Part):
    """One round of planning: which intent, by number, and the log position that opened it."""

    intent: IntentId
    number: Annotated[int, Field(ge=1, le=1000)]
    opened: Source


class PlanRequest(Record):
    """The core asks an executor to plan. Topic `planning.<executor>`."""

    TYPE: ClassVar[str] = "keyturn.plan-request.v1"
    MAX_DEPTH: ClassVar[int] = 12
    MAX_BYTES: ClassVar[int] = 96 * 1024

    round: Round
    classified: Statement
    #: A plan after this instant is of no use.
    expires_at: Instant


class Change(Part):
    """One thing that would change in the world, in the executor's words."""

    verb: Literal["create", "update", "delete", "replace", "copy", "attach", "detach"]
    target: Identifier
    detail: Annotated[dict[MemberName, Scalar], Field(max_length=16)] = {}


class ListLeaf(Part):
    """A list too long for the plan, bound by digest: the executor derives it again and compares."""

    name: MemberName
    count: Count
    bytes: Count
    digest: Digest


class Fingerprint(Part):
    """The state of one target when it was read: an ETag, a version id, a hash, a change-set ARN."""

    target: Identifier
    value: Identifier


class Reversibility(StrEnum):
    """What an undo can do, from best to none."""

    EXACT = "exact"
    COMPENSATING = "compensating"
    WINDOW = "window"
    NONE = "none"


class Plan(Record):
    """What an executor would do, read from the real system with read-only rights. Topic `reports`."""

    TYPE: ClassVar[str] = "keyturn.plan.v1"
    MAX_BYTES: ClassVar[int] = 32 * 1024

    round: Round
    #: Digest of the intent that was planned.
    intent: Digest
    executor: Name
    manifest: Count
    summary: Prose
    changes: Annotated[tuple[Change, ...], Field(max_length=256)] = ()
    lists: Annotated[tuple[ListLeaf, ...], Field(max_length=16)] = ()
    fingerprints: Annotated[tuple[Fingerprint, ...], Field(max_length=256)] = ()
    #: Numbers and words that policy can judge; the manifest declares them.
    measures: Annotated[dict[MemberName, Scalar], Field(max_length=32)] = {}
    reversibility: Reversibility
    undo: Prose
    planned_at: Instant


class PlanFailed(Record):
    """There is no plan: the target is missing, the parameters make no sense in the world. Topic `reports`."""

    TYPE: ClassVar[str] = "keyturn.plan-failed.v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    round: Round
    executor: Name
    reason: Prose


# ---------------------------------------------------------------- what people are asked, and say


class Question(Part):
    """What people sign: realm, intent, plan, facts, requirement, and the log position that opened it (law 1)."""

    realm: RealmName
    intent_id: IntentId
    intent: Digest
    plan: Digest
    facts: Digest
    #: Digest of the requirement.
    requirement: Digest
    opened: Source

    @property
    def digest(self) -> str:
        """The question's name: SHA-256 of its canonical bytes."""
        return canonical.digest_of(self.to_json())


class Verdict(StrEnum):
    """One person's word."""

    APPROVE = "approve"
    DENY = "deny"
    REVOKE = "revoke"


class Channel(StrEnum):
    """Where a decision came in."""

    SLACK = "slack"
    TEAMS = "teams"
    API = "api"
    CONSOLE = "console"


class AccountRef(Part):
    """One login: (provider, subject). The provider is an OIDC issuer, a Slack team, an Entra tenant."""

    provider: Identifier
    subject: Identifier


class Evidence(Part):
    """What the channel can vouch for; assurance is derived from it (`schemas.assurance`)."""

    kind: Literal["chat", "oidc", "webauthn"]
    #: SHA-256 of the request or token that the channel verified.
    digest: Digest
    issuer: Identifier | None = None
    #: OpenID Connect Core 1.0, 2: when the person last logged in, Unix seconds; which context and methods.
    auth_time: Count | None = None
    acr: Identifier | None = None
    amr: Annotated[tuple[Identifier, ...], Field(max_length=16)] = ()


class Decision(Record):
    """One person's word on one question. Topic `decisions`."""

    TYPE: ClassVar[str] = "keyturn.decision.v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    intent: IntentId
    question: Digest
    verdict: Verdict
    account: AccountRef
    #: The person the notifier resolved; the core resolves again and compares.
    person: Name | None = None
    channel: Channel
    evidence: Evidence
    reason: Prose | None = None
    #: Digest of exactly what was shown (law 7).
    card: Digest


class Resolution(Record):
    """What people found out about an `unknown`. Topic `decisions`."""

    TYPE: ClassVar[str] = "keyturn.resolution.v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    intent: IntentId
    #: Digest of the grant whose outcome is unknown.
    grant: Digest
    found: Literal["succeeded", "failed"]
    account: AccountRef
    person: Name | None = None
    channel: Channel
    evidence: Evidence
    reason: Prose
    card: Digest


# ---------------------------------------------------------------- acting


class Vote(Part):
    """A decision that counts, with the log time at which it was said."""

    person: Name
    decision: Statement
    log_time: Instant
    source: Source


class ApprovedIntent(Record):
    """May be claimed until `approved_until`. Topic `approved.<executor>`."""

    TYPE: ClassVar[str] = "keyturn.approved-intent.v1"
    MAX_BYTES: ClassVar[int] = 8 * 1024

    intent: IntentId
    question: Digest
    executor: Name
    approved_until: Instant


class Claim(Record):
    """This process instance will act. Topic `reports`."""

    TYPE: ClassVar[str] = "keyturn.claim.v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024

    intent: IntentId
    question: Digest
    executor: Name
    instance: InstanceId


class Grant(Record):
    """The one right to act, for one instance, until the lease ends: everything needed to check it again.

    Topic `approved.<executor>`. Its digest is its name; outcomes cite it (law 4).
    """

    TYPE: ClassVar[str] = "keyturn.grant.v1"
    MAX_DEPTH: ClassVar[int] = 14

    question: Question
    requirement: Requirement | None = None
    classified: Statement
    plan: Statement
    votes: Annotated[tuple[Vote, ...], Field(max_length=64)] = ()
    #: Every person of the circle over every directory version since the asking.
    circle: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()
    instance: InstanceId
    executor: Name
    #: The claim this answers, and its log time.
    claim: Source
    granted_at: Instant
    lease_until: Instant
    versions: Versions


class ClaimRefused(Record):
    """No, because. Topic `approved.<executor>`."""

    TYPE: ClassVar[str] = "keyturn.claim-refused.v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024

    intent: IntentId
    question: Digest
    instance: InstanceId
    refusal: Refusal


class ApprovalEnded(Record):
    """No longer to be claimed: withdrawn, revoked, denied, expired, or asked again. Topic `approved.<executor>`."""

    TYPE: ClassVar[str] = "keyturn.approval-ended.v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024

    intent: IntentId
    question: Digest


class OutcomeUnknown(Record):
    """The lease and the settle time ended without an outcome: whoever runs may now observe, nobody may act.

    Topic `approved.<executor>`. Carries the grant, so that a fresh process can observe.
    """

    TYPE: ClassVar[str] = "keyturn.outcome-unknown.v1"
    MAX_DEPTH: ClassVar[int] = 15

    intent: IntentId
    grant: Grant
    since: Instant


class Receipt(Part):
    """The proof from the provider. No secrets."""

    summary: Prose
    changes: Annotated[tuple[Change, ...], Field(max_length=256)] = ()
    lists: Annotated[tuple[ListLeaf, ...], Field(max_length=16)] = ()
    measures: Annotated[dict[MemberName, Scalar], Field(max_length=32)] = {}
    #: The provider's own request ids.
    requests: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()


class Result(StrEnum):
    """How an act ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: A fingerprint differed; nothing was done.
    STALE = "stale"
    UNKNOWN = "unknown"


class Outcome(Record):
    """What happened. Cites its grant; an observation also cites the `unknown` it answers. Topic `reports`."""

    TYPE: ClassVar[str] = "keyturn.outcome.v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    intent: IntentId
    grant: Digest
    instance: InstanceId
    executor: Name
    result: Result
    observed: bool = False
    #: Digest of the OutcomeUnknown that let this observer look.
    unknown: Digest | None = None
    receipt: Receipt | None = None
    undo: Prose | None = None
    reason: Prose | None = None


class Tick(Record):
    """Time has passed: the log time of this record is the core's clock for deadlines (law 5)."""

    TYPE: ClassVar[str] = "keyturn.tick.v1"
    MAX_BYTES: ClassVar[int] = 1024

    partition: Count
    number: Count


class Genesis(Record):
    """The first record of an input partition, so that no committed offset is ever 0. Everybody skips it."""

    TYPE: ClassVar[str] = "keyturn.genesis.v1"
    MAX_BYTES: ClassVar[int] = 1024

    realm: RealmName
    topic: Identifier
    partition: Count


# ---------------------------------------------------------------- what everybody can see


class Phase(StrEnum):
    """Where an intent is in its life."""

    PLANNING = "planning"
    PENDING = "pending"
    APPROVED = "approved"
    EXECUTING = "executing"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    EXPIRED = "expired"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


FINAL: Final = frozenset(
    {
        Phase.REFUSED,
        Phase.DENIED,
        Phase.WITHDRAWN,
        Phase.REVOKED,
        Phase.EXPIRED,
        Phase.SUCCEEDED,
        Phase.FAILED,
    }
)
"""Final phases absorb everything (law 6)."""


class Answer(Part):
    """The core's answer to one decision, so that a notifier can tell the person. The last few are kept in the row."""

    source: Source
    person: Name | None = None
    #: Absent in the answer to a resolution.
    verdict: Verdict | None = None
    refusal: Refusal | None = None


class Pinned(Part):
    """Which body pins an id whose intent never waited, and what its requester is shown of it."""

    #: Of the signed intent; the same again is a duplicate, another a conflict (law 1).
    digest: Digest
    #: Where it lies on `intents`.
    source: Source
    #: Who asked for what, where that can be read.
    subject: Subject | None = None
    action: ActionName | None = None


class PendingApproval(Record):
    """The row of one intent: everything the core knows of it. Topic `pending`, compacted; law 3 and 4 rest on it."""

    TYPE: ClassVar[str] = "keyturn.pending-approval.v1"
    MAX_DEPTH: ClassVar[int] = 16

    intent_id: IntentId
    phase: Phase
    #: The signed answer of intake, with the signed intent inside. Absent when a withdrawal came first, and of what
    #: never waited: then only `pinned` is kept, as the trail has the rest and anybody can ask for what is refused.
    classified: Statement | None = None
    pinned: Pinned | None = None
    #: What is in force: intake's proposal, the core's own computation, and the plan, the strictest of each.
    classification: Classification | None = None
    round: Round | None = None
    plan: Statement | None = None
    question: Question | None = None
    votes: Annotated[tuple[Vote, ...], Field(max_length=64)] = ()
    #: Persons whose revoke overtook their yes on this question.
    barred: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    #: Persons who may never approve this intent, over every directory version so far (law 2).
    circle: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()
    #: The first directory version the circle covers, and the last.
    circle_from: Count = 0
    circle_to: Count = 0
    asked_at: Instant
    expires_at: Instant | None = None
    approved_until: Instant | None = None
    grant: Grant | None = None
    lease_until: Instant | None = None
    #: When the executor's settle time after the lease ends, and the outcome becomes unknown.
    settled_at: Instant | None = None
    #: A withdrawal, revoke or deny that came too late to stop; a `stale` then ends so.
    remembered: Literal["withdrawn", "revoked", "denied"] | None = None
    #: The digest of the OutcomeUnknown that was said.
    unknown: Digest | None = None
    outcome: Statement | None = None
    #: The core's answers to the last decisions, oldest first.
    answers: Annotated[tuple[Answer, ...], Field(max_length=8)] = ()
    #: The end was found out by observing or by people, not reported by the actor.
    flagged: bool = False
    #: Why it was not admitted, if it was not: the requester can see its own (law 9).
    refusal: Refusal | None = None
    reason: Prose | None = None
    ended_at: Instant | None = None
    #: The input that last changed the row, and its log time.
    changed: Source
    changed_at: Instant


class IntentStatus(Record):
    """What an agent can see of its intent. No parameters. Topic `status`, compacted."""

    TYPE: ClassVar[str] = "keyturn.intent-status.v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    intent: IntentId
    phase: Phase
    refusal: Refusal | None = None
    reason: Prose | None = None
    at: Instant


class ChainHead(Part):
    """The last audit record of a chain: its number and digest. `seq` 0 and no digest before the first."""

    seq: Count = 0
    digest: Digest | None = None


class ShownCard(Record):
    """Which card stands where. Topic `cards`, key `<channel>/<place>/<intent>/<first digits of the question>`.

    Written before a message is put anywhere (`message` is absent then: it may be there, or not), after that, and
    whenever the message looks another way. The newest record of a key is all that counts.
    """

    TYPE: ClassVar[str] = "keyturn.card.v1"
    MAX_BYTES: ClassVar[int] = 8 * 1024

    intent: IntentId
    question: Digest
    channel: Channel
    #: The product's id of the place: a Slack channel, a Teams conversation.
    place: Identifier
    #: The product's id of the message there.
    message: Identifier | None = None
    #: SHA-256 of what was sent; absent until anything was.
    payload: Digest | None = None
    #: Whether it offers Approve.
    offers_approve: bool = False
    #: How many reminders stand below it.
    reminders: Count = 0
    #: Whether nobody can write to it any more: it was deleted, or the place is closed to us.
    is_gone: bool = False


class Progress(Record):
    """Where one core partition is: positions, versions, chain head, counters. Topic `pending`, key `progress`.

    Written in the same transaction as everything it accounts for, so state and progress can't part.
    """

    TYPE: ClassVar[str] = "keyturn.progress.v1"

    partition: Count
    #: The next offset to decide, by topic.
    positions: dict[Identifier, Count]
    head: ChainHead
    #: The next gap-free number `n`, by topic.
    numbers: dict[Identifier, Count]
    versions: Versions
    log_time: Instant
    #: Ids of this time and before lead to no act: the log was restored. Absent where it never was.
    restored_to: Instant | None = None


class AuditRecord(Record):
    """One thing that happened, on the log for ever. Topic `audit`, key `<chain>/<seq>`."""

    TYPE: ClassVar[str] = "keyturn.audit.v1"
    MAX_DEPTH: ClassVar[int] = 12

    realm: RealmName
    chain: Name
    seq: Annotated[int, Field(ge=1, le=canonical.MAX_INT)]
    #: Digest of the chain's previous record; absent in the first.
    prev: Digest | None = None
    log_time: Instant
    #: The input this answers.
    source: Source
    #: `intent.classified`, `plan.reported`, `decision.recorded`, `claim.granted`…: see docs/audit.md.
    event: Annotated[str, Field(pattern=r"^[a-z]+\.[a-z_]+$")]
    intent: IntentId | None = None
    before: Phase | None = None
    after: Phase | None = None
    refusal: Refusal | None = None
    reason: Prose | None = None
    #: The signed input, when it could be read.
    statement: Statement | None = None
    #: Its digest and size, when it could not, or when the record is kept for ever elsewhere.
    sha256: Digest | None = None
    bytes: Count | None = None
    #: What the core said in answer: digests of the records it wrote, by topic.
    said: Annotated[tuple["Said", ...], Field(max_length=16)] = ()
    question: Question | None = None
    requirement: Requirement | None = None
    circle: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()
    #: What is in force after the core's own computation, where a step judged.
    classification: Classification | None = None
    #: The deadline this step set: of the intent when it was admitted or asked, of the lease when it was granted.
    until: Instant | None = None
    versions: Versions


class Said(Part):
    """A record the core wrote with this step."""

    topic: Identifier
    type: Identifier
    digest: Digest


KEPT_HEADERS: Final = 32


class Header(Part):
    """One Kafka header; its value base64, absent when it had none."""

    name: Annotated[str, Field(max_length=4096)]
    value: Annotated[str, Field(max_length=6 * 1024)] | None = None


class Quarantined(Record):
    """A record nobody could read, with what can be kept of it. Topic `quarantine`."""

    TYPE: ClassVar[str] = "keyturn.quarantined.v1"

    source: Source
    stage: Name
    refusal: Refusal
    reason: Prose
    sha256: Digest
    bytes: Count
    #: The key and value, base64, when they hold no secret and fit.
    key: Annotated[str, Field(max_length=1400)] | None = None
    value: Annotated[str, Field(max_length=96 * 1024)] | None = None
    #: All headers, in their order, when they hold no secret and fit.
    headers: Annotated[tuple[Header, ...], Field(max_length=KEPT_HEADERS)] | None = None


class Skip(Record):
    """Inputs are gone: the core shall go on beyond them. Signed by a root key. Topic `operations`."""

    TYPE: ClassVar[str] = "keyturn.skip.v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    #: The input topic's name on the map, and its partition.
    topic: Identifier
    partition: Count
    #: Where the core stands: the offset it waits for in vain.
    position: Count
    #: Where it goes on. Below `position` when the log was cut at its end.
    until: Count
    reason: Annotated[Prose, Field(min_length=1)]


class Restore(Record):
    """The log went back to an earlier state: nothing from before leads to an act. Root-signed. Topic `operations`."""

    TYPE: ClassVar[str] = "keyturn.restore.v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    #: The core partition it is for.
    partition: Count
    #: Where its chain stands: what is said of another state of the log counts nowhere.
    head: ChainHead
    #: When it was said, by the clock of whoever said it: the log's own may have been put back.
    at: Instant
    reason: Annotated[Prose, Field(min_length=1)]


class Redrive(Record):
    """What was set aside is put on the log again, byte for byte. Said before it is done. Topic `operations`."""

    TYPE: ClassVar[str] = "keyturn.redrive.v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    #: Where the record lay when it was set aside.
    source: Source
    #: Of its value.
    sha256: Digest
    bytes: Count
    reason: Annotated[Prose, Field(min_length=1)]


class JournalEntry(Record):
    """One step of an executor, written before it is taken. Topic `journal.<executor>`."""

    TYPE: ClassVar[str] = "keyturn.journal-entry.v1"
    MAX_DEPTH: ClassVar[int] = 12

    intent: IntentId
    grant: Digest
    instance: InstanceId
    step: Count
    entry: Literal["used", "started", "done", "ended"]
    what: Prose
    detail: Annotated[dict[MemberName, Scalar], Field(max_length=32)] = {}
    #: With `ended`: the outcome that was reported, so that it can be said again after a crash.
    outcome: Statement | None = None


AuditRecord.model_rebuild()
