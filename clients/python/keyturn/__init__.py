"""Ask before you act: nothing privileged runs until a person turns the key.

    import keyturn

    with keyturn.connect() as client:
        match client.ask("s3.export", ("bucket", "acme-customers"), {...}, reason="the partner asked for it"):
            case keyturn.Succeeded(receipt):
                print(receipt.summary)
            case other:
                print(other)

An answer of Keyturn is a value, a "no" included (`keyturn.Outcome`); an exception is what isn't an answer
(`keyturn.KeyturnError`). `keyturn.testing` is a Keyturn in memory for your own tests.
"""

from keyturn.blocking import Client, Intent
from keyturn.client import AsyncClient, AsyncIntent
from keyturn.connecting import connect, connect_async
from keyturn.errors import (
    AnswerError,
    ClosedError,
    ConfigurationError,
    FieldError,
    KeyturnError,
    NoConnectionError,
    NotAllowedError,
    NotDoneError,
    ParametersError,
    StillOpenError,
    UnknownIntentError,
)
from keyturn.guard import guard
from keyturn.outcomes import (
    Denied,
    Expired,
    Failed,
    NotDone,
    Outcome,
    Phase,
    Receipt,
    Refused,
    Revoked,
    Status,
    Succeeded,
    Unknown,
    Withdrawn,
)
from keyturn.signing import Key, Signer
from keyturn.transport import ActionOffer, Check

__all__ = [
    "ActionOffer",
    "AnswerError",
    "AsyncClient",
    "AsyncIntent",
    "Check",
    "Client",
    "ClosedError",
    "ConfigurationError",
    "Denied",
    "Expired",
    "Failed",
    "FieldError",
    "Intent",
    "Key",
    "KeyturnError",
    "NoConnectionError",
    "NotAllowedError",
    "NotDone",
    "NotDoneError",
    "Outcome",
    "ParametersError",
    "Phase",
    "Receipt",
    "Refused",
    "Revoked",
    "Signer",
    "Status",
    "StillOpenError",
    "Succeeded",
    "Unknown",
    "UnknownIntentError",
    "Withdrawn",
    "connect",
    "connect_async",
    "guard",
]
