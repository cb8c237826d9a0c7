"""Every error that fastprod raises or hands over through a future.

The names are those of kafka-python's `kafka.errors`; `fastprod.errors.table` is the list. Where
kafka-python can be imported, each class also derives from its namesake there, so that
`except kafka.errors.KafkaTimeoutError` catches ours as well, whichever package was imported
first. Importing kafka-python costs a quarter of a second; a class is therefore built, and
kafka-python looked for, when its name is first used, and never by `import fastprod.errors`.

All of them are subclasses of KafkaError and have
* `errno: int | None`, `message: str | None`: the broker's code and its name, None otherwise;
* `description: str`: what it means, in one sentence;
* `retriable: bool`: trying again may help; `invalid_metadata: bool`: refresh metadata first;
* `maybe_written: bool`, set per instance: the record may be in the log although it failed.
"""

import functools
import importlib
from typing import TYPE_CHECKING, Any

from fastprod.errors import behaviour
from fastprod.errors.broker_table import BROKER_ERRORS
from fastprod.errors.table import ALIASES, CLIENT_ERRORS, ErrorRow
from fastprod.unforked import Unforked

if TYPE_CHECKING:
    from fastprod.errors._declared import *  # noqa: F403
    from fastprod.errors._declared import KafkaError

_ROWS: dict[str, ErrorRow] = {row.name: row for row in (*CLIENT_ERRORS, *BROKER_ERRORS)}
_NAME_OF_CODE: dict[int | None, str] = {row.code: row.name for row in BROKER_ERRORS}
_unrecognized: dict[int, "type[KafkaError]"] = {}
# Far more than importing kafka-python takes.
_IMPORT_S = 10.0


def for_code(code: int) -> "type[KafkaError]":
    """Return the class of a broker's error code.

    `code` is the int16 of the wire, 0 (NoError) included. A code that the table does not list
    gives a subclass of UnrecognizedBrokerError whose `errno` is the code, the same class each
    time. Source: error codes of the Kafka protocol guide.
    """
    name = _NAME_OF_CODE.get(code)
    if name is not None:
        return _class(name)
    known = _unrecognized.get(code)
    if known is not None:
        return known
    base = _class("UnrecognizedBrokerError")
    made = type(base.__name__, (base,), {"__module__": __name__, "errno": code})
    return _unrecognized.setdefault(code, made)


def is_retriable(code: int) -> bool:
    """Whether trying again may help after a broker's error code; False for one that the table does
    not list. Builds no class."""
    name = _NAME_OF_CODE.get(code)
    return name is not None and _ROWS[name].retriable


def _class(name: str) -> "type[KafkaError]":
    """Return the class of that name (not an alias), built if this is its first use."""
    known: type[KafkaError] | None = globals().get(name)
    if known is not None:
        return known
    row = _ROWS[name]
    ours: tuple[type, ...] = tuple(_class(base) for base in row.bases)
    if name in behaviour.MIXINS:
        ours = (behaviour.MIXINS[name], *ours)
    namespace = {
        "__module__": __name__,
        "__doc__": row.description,
        "errno": row.code,
        "message": row.message,
        "description": row.description,
        "retriable": row.retriable,
        "invalid_metadata": row.invalid_metadata,
    }
    try:
        made = type(name, (*ours, *_namesakes(name)), namespace)
    except TypeError:
        # The other package's hierarchy cannot be combined with ours (its own names for other
        # things, a version with another ancestry): better no kinship than no error class.
        made = type(name, ours, namespace)
    # No lock: of two threads that build the same class one loses, and nobody sees its class.
    # A lock could be left locked in the child of a fork.
    return globals().setdefault(name, made)  # type: ignore[no-any-return]


@functools.cache
def _kafka_python_errors() -> object:
    """Return the module `kafka.errors`, or None; asked once, so that all classes are kin or none."""
    try:
        with Unforked(_IMPORT_S):
            return importlib.import_module("kafka.errors")
    except Exception:
        # However broken an installation is, our errors must work.
        return None


def _namesakes(name: str) -> tuple[type, ...]:
    """Return kafka-python's classes of this name and of its aliases, as far as there are any."""
    theirs = _kafka_python_errors()
    names = [name, *(alias for alias, target in ALIASES.items() if target == name)]
    found = (getattr(theirs, each, None) for each in names)
    classes = [each for each in found if isinstance(each, type) and issubclass(each, Exception)]
    return tuple(dict.fromkeys(classes))


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [*_ROWS, *ALIASES, "for_code", "is_retriable"]

if not TYPE_CHECKING:
    # Type checkers read _declared.pyi, where a misspelt name is an error.

    def __getattr__(name: str) -> Any:
        target = ALIASES.get(name, name)
        if target not in _ROWS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = _class(target)
        globals()[name] = value
        return value
