"""Who can take part, by the name that the command line and the table use."""

from __future__ import annotations

from typing import NamedTuple

from comparing.job import ARRIVAL, DRAIN, LATENCY, MEMORY, THROUGHPUT, Case
from fastprod import KafkaProducer


class Contender(NamedTuple):
    """`client`: module and class; `rate`: a first guess of records/s, replaced by what the warm-up measures.

    `hashes`: it puts each record on the partition of its key, in the order of the stream, as the checking mode demands.
    `limits`: which cases it cannot do: several threads, codecs, a codec's level, snappy.
    """

    title: str
    client: tuple[str, str]
    rate: int
    backend: str = ""
    kinds: tuple[str, ...] = (THROUGHPUT,)
    hashes: bool = True
    limits: tuple[str, ...] = ()

    def takes(self, case: Case, kind: str) -> bool:
        """Whether it can do that."""
        hit = {
            _THREADS: case.threads > 1,
            _CODEC: case.compression is not None,
            _SNAPPY: case.compression == "snappy",
            _LEVEL: case.level is not None,
        }
        return kind in self.kinds and not any(hit[limit] for limit in self.limits)


_THREADS, _CODEC, _SNAPPY, _LEVEL = "threads", "codec", "snappy", "level"
_SINGLE = (THROUGHPUT, LATENCY, MEMORY)
_PACED = (*_SINGLE, ARRIVAL)

CEILING = "ceiling"
C_LIMIT, MEMORY_LIMIT = "c-limit", "memcpy-crc"
CALLBACK, FUTURES, SEND = "fastprod-callback", "fastprod-futures", "fastprod-send"
MANY, ARROW = "fastprod-send_many", "fastprod-send_arrow"
CONFLUENT, CONFLUENT_BATCH = "confluent-callback", "confluent-batch"
NATIVE = (CALLBACK, FUTURES)
PURE = ("pure-callback", "pure-futures")
PLAIN = (SEND, "confluent-send")
# Whose records' arrival at the server is asked, beside their latency.
PACED = (FUTURES, CONFLUENT)

_FASTPROD = "comparing.fastprod_clients"
_PEERS = "comparing.peers"
_LIMIT = "comparing.climit"

CONTENDERS = {
    CEILING: Contender(
        "ceiling (prebuilt batches)",
        ("comparing.ceiling", "Ceiling"),
        2_000_000,
        "native",
        hashes=False,
        limits=(_THREADS,),
    ),
    MEMORY_LIMIT: Contender(
        "memcpy, CRC-32C, write", (_LIMIT, "MemoryLimit"), 20_000_000, hashes=False, limits=(_THREADS, _CODEC)
    ),
    C_LIMIT: Contender("C limit", (_LIMIT, "CLimit"), 15_000_000, hashes=False, limits=(_THREADS, _CODEC)),
    CALLBACK: Contender("fastprod, callback a record", (_FASTPROD, "WithCallbacks"), 1_000_000, "native"),
    FUTURES: Contender("fastprod, futures checked", (_FASTPROD, "WithFutures"), 1_000_000, "native", _PACED),
    SEND: Contender(
        "fastprod, send() only", (_FASTPROD, "WithNeither"), 1_000_000, "native", (THROUGHPUT, MEMORY, DRAIN)
    ),
    MANY: Contender("fastprod, send_many", (_FASTPROD, "WithColumns"), 5_000_000, "native"),
    ARROW: Contender("fastprod, send_arrow", (_FASTPROD, "WithArrow"), 5_000_000, "native"),
    "pure-callback": Contender("fastprod pure, callback a record", (_FASTPROD, "WithCallbacks"), 50_000, "pure"),
    "pure-futures": Contender("fastprod pure, futures checked", (_FASTPROD, "WithFutures"), 50_000, "pure", _SINGLE),
    CONFLUENT: Contender(
        "confluent-kafka, callback a record", (_PEERS, "ConfluentWithCallbacks"), 500_000, kinds=_PACED
    ),
    "confluent-send": Contender(
        "confluent-kafka, no callback", (_PEERS, "ConfluentWithNothing"), 700_000, kinds=(THROUGHPUT, MEMORY, DRAIN)
    ),
    CONFLUENT_BATCH: Contender("confluent-kafka, produce_batch", (_PEERS, "ConfluentWithBatches"), 900_000),
    # Its memory cannot be filled: send() waits for the batch before.
    "aiokafka": Contender(
        "aiokafka, futures checked",
        (_PEERS, "Aiokafka"),
        80_000,
        kinds=(THROUGHPUT, LATENCY),
        limits=(_THREADS, _LEVEL),
    ),
    # For snappy it wants python-snappy, which nothing else here needs.
    "kafka-python": Contender(
        "kafka-python, futures checked", (_PEERS, "KafkaPython"), 35_000, kinds=_SINGLE, limits=(_SNAPPY, _LEVEL)
    ),
}
for name, method in ((MANY, "send_many"), (ARROW, "send_arrow")):
    if not hasattr(KafkaProducer, method):
        del CONTENDERS[name]

_USUAL = (CEILING, *NATIVE, MANY, ARROW, CONFLUENT, CONFLUENT_BATCH, "aiokafka", "kafka-python")
_ALONE = (FUTURES, CONFLUENT, "aiokafka", "kafka-python")
_QUEUED = (SEND, FUTURES, "confluent-send", CONFLUENT, "kafka-python")


def usual(kind: str, sink: bool) -> tuple[str, ...]:
    """Who takes part if nobody is named. Without the network's and the broker's work there is a limit below all."""
    names = {LATENCY: _ALONE, MEMORY: _QUEUED}.get(kind, ((MEMORY_LIMIT, C_LIMIT) if sink else ()) + _USUAL)
    return tuple(name for name in names if name in CONTENDERS)
