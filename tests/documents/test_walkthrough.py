"""A reader who has only the docs: gets a producer running, kills its Kafka, and finds in the error catalogue what it is
that they see. Every step is a block of the quick start."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .catalogue import about, entries
from .pages import DOCS, as_pattern, marked
from .reader import ADDRESS, PATIENCE_S, environment, run_program, save

QUICK_START = DOCS / "index.md"
Broker = subprocess.Popen[str]


class Terminal:
    """A terminal in which the reader starts the quick start's broker; again on the same port."""

    def __init__(self) -> None:
        (block,) = marked(QUICK_START, "broker")
        self._command = block.text.strip()
        self.servers = ""
        self.process: Broker | None = None

    def start(self) -> None:
        # The port that the page names may be somebody else's here; the first start takes any, later ones that again.
        port = self.servers.rpartition(":")[2] or "0"
        command = self._command.replace(ADDRESS.rpartition(":")[2], port)
        assert command != self._command
        assert command.startswith("fastprod broker ")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(command)],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
        assert self.servers in ("", address)
        self.servers = address

    def press_ctrl_c(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE_S) == 0

    def kill_node(self) -> None:
        """What the page does not say, and does happen: the Kafka itself dies."""
        assert self.process is not None
        (node,) = [each for each in psutil.Process(self.process.pid).children() if each.name() == "java"]
        node.kill()
        assert self.process.wait(PATIENCE_S) == 1

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with contextlib.closing(Terminal()) as made:
        made.start()
        yield made


@pytest.fixture
def shop(terminal: Terminal, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The program that goes on while its Kafka dies."""
    (block,) = marked(QUICK_START, "shop")
    file = save(block.text, tmp_path, terminal.servers)
    assert file.name == "shop.py"
    running = subprocess.Popen(
        [sys.executable, str(file)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield running
    running.kill()
    running.communicate()


def until(running: subprocess.Popen[str], words: str) -> str:
    """Read what a program prints up to a line with these words, and return that line."""
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if words in line:
            return line
    raise AssertionError(f"it ended without {words!r}: {''.join(said)}")


@pytest.mark.native_only
def test_the_first_program_prints_what_the_page_says(terminal: Terminal, tmp_path: Path) -> None:
    program, printed = marked(QUICK_START, "first")
    assert run_program(program.text, tmp_path, terminal.servers) == printed.text
    assert (tmp_path / "first.py").is_file()


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(Terminal.press_ctrl_c, id="ctrl_c"),
        pytest.param(Terminal.kill_node, id="node_killed", marks=pytest.mark.native_only),
    ],
)
def test_a_kafka_that_dies_is_understood(
    terminal: Terminal, shop: subprocess.Popen[str], kill: Callable[[Terminal], None],
    record_property: Callable[[str, object], None],
) -> None:
    record_property("real_broker", "yes")
    until(shop, "is at offset")
    kill(terminal)

    # What the page shows is what is seen.
    (shown,) = marked(QUICK_START, "seen")
    first_line, second_line = shown.text.splitlines()
    seen = [until(shop, " failed: "), until(shop, "retriable: ")]
    if "maybe_written: True" in seen[1]:   # it was on its way just then, which the next one was not
        seen = [until(shop, " failed: "), until(shop, "retriable: ")]
    assert as_pattern(first_line).fullmatch(seen[0].strip()), seen[0]
    assert seen[1].strip() == second_line

    # The catalogue has the class, says of it what the program saw, and has a row for the message, and for its reason.
    error = seen[0].partition(" failed: ")[2].strip()
    name = error.partition(":")[0]
    (entry,) = [each for each in entries() if each.name == name]
    assert entry.retriable == "yes"
    assert f"errors.md#{name.lower()}" in QUICK_START.read_text(encoding="utf-8")
    found = about(error)
    assert found[0].message.startswith("Expiring ")
    assert all(each.advice for each in found)
    (reason,) = [each for each in found if each.message.startswith("Its leader, broker")]
    assert "Connection refused" in error
    assert "`Connection refused`: nobody listens there, so it is down" in reason.happened

    # And what it says helps.
    assert reason.advice.startswith("start that broker; the producer goes on by itself")
    terminal.start()
    until(shop, "is at offset")
