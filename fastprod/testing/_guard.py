"""The parent's side of the guardian process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = Path(__file__).with_name("_guardian.py")
_GOODBYE_S = 10.0


class Guard:
    """A guardian that, when this process is gone, kills the processes it was told of and removes `directory`."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SCRIPT), str(os.getpid()), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C in a terminal goes to its whole process group; the guardian must outlive that.
            start_new_session=True,
        )

    def add(self, pid: int) -> None:
        """Tell the guardian of a process that was started."""
        self._say(f"+{pid}\n")

    def remove(self, pid: int) -> None:
        """Tell the guardian that a process has ended."""
        self._say(f"-{pid}\n")

    def close(self) -> None:
        """End the guardian; it removes the directory if that is still there."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            # Somebody killed the guardian. The broker itself is well; only its protection is gone.
            return
