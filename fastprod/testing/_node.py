"""One Apache Kafka process: broker and controller in one JVM (KRaft combined mode)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from fastprod.testing import _admin
from fastprod.testing._errors import BrokerError
from fastprod.testing._guard import Guard
from fastprod.testing._installation import Installation
from fastprod.testing._ports import HOST

_POLL_S = 0.02
_ANSWER_S = 1.0
_STOP_S = 30.0
_LOG_TAIL_CHARS = 2000
DEFAULT_HEAP = "1g"
START_TIMEOUT_S = 120.0
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    # 300 lines of settings a start.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
)


class PortTakenError(BrokerError):
    """Another process has bound one of the node's ports."""


class Node:
    """One node: its directory, ports and process. Not for use by two threads at once.

    Args:
        directory: where its data, settings and log go; created.
        guard: told of every process that is started and ended.
        cluster_id: as Kafka wants it, 16 bytes in URL-safe base64.
        node_id: 1 or more.
        port: of the broker listener.
        controller_port: of the controller listener.
        properties: broker settings, as in `server.properties`.
        heap: the JVM's `-Xmx`.
        start_timeout: s.
    """

    def __init__(
        self,
        directory: Path,
        installation: Installation,
        guard: Guard,
        cluster_id: str,
        node_id: int,
        port: int,
        controller_port: int,
        properties: dict[str, str],
        heap: str = DEFAULT_HEAP,
        start_timeout: float = START_TIMEOUT_S,
    ) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "broker.log"
        self.node_id = node_id
        self.address = (HOST, port)
        self.heap = heap
        self._installation = installation
        self._cluster_id = cluster_id
        self._guard = guard
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._format()
        self._write_settings(controller_port, properties)

    @property
    def running(self) -> bool:
        """Whether the process is there (paused or not)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id. BrokerError if the node is not running."""
        if self._process is None or self._process.poll() is not None:
            raise BrokerError(f"node {self.node_id} is not running")
        return self._process.pid

    def start(self, jvm_options: list[str] | None = None) -> None:
        """Start the process and wait until the broker takes requests.

        Raises:
            PortTakenError: another process has one of its ports.
            BrokerError: it runs already, ended, or was not ready within the start timeout.
        """
        if self.running:
            raise BrokerError(f"node {self.node_id} is running already")
        # zstd and snappy unpack their native code into the temporary directory, and leave it there when killed.
        options = [*_LOGGING, f"-Djava.io.tmpdir={self.directory}", *(jvm_options or [])]
        command = self._installation.command(self.heap, options, "kafka.Kafka", [str(self._settings)])
        with self.log.open("ab") as log:
            start_of_log = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to its whole process group; when this one ends is ours to say.
                start_new_session=True,
            )
        self._guard.add(self._process.pid)
        try:
            self._wait_ready(start_of_log)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process at once (SIGKILL), whatever state it is in; nothing happens if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._reap(None)

    def stop(self) -> None:
        """End the process in order: controlled shutdown, logs closed. BrokerError if it takes longer than 30 s."""
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
            raise BrokerError(f"node {self.node_id} did not stop within {_STOP_S:.0f} s and was killed") from None

    def pause(self) -> None:
        """Freeze the process: its sockets stay open and nothing answers (SIGSTOP)."""
        self._signal("SIGSTOP")

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal("SIGCONT")

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self._log_from(0)[-_LOG_TAIL_CHARS:]

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
        self._guard.remove(self._process.pid)

    def _wait_ready(self, start_of_log: int) -> None:
        """Wait until the broker answers and counts itself among the live ones: an open port comes long before that."""
        deadline = time.monotonic() + self._start_timeout
        while not _admin.serves_as(self.address, self._cluster_id, self.node_id, _ANSWER_S):
            if not self.running:
                text = self._log_from(start_of_log)
                kind = PortTakenError if "Address already in use" in text else BrokerError
                raise kind(f"Apache Kafka (node {self.node_id}) did not start; from its log:\n{_telling_part(text)}")
            if time.monotonic() > deadline:
                text = self._log_from(start_of_log)
                raise BrokerError(
                    f"Apache Kafka (node {self.node_id}) was not ready within {self._start_timeout:.0f} s; from its "
                    f"log:\n{_telling_part(text)}"
                )
            time.sleep(_POLL_S)

    def _format(self) -> None:
        """Do what Kafka's storage tool does, without a JVM."""
        self.data.mkdir(parents=True)
        meta = f"version=1\ncluster.id={self._cluster_id}\nnode.id={self.node_id}\n"
        (self.data / "meta.properties").write_text(meta, encoding="ascii")
        shutil.copyfile(self._installation.checkpoint, self.data / "bootstrap.checkpoint")

    @property
    def _settings(self) -> Path:
        return self.directory / "server.properties"

    def _write_settings(self, controller_port: int, properties: dict[str, str]) -> None:
        host, port = self.address
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{host}:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"{self.node_id}@{host}:{controller_port}",
            "log.dirs": self.data.as_posix(),
            **properties,
        }
        lines = [f"{key}={_escape(value)}\n" for key, value in settings.items()]
        self._settings.write_text("".join(lines), encoding="latin-1")


def _telling_part(log: str) -> str:
    """Return the first error and the end of a log: what Kafka writes while it shuts down hides why it does."""
    end = log[-_LOG_TAIL_CHARS:]
    error = log.find(" ERROR ")
    at = log.rfind("\n", 0, error) + 1
    if error < 0 or at >= len(log) - len(end):
        return end
    return f"{log[at : at + _LOG_TAIL_CHARS]}\n[...]\n{end}"


def _escape(value: str) -> str:
    """Write a value as Java's properties files want it: Latin-1, and a backslash starts an escape."""
    text = value.replace("\\", "\\\\").replace("\n", "\\n")
    if text[:1] == " ":
        text = "\\" + text
    return "".join(char if ord(char) < 128 else _unicode_escape(char) for char in text)


def _unicode_escape(char: str) -> str:
    data = char.encode("utf-16-be")
    return "".join(f"\\u{data[at]:02x}{data[at + 1]:02x}" for at in range(0, len(data), 2))
