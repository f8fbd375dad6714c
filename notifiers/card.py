"""What a person sees of a question, whole and in reading order. No I/O, no clock: callers pass now.

A card is a pure function of the row, the world and now. It holds every leaf of the signed intent and of the plan, or
says that it does not fit, and then nobody offers Approve (law 7). A list of which the plan holds the digest alone is a
leaf that nobody sees: with one, no card fits, however large (ADR 0016). It computes the question from what it renders;
a row whose question names anything else is not sound, and again nobody offers Approve. An agent's words are literal,
labelled and bounded; Slack, Teams, a page and a terminal all render these same lines.

What changes while people look (phase, seats filled, who may not approve) is `progress`. It is shown, but it is not in
the card's digest, like the time left: so the digest names what a person was asked, the same before and after a
colleague's yes, and a notifier can tell whether it is the card that it would show.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from notifiers import visible
from schemas import canonical, question, seats
from schemas.canonical import Json
from schemas.record import Digest, Instant, IntentId, Part, RecordError, Scalar, Statement
from schemas.records import (
    Change,
    ClassifiedIntent,
    Fact,
    Intent,
    ListLeaf,
    Outcome,
    PendingApproval,
    Phase,
    Plan,
    Property,
    Question,
    Requirement,
    Risk,
    Source,
)
from schemas.snapshots import Directory
from schemas.world import World

SHORT: Final = 12
"""Hexadecimal digits of a question that a person compares or types: 48 bits."""

UNSEEN: Final = "its entries are not in the plan: nobody can see them here, so nobody can approve this"
"""What stands below a list of which the plan holds the digest alone."""

Voice = Literal["keyturn", "requester", "intake", "executor"]
"""Whose word a line is. Everything but `keyturn` is a statement that a signature attributes, not a truth."""


class Line(Part):
    """One labelled line. The text is safe to show as literal text anywhere, and in no other way."""

    label: str
    text: str
    voice: Voice = "keyturn"


class Section(Part):
    """Lines that belong together, under a title."""

    title: str
    lines: tuple[Line, ...]


class Card(Part):
    """All that a channel shows of one row."""

    intent_id: IntentId
    phase: Phase
    #: Digest of the question that a yes to this card signs.
    question: Digest | None = None
    headline: str
    risk: Risk | None = None
    sections: tuple[Section, ...]
    progress: Section
    #: What in the row contradicts itself: then it is no question to put to anybody.
    contradictions: tuple[str, ...] = ()
    #: Whether every leaf is shown in full.
    fits: bool
    expires_at: Instant | None = None
    #: How long until the deadline, in words; not in the digest.
    left: str | None = None
    #: SHA-256 of the content that a person is asked about: goes into `Decision.card`.
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def short(self) -> str | None:
        """The first digits of the question, as people compare them."""
        return self.question[:SHORT] if self.question else None

    @property
    def is_sound(self) -> bool:
        """Whether the row's question names exactly what is rendered."""
        return not self.contradictions

    @property
    def offers_approve(self) -> bool:
        """Whether a channel may offer Approve. If not: "Review in full" (law 7)."""
        return self.phase is Phase.PENDING and self.question is not None and self.fits and self.is_sound

    def content_digest(self) -> str:
        """The digest of what is shown here; equal to `digest` in a card that nobody altered."""
        return _digest_of(self.headline, self.risk, self.question, self.sections, is_whole=self.fits)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a channel can show: characters of one text, lines, and characters in all. None: as much as there is."""

    text: int | None = None
    lines: int | None = None
    total: int | None = None


FULL: Final = Bounds()
"""A page, a terminal, JSON: everything. Records are capped, so this is bounded too."""


def card(row: PendingApproval, world: World, now: int, bounds: Bounds = FULL) -> Card:
    """The card of `row`. Total: a row that cannot be read gives a card that says so and offers nothing."""
    asked, contradictions = _read(row, world)
    says = _Words(world.directory or Directory(version=1), bounds.text)
    sections = tuple(section for section in _sections(row, asked, says) if section.lines)
    progress = _progress(row, asked, world, says)
    sections, is_short = _within(sections, bounds)
    is_whole = is_short and not any(visible.is_cut(line.text) for section in sections for line in section.lines)
    risk = row.classification.risk if row.classification else None
    headline = _headline(row, asked.intent)
    fits = is_whole and not visible.is_cut(headline) and not _unseen(asked.plan)
    named = row.question.digest if row.question else None
    return Card(
        intent_id=row.intent_id,
        phase=row.phase,
        question=named,
        headline=headline,
        risk=risk,
        sections=sections,
        progress=progress,
        contradictions=contradictions,
        fits=fits,
        expires_at=row.expires_at,
        left=duration(max(0, row.expires_at - now)) if row.expires_at is not None else None,
        digest=_digest_of(headline, risk, named, sections, is_whole=fits),
    )


# ---------------------------------------------------------------- reading the row

_ASKED: Final = frozenset({Phase.PENDING, Phase.APPROVED, Phase.EXECUTING, Phase.UNKNOWN})
"""Phases that rest on the question in the row."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What could be read of a row."""

    classified: ClassifiedIntent | None = None
    intent: Intent | None = None
    is_verified: bool = False
    plan: Plan | None = None
    requirement: Requirement | None = None

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Intake's word."""
        return self.classified.facts if self.classified else ()


