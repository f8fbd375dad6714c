"""The laws, held against what a history left behind. Shares no code with what it judges: raw JSON and hashes.

It sees what nobody in the history can: the true order in which records became durable, and every effect the provider
had. What it finds is a list of sentences; an empty one means that no law was broken.
"""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.simulation.cast import LEASE, SETTLE, demanded
from tests.simulation.kafka import Fetched

J = dict[str, Any]
PREFIX = "keyturn."
REALM = "test"
SKEW_MS = 2_000
HOUR_MS = 3_600_000
FINAL = {"refused", "denied", "withdrawn", "revoked", "expired", "succeeded", "failed"}
WORLD = ("directory", "roster", "policies", "manifests")
INPUTS = (*WORLD, "classified", "decisions", "reports")
BEFORE_CLAIM = (*WORLD, "classified", "decisions")
BEFORE_TICK = INPUTS
ASSURANCE = ("channel", "identity", "person")
SPOKEN = ("planning.s3", "approved.s3", "status")
FORGED = {"keyturn.decision.v1", "keyturn.resolution.v1"}
"""What a forger says with the core's key: never the core's word, wherever it lies."""

Verifies = Callable[[str, str, bytes, str], bool]
"""Whether this signature of this key fits these bytes: (keyid, type, value, sig)."""


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@dataclass(slots=True)
class Word:
    """One record, read."""

    record: Fetched
    type: str
    body: J
    keyid: str
    sig: str

    @property
    def digest(self) -> str:
        return sha(self.record.value or b"")

    @property
    def place(self) -> tuple[str, int, int]:
        return self.record.topic.removeprefix(PREFIX), self.record.partition, self.record.offset


def read(record: Fetched) -> Word | None:
    """None: nobody can read it."""
    headers: dict[str, list[bytes]] = defaultdict(list)
    for name, value in record.headers:
        headers[name].append(value)
    if any(len(headers[name]) != 1 for name in ("ce_type", "keyid", "sig")) or not record.value:
        return None
    try:
        body = orjson.loads(record.value)
    except ValueError:
        return None
    if not isinstance(body, dict) or canonical(body) != record.value:
        return None
    kind, keyid, sig = (headers[name][0].decode("ascii", "replace") for name in ("ce_type", "keyid", "sig"))
    return Word(record, kind, body, keyid, sig)


