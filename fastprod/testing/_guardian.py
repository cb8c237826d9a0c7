"""A tiny process that outlives its parent by a moment: kills what the parent started and removes its directory.

Run as a script: `python -I -S _guardian.py PARENT_PID DIRECTORY`, with a pipe from the parent as standard input that
carries `+PID` and `-PID` lines. It imports nothing of the package and acts when the parent is gone, however it went.

A process of its own because the alternatives each miss a case: exit handlers do not run on SIGKILL; Linux's
parent-death signal fires when the *thread* that started the child ends, and needs code between fork and exec.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time

_POLL_S = 0.5
_REMOVE_ATTEMPTS = 50
_REMOVE_PAUSE_S = 0.1


def watch(parent: int) -> set[int]:
    """Follow the pipe until the parent is gone; return the process ids it still had running.

    The end of the pipe is not enough on its own: a child the parent forked holds a copy of the pipe's other end, so
    the parent's id is looked at as well.
    """
    running: set[int] = set()
    pending = b""
    while True:
        if sys.platform != "win32":
            if os.getppid() != parent:
                return running
            if not select.select([0], [], [], _POLL_S)[0]:
                continue
        data = os.read(0, 4096)
        if not data:
            return running
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            (running.add if line[:1] == b"+" else running.discard)(int(line[1:]))


def end(running: set[int], directory: str) -> None:
    """Kill the processes and remove the directory, again and again while a dying process still writes to it."""
    for pid in running:
        try:
            os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        except OSError:
            # It has ended by itself.
            continue
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            return
        time.sleep(_REMOVE_PAUSE_S)


if __name__ == "__main__":
    # Whatever ends the parent may be sent to us too; our work begins then, so it must not end us.
    for _name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, _name):
            signal.signal(getattr(signal, _name), signal.SIG_IGN)
    end(watch(int(sys.argv[1])), sys.argv[2])