def _read(row: PendingApproval, world: World) -> tuple[_Asked, tuple[str, ...]]:
    """What the row holds, and what in it contradicts itself."""
    wrong: list[str] = []
    asked = _Asked(requirement=row.classification.requirement if row.classification else None)
    if row.classified is not None:
        try:
            classified = row.classified.read(ClassifiedIntent)
            asked = replace(
                asked,
                classified=classified,
                intent=classified.intent.read(Intent),
                # Law 2: only a gateway checked a token; an agent's own signature vouches for nothing but the agent.
                is_verified=world.authority.is_behalf_verified(classified.intent),
            )
        except RecordError as exc:
            wrong.append(visible.prose(f"the intent cannot be read: {exc}"))
    if row.plan is not None:
        try:
            asked = replace(asked, plan=row.plan.read(Plan))
        except RecordError as exc:
            wrong.append(visible.prose(f"the plan cannot be read: {exc}"))
    if row.phase in _ASKED:
        if row.question is None:
            wrong.append("the row rests on a question but holds none")
        else:
            wrong.extend(_contradictions(row, row.question, asked, world.realm))
    return asked, tuple(wrong)


def _contradictions(row: PendingApproval, named: Question, asked: _Asked, realm: str) -> Iterator[str]:
    """Law 7: the question is computed from what is rendered, leaf by leaf."""
    if asked.classified is None or asked.intent is None or row.plan is None or asked.plan is None:
        yield "the question names an intent or a plan that the row does not hold"
        return
    if asked.intent.id != row.intent_id:
        yield "the signed intent has another id than the row"
    if asked.plan.intent != asked.classified.intent.digest:
        yield "the plan was made for another intent"
    rendered = question.ask(realm, row.intent_id, asked.classified, row.plan, asked.requirement, named.opened)
    shown, signed = rendered.to_json(), named.to_json()
    for leaf in sorted(shown):
        if shown[leaf] != signed.get(leaf):
            yield f"the question names another {leaf.replace('_', ' ')} than the one shown"


# ---------------------------------------------------------------- saying it


@dataclass(frozen=True, slots=True)
class _Words:
    """Values in words, within the channel's limit for one text."""

    directory: Directory
    limit: int | None

    def name(self, text: str) -> str:
        """An identifier."""
        return visible.identifier(text, self.limit)

    def prose(self, text: str) -> str:
        """Somebody's words."""
        return visible.prose(text, self.limit)

    def value(self, value: Scalar) -> str:
        """A scalar, so that its type can be seen: texts are in quotes."""
        return visible.quoted(value, self.limit) if isinstance(value, str) else str(value).lower()

    def person(self, person_id: str) -> str:
        """`ana (Ana Lima)`; the id alone identifies."""
        for person in self.directory.persons:
            if person.id == person_id:
                return f"{person_id} ({self.prose(person.name)})"
        return f"{person_id} (not in the directory)"

    def members(self, prefix: str, members: Mapping[str, Property], voice: Voice) -> Iterator[Line]:
        """One line a member; of a list, one line an item."""
        for name, value in sorted(members.items()):
            if not isinstance(value, tuple):
                yield Line(label=f"{prefix} {name}", text=self.value(value), voice=voice)
                continue
            if not value:
                yield Line(label=f"{prefix} {name}", text="empty list", voice=voice)
            for index, item in enumerate(value, 1):
                yield Line(label=f"{prefix} {name} [{index} of {len(value)}]", text=self.value(item), voice=voice)


