"""From what IAM says of an identity and a policy to a plan, and from a plan to what differs from it. No I/O.

The plan tells its one change whole and has no list (ADR 0019): the policy's statements as they are written, and what
they come to, each action by name or counted by service and level. The fingerprints bind the texts that it was counted
from.

Numbers err to the grave side: what cannot be compared counts as new, what is in no list of AWS's as unclassified, and
a permissions boundary makes no number smaller; it is told beside them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from executors.contract import ExecutorError, TargetMissingError
from executors.iam.client import Look
from executors.iam.documents import Right, beyond, denials, digest_of, grants
from executors.iam.levels import ESCALATING, Level, Levels
from executors.iam.parameters import Attachment
from executors.iam.patterns import Effort
from schemas.record import Scalar
from schemas.records import Change, Fingerprint, Intent, Plan, Reversibility, Round

MAX_NAMED: Final = 20
"""More actions than this are counted by service and level."""
MAX_SERVICES: Final = 12
"""More services than this are told in the change only, not in the summary."""
MAX_TEXT: Final = 12_000
"""Of the document in words. A longer one has no plan: what is approved is shown whole (law 7)."""
MAX_WHO: Final = 4_000
MAX_WHO_SHOWN: Final = 600
"""More names than fit here are counted in the summary; they stand in the change, whole."""
MAX_SUMMARY: Final = 2_000
NONE: Final = "none"
UNREAD: Final = "resource policies and the organization's policies were not read: what they allow or forbid is unknown"

_LETTERS: Final = {
    Level.LIST: "L",
    Level.READ: "R",
    Level.TAGGING: "T",
    Level.WRITE: "W",
    Level.UNCLASSIFIED: "U",
    Level.PERMISSIONS: "P",
}
LEGEND: Final = ", ".join(f"{letter} {level.value.lower()}" for level, letter in _LETTERS.items())

_MEASURES: Final = {
    Level.LIST: "list_actions",
    Level.READ: "read_actions",
    Level.TAGGING: "tagging_actions",
    Level.WRITE: "write_actions",
    Level.UNCLASSIFIED: "unclassified_actions",
    Level.PERMISSIONS: "permissions_actions",
}


@dataclass(frozen=True, slots=True)
class Rights:
    """What the identity would have more, or less, than now."""

    #: By action, on what and when.
    actions: dict[str, frozenset[Right]]
    by_level: dict[Level, tuple[str, ...]]
    #: Those that the boundary allows on nothing: without effect while it stands.
    beyond_boundary: int
    #: What the policy's denials forbid, and its going may allow: something that nobody read here may allow it already.
    freed: dict[str, frozenset[Right]]
    #: Of both, how many of each level.
    counts: dict[Level, int]

    @classmethod
    def of(cls, wanted: Attachment, look: Look, levels: Levels) -> "Rights":
        """The rights that come or go with the policy. ExecutorError when they are too many to be compared."""
        effort = Effort()
        identity, policy = look.identity, look.policy
        others = [each.document for each in identity.held.attached if each.arn != policy.arn]
        others += [each.document for each in identity.held.inline]
        held = grants([*others, *identity.through_groups], levels, effort)
        actions = beyond(grants([policy.document], levels, effort), held, effort)
        freed = dict(denials(policy.document, levels, effort)) if wanted.verb == "detach" else {}
        by_level: dict[Level, list[str]] = {}
        for action in sorted(actions):
            by_level.setdefault(levels.of(action), []).append(action)
        counts: dict[Level, int] = {}
        for action in actions.keys() | freed.keys():
            counts[levels.of(action)] = counts.get(levels.of(action), 0) + 1
        inside = None if identity.boundary is None else grants([identity.boundary.document], levels, effort)
        return cls(
            actions,
            {level: tuple(names) for level, names in by_level.items()},
            0 if inside is None else sum(action not in inside for action in actions),
            freed,
            counts,
        )

    @property
    def all(self) -> frozenset[str]:
        """Every action that comes or goes."""
        return frozenset(self.actions.keys() | self.freed.keys())

    @property
    def escalating(self) -> list[str]:
        """Those by which a holder may come to more."""
        return sorted(ESCALATING & self.all)

    @property
    def services(self) -> int:
        """How many services they are of."""
        return len({action.partition(":")[0] for action in self.all})

    @property
    def is_unbounded(self) -> bool:
        """Whether one of them is for every resource."""
        both = (*self.actions.values(), *self.freed.values())
        return any(right.is_unbounded for each in both for right in each)


def plan(wanted: Attachment, look: Look, levels: Levels, intent: Intent, round_: Round, now: int) -> Plan:
    """The plan of `wanted` as IAM is. TargetMissingError when there is none."""
    require_plannable(wanted, look)
    rights = Rights.of(wanted, look, levels)
    return Plan(
        round=round_,
        intent=intent.digest,
        executor="iam",
        manifest=0,  # which version is in force is for the runner to say
        summary=_whole(_summary(wanted, look, rights), MAX_SUMMARY, "the summary"),
        changes=(Change(verb=wanted.verb, target=wanted.identity, detail=_detail(wanted, look, rights, levels)),),
        fingerprints=fingerprints(look),
        measures=_measures(wanted, look, rights),
        reversibility=Reversibility.EXACT,
        undo=(
            f"{wanted.inverse} with the same identity and policy restores what is attached now. "
            "What was done with the rights in between stays done."
        ),
        planned_at=now,
    )


def require_plannable(wanted: Attachment, look: Look) -> None:
    """Raise TargetMissingError when there is nothing to plan, saying why."""
    if look.identity.arn != wanted.identity:
        raise TargetMissingError(f"the {wanted.kind} of that name is {look.identity.arn}, not {wanted.identity}")
    if look.is_attached and wanted.verb == "attach":
        raise TargetMissingError(f"{wanted.policy} is attached to {wanted.identity} already")
    if not look.is_attached and wanted.verb == "detach":
        raise TargetMissingError(f"{wanted.policy} is not attached to {wanted.identity}")


def fingerprints(look: Look) -> tuple[Fingerprint, ...]:
    """What must be the same when the plan is carried out."""
    identity, policy = look.identity, look.policy
    marks = {
        identity.arn: identity.unique_id,
        f"{identity.arn} attached": attached_digest(each.arn for each in identity.held.attached),
        f"{identity.arn} policies": digest_of(
            [
                *([each.arn, each.version, each.document.digest] for each in identity.held.attached),
                *([each.name, each.document.digest] for each in identity.held.inline),
                *(document.digest for document in identity.through_groups),
            ]
        ),
        f"{identity.arn} boundary": NONE
        if identity.boundary is None
        else f"{identity.boundary.arn} {identity.boundary.version} {identity.boundary.document.digest}",
        f"{identity.arn} holders": digest_of([identity.trust.digest if identity.trust else "", list(identity.related)]),
        policy.arn: f"{policy.version} {policy.document.digest}",
    }
    return tuple(Fingerprint(target=target, value=value) for target, value in marks.items())


def attached_digest(arns: Iterable[str]) -> str:
    """What binds the set of attached policies, whatever stands in them."""
    return digest_of(sorted(arns))


def difference(wanted: Attachment, look: Look, plan_: Plan) -> str | None:
    """What differs from the plan, in words; None when everything is as planned."""
    planned = {mark.target: mark.value for mark in plan_.fingerprints}
    changed = [mark.target for mark in fingerprints(look) if planned.get(mark.target) != mark.value]
    if not changed:
        return None
    words = {
        wanted.identity: "it is another identity of the same name",
        f"{wanted.identity} attached": "other policies are attached to it",
        f"{wanted.identity} policies": "its policies say something else",
        f"{wanted.identity} boundary": "its permissions boundary is another",
        f"{wanted.identity} holders": "others can use it",
        wanted.policy: f"{wanted.policy} has another default version or text ({look.policy.version})",
    }
    return f"{wanted.identity}: {'; '.join(words.get(target, target) for target in changed)}"


def _measures(wanted: Attachment, look: Look, rights: Rights) -> dict[str, Scalar]:
    identity, trust = look.identity, look.identity.trust
    return {
        "actions": len(rights.all),
        **{measure: rights.counts.get(level, 0) for level, measure in _MEASURES.items()},
        "services": rights.services,
        "escalations": len(rights.escalating),
        "denies": look.policy.document.denies,
        "beyond_boundary": rights.beyond_boundary,
        "holders": _count_of_holders(wanted, look),
        "pass_role": "iam:PassRole" in rights.all,
        "all_resources": rights.is_unbounded,
        "has_boundary": identity.boundary is not None,
        "aws_managed": wanted.is_aws_managed,
        "trusts_anyone": trust is not None and trust.is_open,
        "trusts_other_accounts": trust is not None and trust.other_accounts,
    }


def _detail(wanted: Attachment, look: Look, rights: Rights, levels: Levels) -> dict[str, Scalar]:
    policy = look.policy
    return {
        "policy": policy.arn,
        "version": policy.version,
        "document": policy.document.digest,
        "says": _whole(policy.document.says(), MAX_TEXT, f"the text of {policy.arn}"),
        **{_MEASURES[level]: _each(names) for level, names in rights.by_level.items()},
        **_by_service(rights, levels),
        **({"escalations": ", ".join(rights.escalating)} if rights.escalating else {}),
        **({"freed": _freed(rights.freed, levels)} if rights.freed else {}),
        "holders": _whole(ascii(_holders(wanted, look))[1:-1], MAX_WHO, f"who holds {wanted.identity}"),
        "boundary": look.identity.boundary.arn if look.identity.boundary else NONE,
        "unread": UNREAD,
    }


def _summary(wanted: Attachment, look: Look, rights: Rights) -> str:
    gains = wanted.verb == "attach"
    first, second = ("Attach", "to") if gains else ("Detach", "from")
    sentences = [
        f"{first} {wanted.policy} ({look.policy.version}) {second} {wanted.identity}.",
        _gist(rights, gains=gains),
    ]
    if rights.escalating:
        sentences.append(
            f"{'WAYS TO MORE RIGHTS' if gains else 'Among them ways to more rights'}: {named(rights.escalating)}."
        )
    if rights.is_unbounded and gains:
        sentences.append("Some of it is for every resource.")
    if denies := look.policy.document.denies:
        # Taking a denial away may grant what no list of allowed actions shows.
        freed = f"WHAT THEY FORBADE MAY BECOME ALLOWED: {len(rights.freed)} actions, {named(rights.freed)}"
        effect = "what they forbid is forbidden" if gains else freed
        sentences.append(f"{denies} of its statements deny: {effect}.")
    if boundary := look.identity.boundary:
        sentences.append(
            f"The permissions boundary {boundary.arn} leaves {rights.beyond_boundary} of {len(rights.actions)} without "
            "effect as long as it stands."
        )
    if wanted.is_aws_managed:
        sentences.append("AWS writes this policy and may change it at any time.")
    holders = _holders(wanted, look)
    if len(ascii(holders)) > MAX_WHO_SHOWN:
        holders = f"{_warning(look)}{_count_of_holders(wanted, look)} hold it: the change names each."
    sentences.append(holders)
    sentences.append(f"{UNREAD[0].upper()}{UNREAD[1:]}.")
    return ascii(" ".join(sentences))[1:-1]


def _gist(rights: Rights, *, gains: bool) -> str:
    verb = "grants" if gains else "takes away"
    if not rights.actions:
        return f"It {verb} no action that other policies do not allow already."
    counts = ", ".join(
        f"{len(rights.by_level[level])} {level.value.lower()}" for level in reversed(Level) if level in rights.by_level
    )
    return f"It {verb} {len(rights.actions)} actions of {rights.services} services: {counts}."


def _holders(wanted: Attachment, look: Look) -> str:
    identity = look.identity
    if wanted.kind == "group":
        return f"{len(identity.related)} users are in the group: {', '.join(identity.related) or 'nobody'}."
    if identity.trust is None:
        return f"The user is in {len(identity.related)} groups."
    principals = ", ".join(identity.trust.principals) or "nobody"
    whole = "".join(
        f" Of account {account} that is everybody whom a policy there allows: how many is unknown."
        for account in identity.trust.whole_accounts
    )
    return f"Can assume the role: {_warning(look)}{principals}.{whole}"


def _warning(look: Look) -> str:
    trust = look.identity.trust
    anyone = "ANYONE, if only the conditions hold; " if trust is not None and trust.is_open else ""
    return f"{anyone}{'OTHER ACCOUNTS; ' if trust is not None and trust.other_accounts else ''}"


def _count_of_holders(wanted: Attachment, look: Look) -> int:
    identity, trust = look.identity, look.identity.trust
    return len(trust.principals) if trust else len(identity.related) if wanted.kind == "group" else 1


def named(actions: Iterable[str]) -> str:
    """The actions by name when they are few, else how many of which service."""
    names = sorted(actions)
    if len(names) <= MAX_NAMED:
        return ", ".join(names)
    counts: dict[str, int] = {}
    for name in names:
        service = name.partition(":")[0]
        counts[service] = counts.get(service, 0) + 1
    most = sorted(counts, key=lambda service: (-counts[service], service))
    shown = ", ".join(f"{service} {counts[service]}" for service in most[:MAX_SERVICES])
    return shown if len(most) <= MAX_SERVICES else f"{shown}, and {len(most) - MAX_SERVICES} services more"


def tally(actions: Iterable[str], levels: Levels) -> str:
    """How many of the actions are of each service and level, for all services: none is left out."""
    counts: dict[str, dict[Level, int]] = {}
    for action in actions:
        of_service = counts.setdefault(action.partition(":")[0], {})
        level = levels.of(action)
        of_service[level] = of_service.get(level, 0) + 1
    told = (
        " ".join([service, *(f"{letter}{of[level]}" for level, letter in _LETTERS.items() if level in of)])
        for service, of in sorted(counts.items())
    )
    return _ascii(", ".join(told))


def _by_service(rights: Rights, levels: Levels) -> dict[str, Scalar]:
    """The levels that have too many actions to name each, service by service. Empty: every action is named."""
    many = [name for names in rights.by_level.values() if len(names) > MAX_NAMED for name in names]
    return {"by_service": f"{LEGEND}: {tally(many, levels)}"} if many else {}


def _each(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {_ascii(named(names)) if len(names) <= MAX_NAMED else 'counted under by_service'}"


def _freed(freed: Iterable[str], levels: Levels) -> str:
    names = sorted(freed)
    told = _ascii(named(names)) if len(names) <= MAX_NAMED else f"{LEGEND}: {tally(names, levels)}"
    return f"{len(names)}: {told}"


def _ascii(text: str) -> str:
    return ascii(text)[1:-1]


def _whole(text: str, limit: int, what: str) -> str:
    """The text. ExecutorError when it is too long: nothing that people approve is shown in part (law 7)."""
    if len(text) > limit:
        raise ExecutorError(
            f"{what} has {len(text)} characters, and a plan shows at most {limit}, whole: split the policy or name less"
        )
    return text
