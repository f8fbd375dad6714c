"""What an export or a deletion is asked to do, and which requests make no sense. No I/O."""

from dataclasses import dataclass
from typing import Final, Self

from executors.aws.sessions import WILD
from executors.contract import TargetMissingError
from schemas.records import Intent, Property

EXPORT: Final = "s3.export"
DELETE: Final = "s3.delete"
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
        if intent.action.name != EXPORT:
            raise TargetMissingError(f"this is {EXPORT}, not {intent.action.name}")
        given = intent.action.properties
        texts = {name: value for name in PLACES if isinstance(value := given.get(name), str) and value}
        if len(texts) != len(PLACES):
            raise TargetMissingError("the parameters do not fit the manifest's schema")
        export = cls(**texts, max_objects=_limit(given.get("max_objects", DEFAULT_MAX_OBJECTS)))
        export.require_sense(intent)
        return export

    def require_sense(self, intent: Intent) -> None:
        """Raise TargetMissingError for what the schema allows and the world does not."""
        _require_resource(intent, self.source_bucket)
        for prefix in (self.source_prefix, self.destination_prefix):
            _require_prefix(prefix)
        if self.source_bucket == self.destination_bucket and (
            self.source_prefix.startswith(self.destination_prefix)
            or self.destination_prefix.startswith(self.source_prefix)
        ):
            raise TargetMissingError("in one bucket, neither prefix may lie below the other")

    def target_of(self, key: str) -> str:
        """The key in the destination of the object `key` of the source."""
        return self.destination_prefix + key.removeprefix(self.source_prefix)


@dataclass(frozen=True, slots=True)
class Delete:
    """The parameters of `s3.delete`."""

    bucket: str
    prefix: str
    max_objects: int

    @classmethod
    def of(cls, intent: Intent) -> Self:
        """The deletion that `intent` asks for; TargetMissingError when it cannot be meant."""
        if intent.action.name != DELETE:
            raise TargetMissingError(f"this is {DELETE}, not {intent.action.name}")
        given = intent.action.properties
        bucket, prefix = given.get("bucket"), given.get("prefix")
        if not isinstance(bucket, str) or not isinstance(prefix, str) or not bucket or not prefix:
            raise TargetMissingError("the parameters do not fit the manifest's schema")
        _require_resource(intent, bucket)
        _require_prefix(prefix)
        return cls(bucket, prefix, _limit(given.get("max_objects", DEFAULT_MAX_OBJECTS)))

    @property
    def place(self) -> str:
        """What is emptied."""
        return f"s3://{self.bucket}/{self.prefix}"


def _limit(given: Property) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise TargetMissingError("the parameters do not fit the manifest's schema")
    return given


def _require_resource(intent: Intent, bucket: str) -> None:
    # Policy judges the resource, and the card shows it: it must be what is really touched.
    if (intent.resource.type, intent.resource.id) != ("bucket", bucket):
        raise TargetMissingError(f"the resource of this intent must be the bucket {bucket}")


def _require_prefix(prefix: str) -> None:
    if not prefix.endswith("/") or WILD & set(prefix):
        raise TargetMissingError(f"the prefix {prefix!r} must end with / and hold none of * ? $")
