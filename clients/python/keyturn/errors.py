"""What is not an answer. An answer of Keyturn, a "no" included, is a value (`keyturn.outcomes`).

KeyturnError
├── ConfigurationError     connect() was told something that can't work
│   └── ClosedError        the client was closed, perhaps while this waited
├── ParametersError        this can never be an intent; names each place
├── NoConnectionError      nobody answers; what was sent may or may not have arrived
├── NotAllowedError        the credential is not accepted
├── UnknownIntentError     there is no such intent of yours
├── AnswerError            what came back is no answer of a Keyturn gateway, and was not believed
├── StillOpenError         your timeout ended, the intent did not (a TimeoutError too)
└── NotDoneError           a guarded function did not run, because of this outcome
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.blocking import Intent
    from keyturn.client import AsyncIntent
    from keyturn.outcomes import NotDone, Status


class KeyturnError(Exception):
    """The root of everything this package raises on purpose.

    `intent_id` is the intent's id wherever one was known: `client.intent(error.intent_id)` goes on from there, in any
    process.
    """

    intent_id: str | None = None


class ConfigurationError(KeyturnError):
    """A setting is missing or cannot be meant; the text says which, and what to do."""


class ClosedError(ConfigurationError):
    """The client was closed. Nothing was withdrawn: `intent_id` is what this waited for."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong at one place of an intent.

    >>> str(FieldError("/action/properties/share", "floats have no one spelling"))
    '/action/properties/share: floats have no one spelling'
    """

    #: A JSON pointer into the intent: `/action/properties/destination`.
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ParametersError(KeyturnError, ValueError):
    """This can never be an intent. `errors` names each place; nothing was sent."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(map(str, self.errors)))


class NoConnectionError(KeyturnError, ConnectionError):
    """Nobody answers.

    What was to be sent may have arrived or not: sending it again is safe, as its id pins its body. `intent_id` is its
    id where there is one. When submitting failed, `intent` is the intent: `resend()` it, as another `submit` without
    an idempotency key would be another intent.
    """

    def __init__(self, text: str, intent_id: str | None = None) -> None:
        super().__init__(text)
        self.intent_id = intent_id
        #: As the client that raised this gives them.
        self.intent: AsyncIntent | Intent | None = None


class NotAllowedError(KeyturnError):
    """The credential is not accepted, or does not suffice; the text says what to check."""


class UnknownIntentError(KeyturnError, LookupError):
    """Keyturn knows no such intent of yours."""


class AnswerError(KeyturnError):
    """What came back is no answer of a Keyturn gateway: garbage, too much, another's, a redirect. It was not
    believed.
    """


class StillOpenError(KeyturnError, TimeoutError):
    """Your timeout ended; the intent did not, and may still be approved and done. `status` is the last that was
    heard.
    """

    def __init__(self, intent_id: str, status: "Status | None") -> None:
        where = f"still {status.phase.value}" if status else "not yet heard of"
        super().__init__(
            f"{intent_id} is {where}. Nothing was taken back: wait() again, client.intent({intent_id!r}) in another "
            "process, or withdraw()."
        )
        self.intent_id = intent_id
        self.status = status


class NotDoneError(KeyturnError):
    """A guarded function did not run: `outcome` says why."""

    def __init__(self, outcome: "NotDone") -> None:
        super().__init__(str(outcome))
        self.intent_id = outcome.intent
        self.outcome = outcome