@dataclass
class Judge:
    """One history."""

    logs: dict[str, list[Fetched]]
    effects: list[Any]
    partition: int
    verifies: Verifies
    findings: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)

    # ------------------------------------------------------------ the evidence

    def __post_init__(self) -> None:
        self.words: dict[str, list[Word | None]] = {}
        self.raw: dict[tuple[str, int, int], Fetched] = {}
        for name in (*INPUTS, "ticks", *SPOKEN, "audit", "quarantine"):
            records = self.logs.get(PREFIX + name, [])
            self.words[name] = [read(each) for each in records]
            for each in records:
                self.raw[name, each.partition, each.offset] = each
        self.versions: dict[str, list[Word]] = {name: list(self._in_force(name)) for name in WORLD}
        self.trail = [
            word
            for word in self.words["audit"]
            if word is not None and word.body.get("chain") == f"core-{self.partition}"
        ]
        #: Where each input stands on the trail.
        self.answers: dict[tuple[str, int, int], list[int]] = defaultdict(list)
        for index, word in enumerate(self.trail):
            self.answers[_place(word.body["source"])].append(index)
        self.lives: dict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(self.trail):
            if "intent" in word.body:
                self.lives[word.body["intent"]].append(index)
        self.grants = [word for word in self._said("approved.s3") if word.type == "keyturn.grant.v1"]

    def _in_force(self, name: str) -> Iterator[Word]:
        root = self._root
        number = 0
        for word in self.words[name]:
            if (
                word is not None
                and word.type == f"keyturn.{name}.v1"
                and word.body.get("version") == number + 1
                and word.keyid == root
                and self._fits(word)
            ):
                number += 1
                yield word

    @property
    def _root(self) -> str:
        first = next(each for each in self.logs[PREFIX + "directory"])
        return dict(first.headers)["keyid"].decode()

    def _said(self, topic: str) -> Iterator[Word]:
        """What the core itself said there."""
        core = self._keys("core")
        for word in self.words[topic]:
            if word is not None and word.keyid in core and word.type not in FORGED and self._fits(word):
                yield word

    def _keys(self, role: str) -> set[str]:
        return {key["keyid"] for word in self.versions["directory"] for key in word.body["keys"] if key["role"] == role}

    def _fits(self, word: Word) -> bool:
        return self.verifies(word.keyid, word.type, word.record.value or b"", word.sig)

    def wrong(self, law: str, text: str) -> None:
        self.findings.append(f"{law}: {text}")

    def require(self, law: str, holds: object, text: str) -> None:
        if not holds:
            self.wrong(law, text)

    def judge(self) -> list[str]:
        """Everything that is wrong."""
        self._trail_holds()
        self._every_input_is_answered_once()
        self._everything_said_is_on_the_trail()
        self._lives_follow_their_phases()
        self._barriers_held()
        self._time_is_the_logs()
        for grant in self.grants:
            self._grant_is_right(grant)
        self._grants_are_single()
        self._effects_are_right()
        self._count_interleavings()
        return self.findings

    # ------------------------------------------------------------ laws 9, 10, 11

    def _trail_holds(self) -> None:
        core = self._keys("core")
        before: str | None = None
        for number, word in enumerate(self.trail, 1):
            body = word.body
            self.require("law 10", body["seq"] == number, f"audit record {body['seq']} where {number} is due")
            self.require("law 10", body.get("prev") == before, f"audit record {number} names another predecessor")
            self.require("law 10", word.keyid in core and self._fits(word), f"audit record {number} is not the core's")
            self.require("law 10", word.record.key == f"core-{self.partition}/{number}".encode(), "an audit key")
            before = word.digest
            self.reached[f"event {body['event']}"] += 1
            if "refusal" in body:
                self.reached[f"refusal {body['refusal']}"] += 1
            if body.get("before") != body.get("after") or body["event"] == "outcome.unclear":
                self.reached[f"{body.get('before', 'none')} -> {body.get('after', 'none')}"] += 1

    def _every_input_is_answered_once(self) -> None:
        """Law 9: one answer each, in order; what nobody can read is in quarantine, once."""
        quarantined = Counter(
            (word.body["source"]["topic"], word.body["source"]["partition"], word.body["source"]["offset"])
            for word in self.words["quarantine"]
            if word is not None and word.body.get("stage") == "core"
        )
        for name in INPUTS:
            last = -1
            for word, record in zip(self.words[name], self.logs.get(PREFIX + name, []), strict=True):
                if record.partition != (0 if name in WORLD else self.partition):
                    continue
                if word is not None and word.type == "keyturn.genesis.v1" and record.offset == 0:
                    continue
                place = (name, record.partition, record.offset)
                found = self.answers.get(place, [])
                self.require("law 9", len(found) == 1, f"{place} has {len(found)} answers on the trail")
                if found:
                    self.require("law 11", found[0] > last, f"{place} was decided before its predecessor")
                    last = found[0]
                    is_aside = self.trail[found[0]].body["event"] == "input.quarantined"
                    due = 1 if is_aside and self._is_kept_aside(self.trail[found[0]].body) else 0
                    self.require(
                        "law 9", quarantined[place] == due, f"{place} is {quarantined[place]} times quarantined"
                    )

    @staticmethod
    def _is_kept_aside(body: J) -> bool:
        """An answer that could not be said is on the trail alone."""
        return not str(body.get("reason", "")).startswith("cannot be said")

    def _everything_said_is_on_the_trail(self) -> None:
        """Laws 8 and 9: what the core says, an audit record of the same transaction says that it said."""
        due: Counter[tuple[str, str]] = Counter()
        for word in self.trail:
            for said in word.body.get("said", ()):
                due[said["topic"], said["digest"]] += 1
        numbers: dict[str, int] = {}
        for name in SPOKEN:
            for word in self._said(name):
                if word.record.partition != self.partition:
                    continue
                due[name, word.digest] -= 1
                number = int(dict(word.record.headers).get("n", b"-1"))
                self.require("law 11", number == numbers.get(name, 0), f"{name}: number {number}")
                numbers[name] = number + 1
        for (name, digest), count in due.items():
            self.require("law 8", count == 0, f"{name} {digest[:8]} is {count} times more on the trail than said")

    def _lives_follow_their_phases(self) -> None:
        """Laws 4 and 6: phases follow one another, final ones absorb everything, and every intent ends."""
        for intent, indexes in self.lives.items():
            phase: str | None = None
            for index in indexes:
                body = self.trail[index].body
                self.require(
                    "law 9", body.get("before") == phase, f"{intent[-4:]}: before {body.get('before')}, was {phase}"
                )
                if phase in FINAL:
                    still = body.get("after") == phase and "refusal" in body
                    self.require("law 6", still, f"{intent[-4:]}: {body['event']} moved {phase}")
                phase = body.get("after", phase)
            if phase is not None:
                self.require("I3", phase in FINAL, f"{intent[-4:]} ended as {phase}")

    def _barriers_held(self) -> None:
        """Law 4: whatever was durable before a claim, or a tick that ended something, was decided before it."""
        for index, word in enumerate(self.trail):
            body = word.body
            place = _place(body["source"])
            statement = body.get("statement", {})
            if statement.get("type") == "keyturn.claim.v1" and place[0] == "reports":
                names = BEFORE_CLAIM
            elif place[0] == "ticks" and "refusal" not in body:
                names = BEFORE_TICK
            else:
                continue
            asked = self.raw[place].seq
            for name in names:
                for record in self.logs.get(PREFIX + name, []):
                    found = self.answers.get((name, record.partition, record.offset))
                    if record.seq < asked and found and found[0] > index:
                        self.wrong(
                            "law 4", f"{name}/{record.offset} was durable before {place} and was decided after it"
                        )

    # ------------------------------------------------------------ law 5

    def _time_is_the_logs(self) -> None:
        for index, word in enumerate(self.trail):
            body = word.body
            place = _place(body["source"])
            raw = self.raw.get(place)
            self.require("law 5", raw is not None and raw.timestamp == body["log_time"], f"{place}: log time")
            statement = body.get("statement", {})
            said = statement.get("body", {})
            if statement.get("type") == "keyturn.decision.v1" and said.get("verdict") == "approve":
                deadline = self._deadline_at(body.get("intent"), index)
                if deadline is None:
                    continue
                if "refusal" not in body:
                    self.require("law 5", body["log_time"] < deadline, f"{place}: a late yes counted")
                elif body["refusal"] == "late":
                    self.require("law 5", body["log_time"] >= deadline, f"{place}: a timely yes was called late")
                elif body["refusal"] == "final" and self._was_asked_when_expired(
                    body["intent"], index, said["question"]
                ):
                    self.require("law 5", body["log_time"] >= deadline, f"{place}: a tick beat a timely yes")
            if body["event"] == "intent.expired":
                deadline = self._deadline_at(body.get("intent"), index)
                due = deadline is not None and body["log_time"] > deadline + SKEW_MS
                self.require("law 5", due, f"{place}: expired before every leader's clock was past the deadline")
            if body["event"] == "outcome.unknown":
                grant = self._last_grant_before(body["intent"], index)
                due = grant is not None and body["log_time"] > grant["granted_at"] + 1000 * (LEASE + SETTLE) + SKEW_MS
                self.require("law 5", due, f"{place}: unknown before lease, settle time and skew were over")

    def _deadline_at(self, intent: str | None, index: int) -> int | None:
        """Until when people could answer, by what was in force at this point of the trail."""
        if intent is None:
            return None
        asked: int | None = None
        ttl = 0
        within: int | None = None
        for each in self.lives[intent]:
            if each > index:
                break
            body = self.trail[each].body
            said = body.get("statement", {})
            if asked is None and said.get("type") == "keyturn.classified-intent.v1" and "refusal" not in body:
                asked = min(said["body"]["asked_at"], body["log_time"])
                ttl = said["body"]["intent"]["body"]["ttl"]
            requirement = body.get("classification", {}).get("requirement")
            if requirement is not None and "refusal" not in body:
                within = min(within or ttl, requirement["within"])
        return None if asked is None else asked + 1000 * min(ttl, within or ttl)

    def _was_asked_when_expired(self, intent: str, index: int, question: str) -> bool:
        """Whether this very question was what expired, and nobody had to end it otherwise."""
        before = [self.trail[each].body for each in self.lives[intent] if each < index]
        ended = next((body for body in before if body.get("after") == "expired"), None)
        opened = [sha(canonical(body["question"])) for body in before if "question" in body]
        return ended is not None and ended.get("before") == "pending" and bool(opened) and opened[-1] == question

    def _last_grant_before(self, intent: str, index: int) -> J | None:
        seq = self.trail[index].record.seq
        found = [word for word in self.grants if word.body["question"]["intent_id"] == intent and word.record.seq < seq]
        return found[-1].body if found else None

    # ------------------------------------------------------------ laws 1, 2, 3: I1

    def _grant_is_right(self, word: Word) -> None:
        grant = word.body
        asked = grant["question"]
        intent_id = asked["intent_id"]
        name = f"grant of {intent_id[-4:]}"
        claim = self._at(grant["claim"])
        if claim is None or claim.type != "keyturn.claim.v1":
            self.wrong("law 4", f"{name} answers no claim")
            return
        question = sha(canonical(asked))
        said = claim.body
        directory = self.versions["directory"][grant["versions"]["directory"] - 1].body
        roster = self.versions["roster"][grant["versions"]["roster"] - 1].body
        cedar = self.versions["policies"][grant["versions"]["policies"] - 1].body["cedar"]
        for each in WORLD:
            known = sum(version.record.seq < claim.record.seq for version in self.versions[each])
            self.require("law 4", grant["versions"][each] >= known, f"{name} rests on an old {each}")
        self.require("law 4", self._is_signed(claim, directory, {"executor"}), f"{name}: nobody signed its claim")
        self.require(
            "law 4", (said["question"], said["instance"]) == (question, grant["instance"]), f"{name}: its claim"
        )
        # Law 1: the first body under this id, this plan, these facts, this requirement, in this realm.
        first = self._first_body(intent_id)
        classified, plan = grant["classified"]["body"], grant["plan"]["body"]
        intent = classified["intent"]["body"]
        self.require("law 1", first is not None and classified["intent"]["body"] == first, f"{name}: another body")
        self.require("law 1", asked["realm"] == REALM and intent["id"] == intent_id, f"{name}: realm and intent")
        self.require("law 1", asked["intent"] == sha(canonical(intent)), f"{name}: the intent's digest")
        self.require("law 1", asked["plan"] == sha(canonical(plan)), f"{name}: the plan's digest")
        self.require("law 1", plan["intent"] == asked["intent"], f"{name}: the plan is for another body")
        self.require("law 1", asked["facts"] == sha(canonical(classified.get("facts", []))), f"{name}: the facts")
        requirement = grant.get("requirement")
        self.require(
            "law 1",
            requirement is None or asked["requirement"] == sha(canonical(requirement)),
            f"{name}: the requirement's digest",
        )
        for part, role in (("classified", "intake"), ("plan", "executor")):
            inside = grant[part]
            fits = self.verifies(inside["keyid"], inside["type"], canonical(inside["body"]), inside["sig"])
            self.require("law 6", fits and inside["keyid"] in self._keys(role), f"{name}: nobody signed its {part}")
        signed = classified["intent"]
        fits = self.verifies(signed["keyid"], signed["type"], canonical(signed["body"]), signed["sig"])
        still = self._is_valid(signed["keyid"], directory, {"agent", "gateway"}, classified["asked_at"])
        self.require("law 6", fits and still, f"{name}: its requester's signature does not count")
        # Law 5.
        seconds = min(intent["ttl"], requirement["within"] if requirement else intent["ttl"])
        deadline = classified["asked_at"] + 1000 * seconds
        self.require("law 5", claim.record.timestamp < deadline, f"{name}: after the deadline")
        self.require("law 5", grant["lease_until"] == claim.record.timestamp + 1000 * LEASE, f"{name}: its lease")
        # T3, law 6: policy of that moment, spelt out by hand.
        measures = plan.get("measures", {})
        wanted = demanded(
            intent["action"]["name"], measures.get("objects", 1), is_public=measures.get("public", False), cedar=cedar
        )
        is_locked = intent["action"]["properties"].get("bucket") == "locked"
        is_denied = wanted == "deny" or (is_locked and intent["action"]["name"] in {"s3.copy", "s3.export"})
        self.require("law 6", not is_denied, f"{name}: policy denied it at the claim")
        if not isinstance(wanted, str):
            self._require_at_least(name, requirement, wanted)
        self._no_word_against(name, intent, intent_id, question, claim, grant)
        if requirement is not None:
            self._people_are_enough(name, grant, question, classified, deadline, directory, roster, claim)
        self.reached["grants judged"] += 1
        self.reached["grants with people" if requirement else "grants without people"] += 1

    def _require_at_least(self, name: str, requirement: J | None, wanted: J) -> None:
        if requirement is None:
            self.wrong("law 6", f"{name}: people were to be asked")
            return
        given = {seat["of"]: seat["count"] for seat in requirement["seats"]}
        enough = all(given.get(seat["of"], 0) >= seat["count"] for seat in wanted["seats"])
        sure = ASSURANCE.index(requirement["assurance"]) >= ASSURANCE.index(wanted["assurance"])
        self.require(
            "law 3", enough and sure and requirement["within"] <= wanted["within"], f"{name}: asked too little"
        )

    def _no_word_against(self, name: str, intent: J, intent_id: str, question: str, claim: Word, grant: J) -> None:
        """An acknowledged revoke, deny or withdrawal wins over a later claim."""
        voters = {vote["person"] for vote in grant.get("votes", ())}
        for word in self.words["decisions"]:
            if word is None or word.type != "keyturn.decision.v1" or word.record.seq > claim.record.seq:
                continue
            said = word.body
            if said.get("question") != question or said.get("verdict") not in {"revoke", "deny"}:
                continue
            if word.record.key != intent_id.encode() or word.record.partition != self.partition:
                continue
            answer = self.answers.get(word.place)
            if not answer:
                continue
            then = self.trail[answer[0]].body["versions"]
            directory = self.versions["directory"][then["directory"] - 1].body
            if not self._is_signed(word, directory, {"notifier"}, said.get("channel")):
                continue
            person = _person(said["account"], directory)
            if person is None or said.get("person") not in {None, person}:
                continue
            if said["verdict"] == "revoke":
                self.require("law 4", person not in voters, f"{name}: {person} had taken the yes back")
            else:
                roster = self.versions["roster"][then["roster"] - 1].body
                requirement = grant.get("requirement") or {"seats": ()}
                seats = {seat["of"] for seat in requirement["seats"]}
                may = bool(seats & _seats(person, directory, roster, word.record.timestamp))
                behind = person in self._circle(intent, grant["classified"]["body"], then["directory"])
                self.require("law 4", not (may or behind), f"{name}: {person} had said no")
        self._nobody_had_withdrawn(name, intent, intent_id, claim)

    def _nobody_had_withdrawn(self, name: str, intent: J, intent_id: str, claim: Word) -> None:
        for word in self.words["classified"]:
            if word is None or word.type != "keyturn.forwarded-withdrawal.v1" or word.record.seq > claim.record.seq:
                continue
            answer = self.answers.get(word.place)
            inside = word.body.get("withdrawal", {})
            if not answer or inside.get("body", {}).get("intent") != intent_id or "refusal" in word.body:
                continue
            if word.record.key != intent_id.encode() or word.record.partition != self.partition:
                continue
            then = self.trail[answer[0]].body["versions"]
            directory = self.versions["directory"][then["directory"] - 1].body
            if not self._is_signed(word, directory, {"intake"}):
                continue
            if not self.verifies(inside["keyid"], inside["type"], canonical(inside["body"]), inside["sig"]):
                continue
            if not self._is_valid(inside["keyid"], directory, {"agent", "gateway"}, word.body["asked_at"]):
                continue
            by = inside["body"]["by"]["id"]
            owners = {
                each
                for agent in directory["agents"]
                if agent["id"] == intent["subject"]["id"]
                for each in agent["owners"]
            }
            self.require("law 4", by != intent["subject"]["id"] and by not in owners, f"{name}: {by} had withdrawn it")

    def _people_are_enough(
        self, name: str, grant: J, question: str, classified: J, deadline: int, directory: J, roster: J, claim: Word
    ) -> None:
        requirement = grant["requirement"]
        circle = self._circle(classified["intent"]["body"], classified, grant["versions"]["directory"])
        may: dict[str, set[str]] = {}
        for vote in grant.get("votes", ()):
            person = vote["person"]
            word = self._at(vote["source"])
            if word is None or word.body != vote["decision"]["body"] or word.sig != vote["decision"]["sig"]:
                self.wrong("law 3", f"{name}: {person} never said this yes")
                continue
            said = word.body
            self.require(
                "law 1",
                (said["intent"], said["question"], said["verdict"])
                == (grant["question"]["intent_id"], question, "approve"),
                f"{name}: {person} said something else",
            )
            self.require("law 5", word.record.timestamp == vote["log_time"] < deadline, f"{name}: {person} was late")
            self.require("law 4", word.record.seq < claim.record.seq, f"{name}: {person} had not said it yet")
            self.require(
                "law 6",
                self._is_signed(word, directory, {"notifier"}, said["channel"]),
                f"{name}: nobody signed the yes of {person}",
            )
            self.require("law 2", _person(said["account"], directory) == person, f"{name}: {person}'s account")
            self.require("law 2", person not in circle, f"{name}: {person} stands behind the requester")
            self.require("law 3", person not in may, f"{name}: {person} is counted twice")
            reached = self._assurance(word, directory)
            self.require(
                "law 3", reached >= ASSURANCE.index(requirement["assurance"]), f"{name}: {person} was not sure enough"
            )
            may[person] = _seats(person, directory, roster, word.record.timestamp)
        self.require("law 3", _fill(requirement, may), f"{name}: {sorted(may)} do not fill {requirement['seats']}")

    def asked_at(self, classified: J) -> int:
        """The log time of the record on `intents` that this answers."""
        source = classified["source"]
        return next(
            record.timestamp
            for record in self.logs[PREFIX + "intents"]
            if (record.partition, record.offset) == (source["partition"], source["offset"])
        )

    def _circle(self, intent: J, classified: J, upto: int) -> set[str]:
        """Law 2: everybody who stood behind the requester in any version since the asking, or from the cited one on."""
        found: set[str] = set()
        # The true time of the asking, whatever intake says of it.
        asked = self.asked_at(classified)
        later = [word.record.timestamp >= asked - SKEW_MS for word in self.versions["directory"]]
        begins = later.index(True) if True in later else len(later)
        for word in self.versions["directory"][max(min(begins, classified["versions"]["directory"]), 1) - 1 : upto]:
            now = {intent["context"]["on_behalf_of"]} if "on_behalf_of" in intent["context"] else set()
            for agent in word.body["agents"]:
                if agent["id"] == intent["subject"]["id"]:
                    now |= {*agent["owners"], *agent.get("users", ())}
            for _ in range(4):
                now |= {
                    each
                    for person in word.body["persons"]
                    if person["id"] in now
                    for each in person.get("delegates", ())
                }
            found |= now
        return found

    def _assurance(self, word: Word, directory: J) -> int:
        evidence, at = word.body["evidence"], word.record.timestamp
        known = (key for key in directory["keys"] if key["keyid"] == word.keyid)
        most = next((ASSURANCE.index(key["max_assurance"]) for key in known if "max_assurance" in key), 0)
        is_fresh = evidence["kind"] == "oidc" and -30_000 <= at - 1000 * evidence.get("auth_time", 0) <= HOUR_MS
        return min(most, 1 if is_fresh else 0)

    def _at(self, source: J) -> Word | None:
        place = _place(source)
        return next((word for word in self.words.get(place[0], ()) if word is not None and word.place == place), None)

    def _first_body(self, intent_id: str) -> J | None:
        """What pinned the id: the first classified record about it that the trail did not refuse for its signature."""
        for index in self.lives.get(intent_id, ()):
            body = self.trail[index].body
            said = body.get("statement", {})
            if said.get("type") == "keyturn.classified-intent.v1" and body.get("after") is not None:
                found: J = said["body"]["intent"]["body"]
                return found
        return None

    def _is_signed(self, word: Word, directory: J, roles: set[str], channel: str | None = None) -> bool:
        return self._fits(word) and self._is_valid(word.keyid, directory, roles, word.record.timestamp, channel)

    @staticmethod
    def _is_valid(keyid: str, directory: J, roles: set[str], at: int, channel: str | None = None) -> bool:
        return any(
            key["keyid"] == keyid
            and key["role"] in roles
            and key["valid_from"] <= at < key.get("valid_until", at + 1)
            and (channel is None or key.get("channel") == channel)
            for key in directory["keys"]
        )

    # ------------------------------------------------------------ law 4: I2, I3

    def _grants_are_single(self) -> None:
        by_intent: dict[str, list[Word]] = defaultdict(list)
        for word in self.grants:
            by_intent[word.body["question"]["intent_id"]].append(word)
        for intent, grants in by_intent.items():
            questions = [sha(canonical(word.body["question"])) for word in grants]
            self.require(
                "law 4", len(set(questions)) == len(questions), f"{intent[-4:]}: two grants under one question"
            )
            for before, after in itertools.pairwise(grants):
                stale = any(
                    word is not None
                    and word.type == "keyturn.outcome.v1"
                    and word.body["grant"] == before.digest
                    and word.body["result"] == "stale"
                    and before.record.seq < word.record.seq < after.record.seq
                    for word in self.words["reports"]
                )
                self.require("law 4", stale, f"{intent[-4:]}: granted again though the first act was not stale")
                self.reached["granted again after a stale"] += 1

    def _effects_are_right(self) -> None:
        count = Counter(effect.intent for effect in self.effects)
        for intent, times in count.items():
            self.require("law 4", times == 1, f"{intent[-4:]} was done {times} times")
        granted = {word.digest: word for word in self.grants}
        for effect in self.effects:
            name = f"the effect on {effect.intent[-4:]}"
            word = granted.get(effect.grant)
            if word is None:
                self.wrong("law 4", f"{name} rests on no grant")
                continue
            grant = word.body
            self.require("law 4", word.record.seq <= effect.seq, f"{name} came before its grant")
            self.require("law 4", grant["instance"] == effect.instance, f"{name} is another instance's")
            self.require("law 1", grant["question"]["intent"] == effect.digest, f"{name} is of another body")
            self.require("law 1", grant["question"]["intent_id"] == effect.intent, f"{name} is of another intent")
            # True time against a log time: no leader's clock is further ahead than this.
            self.require("law 5", effect.at < grant["lease_until"] + SKEW_MS, f"{name} came after its lease")
            for index in self.lives.get(effect.intent, ()):
                body = self.trail[index].body
                if (
                    self.trail[index].record.seq <= effect.seq
                    and "refusal" not in body
                    and body.get("after") in {*FINAL, "unknown"}
                ):
                    self.wrong("law 4", f"{name} came after it was {body['after']}")
            self.reached["effects judged"] += 1
        for intent, indexes in self.lives.items():
            after = [self.trail[index].body.get("after") for index in indexes]
            if not after or after[-1] is None:
                continue
            was_done = count.get(intent, 0) > 0
            if after[-1] == "succeeded":
                self.require("law 8", was_done, f"{intent[-4:]} is called succeeded, and nothing was done")
            elif after[-1] in FINAL:
                self.require("law 8", not was_done, f"{intent[-4:]} is called {after[-1]}, and it was done")

    # ------------------------------------------------------------ what was reached

    def _count_interleavings(self) -> None:
        """Each of the eleven, recognised by what it left behind."""
        self._count_claims_beside_ticks()
        for intent, indexes in self.lives.items():
            life = [(index, self.trail[index].body) for index in indexes]
            for names in self._interleavings(intent, life):
                self.reached[f"interleaving {names}"] += 1

    def _count_claims_beside_ticks(self) -> None:
        """10: a claim and a tick that waited at the same time, each behind its own barrier."""
        waited: dict[str, list[tuple[int, int]]] = {"reports": [], "ticks": []}
        for word in self.trail:
            place = _place(word.body["source"])
            said = word.body.get("statement", {}).get("type")
            if place[0] == "ticks" or said == "keyturn.claim.v1":
                waited[place[0]].append((self.raw[place].seq, word.record.seq))
        for claimed, decided in waited["reports"]:
            if any(ticked < decided and claimed < done for ticked, done in waited["ticks"]):
                self.reached["interleaving 10"] += 1

    def _interleavings(self, intent: str, life: list[tuple[int, J]]) -> Iterable[str]:  # noqa: C901, PLR0912 - a list
        barred: set[str] = set()
        events = [body["event"] for _, body in life]
        for position, (index, body) in enumerate(life):
            said = body.get("statement", {})
            inside = said.get("body", {})
            refusal = body.get("refusal")
            if (
                body.get("before") == "executing"
                and said.get("type") == "keyturn.outcome.v1"
                and refusal == "wrong_grant"
                and inside.get("result") == "stale"
            ):
                yield "1"
            if body["event"] == "decision.barred":
                barred.add(str(body.get("reason", "")).split(" ", 1)[0])
            if refusal == "barred" and barred:
                yield "2"
            if (
                position
                and life[0][1]["event"] == "intent.withdrawn"
                and said.get("type") == "keyturn.classified-intent.v1"
            ):
                yield "3"
            if body["event"] == "outcome.stale" and body.get("after") in FINAL:
                yield "4"
            if said.get("type") == "keyturn.decision.v1" and inside.get("verdict") == "approve":
                deadline = self._deadline_at(intent, index)
                raw = self.raw[_place(body["source"])]
                if deadline is not None and refusal is None:
                    if any(
                        tick.timestamp >= deadline and tick.seq < raw.seq
                        for tick in self.logs.get(PREFIX + "ticks", ())
                        if tick.partition == self.partition and tick.timestamp <= deadline + SKEW_MS
                    ):
                        yield "5"
                    if any(
                        each.get("log_time", 0) >= deadline
                        for _, each in life[:position]
                        if each["event"] == "plan.reported"
                    ):
                        yield "6"
                if refusal == "self_approval":
                    directory = self.versions["directory"][body["versions"]["directory"] - 1].body
                    person = _person(inside["account"], directory)
                    now = {
                        each
                        for agent in directory["agents"]
                        if agent["id"] == intent.split(".", 1)[0]
                        for each in (*agent["owners"], *agent.get("users", ()))
                    }
                    if person is not None and person not in now:
                        yield "7"
                for version in self.versions["roster"]:
                    found = self.answers.get(version.place)
                    if version.record.seq < raw.seq and found and self.trail[found[0]].record.seq > raw.seq:
                        yield "8"
            # 9: the slow actor speaks after others were let to look.
            is_late_word = said.get("type") == "keyturn.outcome.v1" and not inside.get("observed")
            if is_late_word and "outcome.unknown" in events[:position]:
                yield "9"