def _sections(row: PendingApproval, asked: _Asked, says: _Words) -> Iterator[Section]:
    intent, plan = asked.intent, asked.plan
    yield Section(title="Who", lines=tuple(_who(intent, says, is_verified=asked.is_verified) if intent else ()))
    yield Section(title="What exactly", lines=(*_wish(intent, says), *_effects(row, plan, says)))
    yield Section(title="Where", lines=tuple(_where(intent, says)))
    yield Section(title="Why you are asked", lines=tuple(_why(row, says)))
    yield Section(title="In the requester's own words, not verified", lines=tuple(_own_words(intent, says)))
    yield Section(title="Facts, as intake found them", lines=tuple(_facts(asked.facts, says)))
    yield Section(title="Can it be undone", lines=tuple(_undo(plan, says)))
    yield Section(title="Who may approve", lines=tuple(_requirement(asked.requirement)))
    yield Section(title="Until", lines=tuple(_deadline(row, intent)))
    yield Section(title="How the plan was read", lines=tuple(_plan_origin(plan, says)))
    yield Section(title="This question", lines=tuple(_identity(row)))


def _headline(row: PendingApproval, intent: Intent | None) -> str:
    if intent is None and row.pinned is not None:
        return f"{row.intent_id}: {row.pinned.action or 'it'} never waited, and what it asked is on the trail alone"
    if intent is None:
        return f"{row.intent_id}: the intent itself is not here"
    # The target is never shortened (a long one does not fit instead): see `_where`.
    return f"{intent.action.name} on {intent.resource.type} {visible.identifier(intent.resource.id)}"


def _who(intent: Intent, says: _Words, *, is_verified: bool) -> Iterator[Line]:
    subject = intent.subject
    if subject.type == "person":
        yield Line(label="requester", text=f"person {says.person(subject.id)}")
    else:
        agent = next((agent for agent in says.directory.agents if agent.id == subject.id), None)
        yield Line(label="requester", text=f"agent {subject.id}" + ("" if agent else " (not in the directory)"))
        for owner in agent.owners if agent else ():
            yield Line(label="owner", text=says.person(owner))
    stated = intent.context.on_behalf_of
    if stated is None:
        yield Line(label="acts for", text="nobody named")
    else:
        how = "verified by a token" if is_verified else "only stated, not verified"
        voice: Voice = "keyturn" if is_verified else "requester"
        yield Line(label="acts for", text=f"{says.person(stated)}: {how}", voice=voice)


def _wish(intent: Intent | None, says: _Words) -> Iterator[Line]:
    if intent is None:
        yield Line(label="intent", text="not here: nothing is known of what was wanted")
        return
    yield Line(label="action", text=intent.action.name)
    yield from says.members("parameter", intent.action.properties, "keyturn")


def _effects(row: PendingApproval, plan: Plan | None, says: _Words) -> Iterator[Line]:
    if plan is None:
        yield Line(label="plan", text="cannot be read" if row.plan else "none yet")
        return
    yield Line(label="the plan in short", text=says.prose(plan.summary), voice="executor")
    for index, change in enumerate(plan.changes, 1):
        yield from _change(f"change {index} of {len(plan.changes)}", change, says)
    if not plan.changes:
        yield Line(label="changes", text="none listed", voice="executor")
    unseen = _unseen(plan)
    for leaf in plan.lists:
        yield _list(leaf)
        if leaf in unseen:
            yield Line(label=f"list {leaf.name}", text=UNSEEN)
    yield from says.members("measure", plan.measures, "executor")


def _change(label: str, change: Change, says: _Words) -> Iterator[Line]:
    yield Line(label=label, text=f"{change.verb} {says.name(change.target)}", voice="executor")
    yield from says.members(f"{label}:", change.detail, "executor")


def _unseen(plan: Plan | None) -> tuple[ListLeaf, ...]:
    """Lists whose entries the plan does not hold: law 7, what nobody sees nobody signs.

    The changes are the entries told one by one, so fewer changes than entries leave some out. Several lists share no
    change: whatever they have together must be there.
    """
    if plan is None:
        return ()
    entries = sum(leaf.count for leaf in plan.lists)
    return tuple(leaf for leaf in plan.lists if leaf.count) if entries > len(plan.changes) else ()


def _list(leaf: ListLeaf) -> Line:
    text = f"{leaf.count} entries, {leaf.bytes} bytes, SHA-256 {leaf.digest}"
    return Line(label=f"list {leaf.name}", text=text, voice="executor")


def _where(intent: Intent | None, says: _Words) -> Iterator[Line]:
    if intent is not None:
        yield Line(label="resource type", text=intent.resource.type)
        yield Line(label="resource", text=says.name(intent.resource.id))


