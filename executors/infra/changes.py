"""What a change set does to each resource, in words people sign; and what of it cannot be undone. No I/O."""

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from executors.infra.client import ResourceChange
from schemas.canonical import Json
from schemas.record import Scalar
from schemas.records import Change

_LATE: Final = re.compile(
    r"\{\{\s*resolve:[^}]{0,300}\}?\}?|!ImportValue\b|Fn::ImportValue\b|AWS::SSM::Parameter::Value\b"
)
"""Dynamic references, imports from other stacks, and parameters whose values lie in the parameter store."""
_SHOWN_LATE: Final = 80
_ESCAPED: Final = re.compile(
    r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})|\\\r?\n[ \t]*",
)
ORDINARY: Final = frozenset({"AWS::CloudWatch::Dashboard", "AWS::Logs::MetricFilter", "AWS::SQS::Queue"})
"""Kinds that give nobody a right, open nothing, run no code and cost little: the short list policy may let pass alone.

Law 6: it is closed. Whatever stands not on it counts as grave, kinds that come tomorrow included.
"""
KEPT: Final = frozenset({"Retain", "ReplaceAndRetain", "Snapshot", "ReplaceAndSnapshot", "RetainExceptOnCreate"})
"""PolicyActions after which what the old resource held is still somewhere."""
STATEFUL: Final = frozenset(
    {
        "AWS::Backup::BackupVault",
        "AWS::Cassandra::Keyspace",
        "AWS::Cassandra::Table",
        "AWS::CertificateManager::Certificate",
        "AWS::Cognito::UserPool",
        "AWS::DocDB::DBCluster",
        "AWS::DocDB::DBInstance",
        "AWS::DynamoDB::GlobalTable",
        "AWS::DynamoDB::Table",
        "AWS::EC2::Instance",
        "AWS::EC2::Volume",
        "AWS::ECR::Repository",
        "AWS::EFS::FileSystem",
        "AWS::ElastiCache::CacheCluster",
        "AWS::ElastiCache::ReplicationGroup",
        "AWS::ElastiCache::ServerlessCache",
        "AWS::Elasticsearch::Domain",
        "AWS::FSx::FileSystem",
        "AWS::FSx::Volume",
        "AWS::KMS::Key",
        "AWS::Kinesis::Stream",
        "AWS::Logs::LogGroup",
        "AWS::MSK::Cluster",
        "AWS::MemoryDB::Cluster",
        "AWS::Neptune::DBCluster",
        "AWS::Neptune::DBInstance",
        "AWS::OpenSearchService::Domain",
        "AWS::RDS::DBCluster",
        "AWS::RDS::DBInstance",
        "AWS::RDS::GlobalCluster",
        "AWS::Redshift::Cluster",
        "AWS::Route53::HostedZone",
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
        "AWS::SSM::Parameter",
        "AWS::SecretsManager::Secret",
        "AWS::Timestream::Database",
        "AWS::Timestream::Table",
    }
)
"""Resources that hold what no template can bring back."""

Verb = Literal["create", "update", "delete", "replace", "attach"]
Template = Mapping[str, object]


def verb(change: ResourceChange) -> Verb:
    """The strongest thing that may happen to it: a replacement that only may come counts as one."""
    match change.action:
        case "Add":
            return "create"
        case "Import":
            return "attach"
        case "Remove":
            return "delete"
        case _:
            return "update" if change.replacement == "False" else "replace"


def is_stateful(kind: str) -> bool:
    """Whether it may hold what a template cannot bring back. Law 6: of a kind that isn't AWS's own nobody knows."""
    return kind in STATEFUL or not kind.startswith("AWS::")


def loses_state(change: ResourceChange) -> bool:
    """Whether something may go for good."""
    return verb(change) in {"delete", "replace"} and is_stateful(change.kind) and change.policy_action not in KEPT


def is_ordinary(change: ResourceChange) -> bool:
    """Whether it is one of the few things that a policy may let pass without people."""
    return change.kind in ORDINARY and verb(change) in {"create", "update"}


def gravity(change: ResourceChange) -> tuple[bool, bool, str]:
    """Sorts the gravest first: what is lost, then what is not ordinary, so that nothing harmless stands before it."""
    return not loses_state(change), is_ordinary(change), change.logical_id


