"""The sink (sink.c) as a process: a server that acknowledges everything, and what it has counted."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from comparing.compiled import program

_ROW = struct.Struct(">qq")


class Counted(NamedTuple):
    """Since it was started. `problems` are what the checking mode has found wrong, `first_problem` says one of them."""

    records: int
    batches: int
    batch_bytes: int
    connections: int
    problems: int
    cpu_us: int
    first_problem: str


class Sink:
    """Any topic asked for exists there with `partitions` partitions.

    With `keep` it is in its checking mode, and every batch is written to that file (`kept.py` reads it). With
    `arrivals` it writes there when each record came (`arrived` reads it).
    """

    def __init__(self, partitions: int, keep: Path | None = None, *, arrivals: Path | None = None) -> None:
        command = [str(program("sink")), str(partitions), *([str(keep)] if keep is not None else [])]
        command += ["-a", str(arrivals)] if arrivals is not None else []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = f"127.0.0.1:{self._line().removeprefix('port ')}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def counted(self) -> Counted:
        """What has come so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        records, batches, batch_bytes, connections, problems, cpu_us, text = self._line().split(" ", 6)
        return Counted(int(records), int(batches), int(batch_bytes), int(connections), int(problems), int(cpu_us), text)

    def pause(self) -> None:
        """Stand still: what comes waits in the sockets. It returns when the sink does, not when it has been told."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Go on."""
        self._process.send_signal(signal.SIGCONT)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The sink has ended with exit status {self._process.wait()}.")
        return line.rstrip("\n")


def arrived(path: Path) -> list[float]:
    """How long records took from the time in their value, `time.time_ns()` as 8 bytes, to the sink; in the order of
    their arrival, seconds."""
    return [(came - sent) / 1e9 for sent, came in _ROW.iter_unpack(path.read_bytes())]
