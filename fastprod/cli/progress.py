"""A progress bar on standard error, where that is a terminal; nothing at all where it is not.

A thread of its own looks at how far the work is, a few times a second, so that the work itself never has to say.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

_INTERVAL_S = 0.1


class State(NamedTuple):
    """How far the work is: `done` of the total, and what to say beside the bar."""

    done: int
    text: str


class _Bar(Protocol):
    def show(self, state: State) -> None: ...

    def end(self) -> None: ...


class Progress:
    """Shows progress while its `with` block runs, and leaves nothing behind.

    `look` returns the present state and is called from another thread. `total` None: not known in advance.
    """

    def __init__(self, label: str, total: int | None, look: Callable[[], State], *, wanted: bool = True) -> None:
        self._look = look
        self._bar = _bar(label, total) if wanted and sys.stderr.isatty() else None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="fastprod-progress", daemon=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._over.set()
            self._thread.join()
            self._bar.end()

    def _follow(self) -> None:
        assert self._bar is not None
        while not self._over.wait(_INTERVAL_S):
            self._bar.show(self._look())


def _bar(label: str, total: int | None) -> _Bar:
    """Return rich's bar where rich is installed (extra `demo`), else a plain line."""
    try:
        progress: Any = import_module("rich.progress")
        console: Any = import_module("rich.console")
    except ImportError:
        return _PlainBar(label, total)
    return _RichBar(progress, console, label, total)


class _RichBar:
    def __init__(self, progress: Any, console: Any, label: str, total: int | None) -> None:
        self._progress = progress.Progress(
            progress.TextColumn(label, markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[text]}", markup=False),
            progress.TimeElapsedColumn(),
            console=console.Console(file=sys.stderr),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task(label, total=total, text="")
        self._progress.start()

    def show(self, state: State) -> None:
        self._progress.update(self._task, completed=state.done, text=state.text, refresh=True)

    def end(self) -> None:
        self._progress.stop()


class _PlainBar:
    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._width = 0

    def show(self, state: State) -> None:
        share = f" {100 * state.done // self._total}%" if self._total else ""
        # One column is left free: a full line would make the terminal scroll.
        line = f"{self._label}{share} {state.text}"[: shutil.get_terminal_size().columns - 1]
        self._write(line)

    def end(self) -> None:
        self._write("")
        self._write("")

    def _write(self, line: str) -> None:
        sys.stderr.write(f"\r{line.ljust(self._width)}")
        sys.stderr.flush()
        self._width = len(line)
