"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fastprod

_PACKAGES = ("confluent-kafka", "kafka-python", "aiokafka", "lz4", "zstandard", "cramjam", "crc32c")


def describe(server: str) -> dict[str, str]:
    """CPU, cores, memory, and the versions of everything that takes part."""
    found = {
        "CPU": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": platform.platform(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": server,
        "fastprod": f"{fastprod.__version__} ({fastprod.backend})",
    }
    return found | {package: _version(package) for package in _PACKAGES}


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
