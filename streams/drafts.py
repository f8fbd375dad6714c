"""Directory and roster as people write them: YAML, without versions, digests, key ids. No clock; reads key files only.

A draft becomes the next snapshot by adding what a machine knows better: the version, the predecessor's digest, key
ids, since when a key is valid. A key that a draft leaves out is retired, never forgotten: old records must verify.
"""

import base64
import binascii
import difflib
import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from schemas.canonical import CanonicalError, Json
from schemas.record import RecordError
from schemas.signing import PrivateKeySigner, keyid_of, public_bytes
from schemas.snapshots import Directory, Key, Manifest, Manifests, Policies, Roster, Snapshot

SKEW_MS: Final = 60_000
"""A new key is valid from this much before now: the log's clock may lag behind the administrator's."""
MAX_ASSURANCE: Final = {"slack": "channel", "teams": "channel", "api": "identity", "console": "identity"}
"""How far a channel's notifier may vouch; a directory can say less (DESIGN §3, signatures)."""
CHATS: Final = frozenset({"slack", "teams"})
KEY_BYTES: Final = 32

S = TypeVar("S", bound=Snapshot)


class DraftError(ValueError):
    """The YAML cannot be meant; the text names the place."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key, as the first draft lists it."""

    file: str
    role: str
    holder: str


# ---------------------------------------------------------------- reading YAML


