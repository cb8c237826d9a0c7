"""The directory that outlives a run (jars, class archives), and a lock between processes around filling it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fastprod.testing._errors import BrokerError

_POLL_S = 0.1


def cache_directory() -> Path:
    """Return the cache directory, created if need be.

    `FASTPROD_CACHE` names it; without that it is `fastprod` in the user's cache directory of the platform.

    Raises:
        BrokerError: it cannot be created or written.
    """
    directory = _location()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(
            f"cannot create the cache directory {directory}: {error}. Set FASTPROD_CACHE to a writable directory"
        ) from error
    if not os.access(directory, os.W_OK):
        raise BrokerError(f"the cache directory {directory} is not writable. Set FASTPROD_CACHE to one that is")
    return directory


def _location() -> Path:
    named = os.environ.get("FASTPROD_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fastprod"


@contextmanager
def process_lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on `path` between processes.

    The operating system drops the lock with its holder, so a killed process never leaves a stale one behind; the file
    itself stays, because removing it would let a waiter lock a file that has no name any more.

    Args:
        path: the lock file; created if need be.
        waiting: called once if another process holds the lock.
    """
    with path.open("a+b") as file:
        if not _try_lock(file):
            waiting()
            while not _try_lock(file):
                time.sleep(_POLL_S)
        yield


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
