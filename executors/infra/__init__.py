"""Changes CloudFormation stacks: a change set that the provider worked out, executed once by its ARN.

Importing this package imports no SDK, so that a manifest can be published where aiobotocore is not installed.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from executors.contract import Executor, Plugin
from schemas.snapshots import Manifest


async def _open(settings: Mapping[str, str]) -> Executor:
    from executors.infra.executor import open_executor  # noqa: PLC0415  the SDK comes with the extra `aws`

    return await open_executor(settings)


plugin: Final = Plugin(
    manifest=Manifest.model_validate_json(files(__name__).joinpath("manifest.json").read_bytes()), open=_open
)

__all__ = ["plugin"]
