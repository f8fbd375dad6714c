"""What an executor's process is told beside the settings of all roles: `KEYTURN_EXECUTOR_…`, and its plugin's own.

No setting turns a law off: clocks can only be allowed to be *less* wrong, leases only be cut earlier.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from executors.checking import Limits
from executors.errors import PluginError
from streams.settings import Settings, SettingsError

PREFIX: Final = "KEYTURN_"
OWN: Final = "KEYTURN_EXECUTOR_"


class ExecutorSettings(BaseModel):
    """The runner's own settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    clock_ms: int = Field(
        30_000, ge=1_000, le=30_000, description="A grant further than this from our clock is refused."
    )
    skew_ms: int = Field(
        1_000, ge=1_000, le=60_000, description="How far executors' clocks may be off; cuts every lease."
    )
    acts: int = Field(16, ge=1, le=64, description="How many acts may be claimed or run at once.")
    plans: int = Field(16, ge=1, le=64, description="How many plans may be made at once.")
    observations: int = Field(4, ge=1, le=64, description="How many unknown outcomes may be looked at once.")
    world_seconds: float = Field(5.0, gt=0, le=60, description="How long to wait for a newer directory.")
    answer_seconds: float = Field(60.0, gt=0, le=600, description="How long a claim holds its place unanswered.")
    tidy_seconds: float = Field(600.0, gt=0, le=86_400, description="How often what planning left is taken away.")
    stop_seconds: float = Field(10.0, ge=0, le=600, description="How long running acts may go on after SIGTERM.")

    @property
    def limits(self) -> Limits:
        """How wrong clocks may be."""
        return Limits(clock_ms=self.clock_ms, skew_ms=self.skew_ms)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "ExecutorSettings":
        """The settings of this environment. SettingsError names the variable that cannot be used."""
        given = {name.removeprefix(OWN).lower(): text for name, text in environ.items() if name.startswith(OWN)}
        try:
            return cls.model_validate(given)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            raise SettingsError(f"{OWN}{str(first['loc'][0]).upper()}: {first['msg']}") from exc


_TAKEN: Final = frozenset(name.partition("_")[0] for name in Settings.model_fields) | {"executor", "admin"}


def of_plugin(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The plugin's own settings: `KEYTURN_<NAME>_…` with the prefix taken off, lower case.

    PluginError for a name under which a plugin would be handed settings of others, secrets among them.
    """
    if name.partition("_")[0] in _TAKEN:
        raise PluginError(f"an executor cannot be named {name}: KEYTURN_{name.upper()}_… are settings of all roles")
    prefix = f"{PREFIX}{name.upper().replace('-', '_')}_"
    return {key.removeprefix(prefix).lower(): text for key, text in environ.items() if key.startswith(prefix)}