class _Loader(yaml.SafeLoader):
    """YAML of plain things: text, whole numbers, `true` and `false`. No dates, no `no` that is false, no name twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key) for key, _ in node.value]
        for index, name in enumerate(names):
            if name in names[:index]:
                # The YAML library would silently keep the last: a list of approvers could vanish.
                raise DraftError(f"line {node.value[index][0].start_mark.line + 1}: {name} is there twice")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(0|[1-9][0-9]*)$"), list("-0123456789"))


def load(text: str, name: str) -> dict[str, Json]:
    """The members of a YAML file; `name` is for messages. Numbers with leading zeros, dates and `no` stay text."""
    try:
        members = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader, narrowed
    except (yaml.YAMLError, DraftError) as exc:
        raise DraftError(f"{name}: {exc}") from exc
    if not isinstance(members, dict):
        raise DraftError(f"{name}: expected `name: value` lines")
    return members


# ---------------------------------------------------------------- from draft to snapshot


def directory(
    draft: Mapping[str, Json], folder: Path, previous: Directory | None, previous_digest: str | None, now: int
) -> Directory:
    """The directory that follows `previous`. Key files are named relative to `folder`; `now` is Unix milliseconds."""
    members = dict(draft)
    listed = members.pop("keys", [])
    if not isinstance(listed, list):
        raise DraftError("keys: expected a list")
    known = {key.keyid: key for key in previous.keys} if previous else {}
    keys: list[Json] = [_key(entry, f"keys.{index}", folder, known, now) for index, entry in enumerate(listed)]
    here = {str(key["keyid"]) for key in keys if isinstance(key, dict)}
    keys += [_retired(key, now).to_json() for keyid, key in known.items() if keyid not in here]
    return _snapshot(Directory, {**members, "keys": keys}, previous, previous_digest)


def roster(
    draft: Mapping[str, Json], known: Directory | None, previous: Roster | None, previous_digest: str | None
) -> Roster:
    """The roster that follows `previous`. It may fill only what the directory lists as synced, with its persons."""
    if known is None:
        raise DraftError("there is no directory yet: `keyturn directory apply` first")
    members = dict(draft)
    if isinstance(rotas := members.get("rotas"), list):
        members = members | {"rotas": [_rota(rota, f"rotas.{index}") for index, rota in enumerate(rotas)]}
    made = _snapshot(Roster, members, previous, previous_digest)
    synced = {group.id for group in known.groups if group.is_synced}
    _require_listed("group", "is_synced: true", (group.id for group in made.groups), synced)
    _require_listed("rota", "rotas", (rota.id for rota in made.rotas), set(known.rotas))
    people = {person.id for person in known.persons}
    mentioned = [*(name for group in made.groups for name in group.members)]
    mentioned += [shift.person for rota in made.rotas for shift in rota.shifts]
    _require_listed("person", "persons", mentioned, people)
    return made


def _require_listed(what: str, where: str, names: Iterable[str], listed: set[str]) -> None:
    if unknown := sorted(set(names) - listed):
        raise DraftError(f"{what} {', '.join(unknown)}: not in the directory ({where}); nobody would count it")


def policies(cedar: str, previous: Policies | None, previous_digest: str | None) -> Policies:
    """The policies that follow `previous`."""
    return _snapshot(Policies, {"cedar": cedar}, previous, previous_digest)


def manifests(installed: Iterable[Manifest], previous: Manifests | None, previous_digest: str | None) -> Manifests:
    """The manifests that follow `previous`: exactly these executors, by name."""
    executors: list[Json] = [manifest.to_json() for manifest in sorted(installed, key=lambda one: one.executor)]
    return _snapshot(Manifests, {"executors": executors}, previous, previous_digest)


def _snapshot(kind: type[S], members: Mapping[str, Json], previous: S | None, digest: str | None) -> S:
    if taken := {"version", "previous"} & set(members):
        raise DraftError(f"{', '.join(sorted(taken))}: leave it out, it is counted for you")
    numbered: dict[str, Json] = {**members, "version": previous.version + 1 if previous else 1}
    if digest is not None:
        numbered["previous"] = digest
    try:
        return kind.from_json(numbered)
    except (RecordError, CanonicalError) as exc:
        raise DraftError(str(exc)) from exc


def _key(entry: Json, place: str, folder: Path, known: Mapping[str, Key], now: int) -> dict[str, Json]:
    if not isinstance(entry, dict):
        raise DraftError(f"{place}: expected role, holder and file (or public)")
    members = dict(entry)
    public = _public(members, place, folder)
    keyid = keyid_of(public)
    for name in ("valid_from", "valid_until"):
        if name in members:
            members[name] = _instant(members[name], f"{place}.{name}")
    if members.get("role") == "notifier":
        members.setdefault("max_assurance", MAX_ASSURANCE.get(str(members.get("channel")), "channel"))
    # A root key is pinned in settings, not by the directory: it was good before there was one.
    members.setdefault("valid_from", 0 if members.get("role") == "root" else max(0, now - SKEW_MS))
    made: dict[str, Json] = {**members, "keyid": keyid, "public": base64.b64encode(public).decode()}
    return _as_before(known[keyid], made, entry, place) if keyid in known else made


def _as_before(before: Key, made: dict[str, Json], entry: Mapping[str, Json], place: str) -> dict[str, Json]:
    """A key that was listed already keeps what old records rest on."""
    if before.valid_until is not None and "valid_until" not in entry:
        raise DraftError(f"{place}: key {before.keyid} was retired and stays so; make the holder a new key")
    if (before.role, before.holder) != (made.get("role"), made.get("holder")):
        raise DraftError(f"{place}: key {before.keyid} belongs to {before.role} {before.holder}; make a new key")
    return made if "valid_from" in entry else {**made, "valid_from": before.valid_from}


def _retired(key: Key, now: int) -> Key:
    return key if key.valid_until is not None else key.model_copy(update={"valid_until": now})


def _public(members: dict[str, Json], place: str, folder: Path) -> bytes:
    file, text = members.pop("file", None), members.pop("public", None)
    if (file is None) == (text is None):
        raise DraftError(f"{place}: name either `file` or `public`")
    path = folder / str(file)
    try:
        raw = base64.b64decode(path.read_text(encoding="utf-8").strip() if file else str(text), validate=True)
        if len(raw) != KEY_BYTES:
            raise DraftError(f"{place}: expected the base64 of {KEY_BYTES} bytes")
        # Of a private key's file only the public half leaves this line.
        return public_bytes(PrivateKeySigner.from_seed(raw).key) if file and path.suffix == ".key" else raw
    except OSError as exc:
        raise DraftError(f"{place}: {path}: {exc.strerror}") from exc
    except binascii.Error as exc:
        raise DraftError(f"{place}: not base64: {exc}") from exc


def _rota(rota: Json, place: str) -> Json:
    if not isinstance(rota, dict) or not isinstance(shifts := rota.get("shifts", []), list):
        return rota
    return {**rota, "shifts": [_shift(shift, f"{place}.shifts.{index}") for index, shift in enumerate(shifts)]}


def _shift(shift: Json, place: str) -> Json:
    if not isinstance(shift, dict):
        return shift
    starts_at, ends_at = (_instant(shift.get(name, ""), f"{place}.{name}") for name in ("starts_at", "ends_at"))
    if starts_at >= ends_at:
        raise DraftError(f"{place}: ends_at must be later than starts_at")
    return {**shift, "starts_at": starts_at, "ends_at": ends_at}


def _instant(value: Json, place: str) -> int:
    """Unix milliseconds of an RFC 3339 time, which names its offset."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as exc:
        raise DraftError(f"{place}: {value!r} is not a time; write 2026-01-31T18:00:00Z") from exc
    if moment.tzinfo is None:
        raise DraftError(f"{place}: {value!r} names no offset; end it in Z or +01:00")
    return round(moment.timestamp() * 1000)


