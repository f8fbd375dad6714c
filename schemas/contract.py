"""The wire contract, generated from the models: JSON Schemas, an AsyncAPI document and test vectors.

    python -m schemas.contract            write schemas/json/, schemas/asyncapi.json and schemas/vectors/
    python -m schemas.contract --check    exit 1 if what is written differs from what would be

Whoever speaks to us from another language works from these files alone; so does the Python client.
"""

import argparse
import base64
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from schemas import canonical, examples, ids, partition, signing
from schemas.authority import MAY_SIGN
from schemas.canonical import Json
from schemas.record import Record
from schemas.records import Genesis
from schemas.topics import ALL_BUT_AGENTS, DAY_MS, TOPICS, Cleanup, Principal, Topic

README: Final = Path(__file__).resolve().parent.parent / "README.md"
HERE: Final = Path(__file__).parent
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
KEYID: Final[dict[str, Json]] = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
SIGNATURE: Final[dict[str, Json]] = {"type": "string", "pattern": "^[A-Za-z0-9+/]{86}==$"}


def record_types() -> tuple[type[Record], ...]:
    """Every record type that crosses a topic, in the topics' order."""
    mapped = [kind for topic in TOPICS for kind in topic.types]
    return tuple(dict.fromkeys((*mapped, Genesis)))


