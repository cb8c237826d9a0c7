"""Which versions of which API fastprod speaks, and the choice of one with a broker.

Versions belong to a connection: a broker may be replaced by an older or newer one under the same
address, so what was negotiated is forgotten with the connection.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fastprod import errors


class VersionRange(NamedTuple):
    """An inclusive range of versions of one API."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.first != self.last else f"only {self.first}"


class Api(NamedTuple):
    """One API of the Kafka protocol and the versions of it that fastprod speaks.

    `flexible_from` is the first version with compact lengths and tagged fields (KIP-482), None
    if no version has them. Source: message definitions of Apache Kafka 4.2.
    """

    name: str
    key: int
    versions: VersionRange
    flexible_from: int | None

    def is_flexible(self, version: int) -> bool:
        """Whether that version has compact lengths and tagged fields."""
        return self.flexible_from is not None and version >= self.flexible_from


# Below 3 a Produce request cannot carry format v2. Brokers from 4.0 on list 0 as their lowest
# version and yet refuse 0 to 2 (KAFKA-18659), so a broker's lower bound proves nothing; we never
# go below ours. 12 and up mean transactions of KIP-890 part 2, 13 and up topic ids: callers that
# have no use for those pass a ceiling to negotiate().
PRODUCE = Api("Produce", 0, VersionRange(3, 13), 9)
METADATA = Api("Metadata", 3, VersionRange(4, 13), 9)
FIND_COORDINATOR = Api("FindCoordinator", 10, VersionRange(1, 6), 3)
SASL_HANDSHAKE = Api("SaslHandshake", 17, VersionRange(1, 1), None)
API_VERSIONS = Api("ApiVersions", 18, VersionRange(0, 4), 3)
# 6 is not stable before Kafka 4.4 (KIP-939).
INIT_PRODUCER_ID = Api("InitProducerId", 22, VersionRange(0, 5), 2)
# 4 and up are for brokers among themselves.
ADD_PARTITIONS_TO_TXN = Api("AddPartitionsToTxn", 24, VersionRange(0, 3), 3)
ADD_OFFSETS_TO_TXN = Api("AddOffsetsToTxn", 25, VersionRange(0, 4), 3)
END_TXN = Api("EndTxn", 26, VersionRange(0, 5), 3)
TXN_OFFSET_COMMIT = Api("TxnOffsetCommit", 28, VersionRange(0, 5), 3)
SASL_AUTHENTICATE = Api("SaslAuthenticate", 36, VersionRange(0, 2), 2)


def is_offered(api: Api, broker: Mapping[int, VersionRange]) -> bool:
    """Whether the broker lists the API at all, in whatever versions."""
    return api.key in broker


def negotiate(api: Api, broker: Mapping[int, VersionRange], *, ceiling: int | None = None) -> int:
    """Return the newest version of the API that both sides speak.

    `broker` maps API keys to the ranges of its ApiVersions response. `ceiling` lowers our own
    newest version for this choice. Raises UnsupportedVersionError, which says both ranges and
    what to do, if the broker does not offer the API or shares no version with us.
    """
    ours = api.versions
    if ceiling is not None:
        ours = VersionRange(ours.first, min(ours.last, ceiling))
    theirs = broker.get(api.key)
    if theirs is None:
        raise errors.UnsupportedVersionError(
            f"The broker does not offer {api.name} (API {api.key}); fastprod speaks its versions {ours}. "
            f"Connect to Apache Kafka 2.1 or newer, or turn off what needs {api.name}."
        )
    version = min(ours.last, theirs.last)
    if version < max(ours.first, theirs.first):
        if theirs.last < ours.first:
            remedy = "Upgrade the broker: Apache Kafka 2.1 is the oldest that fastprod works with."
        elif theirs.first > api.versions.last:
            remedy = "Upgrade fastprod: the broker has dropped the versions that this one speaks."
        else:
            remedy = "What was asked for cannot be expressed in any version that the broker accepts."
        raise errors.UnsupportedVersionError(
            f"No common version of {api.name} (API {api.key}): fastprod speaks {ours}, the broker {theirs}. {remedy}"
        )
    return version
