"""The kinds of option values: what each accepts, in words, and how it is checked.

A kind is called with the option's name and the value and returns the value in its normal form; it
raises KafkaConfigurationError (a ValueError too) with the name, the value and what is accepted.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable
from typing import Any, Final, Protocol

from fastprod.refusal import bad_value, did_you_mean, refusal

log = logging.getLogger(__name__)

INT32_MAX: Final = 2**31 - 1


class Kind(Protocol):
    """Checks values of one kind; `accepts` says in words which those are."""

    @property
    def accepts(self) -> str:
        """What is accepted, to be read after "must be"."""

    def __call__(self, name: str, value: Any) -> Any:
        """Return the value in its normal form, or raise KafkaConfigurationError."""


class Flag:
    """True or False; 1 and 0 count as these."""

    accepts = "True or False"

    def __call__(self, name: str, value: Any) -> bool:
        if value is True or value is False or (isinstance(value, int) and value in (0, 1)):
            return bool(value)
        raise bad_value(name, value, self.accepts)


class ClientId:
    """None or a str that fits the protocol's string type."""

    accepts = "None or a str of up to 32767 bytes in UTF-8"

    def __call__(self, name: str, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise bad_value(name, value, self.accepts)
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise bad_value(name, value, self.accepts) from None
        if size > 32767:
            raise bad_value(name, value, self.accepts)
        return value


class Whole:
    """A whole number in a range; None where that is `optional`."""

    def __init__(
        self, low: int, high: int, unit: str = "", *, optional: bool = False, zero: str = ""
    ) -> None:
        """`zero`: what 0 means, where that is worth saying."""
        self._low = low
        self._high = high
        self._optional = optional
        units = f" {unit}" if unit else ""
        none = "None or " if optional else ""
        self.accepts = f"{none}an int from {low} to {high}{units}{f' ({zero})' if zero else ''}"

    def __call__(self, name: str, value: Any) -> int | None:
        if value is None and self._optional:
            return None
        number = _whole(value)
        if number is None or not self._low <= number <= self._high:
            raise bad_value(name, value, self.accepts, _text_remedy(value))
        return number


class Milliseconds:
    """A time span in ms, fractions included; infinity stands for the largest, 24.8 days."""

    def __init__(self, low: int, high: int = INT32_MAX) -> None:
        self._low = low
        self._high = high
        self.accepts = f"a number from {low} to {high} (milliseconds)"

    def __call__(self, name: str, value: Any) -> float:
        number = _number(value)
        if number is None or math.isnan(number):
            raise bad_value(name, value, self.accepts, _text_remedy(value))
        if number == math.inf:
            return self._high
        if not self._low <= number <= self._high:
            raise bad_value(name, value, self.accepts)
        return number


class Retries:
    """How often to try again: a whole number or infinity."""

    accepts = f"an int from 0 to {INT32_MAX} or float('inf')"

    def __call__(self, name: str, value: Any) -> float:
        if isinstance(value, float) and value == math.inf:
            return value
        number = _whole(value)
        if number is None or not 0 <= number <= INT32_MAX:
            raise bad_value(name, value, self.accepts, _text_remedy(value))
        return number


class Choice:
    """One of a few values."""

    def __init__(self, *values: str | None) -> None:
        self._values = values
        self.accepts = " or ".join(map(repr, values)) if len(values) < 3 else _listed(values)

    def __call__(self, name: str, value: Any) -> str | None:
        if (value is None or isinstance(value, str)) and value in self._values:
            return value
        known = [each for each in self._values if each is not None]
        folded = {each.lower(): each for each in known}
        near = folded.get(value.lower(), value) if isinstance(value, str) else str(value)
        raise bad_value(name, value, self.accepts, did_you_mean(near, known))


class Acks:
    """How many acknowledgements: 0, 1, -1 or 'all'; normal form is the int."""

    accepts = "0, 1, -1 or 'all' (the same as -1)"

    def __call__(self, name: str, value: Any) -> int:
        if isinstance(value, str) and value == "all":
            return -1
        number = None if isinstance(value, bool) else _whole(value)
        if number not in (0, 1, -1):
            remedy = f"Give the int {value}." if value in ("0", "1", "-1") else ""
            raise bad_value(name, value, self.accepts, remedy)
        return number


class SocketOptions:
    """The arguments of `socket.setsockopt`, a tuple a call."""

    accepts = "a list of (level, option, value) tuples, value an int or bytes"

    def __call__(self, name: str, value: Any) -> list[tuple[int, int, int | bytes]]:
        if not isinstance(value, list | tuple):
            raise bad_value(name, value, self.accepts)
        checked: list[tuple[int, int, int | bytes]] = []
        for entry in value:
            if not isinstance(entry, tuple | list) or len(entry) != 3:
                raise bad_value(name, value, self.accepts, f"{entry!r:.80} is not one.")
            level, option = _whole(entry[0]), _whole(entry[1])
            setting = entry[2] if isinstance(entry[2], bytes) else _setting(entry[2])
            if level is None or option is None or setting is None:
                raise bad_value(name, value, self.accepts, f"{entry!r:.80} is not one.")
            checked.append((level, option, setting))
        return checked


class ApiVersion:
    """None or the broker's version as a tuple of ints; a str is turned into one."""

    accepts = "None or a tuple of ints such as (3, 9)"

    def __call__(self, name: str, value: Any) -> tuple[int, ...] | None:
        if value is None:
            return None
        version = value
        if isinstance(value, str):
            version = self._parse(name, value)
            log.warning("api_version=%r: a str is deprecated, use %r", value, version)
            if version is None:
                return None
        is_tuple = isinstance(version, tuple) and 1 <= len(version) <= 4
        if not is_tuple or not all(type(part) is int and part >= 0 for part in version):
            raise bad_value(name, value, self.accepts)
        return tuple(version)

    def _parse(self, name: str, text: str) -> tuple[int, ...] | None:
        if text == "auto":
            return None
        try:
            return tuple(int(part) for part in text.split("."))
        except ValueError:
            raise bad_value(name, text, self.accepts) from None


class NotYet:
    """An option that has no effect so far: only the value it starts with is accepted."""

    def __init__(self, feature: str, same: Callable[[Any], bool]) -> None:
        """`feature` in words; `same`: whether a value asks for nothing."""
        self._feature = feature
        self._same = same
        self.accepts = f"left at its default ({feature} is not supported yet)"

    def __call__(self, name: str, value: Any) -> Any:
        if self._same(value):
            return value
        # No value in the text: it may be a password.
        raise refusal(
            f"{name} is set, but {self._feature} is not supported yet. Leave {name} at its default."
        )


class Delegated:
    """A kind whose check lies elsewhere."""

    def __init__(self, accepts: str, check: Callable[[str, Any], Any]) -> None:
        self.accepts = accepts
        self._check = check

    def __call__(self, name: str, value: Any) -> Any:
        return self._check(name, value)


def _whole(value: Any) -> int | None:
    """Return an int for whole numbers of any type (numpy's and 1e6 included), None otherwise."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _number(value: Any) -> float | None:
    whole = _whole(value)
    if whole is not None:
        return whole
    return value if isinstance(value, float) else None


def _setting(value: Any) -> int | None:
    # SO_KEEPALIVE and its like are often set to True.
    return int(value) if isinstance(value, bool) else _whole(value)


def _text_remedy(value: Any) -> str:
    if isinstance(value, str):
        return "It is a str: turn it into a number first."
    return ""


def _listed(values: tuple[str | None, ...]) -> str:
    return f"one of {', '.join(map(repr, values))}"
