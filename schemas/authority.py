"""Which key may say what. A signature that fits is nothing without this. No I/O, no clock.

Retired keys stay in the directory with their validity, so that old records verify and new ones don't.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from schemas import ids, records, snapshots
from schemas.record import RecordError, Statement
from schemas.records import Channel, Refusal
from schemas.signing import KeyRing
from schemas.snapshots import Directory, Key, Role

MAY_SIGN: Final[dict[str, frozenset[Role]]] = {
    records.Intent.TYPE: frozenset({"agent", "gateway"}),
    records.Withdrawal.TYPE: frozenset({"agent", "gateway"}),
    records.ClassifiedIntent.TYPE: frozenset({"intake"}),
    records.ForwardedWithdrawal.TYPE: frozenset({"intake"}),
    records.Plan.TYPE: frozenset({"executor"}),
    records.PlanFailed.TYPE: frozenset({"executor"}),
    records.Claim.TYPE: frozenset({"executor"}),
    records.Outcome.TYPE: frozenset({"executor"}),
    records.JournalEntry.TYPE: frozenset({"executor"}),
    records.Decision.TYPE: frozenset({"notifier"}),
    records.Resolution.TYPE: frozenset({"notifier"}),
    records.ShownCard.TYPE: frozenset({"notifier"}),
    records.Tick.TYPE: frozenset({"core"}),
    records.PlanRequest.TYPE: frozenset({"core"}),
    records.PendingApproval.TYPE: frozenset({"core"}),
    records.IntentStatus.TYPE: frozenset({"core"}),
    records.Progress.TYPE: frozenset({"core"}),
    records.ApprovedIntent.TYPE: frozenset({"core"}),
    records.Grant.TYPE: frozenset({"core"}),
    records.ClaimRefused.TYPE: frozenset({"core"}),
    records.ApprovalEnded.TYPE: frozenset({"core"}),
    records.OutcomeUnknown.TYPE: frozenset({"core"}),
    records.AuditRecord.TYPE: frozenset({"core"}),
    records.Quarantined.TYPE: frozenset({"intake", "core", "executor"}),
    records.Redrive.TYPE: frozenset({"operator"}),
    # And the core takes it from a pinned root key only.
    records.Skip.TYPE: frozenset({"root"}),
    records.Restore.TYPE: frozenset({"root"}),
    records.Genesis.TYPE: frozenset({"root"}),
    snapshots.Directory.TYPE: frozenset({"root"}),
    snapshots.Policies.TYPE: frozenset({"root"}),
    snapshots.Manifests.TYPE: frozenset({"root"}),
    snapshots.Roster.TYPE: frozenset({"root", "roster"}),
}
"""Every record type, and the roles whose keys may sign it."""

EVIDENCE_OF: Final[dict[Channel, frozenset[str]]] = {
    Channel.SLACK: frozenset({"chat"}),
    Channel.TEAMS: frozenset({"chat"}),
    Channel.API: frozenset({"oidc", "webauthn"}),
    Channel.CONSOLE: frozenset({"oidc", "webauthn"}),
}
"""What each channel can have seen of a person. Whoever holds a chat's key has seen nobody log in."""


