"""One intent as the trail has told it so far: what every next step is held against. No I/O, no clock."""

from dataclasses import dataclass, field
from typing import Final

from . import people
from .canonical import Members
from .shapes import Audit, Place, Statement, maybe_part, maybe_text, part, requester_of, text, whole
from .world import ChainWorld

LEADER_SKEW_MS: Final = 2_000
WINDOW_BEFORE_MS: Final = 24 * 60 * 60 * 1000
WINDOW_AFTER_MS: Final = 5 * 60 * 1000
FORGET_MARGIN_MS: Final = 60 * 60 * 1000
MAX_CIRCLE: Final = 1024
MAX_BARRED: Final = 256
MAX_VOTES: Final = 64
SPARE_VOTES: Final = 32
MAX_ROUNDS: Final = 1000


@dataclass(frozen=True, slots=True)
class Vote:
    """A yes that counts."""

    person: str
    statement: Statement
    log_time: int
    source: Place

    def to_json(self) -> Members:
        """As it stands in a grant."""
        return {
            "person": self.person,
            "decision": self.statement.to_json(),
            "log_time": self.log_time,
            "source": self.source.to_json(),
        }


@dataclass(slots=True)
class Life:
    """Where an intent is, and what that rests on."""

    intent: str
    chain: str
    phase: str
    #: False once records of this chain are missing: what rests on them cannot be judged.
    is_certain: bool = True
    #: Digest of the first body; None when a withdrawal came first.
    body_digest: str | None = None
    classified: Statement | None = None
    body: Members = field(default_factory=dict)
    #: What policy said so far; it can only become stricter (laws 3 and 6).
    judgement: Members | None = None
    asked_at: int = 0
    expires_at: int | None = None
    approved_until: int | None = None
    round_number: int = 0
    round_opened: Place | None = None
    plan: Statement | None = None
    question: Members | None = None
    question_digest: str | None = None
    requirement: Members | None = None
    votes: list[Vote] = field(default_factory=list)
    barred: set[str] = field(default_factory=set)
    circle: set[str] = field(default_factory=set)
    circle_to: int = 0
    #: As the last step that counted had it: what a refusal shows.
    circle_shown: frozenset[str] = frozenset()
    grant: Members | None = None
    grant_digest: str | None = None
    instance: str | None = None
    settled_at: int | None = None
    remembered: str | None = None
    #: Digest of the OutcomeUnknown that was said.
    unknown: str | None = None
    #: Whether a right to act was given in this round; kept after the end.
    is_granted: bool = False
    ended_at: int | None = None

    @property
    def action(self) -> str:
        """What is to be done; empty when only a withdrawal came."""
        return text(part(self.body, "action"), "name") if self.body else ""

    @property
    def executor(self) -> str:
        """Whose action it is."""
        return self.action.partition(".")[0]

    @property
    def voters(self) -> set[str]:
        """Persons whose yes stands."""
        return {vote.person for vote in self.votes}

    def widen(self, world: ChainWorld) -> None:
        """Law 2: the circle over every directory version that was not looked at yet. It only grows."""
        newest = world.versions["directory"]
        if newest <= self.circle_to or self.classified is None:
            return
        signed = Statement.read(part(self.classified.body, "intent"))
        is_verified = world.directory.has_checked(signed.keyid, maybe_text(part(self.body, "context"), "on_behalf_of"))
        for version, directory in world.directories.items():
            if self.circle_to < version <= newest:
                self.circle |= people.circle(self.body, directory, is_verified=is_verified)
        self.circle_to = newest

    def counting(self, world: ChainWorld, extra: Vote | None = None) -> dict[str, set[str]]:
        """The yeses that count by the world of now, and the seats each may take; on call as of their own log time.

        Laws 2 and 3: outside the circle, by a key that still vouched for it then, of a person whose account it still
        is, as sure as the requirement asks.
        """
        requirement = self.requirement
        if requirement is None:
            return {}
        directory = world.directory
        wanted = set(people.places(requirement))
        return {
            vote.person: {
                of for of in wanted if people.may_sit(vote.person, of, directory, world.roster, vote.log_time)
            }
            for vote in (*self.votes, *((extra,) if extra is not None else ()))
            if vote.person not in self.circle
            and directory.refuses(vote.statement, vote.log_time, world.realm) is None
            and people.decider(vote.statement, directory) == vote.person
            and people.reaches(vote.statement, vote.log_time, directory, requirement)
        }

    def filled(self, world: ChainWorld, extra: Vote | None = None) -> int:
        """How many seats distinct persons fill."""
        if self.requirement is None:
            return 0
        return people.filled(people.places(self.requirement), self.counting(world, extra))

    def is_filled(self, world: ChainWorld) -> bool:
        """Law 3: whether every seat is filled."""
        return self.requirement is None or self.filled(world) == len(people.places(self.requirement))

    def end(self, at: int) -> None:
        """Final: only the pin of the id is kept."""
        self.ended_at = at
        self.classified = self.plan = self.question = self.grant = self.requirement = self.judgement = None
        self.body, self.votes, self.barred, self.circle = {}, [], set(), set()

    def is_forgettable(self, now: int, id_time: int) -> bool:
        """Whether the core may have dropped the row: an id that old opens no second life."""
        horizon = now - WINDOW_BEFORE_MS - FORGET_MARGIN_MS
        return self.ended_at is not None and self.ended_at < horizon and id_time < horizon


def admitted(audit: Audit, statement: Statement, world: ChainWorld, phase: str) -> Life:
    """The life that a classified intent opens."""
    body = statement.body
    inner = Statement.read(part(body, "intent"))
    # Intake's word moves no deadline into the future, and no beginning of a circle.
    asked_at = min(whole(body, "asked_at"), audit.log_time)
    cited = min(whole(part(body, "versions"), "directory"), world.versions["directory"])
    life = Life(
        intent=audit.intent or "",
        chain=audit.chain,
        phase=phase,
        body_digest=inner.digest,
        classified=statement,
        body=inner.body,
        judgement=maybe_part(body, "classification"),
        asked_at=asked_at,
        round_number=1,
        round_opened=audit.source,
        # Law 2: the union starts at the version in force when it was asked; intake may have read it much later.
        circle_to=max(min(cited, world.directory_at(asked_at - LEADER_SKEW_MS)), 1) - 1,
    )
    life.expires_at = audit.until
    return life


def is_fresh(id_time: int, log_time: int) -> bool:
    """Whether an id's time is inside the window at this log time."""
    return log_time - WINDOW_BEFORE_MS <= id_time <= log_time + WINDOW_AFTER_MS


def is_sayable(said_at: int, log_time: int) -> bool:
    """Whether a clock that says this time is not minutes ahead of the log's."""
    return said_at <= log_time + WINDOW_AFTER_MS


def restored_to(log_time: int, said_at: int) -> int:
    """Up to which id time everything may be from before a restore of that log time, said at that time."""
    return max(log_time, said_at) + WINDOW_AFTER_MS + LEADER_SKEW_MS


def may_withdraw(by: Members, intent_id: str, world: ChainWorld) -> bool:
    """Whether these are the requester, or a person who owns the requesting agent."""
    requester, name = requester_of(intent_id), text(by, "id")
    if name == requester:
        return True
    agent = world.directory.agents.get(requester)
    return agent is not None and by.get("type") == "person" and name in agent.owners