# ---------------------------------------------------------------- what is still missing


def gaps(known: Directory) -> tuple[str, ...]:
    """What this directory leaves empty so that somebody's word can never count, and the field to fill; for people."""
    now_valid = [key for key in known.keys if key.valid_until is None]
    doors = [key for key in now_valid if key.role in {"notifier", "gateway"}]
    found = [
        f"keys: the {key.role} {key.holder} has no `providers`: {_LOST[key.role]}" for key in doors if not key.providers
    ]
    met = {provider for key in doors if key.role == "notifier" for provider in key.providers}
    found += [
        f"persons: {person.id} has no `accounts` of a provider that a notifier vouches for, and cannot decide"
        for person in known.persons
        if person.is_active and not any(account.provider in met for account in person.accounts)
    ]
    holders = {key.holder for key in now_valid if key.role == "agent"}
    keyless = [agent for agent in known.agents if agent.is_active and agent.id not in holders]
    found += [
        f"agents: {agent.id} has neither a key of its own nor `gateways`: it cannot ask"
        for agent in keyless
        if not agent.gateways
    ]
    found += [
        f"agents: {agent.id} has no key and no `accounts`: the gateway that is shipped cannot recognise it"
        for agent in keyless
        if agent.gateways and not agent.accounts
    ]
    found += [
        f"agents: {agent.id} has a key, and `accounts` by which whoever holds a token of its client can ask, too"
        for agent in known.agents
        if agent.is_active and agent.id in holders and agent.accounts and agent.gateways
    ]
    if not any(group.id == "operators" and (group.members or group.is_synced) for group in known.groups):
        found.append("groups: `operators` has no members: nobody can resolve an `unknown` of an automatic act")
    return tuple(found)


_LOST: Final = {"notifier": "no decision through it counts", "gateway": "nobody can ask through it by a login"}


# ---------------------------------------------------------------- what changed


def changes(before: Snapshot | None, after: Snapshot) -> tuple[str, ...]:
    """What differs between two versions, one line a thing; empty when only the number does."""
    old, new = (before.to_json() if before else {}), after.to_json()
    lines: list[str] = []
    for field in sorted((old.keys() | new.keys()) - {"version", "previous"}):
        was, now = old.get(field), new.get(field)
        if isinstance(was, str) or isinstance(now, str):
            lines += _lines_changed(str(was or ""), str(now or ""))
        else:
            lines += _entries_changed(field, _by_id(was), _by_id(now))
    return tuple(lines)


def _lines_changed(was: str, now: str) -> list[str]:
    compared = difflib.ndiff(was.splitlines(), now.splitlines())
    return [line for line in compared if line[:2] in {"+ ", "- "} and line[2:].strip()]


