"""The parent's side of a measurement's process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from comparing.contenders import CONTENDERS
from comparing.job import OUTCOME, Job, Outcome

_COMPARE = Path(__file__).resolve().parent.parent / "compare.py"
_LIMIT_S = 600
_TAIL_CHARS = 600


class VoidError(Exception):
    """The run does not count; the message says why."""


class ChildProcess:
    """A fresh Python that runs one job; as a context manager it never outlives the `with` block."""

    def __init__(self, job: Job) -> None:
        environment = dict(os.environ)
        backend = CONTENDERS[job.contender].backend
        if backend:
            environment["FASTPROD_BACKEND"] = backend
        # Open for as long as the process is.
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(_COMPARE), "--measure", job.to_json()],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._limit = threading.Timer(_LIMIT_S, self._process.kill)

    def __enter__(self) -> Self:
        self._limit.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.cancel()
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def tell(self, word: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def wait_for(self, word: str) -> None:
        """Read until a line is `word`. VoidError if that never comes."""
        self._line_with(word)

    def outcome(self) -> Outcome:
        """What the client says of itself. VoidError if it failed."""
        found = Outcome.from_json(self._line_with(OUTCOME)[len(OUTCOME) :])
        assert self._process.stdout is not None
        self._process.stdout.read()
        if self._process.wait():
            raise VoidError(f"the client ended with exit status {self._process.returncode}: {self._said()}")
        return found

    def _line_with(self, start: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line
        raise VoidError(
            f"the client failed or took more than {_LIMIT_S} s (exit status {self._process.wait()}): {self._said()}"
        )

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().strip()[-_TAIL_CHARS:] or "it said nothing"
