"""Who and what there is in the demo world: a company called Acme, its people, one agent, and four buckets. Data only.

`reporter` makes reports and exports. Ana answers for it; Ana and Ben use it, so neither can say yes to what it asks.
Cho is on call for the data, Dee is an engineer, Eli answers for the customers' data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.canonical import Json
from schemas.records import Property
from schemas.snapshots import Manifest

VERSION: Final = 2
"""Grows when a sandbox of an older story can't be carried over."""

REALM: Final = "sandbox"
AGENT: Final = "reporter"
OWNER: Final = "ana"
EXECUTORS: Final = ("s3",)
AWS_EXECUTORS: Final = ("iam", "infra")
"""Those that a local AWS is started for, in a sandbox that has one."""
NOTIFIERS: Final = ("api",)
PARTITIONS: Final = 4

CUSTOMERS: Final = "acme-customers"
BROCHURES: Final = "acme-brochures"
EXPORTS: Final = "acme-exports"
WEBSITE: Final = "acme-website"
BIG_BYTES: Final = 1_000_000
"""An export of more than this needs a data owner too. In the policy it is spelt out."""

LEASE_SECONDS: Final = 30
"""The plugin says 900: on one machine an export takes a second, and nobody wants to wait to see an `unknown`."""
SETTLE_SECONDS: Final = 3


@dataclass(frozen=True, slots=True)
class Someone:
    """A person with one account: the subject that the sandbox's issuer knows them by."""

    id: str
    name: str

    @property
    def subject(self) -> str:
        """What tokens of theirs carry as `sub`."""
        return f"{self.id}@acme.example"


PERSONS: Final = (
    Someone("ana", "Ana Alvarez"),
    Someone("ben", "Ben Brandt"),
    Someone("cho", "Cho Chung-ha"),
    Someone("dee", "Dee Dawson"),
    Someone("eli", "Eli Engel"),
)


def directory(issuer: str, keys: Json) -> dict[str, Json]:
    """The draft of the directory; `keys` as `keyturn init` listed them."""
    return {
        "persons": [
            {"id": each.id, "name": each.name, "accounts": [{"provider": issuer, "subject": each.subject}]}
            for each in PERSONS
        ],
        "agents": [{"id": AGENT, "owners": [OWNER], "users": ["ana", "ben"]}],
        "groups": [
            {"id": "sre", "members": ["dee"]},
            {"id": "data-owners", "is_synced": True},
            {"id": "operators", "members": ["dee"]},
        ],
        "rotas": ["data"],
        "keys": [_with_providers(key, issuer) for key in keys] if isinstance(keys, list) else keys,
    }


def _with_providers(key: Json, issuer: str) -> Json:
    """Whoever meets people here meets them by this issuer's logins."""
    if isinstance(key, dict) and key.get("role") in {"notifier", "gateway"}:
        return {**key, "providers": [issuer]}
    return key


