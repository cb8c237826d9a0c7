"""The parts of one engine and how they are put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fastprod.config import PlaneOptions, ProducerConfig
from fastprod.control.arbiter import Arbiter, ArbiterSettings
from fastprod.control.channel import Channel
from fastprod.control.cluster import Cluster
from fastprod.control.connection import ConnectionSettings, Target
from fastprod.control.dial import SocketSettings
from fastprod.control.dialer import Dialer
from fastprod.control.identity import Identity
from fastprod.control.journal import Journal
from fastprod.control.links import Links
from fastprod.control.loop import Loop
from fastprod.control.metadata import Metadata, MetadataSettings
from fastprod.control.nodes import Reconnects
from fastprod.control.seam import Plane
from fastprod.control.verdict import Rules

# A batch may hold one record more than its size: the first always fits.
_RECORD_SLACK = 1024


class Parts(NamedTuple):
    """All of them belong to the control thread."""

    dialer: Dialer
    channel: Channel
    metadata: Metadata
    identity: Identity
    links: Links
    arbiter: Arbiter

    def close(self) -> None:
        """End everything that connects or asks."""
        self.metadata.close()
        self.identity.stop()
        self.links.close()
        self.channel.close()


class Reports(NamedTuple):
    """Whom the parts tell: metadata has news; the producer is dead; no idempotence here."""

    updated: Callable[[], None]
    fatal: Callable[[Exception], None]
    unsupported: Callable[[Exception], None]


def build(
    config: ProducerConfig,
    options: PlaneOptions,
    loop: Loop,
    journal: Journal,
    plane: Plane,
    reports: Reports,
) -> Parts:
    """Make the parts; nothing connects before the first of them is asked to."""
    cluster = Cluster()
    reconnects = Reconnects(config["reconnect_backoff_ms"], config["reconnect_backoff_max_ms"])
    dialer = Dialer(loop, _connection_settings(config), reconnects)
    channel = Channel(
        dialer,
        journal,
        _bootstrap_targets(config),
        lambda: [Target(*each[:3]) for each in cluster.snapshot.brokers.values()],
        config["connections_max_idle_ms"] / 1000,
    )
    backoff_ms = config["retry_backoff_ms"]
    settings = MetadataSettings(
        backoff_ms, config["metadata_max_age_ms"], config["allow_auto_create_topics"]
    )
    metadata = Metadata(loop, channel, cluster, plane, journal, settings, reports.updated)
    identity = Identity(
        loop, channel, plane, journal, backoff_ms, reports.unsupported, metadata.refresh
    )
    links = Links(dialer, plane, cluster, journal, options.codec, metadata.refresh)
    arbiter = Arbiter(
        loop,
        plane,
        metadata,
        journal,
        ArbiterSettings(backoff_ms, options.request_timeout_ms, largest_body(options)),
        Rules(options.retries, options.delivery_timeout_ms / 1000, options.idempotent),
        reports.fatal,
    )
    metadata.forget_size = arbiter.forget_sizes
    metadata.other_cluster = identity.other_cluster
    return Parts(dialer, channel, metadata, identity, links, arbiter)


def largest_body(options: PlaneOptions) -> int:
    """Return how many bytes the records of one batch can take uncompressed."""
    return max(options.batch_size, options.max_request_size) + _RECORD_SLACK


def _connection_settings(config: ProducerConfig) -> ConnectionSettings:
    sockets = SocketSettings(
        tuple(config["socket_options"] or ()),
        config["send_buffer_bytes"],
        config["receive_buffer_bytes"],
    )
    return ConnectionSettings(
        config["client_id"],
        config["request_timeout_ms"] / 1000,
        config["receive_message_max_bytes"],
        sockets,
    )


def _bootstrap_targets(config: ProducerConfig) -> list[Target]:
    canonical = config["client_dns_lookup"] == "resolve_canonical_bootstrap_servers_only"
    return [
        Target(f"bootstrap-{number}", server.host, server.port, canonical)
        for number, server in enumerate(config.servers)
    ]
