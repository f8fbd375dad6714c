"""Every principal of a realm before every lock: what the broker lets it do, against what the topic map says.

The law: each cell is one request of which the broker checks the right before anything else, and which changes nothing
where it is let through. Each answer must be one of two that are known: the refusal of that right, or what is said to
whoever has it. Any third answer is an error of the matrix, never a pass.

    topic     read              fetch of a partition that is not there
              write             produce of nothing to a partition that is not there
              describe          metadata of the topic by its name
              create            creation of the topic that is there, to be validated only
              delete            deletion of the topic named twice, by name and by id: let through, it is refused as such
              alter             as many partitions as there are already, to be validated only
              alter_configs     a setting of a value that cannot be, to be validated only
              describe_configs  one setting
              delete_records    records of a partition that is not there
    group     read              heartbeat of a member that is not there
              describe          description
              delete            deletion of none of its offsets
    id        write             end of a transaction of a producer that is not there
              describe          description
    cluster   create            creation of a topic that is on no list, to be validated only
              alter             a right with an impossible name; the password of a user that is not there
              alter_configs     a quota, and a setting of every broker, to be validated only
              describe          the list of rights
              describe_configs  a broker's settings, and the quotas
              cluster_action    fetch as a broker fetches, of a partition that is not there
              idempotent_write  a producer id
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, NamedTuple

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    Bytes,
    CompactArray,
    CompactBytes,
    CompactString,
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

from streams.access import Pattern, Resource, Right
from streams.settings import Settings

NOWHERE: Final = 999
"""A partition that no topic has."""
ABSENT: Final = "absent"
"""A user, and a topic, that nobody made."""
SECONDS: Final = 60.0

TOPIC_DENIED: Final = 29
GROUP_DENIED: Final = 30
CLUSTER_DENIED: Final = 31
TRANSACTIONAL_ID_DENIED: Final = 53

NO_ERROR: Final = 0
UNKNOWN_PARTITION: Final = 3
COORDINATOR_ELSEWHERE: Final = frozenset({14, 15, 16})
UNKNOWN_MEMBER: Final = 25
TOPIC_EXISTS: Final = 36
INVALID_PARTITIONS: Final = 37
INVALID_CONFIG: Final = 40
INVALID_REQUEST: Final = 42
INVALID_PRODUCER: Final = 49
NO_GROUP: Final = 69
NO_RESOURCE: Final = 91
NO_TRANSACTIONAL_ID: Final = 105

_STRING: Final = String("utf-8")
_SHORT: Final = CompactString("utf-8")


class _Uuid(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class Cell(NamedTuple):
    """One lock."""

    resource: Resource
    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} {self.resource} {self.name}"


@dataclass(frozen=True, slots=True)
class Question:
    """One request, where in its answer the error stands, and which errors say no and yes."""

    struct: RequestStruct
    error: Any
    denied: int
    allowed: frozenset[int]

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> RequestStruct:
        """What aiokafka's connection asks of a request: of this one version alone."""
        least, most = versions[self.struct.API_KEY]
        assert least <= self.struct.API_VERSION <= most, f"this Kafka speaks {least} to {most} of {self.struct}"
        return self.struct


def _request(key: int, version: int, schema: Schema, answer: Schema, *, is_flexible: bool = False) -> type[Any]:
    """A request that the client library has no class for, or not in this version."""
    response = type("Answer", (Response,), {"API_KEY": key, "API_VERSION": version, "SCHEMA": answer})
    told = {"API_KEY": key, "API_VERSION": version, "SCHEMA": schema, "RESPONSE_TYPE": response}
    return type("Asked", (RequestStruct,), told | {"FLEXIBLE_VERSION": is_flexible})


def _fields(*types: Any) -> Schema:
    return Schema(*((str(number), each) for number, each in enumerate(types)))