def _place(source: J) -> tuple[str, int, int]:
    return source["topic"], source["partition"], source["offset"]


def _person(account: J, directory: J) -> str | None:
    for person in directory["persons"]:
        if account in person.get("accounts", ()):
            return str(person["id"]) if person.get("is_active", True) else None
    return None


def _seats(person: str, directory: J, roster: J, at: int) -> set[str]:
    if not any(each["id"] == person and each.get("is_active", True) for each in directory["persons"]):
        return set()
    found = set()
    for group in directory["groups"]:
        members = group.get("members", ())
        if group.get("is_synced"):
            members = next(
                (each.get("members", ()) for each in roster.get("groups", ()) if each["id"] == group["id"]), ()
            )
        if person in members:
            found.add(f"group:{group['id']}")
    for rota in roster.get("rotas", ()):
        if rota["id"] in directory["rotas"] and any(
            shift["person"] == person and shift["starts_at"] <= at < shift["ends_at"] for shift in rota["shifts"]
        ):
            found.add(f"oncall:{rota['id']}")
    return found


def _fill(requirement: J, may: dict[str, set[str]]) -> bool:
    """By trying every way of sitting."""
    places = [seat["of"] for seat in requirement["seats"] for _ in range(seat["count"])]
    return any(
        all(place in may[name] for place, name in zip(places, chosen, strict=True))
        for chosen in itertools.permutations(sorted(may), len(places))
    )
