"""fastprod.protocol.versions and what ApiVersions responses are made into."""

import re

import pytest

from fastprod import _version, errors
from fastprod.protocol import api_versions, versions
from fastprod.protocol.api_versions import ApiVersion, ApiVersionsResponse
from fastprod.protocol.versions import Api, VersionRange, is_offered, negotiate

pytestmark = pytest.mark.native_only

APIS = {name: value for name, value in vars(versions).items() if isinstance(value, Api)}

# What brokers announce: Produce, Metadata, FindCoordinator, ApiVersions, InitProducerId,
# AddPartitionsToTxn, EndTxn, TxnOffsetCommit.
BROKERS = {
    "2.1": {0: (0, 7), 3: (0, 7), 10: (0, 2), 18: (0, 2), 22: (0, 1), 24: (0, 1), 26: (0, 1), 28: (0, 2)},
    "2.4": {0: (0, 8), 3: (0, 9), 10: (0, 3), 18: (0, 3), 22: (0, 2), 24: (0, 1), 26: (0, 1), 28: (0, 2)},
    "3.0": {0: (0, 9), 3: (0, 11), 10: (0, 4), 18: (0, 3), 22: (0, 4), 24: (0, 3), 26: (0, 3), 28: (0, 3)},
    "3.9": {0: (0, 11), 3: (0, 12), 10: (0, 6), 18: (0, 4), 22: (0, 5), 24: (0, 5), 26: (0, 4), 28: (0, 4)},
    "4.0": {0: (0, 12), 3: (0, 13), 10: (0, 6), 18: (0, 4), 22: (0, 5), 24: (0, 5), 26: (0, 5), 28: (0, 5)},
    "4.2": {0: (0, 13), 3: (0, 13), 10: (0, 6), 18: (0, 4), 22: (0, 5), 24: (0, 5), 26: (0, 5), 28: (0, 5)},
    "4.3": {0: (0, 13), 3: (0, 13), 10: (0, 6), 18: (0, 4), 22: (0, 5), 24: (0, 5), 26: (0, 5), 28: (0, 5)},
    "newer": {0: (5, 20), 3: (6, 20), 10: (2, 9), 18: (0, 9), 22: (2, 9), 24: (0, 9), 26: (1, 9), 28: (2, 9)},
}
CHOSEN = {
    "2.1": (7, 7, 2, 2, 1, 1, 1, 2),
    "2.4": (8, 9, 3, 3, 2, 1, 1, 2),
    "3.0": (9, 11, 4, 3, 4, 3, 3, 3),
    "3.9": (11, 12, 6, 4, 5, 3, 4, 4),
    "4.0": (12, 13, 6, 4, 5, 3, 5, 5),
    "4.2": (13, 13, 6, 4, 5, 3, 5, 5),
    "4.3": (13, 13, 6, 4, 5, 3, 5, 5),
    "newer": (13, 13, 6, 4, 5, 3, 5, 5),
}


def ranges_of(broker: str) -> dict[int, VersionRange]:
    return {key: VersionRange(*value) for key, value in BROKERS[broker].items()}


@pytest.mark.parametrize("broker", BROKERS)
def test_newest_common_version(broker: str) -> None:
    apis = {api.key: api for api in APIS.values()}
    ranges = ranges_of(broker)
    assert tuple(negotiate(apis[key], ranges) for key in ranges) == CHOSEN[broker]


def test_versions_that_are_announced_but_refused_are_never_chosen() -> None:
    # KAFKA-18659: brokers from 4.0 on announce Produce 0 and refuse 0 to 2.
    assert versions.PRODUCE.versions.first == 3
    with pytest.raises(errors.UnsupportedVersionError):
        negotiate(versions.PRODUCE, {0: VersionRange(0, 2)})


