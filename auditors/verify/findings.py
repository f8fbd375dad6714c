"""What checking finds: faults, each with its place, its law and what was found; and figures. No I/O."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from .canonical import Json

MAX_KEPT: Final = 1000
"""Faults beyond these are counted, not kept: a broken trail must not fill the memory."""

CODES: Final[dict[str, tuple[int, str]]] = {
    # ---- the trail as such
    "trail.malformed": (10, "an audit record is not the canonical bytes of an audit record"),
    "trail.signature": (10, "not exactly one keyid and sig, or not signed by a core key valid at its log time"),
    "trail.realm": (1, "a record of another realm"),
    "trail.key": (10, "the key is not <chain>/<seq>, so that compaction may remove records"),
    "trail.tombstone": (10, "a record was erased"),
    "trail.gap": (10, "numbers of a chain are missing"),
    "trail.repeated": (10, "a number of a chain came again"),
    "trail.prev": (10, "`prev` is not the SHA-256 of the chain's record before"),
    "trail.order": (10, "offsets of the topic do not rise"),
    "trail.chain": (10, "the chain is not the one that may answer this input"),
    "trail.head": (10, "a remembered head is not on the trail: it was cut or rewritten"),
    "trail.time": (5, "log times run backwards by more than leaders may differ"),
    "bundle.line": (10, "a line of the bundle cannot be read"),
    # ---- the world
    "world.snapshot": (6, "a live document that came into force is not what its topic holds, or is malformed"),
    "world.signature": (6, "a live document that came into force is not signed by a pinned root key"),
    "world.successor": (6, "a live document that came into force is not exactly the next version"),
    "world.predecessor": (6, "a live document that came into force names another predecessor"),
    "world.versions": (6, "the versions cited are not those in force in this chain"),
    "world.ignored": (6, "the next version of a live document was refused without a reason"),
    # ---- inputs and outputs
    "input.omitted": (11, "an input was not answered"),
    "input.repeated": (9, "an input was answered twice, or out of order"),
    "input.overtaken": (4, "a claim or tick was decided before inputs that were there long before it"),
    "input.skipped": (11, "inputs were declared lost that are not this chain's, or not where it stood"),
    "realm.restored": (4, "a restore that is not of this chain as it stood"),
    "input.gap": (11, "an input topic has a hole"),
    "input.missing": (11, "the trail answers an input that its topic does not hold"),
    "input.differs": (9, "the trail shows another record or log time than its source"),
    "output.unaudited": (4, "an executor was told something that is not on the trail"),
    "output.number": (11, "the gap-free number of a transactional topic jumps"),
    "said.differs": (8, "what the core said is not what this step says"),
    # ---- statements
    "statement.signature": (6, "a statement counted though its signature does not fit or its key may not say it"),
    "statement.malformed": (6, "a statement counted though it is not of its type's form"),
    "refusal.unfounded": (9, "an input was refused for a reason that does not hold"),
    # ---- one life
    "life.before": (6, "`before` is not where the intent was"),
    "life.transition": (6, "a step that the lifecycle does not list"),
    "life.final": (6, "something moved after the end"),
    "life.chain": (4, "one requester's intents in two chains"),
    "life.body": (1, "another body under a pinned intent id"),
    "life.window": (4, "an intent id whose time is outside the window opened a life"),
    "life.restored": (4, "something asked before a restore opened a life, or went on to an act"),
    "policy.denied": (6, "policy or intake said no and the intent went on, or the other way round"),
    "policy.missing": (6, "policy was asked, and the record does not show its answer"),
    "policy.weaker": (6, "policy's answer is weaker than one that was in force before"),
    "requester.unknown": (6, "the requester or the action is not in the directory and manifests in force"),
    # ---- law 1
    "question.differs": (1, "the question is not the digest of intent, plan, facts, requirement and position"),
    "question.missing": (1, "people decided, or an executor was let act, without a question"),
    "decision.question": (1, "a word on another question counted"),
    "claim.question": (1, "a claim on another question counted"),
    "plan.body": (1, "a plan of another body counted"),
    # ---- law 2
    "circle.differs": (2, "the circle is not the union over the directory versions"),
    "decision.self": (2, "somebody who stands behind the requester decided"),
    "person.unknown": (2, "an account that is no active person's decided"),
    "withdrawal.stranger": (2, "neither the requester nor an owner withdrew"),
    # ---- law 3
    "requirement.weaker": (3, "the requirement is weaker than policy said before"),
    "requirement.differs": (3, "the requirement shown is not the one in force"),
    "decision.seat": (3, "somebody without a seat decided"),
    "decision.twice": (3, "one person's second yes counted"),
    "decision.crowd": (3, "a yes counted that fills no further seat and takes the room of others"),
    "decision.barred": (3, "a yes counted after its person revoked on this question"),
    "decision.assurance": (3, "a yes counted below the assurance asked for"),
    "decision.nothing": (3, "a revoke without a yes counted"),
    "quorum.short": (3, "approved or granted though distinct persons do not fill every seat"),
    "quorum.ignored": (3, "every seat was filled, and the intent was not approved"),
    # ---- law 4
    "plan.round": (4, "a plan of another planning round counted"),
    "executor.foreign": (4, "another action's executor was heard"),
    "grant.second": (4, "a second right to act"),
    "grant.differs": (4, "the grant said is not the one this claim, question and votes make"),
    "outcome.grant": (4, "an outcome that cites another grant counted"),
    "outcome.instance": (4, "another instance than the one that claimed was heard"),
    "outcome.observed": (4, "an observation counted that does not answer the `unknown`"),
    "outcome.unproven": (4, "an end without an outcome"),
    # ---- law 5
    "deadline.differs": (5, "the deadline is not what ttl, requirement or lease make it"),
    "decision.late": (5, "a yes counted at or after the deadline"),
    "claim.late": (5, "a claim was granted at or after the deadline"),
    "tick.early": (5, "time ran out before it had"),
}
"""Every fault: the law (docs: DESIGN, Laws) and what it says. docs/audit.md has the same table."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where."""

    code: str
    what: str
    chain: str | None = None
    seq: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    intent: str | None = None

    @property
    def law(self) -> int:
        """The law that is broken."""
        return CODES[self.code][0]

    def to_json(self) -> dict[str, Json]:
        """As the report prints it."""
        members: dict[str, Json] = {"law": self.law, "code": self.code, "what": self.what}
        for name in ("chain", "seq", "topic", "partition", "offset", "intent"):
            if (value := getattr(self, name)) is not None:
                members[name] = value
        return members

    def __str__(self) -> str:
        place = " ".join(
            part
            for part in (
                f"{self.chain}/{self.seq}" if self.chain is not None else "",
                f"({self.topic}/{self.partition}/{self.offset})" if self.topic is not None else "",
                self.intent or "",
            )
            if part
        )
        return f"law {self.law} {self.code}: {place}: {CODES[self.code][1]}: {self.what}"


