"""What the two children of the local S3 are told: identities, roles, ports, and where their files are.

SeaweedFS reads two files: the static identities (`-s3.config`) and the roles with their policies
(`-s3.iam.config`). The proxy reads one. All three hold secrets and are written 0600.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ACCOUNT: Final = "000000000000"
"""SeaweedFS's account id when none is configured."""
REGION: Final = "us-east-1"
READ_ROLE: Final = "keyturn-s3-read"
EXPORT_ROLE: Final = "keyturn-s3-export"
DELETE_ROLE: Final = "keyturn-s3-delete"
ADMIN: Final = "admin"
EXECUTOR: Final = "executor"

READ_ACTIONS: Final = (
    "s3:GetBucketAcl",
    "s3:GetBucketLocation",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketPolicy",
    "s3:GetBucketVersioning",
    "s3:GetLifecycleConfiguration",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListBucket",
    "s3:ListBucketVersions",
)
EXPORT_ACTIONS: Final = (
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:PutObject",
)
DELETE_ACTIONS: Final = ("s3:DeleteObject", "s3:ListBucketVersions")
"""No version can be erased with them: that would be s3:DeleteObjectVersion."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The long-lived keys of one identity."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Without the secret: this may reach a log."""
        return f"KeyPair({self.access_key})"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a directory keeps over restarts: both identities' keys and the key that signs session tokens."""

    admin: KeyPair
    executor: KeyPair
    token_key: str


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Everything the proxy is told."""

    host: str
    port: int
    #: `host:port` of the S3 API behind it.
    upstream: str
    region: str
    #: Identities that may call: each by its access key. Nobody else's requests go through.
    identities: tuple[KeyPair, ...]
    #: The append-only file of what was minted.
    minted: str

    def to_file(self, path: Path) -> None:
        """Write the settings, readable by their owner alone."""
        write_private(path, json.dumps(asdict(self)))

    @classmethod
    def from_file(cls, path: Path) -> "ProxySettings":
        """The settings in `path`; ValueError or TypeError when they are not whole."""
        members = json.loads(path.read_text())
        identities = tuple(KeyPair(**pair) for pair in members.pop("identities"))
        return cls(identities=identities, **members)


def role_arn(role: str) -> str:
    """The ARN of one of the roles."""
    return f"arn:aws:iam::{ACCOUNT}:role/{role}"


def identities_document(secrets: Secrets) -> str:
    """SeaweedFS's `-s3.config`: an administrator, and an executor that may do nothing of itself."""

    def identity(name: str, pair: KeyPair, actions: list[str]) -> dict[str, object]:
        credentials = [{"accessKey": pair.access_key, "secretKey": pair.secret_key}]
        return {"name": name, "credentials": credentials, "actions": actions}

    return json.dumps(
        {"identities": [identity(ADMIN, secrets.admin, ["Admin"]), identity(EXECUTOR, secrets.executor, [])]}
    )


def iam_document(secrets: Secrets) -> str:
    """SeaweedFS's `-s3.iam.config`: the roles, which trust the executor alone, each with its own policy."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/{EXECUTOR}"},
                "Action": ["sts:AssumeRole"],
            }
        ],
    }
    roles = {READ_ROLE: READ_ACTIONS, EXPORT_ROLE: EXPORT_ACTIONS, DELETE_ROLE: DELETE_ACTIONS}
    return json.dumps(
        {
            "sts": {
                "issuer": "keyturn-sandbox",
                "signingKey": secrets.token_key,
                "tokenDuration": "1h",
                "maxSessionLength": "12h",
            },
            "policy": {"defaultEffect": "Deny", "storeType": "memory"},
            "providers": [],
            "policies": [
                {
                    "name": role,
                    "document": {
                        "Version": "2012-10-17",
                        "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": ["arn:aws:s3:::*"]}],
                    },
                }
                for role, actions in roles.items()
            ],
            "roles": [
                {"roleName": role, "roleArn": role_arn(role), "trustPolicy": trust, "attachedPolicies": [role]}
                for role in roles
            ],
        }
    )


def write_private(path: Path, text: str) -> None:
    """Write `text` to a file that only its owner can read; it never exists with other rights."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
