"""Who can take part, by the name that the command line and the table use."""

from __future__ import annotations

from typing import NamedTuple


class Contender(NamedTuple):
    """`client`: module and class; `rate`: a first guess of records/s, replaced by what the warm-up measures."""

    title: str
    client: tuple[str, str]
    rate: int
    backend: str = ""


CEILING = "ceiling"
CONFLUENT = "confluent-callback"
NATIVE = ("fastprod-callback", "fastprod-futures")
PURE = ("pure-callback", "pure-futures")
PLAIN = ("fastprod-send", "confluent-send")

_FASTPROD = "comparing.fastprod_clients"
_PEERS = "comparing.peers"

CONTENDERS = {
    CEILING: Contender("ceiling (prebuilt batches)", ("comparing.ceiling", "Ceiling"), 2_000_000, "native"),
    "fastprod-callback": Contender("fastprod, callback a record", (_FASTPROD, "WithCallbacks"), 1_000_000, "native"),
    "fastprod-futures": Contender("fastprod, futures checked", (_FASTPROD, "WithFutures"), 1_000_000, "native"),
    "fastprod-send": Contender("fastprod, send() only", (_FASTPROD, "WithNeither"), 1_000_000, "native"),
    "pure-callback": Contender("fastprod pure, callback a record", (_FASTPROD, "WithCallbacks"), 50_000, "pure"),
    "pure-futures": Contender("fastprod pure, futures checked", (_FASTPROD, "WithFutures"), 50_000, "pure"),
    CONFLUENT: Contender("confluent-kafka, callback a record", (_PEERS, "ConfluentWithCallbacks"), 500_000),
    "confluent-send": Contender("confluent-kafka, no callback", (_PEERS, "ConfluentWithNothing"), 700_000),
    "aiokafka": Contender("aiokafka, futures checked", (_PEERS, "Aiokafka"), 80_000),
    "kafka-python": Contender("kafka-python, futures checked", (_PEERS, "KafkaPython"), 35_000),
}
DEFAULT = (CEILING, *NATIVE, CONFLUENT, "aiokafka", "kafka-python")
