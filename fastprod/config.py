"""Every option of the producer: its name, default, what it accepts and what it does.

This is the one place that states them; the README's table comes from `markdown_table()`. Names
and meanings are kafka-python's, apart from those marked "fastprod only". Times are in ms, sizes
in bytes.
"""

from __future__ import annotations

import copy
import math
import selectors
import socket
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Final, NamedTuple

from fastprod import addresses, compression, option_rules, partitioners, serializers
from fastprod.option_kinds import (
    INT32_MAX,
    Acks,
    ApiVersion,
    Choice,
    ClientId,
    Delegated,
    Flag,
    Kind,
    Milliseconds,
    NotYet,
    Retries,
    SocketOptions,
    Whole,
)


class PlaneOptions(NamedTuple):
    """What the data plane is told (see "The seam" in DESIGN.md). Times in ms, sizes in bytes."""

    client_id: str
    acks: int
    idempotent: bool
    strict_order: bool
    batch_size: int
    buffer_memory: int
    max_request_size: int
    receive_message_max_bytes: int
    linger_ms: float
    max_block_ms: float
    request_timeout_ms: float
    delivery_timeout_ms: float
    retries: int
    max_in_flight: int
    connections_max_idle_ms: float
    codec: int
    compress: Callable[[compression.BytesLike], bytes] | None
    level: int = 0


class Option(NamedTuple):
    """One option: its name, its default, what it accepts, and one line on what it does."""

    name: str
    default: Any
    kind: Kind
    doc: str


def _is_none(value: Any) -> bool:
    return value is None


def _not_yet(name: str, feature: str, doc: str) -> Option:
    return Option(name, None, NotYet(feature, _is_none), doc)


def _serializer(name: str) -> Kind:
    def check(option: str, value: Any) -> Any:
        serializers.function_of(option, value)
        return value

    return Delegated(serializers.ACCEPTED, check)


def _partitioner(name: str, value: Any) -> Any:
    partitioners.plan(value)
    return "default" if value is None else value


def _servers(name: str, value: Any) -> Any:
    if isinstance(value, Iterator):  # a generator: what it gives is there once
        value = list(value)
    addresses.parse_servers(value)
    return value


def _compression(name: str, value: Any) -> str | None:
    if value is not None:
        compression.compressor(value)
    return None if value is None else str(value)


def _is_plaintext(value: Any) -> bool:
    return bool(value == "PLAINTEXT")


def _security_protocol(name: str, value: Any) -> Any:
    Choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")(name, value)
    return NotYet("a protocol other than PLAINTEXT", _is_plaintext)(name, value)


def _is_default_selector(value: Any) -> bool:
    return value is None or value is selectors.DefaultSelector


def _is_default_client(value: Any) -> bool:
    """kafka-python's own default asks for nothing that we do not do."""
    return value is None or getattr(value, "__name__", "") == "KafkaNetClient"


_TLS: Final = "TLS"
_SASL: Final = "SASL"
_ACCEPTS_CODEC: Final = "None, 'gzip', 'snappy', 'lz4' or 'zstd'"
_ACCEPTS_LEVEL: Final = (
    "None or an int: gzip -1 or 1..9, lz4 1..17, zstd -131072..22; needs compression_type"
)
_BYTES: Final = "bytes"
_INT64_MAX: Final = 2**63 - 1