_PRODUCE: Final = _request(
    0,
    3,
    _fields(_STRING, Int16, Int32, Array(_fields(_STRING, Array(_fields(Int32, Bytes))))),
    _fields(Array(_fields(_STRING, Array(_fields(Int32, Int16, Int64, Int64)))), Int32),
)
_FETCH: Final = _request(
    1,
    4,
    _fields(Int32, Int32, Int32, Int32, Int8, Array(_fields(_STRING, Array(_fields(Int32, Int64, Int32))))),
    _fields(
        Int32,
        Array(
            _fields(
                _STRING,
                Array(_fields(Int32, Int16, Int64, Int64, Array(_fields(Int64, Int64)), Bytes)),
            )
        ),
    ),
)
_METADATA: Final = _request(
    3,
    4,
    _fields(Array(_STRING), Boolean),
    _fields(
        Int32,
        Array(_fields(Int32, _STRING, Int32, _STRING)),
        _STRING,
        Int32,
        Array(
            _fields(
                Int16,
                _STRING,
                Boolean,
                Array(_fields(Int16, Int32, Int32, Array(Int32), Array(Int32))),
            )
        ),
    ),
)
_TOPIC_IDS: Final = _request(
    3,
    10,
    _fields(CompactArray(_fields(_Uuid, _SHORT, TaggedFields)), Boolean, Boolean, Boolean, TaggedFields),
    _fields(
        Int32,
        CompactArray(_fields(Int32, _SHORT, Int32, _SHORT, TaggedFields)),
        _SHORT,
        Int32,
        CompactArray(
            _fields(
                Int16,
                _SHORT,
                _Uuid,
                Boolean,
                CompactArray(
                    _fields(
                        Int16,
                        Int32,
                        Int32,
                        Int32,
                        CompactArray(Int32),
                        CompactArray(Int32),
                        CompactArray(Int32),
                        TaggedFields,
                    )
                ),
                Int32,
                TaggedFields,
            )
        ),
        Int32,
        TaggedFields,
    ),
    is_flexible=True,
)
_HEARTBEAT: Final = _request(12, 0, _fields(_STRING, Int32, _STRING), _fields(Int16))
_DESCRIBE_GROUPS: Final = _request(
    15,
    0,
    _fields(Array(_STRING)),
    _fields(
        Array(
            _fields(
                Int16,
                _STRING,
                _STRING,
                _STRING,
                _STRING,
                Array(_fields(_STRING, _STRING, _STRING, Bytes, Bytes)),
            )
        )
    ),
)
_CREATE_TOPICS: Final = _request(
    19,
    2,
    _fields(
        Array(
            _fields(
                _STRING,
                Int32,
                Int16,
                Array(_fields(Int32, Array(Int32))),
                Array(_fields(_STRING, _STRING)),
            )
        ),
        Int32,
        Boolean,
    ),
    _fields(Int32, Array(_fields(_STRING, Int16, _STRING))),
)
_DELETE_TOPICS: Final = _request(
    20,
    6,
    _fields(CompactArray(_fields(_SHORT, _Uuid, TaggedFields)), Int32, TaggedFields),
    _fields(Int32, CompactArray(_fields(_SHORT, _Uuid, Int16, _SHORT, TaggedFields)), TaggedFields),
    is_flexible=True,
)
_DELETE_RECORDS: Final = _request(
    21,
    0,
    _fields(Array(_fields(_STRING, Array(_fields(Int32, Int64)))), Int32),
    _fields(Int32, Array(_fields(_STRING, Array(_fields(Int32, Int64, Int16))))),
)
_PRODUCER_ID: Final = _request(22, 0, _fields(_STRING, Int32), _fields(Int32, Int16, Int64, Int16))
_END_TRANSACTION: Final = _request(26, 0, _fields(_STRING, Int64, Int16, Boolean), _fields(Int32, Int16))
_DESCRIBE_RIGHTS: Final = _request(
    29,
    1,
    _fields(Int8, _STRING, Int8, _STRING, _STRING, Int8, Int8),
    _fields(
        Int32,
        Int16,
        _STRING,
        Array(_fields(Int8, _STRING, Int8, Array(_fields(_STRING, _STRING, Int8, Int8)))),
    ),
)
_CREATE_RIGHTS: Final = _request(
    30,
    1,
    _fields(Array(_fields(Int8, _STRING, Int8, _STRING, _STRING, Int8, Int8))),
    _fields(Int32, Array(_fields(Int16, _STRING))),
)
_DESCRIBE_SETTINGS: Final = _request(
    32,
    1,
    _fields(Array(_fields(Int8, _STRING, Array(_STRING))), Boolean),
    _fields(
        Int32,
        Array(
            _fields(
                Int16,
                _STRING,
                Int8,
                _STRING,
                Array(
                    _fields(
                        _STRING,
                        _STRING,
                        Boolean,
                        Int8,
                        Boolean,
                        Array(_fields(_STRING, _STRING, Int8)),
                    )
                ),
            )
        ),
    ),
)
_CREATE_PARTITIONS: Final = _request(
    37,
    1,
    _fields(Array(_fields(_STRING, Int32, Array(Array(Int32)))), Int32, Boolean),
    _fields(Int32, Array(_fields(_STRING, Int16, _STRING))),
)
_ALTER_SETTINGS: Final = _request(
    44,
    0,
    _fields(Array(_fields(Int8, _STRING, Array(_fields(_STRING, Int8, _STRING)))), Boolean),
    _fields(Int32, Array(_fields(Int16, _STRING, Int8, _STRING))),
)
_DELETE_OFFSETS: Final = _request(
    47,
    0,
    _fields(_STRING, Array(_fields(_STRING, Array(_fields(Int32))))),
    _fields(Int16, Int32, Array(_fields(_STRING, Array(_fields(Int32, Int16))))),
)
_DESCRIBE_QUOTAS: Final = _request(
    48,
    0,
    _fields(Array(_fields(_STRING, Int8, _STRING)), Boolean),
    _fields(
        Int32,
        Int16,
        _STRING,
        Array(_fields(Array(_fields(_STRING, _STRING)), Array(_fields(_STRING, Float64)))),
    ),
)
_ALTER_QUOTAS: Final = _request(
    49,
    0,
    _fields(Array(_fields(Array(_fields(_STRING, _STRING)), Array(_fields(_STRING, Float64, Boolean)))), Boolean),
    _fields(Int32, Array(_fields(Int16, _STRING, Array(_fields(_STRING, _STRING))))),
)
_ALTER_PASSWORDS: Final = _request(
    51,
    0,
    _fields(
        CompactArray(_fields(_SHORT, Int8, TaggedFields)),
        CompactArray(_fields(_SHORT, Int8, Int32, CompactBytes, CompactBytes, TaggedFields)),
        TaggedFields,
    ),
    _fields(Int32, CompactArray(_fields(_SHORT, Int16, _SHORT, TaggedFields)), TaggedFields),
    is_flexible=True,
)
_DESCRIBE_TRANSACTIONS: Final = _request(
    65,
    0,
    _fields(CompactArray(_SHORT), TaggedFields),
    _fields(
        Int32,
        CompactArray(
            _fields(
                Int16,
                _SHORT,
                _SHORT,
                Int32,
                Int64,
                Int64,
                Int16,
                CompactArray(_fields(_SHORT, CompactArray(Int32), TaggedFields)),
                TaggedFields,
            )
        ),
        TaggedFields,
    ),
    is_flexible=True,
)

