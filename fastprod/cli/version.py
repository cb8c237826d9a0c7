"""`fastprod --version`: what is installed, and what this process would run on."""

from __future__ import annotations

import os
import platform
import warnings
from importlib import import_module

from fastprod._version import __version__
from fastprod.cli.failure import CommandError


def version_text() -> str:
    """Return the lines that `--version` prints.

    CommandError where FASTPROD_BACKEND asks for what cannot be had.
    """
    try:
        with warnings.catch_warnings():
            # The warning about a missing extension says what stands below.
            warnings.simplefilter("ignore", RuntimeWarning)
            from fastprod import _backend
    except ImportError as error:
        raise CommandError(str(error)) from error
    from fastprod import compression

    lines = [f"fastprod {__version__}", f"backend: {_backend.backend}"]
    if _backend.backend == "pure":
        trouble = _trouble()
        asked_for = os.environ.get("FASTPROD_BACKEND") == "pure"
        lines[-1] += f" ({'because FASTPROD_BACKEND=pure' if asked_for else trouble})"
        how = _backend.HOW_TO_GET_NATIVE if trouble else "unset FASTPROD_BACKEND"
        lines.append(f"to get the compiled backend: {how}")
    linked = {codec: f"{library} (linked)" for codec, library in _backend.linked_codecs().items()}
    packages = {codec: f"{package} (package)" for codec, package in compression.versions().items()}
    codecs = ", ".join(f"{codec}: {what}" for codec, what in {**packages, **linked}.items())
    lines += [
        f"CRC-32C: {_backend.crc32c_implementation()}",
        f"codecs: {codecs}",
        f"Python: {platform.python_version()} on {platform.system()} {platform.machine()}",
    ]
    return "\n".join(lines)


def _trouble() -> str:
    """Return why the compiled extension cannot be loaded, "" where it can."""
    try:
        import_module("fastprod._core")
    except ImportError as error:
        return f"the compiled extension cannot be loaded: {error}"
    return ""
