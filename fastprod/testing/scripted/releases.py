"""The releases of Apache Kafka that a `ScriptedBroker` imitates: which APIs in which versions, and what they do
otherwise than others.

The ranges of 4.3 are what Apache Kafka 4.3.1 answers; those of 2.1, 2.4, 3.3 and 4.0 are its answers as other clients
recorded them. 4.0 and 4.3 list Produce from version 0 on and serve it from 3 on (KAFKA-18659).
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Api(enum.IntEnum):
    """API keys that a producer meets, by their names in Kafka's protocol guide."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    FIND_COORDINATOR = 10
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CONFIGS = 32
    SASL_AUTHENTICATE = 36
    DESCRIBE_CLUSTER = 60
    GET_TELEMETRY_SUBSCRIPTIONS = 71
    PUSH_TELEMETRY = 72


class Release(NamedTuple):
    """What one release does.

    `ranges`: API key -> lowest and highest version. `names_itself`: whether an ApiVersions request that is too new is
    told the range of ApiVersions (from 2.4 on) or nothing. `topic_ids`: whether topics have ids (from 2.8 on).
    `without_state`: error code for a sequence other than 0 of a producer that the partition does not know (0: accepted,
    from 2.5 on). `being_created`: error code of a topic whose creation a Metadata request has just started.
    `latest_ms`: how far in the future a record's timestamp may lie (one hour from 4.0 on; None: any distance).
    """

    ranges: dict[int, tuple[int, int]]
    names_itself: bool = True
    topic_ids: bool = True
    without_state: int = 0
    being_created: int = 3
    latest_ms: int | None = None


def _ranges(table: str) -> dict[int, tuple[int, int]]:
    found = {}
    for entry in table.split():
        key, _, versions = entry.partition(":")
        low, _, high = versions.partition("-")
        found[int(key)] = (int(low), int(high or low))
    return found


_V2_1 = """
    0:0-7 1:0-10 2:0-4 3:0-7 4:0-1 5:0 6:0-4 7:0-1 8:0-6 9:0-5 10:0-2 11:0-3 12:0-2 13:0-2 14:0-2 15:0-2 16:0-2 17:0-1
    18:0-2 19:0-3 20:0-3 21:0-1 22:0-1 23:0-2 24:0-1 25:0-1 26:0-1 27:0 28:0-2 29:0-1 30:0-1 31:0-1 32:0-2 33:0-1 34:0-1
    35:0-1 36:0 37:0-1 38:0-1 39:0-1 40:0-1 41:0-1 42:0-1
"""
_V2_4 = """
    0:0-8 1:0-11 2:0-5 3:0-9 4:0-4 5:0-2 6:0-6 7:0-3 8:0-8 9:0-6 10:0-3 11:0-6 12:0-4 13:0-4 14:0-4 15:0-5 16:0-3 17:0-1
    18:0-3 19:0-5 20:0-4 21:0-1 22:0-2 23:0-3 24:0-1 25:0-1 26:0-1 27:0 28:0-2 29:0-1 30:0-1 31:0-1 32:0-2 33:0-1 34:0-1
    35:0-1 36:0-1 37:0-1 38:0-2 39:0-1 40:0-1 41:0-1 42:0-2 43:0-2 44:0-1 45:0 46:0 47:0
"""
_V3_3 = """
    0:0-9 1:0-13 2:0-7 3:0-12 4:0-6 5:0-3 6:0-7 7:0-3 8:0-8 9:0-8 10:0-4 11:0-9 12:0-4 13:0-5 14:0-5 15:0-5 16:0-4
    17:0-1 18:0-3 19:0-7 20:0-6 21:0-2 22:0-4 23:0-4 24:0-3 25:0-3 26:0-3 27:0-1 28:0-3 29:0-3 30:0-3 31:0-3 32:0-4
    33:0-2 34:0-2 35:0-4 36:0-2 37:0-3 38:0-3 39:0-2 40:0-2 41:0-3 42:0-2 43:0-2 44:0-1 45:0 46:0 47:0 48:0-1 49:0-1
    50:0 51:0 56:0-2 57:0-1 60:0 61:0 65:0 66:0 67:0
"""
_V4_0 = """
    0:0-12 1:4-17 2:1-10 3:0-13 8:2-9 9:1-9 10:0-6 11:2-9 12:0-4 13:0-5 14:0-5 15:0-6 16:0-5 17:0-1 18:0-4 19:2-7 20:1-6
    21:0-2 22:0-5 23:2-4 24:0-5 25:0-4 26:0-5 27:1 28:0-5 29:1-3 30:1-3 31:1-3 32:1-4 33:0-2 34:1-2 35:1-4 36:0-2 37:0-3
    38:1-3 39:1-2 40:1-2 41:1-3 42:0-2 43:0-2 44:0-1 45:0 46:0 47:0 48:0-1 49:0-1 50:0 51:0 55:0-2 57:0-2 60:0-2 61:0
    64:0 65:0 66:0-1 68:0-1 69:0-1 74:0 75:0 80:0 81:0
"""
_V4_3 = """
    0:0-13 1:4-18 2:1-11 3:0-13 8:2-10 9:1-10 10:0-6 11:0-9 12:0-4 13:0-5 14:0-5 15:0-6 16:0-5 17:0-1 18:0-4 19:2-7
    20:1-6 21:0-2 22:0-5 23:2-4 24:0-5 25:0-4 26:0-5 27:1-2 28:0-5 29:1-3 30:1-3 31:1-3 32:1-4 33:0-2 34:1-2 35:1-5
    36:0-2 37:0-3 38:1-3 39:1-2 40:1-2 41:1-3 42:0-2 43:0-2 44:0-1 45:0-1 46:0 47:0 48:0-1 49:0-1 50:0 51:0 55:0-2
    57:0-2 60:0-2 61:0 64:0 65:0 66:0-2 68:0-1 69:0-1 74:0-1 75:0 76:1 77:1 78:1-2 79:1-2 80:0-1 81:0 83:0 84:0 85:0-1
    86:0 87:0-1 88:0 89:0 90:0-1 91:0 92:0
"""
_HOUR_MS = 3_600_000

RELEASES: Final = {
    "2.1": Release(_ranges(_V2_1), names_itself=False, topic_ids=False, without_state=59, being_created=5),
    "2.4": Release(_ranges(_V2_4), topic_ids=False, without_state=59, being_created=5),
    "3.3": Release(_ranges(_V3_3)),
    "4.0": Release(_ranges(_V4_0), latest_ms=_HOUR_MS),
    "4.3": Release(_ranges(_V4_3), latest_ms=_HOUR_MS),
}


def release(version: str) -> Release:
    """Return what is imitated under that name; ValueError if it is none of them."""
    if version not in RELEASES:
        raise ValueError(f"version={version!r}: a ScriptedBroker imitates {', '.join(RELEASES)}")
    return RELEASES[version]