_ANY, _CLUSTER, _BROKER, _TOPIC = 1, 4, 4, 2
_SHA_512: Final = 2


@dataclass(frozen=True)
class Locks:
    """What there is to ask about: names of topics with their partitions and ids, of groups, of transactional ids."""

    topics: Mapping[str, tuple[int, bytes]]
    groups: tuple[str, ...]
    transactional_ids: tuple[str, ...]

    def questions(self) -> Iterator[tuple[Cell, Question]]:
        """Every cell of one principal; a cell with two ways in comes twice."""
        for name, (partitions, uuid) in self.topics.items():
            for operation, question in _of_topic(name, partitions, uuid):
                yield Cell(Resource.TOPIC, name, operation), question
        for name in self.groups:
            for operation, question in _of_group(name):
                yield Cell(Resource.GROUP, name, operation), question
        for name in self.transactional_ids:
            for operation, question in _of_transactional_id(name):
                yield Cell(Resource.TRANSACTIONAL_ID, name, operation), question
        for operation, question in _of_cluster(next(iter(self.topics))):
            yield Cell(Resource.CLUSTER, CLUSTER, operation), question


CLUSTER: Final = "kafka-cluster"


def _fetch(name: str, replica: int) -> RequestStruct:
    return _FETCH(replica, 0, 0, 1, 0, [(name, [(NOWHERE, 0, 1)])])


