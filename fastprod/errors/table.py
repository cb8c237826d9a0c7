"""The error table: the one place that states each error's name, code and retriability.

Sources: the error code list of the Kafka protocol guide (codes; retriable yes or no), the
exception classes of kafka-python 3.0.12 (names, messages, bases), KIP-1102 (129).

Retriability is the Java producer's, because verdicts on failed batches rest on it. It differs
from kafka-python in two rows:

* 2, CORRUPT_MESSAGE: retriable. A batch is checked against its CRC on arrival, so a flipped bit
  on the way there is cured by sending it again.
* 75, UNKNOWN_LEADER_EPOCH: retriable, but no reason to refresh metadata. It is the broker that
  lags behind the client's epoch; newer metadata would tell the client nothing.
"""

from typing import Final, NamedTuple

PLAIN: Final = ("BrokerResponseError",)
RETRY: Final = ("RetriableError", "BrokerResponseError")
REFRESH: Final = ("InvalidMetadataError", "BrokerResponseError")
DENIED: Final = ("AuthorizationError",)


class ErrorRow(NamedTuple):
    """One error class: broker code and message (None: an error of this client), name, bases."""

    code: int | None
    name: str
    message: str | None
    bases: tuple[str, ...]
    description: str

    @property
    def retriable(self) -> bool:
        """Whether trying again may cure it."""
        return self.invalid_metadata or "RetriableError" in (self.name, *self.bases)

    @property
    def invalid_metadata(self) -> bool:
        """Whether metadata should be refreshed before trying again."""
        return "InvalidMetadataError" in (self.name, *self.bases)


def _client(name: str, bases: tuple[str, ...], description: str) -> ErrorRow:
    return ErrorRow(None, name, None, bases, description)


_ROOT: Final = ("KafkaError",)

# fmt: off
CLIENT_ERRORS: Final[tuple[ErrorRow, ...]] = (
    _client("KafkaError", (), "Base of every error here."),
    _client("RetriableError", _ROOT, "Base of errors that trying again may cure."),
    _client("InvalidMetadataError", ("RetriableError",),
            "Base of retriable errors that call for a metadata refresh first."),
    _client("BrokerResponseError", _ROOT, "Base of errors that a broker reports by a code."),
    _client("AuthorizationError", ("BrokerResponseError",),
            "Base of broker errors about missing permissions."),
    _client("Cancelled", ("RetriableError",), "The request was given up before an answer came."),
    _client("CommitFailedError", _ROOT, "Offsets were refused: the group has rebalanced."),
    _client("IllegalArgumentError", _ROOT, "An argument's value is not acceptable."),
    _client("IllegalStateError", _ROOT, "The call is not possible in the present state."),
    _client("KafkaConfigurationError", _ROOT, "The configuration contradicts itself."),
    _client("KafkaConnectionError", ("InvalidMetadataError",),
            "A connection could not be made or was lost."),
    _client("KafkaProtocolError", _ROOT, "Bytes from a broker do not follow the protocol."),
    _client("CorrelationIdError", ("RetriableError", "KafkaProtocolError"),
            "A response does not belong to the oldest open request of its connection."),
    _client("InvalidReceiveError", ("KafkaProtocolError",),
            "A response's announced size is negative or above the limit."),
    _client("KafkaTimeoutError", ("RetriableError",), "Something did not happen in time."),
    _client("MetadataEmptyBrokerList", ("RetriableError",),
            "A metadata response names no broker."),
    _client("NoOffsetForPartitionError", _ROOT, "A partition has no committed offset."),
    _client("NodeNotReadyError", ("RetriableError",), "The broker cannot take a request now."),
    _client("UnknownBrokerIdError", _ROOT, "No broker with that id is known."),
    _client("QuotaViolationError", _ROOT, "A metric left the bounds of its quota."),
    _client("StaleMetadata", ("InvalidMetadataError",), "Cached metadata is out of date."),
    _client("TooManyInFlightRequests", ("RetriableError",),
            "The connection has as many open requests as it may."),
    _client("UnrecognizedBrokerVersion", _ROOT, "The broker's version cannot be told."),
    _client("UnsupportedCodecError", _ROOT, "The compression codec is unknown or not installed."),
    _client("TransactionAbortedError", _ROOT,
            "The record was not sent because the caller aborted its transaction."),
    _client("BatchDeliveryError", _ROOT,
            "At least one record of a send_many or send_arrow call was not delivered;"
            " `metadata` says which."),
    # One shares code 35, which for_code answers with its base; the other is the base of one class
    # for each unlisted code.
    ErrorRow(35, "IncompatibleBrokerVersion", "UNSUPPORTED_VERSION", ("UnsupportedVersionError",),
             "The client found that the broker is too old for what it was asked to do."),
    ErrorRow(None, "UnrecognizedBrokerError", "UNKNOWN", ("UnknownError",),
             "The broker answered with a code that this version does not know; `errno` holds it."),
)
# fmt: on

# Other names of the same class.
#
# NoBrokersAvailable: kafka-python 2.x raised it when no bootstrap server answered, 3.x dropped
# the name and raises KafkaTimeoutError instead. Much deployed code still catches the old name,
# and must not die of an AttributeError in its except clause.
# CorruptRecordException: an older name that kafka-python itself keeps.
ALIASES: Final[dict[str, str]] = {
    "CorruptRecordException": "CorruptRecordError",
    "NoBrokersAvailable": "KafkaTimeoutError",
}