def _why(row: PendingApproval, says: _Words) -> Iterator[Line]:
    if row.classification is None:
        return
    yield Line(label="policy says", text=row.classification.effect.value.replace("_", " "))
    yield Line(label="risk", text=row.classification.risk.value)
    for rule in row.classification.rules:
        yield Line(label="rule", text=says.name(rule))
    if not row.classification.rules:
        yield Line(label="rule", text="none matched")
    if row.classification.reason is not None:
        yield Line(label="policy's reason", text=says.prose(row.classification.reason))


def _own_words(intent: Intent | None, says: _Words) -> Iterator[Line]:
    if intent is None:
        return
    context = intent.context
    yield Line(label="reason", text=says.prose(context.reason), voice="requester")
    for label, text in (("ticket", context.ticket), ("run", context.run), ("trace", context.traceparent)):
        if text is not None:
            yield Line(label=label, text=says.name(text), voice="requester")


def _facts(facts: tuple[Fact, ...], says: _Words) -> Iterator[Line]:
    for fact in facts:
        value = "unknown" if fact.value is None else says.value(fact.value)
        origin = f"{fact.source}, {instant(fact.observed_at)}"
        yield Line(label=f"fact {fact.name}", text=f"{value} (source: {origin})", voice="intake")


def _undo(plan: Plan | None, says: _Words) -> Iterator[Line]:
    if plan is not None:
        yield Line(label="reversibility", text=plan.reversibility.value, voice="executor")
        yield Line(label="how", text=says.prose(plan.undo), voice="executor")


def _requirement(requirement: Requirement | None) -> Iterator[Line]:
    if requirement is None:
        return
    for seat in requirement.seats:
        yield Line(label="seats", text=f"{seat.count} of {seat.of}")
    yield Line(label="assurance", text=f"at least {requirement.assurance.value}")
    yield Line(label="within", text=duration(requirement.within * 1000))


def _deadline(row: PendingApproval, intent: Intent | None) -> Iterator[Line]:
    yield Line(label="asked", text=instant(row.asked_at))
    if row.expires_at is not None:
        yield Line(label="deadline", text=instant(row.expires_at))
    if intent is not None:
        yield Line(label="requester's own limit", text=duration(intent.ttl * 1000), voice="requester")


def _plan_origin(plan: Plan | None, says: _Words) -> Iterator[Line]:
    if plan is None:
        return
    yield Line(label="executor", text=f"{plan.executor}, manifest {plan.manifest}", voice="executor")
    yield Line(label="planned", text=instant(plan.planned_at), voice="executor")
    yield Line(
        label="planning round",
        text=f"{plan.round.number} of {plan.round.intent}, opened by {position(plan.round.opened)}",
        voice="executor",
    )
    yield Line(label="for the intent with SHA-256", text=plan.intent, voice="executor")
    for index, fingerprint in enumerate(plan.fingerprints, 1):
        label = f"state {index} of {len(plan.fingerprints)}"
        yield Line(label=label, text=says.name(fingerprint.target), voice="executor")
        yield Line(label=f"{label}: fingerprint", text=says.name(fingerprint.value), voice="executor")


def _identity(row: PendingApproval) -> Iterator[Line]:
    yield Line(label="intent", text=row.intent_id)
    if row.question is None:
        yield Line(label="question", text="none is open")
        return
    yield Line(label="realm", text=row.question.realm)
    yield Line(label="question", text=f"{row.question.digest[:SHORT]} (SHA-256 {row.question.digest})")
    yield Line(label="opened by", text=position(row.question.opened))


def _progress(row: PendingApproval, asked: _Asked, world: World, says: _Words) -> Section:
    lines = [Line(label="phase", text=row.phase.value)]
    lines.extend(_seats_filled(row, asked.requirement, world, says))
    lines.extend(Line(label="barred on this question", text=says.person(person)) for person in row.barred)
    lines.extend(Line(label="may not approve (stands behind it)", text=says.person(person)) for person in row.circle)
    if row.approved_until is not None:
        lines.append(Line(label="approved until", text=instant(row.approved_until)))
    if row.grant is not None:
        lines.append(Line(label="grant", text=row.grant.digest))
    if row.lease_until is not None:
        lines.append(Line(label="lease until", text=instant(row.lease_until)))
    if row.remembered is not None:
        lines.append(Line(label="too late to stop, remembered", text=row.remembered))
    if row.outcome is not None:
        lines.extend(_outcome(row.outcome, says))
    if row.flagged:
        lines.append(Line(label="flagged", text="the end was found out, not reported by the one who acted"))
    if row.reason is not None:
        lines.append(Line(label="because", text=says.prose(row.reason)))
    if row.ended_at is not None:
        lines.append(Line(label="ended", text=instant(row.ended_at)))
    lines.append(Line(label="last change", text=f"{position(row.changed)}, {instant(row.changed_at)}"))
    return Section(title="So far", lines=tuple(lines))