def _of_topic(name: str, partitions: int, uuid: bytes) -> Iterator[tuple[str, Question]]:
    def asked(struct: RequestStruct, error: Any, *allowed: int) -> Question:
        return Question(struct, error, TOPIC_DENIED, frozenset(allowed))

    yield "read", asked(_fetch(name, -1), lambda answer: answer[1][0][1][0][1], UNKNOWN_PARTITION)
    nothing = _PRODUCE(None, -1, 1000, [(name, [(NOWHERE, b"")])])
    yield "write", asked(nothing, lambda answer: answer[0][0][1][0][1], UNKNOWN_PARTITION)
    yield "describe", asked(_METADATA([name], False), lambda answer: answer[4][0][0], NO_ERROR)
    again = _CREATE_TOPICS([(name, 1, 1, [], [])], 1000, True)
    yield "create", asked(again, lambda answer: answer[1][0][1], TOPIC_EXISTS)
    twice = _DELETE_TOPICS([(name, bytes(16), {}), (None, uuid, {})], 1000, {})
    yield (
        "delete",
        asked(twice, lambda answer: next(each[2] for each in answer[1] if each[0] == name), INVALID_REQUEST),
    )
    same = _CREATE_PARTITIONS([(name, partitions, None)], 1000, True)
    yield "alter", asked(same, lambda answer: answer[1][0][1], INVALID_PARTITIONS)
    wrong = _ALTER_SETTINGS([(_TOPIC, name, [("retention.ms", 0, "long")])], True)
    yield "alter_configs", asked(wrong, lambda answer: answer[1][0][0], INVALID_CONFIG)
    one = _DESCRIBE_SETTINGS([(_TOPIC, name, ["retention.ms"])], False)
    yield "describe_configs", asked(one, lambda answer: answer[1][0][0], NO_ERROR)
    records = _DELETE_RECORDS([(name, [(NOWHERE, 0)])], 1000)
    yield "delete_records", asked(records, lambda answer: answer[1][0][1][0][2], UNKNOWN_PARTITION)


def _of_group(name: str) -> Iterator[tuple[str, Question]]:
    def asked(struct: RequestStruct, error: Any, *allowed: int) -> Question:
        return Question(struct, error, GROUP_DENIED, COORDINATOR_ELSEWHERE.union(allowed))

    yield "read", asked(_HEARTBEAT(name, 1, ABSENT), lambda answer: answer[0], UNKNOWN_MEMBER)
    yield "describe", asked(_DESCRIBE_GROUPS([name]), lambda answer: answer[0][0][0], NO_ERROR)
    yield "delete", asked(_DELETE_OFFSETS(name, []), lambda answer: answer[0], NO_ERROR, NO_GROUP)


def _of_transactional_id(name: str) -> Iterator[tuple[str, Question]]:
    def asked(struct: RequestStruct, error: Any, *allowed: int) -> Question:
        return Question(struct, error, TRANSACTIONAL_ID_DENIED, COORDINATOR_ELSEWHERE.union(allowed))

    yield "write", asked(_END_TRANSACTION(name, NOWHERE, 0, False), lambda answer: answer[1], INVALID_PRODUCER)
    described = _DESCRIBE_TRANSACTIONS([name], {})
    yield "describe", asked(described, lambda answer: answer[1][0][0], NO_TRANSACTIONAL_ID)