def files() -> dict[str, bytes]:
    """The whole contract: content by path below `schemas/`."""
    made: dict[str, object] = {f"json/{kind.TYPE}.json": json_schema(kind) for kind in record_types()}
    made["asyncapi.json"] = asyncapi()
    made |= {f"vectors/{name}.json": vector for name, vector in vectors().items()}
    return {path: orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n" for path, value in made.items()}


# ---------------------------------------------------------------- JSON Schema


def json_schema(kind: type[Record]) -> dict[str, object]:
    """The JSON Schema (2020-12) of a record's value as it lies on Kafka: no null, no unknown member."""
    schema = _wire(kind.model_json_schema(mode="validation"))
    return {
        "$schema": DIALECT,
        "$id": f"urn:keyturn:schema:{kind.TYPE}",
        "x-keyturn-max-bytes": kind.MAX_BYTES,
        **schema,
    }


def _wire(schema: dict[str, Any]) -> dict[str, Any]:
    """What pydantic says, cut to the canonical profile, which says nothing by leaving a member out."""
    cut = {name: _wire_value(name, value) for name, value in schema.items() if (name, value) != ("default", None)}
    if "anyOf" in cut:
        rest = [choice for choice in cut["anyOf"] if choice != {"type": "null"}]
        cut = {name: value for name, value in cut.items() if name != "anyOf"} | (
            {"anyOf": rest} if len(rest) > 1 else rest[0]
        )
    if cut.get("type") == "integer":
        cut = {"minimum": -canonical.MAX_INT, "maximum": canonical.MAX_INT} | cut
    if "patternProperties" in cut:
        cut["additionalProperties"] = False
    return cut


def _wire_value(name: str, value: Any) -> Any:
    if name in {"properties", "$defs", "patternProperties"}:
        return {member: _untitled(_wire(part)) if name != "$defs" else _wire(part) for member, part in value.items()}
    if isinstance(value, dict):
        return _wire(value) if name != "default" else value
    if isinstance(value, list):
        return [_wire(part) if isinstance(part, dict) else part for part in value]
    return value


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    """A member's name is its title."""
    return {name: value for name, value in schema.items() if name != "title"}


# ---------------------------------------------------------------- AsyncAPI


def asyncapi() -> dict[str, object]:
    """The AsyncAPI 3.0 document: channels from the topic map, operations by role, messages with their headers."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Keyturn",
            "version": "1",
            "description": (
                "Human approval for AI agents' actions. A record's value is canonical JSON (RFC 8785, no floats, no "
                "null); its signature is Ed25519 over the DSSE pre-authentication encoding of its payload type, which "
                "names the realm, and its value. The partition is murmur2(requester) mod P; the key is the intent's id "
                "unless said."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_channel_name(topic): _channel(topic) for topic in TOPICS},
        "operations": dict(_operations()),
        "components": {"messages": {kind.TYPE: _message(kind) for kind in record_types()}},
    }


def _channel_name(topic: Topic) -> str:
    return topic.name.partition(".")[0]


def _channel(topic: Topic) -> dict[str, object]:
    parameters: dict[str, object] = {
        "prefix": {"default": "keyturn.", "description": "Of this installation; ends in a dot, or is empty."}
    }
    if topic.is_per_executor:
        parameters["executor"] = {"description": "There is one such topic for each executor."}
    kinds: tuple[type[Record], ...]
    kinds = (*topic.types, Genesis) if topic.is_input and topic.is_partitioned else topic.types
    settings = topic.configuration()
    kafka: dict[str, object] = {
        "topicConfiguration": {"cleanup.policy": [topic.cleanup.value]}
        | {name: int(settings[name]) for name in ("retention.ms", "retention.bytes") if name in settings},
        "bindingVersion": "0.5.0",
    }
    if not topic.is_partitioned:
        kafka["partitions"] = 1
    return {
        "address": f"{{prefix}}{topic.name}",
        "title": topic.name,
        "description": topic.says,
        "parameters": parameters,
        "messages": {kind.TYPE: {"$ref": f"#/components/messages/{kind.TYPE}"} for kind in kinds},
        "bindings": {"kafka": kafka},
        "x-keyturn-partitions": "P" if topic.is_partitioned else "1",
        "x-keyturn-transactional": topic.is_transactional,
        "x-keyturn-settings": settings,
    }


def _operations() -> Iterator[tuple[str, object]]:
    for role in Principal:
        for topic in TOPICS:
            name = _channel_name(topic)
            for action, holders in (("send", topic.writers), ("receive", topic.readers)):
                if role in holders:
                    yield (
                        f"{role}-{action}-{name}",
                        {
                            "action": action,
                            "channel": {"$ref": f"#/channels/{name}"},
                            "summary": f"{role} {'writes' if action == 'send' else 'reads'} {topic.name}",
                            "tags": [{"name": str(role)}],
                        },
                    )


def _message(kind: type[Record]) -> dict[str, object]:
    return {
        "name": kind.TYPE,
        "title": kind.__name__,
        "summary": (kind.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "headers": _headers(kind),
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./json/{kind.TYPE}.json"},
        },
        "x-keyturn-signed-by": sorted(MAY_SIGN.get(kind.TYPE, ())),
    }


def _headers(kind: type[Record]) -> dict[str, object]:
    """CloudEvents 1.0 in binary mode, and our signature. Each is there exactly once; all are ASCII."""
    return {
        "type": "object",
        "required": ["ce_specversion", "ce_type", "keyid", "sig"],
        "properties": {
            "content-type": {"const": "application/json"},
            "ce_specversion": {"const": "1.0"},
            "ce_type": {"const": kind.TYPE},
            "ce_source": {"type": "string", "description": "/keyturn/<realm>/<role>"},
            "ce_id": KEYID | {"description": "The first half of the value's SHA-256: the same value has the same id."},
            "ce_subject": {"type": "string", "description": "The record's key."},
            "keyid": KEYID | {"description": "The first half of the SHA-256 of the raw public key."},
            "sig": SIGNATURE | {"description": "Base64 of the Ed25519 signature."},
            "n": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "On transactional topics: the gap-free number.",
            },
        },
    }


# ---------------------------------------------------------------- vectors


def vectors() -> dict[str, object]:
    """What another implementation must compute alike."""
    return {
        "canonical": {"accepted": list(_accepted()), "refused": list(_refused())},
        "signatures": _signatures(),
        "partitions": _partitions(),
        "ids": _ids(),
        "records": [
            {"type": record.TYPE, "value": record.to_bytes().decode(), "sha256": record.digest, "signed_by": role}
            for record, role in examples.TOLD_BY
        ],
        "questions": [
            {
                "question": examples.QUESTION.to_json(),
                "canonical": canonical.encode(examples.QUESTION.to_json()).decode(),
                "sha256": examples.QUESTION.digest,
            }
        ],
        "content": [{"intent": examples.INTENT.to_bytes().decode(), "content_digest": examples.INTENT.content_digest}],
    }


ACCEPTED: Final[Mapping[str, Json]] = {
    "members are sorted, blanks dropped": {"b": 1, "a": {"d": True, "c": False}},
    "an upper-case letter sorts before a lower-case one": {"a": 1, "B": 2, "_": 3},
    "the largest and smallest integer": {"max": 2**53 - 1, "min": -(2**53) + 1, "zero": 0},
    "control characters take the shortest escape": {"text": '\b\t\n\f\r\u0001\u001f"\\/'},
    "letters beyond ASCII stay as they are": {"text": "Prüfung 試験 \U0001f511\u2028"},
    "DEL is not escaped": {"text": "\u007f"},
    "lists keep their order": {"list": ["b", "a", 2, 1, [], {}]},
}
REFUSED: Final[Mapping[str, bytes]] = {
    "not an object": b"[]",
    "members not sorted": b'{"b":1,"a":1}',
    "a blank": b'{"a": 1}',
    "a member twice": b'{"a":1,"a":1}',
    "a float": b'{"a":1.5}',
    "a whole float": b'{"a":1.0}',
    "an exponent": b'{"a":1e3}',
    "minus zero": b'{"a":-0}',
    "2**53": b'{"a":9007199254740992}',
    "null": b'{"a":null}',
    "an escape that is not the shortest": b'{"a":"\\u0041"}',
    "an escaped slash": b'{"a":"\\/"}',
    "text that is not NFC": '{"a":"e\u0301"}'.encode(),
    "a lone surrogate": b'{"a":"\\ud800"}',
    "not UTF-8": b'{"a":"\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "a member name beyond ASCII": '{"ä":1}'.encode(),
    "an empty member name": b'{"":1}',
    "something after the end": b'{"a":1} ',
    "nested too deep": b'{"a":' * 17 + b"1" + b"}" * 17,
}


def _accepted() -> Iterator[dict[str, object]]:
    for why, value in ACCEPTED.items():
        data = canonical.encode(value)
        yield {"why": why, "value": value, "canonical_base64": _base64(data), "sha256": canonical.digest(data)}


def _refused() -> Iterator[dict[str, object]]:
    for why, data in REFUSED.items():
        yield {"why": why, "value_base64": _base64(data)}


def _signatures() -> dict[str, object]:
    keys = [
        {
            "role": role,
            "seed_base64": _base64(examples.seed(role)),
            "public": examples.signer(role).public,
            "keyid": examples.signer(role).keyid,
        }
        for role in examples.ROLES
    ]
    signed = [_signature(record, role) for record, role in examples.TOLD_BY]
    return {"note": "published keys, for tests only", "realm": examples.REALM, "keys": keys, "signed": signed}


def _signature(record: Record, role: str) -> dict[str, object]:
    signer, value = examples.signer(role), record.to_bytes()
    kind = signing.payload_type(record.TYPE, examples.REALM)
    return {
        "type": record.TYPE,
        "value": value.decode(),
        "payload_type": kind,
        "pae_base64": _base64(signing.pre_authentication_encoding(kind, value)),
        "keyid": signer.keyid,
        "sig": signing.sign(signer, examples.REALM, record.TYPE, value),
    }


def _partitions() -> dict[str, object]:
    words = ("21", "foobar", "a-little-bit-long-string", "a-little-bit-longer-string", "abc", "", "a", "ab", "Prüfung")
    requesters = ("ada", "grace", "export-bot", "deploy-bot", "a", "agent-007", "x" * 63)
    return {
        "murmur2": [{"text": word, "murmur2": partition.murmur2(word.encode())} for word in words],
        "partitions": [
            {"requester": requester, "of": count, "partition": partition.partition_of(requester, count)}
            for requester in requesters
            for count in (1, 2, 8, 12)
        ],
    }


def _ids() -> dict[str, object]:
    made = [
        ("ada", 0, bytes(10)),
        ("export-bot", examples.NOON, bytes(range(10))),
        ("a", 2**48 - 1, b"\xff" * 10),
    ]
    wrong = (
        "",
        "ada",
        "ada.",
        "Ada.01KDX6Y7000000000000000000",
        "ada.01kdx6y7000000000000000000",
        "ada.81KDX6Y7000000000000000000",
        "ada.01KDX6Y70000000000000000I0",
        "ada.01KDX6Y700000000000000000",
        "a.b.01KDX6Y7000000000000000000",
        "-ada.01KDX6Y7000000000000000000",
    )
    return {
        "made": [
            {
                "requester": requester,
                "at_ms": at_ms,
                "entropy_base64": _base64(entropy),
                "id": ids.intent_id(requester, at_ms, entropy),
            }
            for requester, at_ms, entropy in made
        ],
        "refused": list(wrong),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ---------------------------------------------------------------- the table for people

TABLE_STARTS: Final = "<!-- topics: generated by `make contract` -->\n"
TABLE_ENDS: Final = "<!-- /topics -->\n"


def topic_table() -> str:
    """The topic map as the README shows it (GitHub-flavoured Markdown)."""
    lines = ["| topic | says | partitions | kept | writers | readers |", "|---|---|---|---|---|---|"]
    for topic in TOPICS:
        if topic.cleanup is Cleanup.COMPACT:
            kept = "for ever" if "min.compaction.lag.ms" in topic.extra else "newest a key"
        else:
            kept = f"{topic.retention_ms // DAY_MS} days" if topic.retention_ms else "for ever"
        cells = (
            f"`{topic.name.replace('{executor}', '<executor>')}`",
            topic.says,
            "P" if topic.is_partitioned else "1",
            kept,
            ", ".join(sorted(topic.writers)),
            "all but agents" if topic.readers >= ALL_BUT_AGENTS else ", ".join(sorted(topic.readers)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """A README with the table between its two marks as it should be."""
    before, _, rest = readme.partition(TABLE_STARTS)
    _, _, after = rest.partition(TABLE_ENDS)
    return before + TABLE_STARTS + topic_table() + TABLE_ENDS + after


# ---------------------------------------------------------------- writing and comparing


def drift(folder: Path = HERE) -> tuple[str, ...]:
    """The paths below `folder` that differ from what would be generated: changed, missing, or left over."""
    wanted = files()
    there = {
        path.relative_to(folder).as_posix()
        for path in (*folder.glob("json/*.json"), *folder.glob("vectors/*.json"), *folder.glob("asyncapi.json"))
    }
    changed = {path for path in there & set(wanted) if (folder / path).read_bytes() != wanted[path]}
    return tuple(sorted(changed | (set(wanted) ^ there)))


def write(folder: Path = HERE) -> int:
    """Generate everything anew; returns how many files there are."""
    wanted = files()
    for path in drift(folder):
        if path not in wanted:
            (folder / path).unlink()
    for path, data in wanted.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return len(wanted)


def main(folder: Path = HERE) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m schemas.contract", description="Generate the wire contract.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if anything would change")
    if not parser.parse_args().check:
        sys.stdout.write(f"{write(folder)} files written\n")
        if README.exists():
            README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    different = drift(folder)
    if README.exists() and (text := README.read_text(encoding="utf-8")) != with_table(text):
        different = (*different, "../README.md")
    for path in different:
        sys.stderr.write(f"schemas/{path} differs: run python -m schemas.contract, and review the change\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