def _entries_changed(field: str, was: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    lines = [f"- {field} {name}" for name in was if name not in now]
    lines += [f"+ {field} {name}" for name in now if name not in was]
    for name in was:
        if name in now and was[name] != now[name]:
            lines.append(f"~ {field} {name}{_members_changed(was[name], now[name])}")
    return lines


def _members_changed(was: Json, now: Json) -> str:
    if not isinstance(was, dict) or not isinstance(now, dict):
        return ""
    return ": " + ", ".join(sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)))


def _by_id(entries: "Json | None") -> dict[str, Json]:
    named: dict[str, Json] = {}
    for entry in entries if isinstance(entries, (list, tuple)) else ():
        if isinstance(entry, dict):
            names = [str(entry[name]) for name in ("role", "holder", "id", "keyid", "executor") if name in entry]
            named[" ".join(names)] = entry
        else:
            named[str(entry)] = entry
    return named


# ---------------------------------------------------------------- the first draft


def digest_of_public(public: str) -> str:
    """SHA-256 of a base64 public key's raw bytes: its key id is the first half."""
    return hashlib.sha256(base64.b64decode(public)).hexdigest()


def first_directory(
    realm: str, agents: Iterable[str], owners: Iterable[str], keys: Iterable[KeyEntry], issuers: Iterable[str] = ()
) -> str:
    """The directory that `keyturn init` leaves to be completed: valid as it stands, with the rest as examples.

    `issuers`: where people log in; whoever meets them by a login may vouch for these.
    """
    owners, agents = tuple(owners), tuple(agents)
    logins = f"[{', '.join(issuers)}]"
    lines = [
        f"# Who there is in {realm}. Complete it, then: keyturn directory apply directory.yaml",
        "# Versions, key ids and since when a key is valid are counted for you.",
        "",
        "persons:" if owners else "persons: []",
    ]
    for person in owners:
        lines += [f"  - id: {person}", f"    name: {person}", "    accounts: []"]
    lines += [
        "  # - id: ada",
        "  #   name: Ada Lovelace",
        "  #   accounts:                       # how we recognise her: an identity provider's subject, a chat account",
        "  #     - {provider: https://login.example.com, subject: ada@example.com}",
        "  #   delegates: [grace]              # who acts for her; can't approve what she asks for either",
        "",
        "agents:" if agents else "agents: []",
    ]
    for agent in agents:
        lines += [f"  - id: {agent}", f"    owners: [{', '.join(owners)}]", "    users: []"]
        lines += ["    gateways: []                      # gateways that may sign for it; its own key needs none"]
        lines += [
            "    accounts: []                      # OAuth clients that are this agent, if it has no key of its own"
        ]
        lines += ["    max_open: 20                      # how many of its intents may wait at once"]
        lines += ["    max_per_minute: 60                # how many are admitted within a minute"]
        lines += ["    cool_down: 3600                   # seconds until what people denied may be asked again"]
    lines += [
        "",
        "groups:",
        "  # Say what became of an act that policy permitted without people, when nobody knows (`keyturn resolve`).",
        "  - {id: operators, members: []}",
        "  # - {id: sre, members: [ada, grace]}",
        "  # - {id: data-owners, is_synced: true}   # members come from the roster",
        "",
        "# Rotas that a roster may fill.",
        "rotas: []",
        "",
        "# `providers`: whose accounts a notifier or a gateway vouches for: OIDC issuers, Slack teams, Entra tenants.",
        "# Nobody can decide through a notifier, or ask through a gateway, whose list is empty.",
        "# A key that is left out is retired. `file` is relative to this file; `public: <base64>` does as well.",
        "keys:",
    ]
    for key in keys:
        channel = f", channel: {key.holder}" if key.role == "notifier" else ""
        if key.role in {"notifier", "gateway"}:
            # A chat is met by its team or tenant, never by an issuer's login.
            channel += f", providers: {'[]' if key.holder in CHATS else logins}"
        lines.append(f"  - {{role: {key.role}, holder: {key.holder}{channel}, file: {key.file}}}")
    return "\n".join([*lines, ""])