def change_of(stack: str, change: ResourceChange, before: Template, after: Template) -> Change:
    """One leaf of the plan."""
    detail: dict[str, Scalar] = {"type": change.kind}
    if change.physical_id:
        detail["physical_id"] = change.physical_id
    if change.action == "Modify":
        # Absent where the provider does not say: then it is not known, and counts as a replacement.
        detail["replacement"] = change.replacement or "unknown"
    if change.policy_action:
        detail["policy_action"] = change.policy_action
    if change.scope:
        detail["changed"] = ", ".join(change.scope)
    if is_stateful(change.kind):
        detail["stateful"] = True
    if loses_state(change):
        detail["loses_state"] = True
    was, will = _sides(change, before, after)
    if was:
        detail["before"] = was
    if will:
        detail["after"] = will
    return Change(verb=verb(change), target=f"{stack}/{change.logical_id}", detail=detail)


def row_of(change: ResourceChange) -> Json:
    """What the digest of the list is made from."""
    return [
        change.action,
        change.logical_id,
        change.physical_id,
        change.kind,
        change.replacement,
        change.policy_action,
        list(change.scope),
        _digest(change.before),
        _digest(change.after),
    ]


def counts(changes: Sequence[ResourceChange]) -> dict[str, Scalar]:
    """How much there is of each, as measures."""
    verbs = [verb(change) for change in changes]
    return {
        "creates": verbs.count("create") + verbs.count("attach"),
        "updates": verbs.count("update"),
        "replaces": verbs.count("replace"),
        "destroys": verbs.count("delete"),
        "stateful_losses": sum(map(loses_state, changes)),
        "iam_changes": sum(change.kind.startswith("AWS::IAM::") for change in changes),
        "not_ordinary": sum(not is_ordinary(change) for change in changes),
    }


def read_template(text: str) -> Template:
    """A template's resources by logical id, where they can be read without its own language: JSON. Else empty."""
    try:
        members = json.loads(text, object_pairs_hook=_once_each)
    except ValueError:
        return {}
    resources = members.get("Resources") if isinstance(members, dict) else None
    return resources if isinstance(resources, dict) else {}


def late_values(text: str) -> set[str]:
    """What of a template or of a value is looked up only when the change is made; a long one is told by its start."""
    try:
        # Escapes of JSON hide nothing.
        readings = [json.dumps(json.loads(text, object_pairs_hook=_once_each), ensure_ascii=True)]
    except ValueError:
        # Nor do those of YAML, wherever something looks like one.
        readings = [text, _ESCAPED.sub(_unescaped, text)]
    return {found[:_SHOWN_LATE] for reading in readings for found in _LATE.findall(reading)}


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. ValueError when a member is there twice: who reads it next may take the other one (T1)."""
    if len(members := dict(pairs)) < len(pairs):
        raise ValueError("a member is there twice")
    return members


def _unescaped(escape: re.Match[str]) -> str:
    """What an escape of a YAML string stands for (YAML 1.2, 5.7); a folded line's end for nothing."""
    code = int(next(filter(None, escape.groups()), "0"), 16)
    return chr(code) if 0 < code <= sys.maxunicode else ""


def _sides(change: ResourceChange, before: Template, after: Template) -> tuple[str, str]:
    """Before and after: as the provider has resolved them, else of what changes as the two templates have it."""
    if change.before or change.after:
        return _plain(change.before), _plain(change.after)
    if change.action in {"Add", "Import"}:
        made = after.get(change.logical_id)
        return "", json.dumps(made, sort_keys=True, separators=(",", ":")) if made is not None else ""
    if change.action != "Modify":
        return "", ""
    return tuple(_part(side.get(change.logical_id), change.scope) for side in (before, after))  # type: ignore[return-value]


def _plain(text: str) -> str:
    """The same JSON in ASCII, so that it can stand in a record whatever it says."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) if text else ""
    except ValueError:
        return text


def _part(resource: object, scope: Sequence[str]) -> str:
    if not isinstance(resource, dict):
        return ""
    properties = resource.get("Properties", {})
    found = {
        name: properties[name] if isinstance(properties, dict) and name in properties else resource[name]
        for name in scope
        if (isinstance(properties, dict) and name in properties) or name in resource
    }
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
