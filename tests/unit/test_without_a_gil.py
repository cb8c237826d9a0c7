"""What fastprod does to an interpreter without a GIL: it leaves it so.

CPython turns the GIL on, and warns, when a module is imported that does not declare that it may run without. An
interpreter that was built with a GIL has it, whatever is imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def has_gil_after(program: str) -> bool:
    """Whether an interpreter that has run this has its GIL on."""
    # The variable forces it off or on, whatever is imported.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    asked = f"{program}\nimport sys; print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", asked]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1] == "True"


@pytest.mark.parametrize("program", [
    "from fastprod import KafkaProducer, close_on_sigterm, errors, partitioners, serializers",
    "import fastprod.control.producer",          # what the first producer loads
    "import fastprod.control.diagnosis",
    "from fastprod.compression import compressor; compressor('gzip'); compressor('snappy')",
    pytest.param("import fastprod._core", marks=pytest.mark.native_only),
])  # fmt: skip
def test_importing_it_leaves_the_gil_as_it_was(program: str) -> None:
    assert has_gil_after(program) == (not FREE_THREADED)


@pytest.mark.native_only
def test_a_build_with_a_gil_declares_nothing_else() -> None:
    """What such a build is made of says it as well, though nothing looks at it there: it is the same source."""
    directives = re.findall(r"^# cython: (.*)$", (ROOT / "fastprod" / "_core.pyx").read_text(encoding="ascii"), re.M)
    assert "freethreading_compatible=True" in ", ".join(directives).split(", ")
