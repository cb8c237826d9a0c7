"""Which versions of which API fastprod speaks, and the choice of one with a broker.

Versions belong to a connection: a broker may be replaced by an older or newer one under the same
address, so what was negotiated is forgotten with the connection.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

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

# What a release of Kafka was the first to list: (release, API key, version), newest first. Source:
# the ApiVersions responses of released brokers.
_RELEASES: Final = (
    ((4, 3), 35, 5),  # DescribeLogDirs
    ((4, 2), 2, 11),  # ListOffsets
    ((4, 1), 0, 13),  # Produce
    ((4, 0), 2, 10),
    ((3, 9), 1, 17),  # Fetch
    ((3, 8), 0, 11),
    ((3, 7), 1, 16),
    ((3, 6), 24, 4),  # AddPartitionsToTxn
    ((3, 5), 1, 15),
    ((3, 4), 4, 7),  # LeaderAndIsr
    ((3, 3), 29, 3),  # DescribeAcls
    ((3, 2), 11, 9),  # JoinGroup
    ((3, 1), 1, 13),
    ((3, 0), 2, 7),
    ((2, 8), 0, 9),
    ((2, 7), 1, 12),
    ((2, 6), 48, 0),  # DescribeClientQuotas
    ((2, 5), 29, 2),
    ((2, 4), 0, 8),
    ((2, 3), 1, 11),
    ((2, 2), 2, 5),
    ((2, 1), 1, 10),
    ((2, 0), 1, 8),
    ((1, 1), 1, 7),
    ((1, 0), 3, 5),  # Metadata
)
_BEFORE_ALL: Final = (0, 11)


def release_of(broker: Mapping[int, VersionRange]) -> tuple[int, ...]:
    """Return the newest release of Kafka whose APIs this broker offers, as far as we can tell.

    Only for people to read: what is spoken is agreed API by API. A broker newer than all we know
    is told as the newest of them.
    """
    for release, key, version in _RELEASES:
        offered = broker.get(key)
        if offered is not None and offered.first <= version <= offered.last:
            return release
    return _BEFORE_ALL


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
