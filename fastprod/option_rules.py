"""What options mean together: older names, contradictions, and values that follow from others."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastprod import compression
from fastprod.refusal import did_you_mean, refusal
from fastprod.waiting import Lock

log = logging.getLogger(__name__)

RENAMED: Final = {"api_version_auto_timeout_ms": "bootstrap_timeout_ms"}
"""Names of kafka-python 2 -> today's."""

DROPPED: Final = frozenset({"bootstrap_topics_filter"})
"""Names of kafka-python 2 that have no effect any more."""

_OLDEST_FOR_CODEC: Final = {"lz4": (0, 8, 2), "zstd": (2, 1)}
_OLDEST_FOR_IDEMPOTENCE: Final = (0, 11)

_client_ids = itertools.count(1)
_warned: set[str] = set()
_warned_lock = Lock()


def next_client_id() -> str:
    """Return a client id that no other producer of this process has."""
    return f"fastprod-producer-{next(_client_ids)}"


def with_current_names(
    given: Mapping[str, Any], known: Iterable[str], stacklevel: int
) -> dict[str, Any]:
    """Return the options under the names they have now.

    An older name warns once a process. Raises the error for options nobody knows, all in one.
    """
    known = frozenset(known)
    options = {name: value for name, value in given.items() if name in known}
    for name in given:
        if name in RENAMED and RENAMED[name] not in given:
            _warn_once(name, f"{name} is now called {RENAMED[name]}", stacklevel + 1)
            options[RENAMED[name]] = given[name]
        elif name in RENAMED:
            _warn_once(name, f"{name} is ignored: {RENAMED[name]} is given, too", stacklevel + 1)
        elif name in DROPPED:
            _warn_once(name, f"{name} has no effect any more", stacklevel + 1)
    unknown = {
        name: value
        for name, value in given.items()
        if name not in known and name not in RENAMED and name not in DROPPED
    }
    if unknown:
        hints = (f"{name}: {did_you_mean(name, known)}" for name in unknown)
        near = " ".join(hint for hint in hints if hint.endswith("?"))
        # Names alone: a value may be a misspelt option's password.
        listed = ", ".join(map(str, unknown))
        remedy = near or "KafkaProducer.DEFAULT_CONFIG lists the options there are."
        raise refusal(f"Unrecognized configs: {listed}. {remedy}")
    return options


def settle(values: dict[str, Any], given: frozenset[str]) -> bool:
    """Bring `values` into agreement, in place; `given`: the options that the program set.

    Returns whether idempotence is required (asked for, not just the default). Raises
    KafkaConfigurationError, a ValueError too, for a contradiction.
    """
    compression.check_level(values["compression_type"], values["compression_level"])
    values["compression_attrs"] = compression.codec_number(values["compression_type"])
    _check_codec_against_api_version(values)
    if "batch_size" not in given:
        values["batch_size"] = min(values["batch_size"], values["max_request_size"])
    required = _settle_idempotence(values, given)
    _settle_delivery_timeout(values, given)
    return required


def effective_batch_size(values: Mapping[str, Any]) -> int:
    """Return the bound for a batch in bytes.

    Uncompressed, a batch above max_request_size could never be sent within that limit. With a
    codec it may well shrink below it, so there an explicit value is taken as it is.
    """
    batch_size: int = values["batch_size"]
    limit: int = values["max_request_size"]
    return batch_size if values["compression_type"] is not None else min(batch_size, limit)


def _check_codec_against_api_version(values: Mapping[str, Any]) -> None:
    codec, version = values["compression_type"], values["api_version"]
    oldest = _OLDEST_FOR_CODEC.get(codec)
    if oldest is not None and version is not None and version < oldest:
        raise refusal(
            f"compression_type={codec!r} needs brokers from version {_dotted(oldest)} on, but "
            f"api_version={version!r}. Choose another codec or leave api_version out."
        )


def _settle_idempotence(values: dict[str, Any], given: frozenset[str]) -> bool:
    asked = [
        f"{name}={values[name]!r}"
        for name in ("enable_idempotence", "strict_order")
        if name in given and values[name]
    ]
    if not values["enable_idempotence"]:
        if values["strict_order"]:
            raise refusal(
                "strict_order=True needs enable_idempotence=True: without sequence numbers no "
                "broker can refuse a batch behind a gap."
            )
        return False
    conflicts = _conflicts_with_idempotence(values)
    if not conflicts:
        return bool(asked)
    listed = ", ".join(f"{name}={value!r} (must be {wanted})" for name, value, wanted in conflicts)
    if asked:
        raise refusal(
            f"{' and '.join(asked)} contradicts {listed}. Change these, or leave idempotence out."
        )
    # Without retries, and without answers to retry after, there is nothing that could be doubled.
    retried = values["retries"] > 0 and values["acks"] != 0
    log.warning(
        "%s: idempotence is off, because of %s. %s"
        "enable_idempotence=False says that this is wanted and keeps this line away.",
        values["client_id"],
        listed,
        "Retries may write records twice or out of order. " if retried else "",
    )
    values["enable_idempotence"] = False
    return False


def _conflicts_with_idempotence(values: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Return (option, value, what it must be) for all that rules idempotence out."""
    version = values["api_version"]
    in_flight = "max_in_flight_requests_per_connection"
    found: list[tuple[str, Any, str]] = []
    if values["acks"] != -1:
        found.append(("acks", values["acks"], "-1"))
    if values["retries"] == 0:
        found.append(("retries", 0, "above 0"))
    if values[in_flight] > 5:
        # Brokers remember the last five batches of a producer in a partition.
        found.append((in_flight, values[in_flight], "at most 5"))
    if version is not None and version < _OLDEST_FOR_IDEMPOTENCE:
        found.append(("api_version", version, f"at least {_OLDEST_FOR_IDEMPOTENCE}"))
    return found


def _settle_delivery_timeout(values: dict[str, Any], given: frozenset[str]) -> None:
    """KIP-91: an explicit value that cannot be kept is an error, the default grows instead."""
    least = values["linger_ms"] + values["request_timeout_ms"]
    delivery = values["delivery_timeout_ms"]
    if delivery >= least:
        return
    if "delivery_timeout_ms" in given:
        raise refusal(
            f"delivery_timeout_ms={delivery!r} is not possible: it must be at least linger_ms + "
            f"request_timeout_ms, which is {values['linger_ms']!r} + "
            f"{values['request_timeout_ms']!r} = {least!r}. Raise it, or lower one of these."
        )
    values["delivery_timeout_ms"] = least


def _warn_once(name: str, message: str, stacklevel: int) -> None:
    with _warned_lock:
        if name in _warned:
            return
        _warned.add(name)
    warnings.warn(f"{message}.", DeprecationWarning, stacklevel=stacklevel)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
