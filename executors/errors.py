"""What ends an executor's process. The supervisor starts it again; whatever was not committed is handled again.

RunnerError
├── PluginError       no such plugin, not a plugin, or one that cannot be opened
├── PartitionsError   topics of this realm disagree about the number of partitions
└── RunawayActError   an act that went on after its lease: only the end of the process stops it for certain
"""


class RunnerError(Exception):
    """The executor cannot go on."""


class PluginError(RunnerError):
    """The plugin cannot be had; the text says what to install, or which setting is wrong."""


class PartitionsError(RunnerError):
    """Not the number of partitions of this realm; `keyturn topics check` says where."""


class RunawayActError(RunnerError):
    """Law 4: nobody may act past the lease. The plugin did not stop when it was told to."""
