"""Log messages of the control thread, written where foreign code can do no harm.

A logging handler is foreign code: one that itself sends to Kafka would enter the control loop
again in the middle of reading a socket. What the control thread has to say is therefore kept
until the loop is between two steps.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
from typing import Final

from fastprod.unforked import Unforked

# A handler that hangs must not let the backlog grow without bound.
_MOST_KEPT: Final = 1000
# Nor must it keep others from forking.
_MESSAGE_S: Final = 1.0


class Journal:
    """Queues messages of the thread that owns it; other threads log at once."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._kept: collections.deque[tuple[int, str, tuple[object, ...], BaseException | None]]
        self._kept = collections.deque(maxlen=_MOST_KEPT)
        self._owner: int | None = None

    def own(self) -> None:
        """From now on messages of the calling thread wait for `release`."""
        self._owner = threading.get_ident()

    def debug(self, message: str, *args: object) -> None:
        self._write(logging.DEBUG, message, args)

    def info(self, message: str, *args: object) -> None:
        self._write(logging.INFO, message, args)

    def warning(self, message: str, *args: object) -> None:
        self._write(logging.WARNING, message, args)

    def error(self, message: str, *args: object, cause: BaseException | None = None) -> None:
        """`cause` is logged with its traceback."""
        self._write(logging.ERROR, message, args, cause)

    def release(self) -> None:
        """Write what was kept. A handler that raises loses its message and nothing else."""
        while self._kept:
            level, message, args, cause = self._kept.popleft()
            with contextlib.suppress(Exception):
                self._log(level, message, args, cause)

    def _write(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        cause: BaseException | None = None,
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        if threading.get_ident() == self._owner:
            self._kept.append((level, message, args, cause))
        else:
            self._log(level, message, args, cause)

    def _log(
        self, level: int, message: str, args: tuple[object, ...], cause: BaseException | None
    ) -> None:
        with Unforked(_MESSAGE_S):
            self._logger.log(level, message, *args, exc_info=cause)
