"""The producer's options as text: `-X name=value`, and files of them.

What an option accepts is stated in `fastprod.config`; here text only becomes a value of the kind that stands there.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from fastprod import config, option_kinds
from fastprod.cli.failure import CommandError

_USAGE: Final = 2
_OPTIONS: Final = {option.name: option for option in config.OPTIONS}
_NO_TEXT: Final = ("key_serializer", "value_serializer", "socket_options", "metric_reporters", "selector")
_NONE: Final = ("none", "null", "")
_FLAGS: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_NUMBERS: Final = (option_kinds.Whole, option_kinds.Milliseconds, option_kinds.Retries)


def from_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Return the options of `name=value` texts. CommandError for a text without "=" or a value that is no such."""
    options = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise CommandError(f"-X {assignment}: write it as name=value, such as -X linger_ms=100", _USAGE)
        options[_name(name)] = _from_text(_name(name), text.strip())
    return options


def from_file(path: Path) -> dict[str, Any]:
    """Return the options of a file: TOML where its name ends in .toml, properties otherwise.

    Properties are lines `name=value`; empty lines and lines that begin with # or ! do not count. CommandError where
    the file cannot be read or is not what it should be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--config {path}: it cannot be read ({_reason(error)})", _USAGE) from error
    if path.suffix.lower() != ".toml":
        return _properties(path, text)
    try:
        return _flat(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"--config {path}: not TOML ({error})", _USAGE) from error


def _properties(path: Path, text: str) -> dict[str, Any]:
    options = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#!":
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.strip():
            raise CommandError(f"--config {path}, line {number}: {stripped!r:.80} is not name=value", _USAGE)
        options[_name(name)] = _from_text(_name(name), value.strip())
    return options


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """In TOML `linger.ms = 5` is a table `linger`; the names of options have no dots."""
    options: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            options |= _flat(value, f"{prefix}{name}_")
        else:
            options[prefix + _name(name)] = value
    return options


def _name(text: str) -> str:
    """Kafka's own names have dots where ours have underscores; both are understood."""
    return text.strip().replace(".", "_")


def _from_text(name: str, text: str) -> Any:
    """Return the value that the text stands for; unknown names are left for `fastprod.config` to refuse."""
    option = _OPTIONS.get(name)
    if name in _NO_TEXT:
        raise CommandError(f"{name}={text}: this option cannot be given as text, only in a program", _USAGE)
    if option is None:
        return text
    if option.default is None and text.lower() in _NONE:
        return None
    if isinstance(option.default, bool):
        return _FLAGS.get(text.lower(), text)
    if isinstance(option.kind, _NUMBERS) or name == "compression_level":
        return _number(name, text, option.kind.accepts)
    if isinstance(option.kind, option_kinds.Acks):
        return text if text == "all" else _number(name, text, option.kind.accepts)
    if isinstance(option.kind, option_kinds.ApiVersion):
        if text == "auto":
            return None
        return tuple(_number(name, part, option.kind.accepts) for part in text.split("."))
    return text


def _number(name: str, text: str, accepted: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise CommandError(f"{name}={text}: it must be {accepted}", _USAGE)
    return number


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