@dataclass(slots=True)
class Report:
    """Everything that was counted and found."""

    realm: str | None = None
    records: int = 0
    faults: list[Fault] = field(default_factory=list)
    faults_found: int = 0
    notes: list[str] = field(default_factory=list)
    #: chain -> (last number, digest): what an auditor remembers for the next time.
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    #: How each intent ended, or where it is.
    phases: Counter[str] = field(default_factory=Counter)
    #: Words that counted, by verdict.
    decisions: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    grants: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    inputs_compared: int = 0
    inputs_expired: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.faults_found == 0

    def fault(self, fault: Fault) -> None:
        """Remember a fault."""
        self.faults_found += 1
        if len(self.faults) < MAX_KEPT:
            self.faults.append(fault)

    def note(self, text: str) -> None:
        """Something to look at that breaks no law by itself."""
        if len(self.notes) < MAX_KEPT:
            self.notes.append(text)

    def to_json(self) -> dict[str, Json]:
        """As `--json` prints it."""
        return {
            "is_clean": self.is_clean,
            "realm": self.realm or "",
            "records": self.records,
            "chains": {name: {"seq": seq, "digest": digest} for name, (seq, digest) in sorted(self.heads.items())},
            "intents": dict(sorted(self.phases.items())),
            "decisions": dict(sorted(self.decisions.items())),
            "grants": self.grants,
            "refusals": dict(sorted(self.refusals.items())),
            "versions": dict(sorted(self.versions.items())),
            "inputs": {"compared": self.inputs_compared, "expired": self.inputs_expired},
            "notes": list(self.notes),
            "faults_found": self.faults_found,
            "faults": [fault.to_json() for fault in self.faults],
        }