# fmt: off
OPTIONS: Final[tuple[Option, ...]] = (
    Option("bootstrap_servers", "localhost", Delegated(addresses.ACCEPTED, _servers),
           "Brokers to learn the cluster from; one that answers will do. Port 9092 unless given."),
    Option("client_id", None, ClientId(),
           "Name of this client in brokers' logs, quotas and metrics. None: fastprod-producer-N."),
    Option("key_serializer", None, _serializer("key_serializer"),
           "Turns keys into bytes."),
    Option("value_serializer", None, _serializer("value_serializer"),
           "Turns values into bytes."),
    Option("partitioner", "default", Delegated(partitioners.ACCEPTED, _partitioner),
           "Chooses a partition for records sent without one. Default: murmur2 of the key as in "
           "Java; without a key it stays on a partition while a batch fills."),
    Option("acks", -1, Acks(),
           "Acknowledgement to wait for: -1 or 'all' from all in-sync replicas, 1 from the leader "
           "alone (lost if it fails at once), 0 none (offset -1, losses unseen)."),
    Option("enable_idempotence", True, Flag(),
           "No record is written twice by retries, and order is kept. Needs acks=-1, retries above "
           "0 and at most 5 requests in flight: one of these set otherwise turns the default off "
           "with a log line, and contradicts an explicit True."),
    Option("strict_order", False, Flag(),
           "fastprod only. After a batch failed for good, fail the batches behind it that are "
           "already under way instead of writing them after the gap. Needs idempotence."),
    Option("retries", math.inf, Retries(),
           "How often a batch is sent again after a transient error, within delivery_timeout_ms."),
    Option("retry_backoff_ms", 100, Milliseconds(0),
           "Pause before the first retry; doubles up to 1000 (or itself where larger)."),
    Option("delivery_timeout_ms", 120_000, Milliseconds(1),
           "A record's result is there at the latest this long after its batch was opened. At "
           "least linger_ms + request_timeout_ms."),
    Option("request_timeout_ms", 30_000, Milliseconds(1),
           "How long a broker may take to answer before its connection is closed."),
    Option("linger_ms", 0, Milliseconds(0),
           "How long a batch that is not full waits for more records."),
    Option("batch_size", 1_000_000, Whole(0, INT32_MAX, _BYTES, zero="0: a record a batch"),
           "Upper bound of a batch before compression. Memory is used only as a batch fills."),
    Option("buffer_memory", 33_554_432, Whole(1, _INT64_MAX, _BYTES),
           "fastprod only. Upper bound of all batches that are not yet acknowledged; `send` waits "
           "up to max_block_ms for room."),
    Option("compression_type", None, Delegated(_ACCEPTS_CODEC, _compression),
           "Codec for whole batches."),
    Option("compression_level", None, Delegated(_ACCEPTS_LEVEL, lambda name, value: value),
           "fastprod only. Level for the chosen codec. None: gzip 6, lz4 fast, zstd 3."),
    Option("max_block_ms", 60_000, Milliseconds(0),
           "How long `send` and `partitions_for` wait for a topic's metadata and for room."),
    Option("max_request_size", 1_048_576, Whole(1, INT32_MAX, _BYTES),
           "Upper bound of a Produce request, and so of a record (before compression)."),
    Option("max_in_flight_requests_per_connection", 5, Whole(1, 1_000_000),
           "Unanswered requests a connection. Above 1 without idempotence, a retry may reorder."),
    Option("metadata_max_age_ms", 300_000, Milliseconds(1),
           "Metadata is asked for again at least this often."),
    Option("allow_auto_create_topics", True, Flag(),
           "Whether asking for an unknown topic lets the broker create it."),
    Option("bootstrap_timeout_ms", 30_000, Milliseconds(0),
           "How long the constructor waits for the first broker, unless api_version is given."),
    Option("api_version", None, ApiVersion(),
           "A version given here makes the constructor return without having reached a broker; "
           "otherwise `config` names the release that answered. Versions are always agreed with "
           "each broker."),
    Option("connections_max_idle_ms", 540_000, Milliseconds(1),
           "A connection unused for this long is closed."),
    Option("reconnect_backoff_ms", 50, Milliseconds(0),
           "Pause before connecting again; doubles with each failure in a row."),
    Option("reconnect_backoff_max_ms", 30_000, Milliseconds(0),
           "Upper bound of that pause."),
    Option("client_dns_lookup", "use_all_dns_ips",
           Choice("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
           "Try every address of a name; or name bootstrap servers by their reverse look-up."),
    Option("receive_message_max_bytes", 100_000_000, Whole(1, INT32_MAX, _BYTES),
           "A larger response ends its connection."),
    Option("receive_buffer_bytes", None, Whole(1, INT32_MAX, _BYTES, optional=True),
           "SO_RCVBUF. None: the system's choice."),
    Option("send_buffer_bytes", None, Whole(1, INT32_MAX, _BYTES, optional=True),
           "SO_SNDBUF. None: the system's choice."),
    Option("socket_options", [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)], SocketOptions(),
           "Further options of every socket."),
    Option("metrics_enabled", True, Flag(),
           "Whether `metrics()` has anything to tell."),
    Option("metrics_num_samples", 2, Whole(1, 1000),
           "Windows that `metrics()` looks back over."),
    Option("metrics_sample_window_ms", 30_000, Milliseconds(1),
           "Length of such a window."),
    Option("metric_reporters", [], NotYet("a metrics reporter", lambda value: not value),
           "Classes that are told of each metric."),
    _not_yet("transactional_id", "a transactional producer", "Name to resume transactions under."),
    Option("transaction_timeout_ms", 60_000, Milliseconds(1, INT32_MAX),
           "How long a transaction may take before the broker aborts it. Without transactional_id, as in "
           "kafka-python, nothing."),
    Option("security_protocol", "PLAINTEXT",
           Delegated("'PLAINTEXT' (TLS and SASL are not supported yet)", _security_protocol),
           "How to talk to brokers."),
    _not_yet("ssl_context", _TLS, "A ready-made ssl.SSLContext; other ssl_ options are ignored."),
    Option("ssl_check_hostname", True, NotYet(_TLS, lambda value: value is True),
           "Whether the broker's certificate must carry its host name."),
    _not_yet("ssl_cafile", _TLS, "Authorities to trust (PEM). None: the system's."),
    _not_yet("ssl_certfile", _TLS, "The client's certificate (PEM)."),
    _not_yet("ssl_keyfile", _TLS, "The client's private key (PEM)."),
    _not_yet("ssl_password", _TLS, "Password of the private key."),
    _not_yet("ssl_crlfile", _TLS, "Revoked certificates (PEM)."),
    _not_yet("ssl_ciphers", _TLS, "Ciphers in OpenSSL's list format."),
    _not_yet("sasl_mechanism", _SASL, "How to authenticate."),
    _not_yet("sasl_plain_username", _SASL, "User name for PLAIN and SCRAM."),
    _not_yet("sasl_plain_password", _SASL, "Password for PLAIN and SCRAM."),
    _not_yet("sasl_kerberos_name", _SASL, "A gssapi.Name, or None to build one."),
    Option("sasl_kerberos_service_name", "kafka", NotYet(_SASL, lambda value: value == "kafka"),
           "Service name for GSSAPI."),
    _not_yet("sasl_kerberos_domain_name", _SASL, "Host name for GSSAPI. None: the broker's."),
    _not_yet("sasl_oauth_token_provider", _SASL, "Gives tokens for OAUTHBEARER."),
    _not_yet("proxy_url", "a proxy", "Proxy to connect through."),
    _not_yet("socks5_proxy", "a proxy", "Older name of proxy_url."),
    Option("selector", selectors.DefaultSelector, NotYet("another selector", _is_default_selector),
           "Accepted for kafka-python's sake."),
    Option("kafka_client", None, NotYet("another client class", _is_default_client),
           "Accepted for kafka-python's sake."),
)
# fmt: on

