"""What every test run agrees on: which twin is tested, where it was loaded from, and what is hidden from it.

`FASTPROD_BACKEND` names the twin. `FASTPROD_TEST_INSTALLED` demands that it was loaded from where packages are
installed to, not from a checkout. `FASTPROD_TEST_HIDE` is a comma list of packages that cannot be imported in this
run, as on a machine that does not have them.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import hypothesis
import leaks
import pytest

HIDDEN = frozenset(filter(None, os.environ.get("FASTPROD_TEST_HIDE", "").split(",")))
ROOT = Path(__file__).resolve().parent.parent


class _Hider(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {fullname!r} (hidden by FASTPROD_TEST_HIDE)", name=fullname)
        return None


if HIDDEN:
    sys.meta_path.insert(0, _Hider())


# A machine that is busy is slow, which is no error of the example it happens to be at. In CI the examples are the same
# each time: what is found by chance is found while working, not while something else is judged.
hypothesis.settings.register_profile(
    "patient", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    # A shell has what it starts in the background ignore Ctrl-C, and that would be handed on to what tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "native_only: needs the compiled twin, or no twin; run once, with it")
    config.addinivalue_line("markers", "pure_only: about the Python twin, whichever is loaded; run once, with it")
    import fastprod

    wanted = os.environ.get("FASTPROD_BACKEND")
    if wanted and fastprod.backend != wanted:
        raise pytest.UsageError(f"FASTPROD_BACKEND={wanted}, but fastprod.backend is {fastprod.backend}")
    if os.environ.get("FASTPROD_TEST_INSTALLED"):
        loaded = importlib.import_module("fastprod._core" if fastprod.backend == "native" else "fastprod").__file__
        if "site-packages" not in Path(loaded or "").parts:
            raise pytest.UsageError(f"the tests must run on the installed package, not on {loaded}")


def pytest_collection_finish() -> None:
    # All that stays to the end, the tests themselves above all: a look at what lives need not go through it each time.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> None:
    leaks.remember(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        leaks.note_failure(item)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Around all others: fixtures have ended by then, and what the test logged is forgotten."""
    yield
    leaks.check(item)


@pytest.fixture(autouse=True)
def _count_real_broker_tests(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[None]:
    """Let the report say which tests ran on a real Kafka."""
    yield
    broker = sys.modules.get("fastprod.testing.broker")
    given = request.node.funcargs or {}   # None once the run was interrupted
    if broker is not None and any(isinstance(value, broker.KafkaBroker) for value in given.values()):
        record_property("real_broker", "yes")
