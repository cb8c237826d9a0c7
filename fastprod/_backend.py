"""Chooses the twin, once, and never silently.

`FASTPROD_BACKEND=native` demands the compiled data plane, `=pure` the Python one; without it the compiled one is
taken, and where it is missing the Python one, on CPython with a warning. `backend` says which it became.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING

_SOURCE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_IN_SOURCE = os.path.exists(os.path.join(_SOURCE, "setup.py"))

if sys.implementation.name != "cpython":
    HOW_TO_GET_NATIVE = "run CPython: for this Python there is none"
elif _IN_SOURCE:
    HOW_TO_GET_NATIVE = (
        f"start Python outside of {_SOURCE}, whose sources come before an installed package, or compile them in place: "
        "install a C++ compiler and run `pip install -e .`"
    )
else:
    # Without --no-cache-dir pip would install once more what it built when there was no compiler.
    HOW_TO_GET_NATIVE = (
        "install a C++ compiler and run `pip install --force-reinstall --no-cache-dir --no-binary fastprod fastprod` "
        "(from a checkout: `pip install --force-reinstall .`)"
    )


def _warn(message: str) -> None:
    """Warn at the line of the program that imported fastprod: past our own files and the import system."""
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("fastprod", "importlib"):
        frame = frame.f_back
    warnings.warn_explicit(message, RuntimeWarning, frame.f_code.co_filename, frame.f_lineno)


_wanted = os.environ.get("FASTPROD_BACKEND", "")
if _wanted not in ("", "native", "pure"):
    raise ImportError(f"FASTPROD_BACKEND={_wanted!r} is neither 'native' nor 'pure'; unset it or name one of them.")

backend = _wanted or "native"
"""What this process runs on: "native" or "pure"."""

if not TYPE_CHECKING and backend == "native":
    try:
        from fastprod._core import *  # noqa: F403  (the names are the twins' shared __all__)
    except ImportError as error:
        if _wanted:
            raise ImportError(
                f"FASTPROD_BACKEND=native, but the compiled extension cannot be loaded ({error}): {HOW_TO_GET_NATIVE}"
            ) from error
        backend = "pure"
        # Other Pythons have no compiled one.
        if sys.implementation.name == "cpython":
            _warn(
                f"fastprod runs on its pure-Python twin, which is many times slower ({error}). "
                f"To get the compiled one, {HOW_TO_GET_NATIVE}. FASTPROD_BACKEND=pure silences this."
            )

# The typed twin is what type checkers read; at run time only one of the two is loaded.
if TYPE_CHECKING or backend == "pure":
    from fastprod._pure import *  # noqa: F403