def _of_cluster(topic: str) -> Iterator[tuple[str, Question]]:
    def asked(struct: RequestStruct, error: Any, *allowed: int, denied: int = CLUSTER_DENIED) -> Question:
        return Question(struct, error, denied, frozenset(allowed))

    new = _CREATE_TOPICS([(ABSENT, 1, 1, [], [])], 1000, True)
    yield "create", asked(new, lambda answer: answer[1][0][1], NO_ERROR, denied=TOPIC_DENIED)
    right = _CREATE_RIGHTS([(_CLUSTER, ABSENT, 3, f"User:{ABSENT}", "*", 3, 3)])
    yield "alter", asked(right, lambda answer: answer[1][0][0], INVALID_REQUEST)
    password = _ALTER_PASSWORDS([(ABSENT, _SHA_512, {})], [], {})
    yield "alter", asked(password, lambda answer: answer[1][0][1], NO_RESOURCE)
    quota = _ALTER_QUOTAS([([("user", ABSENT)], [("producer_byte_rate", 1.0, False)])], True)
    yield "alter_configs", asked(quota, lambda answer: answer[1][0][0], NO_ERROR)
    setting = _ALTER_SETTINGS([(_BROKER, "", [("log.cleaner.threads", 0, "1")])], True)
    yield "alter_configs", asked(setting, lambda answer: answer[1][0][0], NO_ERROR)
    rights = _DESCRIBE_RIGHTS(_TOPIC, ABSENT, 3, None, None, _ANY, _ANY)
    yield "describe", asked(rights, lambda answer: answer[1], NO_ERROR)
    settings = _DESCRIBE_SETTINGS([(_BROKER, "", ["log.cleaner.threads"])], False)
    yield "describe_configs", asked(settings, lambda answer: answer[1][0][0], NO_ERROR)
    quotas = _DESCRIBE_QUOTAS([("user", 0, ABSENT)], False)
    yield "describe_configs", asked(quotas, lambda answer: answer[1], NO_ERROR)
    # Whoever fetches as a broker does is asked for no right on the topic.
    follower = asked(_fetch(topic, 1), lambda answer: answer[1][0][1][0][1], UNKNOWN_PARTITION, denied=TOPIC_DENIED)
    yield "cluster_action", follower
    yield "idempotent_write", asked(_PRODUCER_ID(None, 1000), lambda answer: answer[1], NO_ERROR)


# ------------------------------------------------------------ what must be

_IMPLIED: Final = {
    "describe": frozenset({"describe", "read", "write", "delete", "alter"}),
    "describe_configs": frozenset({"describe_configs", "alter_configs"}),
    "delete_records": frozenset({"delete"}),
}
"""Kafka's own implications: by operation, the rights of which each is enough."""


def holds(rights: Iterable[Right], cell: Cell) -> bool:
    """Whether these rights of one principal open this lock, by Kafka's rules."""
    if cell.operation == "idempotent_write":
        # Whoever may write any topic gets a producer id.
        return any(right.resource is Resource.TOPIC and right.operation == "write" for right in rights)
    enough = _IMPLIED.get(cell.operation, frozenset({cell.operation}))
    return any(
        right.resource is cell.resource
        and right.operation in enough
        and (cell.name.startswith(right.name) if right.pattern is Pattern.PREFIXED else cell.name == right.name)
        for right in rights
    )


# ------------------------------------------------------------ asking


class Attempts(dict[Cell, bool]):
    """What the broker let one principal do. `count`: how many requests that took."""

    count: int = 0


class ThirdAnswerError(Exception):
    """Neither the refusal of the right nor what is said to whoever has it: the matrix asks wrongly."""


async def connected(settings: Settings) -> AIOKafkaConnection:
    """One authenticated connection."""
    host, port = settings.kafka.split(",")[0].rsplit(":", 1)
    return await create_conn(
        host,
        int(port),
        request_timeout_ms=SECONDS * 1000,
        security_protocol=settings.kafka_security,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_plain_username=settings.kafka_username,
        sasl_plain_password=settings.password,
    )


async def topic_ids(settings: Settings, names: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """How many partitions each topic has, and its id."""
    connection = await connected(settings)
    try:
        wanted = [(bytes(16), name, {}) for name in names]
        question = Question(_TOPIC_IDS(wanted, False, False, False, {}), None, 0, frozenset())
        answer = _values(await connection.send(question))
    finally:
        connection.close()
    return {topic[1]: (len(topic[4]), topic[2]) for topic in answer[4]}


async def attempts(settings: Settings, locks: Locks) -> Attempts:
    """Every cell, asked by one principal over one connection."""
    asked = list(locks.questions())
    connection = await connected(settings)
    try:
        answers = await asyncio.gather(*(connection.send(question) for _, question in asked))
    finally:
        connection.close()
    found = Attempts()
    found.count = len(asked)
    for (cell, question), answer in zip(asked, answers, strict=True):
        code = question.error(_values(answer))
        if code != question.denied and code not in question.allowed:
            raise ThirdAnswerError(f"{settings.kafka_username}: {cell}: {for_code(code).__name__} ({code})")
        is_let = code != question.denied
        if found.setdefault(cell, is_let) != is_let:
            raise ThirdAnswerError(f"{settings.kafka_username}: {cell}: one way is open and another is not")
    return found


def _values(answer: Response) -> list[Any]:
    return [answer.get_item(name) for name in answer.SCHEMA.names]
