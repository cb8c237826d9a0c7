"""The error of an option that cannot be, and how its text is put together."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastprod import errors

if TYPE_CHECKING:
    from fastprod.errors import KafkaConfigurationError


def refusal(message: str) -> KafkaConfigurationError:
    """Return the error for a bad option: a KafkaConfigurationError that is a ValueError as well.

    kafka-python raises now one, now the other (and changes from version to version), so code
    that catches either keeps working.
    """
    return _refusal_class()(message)


def bad_value(name: str, value: object, accepted: str, remedy: str = "") -> KafkaConfigurationError:
    """Return the error for a value outside what its option accepts."""
    text = f"{name}={value!r:.120} is not possible: it must be {accepted}."
    return refusal(f"{text} {remedy}" if remedy else text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean X?" for the nearest known word, "" if none is near."""
    import difflib  # slow to import, and seldom needed

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else ""


@functools.cache
def _refusal_class() -> type[KafkaConfigurationError]:
    def reduce(self: BaseException) -> tuple[Any, ...]:
        return refusal, self.args

    # Built on first use, as every error class is: building it looks for kafka-python.
    return type(
        "KafkaConfigurationError",
        (errors.KafkaConfigurationError, ValueError),
        {"__module__": __name__, "__doc__": "An option is wrong.", "__reduce__": reduce},
    )
