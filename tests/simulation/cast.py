"""Who takes part in a history, and what is in force: documents, and the changes they may go through.

People, groups and policies are those of `tests.broker.builders`; leases are short, so that a history is too.
"""

from typing import Any

from schemas.record import Record, Statement
from schemas.snapshots import Directory, Group, Manifest, Manifests, Policies, Roster, Rota, Shift, Snapshot
from tests.broker import builders
from tests.broker.builders import CEDAR, DIRECTORY, REALM, ROSTER, agents_with, groups_with, offered, persons_with
from tests.simulation.clockwork import EPOCH_MS
from tests.simulation.primitives import signer, state

LEASE, SETTLE, TIMEOUT = 20, 10, 25
DAY = builders.DAY
BOT = "bot"

MANIFESTS = Manifests(
    version=1,
    executors=(
        Manifest(
            executor="s3",
            version="1",
            actions=tuple(
                offered(f"s3.{verb}", lease=LEASE, settle=SETTLE, timeout=TIMEOUT)
                for verb in ("list", "copy", "export", "erase", "guard")
            ),
        ),
    ),
)


def on_call(*names: str) -> dict[str, Any]:
    shifts = tuple(Shift(person=name, starts_at=EPOCH_MS - DAY, ends_at=EPOCH_MS + DAY) for name in names)
    return {"rotas": (Rota(id="night", shifts=shifts),)}


STRICT = CEDAR.replace('@approvers("group:sre") @within', '@approvers("group:sre group:data") @within')
LOCKED = CEDAR + '@id("freeze")\nforbid (principal, action == Action::"s3.copy", resource);\n'
BROKEN = "broken"

OWNERS: tuple[dict[str, Any], ...] = (
    {"agents": agents_with(BOT, owners=("ada", "eve"))},
    {"agents": agents_with(BOT, owners=("ada", "dan"))},
    {"agents": agents_with(BOT, owners=("fay",), users=())},
    {"agents": agents_with(BOT)},
    {"persons": persons_with("ada", delegates=("cat", "dan"))},
)
GROUPS: tuple[dict[str, Any], ...] = (
    {"groups": groups_with("sre", "eve", "fay", "dan")},
    {"groups": groups_with("sre", "eve")},
    {"groups": DIRECTORY.groups},
    {"persons": persons_with("dan", is_active=False)},
    {"persons": DIRECTORY.persons},
)
RETIRED: tuple[dict[str, Any], ...] = (
    {"keys": builders.keys_with("slack", valid_until=EPOCH_MS)},
    {"keys": builders.keys_with("slack", valid_until=EPOCH_MS + 15_000)},
    {"keys": builders.keys_with("bot", valid_until=EPOCH_MS)},
    {"keys": DIRECTORY.keys},
)
SHIFTS: tuple[dict[str, Any], ...] = (on_call("hal"), on_call("kim", "eve"), on_call("ivy"), on_call("ivy", "kim"))
#: What administration does when an `unknown` finds nobody who may resolve it: somebody outside every circle can.
RELIEF: tuple[dict[str, Any], ...] = (
    {
        "persons": DIRECTORY.persons,
        "keys": DIRECTORY.keys,
        "groups": (*groups_with("sre", "eve", "fay", "dan", "gus"), Group(id="operators", members=("hal",))),
    },
)
RULES: tuple[dict[str, Any], ...] = ({"cedar": STRICT}, {"cedar": CEDAR}, {"cedar": LOCKED}, {"cedar": BROKEN})
CHANGES: dict[str, tuple[type[Snapshot], tuple[dict[str, Any], ...]]] = {
    "owners": (Directory, OWNERS),
    "groups": (Directory, GROUPS),
    "keys": (Directory, RETIRED),
    "roster": (Roster, SHIFTS),
    "policies": (Policies, RULES),
    "relief": (Directory, RELIEF),
}
FIRST: tuple[Snapshot, ...] = (
    DIRECTORY,
    ROSTER.model_copy(update=on_call("ivy", "kim")),
    Policies(version=1, cedar=CEDAR),
    MANIFESTS,
)


def behind(directory: Directory) -> frozenset[str]:
    """Who stands behind the agent in this version, near enough for who tries what."""
    return frozenset(each for agent in directory.agents if agent.id == BOT for each in (*agent.owners, *agent.users))


_FOLLOWING: dict[tuple[str, str, int], Snapshot] = {}
_SIGNED: dict[str, Statement] = {}


def next_version(before: Snapshot, kind: str, choice: int) -> Snapshot:
    """The version of a document after this one, one of the changes made."""
    name = (before.digest, kind, choice)
    if name not in _FOLLOWING:
        members = CHANGES[kind][1][choice]
        _FOLLOWING[name] = before.model_copy(
            update={**members, "version": before.version + 1, "previous": before.digest}
        )
    return _FOLLOWING[name]


def signed(document: Snapshot) -> Statement:
    """As the root key's holder publishes it."""
    if document.digest not in _SIGNED:
        _SIGNED[document.digest] = state(document, signer("root"), REALM)
    return _SIGNED[document.digest]


def topic_of(document: Record) -> str:
    return type(document).__name__.lower()


# ---------------------------------------------------------------- what policy demands, said once more


def demanded(  # noqa: C901 - one rule after the other
    action: str, objects: int, *, is_public: bool, cedar: str
) -> dict[str, Any] | str:
    """The requirement of an action under one of the policies above, `automatic`, or `deny`.

    Spelt out by hand from the rules' text, as a second opinion: no policy engine is asked.
    """
    if cedar == BROKEN:
        return "deny"
    if action in {"s3.copy", "s3.export"} and is_public:
        return "deny"
    if action == "s3.copy" and cedar == LOCKED:
        return "deny"
    seats: dict[str, int] = {}
    assurance, within = "channel", 3600
    match action:
        case "s3.list":
            return "automatic"
        case "s3.copy":
            seats["group:sre"] = 1
            if cedar == STRICT:
                seats["group:data"] = 1
        case "s3.export":
            seats |= {"group:sre": 2, "group:data": 1}
            within = 1800
            if objects > 100:
                seats["oncall:night"] = 1
                within = 1200
        case "s3.erase":
            seats["group:synced"] = 1
            assurance = "identity"
        case "s3.guard":
            seats["oncall:night"] = 1
    wanted = [{"of": of, "count": seats[of]} for of in sorted(seats)]
    return {"seats": wanted, "assurance": assurance, "within": within}