def _outcome(statement: Statement, says: _Words) -> Iterator[Line]:
    try:
        outcome = statement.read(Outcome)
    except RecordError:
        yield Line(label="outcome", text="found out by people" if "found" in statement.body else "cannot be read")
        return
    how = "observed" if outcome.observed else "reported"
    yield Line(label="outcome", text=f"{outcome.result.value}, {how} by {outcome.instance}", voice="executor")
    if outcome.receipt is not None:
        yield Line(label="receipt", text=says.prose(outcome.receipt.summary), voice="executor")
    if outcome.reason is not None:
        yield Line(label="outcome's reason", text=says.prose(outcome.reason), voice="executor")
    if outcome.undo is not None:
        yield Line(label="to undo it", text=says.prose(outcome.undo), voice="executor")


def _seats_filled(row: PendingApproval, requirement: Requirement | None, world: World, says: _Words) -> Iterator[Line]:
    said_at = {vote.person: vote.log_time for vote in row.votes}
    if row.phase is Phase.UNKNOWN:
        resolvers = sorted(set(seats.places(seats.of_resolution(requirement))))
        yield Line(label="to be resolved by", text=f"one of {', '.join(resolvers)}, outside the circle")
    if requirement is None:
        return
    wanted = seats.places(requirement)
    seated = filled(row, world)
    for index, of in enumerate(wanted):
        person = seated.get(index)
        text = "open" if person is None else f"{says.person(person)}, {instant(said_at[person])}"
        yield Line(label=f"seat {index + 1} of {len(wanted)}, {of}", text=text)
    for person in sorted(said_at.keys() - set(seated.values())):
        yield Line(label="also said yes", text=f"{says.person(person)}, {instant(said_at[person])}")


def filled(row: PendingApproval, world: World) -> dict[int, str]:
    """Who sits where by the yeses so far: place index -> person. For showing; the core judges for itself."""
    return seats.seated(row, world.directory, world.rosters) if world.directory else {}


# ---------------------------------------------------------------- words for values

_LAST_DATE_MS: Final = 253_402_300_800_000  # the year 10000, where dates of four digits end


def instant(ms: int) -> str:
    """An instant to the millisecond, UTC."""
    if ms >= _LAST_DATE_MS:
        return f"{ms} ms after 1970-01-01 UTC"
    seconds, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:03d} UTC"


def duration(ms: int) -> str:
    """A length of time in days, hours, minutes and seconds, whole seconds."""
    seconds = ms // 1000
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    if seconds or not parts:
        parts.append(f"{seconds} s")
    return " ".join(parts)


def position(source: Source) -> str:
    """A place on the log."""
    return f"{visible.identifier(source.topic)}, partition {source.partition}, offset {source.offset}"


# ---------------------------------------------------------------- bounds and digest


def _within(sections: tuple[Section, ...], bounds: Bounds) -> tuple[tuple[Section, ...], bool]:
    """The sections as far as they fit, with a count of the lines left out, and whether all of them did."""
    kept: list[Section] = []
    lines = total = left_out = 0
    for section in sections:
        room: list[Line] = []
        for line in section.lines:
            size = len(line.label) + len(line.text)
            is_over = _exceeds(lines + 1, bounds.lines) or _exceeds(total + size, bounds.total)
            # Once a line did not fit, nothing after it is shown: no gap that only a count could tell.
            if is_over or left_out:
                left_out += 1
                continue
            room.append(line)
            lines, total = lines + 1, total + size
        if room:
            kept.append(Section(title=section.title, lines=tuple(room)))
    if left_out:
        notice = Line(label="not shown here", text=f"{left_out} more lines: review in full before you decide")
        kept.append(Section(title="This does not fit", lines=(notice,)))
    return tuple(kept), left_out == 0


def _exceeds(amount: int, limit: int | None) -> bool:
    return limit is not None and amount > limit


def _digest_of(
    headline: str, risk: Risk | None, named: str | None, sections: Iterable[Section], *, is_whole: bool
) -> str:
    content: dict[str, Json] = {
        "headline": headline,
        "sections": [section.to_json() for section in sections],
        "whole": is_whole,
    }
    if risk is not None:
        content["risk"] = risk.value
    if named is not None:
        content["question"] = named
    return canonical.digest_of(content)