@dataclass(frozen=True)
class Authority:
    """The keys of one directory version, decoded once."""

    realm: str
    directory: Directory

    @cached_property
    def _keys(self) -> dict[str, Key]:
        return {key.keyid: key for key in self.directory.keys}

    @cached_property
    def _gateways(self) -> dict[str, frozenset[str]]:
        return {agent.id: frozenset(agent.gateways) for agent in self.directory.agents}

    @cached_property
    def _providers(self) -> dict[str, frozenset[str]]:
        return {
            person.id: frozenset(account.provider for account in person.accounts) for person in self.directory.persons
        }

    @cached_property
    def _ring(self) -> KeyRing:
        return KeyRing({key.keyid: key.public for key in self.directory.keys})

    def key(self, keyid: str) -> Key | None:
        """The key of that id, retired ones included."""
        return self._keys.get(keyid)

    def refuses(self, statement: Statement, log_time: int) -> Refusal | None:
        """Why this signed record does not count at `log_time`, or None when its signature fits and its key may say it.

        Law 6: an unknown key, a retired key, a role that may not sign this type, all are `bad_signature`.
        """
        key = self._keys.get(statement.keyid)
        if key is None or key.role not in MAY_SIGN.get(statement.type, frozenset()):
            return Refusal.BAD_SIGNATURE
        if log_time < key.valid_from or (key.valid_until is not None and log_time >= key.valid_until):
            return Refusal.BAD_SIGNATURE
        if not self._ring.verifies(self.realm, statement.type, statement.value, statement.keyid, statement.sig):
            return Refusal.BAD_SIGNATURE
        return None if self._holder_fits(key, statement) else Refusal.NOT_ENTITLED

    def is_behalf_verified(self, intent: Statement) -> bool:
        """Whether the word of whom this intent is for (`on_behalf_of`) narrows the circle (law 2, T12).

        Only a gateway checks a token, and only of persons for one of whose logins the directory lets it vouch: another
        gateway's word of them is a statement like any agent's.
        """
        key, context = self._keys.get(intent.keyid), intent.body.get("context")
        if key is None or key.role != "gateway" or not isinstance(context, dict):
            return False
        return not self._providers.get(str(context.get("on_behalf_of")), frozenset()).isdisjoint(key.providers)

    def why(self, statement: Statement, refusal: Refusal) -> str:
        """What `refuses` found, for people: where a key may not say this, which field of the directory is to be filled.

        Names come from the directory; whatever else the statement says of itself is not repeated.
        """
        key = self._keys.get(statement.keyid)
        if key is None or refusal is not Refusal.NOT_ENTITLED:
            return "the signature does not fit, or its key may not say this"
        if statement.type in {records.Intent.TYPE, records.Withdrawal.TYPE}:
            subject = statement.body.get("subject" if statement.type == records.Intent.TYPE else "by")
            return self._why_silent(key, subject if isinstance(subject, dict) else {})
        if key.role == "notifier":
            return _why_no_voucher(key, statement.body)
        return f"the key is {key.holder}'s, and this is not its to say"

    def _why_silent(self, key: Key, subject: dict[str, Any]) -> str:
        """Why this key does not speak for that subject."""
        name, kind = str(subject.get("id")), subject.get("type")
        gateways, providers = self._gateways.get(name), self._providers.get(name)
        if key.role == "gateway" and kind == "agent" and gateways is not None and key.holder not in gateways:
            return (
                f"agent {name} does not let the gateway {key.holder} sign for it: list the gateway in the agent's "
                "`gateways` in the directory, or let the agent sign by its own key"
            )
        if key.role == "gateway" and kind == "person" and providers is not None and providers.isdisjoint(key.providers):
            return (
                f"the gateway {key.holder} may not vouch for a login of {name}: list the provider of one of "
                f"{name}'s accounts in `providers` of the gateway's key in the directory"
            )
        return f"the key is {key.holder}'s: it signs for nobody else, and an id begins with its requester's name"

    def _holder_fits(self, key: Key, statement: Statement) -> bool:
        """Whether the key's holder may say this very record: its own intents, its own executor, its own channel."""
        body = statement.body
        match statement.type:
            case records.Intent.TYPE:
                subject = body.get("subject")
                return _is_requester(str(body.get("id")), subject) and self._speaks_for(key, subject)
            case records.Withdrawal.TYPE:
                by = body.get("by")
                is_own = key.role == "gateway" or _is_requester(str(body.get("intent")), by)
                return is_own and self._speaks_for(key, by)
            case records.Plan.TYPE | records.PlanFailed.TYPE | records.Claim.TYPE | records.Outcome.TYPE:
                return bool(body.get("executor") == key.holder)
            case records.Decision.TYPE | records.Resolution.TYPE:
                return vouches(key, body)
            case records.ShownCard.TYPE:
                return key.channel is not None and body.get("channel") == key.channel
            case _:
                return True

    def _speaks_for(self, key: Key, subject: object) -> bool:
        """Whether the directory lets this key ask, or take back, in this subject's name (T12).

        An agent speaks by its own key, and by the gateways it lists. Persons have no keys of their own: a gateway that
        may vouch for one of their logins authenticates them and signs.
        """
        if not isinstance(subject, dict):
            return False
        name, kind = str(subject.get("id")), subject.get("type")
        if key.role != "gateway":
            return kind == "agent" and key.holder == name
        if kind == "agent":
            return key.holder in self._gateways.get(name, frozenset())
        return kind == "person" and not self._providers.get(name, frozenset()).isdisjoint(key.providers)


def vouches(key: Key, body: dict[str, Any]) -> bool:
    """Whether this notifier's channel can have met this account, and seen this evidence of it (T12)."""
    account, evidence = body.get("account"), body.get("evidence")
    if key.channel is None or body.get("channel") != key.channel:
        return False
    if not isinstance(account, dict) or not isinstance(evidence, dict):
        return False
    provider, kind, issuer = account.get("provider"), evidence.get("kind"), evidence.get("issuer")
    if provider not in key.providers or kind not in EVIDENCE_OF[key.channel]:
        return False
    # A login is its issuer's word about its own account; a chat names an issuer only as the account does.
    return bool(issuer == provider or (issuer is None and kind != "oidc"))


def _why_no_voucher(key: Key, body: dict[str, Any]) -> str:
    """Why this channel cannot have met that account."""
    if key.channel is None or body.get("channel") != key.channel:
        return f"the key is the notifier {key.holder}'s, and this names another channel"
    account = body.get("account")
    if not isinstance(account, dict) or account.get("provider") not in key.providers:
        return (
            f"the notifier {key.holder} may not vouch for this login: list the account's provider in `providers` of "
            "the notifier's key in the directory"
        )
    return f"the evidence is none that {key.channel.value} can have of this account"


def _is_requester(intent_id: str, subject: object) -> bool:
    if not isinstance(subject, dict):
        return False
    try:
        requester = ids.requester_of(intent_id)
    except ids.IntentIdError:
        return False
    return bool(subject.get("id") == requester)


__all__ = ["EVIDENCE_OF", "MAY_SIGN", "Authority", "RecordError", "vouches"]
