"""What an export is asked to do, and which requests make no sense. No I/O."""

from dataclasses import dataclass
from typing import Final, Self

from executors.aws.sessions import WILD
from executors.contract import TargetMissingError
from schemas.records import Intent

ACTION: Final = "s3.export"
DEFAULT_MAX_OBJECTS: Final = 1000
PLACES: Final = ("source_bucket", "source_prefix", "destination_bucket", "destination_prefix")


@dataclass(frozen=True, slots=True)
class Export:
    """The parameters of `s3.export`."""

    source_bucket: str
    source_prefix: str
    destination_bucket: str
    destination_prefix: str
    max_objects: int

    @classmethod
    def of(cls, intent: Intent) -> Self:
        """The export that `intent` asks for; TargetMissingError when it cannot be meant."""
        if intent.action.name != ACTION:
            raise TargetMissingError(f"this executor performs {ACTION}, not {intent.action.name}")
        given = intent.action.properties
        texts = {name: value for name in PLACES if isinstance(value := given.get(name), str) and value}
        limit = given.get("max_objects", DEFAULT_MAX_OBJECTS)
        if len(texts) != len(PLACES) or not isinstance(limit, int) or isinstance(limit, bool):
            raise TargetMissingError("the parameters do not fit the manifest's schema")
        export = cls(**texts, max_objects=limit)
        export.require_sense(intent)
        return export

    def require_sense(self, intent: Intent) -> None:
        """Raise TargetMissingError for what the schema allows and the world does not."""
        # Policy judges the resource, and the card shows it: it must be what is really read.
        if (intent.resource.type, intent.resource.id) != ("bucket", self.source_bucket):
            raise TargetMissingError(f"the resource of this intent must be the bucket {self.source_bucket}")
        for prefix in (self.source_prefix, self.destination_prefix):
            if not prefix.endswith("/") or WILD & set(prefix):
                raise TargetMissingError(f"the prefix {prefix!r} must end with / and hold none of * ? $")
        if self.source_bucket == self.destination_bucket and (
            self.source_prefix.startswith(self.destination_prefix)
            or self.destination_prefix.startswith(self.source_prefix)
        ):
            raise TargetMissingError("in one bucket, neither prefix may lie below the other")

    def target_of(self, key: str) -> str:
        """The key in the destination of the object `key` of the source."""
        return self.destination_prefix + key.removeprefix(self.source_prefix)
