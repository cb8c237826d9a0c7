"""`fastprod broker`, as a shell runs it."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from fastprod.cli import broker as command

# What is tested does not depend on the twin.
pytestmark = pytest.mark.native_only

PATIENCE_S = 120
PROGRAM = """
import argparse, sys
from fastprod.cli import broker
parser = argparse.ArgumentParser()
broker.add_parser(parser.add_subparsers(required=True))
arguments = parser.parse_args()
sys.exit(broker.run(arguments))
"""


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The temporary directory of the command, where its data goes."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    return directory


def run_command(temporary: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "broker", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )


@pytest.fixture
def started(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    process = run_command(temporary)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_alone_and_leaves_nothing(
    started: subprocess.Popen[str], temporary: Path, number: signal.Signals
) -> None:
    assert started.stdout is not None
    address = started.stdout.readline().rstrip("\n")
    metadata = AdminClient({"bootstrap.servers": address}).list_topics(timeout=PATIENCE_S)
    assert [f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()] == [address]
    assert len(list(temporary.iterdir())) == 1
    started.send_signal(number)
    rest, _ = started.communicate(timeout=PATIENCE_S)
    assert rest == ""
    assert started.returncode == 0
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("options", "count"), [(("--nodes", "3"), 3), (("--version", "2.8.2"), 1)])
def test_other_numbers_of_nodes_and_other_releases(temporary: Path, options: tuple[str, ...], count: int) -> None:
    process = run_command(temporary, *options)
    try:
        assert process.stdout is not None
        addresses = process.stdout.readline().rstrip("\n")
        metadata = AdminClient({"bootstrap.servers": addresses}).list_topics(timeout=PATIENCE_S)
        assert ",".join(f"{one.host}:{one.port}" for one in metadata.brokers.values()) == addresses
        assert len(metadata.brokers) == count
        # A ZooKeeper is one more.
        assert len(processes_in(temporary)) == (count if count > 1 else 2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert list(temporary.iterdir()) == []
    assert processes_in(temporary) == []


def processes_in(directory: Path) -> list[int]:
    """Every JVM has its temporary directory on its command line."""
    option = f"-Djava.io.tmpdir={directory}"
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if has(path, option)]


def test_it_says_when_the_broker_ended_by_itself(started: subprocess.Popen[str], temporary: Path) -> None:
    assert started.stdout is not None
    started.stdout.readline()
    (settings,) = temporary.glob("*/*/server.properties")
    # The only process that has this file on its command line is the broker.
    (pid,) = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if has(path, str(settings))]
    os.kill(pid, signal.SIGKILL)
    _, said = started.communicate(timeout=PATIENCE_S)
    assert started.returncode == 1
    assert "ended by itself" in said
    assert list(temporary.iterdir()) == []


def has(path: Path, text: str) -> bool:
    try:
        return text in path.read_text()
    except OSError:
        return False


def test_an_interrupt_before_it_is_ready_leaves_nothing(started: subprocess.Popen[str], temporary: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not list(temporary.glob("*/*/broker.log")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    out, said = started.communicate(timeout=PATIENCE_S)
    assert (started.returncode, out) == (130, "")
    assert "Traceback" not in said
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("options", [["--nodes", "10"], ["--version", "2.7.2"], ["--port", "99999"]])
def test_what_is_not_supported_is_refused(
    options: list[str], capsys: pytest.CaptureFixture[str], temporary: Path
) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    before = signal.getsignal(signal.SIGTERM)
    assert command.run(parser.parse_args(["broker", *options])) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "supported" in said.err
    assert signal.getsignal(signal.SIGTERM) is before
