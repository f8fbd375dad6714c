"""What can break between us and Kafka. Each of these ends the process, and the supervisor starts it again.

But for one: while Kafka is not there yet, a role that starts waits (`streams.arrival`).

StreamError
├── ConnectionRefusedByKafkaError   wrong password, TLS
│   └── KafkaHangsUpError           whatever listens there says nothing
├── KafkaAbsentError                nobody listens where Kafka should be
├── TopicMissingError               not provisioned, or the principal may not see it
├── GapError                        records are missing at the position that a reader owns (law 11)
├── NumberGapError                  a transactional topic's `n` jumped (law 11)
├── LostPositionError               a position lies outside what the log still holds
├── FencedError                     another core took the partition over (broker.core)
├── ClusterError                    administration: Kafka refused, with its reason (streams.cluster)
│   └── GroupIsLiveError            a group's offsets cannot be set while it has members
├── ProvisioningError               Kafka is not as the realm needs it (streams.administration)
├── RestoringError                  a backup cannot be written back (streams.restoring)
├── OperationError                  an operator's word cannot be said (streams.operations)
└── OvertakenError                  somebody else's version of a document came first (streams.documents)
"""


class StreamError(Exception):
    """Kafka did not do what we rest on."""


class ConnectionRefusedByKafkaError(StreamError):
    """No connection: the text says what to check."""


class KafkaHangsUpError(ConnectionRefusedByKafkaError):
    """Somebody listens, and hangs up: TLS where there is none, or none where there is; or it only begins to start."""


class KafkaAbsentError(StreamError):
    """Nobody listens where Kafka should be: a role waits, a command says to try again."""


class TopicMissingError(StreamError):
    """The topic is not there, or this principal may not describe it: to a reader both look empty."""


class GapError(StreamError):
    """Records are missing at the owned position: a later one came twice in a row, or none though some must be there."""


class NumberGapError(StreamError):
    """The gap-free number of a transactional topic jumped."""


class LostPositionError(StreamError):
    """The owned position is outside [log start, log end]."""


class FencedError(StreamError):
    """Another core owns the partition now: this one must end, and nothing is wrong with the log."""
