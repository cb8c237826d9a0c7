"""One JVM: started, told to the guardian, paused, stopped and killed, with its log in a file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from fastprod.testing._errors import BrokerError
from fastprod.testing._guard import Guard

_STOP_S = 30.0
_LOG_TAIL_CHARS = 2000
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    # 300 lines of settings a start.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
)


class PortTakenError(BrokerError):
    """Another process has bound one of the ports."""


def jvm_options(directory: Path) -> list[str]:
    """Return the options that keep a JVM's output short and its temporary files in `directory`.

    zstd and snappy unpack their native code into the temporary directory, and leave it there when killed.
    """
    return [*_LOGGING, f"-Djava.io.tmpdir={directory}"]


class Process:
    """A JVM that can be started again after its end. Not for use by two threads at once.

    Args:
        name: what it is called in messages, such as "node 1".
        directory: where it works; its output is added to `broker.log` there.
        guard: told of every start and end.
    """

    def __init__(self, name: str, directory: Path, guard: Guard) -> None:
        self.name = name
        self.log = directory / "broker.log"
        self.paused = False
        self._directory = directory
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        self._start_of_log = 0

    @property
    def running(self) -> bool:
        """Whether the process is there (paused or not)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id. BrokerError if it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise BrokerError(f"{self.name} is not running")
        return self._process.pid

    def launch(self, command: list[str]) -> None:
        """Start the process; whether it is ready is for others to find out. BrokerError if it runs already."""
        if self.running:
            raise BrokerError(f"{self.name} is running already")
        with self.log.open("ab") as log:
            self._start_of_log = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to its whole process group; when this one ends is ours to say.
                start_new_session=True,
            )
        self.paused = False
        self._guard.add(self._process.pid)

    def kill(self) -> None:
        """End the process at once (SIGKILL), whatever state it is in; nothing happens if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._reap(None)

    def stop(self) -> None:
        """Ask the process to end, and wait. BrokerError if it takes longer than 30 s (then it is killed)."""
        if not self.running:
            return
        assert self._process is not None
        if sys.platform != "win32":
            # A paused process would not take the signal.
            self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._reap(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerError(f"{self.name} did not stop within {_STOP_S:.0f} s and was killed") from None

    def pause(self) -> None:
        """Freeze the process: its sockets stay open and nothing answers (SIGSTOP). Returns when it stands still."""
        self._signal("SIGSTOP")
        self.paused = True
        # The signal stops a JVM's hundred threads one by one, and until the last one stands they may still answer.
        # macOS has waitid from Python 3.13 on. WNOWAIT: a second pause finds the process stopped, too, and the end of
        # one that dies meanwhile is left for whoever waits for it.
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal("SIGCONT")
        self.paused = False

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self._log_from(0)[-_LOG_TAIL_CHARS:]

    def check(self) -> None:
        """Raise if the process has ended since it was launched.

        Raises:
            PortTakenError: because another process has one of its ports.
            BrokerError: for another reason; the telling part of its log is in the message.
        """
        if not self.running:
            kind = PortTakenError if "Address already in use" in self._log_from(self._start_of_log) else BrokerError
            raise kind(f"Apache Kafka ({self.name}) did not start; from its log:\n{self.telling_part()}")

    def telling_part(self) -> str:
        """Return the first error since the launch and the end of the log: what Kafka writes while it shuts down hides
        why it does."""
        log = self._log_from(self._start_of_log)
        end = log[-_LOG_TAIL_CHARS:]
        error = log.find(" ERROR ")
        at = log.rfind("\n", 0, error) + 1
        if error < 0 or at >= len(log) - len(end):
            return end
        return f"{log[at : at + _LOG_TAIL_CHARS]}\n[...]\n{end}"

    def _log_from(self, start: int) -> str:
        with self.log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)
        if number is None:
            raise BrokerError(f"{sys.platform} has no {name}: a broker cannot be paused here")
        os.kill(self.pid, number)

    def _reap(self, timeout: float | None) -> None:
        assert self._process is not None
        self._process.wait(timeout)
        self.paused = False
        self._guard.remove(self._process.pid)