_BY_NAME: Final = {option.name: option for option in OPTIONS}


def default_config() -> dict[str, Any]:
    """Return a fresh dict of every option's default."""
    return {option.name: copy.copy(option.default) for option in OPTIONS}


class ProducerConfig:
    """The options of one producer, checked, complete and in their normal forms.

    `values`: every option by name, as `KafkaProducer.config` shows them (`acks` an int, and so
    on). `servers`: the parsed `bootstrap_servers`, in the order given. `idempotence_required`:
    the program asked for idempotence, so it must not be turned off.
    """

    __slots__ = ("idempotence_required", "servers", "values")

    def __init__(
        self, values: dict[str, Any], servers: tuple[addresses.Address, ...], idempotence_required: bool
    ) -> None:
        self.values = values
        self.servers = servers
        self.idempotence_required = idempotence_required

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def plane_options(self, linked: Container[str] = ()) -> PlaneOptions:
        """Return what the data plane is told. `linked`: the codecs it needs no package for."""
        values = self.values
        name, level = values["compression_type"], values["compression_level"]
        compress = None
        if name is not None and name not in linked:
            compress = compression.compressor(name, level)
        return PlaneOptions(
            client_id=values["client_id"],
            acks=values["acks"],
            idempotent=values["enable_idempotence"],
            strict_order=values["strict_order"],
            batch_size=option_rules.effective_batch_size(values),
            buffer_memory=values["buffer_memory"],
            max_request_size=values["max_request_size"],
            receive_message_max_bytes=values["receive_message_max_bytes"],
            linger_ms=values["linger_ms"],
            max_block_ms=values["max_block_ms"],
            request_timeout_ms=values["request_timeout_ms"],
            delivery_timeout_ms=values["delivery_timeout_ms"],
            retries=int(min(values["retries"], INT32_MAX)),
            max_in_flight=values["max_in_flight_requests_per_connection"],
            connections_max_idle_ms=values["connections_max_idle_ms"],
            codec=values["compression_attrs"],
            compress=compress,
            level=compression.library_level(name, level),
        )


def load(given: Mapping[str, Any], stacklevel: int = 2) -> ProducerConfig:
    """Return the configuration for the options that a program gave.

    `stacklevel` is the one of `warnings.warn` that points at the program. Raises
    KafkaConfigurationError, which is a ValueError as well, for an unknown option, a value that an
    option does not accept and options that contradict each other; RuntimeError where the package
    for the codec is missing.
    """
    options = option_rules.with_current_names(given, _BY_NAME, stacklevel + 1)
    values = default_config()
    for name, value in options.items():
        values[name] = _BY_NAME[name].kind(name, value)
    if values["client_id"] is None:
        values["client_id"] = option_rules.next_client_id()
    required = option_rules.settle(values, frozenset(options))
    return ProducerConfig(values, addresses.parse_servers(values["bootstrap_servers"]), required)


def markdown_table() -> str:
    """Return the README's table of options, in Markdown."""
    lines = ["| Option | Default | Must be | What it does |", "|---|---|---|---|"]
    for option in OPTIONS:
        cells = (f"`{option.name}`", _shown(option), option.kind.accepts, option.doc)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _shown(option: Option) -> str:
    if option.name == "socket_options":
        return "`[(IPPROTO_TCP, TCP_NODELAY, 1)]`"
    if option.name == "selector":
        return "`selectors.DefaultSelector`"
    if option.default == math.inf:
        return "`float('inf')`"
    return f"`{option.default!r}`"
