"""How a command says that something went wrong: one line on standard error, and an exit status."""

from __future__ import annotations

import logging
import sys


class CommandError(Exception):
    """An expected failure; the text names the value and what to do. `status` is the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def say(command: str | None, text: str) -> None:
    """Write a line to standard error, behind the name of the command."""
    name = "fastprod" if command is None else f"fastprod {command}"
    # At once, the end of the line too: other threads write there as well.
    sys.stderr.write(f"{name}: {text}\n")
    sys.stderr.flush()


def show_log(command: str) -> None:
    """Show the package's warnings as lines of the command, such as why a broker cannot be reached yet."""
    logger = logging.getLogger("fastprod")
    if any(isinstance(handler, _Lines) for handler in logger.handlers):
        return
    logger.addHandler(_Lines(command))


class _Lines(logging.Handler):
    def __init__(self, command: str) -> None:
        super().__init__(logging.WARNING)
        self._command = command

    def emit(self, record: logging.LogRecord) -> None:
        say(self._command, f"{record.levelname.lower()}: {record.getMessage()}")