ROSTER: Final[Mapping[str, Json]] = {
    "groups": [{"id": "data-owners", "members": ["eli"]}],
    # One shift that outlasts the sandbox: the story should work on any day.
    "rotas": [
        {
            "id": "data",
            "shifts": [{"person": "cho", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2100-01-01T00:00:00Z"}],
        }
    ],
}

POLICY: Final = """\
// What an export needs at Acme. Change it, then: keyturn policy apply policy.cedar

@id("export-of-public-data")
@risk("low")
@automatic("everybody may read it already")
permit (principal, action == Action::"s3.export", resource)
when { context.facts has classification && context.facts.classification == "public" };

@id("export")
@risk("medium")
@approvers("oncall:data")
@quorum("1")
@assurance("identity")
@within("1h")
permit (principal, action == Action::"s3.export", resource)
unless { context.facts has classification && context.facts.classification == "public" };

// Known only once the executor has looked: the plan's measures tighten what was asked for before.
@id("big-export")
@risk("high")
@approvers("group:data-owners")
@quorum("1")
@assurance("identity")
@within("30m")
permit (principal, action == Action::"s3.export", resource)
when { context has plan && context.plan has bytes && context.plan.bytes > 1000000 }
unless { context.facts has classification && context.facts.classification == "public" };

@id("delete")
@risk("high")
@approvers("oncall:data")
@quorum("1")
@assurance("identity")
@within("1h")
permit (principal, action == Action::"s3.delete", resource);

@id("nothing-to-the-website")
forbid (principal, action == Action::"s3.export", resource)
when { context.properties.destination_bucket == "acme-website" };
"""

IAM_POLICY: Final = """\
// What changing an identity's rights needs at Acme.
// Change it, then: keyturn policy apply policy.cedar iam.cedar infra.cedar

@id("rights")
@risk("high")
@approvers("group:sre")
@quorum("1")
@assurance("identity")
@within("1h")
permit (principal, action in [Action::"iam.attach_policy", Action::"iam.detach_policy"], resource);

// Known only once the executor has looked: ways to more rights need the data's owner too, who is not an engineer.
@id("ways-to-more-rights")
@risk("critical")
@approvers("group:data-owners")
@quorum("1")
@assurance("identity")
@within("30m")
permit (principal, action == Action::"iam.attach_policy", resource)
when { context has plan && context.plan has escalations && context.plan.escalations > 0 };

@id("keyturn-is-not-for-agents")
forbid (principal, action in [Action::"iam.attach_policy", Action::"iam.detach_policy"], resource)
when { context.properties.identity like "arn:aws:iam::*:*/keyturn-*" };
"""

INFRA_POLICY: Final = """\
// What changing a stack needs at Acme. Then: keyturn policy apply policy.cedar iam.cedar infra.cedar

@id("stack")
@risk("medium")
@approvers("group:sre")
@quorum("1")
@assurance("identity")
@within("1h")
permit (principal, action == Action::"infra.change_set", resource);

// Known only once CloudFormation has worked it out.
@id("loses-state")
@risk("critical")
@approvers("group:data-owners")
@quorum("1")
@assurance("identity")
@within("30m")
permit (principal, action == Action::"infra.change_set", resource)
when { context has plan && context.plan has stateful_losses && context.plan.stateful_losses > 0 };
"""

CATALOG: Final = """\
# What intake knows of resources: the first pattern that matches `<type>/<id>` counts. Read again when it changes.
- {match: bucket/acme-brochures, environment: production, classification: public, owner: marketing}
- {match: bucket/acme-customers, environment: production, classification: confidential, owner: data-platform}
- {match: "bucket/acme-*", environment: production, classification: internal, owner: platform}
- {match: "role/arn:aws:iam::*:role/acme-*", environment: production, classification: internal, owner: platform}
- {match: "stack/acme-*", environment: production, classification: internal, owner: platform}
"""


def manifest(installed: Manifest) -> Manifest:
    """What an executor's plugin says of itself, with leases short enough to watch them end."""
    return installed.model_copy(
        update={
            "actions": tuple(
                action.model_copy(update={"lease": LEASE_SECONDS, "settle": SETTLE_SECONDS})
                for action in installed.actions
            )
        }
    )


def _table(title: str, rows: int) -> bytes:
    return "".join([f"id,{title}\n", *(f"{number:06},{title} {number}\n" for number in range(rows))]).encode()


def objects() -> dict[str, dict[str, bytes]]:
    """What lies in the buckets, by bucket and key."""
    return {
        CUSTOMERS: {
            "eu/2026/berlin.csv": _table("Kunde", 40),
            "eu/2026/lyon.csv": _table("client", 30),
            "eu/2026/porto.csv": _table("cliente", 20),
            # Together more than BIG_BYTES.
            "eu/2025/first-half.csv": _table("customer of the first half of 2025", 15_000),
            "eu/2025/second-half.csv": _table("customer of the second half of 2025", 15_000),
        },
        BROCHURES: {"2026/autumn.txt": b"Everything you never knew you needed.\n"},
        EXPORTS: {},
        WEBSITE: {"index.html": b"<!doctype html><title>Acme</title><p>Coming soon.\n"},
    }


def _export(source: str, prefix: str, to: str, below: str) -> dict[str, Property]:
    return {
        "source_bucket": source,
        "source_prefix": prefix,
        "destination_bucket": to,
        "destination_prefix": below,
    }


# Identities and policies of a sandbox with a local AWS. Whom a role trusts, and what a policy allows on what.

ROLE: Final = "acme-reports"
TRUSTED: Final = "lambda.amazonaws.com"
AWS_POLICIES: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "acme-read-exports": (("s3:GetObject", "s3:ListBucket"), f"arn:aws:s3:::{EXPORTS}*"),
    "acme-run-anything": (("iam:PassRole", "lambda:CreateFunction", "lambda:InvokeFunction"), "*"),
}


def attachment(account: str, policy: str) -> dict[str, Property]:
    """Properties of an `iam.attach_policy` or `iam.detach_policy` for the reports' role."""
    return {"identity": f"arn:aws:iam::{account}:role/{ROLE}", "policy": f"arn:aws:iam::{account}:policy/{policy}"}


# Properties of four `s3.export`s, one for each thing that can happen to one.

EXPORT: Final = _export(CUSTOMERS, "eu/2026/", EXPORTS, "for-the-partner/eu-2026/")
"""Needs somebody on call."""
BIG_EXPORT: Final = _export(CUSTOMERS, "eu/2025/", EXPORTS, "for-the-partner/eu-2025/")
"""Needs a data owner too."""
PUBLIC_EXPORT: Final = _export(BROCHURES, "2026/", EXPORTS, "brochures/2026/")
"""Needs nobody."""
FORBIDDEN_EXPORT: Final = _export(CUSTOMERS, "eu/2026/", WEBSITE, "customers/")
"""Nobody can allow it."""
