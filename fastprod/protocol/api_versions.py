"""ApiVersions: what a broker speaks (KIP-35), its features (KIP-584), who the client is (KIP-511)."""

import re
from typing import Annotated, NamedTuple

from fastprod.protocol import versions
from fastprod.protocol.schema import IGNORABLE, Array, Bool, Int16, Int32, Int64, String, message_of, since, tag
from fastprod.protocol.versions import VersionRange


@message_of(versions.API_VERSIONS)
class ApiVersionsRequest(NamedTuple):
    """Both strings must match `[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?`."""

    client_software_name: Annotated[String, since(3), IGNORABLE] = ""
    client_software_version: Annotated[String, since(3), IGNORABLE] = ""


class ApiVersion(NamedTuple):
    """The inclusive range of versions of one API."""

    api_key: Int16 = 0
    min_version: Int16 = 0
    max_version: Int16 = 0


class SupportedFeature(NamedTuple):
    """What this broker could do."""

    name: String = ""
    min_version: Int16 = 0
    max_version: Int16 = 0


class FinalizedFeature(NamedTuple):
    """What the whole cluster does, like transaction.version."""

    name: String = ""
    max_version_level: Int16 = 0
    min_version_level: Int16 = 0


@message_of(versions.API_VERSIONS)
class ApiVersionsResponse(NamedTuple):
    """Always has response header v0. With error 35 the layout is v0, whatever was asked for."""

    error_code: Int16 = 0
    api_keys: Array[ApiVersion] = ()
    throttle_time_ms: Annotated[Int32, since(1), IGNORABLE] = 0
    supported_features: Annotated[Array[SupportedFeature], since(3), tag(0), IGNORABLE] = ()
    finalized_features_epoch: Annotated[Int64, since(3), tag(1), IGNORABLE] = -1
    finalized_features: Annotated[Array[FinalizedFeature], since(3), tag(2), IGNORABLE] = ()
    zk_migration_ready: Annotated[Bool, since(3), tag(3), IGNORABLE] = False


def version_ranges(response: ApiVersionsResponse) -> dict[int, VersionRange]:
    """Return API key -> versions that the broker speaks, as `versions.negotiate` takes it."""
    return {each.api_key: VersionRange(each.min_version, each.max_version) for each in response.api_keys}


def retry_version(refused: ApiVersionsResponse) -> int:
    """Return the version to ask again with after an answer with error 35.

    The broker's own range of ApiVersions tells it. Brokers before 2.4 send no range along, and a
    newer one might send one that we do not speak; version 0 is what all of them answer.
    """
    theirs = version_ranges(refused).get(versions.API_VERSIONS.key)
    ours = versions.API_VERSIONS.versions
    if theirs is None:
        return ours.first
    return max(min(ours.last, theirs.last), ours.first)


def software_version(version: str) -> str:
    """Return a version as ApiVersions may carry it.

    A broker answers INVALID_REQUEST to anything else, a local version like "1.0+abc" for one.
    """
    return re.sub(r"[^A-Za-z0-9.-]", "-", version).strip(".-") or "unknown"
