"""Which key may say what. A signature that fits is nothing without this. No I/O, no clock.

Retired keys stay in the directory with their validity, so that old records verify and new ones don't.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from schemas import ids, records, snapshots
from schemas.record import RecordError, Statement
from schemas.records import Refusal
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
    records.Genesis.TYPE: frozenset({"root"}),
    snapshots.Directory.TYPE: frozenset({"root"}),
    snapshots.Policies.TYPE: frozenset({"root"}),
    snapshots.Manifests.TYPE: frozenset({"root"}),
    snapshots.Roster.TYPE: frozenset({"root", "roster"}),
}
"""Every record type, and the roles whose keys may sign it."""


@dataclass(frozen=True)
class Authority:
    """The keys of one directory version, decoded once."""

    realm: str
    directory: Directory

    @cached_property
    def _keys(self) -> dict[str, Key]:
        return {key.keyid: key for key in self.directory.keys}

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

    def _holder_fits(self, key: Key, statement: Statement) -> bool:
        """Whether the key's holder may say this very record: its own intents, its own executor, its own channel."""
        body = statement.body
        match statement.type:
            case records.Intent.TYPE:
                return _is_requester(key, str(body.get("id")), body.get("subject"))
            case records.Withdrawal.TYPE:
                by = body.get("by")
                return key.role == "gateway" or _is_requester(key, str(body.get("intent")), by)
            case records.Plan.TYPE | records.PlanFailed.TYPE | records.Claim.TYPE | records.Outcome.TYPE:
                return bool(body.get("executor") == key.holder)
            case records.Decision.TYPE | records.Resolution.TYPE:
                return bool(body.get("channel") == key.channel)
            case _:
                return True


def _is_requester(key: Key, intent_id: str, subject: object) -> bool:
    if not isinstance(subject, dict):
        return False
    try:
        requester = ids.requester_of(intent_id)
    except ids.IntentIdError:
        return False
    if subject.get("id") != requester:
        return False
    # Persons have no keys of their own: the gateway authenticates them and signs.
    return key.role == "gateway" or (subject.get("type") == "agent" and key.holder == requester)


__all__ = ["MAY_SIGN", "Authority", "RecordError"]
