"""What can go wrong on one machine. Every message says what happened and what to do next.

SandboxError
├── WrongSumError            a jar is not the one that was locked
├── DownloadError            a jar could not be had from any repository
├── ChildError               (has the child's name)
│   ├── AlreadyRunningError  another process runs this child in this folder
│   ├── ChildDiedError       it ended before it was ready
│   └── NotReadyError        it runs, but was not ready in time
├── PortTakenError           somebody else listens where we would
├── StaleDirectoryError      the data were written by another version or cluster
└── WrongClusterError        another Kafka answers on our port
"""

from __future__ import annotations


class SandboxError(Exception):
    """The sandbox can't go on; the message says what to do."""


class WrongSumError(SandboxError):
    """A jar is not the one that was locked."""


class DownloadError(SandboxError):
    """A jar could not be had from any repository."""


class ChildError(SandboxError):
    """A child process did not do what was asked of it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class AlreadyRunningError(ChildError):
    """Another process runs this child in this folder."""

    def __init__(self, name: str, message: str, pid: int | None) -> None:
        super().__init__(name, message)
        self.pid = pid


class ChildDiedError(ChildError):
    """The child ended before it was ready."""


class NotReadyError(ChildError):
    """The child runs but was not ready in time."""


class PortTakenError(SandboxError):
    """Somebody else listens where we would."""

    def __init__(self, message: str, port: int) -> None:
        super().__init__(message)
        self.port = port


class StaleDirectoryError(SandboxError):
    """The data were written by another version or belong to another cluster."""


class WrongClusterError(SandboxError):
    """Another Kafka answers on our port."""
