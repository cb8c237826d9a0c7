"""The ZooKeeper that brokers before KRaft keep their metadata in: one process, from the jars of that Kafka release."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from fastprod.testing._errors import BrokerError
from fastprod.testing._guard import Guard
from fastprod.testing._installation import Installation
from fastprod.testing._ports import HOST
from fastprod.testing._process import Process, jvm_options
from fastprod.testing._settings import write_properties

_HEAP = "256m"
_POLL_S = 0.02
_ANSWER_S = 1.0
_FORGET_S = 30.0
# ZooKeeper grants sessions of 2 to 20 ticks; those of our brokers are to last 3 s.
_TICK_MS = 500


class ZooKeeper(Process):
    """A ZooKeeper on 127.0.0.1. Its directory is created."""

    def __init__(self, directory: Path, installation: Installation, guard: Guard, port: int) -> None:
        super().__init__("its ZooKeeper", directory, guard)
        self.port = port
        self._directory = directory
        self._installation = installation
        directory.mkdir(parents=True)
        settings = {
            "dataDir": (directory / "data").as_posix(),
            "clientPort": str(port),
            "clientPortAddress": HOST,
            "tickTime": str(_TICK_MS),
            "maxClientCnxns": "0",
            # A web server on a fixed port, otherwise.
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "ruok,dump",
        }
        write_properties(directory / "zookeeper.properties", settings)

    def start(self, timeout: float) -> None:
        """Start it and wait until it answers.

        Raises:
            PortTakenError: another process has its port.
            BrokerError: it runs already, ended, or did not answer within `timeout` s.
        """
        main, arguments = "org.apache.zookeeper.server.quorum.QuorumPeerMain", ["zookeeper.properties"]
        self.launch(self._installation.command(_HEAP, jvm_options(self._directory), main, arguments))
        deadline = time.monotonic() + timeout
        try:
            while self._ask("ruok") != "imok":
                self.check()
                if time.monotonic() > deadline:
                    raise BrokerError(f"ZooKeeper did not answer within {timeout:.0f} s: {self.telling_part()}")
                time.sleep(_POLL_S)
        except BaseException:
            self.kill()
            raise

    def wait_forgotten(self, broker_id: int) -> None:
        """Wait until a killed broker's session is over: before that the broker may not come back under its id.

        BrokerError if that takes longer than 30 s.
        """
        deadline = time.monotonic() + _FORGET_S
        while f"/brokers/ids/{broker_id}\n" in self._ask("dump"):
            if time.monotonic() > deadline:
                raise BrokerError(f"the ZooKeeper session of node {broker_id} did not end within {_FORGET_S:.0f} s")
            time.sleep(_POLL_S)

    def _ask(self, word: str) -> str:
        """Send a four-letter word; empty if no answer comes."""
        parts = []
        try:
            with socket.create_connection((HOST, self.port), _ANSWER_S) as connection:
                connection.sendall(word.encode())
                while part := connection.recv(65536):
                    parts.append(part)
        except OSError:
            return ""
        return b"".join(parts).decode(errors="replace")
