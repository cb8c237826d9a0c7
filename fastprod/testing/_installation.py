"""What a start of Apache Kafka needs, and the command lines made of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fastprod.testing._java import Java

# All but the last are those of Kafka's own start script; the last keeps the JVM from leaving a file in the system's
# temporary directory when it is killed.
JVM_OPTIONS = (
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
    "-XX:-UsePerfData",
)


@dataclass(frozen=True)
class Installation:
    """Java, jars in class path order, the first records of a formatted metadata log (None: a release that keeps its
    metadata in ZooKeeper), a class archive (None: none)."""

    java: Java
    jars: tuple[Path, ...]
    checkpoint: Path | None
    archive: Path | None

    @property
    def class_path(self) -> str:
        """The jars as the JVM wants them."""
        return os.pathsep.join(map(str, self.jars))

    def command(self, heap: str, options: list[str], main: str, arguments: list[str]) -> list[str]:
        """Return the command line that runs class `main` with a largest heap of `heap` ("1g") and further JVM options.

        An archive that does not fit the JVM is ignored by it (`-Xshare:auto`), never an error.
        """
        archive = [f"-XX:SharedArchiveFile={self.archive}", "-Xshare:auto"] if self.archive is not None else []
        return [
            str(self.java.executable),
            f"-Xmx{heap}",
            *JVM_OPTIONS,
            *archive,
            *options,
            "-cp",
            self.class_path,
            main,
            *arguments,
        ]