def test_ceiling() -> None:
    ranges = ranges_of("4.2")
    assert negotiate(versions.PRODUCE, ranges, ceiling=11) == 11
    assert negotiate(versions.PRODUCE, ranges, ceiling=12) == 12
    assert negotiate(versions.PRODUCE, ranges, ceiling=99) == 13
    assert negotiate(versions.PRODUCE, ranges_of("2.1"), ceiling=11) == 7


@pytest.mark.parametrize(
    ("api", "theirs", "ceiling", "texts"),
    [
        (versions.METADATA, (0, 3), None, ("Metadata (API 3)", "fastprod speaks 4 to 13", "broker 0 to 3", "2.1")),
        (versions.METADATA, (14, 20), None, ("speaks 4 to 13", "broker 14 to 20", "Upgrade fastprod")),
        (versions.SASL_HANDSHAKE, (0, 0), None, ("speaks only 1", "broker only 0", "Upgrade the broker")),
        (versions.PRODUCE, (12, 13), 11, ("speaks 3 to 11", "broker 12 to 13", "cannot be expressed")),
        (versions.METADATA, (9, 5), None, ("broker 9 to 5",)),
    ],
)
def test_no_common_version(api: Api, theirs: tuple[int, int], ceiling: int | None, texts: tuple[str, ...]) -> None:
    with pytest.raises(errors.UnsupportedVersionError) as caught:
        negotiate(api, {api.key: VersionRange(*theirs)}, ceiling=ceiling)
    for text in texts:
        assert text in str(caught.value)


def test_api_that_the_broker_does_not_offer() -> None:
    assert not is_offered(versions.INIT_PRODUCER_ID, {3: VersionRange(0, 12)})
    assert is_offered(versions.METADATA, {3: VersionRange(0, 12)})
    expected = r"does not offer InitProducerId \(API 22\); fastprod speaks its versions 0 to 5"
    with pytest.raises(errors.UnsupportedVersionError, match=expected):
        negotiate(versions.INIT_PRODUCER_ID, {3: VersionRange(0, 12)})


def test_keys_are_unique() -> None:
    assert len({api.key for api in APIS.values()}) == len(APIS)


def test_ranges_of_a_response() -> None:
    response = ApiVersionsResponse(api_keys=(ApiVersion(3, 0, 12), ApiVersion(22, 1, 5)))
    assert api_versions.version_ranges(response) == {3: (0, 12), 22: (1, 5)}


@pytest.mark.parametrize(
    ("api_keys", "version"),
    [((), 0), ((ApiVersion(18, 0, 3),), 3), ((ApiVersion(18, 0, 9),), 4), ((ApiVersion(18, 0, -1),), 0)],
)
def test_version_to_retry_with(api_keys: tuple[ApiVersion, ...], version: int) -> None:
    assert api_versions.retry_version(ApiVersionsResponse(error_code=35, api_keys=api_keys)) == version


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (_version.__version__, _version.__version__),
        ("1.2.3.dev4+gabc_1", "1.2.3.dev4-gabc-1"),
        ("1.0+", "1.0"),
        ("+", "unknown"),
    ],
)
def test_software_version(version: str, expected: str) -> None:
    assert api_versions.software_version(version) == expected
    assert re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?", expected)


def test_a_release_is_told_by_what_it_offers() -> None:
    """Against what kafka-python's authors recorded of real brokers."""
    recorded = pytest.importorskip("kafka.protocol.broker_version_data").BROKER_API_VERSIONS
    told = {
        release: versions.release_of({int(key): VersionRange(*each) for key, each in offered.items()})
        for release, offered in recorded.items()
        if release >= (1, 0)
    }
    assert len(told) > 20
    # Only brokers with ZooKeeper list what tells 3.4 from 3.3.
    assert all(told[release] == release for release in told)


def test_releases_beyond_those_we_know() -> None:
    newest = versions.release_of({35: VersionRange(1, 9), 0: VersionRange(0, 20)})
    assert newest == (4, 3)
    assert versions.release_of({}) == (0, 11)
